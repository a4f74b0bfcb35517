/** A plain file that is there: read block by block, and no block is shown that fails its checksum. */
import { crc32, crc32c } from '@node-rs/crc32'
import { DfsError } from '../protocol/errors.ts'
import type { Disk, DiskFile } from '../runtime/world.ts'
import { BLOCK_BYTES } from './block-pool.ts'
import { crcOffset, hasSidecar, isSidecarOf, SIDECAR_HEADER_BYTES, sidecarPath } from './sidecar.ts'

/** CRCs of this many blocks are read at a time: 256 MiB of file for 4 KiB of sidecar. */
const CRCS_READ = 1024

export class StoredFile {
  readonly sizeBytes: number
  readonly crc32: number
  readonly #disk: Disk
  readonly #path: string
  readonly #file: DiskFile
  #sums: { firstBlock: number; crcs: Buffer } | undefined

  private constructor(disk: Disk, path: string, file: DiskFile, sizeBytes: number, sum: number) {
    this.#disk = disk
    this.#path = path
    this.#file = file
    this.sizeBytes = sizeBytes
    this.crc32 = sum
  }

  /** Opens a file whose name says its size and CRC32. Rejects with a DiskError, errno `ENOENT` if it is not there. */
  static async open(disk: Disk, path: string, sizeBytes: number, sum: number): Promise<StoredFile> {
    return new StoredFile(disk, path, await disk.open(path, 'read'), sizeBytes, sum)
  }

  /** Reads a block into a buffer of at least `BLOCK_BYTES` and returns it checked. Rejects with `corrupt`. */
  async readBlock(blockIndex: number, target: Buffer): Promise<Buffer> {
    const { block, isGood } = await this.examineBlock(blockIndex, target)
    if (!isGood) throw new DfsError('corrupt', `block ${blockIndex} of ${this.#path} fails its checksum`)
    return block
  }

  /** The same, but a bad block is given out, too. */
  async examineBlock(blockIndex: number, target: Buffer): Promise<{ block: Buffer; isGood: boolean }> {
    const offsetBytes = blockIndex * BLOCK_BYTES
    const wanted = Math.min(BLOCK_BYTES, this.sizeBytes - offsetBytes)
    const count = await this.#file.read(target.subarray(0, wanted), offsetBytes)
    const block = target.subarray(0, count)
    return { block, isGood: count === wanted && (await this.#check(blockIndex, block)) }
  }

  async close(): Promise<void> {
    await this.#file.close()
  }

  async #check(blockIndex: number, block: Buffer): Promise<boolean> {
    if (!hasSidecar(this.sizeBytes)) return crc32(block) === this.crc32
    const expected = await this.#expectedCrc(blockIndex)
    return expected !== undefined && crc32c(block) === expected
  }

  async #expectedCrc(blockIndex: number): Promise<number | undefined> {
    if (this.#sums === undefined || !within(this.#sums, blockIndex)) {
      this.#sums = await this.#readSums(blockIndex)
    }
    if (this.#sums === undefined || !within(this.#sums, blockIndex)) return undefined
    return this.#sums.crcs.readUInt32BE((blockIndex - this.#sums.firstBlock) * 4)
  }

  async #readSums(firstBlock: number): Promise<{ firstBlock: number; crcs: Buffer } | undefined> {
    const sidecar = await this.#disk.open(sidecarPath(this.#path), 'read').catch(error => {
      // A missing sidecar makes every block doubtful for ever; a disk that fails may answer the next time.
      if (error.errno !== 'ENOENT') throw error
    })
    if (sidecar === undefined) return undefined
    try {
      const head = Buffer.alloc(SIDECAR_HEADER_BYTES)
      await sidecar.read(head, 0)
      if (!isSidecarOf(head, this.sizeBytes)) return undefined
      const crcs = Buffer.alloc(CRCS_READ * 4)
      const count = await sidecar.read(crcs, crcOffset(firstBlock))
      return { firstBlock, crcs: crcs.subarray(0, count - (count % 4)) }
    } finally {
      await sidecar.close()
    }
  }
}

function within(sums: { firstBlock: number; crcs: Buffer }, blockIndex: number): boolean {
  const at = blockIndex - sums.firstBlock
  return at >= 0 && at < sums.crcs.length / 4
}
