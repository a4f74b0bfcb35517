/** A short slice of `npm run simulate`, and the proof that it can fail: every planted bug is caught by its seed. */
import { expect } from 'chai'
import { PLANTED_BUGS, type PlantedBug } from './planted-bugs.ts'
import { SeedPool } from './seed-pool.ts'
import { shrink } from './shrink.ts'
import { kindOf, type Outcome } from './simulate.ts'

/** As many as fit between other tests; the campaign runs thousands. */
const SEEDS = 8
/** A bug that so many seeds do not find is not found. */
const SEEDS_MAX = 60

describe('a simulated cluster', function () {
  this.timeout(120_000)
  let pool: SeedPool | undefined

  afterEach(() => {
    pool?.close()
    pool = undefined
  })

  it(`keeps its promises through the bad days of ${SEEDS} seeds, and each seed is the same run twice`, async () => {
    pool = new SeedPool(2)
    const run = (seed: number) => pool!.run({ seed })
    const seeds = Array.from({ length: SEEDS }, (_, i) => i + 1)
    const outcomes = await Promise.all([...seeds, 1, 2].map(run))
    for (const { seed, violation } of outcomes) expect(violation, `seed ${seed}`).to.equal(undefined)
    expect(outcomes.slice(-2).map(({ hash }) => hash)).to.deep.equal(outcomes.slice(0, 2).map(({ hash }) => hash))
    expect(new Set(outcomes.map(({ hash }) => hash)).size).to.equal(SEEDS)
    expect(outcomes.reduce((sum, { uploads }) => sum + uploads, 0)).to.be.above(1_000)
    expect(outcomes.reduce((sum, { reused }) => sum + reused, 0)).to.be.above(SEEDS)
  })

  for (const bug of PLANTED_BUGS) {
    const { name, about, seed } = bug
    it(`is caught when ${about} (seed ${seed}, or one soon after)`, async () => {
      pool = new SeedPool(2, name)
      expect((await firstFailure(pool, bug))?.violation).to.be.a('string')
    })
  }

  it('fails with fewer faults and operations once a failure is shrunk', async () => {
    const bug = PLANTED_BUGS.find(({ name }) => name === 'rename-before-record')!
    pool = new SeedPool(2, bug.name)
    const failed = (await firstFailure(pool, bug))!
    const lines: string[] = []
    const small = await shrink(pool, failed, line => lines.push(line), 8)
    expect(small.violation).to.be.a('string')
    expect(small.faults.length).to.be.below(failed.faults.length)
    expect(lines.at(-1)).to.match(/^\d+ runs: \d+ faults and \d+ operations are left$/)
  })
})

/** Every change of the product changes what a seed does: if the kept one does not find its bug any more, the next will. */
async function firstFailure(pool: SeedPool, { seed: first, isOfGone }: PlantedBug): Promise<Outcome | undefined> {
  const all = Array.from({ length: SEEDS_MAX }, (_, i) => first + i)
  const seeds = isOfGone === true ? all.filter(seed => kindOf(seed).withGone) : all
  for (let at = 0; at < seeds.length; at += 2) {
    const outcomes = await Promise.all(seeds.slice(at, at + 2).map(seed => pool.run({ seed })))
    const failed = outcomes.find(({ violation }) => violation !== undefined)
    if (failed !== undefined) return failed
  }
  return undefined
}
