import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect } from 'chai'
import { realWorld } from '../../runtime/real-world.ts'
import { SourceLives } from '../../store/source-lives.ts'
import { Workshop } from './store-fixture.ts'

describe('lives of a source', () => {
  const { disk } = realWorld()
  let workshop: Workshop

  beforeEach(async () => {
    workshop = await Workshop.make()
  })
  afterEach(() => workshop.remove())

  const life = (epoch: number, incarnation: string) => ({ storageId: 7, epoch, incarnation: incarnation.repeat(32) })

  it('are told from each other: the first of an epoch counts, also after a restart', async () => {
    const lives = await SourceLives.read(disk, workshop.path)
    expect(await lives.settle(life(1, 'a'))).to.deep.equal(life(1, 'a'))
    expect(await lives.settle(life(1, 'b'))).to.deep.equal(life(1, 'a'))
    const again = await SourceLives.read(disk, workshop.path)
    expect(await again.settle(life(1, 'b'))).to.deep.equal(life(1, 'a'))
  })

  it('go on under a later epoch, and never back', async () => {
    const lives = await SourceLives.read(disk, workshop.path)
    await lives.settle(life(1, 'a'))
    expect(await lives.settle(life(2, 'b'))).to.deep.equal(life(2, 'b'))
    expect(await lives.settle(life(1, 'a'))).to.deep.equal(life(2, 'b'))
  })

  it('that ask at the same time are settled one after another', async () => {
    const lives = await SourceLives.read(disk, workshop.path)
    const [first, second] = await Promise.all([lives.settle(life(1, 'a')), lives.settle(life(1, 'b'))])
    expect(second).to.deep.equal(first)
    await lives.settle({ ...life(1, 'c'), storageId: 8 })
    expect(await readFile(join(workshop.path, 'sources'), 'utf8'))
      .to.include('"storageId":7')
      .and.include('"storageId":8')
  })

  it('are forgotten with a damaged document, and learnt again', async () => {
    await writeFile(join(workshop.path, 'sources'), 'not a document')
    const lives = await SourceLives.read(disk, workshop.path)
    expect(await lives.settle(life(1, 'b'))).to.deep.equal(life(1, 'b'))
  })
})
