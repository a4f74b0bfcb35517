/** A short slice of `npm run simulate`, and the proof that it can fail: every planted bug is caught by its seed. */
import { expect } from 'chai'
import { PLANTED_BUGS } from './planted-bugs.ts'
import { SeedPool } from './seed-pool.ts'
import { shrink } from './shrink.ts'

/** As many as fit between other tests; the campaign runs thousands. */
const SEEDS = 8

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
  })

  for (const { name, about, seed } of PLANTED_BUGS) {
    it(`is caught when ${about} (seed ${seed})`, async () => {
      pool = new SeedPool(1, name)
      expect((await pool.run({ seed })).violation).to.be.a('string')
    })
  }

  it('fails with fewer faults and operations once a failure is shrunk', async () => {
    const { name, seed } = PLANTED_BUGS.find(bug => bug.name === 'rename-before-record')!
    pool = new SeedPool(2, name)
    const failed = await pool.run({ seed })
    const lines: string[] = []
    const small = await shrink(pool, failed, line => lines.push(line), 16)
    expect(small.violation).to.be.a('string')
    expect(small.faults.length).to.be.below(failed.faults.length)
    expect(lines.at(-1)).to.match(/^\d+ runs: \d+ faults and \d+ operations are left$/)
  })
})
