/** Small files in a store: in slots of segments, from upload to deletion, on disks that fill up and fail. */
import { readdirSync } from 'node:fs'
import { mkdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { expect } from 'chai'
import type { BinlogRecord } from '../../protocol/binlog-record.ts'
import { decodeFileName } from '../../protocol/file-id.ts'
import type { Phase } from '../../store/phase.ts'
import { nameOfSlot, PACKED_BYTES_MAX, SLOT_HEADER_BYTES, slotBytesFor, writeSlotHeader } from '../../store/slot.ts'
import type { ShippedRecord, Store } from '../../store/store.ts'
import {
  contentOf,
  download,
  fill,
  type OpenStore,
  pack,
  rejection,
  STORAGE_ID,
  sumOf,
  upload,
  Workshop,
} from './store-fixture.ts'

const UPLOAD_ID = '00112233445566778899aabbccddeeff'
const MAX = 64 * 1024
const SOURCE = 9

describe('packed files', () => {
  let workshop: Workshop

  beforeEach(async () => {
    workshop = await Workshop.make()
  })
  afterEach(() => workshop.remove())

  const open = (name = 'data', options = {}) => workshop.open(name, { segmentFileBytesMax: MAX, ...options })
  const twoPaths = () => ['a', 'b'].map(name => join(workshop.path, name))
  async function recordsOf(store: Store): Promise<BinlogRecord[]> {
    const records: BinlogRecord[] = []
    for await (const { record } of store.readRecords({ after: 0, until: store.end.sequence })) records.push(record)
    return records
  }
  /** Starts on a copy of what there is now. */
  const crash = async (name?: string, options = {}) => open(await workshop.crash(name), options)

  it('are those up to a size, and none if that is nothing', async () => {
    const { store } = await open()
    for (const [sizeBytes, kind] of [
      [0, 'segment'],
      [1, 'segment'],
      [MAX, 'segment'],
      [MAX + 1, 'plain'],
    ] as const) {
      const name = await upload(store, contentOf(sizeBytes))
      expect(decodeFileName(name), `${sizeBytes} bytes`).to.include({ kind, sizeBytes, storageId: STORAGE_ID })
      expect((await download(store, name))?.equals(contentOf(sizeBytes)), name).to.equal(true)
    }
    const plain = await open('plain', { segmentFileBytesMax: 0 })
    expect([0, 1].map(sizeBytes => plain.store.packs(sizeBytes))).to.deep.equal([false, false])
  })

  it('are never more than fits in the largest slot, whatever the store is told', async () => {
    const { store } = await open('data', { segmentFileBytesMax: 2 ** 30 })
    expect([PACKED_BYTES_MAX, PACKED_BYTES_MAX + 1].map(sizeBytes => store.packs(sizeBytes))).to.deep.equal([
      true,
      false,
    ])
  })

  it('are there until they are deleted, and known to be deleted from then on, also after a restart', async () => {
    let opened = await open()
    const names: string[] = []
    for (let i = 0; i < 20; i++) names.push(await upload(opened.store, contentOf(i * 100, i)))
    expect(new Set(names).size).to.equal(names.length)
    const [gone, ...kept] = names
    expect(await opened.store.knowsDeletion(gone!)).to.equal(false)
    expect(await opened.store.delete(gone!)).to.equal(true)
    for (let start = 0; start < 3; start++) {
      const { store } = opened
      expect([await store.has(gone!), await download(store, gone!), await store.delete(gone!)]).to.deep.equal([
        false,
        undefined,
        false,
      ])
      expect(await store.knowsDeletion(gone!)).to.equal(true)
      for (const [i, name] of kept.entries()) {
        expect(await store.has(name)).to.equal(true)
        expect((await download(store, name))?.equals(contentOf((i + 1) * 100, i + 1)), name).to.equal(true)
        expect(await store.knowsDeletion(name)).to.equal(false)
      }
      await opened.close()
      opened = await open()
    }
  })

  it('are deleted once, however many ask for it at the same time', async () => {
    const { store } = await open()
    const name = await upload(store, contentOf(10))
    const answers = await Promise.all(Array.from({ length: 10 }, () => store.delete(name)))
    expect(answers).to.deep.equal(answers.map(() => true))
    expect((await recordsOf(store)).map(({ op }) => op)).to.deep.equal(['C', 'D'])
  })

  it('are in memory once they were read, and not any more once they are deleted, also if they were read meanwhile', async () => {
    const { store, disk } = await open('data', { hotFileBytes: 2 ** 20 })
    const name = await upload(store, contentOf(10))
    expect(store.cached(name)).to.equal(undefined)
    await download(store, name)
    expect(store.cached(name)).to.deep.equal(contentOf(10))
    const held = disk.hold({ action: 'write', path: /segments/ })
    const deleted = store.delete(name)
    await held.reached
    expect(await download(store, name), 'it is still there').to.deep.equal(contentOf(10))
    held.release()
    await deleted
    expect(store.cached(name)).to.equal(undefined)
  })

  it('have records that say where their bytes are', async () => {
    const { store } = await open()
    const name = await upload(store, contentOf(10), UPLOAD_ID)
    const [record] = await recordsOf(store)
    expect(record).to.include({ op: 'C', name, inSlot: true, token: undefined, uploadId: UPLOAD_ID })
  })

  it('lie side by side in the order of their uploads', async () => {
    const { store } = await open()
    const sizes = [0, 100, 5000, 64, 300]
    const names = await Promise.all(sizes.map((sizeBytes, i) => upload(store, contentOf(sizeBytes, i))))
    const slots = names.map(name => decodeFileName(name).slot!)
    let offsetBytes = 0
    for (const [i, slot] of slots.entries()) {
      expect(slot).to.deep.equal({ segmentId: slots[0]!.segmentId, offsetBytes, slotBytes: slotBytesFor(sizes[i]!) })
      offsetBytes += slot.slotBytes
    }
    expect((await recordsOf(store)).map(({ name }) => name)).to.deep.equal(names)
  })

  for (const [what, pattern] of [
    ['their bytes', { action: 'sync', path: /segments\/7/ }],
    ['the entry of their segment', { action: 'syncDirectory', path: /segments\/7/ }],
    ['their record', { action: 'sync', path: /binlog/ }],
  ] as const) {
    it(`are not acknowledged before ${what} are durable`, async () => {
      const { store, disk } = await open()
      const held = disk.hold(pattern)
      let isAcknowledged = false
      const uploaded = upload(store, contentOf(100)).then(() => {
        isAcknowledged = true
      })
      await held.reached
      for (let i = 0; i < 20; i++) await new Promise(setImmediate)
      expect(isAcknowledged).to.equal(false)
      held.release()
      await uploaded
    })
  }

  it('that come together take one write and one sync for their bytes, and the same for their records', async () => {
    const { store, disk } = await open()
    const first = upload(store, contentOf(100))
    const held = disk.hold({ action: 'sync', path: /segments/ })
    await held.reached
    const others = Array.from({ length: 30 }, (_, i) => upload(store, contentOf(100, i)))
    await new Promise(setImmediate)
    held.release()
    await Promise.all([first, ...others])
    for (const action of ['write', 'sync'] as const) {
      expect(disk.count({ action, path: /segments/ }), action).to.equal(2)
      expect(disk.count({ action, path: /binlog/ }), action).to.be.at.most(3)
    }
  })

  it('are synced nowhere where that is left to the system, but at an orderly end', async () => {
    const { store, disk, close } = await open('data', { durability: 'os' })
    const before = { ...syncs(disk) }
    const names = await Promise.all(Array.from({ length: 5 }, (_, i) => upload(store, contentOf(100, i))))
    await store.delete(names[0]!)
    expect(syncs(disk).files, 'syncs of files').to.equal(before.files)
    // What makes a directory makes it durable, too; that is not once per file.
    expect(syncs(disk).directories - before.directories).to.be.at.most(3)
    await close()
    const again = await open('data', { durability: 'os' })
    expect((await download(again.store, names[1]!))?.equals(contentOf(100, 1))).to.equal(true)
    expect(await again.store.knowsDeletion(names[0]!)).to.equal(true)
  })
  function syncs(disk: OpenStore['disk']) {
    return { files: disk.count({ action: 'sync' }), directories: disk.count({ action: 'syncDirectory' }) }
  }

  it('go through the phases in their order', async () => {
    const phases: Phase[] = []
    const { store } = await open('data', { onPhase: (phase: Phase) => phases.push(phase) })
    const name = await upload(store, contentOf(10))
    expect(phases.splice(0)).to.deep.equal(['written', 'synced', 'recorded', 'renamed'])
    await store.delete(name)
    expect(phases).to.deep.equal(['recorded', 'renamed'])
  })

  it('go round the store paths, or to the one asked for', async () => {
    const { store } = await open('data', { storePaths: twoPaths() })
    const names = await Promise.all([0, 1, 2, 3].map(i => upload(store, contentOf(10, i))))
    expect(names.map(name => name.slice(0, 3))).to.deep.equal(['M00', 'M01', 'M00', 'M01'])
    expect((await pack(store, contentOf(10), { storePathIndex: 1 })).slice(0, 3)).to.equal('M01')
    expect(await rejection(pack(store, contentOf(10), { storePathIndex: 2 }))).to.include({ code: 'bad_request' })
    for (const [i, name] of names.entries()) expect(await download(store, name)).to.deep.equal(contentOf(10, i))
  })

  it('are refused where the reserve begins', async () => {
    const { store } = await open('data', { reservedBytes: 2 ** 60 })
    expect(await rejection(upload(store, contentOf(10)))).to.include({ code: 'no_space' })
  })

  describe('with an upload id', () => {
    it('are the same upload when it is repeated, also after a restart and after a crash', async () => {
      const opened = await open()
      const name = await upload(opened.store, contentOf(10), UPLOAD_ID)
      expect(await upload(opened.store, contentOf(10), UPLOAD_ID)).to.equal(name)
      expect(await upload((await crash()).store, contentOf(10), UPLOAD_ID)).to.equal(name)
      await opened.close()
      expect(await upload((await open()).store, contentOf(10), UPLOAD_ID)).to.equal(name)
    })

    it('are the same upload when they come at the same time', async () => {
      const { store } = await open()
      const names = await Promise.all(Array.from({ length: 20 }, () => upload(store, contentOf(10), UPLOAD_ID)))
      expect(new Set(names).size).to.equal(1)
      expect(store.end.sequence).to.equal(1)
    })

    it('are tried again by all who wait when the first one fails', async () => {
      const { store, disk } = await open()
      disk.fail({ action: 'write', path: /segments/ }, 'ENOSPC')
      const outcomes = await Promise.allSettled([0, 1, 2].map(() => upload(store, contentOf(10), UPLOAD_ID)))
      expect(outcomes.map(({ status }) => status)).to.deep.equal(['rejected', 'fulfilled', 'fulfilled'])
      expect(store.end.sequence).to.equal(1)
    })

    it('are another upload once they are deleted', async () => {
      const { store } = await open()
      const name = await upload(store, contentOf(10), UPLOAD_ID)
      await store.delete(name)
      const again = await upload(store, contentOf(10), UPLOAD_ID)
      expect(again).not.to.equal(name)
      expect(await download(store, again)).to.deep.equal(contentOf(10))
    })
  })

  describe('on a disk that is full', () => {
    for (const action of ['write', 'sync'] as const) {
      it(`leave nothing that a start would find when the ${action} of their slots fails`, async () => {
        const { store, disk } = await open()
        const kept = await upload(store, contentOf(10))
        const held = disk.hold({ action: 'sync', path: /segments/ })
        const first = upload(store, contentOf(10, 1))
        await held.reached
        disk.fail({ action, path: /segments/ }, 'ENOSPC', { keptBytes: 64 * 5 })
        const others = Promise.allSettled([2, 3, 4, 5].map(i => upload(store, contentOf(100, i))))
        await new Promise(setImmediate)
        held.release()
        await first
        for (const outcome of await others) expect(outcome).to.have.nested.property('reason.code', 'no_space')
        expect(store.storePaths[0]).to.include({ writable: true })
        const after = await upload(store, contentOf(10, 6))
        const again = await crash()
        expect(again.store.recovery.orphans).to.deep.equal([])
        for (const [name, i] of [[kept, 1] as const, [await first, 1] as const, [after, 6] as const]) {
          expect(await download(again.store, name)).to.deep.equal(contentOf(10, i))
        }
      })
    }

    it('leave nothing that a start would find when there is no room for their records', async () => {
      const { store, disk } = await open()
      disk.fail({ action: 'write', path: /binlog/ }, 'ENOSPC')
      expect(await rejection(upload(store, contentOf(10)))).to.include({ code: 'no_space' })
      const kept = await upload(store, contentOf(10, 2))
      const again = await crash()
      expect(again.store.recovery.orphans).to.deep.equal([])
      expect(await download(again.store, kept)).to.deep.equal(contentOf(10, 2))
      const names = (await recordsOf(again.store)).filter(({ op }) => op === 'C').map(({ name }) => name)
      expect(names).to.deep.equal([kept])
    })
  })

  describe('on a disk that fails', () => {
    for (const action of ['write', 'sync', 'syncDirectory'] as const) {
      it(`turn their store path read-only when a ${action} does, and go on with the others`, async () => {
        const { store, disk } = await open('data', { storePaths: twoPaths() })
        const kept = action === 'syncDirectory' ? undefined : await pack(store, contentOf(10), { storePathIndex: 0 })
        disk.fail({ action, path: /a\/segments\/7/ }, 'EIO')
        expect(await rejection(pack(store, contentOf(10, 2), { storePathIndex: 0 }))).to.include({
          code: 'unavailable',
        })
        expect(store.storePaths.map(({ writable }) => writable)).to.deep.equal([false, true])
        for (let i = 0; i < 3; i++) expect((await upload(store, contentOf(10, i))).slice(0, 3)).to.equal('M01')
        expect(await rejection(pack(store, contentOf(10), { storePathIndex: 0 }))).to.include({ code: 'no_space' })
        if (kept !== undefined) expect(await download(store, kept)).to.deep.equal(contentOf(10))
      })
    }

    it('are never said not to be there', async () => {
      const { store, disk } = await open()
      const kept = await upload(store, contentOf(10))
      disk.fail({ action: 'read', path: /segments/ }, 'EIO', { times: 20 })
      expect(await rejection(download(store, kept))).to.include({ errno: 'EIO' })
      expect(await rejection(store.has(kept))).to.include({ errno: 'EIO' })
      expect(await rejection(store.knowsDeletion(kept))).to.include({ errno: 'EIO' })
      disk.heal()
      expect(await download(store, kept)).to.deep.equal(contentOf(10))
    })
  })

  it('that could not be freed are gone after a restart: their deletion was recorded', async () => {
    const { store, disk } = await open()
    const name = await upload(store, contentOf(10))
    disk.fail({ action: 'write', path: /segments/ }, 'EIO')
    expect(await rejection(store.delete(name))).to.include({ errno: 'EIO' })
    const again = await crash()
    expect(await again.store.has(name)).to.equal(false)
    expect(await again.store.knowsDeletion(name)).to.equal(true)
  })

  it('go to a segment of their own for each start', async () => {
    const segments = (name: string) => readdirSync(join(workshop.path, name, 'store', 'segments', String(STORAGE_ID)))
    const opened = await open()
    await upload(opened.store, contentOf(10))
    await opened.close()
    const [first] = segments('data')
    const again = await open()
    await upload(again.store, contentOf(10))
    const [, second] = segments('data')
    expect(Number(second)).to.equal(Number(first) + 2)
  })

  describe('of a source', () => {
    let source: Store
    let peer: OpenStore
    beforeEach(async () => {
      source = (await open('source', { storageId: SOURCE })).store
      peer = await open('peer', { segmentFileBytesMax: 0 })
    })

    /** Each own record of the source, and its slot, as a run brings them. */
    async function shipments(): Promise<{ shipped: ShippedRecord; slot: Buffer | undefined }[]> {
      const all: { shipped: ShippedRecord; slot: Buffer | undefined }[] = []
      for (const record of await recordsOf(source)) {
        const file = decodeFileName(record.name)
        const slot = record.op === 'C' ? Buffer.alloc(file.slot!.slotBytes) : undefined
        if (slot !== undefined) await source.readSlots(file, slot)
        const origin = { storageId: SOURCE, epoch: record.epoch, sequence: record.sequence }
        all.push({ shipped: { origin, previous: record.sequence - 1, record, file }, slot })
      }
      return all
    }
    const positionOf = (store: Store) => store.position(SOURCE)?.sequence

    it('lie in the same slots at its peers, whatever those do with their own', async () => {
      const names = await Promise.all([1, 2, 3].map(i => upload(source, contentOf(100 * i, i))))
      const applied = await Promise.all(
        (await shipments()).map(({ shipped, slot }) => peer.store.apply([{ shipped, content: slot }])),
      )
      expect(applied).to.have.length(3)
      for (const [i, name] of names.entries()) {
        expect(await download(peer.store, name)).to.deep.equal(contentOf(100 * (i + 1), i + 1))
        const [here, there] = [source, peer.store].map(store => ({ store, slot: Buffer.alloc(512) }))
        const counts = await Promise.all(
          [here!, there!].map(({ store, slot }) => store.readSlots(decodeFileName(name), slot)),
        )
        expect(here!.slot.subarray(0, counts[0]).equals(there!.slot.subarray(0, counts[1])), name).to.equal(true)
      }
      expect((await recordsOf(peer.store)).map(({ op, inSlot }) => [op, inSlot])).to.deep.equal([
        ['c', true],
        ['c', true],
        ['c', true],
      ])
    })

    it('stay deleted when they come again, from a connection that was thought to be gone', async () => {
      const name = await upload(source, contentOf(100))
      const [creation] = await shipments()
      await source.delete(name)
      const [, deletion] = await shipments()
      await peer.store.apply([{ shipped: creation!.shipped, content: creation!.slot }])
      await peer.store.apply([{ shipped: deletion!.shipped, content: undefined }])
      await peer.store.apply([{ shipped: creation!.shipped, content: creation!.slot }])
      expect(await peer.store.has(name)).to.equal(false)
      expect(await peer.store.knowsDeletion(name)).to.equal(true)
      expect(positionOf(peer.store)).to.equal(2)
    })

    it('are written once when they come twice at the same time', async () => {
      const name = await upload(source, contentOf(100))
      const [creation] = await shipments()
      await source.delete(name)
      const [, deletion] = await shipments()
      const held = peer.disk.hold({ action: 'sync', path: /segments/ })
      const applied = [
        peer.store.apply([{ shipped: creation!.shipped, content: creation!.slot }]),
        peer.store.apply([{ shipped: deletion!.shipped, content: undefined }]),
        peer.store.apply([{ shipped: creation!.shipped, content: creation!.slot }]),
      ]
      await held.reached
      held.release()
      await Promise.all(applied)
      expect(peer.disk.count({ action: 'write', path: /segments/ }), 'the slot, and that it is free').to.equal(2)
      expect(await peer.store.has(name)).to.equal(false)
    })

    it('that come over a gap, or could not be written, hold the position until they come again', async () => {
      for (let i = 0; i < 3; i++) await upload(source, contentOf(100, i))
      const all = await shipments()
      const [first, second, third] = all
      expect(await rejection(peer.store.apply([{ shipped: second!.shipped, content: second!.slot }]))).to.include({
        code: 'bad_request',
      })
      await peer.store.apply([{ shipped: first!.shipped, content: first!.slot }])
      peer.disk.fail({ action: 'write', path: /segments/ }, 'ENOSPC')
      const outcomes = await Promise.allSettled(
        [second!, third!].map(({ shipped, slot }) => peer.store.apply([{ shipped, content: slot }])),
      )
      expect(outcomes.map(({ status }) => status)).to.deep.equal(['rejected', 'rejected'])
      expect(positionOf(peer.store)).to.equal(1)
      for (const { shipped, slot } of all) await peer.store.apply([{ shipped, content: slot }])
      expect(positionOf(peer.store)).to.equal(3)
      for (const [i, { shipped }] of all.entries()) {
        expect(await download(peer.store, shipped.record.name)).to.deep.equal(contentOf(100, i))
      }
    })

    it('of the last flush come again if their disk was away at the start, whatever is recorded meanwhile', async () => {
      const paths = { storePaths: twoPaths() }
      const two = await open('two', { ...paths, segmentFileBytesMax: 0 })
      for (let i = 0; i < 2; i++) await upload(source, contentOf(100, i))
      const all = await shipments()
      const apply = (store: Store, from = 0) =>
        store.apply(all.slice(from).map(({ shipped, slot }) => ({ shipped, content: slot })))
      await apply(two.store)
      expect(positionOf(two.store)).to.equal(2)
      const away = join(workshop.path, 'away')
      const copy = await workshop.crash('two')
      await rename(paths.storePaths[0]!, away)
      await mkdir(paths.storePaths[0]!)
      const without = await open(copy, paths)
      expect(positionOf(without.store), 'nobody can say whether their slots are durable').to.equal(0)
      expect(await rejection(apply(without.store))).to.be.instanceOf(Error)
      await upload(without.store, contentOf(7))
      await without.close()

      await rm(paths.storePaths[0]!, { recursive: true })
      await rename(away, paths.storePaths[0]!)
      const again = await open(copy, paths)
      expect(positionOf(again.store)).to.equal(0)
      await apply(again.store)
      expect(positionOf(again.store)).to.equal(2)
      for (const [i, { shipped }] of all.entries())
        expect(await download(again.store, shipped.record.name)).to.deep.equal(contentOf(100, i))
      await again.close()
      expect(positionOf((await open(copy, paths)).store)).to.equal(2)
    })

    it('are never written over by one that takes their place in a later life of it', async () => {
      const name = await upload(source, contentOf(100, 1))
      const [creation] = await shipments()
      const { shipped, slot } = creation!
      await peer.store.apply([{ shipped, content: slot }])
      const other = Buffer.from(slot!)
      contentOf(100, 2).copy(other, SLOT_HEADER_BYTES)
      const { file } = shipped
      const parts = { ...file.slot!, sizeBytes: 100, createTimeS: file.createTimeS + 5, tail: file.tail }
      const header = { ...parts, crc32: sumOf(contentOf(100, 2)) }
      writeSlotHeader(other, header)
      const otherName = nameOfSlot({ ...file.slot!, storePathIndex: 0, storageId: SOURCE }, header)
      const later = { ...shipped.origin, epoch: 2 }
      const record = { ...shipped.record, name: otherName }
      const taken = { origin: later, previous: 0, record, file: decodeFileName(otherName) }
      expect(await rejection(peer.store.apply([{ shipped: taken, content: other }]))).to.include({
        code: 'bad_request',
      })
      expect(await download(peer.store, name)).to.deep.equal(contentOf(100, 1))
      expect(peer.store.position(SOURCE)).to.include({ epoch: 1 })
    })

    it('that are deleted there stay so after a crash of the peer, and are applied once', async () => {
      const [gone, kept] = [await upload(source, contentOf(100, 1)), await upload(source, contentOf(100, 2))]
      await source.delete(gone)
      for (const { shipped, slot } of await shipments()) await peer.store.apply([{ shipped, content: slot }])
      const again = await crash('peer')
      expect(positionOf(again.store)).to.equal(3)
      expect(again.store.recovery).to.deep.include({ orphans: [], missing: [] })
      expect(await again.store.knowsDeletion(gone)).to.equal(true)
      expect(await download(again.store, kept)).to.deep.equal(contentOf(100, 2))
    })

    it('are no business of a start: what a source has not recorded there is left to it', async () => {
      await upload(source, contentOf(100))
      const [creation] = await shipments()
      peer.disk.fail({ action: 'write', path: /binlog/ }, 'ENOSPC')
      expect(await rejection(peer.store.apply([{ shipped: creation!.shipped, content: creation!.slot }]))).to.include({
        code: 'no_space',
      })
      const again = await crash('peer')
      expect(again.store.recovery.orphans).to.deep.equal([])
      expect(positionOf(again.store)).to.equal(undefined)
      await again.store.apply([{ shipped: creation!.shipped, content: creation!.slot }])
      expect(await download(again.store, creation!.shipped.record.name)).to.deep.equal(contentOf(100))
    })
  })

  it('and plain files share a binlog in the order of their records', async () => {
    const { store } = await open()
    const small = await upload(store, contentOf(10))
    const { name: large } = await store.create(await fill(await store.receive(0xff, 10), contentOf(10)), {
      extension: 'txt',
      uploadId: undefined,
    })
    expect(decodeFileName(large)).to.include({ kind: 'plain', crc32: sumOf(contentOf(10)) })
    await store.delete(small)
    expect((await recordsOf(store)).map(({ op, name }) => [op, name])).to.deep.equal([
      ['C', small],
      ['C', large],
      ['D', small],
    ])
  })
})
