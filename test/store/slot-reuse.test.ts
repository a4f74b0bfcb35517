/** Slots of deleted files that are given to others, and segments that go, at a source and at its peers. */
import { readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect } from 'chai'
import { decodeRecord } from '../../protocol/binlog-record.ts'
import { decodeFileName } from '../../protocol/file-id.ts'
import type { Shipment } from '../../store/store.ts'
import type { StoreOptions } from '../../store/store-options.ts'
import { VirtualClock } from '../virtual-clock.ts'
import { contentOf, download, type OpenStore, rejection, upload, Workshop } from './store-fixture.ts'

const REUSE = { segmentBytes: 4_096, restMs: 60_000, freeBytesMin: 64 }
const OPTIONS: Partial<StoreOptions> = { segmentFileBytesMax: 2_000, reuse: REUSE }
const SOURCE = 9
/** Nothing can be appended with such a reserve. */
const FULL = { reservedBytes: 2 ** 60 }
const SIZE = 1_000

describe('a slot of a deleted file', () => {
  let workshop: Workshop
  let clock: VirtualClock
  let opened: OpenStore
  beforeEach(async () => {
    workshop = await Workshop.make()
    clock = new VirtualClock()
    opened = await open('data')
  })
  afterEach(() => workshop.remove())

  function open(name: string, options: Partial<StoreOptions> = {}): Promise<OpenStore> {
    return workshop.open(name, { ...OPTIONS, ...options }, clock)
  }
  /** Uploads files that fill some segments. */
  async function fill(count: number, { store } = opened): Promise<string[]> {
    const names: string[] = []
    for (let i = 0; i < count; i++) names.push(await upload(store, contentOf(SIZE, i)))
    return names
  }
  /** Lets a moment pass with a look at its beginning and at its end. */
  async function pass(ms: number, { store } = opened): Promise<void> {
    await store.lookAfterSlots()
    clock.advance(ms)
    // One look is under way from the clock; the next one sees all it did.
    for (let i = 0; i < 3; i++) await store.lookAfterSlots()
  }
  const placeOf = (name: string) => decodeFileName(name).slot
  const reusable = ({ store } = opened) => store.storePaths[0]!.reusableBytes
  /** The own records of a source, with the slots they had. */
  async function shipments({ store } = opened, slots = new Map<string, Buffer>()): Promise<Shipment[]> {
    const all: Shipment[] = []
    let previous = 0
    for await (const { line } of store.readRecords({ after: 0, until: store.end.sequence })) {
      const record = decodeRecord(line)!
      if (record.op === 'S') continue
      const file = decodeFileName(record.name)
      const origin = { storageId: store.storageId, epoch: record.epoch, sequence: record.sequence }
      const content = record.op === 'C' ? slots.get(record.name) : undefined
      all.push({ shipped: { origin, previous, record, file }, content })
      previous = record.sequence
    }
    return all
  }
  async function slotOf(name: string, { store } = opened): Promise<Buffer> {
    const slot = Buffer.alloc(placeOf(name)!.slotBytes)
    await store.readSlots(decodeFileName(name), slot)
    return slot
  }

  it('is given to another one, but not before it has rested', async () => {
    const [first, second] = await fill(6)
    await opened.store.delete(first!)
    await opened.store.delete(second!)
    await pass(REUSE.restMs - 10_000)
    const early = await upload(opened.store, contentOf(SIZE, 7))
    expect(placeOf(early)!.segmentId).to.be.above(placeOf(first!)!.segmentId)
    await pass(20_000)
    const late = [await upload(opened.store, contentOf(SIZE, 8)), await upload(opened.store, contentOf(SIZE, 9))]
    expect(late.map(placeOf)).to.deep.equal([first, second].map(name => placeOf(name!)))
    expect(await download(opened.store, late[0]!)).to.deep.equal(contentOf(SIZE, 8))
    for (const stale of [first!, second!]) {
      expect(await download(opened.store, stale)).to.equal(undefined)
      expect(await opened.store.knowsDeletion(stale)).to.equal(true)
      expect(await opened.store.delete(stale)).to.equal(false)
    }
    expect(reusable()).to.equal(0)
  })

  it('takes small files on a disk that is full', async () => {
    const names = await fill(6)
    await opened.close()
    opened = await open('data', FULL)
    expect(await rejection(upload(opened.store, contentOf(SIZE, 7)))).to.include({ code: 'no_space' })
    await opened.store.delete(names[0]!)
    expect(reusable()).to.equal(1_024)
    await pass(REUSE.restMs)
    expect(placeOf(await upload(opened.store, contentOf(SIZE, 7)))).to.deep.equal(placeOf(names[0]!))
    expect(await rejection(upload(opened.store, contentOf(SIZE, 8)))).to.include({ code: 'no_space' })
    expect(await rejection(upload(opened.store, contentOf(10, 9)))).to.include({ code: 'no_space' })
  })

  it('is free again, or nobody’s, when the file that came into it was torn', async () => {
    const [gone] = await fill(6)
    await opened.store.delete(gone!)
    const before = await slotOf(gone!)
    await pass(REUSE.restMs)
    const name = await upload(opened.store, contentOf(SIZE, 7))
    const after = await slotOf(name)
    const copy = await workshop.crash()
    const { segmentId, offsetBytes } = placeOf(name)!
    const path = join(workshop.path, copy, 'store', 'segments', '7', String(segmentId).padStart(10, '0'))
    const segment = await readFile(path)
    for (const [newBytes, isThere] of [
      [0, false],
      [64, false],
      [512, false],
      [1_024, true],
    ] as const) {
      after.copy(segment, offsetBytes, 0, newBytes)
      before.copy(segment, offsetBytes + newBytes, newBytes)
      await writeFile(path, segment)
      const again = await open(await workshop.crash(copy))
      expect((await download(again.store, name).catch(() => undefined)) !== undefined).to.equal(isThere)
      expect(await again.store.knowsDeletion(gone!), `${newBytes} bytes`).to.equal(true)
      expect(again.store.recovery.orphans).to.deep.equal([])
      expect(reusable(again), `${newBytes} bytes`).to.equal(newBytes === 0 ? 1_024 : 0)
      await again.close()
    }
  })

  it('keeps the file that came into it when its record is lost, so that peers get it', async () => {
    const [gone] = await fill(6)
    await opened.store.delete(gone!)
    await pass(REUSE.restMs)
    const held = opened.disk.hold({ action: 'write', path: /binlog/ })
    const name = upload(opened.store, contentOf(SIZE, 7))
    await held.reached
    const copy = await workshop.crash()
    held.release()
    expect(placeOf(await name)).to.deep.equal(placeOf(gone!))
    const again = await open(copy)
    expect(again.store.recovery.orphans).to.deep.equal([await name])
    expect(await download(again.store, await name)).to.deep.equal(contentOf(SIZE, 7))
  })

  for (const damage of ['missing', 'flipped'] as const) {
    it(`is counted anew when the catalogue is ${damage}`, async () => {
      const names = await fill(9)
      for (const name of names.slice(2, 6)) await opened.store.delete(name)
      await opened.close()
      const path = join(workshop.path, 'data', 'catalogue')
      const bytes = await readFile(path)
      bytes[40]! ^= 1
      await (damage === 'missing' ? rm(path) : writeFile(path, bytes))
      opened = await open('data')
      await pass(1_000)
      expect(reusable()).to.equal(4 * 1_024)
    })
  }

  it('goes with its segment when that has no file any more, and is known to be deleted', async () => {
    const names = await fill(6)
    for (const name of names.slice(0, 4)) await opened.store.delete(name)
    await pass(REUSE.restMs)
    expect(await readdir(join(opened.directory, 'store', 'segments', '7'))).to.have.length(1)
    expect(reusable()).to.equal(0)
    await opened.close()
    opened = await open('data')
    for (const name of names.slice(0, 4)) {
      expect(await opened.store.has(name)).to.equal(false)
      expect(await opened.store.knowsDeletion(name)).to.equal(true)
    }
    expect(await download(opened.store, names[5]!)).to.deep.equal(contentOf(SIZE, 5))
  })

  describe('at a peer', () => {
    let peer: OpenStore
    let slots: Map<string, Buffer>
    let gone: string
    let next: string
    /** A source with a file in the slot of another. */
    beforeEach(async () => {
      await opened.close()
      opened = await open('source', { storageId: SOURCE })
      peer = await open('peer')
      const names = await fill(5)
      gone = names[0]!
      slots = new Map()
      for (const name of names) slots.set(name, await slotOf(name))
      await opened.store.delete(gone)
      await pass(REUSE.restMs)
      next = await upload(opened.store, contentOf(SIZE, 7))
      slots.set(next, await slotOf(next))
      expect(placeOf(next)).to.deep.equal(placeOf(gone))
    })
    async function expectNext(): Promise<void> {
      expect(await download(peer.store, next)).to.deep.equal(contentOf(SIZE, 7))
      expect(await peer.store.has(gone)).to.equal(false)
      expect(await peer.store.knowsDeletion(gone)).to.equal(true)
    }

    it('takes the next file in the same run as the deletion of the one before', async () => {
      await peer.store.apply(await shipments(opened, slots))
      await expectNext()
      const again = await open(await workshop.crash('peer'))
      expect(await download(again.store, next)).to.deep.equal(contentOf(SIZE, 7))
    })

    it('takes it while everything before is still on its way', async () => {
      const all = await shipments(opened, slots)
      await Promise.all(all.map(shipment => peer.store.apply([shipment])))
      await expectNext()
    })

    it('takes it when the deletion of the one before was lost, but only if the source says that it is used again', async () => {
      const all = await shipments(opened, slots)
      const [, last] = all.splice(-2)
      await peer.store.apply(all)
      const { shipped } = last!
      const lost = { ...shipped, previous: all.at(-1)!.shipped.origin.sequence }
      const plain = { ...lost, record: { ...lost.record, reused: undefined } }
      const refused = rejection(peer.store.apply([{ shipped: plain, content: slots.get(next) }]))
      expect(await refused).to.include({ code: 'bad_request' })
      expect(await peer.store.has(gone)).to.equal(true)
      await peer.store.apply([{ shipped: lost, content: slots.get(next) }])
      await expectNext()
    })

    it('goes with its segment by the peer’s own count, and comes back when a file comes into it', async () => {
      // As if all others had been deleted before they were shipped.
      const isShipped = (name: string) => name === gone || name === next
      const all = await shipments(opened, new Map([...slots].filter(([name]) => isShipped(name))))
      const last = all.pop()!
      await peer.store.apply(all)
      await pass(REUSE.restMs, peer)
      const path = join(peer.directory, 'store', 'segments', String(SOURCE))
      expect((await readdir(path)).map(Number)).not.to.include(placeOf(gone)!.segmentId)
      expect(await peer.store.has(gone)).to.equal(false)
      await peer.store.apply([last])
      expect(await download(peer.store, next)).to.deep.equal(contentOf(SIZE, 7))
    })
  })
})
