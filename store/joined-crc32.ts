/**
 * The CRC32 of bytes whose parts have been summed already: what lies in front is as good as multiplied by x^8 for each byte
 * behind it. Polynomials over GF(2), reflected as in every CRC32: the highest bit is x^0. Source: zlib, crc32_combine.
 */

const POLYNOMIAL = 0xedb88320
const ONE = 0x80000000
const X_8 = ONE >>> 8

/** The CRC32 of `front` and `back` together, from theirs and what `shiftOf` says of the length of `back`. */
export function joinedCrc32(front: number, back: number, shift: number): number {
  return (multiplied(shift, front) ^ back) >>> 0
}

/** x to the power of eight times so many bytes. */
export function shiftOf(bytes: number): number {
  let shift = ONE
  for (let left = bytes, square = X_8; left > 0; left = Math.floor(left / 2), square = multiplied(square, square)) {
    if (left % 2 === 1) shift = multiplied(shift, square)
  }
  return shift
}

function multiplied(a: number, b: number): number {
  let product = 0
  for (let factor = a | 0, term = b; factor !== 0; factor <<= 1) {
    if (factor < 0) product ^= term
    term = (term & 1) === 0 ? term >>> 1 : (term >>> 1) ^ POLYNOMIAL
  }
  return product >>> 0
}
