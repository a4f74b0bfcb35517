/**
 * The bytes that are uploaded: a pattern that anybody can make again, so that what comes back can be compared without
 * keeping it. The first eight bytes are each upload's own, or no two files would differ.
 */

/** The pattern repeats after this: bits 16 to 23 of a generator modulo 2^32. */
const PERIOD_BYTES = 2 ** 24
const OWN_BYTES = 8

let period: Buffer | undefined

/** Makes content of a size. */
export function makeContent(sizeBytes: number): Buffer {
  return fillContent(Buffer.allocUnsafeSlow(sizeBytes))
}

/** Fills a buffer with the pattern. */
export function fillContent(target: Buffer): Buffer {
  const pattern = patternUpTo(Math.min(target.length, PERIOD_BYTES))
  for (let at = 0; at < target.length; at += pattern.length) pattern.copy(target, at)
  return target
}

/** Whether a piece of a file, from an offset, is what was uploaded there. */
export function isContent(piece: Buffer, offsetBytes: number): boolean {
  const pattern = patternUpTo(PERIOD_BYTES)
  let at = Math.max(0, OWN_BYTES - offsetBytes)
  while (at < piece.length) {
    const from = (offsetBytes + at) % PERIOD_BYTES
    const bytes = Math.min(piece.length - at, PERIOD_BYTES - from)
    if (piece.compare(pattern, from, from + bytes, at, at + bytes) !== 0) return false
    at += bytes
  }
  return true
}

/** Enough of the pattern; all of it takes a tenth of a second, which a small upload need not pay. */
function patternUpTo(bytes: number): Buffer {
  if (period !== undefined && period.length >= bytes) return period.subarray(0, bytes)
  const made = Buffer.allocUnsafeSlow(bytes)
  let x = 12345
  for (let i = 0; i < bytes; i++) {
    x = (Math.imul(x, 1103515245) + 12345) | 0
    made[i] = x >>> 16
  }
  period = made
  return made
}
