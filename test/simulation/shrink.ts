/**
 * Finds the few faults and operations that a failure needs: leaves out as many of the others as it can. A client that
 * skips an operation goes on to its next, so new ones may come in place of those left out.
 */
import type { SeedPool } from './seed-pool.ts'
import type { Outcome } from './simulate.ts'

/** A failure is small after some hundred runs, or it does not get smaller. */
const RUNS_MAX = 400

/** Returns the smallest run that still fails. `failed` is the whole one. */
export async function shrink(
  pool: SeedPool,
  failed: Outcome,
  say: (line: string) => void,
  runsMax = RUNS_MAX,
): Promise<Outcome> {
  const { seed } = failed
  let best = failed
  let runs = 0
  const withoutFaults = new Set<number>()
  const withoutOperations = new Set<string>()

  const faults = failed.faults.map(fault => fault.number)
  await leaveOut(faults, withoutFaults)
  await leaveOut(failed.operations, withoutOperations)
  // Fewer operations may have made further faults needless.
  await leaveOut(faults, withoutFaults)
  return best

  /** Tries to do without halves, then quarters, and so on. */
  async function leaveOut<T extends number | string>(all: readonly T[], without: Set<T>): Promise<void> {
    for (let size = Math.ceil(all.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
      for (let at = 0; at < all.length && runs < runsMax; at += size) {
        const chunk = all.slice(at, at + size).filter(one => !without.has(one))
        if (chunk.length === 0) continue
        for (const one of chunk) without.add(one)
        runs++
        const outcome = await pool.run({
          seed,
          withoutFaults: [...withoutFaults],
          withoutOperations: [...withoutOperations],
        })
        if (outcome.violation !== undefined) best = outcome
        else for (const one of chunk) without.delete(one)
      }
      say(
        `${runs} runs: ${faults.length - withoutFaults.size} faults and ${failed.operations.length - withoutOperations.size} operations are left`,
      )
    }
  }
}
