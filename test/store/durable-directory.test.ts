import { join } from 'node:path'
import { expect } from 'chai'
import { realWorld } from '../../runtime/real-world.ts'
import { makeDurableDirectory } from '../../store/durable-directory.ts'
import { FaultyDisk } from './faulty-disk.ts'
import { rejection, Workshop } from './store-fixture.ts'

describe('durable directory', () => {
  let workshop: Workshop
  let disk: FaultyDisk
  let path: string

  beforeEach(async () => {
    workshop = await Workshop.make()
    disk = new FaultyDisk(realWorld().disk)
    path = join(workshop.path, 'made')
  })
  afterEach(() => workshop.remove())

  it('has its entry synced after it is made, also when it was there already', async () => {
    for (let i = 0; i < 2; i++) {
      const from = disk.trace.length
      await makeDurableDirectory(disk, path)
      const made = disk.find('end', { action: 'makeDirectory' }, from)
      expect(disk.trace[made]?.path).to.equal(path)
      const synced = disk.find('end', { action: 'syncDirectory' }, made)
      expect(disk.trace[synced]?.path).to.equal(workshop.path)
    }
  })

  it('may lie in a directory that is not ours to read, and in no other that cannot be synced', async () => {
    for (const errno of ['EACCES', 'EPERM']) {
      disk.fail({ action: 'syncDirectory' }, errno)
      await makeDurableDirectory(disk, path)
    }
    disk.fail({ action: 'syncDirectory' }, 'EIO')
    expect(await rejection(makeDurableDirectory(disk, path))).to.include({ errno: 'EIO' })
  })
})
