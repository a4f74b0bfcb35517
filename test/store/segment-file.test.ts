import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'chai'
import { realWorld } from '../../runtime/real-world.ts'
import type { Disk } from '../../runtime/world.ts'
import { SegmentFile } from '../../store/segment-file.ts'
import { FaultyDisk } from './faulty-disk.ts'
import { contentOf, rejection, Workshop } from './store-fixture.ts'

const SLOT_BYTES = 128

describe('segment file', () => {
  let workshop: Workshop
  let path: string
  let disk: FaultyDisk
  let segment: SegmentFile

  beforeEach(async () => {
    workshop = await Workshop.make()
    path = join(workshop.path, '0000000001')
    disk = new FaultyDisk(realWorld().disk)
    segment = await open()
  })
  afterEach(async () => {
    disk.heal()
    await segment.close()
    await workshop.remove()
  })

  const open = async (syncs = true, on: Disk = disk) =>
    new SegmentFile(on, workshop.path, await on.open(path, 'create'), { sizeBytes: 0, syncs })
  const slot = (seed: number) => contentOf(SLOT_BYTES, seed)
  const put = (index: number) => segment.put(index * SLOT_BYTES, slot(index))
  /** Puts slots together, behind a flush that is under way, and lets that go. */
  async function putTogether(indexes: number[]): Promise<PromiseSettledResult<void>[]> {
    const held = disk.hold({ action: 'sync' })
    const first = put(0)
    await held.reached
    const others = indexes.map(put)
    held.release()
    await first
    return Promise.allSettled(others)
  }
  const isThere = (index: number) =>
    readFileSync(path)
      .subarray(index * SLOT_BYTES, (index + 1) * SLOT_BYTES)
      .equals(slot(index))

  it('makes durable what came together with one write and one sync', async () => {
    await putTogether([1, 2, 3, 4, 5])
    expect(disk.count({ action: 'write' })).to.equal(2)
    expect(disk.count({ action: 'sync' })).to.equal(2)
    expect(disk.trace.filter(({ action, phase }) => action === 'write' && phase === 'end')[1]).to.include({
      bytes: 5 * SLOT_BYTES,
    })
    for (let index = 0; index <= 5; index++) expect(isThere(index), `slot ${index}`).to.equal(true)
  })

  it('writes what does not lie side by side apart, and syncs it together', async () => {
    await putTogether([1, 2, 5, 6, 4])
    expect(disk.count({ action: 'write' })).to.equal(1 + 3)
    expect(disk.count({ action: 'sync' })).to.equal(2)
    for (const index of [1, 2, 4, 5, 6]) expect(isThere(index), `slot ${index}`).to.equal(true)
  })

  it('resolves a put only after its own sync, and in the order of the calls', async () => {
    const held = disk.hold({ action: 'sync' })
    const done: number[] = []
    const puts = [3, 1, 2].map(index => put(index).then(() => done.push(index)))
    await held.reached
    expect(done).to.deep.equal([])
    held.release()
    await Promise.all(puts)
    expect(done).to.deep.equal([3, 1, 2])
  })

  it('resolves none before its entry is durable, and makes that durable once', async () => {
    const held = disk.hold({ action: 'syncDirectory' })
    let isDone = false
    const first = put(0).then(() => {
      isDone = true
    })
    await held.reached
    await new Promise(setImmediate)
    expect(isDone).to.equal(false)
    held.release()
    await first
    await put(1)
    expect(disk.count({ action: 'syncDirectory' })).to.equal(1)
  })

  it('syncs nothing where a file is as durable as the system makes it by itself', async () => {
    path = join(workshop.path, '0000000002')
    await segment.close()
    segment = await open(false)
    await Promise.all([put(0), put(1)])
    expect(disk.count({ action: 'sync' }) + disk.count({ action: 'syncDirectory' })).to.equal(0)
  })

  for (const errno of ['ENOSPC', 'EIO']) {
    it(`rejects what came together when a write says ${errno}, and nothing of another flush`, async () => {
      disk.fail({ action: 'write' }, errno, { keptBytes: 10 })
      expect(await rejection(put(0))).to.include({ errno })
      await put(1)
      expect(isThere(1)).to.equal(true)
    })

    it(`takes no more once a sync has said ${errno}, and rejects whoever waits`, async () => {
      const held = disk.hold({ action: 'sync' })
      const first = rejection(put(0))
      await held.reached
      const second = rejection(put(1))
      held.release(errno)
      expect(await first).to.include({ errno })
      expect(await second).to.include({ errno })
      expect(await rejection(put(2))).to.include({ errno })
      expect(await rejection(segment.sync())).to.include({ errno })
      expect(disk.count({ action: 'sync' })).to.equal(0)
      const target = Buffer.alloc(SLOT_BYTES)
      expect(await segment.read(target, 0), 'what is there is read all the same').to.equal(SLOT_BYTES)
    })

    it(`takes no more once the sync of its directory has said ${errno}: the next may promise what is not true`, async () => {
      const held = disk.hold({ action: 'syncDirectory' })
      const first = rejection(put(0))
      await held.reached
      const second = rejection(put(1))
      held.release(errno)
      expect(await first).to.include({ errno })
      expect(await second).to.include({ errno })
      expect(await rejection(put(2))).to.include({ errno })
    })
  }

  it('rejects only when nobody reads from the buffers any more', async () => {
    const sync = disk.hold({ action: 'sync' })
    const first = put(0)
    await sync.reached
    let isOver = false
    const others = Promise.allSettled([put(1), put(3)]).then(() => {
      isOver = true
    })
    disk.fail({ action: 'write' }, 'ENOSPC')
    const write = disk.hold({ action: 'write' })
    sync.release()
    await first
    await write.reached
    await new Promise(setImmediate)
    expect(isOver).to.equal(false)
    write.release()
    await others
  })

  it('waits for what is under way before it closes', async () => {
    const held = disk.hold({ action: 'sync' })
    const done = put(0)
    await held.reached
    const closed = segment.close()
    expect(disk.closed).to.equal(0)
    held.release()
    await Promise.all([done, closed])
    expect(disk.closed).to.equal(1)
    path = join(workshop.path, '0000000003')
    segment = await open()
  })
})
