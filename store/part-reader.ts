/**
 * What a record has written into an appender file, as long as it waits in its part: the file itself may have been changed there
 * since.
 */
import { DfsError } from '../protocol/errors.ts'
import type { Disk, DiskFile } from '../runtime/world.ts'
import { BLOCK_BYTES } from './block-pool.ts'
import type { OpenFile } from './stored-file.ts'

export class PartReader implements OpenFile {
  readonly sizeBytes: number
  /** A part has no sum: it lives for seconds. */
  readonly crc32 = 0
  readonly #file: DiskFile

  private constructor(file: DiskFile, sizeBytes: number) {
    this.#file = file
    this.sizeBytes = sizeBytes
  }

  /** Undefined if the part is not there any more. */
  static async open(disk: Disk, path: string): Promise<PartReader | undefined> {
    const file = await disk.open(path, 'read').catch(error => {
      if ((error as { errno?: string }).errno !== 'ENOENT') throw error
      return undefined
    })
    if (file === undefined) return undefined
    try {
      return new PartReader(file, await file.sizeBytes())
    } catch (error) {
      await file.close()
      throw error
    }
  }

  async readBlocks(firstBlock: number, target: Buffer): Promise<Buffer> {
    const wanted = Math.min(target.length, this.sizeBytes - firstBlock * BLOCK_BYTES)
    const count = await this.#file.read(target.subarray(0, wanted), firstBlock * BLOCK_BYTES)
    if (count < wanted) throw new DfsError('unavailable', 'a part was cut while it was read')
    return target.subarray(0, wanted)
  }

  async crc32Of(): Promise<undefined> {}

  close(): Promise<void> {
    return this.#file.close()
  }
}
