/**
 * `npm run simulate -- --seeds N [--seed S] [--gone] [--trace] [--shrink] [--bug NAME] [--jobs N]`: seeds S to
 * S + N - 1, on all cores; of them those in which members are gone for long.
 *
 * Ends at the first seed that fails, with what was wrong, the end of its trace, and the command that repeats it.
 */
import { availableParallelism } from 'node:os'
import { parseArgs } from 'node:util'
import { PLANTED_BUGS } from './planted-bugs.ts'
import { SeedPool } from './seed-pool.ts'
import { shrink } from './shrink.ts'
import { kindOf, type Outcome } from './simulate.ts'

/** Every so many seeds one is run twice: the same seed must be the same run. */
const REPEATED_EVERY = 100
const SAID_EVERY = 100
const TRACE_LINES = 60

const { values } = parseArgs({
  options: {
    /** 100, or 1 if a seed is given. */
    seeds: { type: 'string' },
    seed: { type: 'string' },
    trace: { type: 'boolean', default: false },
    gone: { type: 'boolean', default: false },
    shrink: { type: 'boolean', default: false },
    bug: { type: 'string' },
    jobs: { type: 'string', default: String(availableParallelism()) },
  },
})
const first = Number(values.seed ?? 1)
const count = Number(values.seeds ?? (values.seed === undefined ? 100 : 1))
if (values.bug !== undefined && !PLANTED_BUGS.some(({ name }) => name === values.bug)) {
  throw new Error(`there is no such bug; there are ${PLANTED_BUGS.map(({ name }) => name).join(', ')}`)
}
const jobs = Math.min(count, Number(values.jobs))
const pool = new SeedPool(jobs, values.bug)
const begunMs = performance.now()
const total = {
  seeds: 0,
  virtualMs: 0,
  events: 0,
  uploads: 0,
  downloads: 0,
  deletes: 0,
  changes: 0,
  reused: 0,
  reigns: 0,
  unknown: 0,
  faults: 0,
  excused: 0,
}
let next = first
let failed: Outcome | undefined

await Promise.all(
  Array.from({ length: jobs }, async () => {
    while (failed === undefined && next < first + count) {
      const seed = next++
      if (!values.gone || kindOf(seed).withGone) await one(seed)
    }
  }),
)
report()
if (failed !== undefined) await explain(failed)
else if (values.bug !== undefined) {
  console.log(`${values.bug} was not found`)
  process.exitCode = 1
}
pool.close()

async function one(seed: number): Promise<void> {
  const outcome = await pool.run({ seed })
  total.seeds++
  total.faults += outcome.faults.length
  for (const key of [
    'virtualMs',
    'events',
    'uploads',
    'downloads',
    'deletes',
    'changes',
    'reused',
    'reigns',
    'unknown',
    'excused',
  ] as const)
    total[key] += outcome[key]
  if (outcome.violation !== undefined) failed ??= outcome
  else if (seed % REPEATED_EVERY === 0) {
    const again = await pool.run({ seed })
    if (again.hash !== outcome.hash)
      failed ??= { ...again, violation: `hash ${outcome.hash}, and ${again.hash} the second time` }
  }
  if (count === 1) console.log(`seed ${seed}: hash ${outcome.hash}, ${outcome.events} events`)
  if (values.trace && count === 1 && outcome.violation === undefined)
    for (const line of outcome.trace) console.log(line)
  if (total.seeds % SAID_EVERY === 0) report()
}

function report(): void {
  const realMs = performance.now() - begunMs
  const perMinute = Math.round((total.seeds / realMs) * 60_000)
  console.log(
    `${total.seeds} seeds, ${perMinute} a minute, ${Math.round(total.virtualMs / realMs)} virtual seconds a second; ` +
      `${total.events} events, ${total.faults} faults, ${total.uploads} uploads, ${total.downloads} downloads, ` +
      `${total.deletes} deletes, ${total.changes} changes, ${total.reused} slots used again, ${total.reigns} times in other ` +
      `hands without ${total.unknown} changes, ${total.excused} files excused`,
  )
}

async function explain(outcome: Outcome): Promise<void> {
  process.exitCode = 1
  const { seed } = outcome
  const small = values.shrink ? await shrink(pool, outcome, line => console.log(line)) : outcome
  const lines = values.trace ? small.trace : small.trace.slice(-TRACE_LINES)
  for (const line of lines) console.log(line)
  console.log(`seed ${seed}: ${small.violation}`)
  const bug = values.bug === undefined ? '' : ` --bug ${values.bug}`
  console.log(
    `again: npm run simulate -- --seed ${seed} --trace${bug}   smaller: npm run simulate -- --seed ${seed} --shrink${bug}`,
  )
}
