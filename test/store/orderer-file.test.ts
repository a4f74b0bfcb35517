import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect } from 'chai'
import fc from 'fast-check'
import { ordererOf, roundOf, termAfter, withSuccession } from '../../protocol/orderers.ts'
import { realWorld } from '../../runtime/real-world.ts'
import { writeDocument } from '../../store/durable-document.ts'
import { OrdererFile } from '../../store/orderer-file.ts'
import { Workshop } from './store-fixture.ts'

const PLACE = { storageId: 1, epoch: 1, sequence: 7 }
const SUCCESSION = { source: 1, orderer: 2, after: PLACE, since: { ...PLACE, storageId: 2 }, cut: PLACE }

describe('what was promised about orderers', () => {
  const { disk } = realWorld()
  let workshop: Workshop
  const read = () => OrdererFile.read(disk, workshop.path)

  beforeEach(async () => {
    workshop = await Workshop.make()
  })
  afterEach(() => workshop.remove())

  it('is nothing at first: each source orders its own files', async () => {
    const { state } = await read()
    expect(state).to.deep.equal({
      promised: 0,
      isAlone: false,
      members: [],
      table: { term: 0, successions: [] },
    })
    expect(ordererOf(state.table, 5)).to.equal(5)
  })

  it('is kept through a restart: nothing older is promised or agreed on again', async () => {
    const file = await read()
    const [first, second] = [termAfter(0, 1), termAfter(0, 2)]
    expect(await file.promise(second)).to.equal(true)
    const again = await read()
    expect(await again.promise(first)).to.equal(false)
    expect(await again.promise(second), 'twice').to.equal(false)
    expect(await again.accept({ term: first, successions: [] })).to.equal(false)
    expect(await again.accept(withSuccession({ term: second, successions: [] }, SUCCESSION))).to.equal(true)
    const { state } = await read()
    expect(state.table).to.deep.equal({ term: second, successions: [SUCCESSION] })
    expect(ordererOf(state.table, 1)).to.equal(2)
  })

  it('agreed on without a promise is one', async () => {
    const file = await read()
    expect(await file.accept({ term: termAfter(0, 9), successions: [] }, true)).to.equal(true)
    expect(file.state).to.include({ promised: termAfter(0, 9), isAlone: true })
    await file.endAlone()
    expect((await read()).state.isAlone).to.equal(false)
  })

  it('remembers every member that was ever heard of', async () => {
    const file = await read()
    await file.remember([2, 3])
    await file.remember([3, 4])
    await file.promise(termAfter(0, 1))
    await file.accept({ term: termAfter(0, 1), successions: [] })
    expect((await read()).state.members).to.deep.equal([2, 3, 4])
  })

  it('is changed by one at a time', async () => {
    const file = await read()
    const terms = [termAfter(0, 1), termAfter(0, 2), termAfter(0, 3)]
    expect(await Promise.all(terms.map(term => file.promise(term)))).to.deep.equal([true, true, true])
    expect(await Promise.all([file.promise(terms[0]!), file.promise(terms[2]!)])).to.deep.equal([false, false])
  })

  it('stops a start when it is damaged, or of a version nobody knows', async () => {
    const file = await read()
    await file.promise(termAfter(0, 1))
    const path = join(workshop.path, 'orderers')
    const text = await readFile(path, 'utf8')
    for (const damaged of [text.slice(0, 20), text.replace('"promised":', '"promised":1'), '']) {
      await writeFile(path, damaged)
      const error = await read().catch(failure => failure)
      expect(error, damaged).to.have.property('name', 'DocumentDamagedError')
    }
    await writeDocument(disk, path, { ...file.state, version: 99 })
    expect(await read().catch(failure => failure)).to.be.instanceOf(Error)
  })
})

describe('a term', () => {
  const ids = fc.integer({ min: 1, max: 2 ** 24 - 1 })

  it('is later than the one before, its maker’s own, and a number that nothing rounds', () => {
    fc.assert(
      fc.property(fc.nat(2 ** 20), ids, ids, (round, one, other) => {
        const before = round * 2 ** 24 + one
        const term = termAfter(before, other)
        expect(term).greaterThan(before)
        expect(roundOf(term)).to.equal(round + 1)
        expect(Number.isSafeInteger(term)).to.equal(true)
        if (one !== other) expect(termAfter(before, one)).not.equal(term)
      }),
    )
  })
})
