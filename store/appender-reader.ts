/** An appender file that is read while it may change: by whole blocks that fit the sidecar of the moment. */
import { DfsError } from '../protocol/errors.ts'
import type { Disk, DiskFile } from '../runtime/world.ts'
import { BLOCK_BYTES } from './block-pool.ts'
import { Sidecar } from './sidecar.ts'
import type { OpenFile } from './stored-file.ts'

/** Does something while the file does not change. */
export type Turn = <T>(work: () => Promise<T>) => Promise<T>

export class AppenderReader implements OpenFile {
  /** As it was when it was opened: what is appended since is not read. */
  readonly sizeBytes: number
  readonly crc32: number
  readonly #disk: Disk
  readonly #path: string
  readonly #file: DiskFile
  readonly #turn: Turn

  readonly #inode: bigint | undefined

  private constructor(
    disk: Disk,
    path: string,
    { file, inode }: { file: DiskFile; inode: bigint | undefined },
    turn: Turn,
    sidecar: Sidecar,
  ) {
    this.#disk = disk
    this.#path = path
    this.#file = file
    this.#inode = inode
    this.#turn = turn
    this.sizeBytes = sidecar.sizeBytes
    this.crc32 = sidecar.crc32
  }

  /** Rejects with a DiskError, errno `ENOENT` if it is not there, and with `corrupt` without a sidecar. */
  static open(disk: Disk, path: string, turn: Turn): Promise<AppenderReader> {
    return turn(async () => {
      const file = await disk.open(path, 'read')
      try {
        const inode = (await disk.stat(path))?.inode
        return new AppenderReader(disk, path, { file, inode }, turn, await Sidecar.read(disk, path))
      } catch (error) {
        await file.close()
        throw error
      }
    })
  }

  /** As `StoredFile`; rejects with `unavailable` or `not_found` if the file was cut, replaced or deleted since. */
  readBlocks(firstBlock: number, target: Buffer): Promise<Buffer> {
    return this.#turn(async () => {
      // One that was deleted meanwhile is not damaged.
      const entry = await this.#disk.stat(this.#path)
      if (entry === undefined) throw new DfsError('not_found')
      if (entry.inode !== this.#inode) throw new DfsError('unavailable', 'the file was replaced while it was read')
      const sidecar = await Sidecar.read(this.#disk, this.#path)
      if (sidecar.sizeBytes < this.sizeBytes) throw new DfsError('unavailable', 'the file was cut while it was read')
      const offsetBytes = firstBlock * BLOCK_BYTES
      const wanted = Math.min(target.length, sidecar.sizeBytes - offsetBytes)
      const count = await this.#file.read(target.subarray(0, wanted), offsetBytes)
      for (let at = 0; at < wanted; at += BLOCK_BYTES) {
        const block = target.subarray(at, Math.min(at + BLOCK_BYTES, wanted))
        const index = firstBlock + at / BLOCK_BYTES
        if (at + block.length > count || !sidecar.fits(index, block))
          throw new DfsError('corrupt', `block ${index} of ${this.#path} fails its checksum`)
      }
      return target.subarray(0, Math.min(wanted, this.sizeBytes - offsetBytes))
    })
  }

  /** What a file was that changes does not tell what it is. */
  async crc32Of(): Promise<undefined> {}

  async close(): Promise<void> {
    await this.#file.close()
  }
}
