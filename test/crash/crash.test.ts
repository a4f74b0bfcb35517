/** A slice of `npm run crash`, and controls: what each of its checks is there to find, it finds. */
import { randomInt } from 'node:crypto'
import { rm, truncate } from 'node:fs/promises'
import { expect } from 'chai'
import { decodeFileName } from '../../protocol/file-id.ts'
import { SeededRandom } from '../simulation/seeded-random.ts'
import { killChangingFiles } from './changing-files.ts'
import { pathOnDisk } from './data-audit.ts'
import { type Death, type KillFigures, killCycles } from './kill-cycles.ts'
import type { Problem } from './problem.ts'
import { takeOverCycles } from './take-over-cycles.ts'
import { damageFiles, damageRecords, damageSlots } from './torn-record.ts'

/** Long enough for a peer on a busy machine; a control waits it out. */
const CONTROL_SYNC_MS = 300
/** Of a line of some 170 bytes, and of a file of 200; `npm run crash` takes them all. */
const EVERY_FOURTH = 4
const EVERY_TENTH = 10
const EVERY_THIRTIETH = 30

/** A run has one of each kind: before anything is promised, between record and name, before and after it is told. */
const KINDS_OF_DEATH: readonly (readonly Death[])[] = [
  ['moment'],
  ['written', 'synced'],
  ['recorded'],
  ['renamed'],
  ['acknowledged', 'acknowledgement'],
]

describe('a storage server that is killed', function () {
  this.timeout(60_000)
  const seed = randomInt(2 ** 31)

  it('loses nothing it has acknowledged, at whatever step of a change it dies', async () => {
    const random = new SeededRandom(`deaths ${seed}`)
    const deaths = KINDS_OF_DEATH.map(kind => random.pick(kind))
    const figures = await killCycles({ cycles: deaths.length, seed, deaths })
    expectNone(figures.problems)
    expect(figures.kills).to.equal(deaths.length)
    expect(figures.uploads).greaterThan(0)
    expect(figures.interrupted, 'requests that the kills cut off').greaterThan(0)
  })

  it('loses no change of an appender file, of metadata or of a slave file that it has acknowledged', async () => {
    const { kills, changes, interrupted, problems } = await killChangingFiles({ cycles: 6, seed })
    expect(problems, `seed ${seed}`).to.deep.equal([])
    expect(kills).to.equal(6)
    // How many depends on the occurrences that the seed has them die at: 20 or 150.
    expect(changes).greaterThan(0)
    expect(interrupted, 'changes that the kills cut off').greaterThan(0)
  })

  it('leaves its files to a successor, and takes them back, without losing a change that both held', async () => {
    const { kills, changes, problems } = await takeOverCycles({ cycles: 1, seed })
    expect(problems, `seed ${seed}`).to.deep.equal([])
    expect(kills).to.equal(1)
    expect(changes).greaterThan(0)
  })

  it('is found out if it acknowledges files before they are durable', async () => {
    const { problems } = await lie('tmp', 0)
    expect(kindsOf(problems)).to.include.members(['lost', 'wrong', 'missing'])
  })

  it('is found out if it acknowledges packed files before they are durable', async () => {
    const { problems } = await lie('segments')
    expect(kindsOf(problems)).to.include.members(['lost', 'missing'])
  })

  it('is found out if it acknowledges changes before their records are durable', async () => {
    const { problems } = await lie('binlog')
    expect(kindsOf(problems)).to.include('untidy')
  })

  function lie(lieAbout: 'tmp' | 'binlog' | 'segments', segmentFileBytesMax?: number): Promise<KillFigures> {
    const victim = { lieAbout, segmentFileBytesMax }
    return killCycles({ cycles: 1, seed, deaths: ['acknowledgement'], victim, syncMs: CONTROL_SYNC_MS })
  }

  function expectNone(problems: readonly Problem[]): void {
    expect(problems, `seed ${seed}`).to.deep.equal([])
  }
})

describe('a data directory', function () {
  this.timeout(60_000)
  const seed = randomInt(2 ** 31)
  const unshipped = { replicated: false, checkpointed: false, seed }

  it('loses no acknowledged file and gives no name twice, wherever its last record is torn', async () => {
    const steps = { torn: EVERY_FOURTH, garbled: EVERY_THIRTIETH, flipped: EVERY_THIRTIETH }
    const { problems } = await damageRecords({ ...unshipped, steps })
    expect(problems, `seed ${seed}`).to.deep.equal([])
  })

  it('loses the file of a damaged slot at most, and never shows it, also when no record tells of it any more', async () => {
    const steps = { torn: EVERY_THIRTIETH, garbled: EVERY_THIRTIETH, flipped: EVERY_TENTH }
    for (const isFlushCut of [false, true]) {
      const { problems } = await damageSlots({ ...unshipped, steps, isFlushCut })
      expect(problems, `seed ${seed}`).to.deep.equal([])
    }
  })

  it('loses no plain file either, wherever its last record is torn', async () => {
    const { problems } = await damageRecords({ ...unshipped, plain: true, steps: { torn: EVERY_THIRTIETH } })
    expect(problems, `seed ${seed}`).to.deep.equal([])
  })

  it('is found to have lost a file that went with its record', async () => {
    const sabotage = (source: string, lastName: string) => rm(pathOnDisk(source, lastName))
    const { problems } = await damageRecords({ ...unshipped, plain: true, steps: { torn: EVERY_THIRTIETH }, sabotage })
    expect(kindsOf(problems)).to.deep.equal(['lost', 'missing'])
  })

  it('is found to have lost a packed file that went with its record', async () => {
    const sabotage = (source: string, lastName: string) =>
      truncate(pathOnDisk(source, lastName), decodeFileName(lastName).slot!.offsetBytes)
    const { problems } = await damageRecords({ ...unshipped, steps: { torn: EVERY_THIRTIETH }, sabotage })
    expect(kindsOf(problems)).to.deep.equal(['lost', 'missing'])
  })

  it('shows no file that is damaged, wherever that is', async () => {
    const { problems } = await damageFiles({ seed, step: EVERY_FOURTH })
    expect(problems, `seed ${seed}`).to.deep.equal([])
  })
})

/** Each kind once, in the order of the alphabet. */
function kindsOf(problems: readonly Problem[]): string[] {
  return [...new Set(problems.map(problem => problem.kind))].sort()
}
