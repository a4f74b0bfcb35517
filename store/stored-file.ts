/** A file of its own that is there: read by blocks, and no block is shown that fails its checksum. */
import { crc32 } from '@node-rs/crc32'
import { DfsError } from '../protocol/errors.ts'
import type { Disk, DiskFile } from '../runtime/world.ts'
import { BLOCK_BYTES } from './block-pool.ts'
import { joinedCrc32 } from './joined-crc32.ts'
import {
  BLOCK_SHIFT,
  crcOffset,
  hasSidecar,
  SIDECAR_HEADER_BYTES,
  Sidecar,
  sidecarPath,
  sumOfBlocks,
} from './sidecar.ts'

/** CRCs of this many blocks are read at a time: 256 MiB of file for 4 KiB of sidecar. */
const CRCS_READ = 1024

/** What a part of the sidecar says. */
interface Sums {
  readonly firstBlock: number
  readonly crcs: Buffer
  readonly sumOf: (block: Uint8Array) => number
}

/** A file of its own that is read, whatever its kind. */
export type OpenFile = Pick<StoredFile, 'sizeBytes' | 'crc32' | 'readBlocks' | 'crc32Of' | 'close'>

export class StoredFile {
  readonly sizeBytes: number
  readonly crc32: number
  readonly #disk: Disk
  readonly #path: string
  readonly #file: DiskFile
  /** The CRC32 in the name is that of its only block. */
  readonly #isNamed: boolean
  #sums: Sums | undefined

  private constructor(
    disk: Disk,
    path: string,
    file: DiskFile,
    { sizeBytes, crc32, isNamed }: { sizeBytes: number; crc32: number; isNamed: boolean },
  ) {
    this.#disk = disk
    this.#path = path
    this.#file = file
    this.sizeBytes = sizeBytes
    this.crc32 = crc32
    this.#isNamed = isNamed
  }

  /** Opens a file whose name says its size and CRC32. Rejects with a DiskError, errno `ENOENT` if it is not there. */
  static async open(disk: Disk, path: string, sizeBytes: number, sum: number, way?: 'direct'): Promise<StoredFile> {
    const isNamed = !hasSidecar(sizeBytes)
    return new StoredFile(disk, path, await disk.open(path, 'read', way), { sizeBytes, crc32: sum, isNamed })
  }

  /**
   * Opens a file whose name says neither: its sidecar does, which must not be replaced meanwhile. Rejects with a DiskError, errno `ENOENT` if it is not there, and
   * with `corrupt` without a sidecar.
   */
  static async openSlave(disk: Disk, path: string): Promise<StoredFile> {
    const file = await disk.open(path, 'read')
    try {
      const { sizeBytes, crc32: sum, bytes } = await Sidecar.read(disk, path)
      const opened = new StoredFile(disk, path, file, { sizeBytes, crc32: sum, isNamed: false })
      // Another file may have this name before this one is read, with a sidecar of its own.
      opened.#sums = { firstBlock: 0, crcs: bytes.subarray(crcOffset(0)), sumOf: crc32 }
      return opened
    } catch (error) {
      await file.close()
      throw error
    }
  }

  /** Reads as many blocks as a buffer holds and returns them checked. Rejects with `corrupt` if one of them is bad. */
  async readBlocks(firstBlock: number, target: Buffer): Promise<Buffer> {
    const offsetBytes = firstBlock * BLOCK_BYTES
    const wanted = Math.min(target.length, this.sizeBytes - offsetBytes)
    const count = await this.#file.read(target.subarray(0, wanted), offsetBytes)
    for (let at = 0; at < wanted; at += BLOCK_BYTES) {
      const block = target.subarray(at, Math.min(at + BLOCK_BYTES, wanted))
      const blockIndex = firstBlock + at / BLOCK_BYTES
      const good = at + block.length <= count && (await this.#check(blockIndex, block))
      if (!good) throw new DfsError('corrupt', `block ${blockIndex} of ${this.#path} fails its checksum`)
    }
    return target.subarray(0, wanted)
  }

  /** Reads one block, and gives it out if it is bad, too. */
  async examineBlock(blockIndex: number, target: Buffer): Promise<{ block: Buffer; isGood: boolean }> {
    const offsetBytes = blockIndex * BLOCK_BYTES
    const wanted = Math.min(BLOCK_BYTES, this.sizeBytes - offsetBytes)
    const count = await this.#file.read(target.subarray(0, wanted), offsetBytes)
    const block = target.subarray(0, count)
    return { block, isGood: count === wanted && (await this.#check(blockIndex, block)) }
  }

  /** The CRC32 of the first bytes, whole blocks, by what the sidecar says; undefined if it does not tell. */
  async crc32Of(bytes: number): Promise<number | undefined> {
    if (bytes % BLOCK_BYTES !== 0 || bytes > this.sizeBytes || this.#isNamed) return undefined
    let sum = 0
    for (let blockIndex = 0; blockIndex < bytes / BLOCK_BYTES; blockIndex++) {
      const sums = await this.#sumsOf(blockIndex)
      if (sums?.sumOf !== crc32) return undefined
      sum = joinedCrc32(sum, crcIn(sums, blockIndex), BLOCK_SHIFT)
    }
    return sum
  }

  async close(): Promise<void> {
    await this.#file.close()
  }

  async #check(blockIndex: number, block: Buffer): Promise<boolean> {
    if (this.#isNamed) return crc32(block) === this.crc32
    const sums = await this.#sumsOf(blockIndex)
    return sums !== undefined && sums.sumOf(block) === crcIn(sums, blockIndex)
  }

  /** The part of the sidecar that has a block's CRC; undefined if there is none. */
  async #sumsOf(blockIndex: number): Promise<Sums | undefined> {
    if (this.#sums === undefined || !within(this.#sums, blockIndex)) this.#sums = await this.#readSums(blockIndex)
    return this.#sums !== undefined && within(this.#sums, blockIndex) ? this.#sums : undefined
  }

  async #readSums(firstBlock: number): Promise<Sums | undefined> {
    const sidecar = await this.#disk.open(sidecarPath(this.#path), 'read').catch(error => {
      // A missing sidecar makes every block doubtful for ever; a disk that fails may answer the next time.
      if (error.errno !== 'ENOENT') throw error
    })
    if (sidecar === undefined) return undefined
    try {
      const head = Buffer.alloc(SIDECAR_HEADER_BYTES)
      await sidecar.read(head, 0)
      const sumOf = sumOfBlocks(head, this.sizeBytes)
      if (sumOf === undefined) return undefined
      const crcs = Buffer.alloc(CRCS_READ * 4)
      const count = await sidecar.read(crcs, crcOffset(firstBlock))
      return { firstBlock, crcs: crcs.subarray(0, count - (count % 4)), sumOf }
    } finally {
      await sidecar.close()
    }
  }
}

function crcIn({ firstBlock, crcs }: Sums, blockIndex: number): number {
  return crcs.readUInt32BE((blockIndex - firstBlock) * 4)
}

function within(sums: Sums, blockIndex: number): boolean {
  const at = blockIndex - sums.firstBlock
  return at >= 0 && at < sums.crcs.length / 4
}
