/** A process that runs seeds as it is told, one at a time; with a planted bug, if one is named on its command line. */
import { register } from 'node:module'
import { PLANTED_BUGS } from './planted-bugs.ts'
import type { Outcome, SimulationOptions } from './simulate.ts'

/** What is asked of it. */
export interface SeedRequest {
  readonly seed: number
  readonly withoutFaults: readonly number[]
  readonly withoutOperations: readonly string[]
}

const bug = PLANTED_BUGS.find(({ name }) => name === process.argv[2])
if (bug !== undefined) register('./plant-hooks.js', import.meta.url, { data: bug })
// Only now: what is loaded after the hooks has the bug.
const { simulate } = (await import('./simulate.ts')) as { simulate(options: SimulationOptions): Promise<Outcome> }

process.on('message', async (request: SeedRequest) => {
  const outcome = await simulate({
    seed: request.seed,
    withoutFaults: new Set(request.withoutFaults),
    withoutOperations: new Set(request.withoutOperations),
  })
  process.send!(outcome)
})
process.on('disconnect', () => process.exit(0))
process.send!('ready')
