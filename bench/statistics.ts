/** The few numbers that measurements are told by. */

/** Of pair ratios: quoted together, because one of them alone says nothing of the noise. */
export interface Spread {
  readonly median: number
  readonly lowest: number
  readonly highest: number
}

/** The middle value; of an even number of values, half way between the two in the middle. NaN of none. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  if (sorted.length % 2 === 1) return sorted[middle]!
  return sorted.length === 0 ? Number.NaN : (sorted[middle - 1]! + sorted[middle]!) / 2
}

/** The value below which a share of sorted values lies. NaN of none. */
export function percentile(sorted: ArrayLike<number>, share: number): number {
  if (sorted.length === 0) return Number.NaN
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]!
}

/** Median, lowest and highest. NaN of none. */
export function spread(values: readonly number[]): Spread {
  if (values.length === 0) return { median: Number.NaN, lowest: Number.NaN, highest: Number.NaN }
  return { median: median(values), lowest: Math.min(...values), highest: Math.max(...values) }
}

/**
 * What pairs of rates come to: each is divided within itself, then the ratios are compared. Medians of two series that
 * were not measured side by side must not be divided.
 */
export function pairRatios(pairs: readonly (readonly [number, number])[]): Spread {
  return spread(pairs.map(([measured, yardstick]) => measured / yardstick))
}
