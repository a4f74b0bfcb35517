import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect } from 'chai'
import { realWorld } from '../../runtime/real-world.ts'
import { QUARANTINE_FILES_MAX, Quarantine } from '../../store/quarantine.ts'
import { FaultyDisk } from './faulty-disk.ts'
import { rejection, Workshop } from './store-fixture.ts'

const file = (i: number) => ({ name: `M00/00/00/${String(i).padStart(60, 'x')}`, part: 'slot', foundMs: 5 }) as const

describe('quarantine', () => {
  let workshop: Workshop
  const { disk } = realWorld()

  beforeEach(async () => {
    workshop = await Workshop.make()
  })
  afterEach(() => workshop.remove())

  it('keeps what was noted and saved, each file once', async () => {
    const quarantine = await Quarantine.read(disk, workshop.path)
    expect([quarantine.note(file(1)), quarantine.note(file(2)), quarantine.note(file(1))]).to.deep.equal([
      true,
      true,
      false,
    ])
    quarantine.forget(file(2).name)
    await quarantine.save()
    const again = await Quarantine.read(disk, workshop.path)
    expect(again.files).to.deep.equal([file(1)])
    expect([again.count, again.has(file(1).name), again.has(file(2).name)]).to.deep.equal([1, true, false])
  })

  it('counts what has no room in its list, until a pass finds it no more', async () => {
    const quarantine = await Quarantine.read(disk, workshop.path)
    for (let i = 0; i < QUARANTINE_FILES_MAX; i++) expect(quarantine.note(file(i))).to.equal(true)
    expect([
      quarantine.note(file(QUARANTINE_FILES_MAX)),
      quarantine.note(file(QUARANTINE_FILES_MAX + 1)),
    ]).to.deep.equal([false, false])
    expect(quarantine.count).to.equal(QUARANTINE_FILES_MAX + 2)
    // The longest list is a document that can be read.
    await quarantine.save()
    expect((await Quarantine.read(disk, workshop.path)).count).to.equal(QUARANTINE_FILES_MAX)
    quarantine.endPass()
    expect(quarantine.count).to.equal(QUARANTINE_FILES_MAX + 2)
    quarantine.endPass()
    expect(quarantine.count).to.equal(QUARANTINE_FILES_MAX)
  })

  it('saves what comes while it saves, and what a disk has refused at the next time', async () => {
    const faulty = new FaultyDisk(disk)
    const quarantine = await Quarantine.read(faulty, workshop.path)
    quarantine.note(file(1))
    const saved = quarantine.save()
    quarantine.note(file(2))
    await saved
    expect((await Quarantine.read(disk, workshop.path)).count).to.equal(2)
    faulty.fail({ action: 'sync' }, 'EIO')
    quarantine.note(file(3))
    expect(await rejection(quarantine.save())).to.include({ errno: 'EIO' })
    faulty.heal()
    await quarantine.save()
    expect((await Quarantine.read(disk, workshop.path)).count).to.equal(3)
  })

  it('is empty if its document is damaged, or of another version', async () => {
    await writeFile(join(workshop.path, 'quarantine'), '{"version":1,"files":[]}\n00000000\n')
    expect((await Quarantine.read(disk, workshop.path)).count).to.equal(0)
  })
})
