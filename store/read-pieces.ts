/**
 * Reads a range of a file by checked pieces, ahead of whoever sends them, in a few buffers that take turns.
 *
 *     buffer 1   |read 1|--- 1 is sent ---|read 3|               |- ...
 *     buffer 2                            |read 2|- 2 is sent ---|read 4|
 */
import { BLOCK_BYTES, type BlockPool } from './block-pool.ts'
import type { OpenFile } from './stored-file.ts'

/** Buffers of one reader: with fewer, sending waits for the disk. A slow receiver keeps them all. */
const BUFFERS_MAX = 3

/**
 * Each piece is good until the next one is asked for; the first has been checked before anything is read ahead. Throws what
 * reading throws, `corrupt` for a piece with a bad block, when all before it have been given.
 */
export async function* readPieces(
  file: OpenFile,
  pool: BlockPool,
  range: { readonly from: number; readonly until: number },
): AsyncGenerator<Buffer, void, void> {
  const buffers = [await pool.acquirePiece(range.until - range.from)]
  const reading: { readonly buffer: Buffer; readonly piece: Promise<Buffer> }[] = []
  let at = range.from
  const readOn = (buffer: Buffer) => {
    if (at >= range.until) return
    const piece = readPiece(file, at, range.until, buffer)
    // The rejection is for its turn; until then nobody else looks.
    piece.catch(ignore)
    reading.push({ buffer, piece })
    at += buffer.length - (at % BLOCK_BYTES)
  }
  try {
    readOn(buffers[0]!)
    for (let next = reading.shift(); next !== undefined; next = reading.shift()) {
      yield await next.piece
      readOn(next.buffer)
      while (buffers.length < BUFFERS_MAX && at < range.until) {
        const spare = pool.trySpare()
        if (spare === undefined) break
        buffers.push(spare)
        readOn(spare)
      }
    }
  } finally {
    await Promise.all(reading.map(({ piece }) => piece.catch(ignore)))
    for (const buffer of buffers) pool.release(buffer)
  }
}

/** Reads what a buffer holds of a range; blocks are read whole, because they are checked. */
async function readPiece(file: OpenFile, from: number, until: number, buffer: Buffer): Promise<Buffer> {
  const skipped = from % BLOCK_BYTES
  const blocks = Math.ceil((skipped + until - from) / BLOCK_BYTES)
  const read = await file.readBlocks((from - skipped) / BLOCK_BYTES, buffer.subarray(0, blocks * BLOCK_BYTES))
  return read.subarray(skipped, skipped + until - from)
}

function ignore(): void {}
