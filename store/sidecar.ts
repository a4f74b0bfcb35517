/**
 * The sidecar of a plain file of more than one block: a CRC32C for each block, so that any range can be checked before
 * it is sent. A file of one block needs none: the CRC32 in its name covers it.
 *
 *     <name>~sum
 *     0       4       8            12          16           24
 *     +-------+-------+------------+-----------+------------+--------+--------+----
 *     | magic |version| block size | reserved  | file size  | CRC 0  | CRC 1  | ...
 *     +-------+-------+------------+-----------+------------+--------+--------+----
 *      "DFSS"    1      262144       0           8 bytes      4 bytes each, big-endian
 *
 * The CRCs need no CRC of their own: a flipped one makes a good block look bad, never a bad one look good.
 * `~` is in no file name, so a sidecar is never taken for a file.
 */
import { crc32c } from '@node-rs/crc32'
import { readInt64, writeInt64 } from '../protocol/frame.ts'
import { BLOCK_BYTES } from './block-pool.ts'

const MAGIC = 'DFSS'
const SIDECAR_VERSION = 1
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

/** Whether a file of this size has a sidecar. */
export function hasSidecar(sizeBytes: number): boolean {
  return sizeBytes > BLOCK_BYTES
}

/** Collects the CRCs of a file as its blocks come in. 16 bytes of memory a MiB. */
export class SidecarWriter {
  readonly #crcs: number[] = []

  /** Adds the next block; all but the last are full. */
  add(block: Uint8Array): void {
    this.#crcs.push(crc32c(block))
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

/** Whether a header belongs to the sidecar of a file of this size. */
export function isSidecarOf(head: Buffer, sizeBytes: number): boolean {
  return (
    head.toString('latin1', 0, 4) === MAGIC &&
    head.readUInt32BE(4) === SIDECAR_VERSION &&
    head.readUInt32BE(8) === BLOCK_BYTES &&
    readInt64(head, 16) === sizeBytes
  )
}

/** Where the CRC of a block stands. */
export function crcOffset(blockIndex: number): number {
  return SIDECAR_HEADER_BYTES + blockIndex * CRC_BYTES
}
