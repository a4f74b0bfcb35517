/**
 * A plain file on its way in: bytes go to a temporary file, checksums are taken as they pass, and `seal` makes file,
 * sidecar and their directory entries durable. Only then may a binlog record name it.
 */
import { DfsError } from '../protocol/errors.ts'
import type { Disk, DiskFile } from '../runtime/world.ts'
import { allDone } from './all-done.ts'
import type { BlockPool } from './block-pool.ts'
import { hasSidecar, SidecarWriter, sidecarPath } from './sidecar.ts'
import type { StorePath } from './store-path.ts'

/** Smaller files are soon read again, and page caches hold many of them. */
const DIRECT_BYTES_MIN = 8 * 1024 * 1024

/** Whether a file stays in the page cache as it comes in, or is shipped; one of unknown size is taken for a large one. */
export function isCached(expectedBytes: number): boolean {
  return expectedBytes > 0 && expectedBytes < DIRECT_BYTES_MIN
}

/**
 * What a file will be: plain, with a sidecar if it has several blocks; a slave or appender file, whose name does not say its
 * size, with one in any case; or a part of an appender file, without.
 */
export type FileKind = 'plain' | 'slave' | 'appender' | 'part'

export class IncomingFile {
  readonly storePath: StorePath
  /** Names the temporary file, also in the binlog record. */
  readonly token: string
  readonly #disk: Disk
  readonly #file: DiskFile
  /** Counted as taken on the store path until its next measurement. */
  #reservedBytes: number
  readonly #sums = new SidecarWriter()
  #sizeBytes = 0
  #open = true
  readonly #kind: FileKind

  private constructor(
    disk: Disk,
    storePath: StorePath,
    token: string,
    file: DiskFile,
    { expectedBytes, kind }: { expectedBytes: number; kind: FileKind },
  ) {
    this.#disk = disk
    this.storePath = storePath
    this.token = token
    this.#file = file
    this.#kind = kind
    this.#reservedBytes = expectedBytes
    storePath.reserve(expectedBytes)
  }

  /** Makes the temporary file. Room for the expected bytes has been found already; further ones need more. */
  static async create(
    disk: Disk,
    storePath: StorePath,
    token: string,
    { expectedBytes = 0, kind = 'plain' }: { expectedBytes?: number; kind?: FileKind | undefined } = {},
  ): Promise<IncomingFile> {
    const way = isCached(expectedBytes) ? undefined : 'direct'
    const file = await disk.open(storePath.temporaryPath(token), 'create', way)
    return new IncomingFile(disk, storePath, token, file, { expectedBytes, kind })
  }

  get sizeBytes(): number {
    return this.#sizeBytes
  }

  /** CRC32 of everything written so far. */
  get crc32(): number {
    return this.#sums.crc32
  }

  /**
   * Writes the next blocks; all but the very last must be full. They may be reused when it resolves; the next ones may be
   * given before. Rejects with `no_space` when bytes that nobody announced would take the path's reserve.
   */
  async write(blocks: Buffer): Promise<void> {
    const offsetBytes = this.#sizeBytes
    this.#sizeBytes += blocks.length
    if (this.#sizeBytes > this.#reservedBytes) {
      this.storePath.reserve(blocks.length)
      this.#reservedBytes += blocks.length
      if (this.storePath.availableBytes === 0) throw new DfsError('no_space')
    }
    const written = this.#file.write([blocks], offsetBytes)
    // The checksums are taken while the disk works.
    this.#sums.add(blocks)
    await written
  }

  /** Whether the disk gives what was written so far, which is full blocks. */
  async isIntact(pool: BlockPool): Promise<boolean> {
    const sums = new SidecarWriter()
    const buffer = await pool.acquirePiece(this.#sizeBytes)
    try {
      for (let at = 0; at < this.#sizeBytes; at += buffer.length) {
        const blocks = buffer.subarray(0, this.#sizeBytes - at)
        if ((await this.#file.read(blocks, at)) < blocks.length) return false
        sums.add(blocks)
      }
    } finally {
      pool.release(buffer)
    }
    return sums.crc32 === this.crc32
  }

  /** Makes everything durable, as far as the store path does, and closes the file. */
  async seal(): Promise<void> {
    const { syncs } = this.storePath
    const synced = syncs ? [this.#file.sync()] : []
    if (this.#hasSidecar()) synced.push(this.#writeSidecar(syncs))
    // Both have ended before anybody clears away after a failure: a sidecar that came later would be left behind.
    await allDone(synced)
    await this.#close()
    if (syncs) await this.storePath.syncTemporary()
  }

  /** Throws the file away; to be called whenever it was not committed. */
  async discard(): Promise<void> {
    await this.#close()
    this.storePath.reserve(-this.#reservedBytes)
    this.#reservedBytes = 0
    await this.#disk.remove(this.storePath.temporaryPath(this.token)).catch(ignoreMissing)
    await this.#disk.remove(sidecarPath(this.storePath.temporaryPath(this.token))).catch(ignoreMissing)
  }

  #hasSidecar(): boolean {
    return this.#kind === 'plain' ? hasSidecar(this.#sizeBytes) : this.#kind !== 'part'
  }

  async #writeSidecar(syncs: boolean): Promise<void> {
    const file = await this.#disk.open(sidecarPath(this.storePath.temporaryPath(this.token)), 'create')
    try {
      await file.write([this.#sums.encode(this.#sizeBytes)], 0)
      if (syncs) await file.sync()
    } finally {
      await file.close()
    }
  }

  async #close(): Promise<void> {
    if (!this.#open) return
    this.#open = false
    await this.#file.close()
  }
}

/** What is left behind by a failed removal is swept at the next start. */
function ignoreMissing(): void {}

/** Throws `digest_mismatch` unless the file has this size and sum. */
export function checkContent(file: IncomingFile, sizeBytes: number | undefined, sum: number): void {
  if (file.sizeBytes !== sizeBytes || file.crc32 !== sum) {
    throw new DfsError('digest_mismatch', `got ${file.sizeBytes} bytes, CRC32 ${file.crc32.toString(16)}`)
  }
}
