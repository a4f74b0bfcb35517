/** Sizes as people write them. */
import { InvalidArgumentError } from 'commander'

const UNITS: Record<string, number> = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 }

/** Reads `1GiB`, `500M`, `4096`; powers of 1024. Throws commander's InvalidArgumentError. */
export function parseSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?$/i.exec(text.trim())
  if (match === null) throw new InvalidArgumentError('a size is a number with K, M, G or T')
  return Math.round(Number(match[1]) * UNITS[match[2]!.toUpperCase()]!)
}

/** A size, or a share of what a disk holds. */
export type Reserve = number | { readonly percent: number }

/** Reads a size, or `20%`. Throws commander's InvalidArgumentError. */
export function parseReserve(text: string): Reserve {
  const match = /^(\d{1,2}(?:\.\d+)?)\s*%$/.exec(text.trim())
  return match === null ? parseSize(text) : { percent: Number(match[1]) }
}

/** Reads a whole number in a range. */
export function parseNumber(least: number, most: number): (text: string) => number {
  return text => {
    const value = Number(text)
    if (!Number.isInteger(value) || value < least || value > most) {
      throw new InvalidArgumentError(`a whole number from ${least} to ${most}`)
    }
    return value
  }
}
