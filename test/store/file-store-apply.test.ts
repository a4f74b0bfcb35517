import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { expect } from 'chai'
import type { BinlogRecord } from '../../protocol/binlog-record.ts'
import { decodeFileName } from '../../protocol/file-id.ts'
import type { IncomingFile } from '../../store/incoming-file.ts'
import type { ShippedRecord, Store } from '../../store/store.ts'
import {
  contentOf,
  download,
  fill,
  type OpenStore,
  rejection,
  START_SEQUENCES,
  upload,
  Workshop,
} from './store-fixture.ts'

const SOURCE = 9

/** A record with the bytes it came with, as sync would ship it. */
interface Shipment {
  readonly shipped: ShippedRecord
  readonly content: Buffer | undefined
}

describe('record of a peer', () => {
  let workshop: Workshop
  let source: Store
  let peer: OpenStore

  beforeEach(async () => {
    workshop = await Workshop.make()
    source = (await workshop.open('source', { storageId: SOURCE })).store
    peer = await workshop.open('peer')
  })
  afterEach(() => workshop.remove())

  const temporaries = () => readdir(join(workshop.path, 'peer', 'store', 'tmp'))
  const positionOf = (store: Store) => store.position(SOURCE)?.sequence
  /** What the source would ship now, from the beginning. */
  async function shipments(): Promise<Shipment[]> {
    const all: Shipment[] = []
    for await (const { record } of source.readRecords({ after: 0, until: source.end.sequence })) {
      const origin = { storageId: SOURCE, epoch: record.epoch, sequence: record.sequence }
      const content = record.op === 'C' ? await download(source, record.name) : undefined
      all.push({
        shipped: { origin, previous: record.sequence - 1, record, file: decodeFileName(record.name) },
        content,
      })
    }
    return all
  }
  async function apply({ shipped, content }: Shipment, store: Store = peer.store): Promise<void> {
    const file = content && (await fill(await store.receive(0xff, content.length), content))
    await store.apply([{ shipped, content: file }])
  }
  /** Receives the bytes of all, in order, so that what follows depends on the order of `apply` alone. */
  async function receiveAll(all: readonly Shipment[]): Promise<(IncomingFile | undefined)[]> {
    const files: (IncomingFile | undefined)[] = []
    for (const { content } of all) {
      files.push(content && (await fill(await peer.store.receive(0xff, content.length), content)))
    }
    return files
  }
  async function ownRecords(store: Store): Promise<BinlogRecord[]> {
    const records: BinlogRecord[] = []
    for await (const { record } of store.readRecords({ after: 0, until: store.end.sequence })) records.push(record)
    return records
  }

  it('makes the same file under the same name, and its deletion takes it away', async () => {
    const kept = await upload(source, contentOf(700_000, 1))
    const gone = await upload(source, contentOf(5, 2))
    const [first, second] = await shipments()
    await apply(first!)
    await apply(second!)
    expect((await download(peer.store, kept))?.equals(contentOf(700_000, 1))).to.equal(true)
    expect(await download(peer.store, gone)).to.deep.equal(contentOf(5, 2))
    await source.delete(gone)
    await apply((await shipments())[2]!)
    expect(await peer.store.open(gone)).to.equal(undefined)
    expect(positionOf(peer.store)).to.equal(3)
    expect((await ownRecords(peer.store)).map(({ op, origin }) => [op, origin?.sequence])).to.deep.equal([
      ['c', 1],
      ['c', 2],
      ['d', 3],
    ])
  })

  it('takes its place in the order of the calls, however long its bytes take to be durable', async () => {
    for (let i = 0; i < 30; i++) await upload(source, contentOf(10, i))
    const slow = peer.disk.hold({ action: 'sync', path: /tmp\/1n0$/ })
    const all = await shipments()
    const files = await receiveAll(all)
    const applied = all.map(({ shipped }, i) => peer.store.apply([{ shipped, content: files[i] }]))
    await slow.reached
    await new Promise(resolve => setImmediate(resolve))
    expect(peer.store.end.sequence).to.equal(0)
    slow.release()
    await Promise.all(applied)
    expect((await ownRecords(peer.store)).map(({ origin }) => origin?.sequence)).to.deep.equal(
      Array.from({ length: 30 }, (_, i) => i + 1),
    )
    expect(positionOf(peer.store)).to.equal(30)
  })

  it('counts once, however often it comes and whatever is under way', async () => {
    const name = await upload(source, contentOf(10))
    const [first] = await shipments()
    await Promise.all([apply(first!), apply(first!), apply(first!)])
    await apply(first!)
    expect(peer.store.end.sequence).to.equal(1)
    expect(await download(peer.store, name)).to.deep.equal(contentOf(10))
    expect(await temporaries()).to.deep.equal([])
  })

  it('is acknowledged as a repetition only when the first one is durable', async () => {
    await upload(source, contentOf(10))
    const [first] = await shipments()
    const sync = peer.disk.hold({ action: 'sync', path: /binlog/ })
    const applied = apply(first!)
    await sync.reached
    let acknowledged = false
    const repeated = apply(first!).then(() => {
      acknowledged = true
    })
    for (let i = 0; i < 20; i++) await new Promise(resolve => setImmediate(resolve))
    expect(acknowledged).to.equal(false)
    sync.release()
    await Promise.all([applied, repeated])
  })

  it('is refused when one before it is missing, keeps nothing, and comes again later', async () => {
    for (let i = 0; i < 3; i++) await upload(source, contentOf(10, i))
    const [first, second, third] = await shipments()
    expect(await rejection(apply(second!))).to.include({ code: 'bad_request' })
    await apply(first!)
    expect(await rejection(apply(third!))).to.include({ code: 'bad_request' })
    expect(await temporaries()).to.deep.equal([])
    expect(positionOf(peer.store)).to.equal(1)
    await apply(second!)
    await apply(third!)
    expect(positionOf(peer.store)).to.equal(3)
  })

  it('is refused when it is not the source of its own record', async () => {
    await upload(source, contentOf(10))
    const [first] = await shipments()
    const { shipped, content } = first!
    const replica = { ...shipped, record: { ...shipped.record, op: 'c' as const } }
    expect(await rejection(apply({ shipped: replica, content }))).to.include({ code: 'bad_request' })
    expect(await temporaries()).to.deep.equal([])
    expect(positionOf(peer.store)).to.equal(undefined)
    await apply(first!)
  })

  it('follows whatever was shipped before it, also over a gap the source knows of', async () => {
    for (let i = 0; i < 3; i++) await upload(source, contentOf(10, i))
    const [first, , third] = await shipments()
    await apply(first!)
    await apply({ ...third!, shipped: { ...third!.shipped, previous: 1 } })
    expect(positionOf(peer.store)).to.equal(3)
  })

  it('deletes after it created, also in one flush', async () => {
    const names = []
    for (let i = 0; i < 10; i++) names.push(await upload(source, contentOf(10, i)))
    for (const name of names) await source.delete(name)
    const all = await shipments()
    // The files are gone at the source, but were read before: as if sync had been in the middle.
    const withContent = all.map((shipment, i) => (i < 10 ? { ...shipment, content: contentOf(10, i) } : shipment))
    const files = await receiveAll(withContent)
    await Promise.all(withContent.map(({ shipped }, i) => peer.store.apply([{ shipped, content: files[i] }])))
    for (const name of names) expect(await peer.store.open(name)).to.equal(undefined)
    expect(positionOf(peer.store)).to.equal(20)
  })

  it('never moves the position back, in whatever order the effects of a flush end', async () => {
    const first = await upload(source, contentOf(10, 1))
    await upload(source, contentOf(10, 2))
    await source.delete(first)
    await upload(source, contentOf(10, 3))
    const all = (await shipments()).map((shipment, i) =>
      i === 0 ? { ...shipment, content: contentOf(10, 1) } : shipment,
    )
    const files = await receiveAll(all)
    await peer.store.apply([{ shipped: all[0]!.shipped, content: files[0] }])
    const slow = peer.disk.hold({ action: 'rename', path: /tmp\/1n1$/ })
    const seen: number[] = []
    const applied = all.slice(1).map(async ({ shipped }, i) => {
      await peer.store.apply([{ shipped, content: files[i + 1] }])
      seen.push(positionOf(peer.store)!)
    })
    await slow.reached
    for (let i = 0; i < 20; i++) await new Promise(resolve => setImmediate(resolve))
    expect(positionOf(peer.store)).to.equal(1)
    slow.release()
    await Promise.all(applied)
    expect(seen).to.deep.equal([...seen].sort())
    expect(positionOf(peer.store)).to.equal(4)
  })

  it('that failed holds the position, and is applied with all that follow when it comes again', async () => {
    const names = []
    for (let i = 0; i < 4; i++) names.push(await upload(source, contentOf(10, i)))
    const all = await shipments()
    await apply(all[0]!)
    const files = await receiveAll(all.slice(1))
    peer.disk.fail({ action: 'rename', path: /tmp\/1n1$/ }, 'ENOSPC')
    const outcomes = await Promise.allSettled(
      files.map((file, i) => peer.store.apply([{ shipped: all[i + 1]!.shipped, content: file }])),
    )
    expect(outcomes.map(outcome => outcome.status)).to.deep.equal(['rejected', 'rejected', 'rejected'])
    expect(positionOf(peer.store)).to.equal(1)
    for (const shipment of all.slice(1)) await apply(shipment)
    expect(positionOf(peer.store)).to.equal(4)
    for (const [i, name] of names.entries()) expect(await download(peer.store, name)).to.deep.equal(contentOf(10, i))
    await peer.close()
    const again = await workshop.open('peer')
    expect(positionOf(again.store)).to.equal(4)
    for (const [i, name] of names.entries()) expect(await download(again.store, name)).to.deep.equal(contentOf(10, i))
  })

  it('that the disk has no room for keeps nothing, and is applied when there is room', async () => {
    for (let i = 0; i < 3; i++) await upload(source, contentOf(10, i))
    const all = await shipments()
    const files = await receiveAll(all)
    peer.disk.fail({ action: 'write', path: /binlog/ }, 'ENOSPC', { keptBytes: 20 })
    const outcomes = await Promise.allSettled(
      all.map(({ shipped }, i) => peer.store.apply([{ shipped, content: files[i] }])),
    )
    expect(outcomes.map(outcome => outcome.status)).to.deep.equal(['rejected', 'rejected', 'rejected'])
    expect(await temporaries()).to.deep.equal([])
    expect(positionOf(peer.store)).to.equal(undefined)
    for (const shipment of all) await apply(shipment)
    expect(positionOf(peer.store)).to.equal(3)
    expect(peer.store.end.sequence).to.equal(3)
  })

  it('of a file that is gone already moves the position only', async () => {
    const name = await upload(source, contentOf(10))
    await source.delete(name)
    for (const shipment of await shipments()) await apply(shipment)
    expect(await peer.store.open(name)).to.equal(undefined)
    expect(positionOf(peer.store)).to.equal(2)
  })

  it('of a file that never came here neither stops the checkpoints nor the next start', async () => {
    const name = await upload(source, contentOf(10))
    await source.delete(name)
    for (const shipment of await shipments()) await apply(shipment)
    const crashed = await workshop.open(await workshop.crash('peer'))
    expect(positionOf(crashed.store)).to.equal(2)
    await peer.close()
    const again = await workshop.open('peer')
    expect(again.store.recovery.redone).to.equal(0)
    expect(positionOf(again.store)).to.equal(2)
  })

  it('leaves its position after a restart and after a crash, and goes on from there', async () => {
    for (let i = 0; i < 4; i++) await upload(source, contentOf(10, i))
    const all = await shipments()
    await apply(all[0]!)
    await apply(all[1]!)
    const crashed = await workshop.open(await workshop.crash('peer'))
    expect(crashed.store.position(SOURCE)).to.deep.equal({
      ...{ storageId: SOURCE, epoch: 1, sequence: 2 },
      timeMs: all[1]!.shipped.record.timeMs,
    })
    await peer.close()
    const again = await workshop.open('peer')
    expect(again.store.recovery.redone).to.equal(0)
    expect(positionOf(again.store)).to.equal(2)
    await apply(all[1]!, again.store)
    await apply(all[2]!, again.store)
    expect(positionOf(again.store)).to.equal(3)
    expect(again.store.end.sequence).to.equal(3 + START_SEQUENCES)
  })

  it('whose file could not be had makes the position incomplete for good', async () => {
    for (let i = 0; i < 4; i++) await upload(source, contentOf(10, i))
    const [first, second, third, fourth] = await shipments()
    await apply(first!)
    expect(peer.store.position(SOURCE)?.incomplete).to.equal(undefined)
    await apply({ shipped: { ...second!.shipped, lacksFile: true }, content: undefined })
    expect(peer.store.position(SOURCE)).to.include({ sequence: 2, incomplete: true })
    expect(await ownRecords(peer.store)).to.satisfy((records: BinlogRecord[]) => records[1]!.lacksFile === true)
    await apply(third!)
    expect(peer.store.position(SOURCE), 'after a further record').to.include({ sequence: 3, incomplete: true })
    const crashed = await workshop.open(await workshop.crash('peer'))
    expect(crashed.store.position(SOURCE), 'after a crash').to.include({ sequence: 3, incomplete: true })
    await peer.close()
    const again = await workshop.open('peer')
    expect(again.store.recovery.redone).to.equal(0)
    expect(again.store.position(SOURCE), 'from a checkpoint').to.include({ sequence: 3, incomplete: true })
    await apply(fourth!, again.store)
    expect(again.store.position(SOURCE), 'after a further record').to.include({ sequence: 4, incomplete: true })
    const later = await workshop.open(await workshop.crash('peer'))
    expect(later.store.position(SOURCE), 'after a further crash').to.include({ sequence: 4, incomplete: true })
  })

  it('of a later epoch begins anew, and those of an earlier one come to nothing', async () => {
    for (let i = 0; i < 3; i++) await upload(source, contentOf(10, i))
    const [first, second, third] = await shipments()
    await apply(first!)
    const later = (shipment: Shipment, sequence: number, previous: number): Shipment => {
      const { shipped, content } = shipment
      return { content, shipped: { ...shipped, previous, origin: { ...shipped.origin, epoch: 3, sequence } } }
    }
    expect(await rejection(apply(later(second!, 7, 1)))).to.include({ code: 'bad_request' })
    await apply(later(second!, 1, 0))
    expect(peer.store.position(SOURCE)).to.include({ epoch: 3, sequence: 1 })
    await apply(third!)
    expect(peer.store.position(SOURCE)).to.include({ epoch: 3, sequence: 1 })
    expect(await peer.store.open(third!.shipped.record.name)).to.equal(undefined)
    await apply(later(third!, 2, 1))
    expect(peer.store.position(SOURCE)).to.include({ epoch: 3, sequence: 2 })
  })

  it('does not make its upload one of this server: the source may have taken it back', async () => {
    const uploadId = 'ab'.repeat(16)
    const name = await upload(source, contentOf(10), uploadId)
    await apply((await shipments())[0]!)
    expect(await upload(peer.store, contentOf(10), uploadId)).to.not.equal(name)
    const crashed = await workshop.open(await workshop.crash('peer'))
    expect(await upload(crashed.store, contentOf(10), uploadId)).to.not.equal(name)
  })
})
