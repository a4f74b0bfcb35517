/**
 * Appender files: the only ones whose bytes change in place. What is written lies in a temporary file of its own, durable
 * before its record; from there it is copied to where it belongs, and stays until a checkpoint has made that durable:
 *
 *     part durable ──▶ record durable ──▶ copied into the file, its sidecar anew ──▶ acknowledged
 *                                                       └──▶ file and sidecar synced ──▶ checkpoint ──▶ part removed
 *
 * After a crash, all records behind the checkpoint are done again in their order, each over whatever of it was done. If a
 * part is gone, the checkpoint that it waited for was written: that record and those before it are in the file.
 */
import { dirname } from 'node:path'
import type { BinlogRecord } from '../protocol/binlog-record.ts'
import { DfsError } from '../protocol/errors.ts'
import { type FileNameParts, mayChange } from '../protocol/file-id.ts'
import { replaceFile } from '../runtime/text-file.ts'
import type { Disk, DiskFile } from '../runtime/world.ts'
import { AppenderReader } from './appender-reader.ts'
import { BLOCK_BYTES } from './block-pool.ts'
import { removeTemporary } from './placing.ts'
import { Sidecar, sidecarPath } from './sidecar.ts'
import type { StorePath } from './store-path.ts'
import { Turns } from './turns.ts'

/** What a record does to an appender file: bytes of a part at an offset, or, without a part, a new end. */
export interface AppenderChange {
  readonly offset: number
  readonly token: string | undefined
}

export class AppenderFiles {
  readonly #disk: Disk
  /** Whoever reads waits for a change, and the other way round. */
  readonly #turns = new Turns()
  /** Parts that a checkpoint makes needless. */
  #parts: { readonly sequence: number; readonly storePath: StorePath; readonly token: string }[] = []

  constructor(disk: Disk) {
    this.#disk = disk
  }

  /** Opens one to be read as long as it is now. */
  open(storePath: StorePath, file: FileNameParts): Promise<AppenderReader> {
    const path = storePath.pathOf(file)
    return AppenderReader.open(this.#disk, path, work => this.#turns.take(path, work))
  }

  /** Opens, places or removes a file that may be there again afterwards, with its sidecar: nobody gets one of each. */
  inTurn<T>(storePath: StorePath, file: FileNameParts, work: () => Promise<T>): Promise<T> {
    return mayChange(file) ? this.#turns.take(storePath.pathOf(file), work) : work()
  }

  /**
   * Does what a record says. Rejects with `corrupt` if a block that it changes in part is bad: then what is left is not what
   * the records say, and loses its sidecar, so that none of it passes for good.
   */
  change(storePath: StorePath, file: FileNameParts, sequence: number, change: AppenderChange): Promise<void> {
    const { token } = change
    if (token !== undefined) this.#parts.push({ sequence, storePath, token })
    const path = storePath.pathOf(file)
    return this.#turns.take(path, async () => {
      try {
        await changeAppender(this.#disk, storePath, file, change, { checks: true })
      } catch (error) {
        if (error instanceof DfsError) await removeSidecar(this.#disk, storePath, file)
        throw error
      }
    })
  }

  /** A checkpoint covers records up to here: their parts are not needed any more. */
  async forget(untilSequence: number): Promise<void> {
    const covered = this.#parts.filter(({ sequence }) => sequence <= untilSequence)
    this.#parts = this.#parts.filter(({ sequence }) => sequence > untilSequence)
    // What is left behind is swept at the next start.
    for (const { storePath, token } of covered) await removeTemporary(this.#disk, storePath, token).catch(() => {})
  }
}

/** Does all of a file's records behind the checkpoint again, in order. Returns false if the file is not there, or damaged. */
export async function redoAppender(
  disk: Disk,
  storePath: StorePath,
  file: FileNameParts,
  records: readonly BinlogRecord[],
): Promise<boolean> {
  if ((await disk.stat(storePath.pathOf(file))) === undefined) return false
  let first = 0
  for (const [i, { token }] of records.entries()) {
    const isGone = token !== undefined && (await disk.stat(storePath.temporaryPath(token))) === undefined
    if (isGone) first = i + 1
  }
  try {
    for (const { token, range } of records.slice(first)) {
      // What a crash has left of a change need not fit its sums: the change is done again.
      const change = { offset: range!.offset, token }
      await changeAppender(disk, storePath, file, change, { checks: false })
    }
    return true
  } catch (error) {
    // One bad file does not keep a server from starting.
    if (!(error instanceof DfsError)) throw error
    return false
  }
}

async function changeAppender(
  disk: Disk,
  storePath: StorePath,
  file: FileNameParts,
  { offset, token }: AppenderChange,
  { checks }: { readonly checks: boolean },
): Promise<void> {
  const path = storePath.pathOf(file)
  // At a peer it may have been deleted at its source before it came.
  if ((await disk.stat(path)) === undefined) return
  const data = await disk.open(path, 'update')
  try {
    const sidecar = await Sidecar.read(disk, path)
    const partBytes = token === undefined ? 0 : await sizeOf(disk, storePath.temporaryPath(token))
    if (checks) await checkBlocks(data, sidecar, edgesOf({ offset, bytes: partBytes }, sidecar.sizeBytes))
    // Behind an end that lies before the offset there are zeros.
    const fromBytes = Math.min(offset, sidecar.sizeBytes)
    const untilBytes = token === undefined ? fromBytes : offset + partBytes
    if (token !== undefined) await copy(disk, storePath.temporaryPath(token), data, offset)
    else await data.truncate(untilBytes)
    sidecar.resize(token === undefined ? untilBytes : Math.max(untilBytes, sidecar.sizeBytes))
    await sumAnew(data, sidecar, fromBytes, untilBytes)
    // As a whole: there is always one that says how long the file was at some time since the checkpoint.
    await replaceFile(disk, sidecarPath(path), sidecar.bytes)
  } finally {
    await data.close()
  }
  storePath.noteFile(path)
}

/**
 * The blocks of a file that a change leaves some of their bytes: those in which it begins and ends, or the last one, if it
 * begins behind it. They are summed anew, so they have to be good.
 */
export function edgesOf({ offset, bytes }: { offset: number; bytes: number }, sizeBytes: number): ReadonlySet<number> {
  const edges = [Math.min(offset, sizeBytes), offset + bytes].filter(at => at % BLOCK_BYTES > 0 && at <= sizeBytes)
  return new Set(edges.map(at => Math.floor(at / BLOCK_BYTES)))
}

/** Throws `corrupt` unless blocks are good. */
async function checkBlocks(data: DiskFile, sidecar: Sidecar, blocks: Iterable<number>): Promise<void> {
  const { sizeBytes } = sidecar
  const buffer = Buffer.allocUnsafe(BLOCK_BYTES)
  for (const block of blocks) {
    const bytes = buffer.subarray(0, Math.min(BLOCK_BYTES, sizeBytes - block * BLOCK_BYTES))
    const count = await data.read(bytes, block * BLOCK_BYTES)
    if (count < bytes.length || !sidecar.fits(block, bytes))
      throw new DfsError('corrupt', `block ${block} of an appender file fails its checksum`)
  }
}

async function removeSidecar(disk: Disk, storePath: StorePath, file: FileNameParts): Promise<void> {
  const path = sidecarPath(storePath.pathOf(file))
  if ((await disk.stat(path)) === undefined) return
  await disk.remove(path)
  // A start that did the change again would not look at the blocks.
  await disk.syncDirectory(dirname(path))
}

async function sizeOf(disk: Disk, path: string): Promise<number> {
  const entry = await disk.stat(path)
  return entry?.sizeBytes ?? 0
}

/** Copies a part into a file. */
async function copy(disk: Disk, from: string, to: DiskFile, offset: number): Promise<void> {
  const part = await disk.open(from, 'read')
  const buffer = Buffer.allocUnsafe(BLOCK_BYTES)
  let copied = 0
  try {
    for (;;) {
      const count = await part.read(buffer, copied)
      if (count === 0) return
      await to.write([buffer.subarray(0, count)], offset + copied)
      copied += count
    }
  } finally {
    await part.close()
  }
}

/** Sums the blocks that have changed, and no others: a bad one must not come to fit. */
async function sumAnew(data: DiskFile, sidecar: Sidecar, fromBytes: number, untilBytes: number): Promise<void> {
  const buffer = Buffer.allocUnsafe(BLOCK_BYTES)
  for (let block = Math.floor(fromBytes / BLOCK_BYTES); block * BLOCK_BYTES < untilBytes; block++) {
    const wanted = Math.min(BLOCK_BYTES, sidecar.sizeBytes - block * BLOCK_BYTES)
    const count = await data.read(buffer.subarray(0, wanted), block * BLOCK_BYTES)
    sidecar.sum(block, buffer.fill(0, count, wanted).subarray(0, wanted))
  }
}
