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

  const open = async (syncs = true, on: Disk = disk, mode: 'create' | 'update' = 'create') =>
    new SegmentFile(on, workshop.path, await on.open(path, mode), { sizeBytes: 0, syncs })
  const slot = (seed: number) => contentOf(SLOT_BYTES, seed)
  const put = (...indexes: number[]) =>
    segment.put(indexes.map(index => ({ offsetBytes: index * SLOT_BYTES, bytes: slot(index) })))
  const isThere = (index: number) =>
    readFileSync(path)
      .subarray(index * SLOT_BYTES, (index + 1) * SLOT_BYTES)
      .equals(slot(index))

  it('makes durable what lies side by side with one write and one sync', async () => {
    await put(1, 2, 3, 4, 5)
    expect(disk.count({ action: 'write' })).to.equal(1)
    expect(disk.count({ action: 'sync' })).to.equal(1)
    for (let index = 1; index <= 5; index++) expect(isThere(index), `slot ${index}`).to.equal(true)
  })

  it('writes what does not lie side by side apart', async () => {
    await put(1, 2, 5, 6, 4)
    expect(disk.count({ action: 'write' })).to.equal(3)
    for (const index of [1, 2, 4, 5, 6]) expect(isThere(index), `slot ${index}`).to.equal(true)
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
    await put(0, 1)
    expect(disk.count({ action: 'sync' }) + disk.count({ action: 'syncDirectory' })).to.equal(0)
  })

  for (const action of ['write', 'sync'] as const) {
    it(`rejects slots that the disk has no room for when it comes to the ${action}, and nothing of the next ones`, async () => {
      disk.fail({ action }, 'ENOSPC', { keptBytes: action === 'write' ? 10 : 0 })
      expect(await rejection(put(0))).to.include({ errno: 'ENOSPC' })
      await put(1)
      expect(isThere(1)).to.equal(true)
    })
  }

  for (const action of ['write', 'sync', 'syncDirectory'] as const) {
    it(`takes no more once ${action} has failed: the next one may promise what is not true`, async () => {
      await put(0)
      const again = await open(true, disk, 'update')
      disk.fail({ action }, 'EIO')
      expect(await rejection(again.put([{ offsetBytes: 0, bytes: slot(0) }]))).to.include({ errno: 'EIO' })
      disk.heal()
      expect(await rejection(again.put([{ offsetBytes: SLOT_BYTES, bytes: slot(1) }]))).to.include({ errno: 'EIO' })
      expect(await rejection(again.sync())).to.include({ errno: 'EIO' })
      const target = Buffer.alloc(SLOT_BYTES)
      expect(await again.read(target, 0), 'what is there is read all the same').to.equal(SLOT_BYTES)
      await again.close()
    })
  }

  it('rejects only when nobody reads from the buffers any more', async () => {
    disk.fail({ action: 'write' }, 'ENOSPC')
    const write = disk.hold({ action: 'write' })
    let isOver = false
    const puts = put(1, 3)
      .catch(() => {})
      .finally(() => {
        isOver = true
      })
    await write.reached
    await new Promise(setImmediate)
    expect(isOver).to.equal(false)
    write.release()
    await puts
  })
})
