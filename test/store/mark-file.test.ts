import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect } from 'chai'
import { realWorld } from '../../runtime/real-world.ts'
import { writeDocument } from '../../store/durable-document.ts'
import { type Mark, MarkFiles } from '../../store/mark-file.ts'
import { Workshop } from './store-fixture.ts'

const MARK: Mark = { peer: 9, peerIncarnation: 'ab'.repeat(16), epoch: 2, sequence: 41, shipped: 40 }

describe('mark files', () => {
  const { disk } = realWorld()
  let workshop: Workshop
  let marks: MarkFiles

  beforeEach(async () => {
    workshop = await Workshop.make()
    marks = new MarkFiles(disk, workshop.path)
  })
  afterEach(() => workshop.remove())

  it('are one document for each peer, replaced as it moves', async () => {
    expect(await marks.readAll()).to.deep.equal([])
    await marks.write(MARK)
    await marks.write({ ...MARK, peer: 10, sequence: 7 })
    await marks.write({ ...MARK, sequence: 42 })
    const all = (await marks.readAll()).sort((a, b) => a.peer - b.peer)
    expect(all.map(({ peer, sequence }) => [peer, sequence])).to.deep.equal([
      [9, 42],
      [10, 7],
    ])
    expect(all[0]).to.include({ ...MARK, sequence: 42 })
    expect((await readdir(join(workshop.path, 'marks'))).sort()).to.deep.equal(['10', '9'])
  })

  it('of a version nobody knows, and what a crash left, count as none', async () => {
    await marks.readAll()
    await writeDocument(disk, join(workshop.path, 'marks', '11'), { ...MARK, version: 99 })
    await writeFile(join(workshop.path, 'marks', '9.new'), 'torn')
    expect(await marks.readAll()).to.deep.equal([])
    await marks.write(MARK)
    expect(await marks.readAll()).to.have.length(1)
  })

  it('count as none when they are damaged', async () => {
    await marks.readAll()
    await marks.write(MARK)
    const path = join(workshop.path, 'marks', '9')
    const text = await readFile(path, 'utf8')
    await writeFile(path, text.replace('"sequence":41', '"sequence":91'))
    expect(await marks.readAll()).to.deep.equal([])
  })
})
