/**
 * Two things measured side by side: A-B-A-B, in the same minutes on the same machine. Each pair is divided within
 * itself; what the machine does meanwhile happens to both.
 */
import { median, pairRatios, type Spread } from './statistics.ts'

/** One measurement of one side. */
export interface Run {
  /** Operations a second, whatever was waited for included. */
  readonly rate: number
  readonly seconds: number
  readonly p50Ms: number
  readonly p99Ms: number
  /** How long the peer took to come near after the last acknowledgement. */
  readonly drainSeconds?: number
}

export interface Pairs {
  readonly runs: readonly { readonly measured: Run; readonly yardstick: Run }[]
  readonly ratio: Spread
  /** Medians over the runs. */
  readonly rate: number
  readonly p50Ms: number
  readonly p99Ms: number
  readonly yardstickRate: number
  /** Undefined of loads that change nothing. */
  readonly drainSeconds?: number
}

/** Measures so many pairs, one side after the other. */
export async function measurePairs(
  count: number,
  measured: () => Promise<Run>,
  yardstick: () => Promise<Run>,
): Promise<Pairs> {
  const runs: { measured: Run; yardstick: Run }[] = []
  for (let i = 0; i < count; i++) runs.push({ measured: await measured(), yardstick: await yardstick() })
  const drains = runs.map(pair => pair.measured.drainSeconds).filter(seconds => seconds !== undefined)
  return {
    runs,
    ratio: pairRatios(runs.map(pair => [pair.measured.rate, pair.yardstick.rate] as const)),
    rate: median(runs.map(pair => pair.measured.rate)),
    p50Ms: median(runs.map(pair => pair.measured.p50Ms)),
    p99Ms: median(runs.map(pair => pair.measured.p99Ms)),
    yardstickRate: median(runs.map(pair => pair.yardstick.rate)),
    ...(drains.length === 0 ? {} : { drainSeconds: median(drains) }),
  }
}
