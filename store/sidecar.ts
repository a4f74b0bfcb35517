/**
 * The sidecar of a plain file of more than one block, and of every slave and appender file: a CRC32 for each block, so that
 * any range can be checked before it is sent. Together they make the CRC32 in its name, which alone covers a plain file of one block. The
 * names of the others tell nothing of their bytes: their size stands here alone.
 *
 *     <name>~sum
 *     0       4       8            12          16           24
 *     +-------+-------+------------+-----------+------------+--------+--------+----
 *     | magic |version| block size | reserved  | file size  | CRC 0  | CRC 1  | ...
 *     +-------+-------+------------+-----------+------------+--------+--------+----
 *      "DFSS"    2      262144       0           8 bytes      4 bytes each, big-endian
 *
 * In version 1 they are CRC32Cs. They need no CRC of their own: a flipped one makes a good block look bad, never a bad one
 * look good.
 * `~` is in no file name, so a sidecar is never taken for a file.
 */
import { crc32, crc32c } from '@node-rs/crc32'
import { DfsError } from '../protocol/errors.ts'
import { readInt64, writeInt64 } from '../protocol/frame.ts'
import type { Disk } from '../runtime/world.ts'
import { BLOCK_BYTES } from './block-pool.ts'
import { joinedCrc32, shiftOf } from './joined-crc32.ts'

const MAGIC = 'DFSS'
const SIDECAR_VERSION = 2
/** What blocks are summed with, by version: CRC32 is twice as fast as CRC32C, and one sum does for two. */
const SUMS: Readonly<Record<number, (block: Uint8Array) => number>> = { 1: crc32c, 2: crc32 }
/** For `joinedCrc32`, of a full block. */
export const BLOCK_SHIFT = shiftOf(BLOCK_BYTES)
export const SIDECAR_HEADER_BYTES = 24
const CRC_BYTES = 4

/** The path of a file's sidecar. */
export function sidecarPath(path: string): string {
  return `${path}~sum`
}

/** How many blocks a file has; an empty one has none. */
export function blockCount(sizeBytes: number): number {
  return Math.ceil(sizeBytes / BLOCK_BYTES)
}

/** Whether a plain file of this size has a sidecar. */
export function hasSidecar(sizeBytes: number): boolean {
  return sizeBytes > BLOCK_BYTES
}

/** Collects the CRCs of a file as its blocks come in. 16 bytes of memory a MiB. */
export class SidecarWriter {
  readonly #crcs: number[] = []
  #crc32 = 0

  /** CRC32 of all blocks so far. */
  get crc32(): number {
    return this.#crc32
  }

  /** Adds the next blocks; all but the very last are full. */
  add(blocks: Uint8Array): void {
    for (let at = 0; at < blocks.length; at += BLOCK_BYTES) {
      const block = blocks.subarray(at, at + BLOCK_BYTES)
      const crc = crc32(block)
      this.#crcs.push(crc)
      const shift = block.length === BLOCK_BYTES ? BLOCK_SHIFT : shiftOf(block.length)
      this.#crc32 = joinedCrc32(this.#crc32, crc, shift)
    }
  }

  encode(sizeBytes: number): Buffer {
    const bytes = Buffer.alloc(SIDECAR_HEADER_BYTES + this.#crcs.length * CRC_BYTES)
    bytes.write(MAGIC, 0, 'latin1')
    bytes.writeUInt32BE(SIDECAR_VERSION, 4)
    bytes.writeUInt32BE(BLOCK_BYTES, 8)
    writeInt64(bytes, sizeBytes, 16)
    this.#crcs.forEach((crc, i) => {
      bytes.writeUInt32BE(crc, SIDECAR_HEADER_BYTES + i * CRC_BYTES)
    })
    return bytes
  }
}

/** The sidecar of a file that only its sidecar tells of, as a whole: a MiB for 64 GiB. */
export class Sidecar {
  #bytes: Buffer

  private constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  /** Reads the sidecar of a file. Rejects with `corrupt` if there is none, or none that tells of the file. */
  static async read(disk: Disk, path: string): Promise<Sidecar> {
    const missing = new DfsError('corrupt', `${path} has no sidecar that says what it is`)
    if ((await disk.stat(sidecarPath(path))) === undefined) throw missing
    const file = await disk.open(sidecarPath(path), 'read')
    try {
      const bytes = Buffer.alloc(await file.sizeBytes())
      if ((await file.read(bytes, 0)) < SIDECAR_HEADER_BYTES) throw missing
      const sidecar = new Sidecar(bytes)
      const isWhole = bytes.length >= crcOffset(blockCount(sidecar.sizeBytes))
      if (!isWhole || sumOfBlocks(bytes, sidecar.sizeBytes) !== crc32) throw missing
      return sidecar
    } finally {
      await file.close()
    }
  }

  get bytes(): Buffer {
    return this.#bytes
  }

  get sizeBytes(): number {
    return readInt64(this.#bytes, 16)
  }

  /** Of the whole file. */
  get crc32(): number {
    let sum = 0
    for (let block = 0; block < blockCount(this.sizeBytes); block++) {
      const left = this.sizeBytes - block * BLOCK_BYTES
      const shift = left < BLOCK_BYTES ? shiftOf(left) : BLOCK_SHIFT
      sum = joinedCrc32(sum, this.#bytes.readUInt32BE(crcOffset(block)), shift)
    }
    return sum
  }

  /** Makes it that of a file of another size; the blocks at the old and new end have to be summed. */
  resize(sizeBytes: number): void {
    const bytes = Buffer.alloc(crcOffset(blockCount(sizeBytes)))
    this.#bytes.copy(bytes)
    writeInt64(bytes, sizeBytes, 16)
    this.#bytes = bytes
  }

  /** Whether these are the bytes of a block. */
  fits(block: number, bytes: Uint8Array): boolean {
    return crc32(bytes) === this.#bytes.readUInt32BE(crcOffset(block))
  }

  sum(block: number, bytes: Uint8Array): void {
    this.#bytes.writeUInt32BE(crc32(bytes), crcOffset(block))
  }
}

/** What the blocks are summed with, if a header belongs to the sidecar of a file of this size. */
export function sumOfBlocks(head: Buffer, sizeBytes: number): ((block: Uint8Array) => number) | undefined {
  const isOurs = head.toString('latin1', 0, 4) === MAGIC && head.readUInt32BE(8) === BLOCK_BYTES
  return isOurs && readInt64(head, 16) === sizeBytes ? SUMS[head.readUInt32BE(4)] : undefined
}

/** Where the CRC of a block stands. */
export function crcOffset(blockIndex: number): number {
  return SIDECAR_HEADER_BYTES + blockIndex * CRC_BYTES
}
