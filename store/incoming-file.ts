/**
 * A plain file on its way in: bytes go to a temporary file, checksums are taken as they pass, and `seal` makes file,
 * sidecar and their directory entries durable. Only then may a binlog record name it.
 */
import { crc32 } from '@node-rs/crc32'
import { DfsError } from '../protocol/errors.ts'
import type { Disk, DiskFile } from '../runtime/world.ts'
import { hasSidecar, SidecarWriter, sidecarPath } from './sidecar.ts'
import type { StorePath } from './store-path.ts'

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
  #crc32 = 0
  #open = true

  private constructor(disk: Disk, storePath: StorePath, token: string, file: DiskFile, expectedBytes: number) {
    this.#disk = disk
    this.storePath = storePath
    this.token = token
    this.#file = file
    this.#reservedBytes = expectedBytes
    storePath.reserve(expectedBytes)
  }

  /** Makes the temporary file. Room for the expected bytes has been found already; further ones need more. */
  static async create(disk: Disk, storePath: StorePath, token: string, expectedBytes = 0): Promise<IncomingFile> {
    return new IncomingFile(
      disk,
      storePath,
      token,
      await disk.open(storePath.temporaryPath(token), 'create'),
      expectedBytes,
    )
  }

  get sizeBytes(): number {
    return this.#sizeBytes
  }

  /** CRC32 of everything written so far. */
  get crc32(): number {
    return this.#crc32
  }

  /**
   * Writes the next block; all but the last must be full. The block may be reused when it resolves. Rejects with
   * `no_space` when bytes that nobody announced would take the path's reserve.
   */
  async write(block: Buffer): Promise<void> {
    const offsetBytes = this.#sizeBytes
    this.#sizeBytes += block.length
    if (this.#sizeBytes > this.#reservedBytes) {
      this.storePath.reserve(block.length)
      this.#reservedBytes += block.length
      if (this.storePath.availableBytes === 0) throw new DfsError('no_space')
    }
    const written = this.#file.write([block], offsetBytes)
    // The checksums are taken while the disk works.
    this.#crc32 = crc32(block, this.#crc32)
    this.#sums.add(block)
    await written
  }

  /** Makes everything durable, as far as the store path does, and closes the file. */
  async seal(): Promise<void> {
    const { syncs } = this.storePath
    const synced = syncs ? [this.#file.sync()] : []
    if (hasSidecar(this.#sizeBytes)) synced.push(this.#writeSidecar(syncs))
    // Both have ended before anybody clears away after a failure: a sidecar that came later would be left behind.
    await Promise.allSettled(synced)
    await Promise.all(synced)
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
