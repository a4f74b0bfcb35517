/** Load by promises, for what is no FastDFS client: so many operations under way, the next as one ends. */
import { LoadTally } from './load-result.ts'

export interface LoopPlan {
  readonly outstanding: number
  /** Ends after a time, or after a count. */
  readonly seconds?: number
  readonly count?: number
  /** Does one; resolves with the bytes that were moved. A rejection is an error that is counted. */
  readonly operation: (number: number) => Promise<number>
}

const ERRORS_MAX = 2_000

/** Runs it; resolves with the line of its result, see load-result.ts. */
export async function closedLoop(label: string, plan: LoopPlan): Promise<string> {
  const { outstanding, seconds = Number.POSITIVE_INFINITY, count = Number.POSITIVE_INFINITY, operation } = plan
  const tally = new LoadTally()
  const startMs = performance.now()
  const endMs = startMs + seconds * 1000
  let taken = 0
  const loop = async () => {
    while (taken < count && performance.now() < endMs && tally.errors < ERRORS_MAX) {
      const number = taken++
      const beganMs = performance.now()
      try {
        const bytes = await operation(number)
        tally.add(performance.now() - beganMs, bytes)
      } catch (error) {
        if (tally.errors++ === 0) console.error(error)
      }
    }
  }
  await Promise.all(Array.from({ length: outstanding }, loop))
  return tally.line(label, outstanding, (performance.now() - startMs) / 1000)
}
