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
import type { BinlogRecord } from '../protocol/binlog-record.ts'
import { DfsError } from '../protocol/errors.ts'
import type { FileNameParts } from '../protocol/file-id.ts'
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

  /** Does what a record says; may be done again. */
  change(storePath: StorePath, file: FileNameParts, sequence: number, change: AppenderChange): Promise<void> {
    const { token } = change
    if (token !== undefined) this.#parts.push({ sequence, storePath, token })
    return this.#turns.take(storePath.pathOf(file), () => changeAppender(this.#disk, storePath, file, change))
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
      if (range !== undefined) await changeAppender(disk, storePath, file, { offset: range.offset, token })
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
): Promise<void> {
  const path = storePath.pathOf(file)
  // At a peer it may have been deleted at its source before it came.
  if ((await disk.stat(path)) === undefined) return
  const data = await disk.open(path, 'update')
  try {
    const sidecar = await Sidecar.read(disk, path)
    if (sidecar === undefined) throw new DfsError('corrupt', `${path} has no sidecar that says what it is`)
    if (token === undefined) {
      const sizeBytes = Math.min(offset, sidecar.sizeBytes)
      await data.truncate(sizeBytes)
      await sumAnew(data, sidecar, sizeBytes, sizeBytes)
    } else {
      const untilBytes = offset + (await copy(disk, storePath.temporaryPath(token), data, offset))
      // Behind an end that lies before the offset there are zeros.
      await sumAnew(data, sidecar, Math.min(offset, sidecar.sizeBytes), Math.max(untilBytes, sidecar.sizeBytes))
    }
    // As a whole: there is always one that says how long the file was at some time since the checkpoint.
    await replaceFile(disk, sidecarPath(path), sidecar.bytes)
  } finally {
    await data.close()
  }
  storePath.noteFile(path)
}

/** Copies a part into a file; returns how many bytes it has. */
async function copy(disk: Disk, from: string, to: DiskFile, offset: number): Promise<number> {
  const part = await disk.open(from, 'read')
  const buffer = Buffer.allocUnsafe(BLOCK_BYTES)
  let copied = 0
  try {
    for (;;) {
      const count = await part.read(buffer, copied)
      if (count === 0) return copied
      await to.write([buffer.subarray(0, count)], offset + copied)
      copied += count
    }
  } finally {
    await part.close()
  }
}

/** Sums all blocks from an offset on, of a file that has a new size. */
async function sumAnew(data: DiskFile, sidecar: Sidecar, fromBytes: number, sizeBytes: number): Promise<void> {
  sidecar.resize(sizeBytes)
  const buffer = Buffer.allocUnsafe(BLOCK_BYTES)
  for (let block = Math.floor(fromBytes / BLOCK_BYTES); block * BLOCK_BYTES < sizeBytes; block++) {
    const wanted = Math.min(BLOCK_BYTES, sizeBytes - block * BLOCK_BYTES)
    const count = await data.read(buffer.subarray(0, wanted), block * BLOCK_BYTES)
    sidecar.sum(block, buffer.fill(0, count, wanted).subarray(0, wanted))
  }
}
