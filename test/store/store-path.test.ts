import { writeFileSync } from 'node:fs'
import { readdir, rename } from 'node:fs/promises'
import { join } from 'node:path'
import { expect } from 'chai'
import { realWorld } from '../../runtime/real-world.ts'
import { DocumentDamagedError, readDocument, writeDocument } from '../../store/durable-document.ts'
import { StorePath } from '../../store/store-path.ts'
import { FaultyDisk } from './faulty-disk.ts'
import { pathOptions, rejection, Workshop } from './store-fixture.ts'

const OURS = '1'.repeat(32)
const THEIRS = '2'.repeat(32)

describe('store path', () => {
  let workshop: Workshop
  let disk: FaultyDisk
  let root: string

  beforeEach(async () => {
    workshop = await Workshop.make()
    disk = new FaultyDisk(realWorld().disk)
    root = join(workshop.path, 'path')
  })
  afterEach(() => workshop.remove())

  it('is made when it is first opened, and says whose it is', async () => {
    await StorePath.open(disk, 3, root, pathOptions(OURS))
    expect((await readdir(root)).sort()).to.deep.equal(['data', 'identity', 'segments', 'tmp'])
    expect(await readDocument(disk, join(root, 'identity'))).to.deep.equal({ version: 1, incarnation: OURS, index: 3 })
    await StorePath.open(disk, 3, root, pathOptions(OURS))
  })

  it('of another data directory, another index or another version is refused', async () => {
    await StorePath.open(disk, 3, root, pathOptions(OURS))
    expect(await rejection(StorePath.open(disk, 3, root, pathOptions(THEIRS)))).to.be.instanceOf(DocumentDamagedError)
    expect(await rejection(StorePath.open(disk, 4, root, pathOptions(OURS)))).to.be.instanceOf(DocumentDamagedError)
    await writeDocument(disk, join(root, 'identity'), { version: 2, incarnation: OURS, index: 3 })
    expect(await rejection(StorePath.open(disk, 3, root, pathOptions(OURS)))).to.be.instanceOf(DocumentDamagedError)
  })

  it('that was seen before and is empty now has failed, and nothing is made in it', async () => {
    const path = await StorePath.open(disk, 0, root, pathOptions(OURS, { seen: true }))
    expect(path.failure).to.include({ errno: 'ENODEV' })
    expect(path.report.writable).to.equal(false)
    expect(await disk.stat(root)).to.equal(undefined)
  })

  it('notices at the next measurement that its disk is gone, and stays failed', async () => {
    const path = await StorePath.open(disk, 0, root, pathOptions(OURS))
    await rename(root, `${root}.away`)
    await path.measure()
    expect(path.failure).to.include({ errno: 'ENODEV' })
    await rename(`${root}.away`, root)
    await path.measure()
    expect(path.report.writable).to.equal(false)
  })

  it('keeps its reserve, and counts what is about to be written', async () => {
    const path = await StorePath.open(disk, 0, root, pathOptions(OURS, { reservedBytes: 1000 }))
    const { freeBytes } = path.report
    expect(path.availableBytes).to.equal(freeBytes - 1000)
    path.reserve(freeBytes - 1500)
    expect(path.availableBytes).to.equal(500)
    path.reserve(10_000)
    expect([path.availableBytes, path.report.freeBytes]).to.deep.equal([0, 0])
  })

  it('makes a directory once, and syncs it and those above it with the changes', async () => {
    const path = await StorePath.open(disk, 0, root, pathOptions(OURS))
    for (let i = 0; i < 3; i++) {
      await path.makeDirectoryOf({ directory: '0A/3F', directoryIndex: 0x0a3f })
      path.noteChange({ directory: '0A/3F' })
    }
    expect(disk.count({ action: 'makeDirectory', path: /0A\/3F$/ })).to.equal(1)
    await path.syncChanges()
    const synced = () => disk.trace.filter(call => call.action === 'syncDirectory' && call.path.includes('data'))
    expect(new Set(synced().map(call => call.path.slice(root.length)))).to.deep.equal(
      new Set(['/data', '/data/0A', '/data/0A/3F']),
    )
    const before = synced().length
    await path.syncChanges()
    expect(synced().length).to.equal(before)
  })

  it('that is there already is made durable again: whoever made it may not have come to that', async () => {
    await StorePath.open(disk, 0, root, pathOptions(OURS))
    const again = new FaultyDisk(realWorld().disk)
    await StorePath.open(again, 0, root, pathOptions(OURS))
    for (const directory of [root, workshop.path]) {
      expect(again.count({ action: 'syncDirectory', path: new RegExp(`${directory}$`) })).to.equal(1)
    }
  })

  it('takes no more files once a directory could not be synced', async () => {
    const path = await StorePath.open(disk, 0, root, pathOptions(OURS))
    path.noteChange({ directory: '00/01' })
    disk.fail({ action: 'syncDirectory', path: /data/ }, 'EIO')
    expect(await rejection(path.syncChanges())).to.include({ errno: 'EIO' })
    expect(path.failure).to.include({ errno: 'EIO' })
    expect(path.report.writable).to.equal(false)
  })

  it('syncs files that changed in place, but for those that are deleted meanwhile', async () => {
    const path = await StorePath.open(disk, 0, root, pathOptions(OURS))
    const [kept, deleted] = ['kept', 'deleted'].map(name => join(root, 'data', name)) as [string, string]
    for (const file of [kept, deleted]) {
      writeFileSync(file, '')
      path.noteFile(file)
    }
    disk.fail({ action: 'open', path: /deleted$/ }, 'ENOENT')
    await path.syncChanges()
    expect(path.failure).to.equal(undefined)
    expect(disk.count({ action: 'sync', path: /kept$/ })).to.equal(1)
  })

  it('keeps its changes in mind when a sync fails', async () => {
    const path = await StorePath.open(disk, 0, root, pathOptions(OURS))
    await path.makeDirectoryOf({ directory: '00/01', directoryIndex: 1 })
    disk.fail({ action: 'syncDirectory', path: /data/ }, 'EIO')
    expect(await rejection(path.syncChanges())).to.include({ errno: 'EIO' })
    await path.syncChanges()
    expect(disk.count({ action: 'syncDirectory', path: /data\/00$/ })).to.equal(1)
    expect(disk.count({ action: 'syncDirectory', path: /data$/ })).to.equal(1)
  })
})
