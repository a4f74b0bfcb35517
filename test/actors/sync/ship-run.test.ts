/** Runs: small files from slot to slot, with whatever happens to them on the way. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'chai'
import { type ReplayContext, replayBinlog } from '../../../actors/sync/replay-binlog.ts'
import { type BinlogRecord, encodeRecord } from '../../../protocol/binlog-record.ts'
import { decodeFileName } from '../../../protocol/file-id.ts'
import { COMMANDS } from '../../../protocol/frame.ts'
import type { Peer } from '../../../protocol/storage-messages.ts'
import { type SyncContent, writeSyncRun } from '../../../protocol/sync-bodies.ts'
import { realWorld } from '../../../runtime/real-world.ts'
import { type Disk, DiskError, type DiskFile } from '../../../runtime/world.ts'
import { SLOT_HEADER_BYTES } from '../../../store/slot.ts'
import type { Store } from '../../../store/store.ts'
import { FaultyDisk } from '../../store/faulty-disk.ts'
import { contentOf, download, upload } from '../../store/store-fixture.ts'
import { codeOf, SmallCluster } from '../small-cluster.ts'
import { replayContext } from './replay-context.ts'

const SOURCE = 1
const PEER = 2
const SEGMENT_FILE_BYTES_MAX = 64 * 1024
/** More than any session that fails over one file, and less than for ever. */
const SESSIONS_MAX = 50

/** Bytes of a file that its disk does not give any more. */
interface BadSector {
  readonly path: string
  readonly offsetBytes: number
}

describe('a run of records', function () {
  this.timeout(30_000)
  let disk: FaultyDisk
  let bad: BadSector | undefined
  let cluster: SmallCluster
  let context: ReplayContext
  let peer: Peer
  let corrupt: string[]

  beforeEach(async () => {
    bad = undefined
    disk = new FaultyDisk(withBadSector(realWorld().disk, () => bad))
    cluster = await SmallCluster.start({ disk })
    const options = { sync: false, segmentFileBytesMax: SEGMENT_FILE_BYTES_MAX }
    const source = (await cluster.addStorage(SOURCE, options)).storage
    const { endpoint } = (await cluster.addStorage(PEER, { sync: false })).storage
    corrupt = []
    context = replayContext(source, corrupt)
    peer = { storageId: PEER, host: endpoint.host, ip: endpoint.host, port: endpoint.port, epoch: 1, status: 'active' }
  })
  afterEach(async () => {
    disk.heal()
    await cluster.remove()
  })

  const sourceStore = () => cluster.members.get(SOURCE)!.storage.store
  const peerStore = () => cluster.members.get(PEER)!.storage.store
  const session = () => replayBinlog(context, peer, undefined)
  /** Runs sessions until one reaches the end; how many failed before. */
  async function failedSessions(): Promise<number> {
    for (let failed = 0; failed < SESSIONS_MAX; failed++) {
      const reached = await session().then(
        () => true,
        () => false,
      )
      if (reached) return failed
    }
    throw new Error('no session reached the end')
  }
  async function uploadSome(count: number, sizeBytes = 500): Promise<Map<string, Buffer>> {
    const contents = Array.from({ length: count }, (_, i) => contentOf(sizeBytes, i))
    const names = await Promise.all(contents.map(content => upload(sourceStore(), content)))
    return new Map(names.map((name, i) => [name, contents[i]!]))
  }
  const segmentOf = (storageId: number, name: string) => {
    const { dataDirectory } = cluster.members.get(storageId)!
    const segmentId = String(decodeFileName(name).slot!.segmentId).padStart(10, '0')
    return join(dataDirectory, 'store', 'segments', String(SOURCE), segmentId)
  }
  /** Flips a bit of a file's content in its slot. */
  function damage(name: string): void {
    const bytes = readFileSync(segmentOf(SOURCE, name))
    bytes[decodeFileName(name).slot!.offsetBytes + SLOT_HEADER_BYTES]! ^= 1
    writeFileSync(segmentOf(SOURCE, name), bytes)
  }
  async function expectAtPeer(files: ReadonlyMap<string, Buffer>): Promise<void> {
    for (const [name, content] of files) {
      expect((await download(peerStore(), name))?.equals(content), name).to.equal(true)
    }
  }
  async function recordsOf(store: Store): Promise<BinlogRecord[]> {
    const records: BinlogRecord[] = []
    for await (const { record } of store.readRecords({ after: 0, until: store.end.sequence })) records.push(record)
    return records
  }

  it('brings every file to the slot that it has at its source, in however many runs', async () => {
    const files = await uploadSome(700, 2_000)
    await session()
    await expectAtPeer(files)
    expect(peerStore().position(SOURCE)?.sequence).to.equal(700)
    const [first] = files.keys()
    expect(readFileSync(segmentOf(PEER, first!)).equals(readFileSync(segmentOf(SOURCE, first!)))).to.equal(true)
  })

  it('and files of their own in between keep the order of their records', async () => {
    const files = new Map<string, Buffer>()
    for (let i = 0; i < 12; i++) {
      const content = contentOf(i % 3 === 2 ? SEGMENT_FILE_BYTES_MAX + 1 : 500, i)
      files.set(await upload(sourceStore(), content), content)
      if (i === 5) await sourceStore().delete([...files.keys()][0]!)
    }
    const [gone] = files.keys()
    files.delete(gone!)
    await session()
    await expectAtPeer(files)
    const [own, applied] = [await recordsOf(sourceStore()), await recordsOf(peerStore())]
    expect(applied.map(({ op, name, origin }) => [op.toUpperCase(), name, origin?.sequence])).to.deep.equal(
      own.map(({ op, name, sequence }) => [op, name, sequence]),
    )
    expect(await peerStore().has(gone!)).to.equal(false)
  })

  it('goes without the slots of files that were deleted meanwhile', async () => {
    const files = await uploadSome(9)
    const gone = [...files.keys()].filter((_, i) => i % 3 === 1)
    for (const name of gone) {
      await sourceStore().delete(name)
      files.delete(name)
    }
    await session()
    await expectAtPeer(files)
    for (const name of gone) expect(await peerStore().has(name), name).to.equal(false)
    const applied = await recordsOf(peerStore())
    expect(applied.filter(({ inSlot }) => inSlot)).to.have.length(files.size)
    expect(peerStore().position(SOURCE)).to.deep.include({ sequence: 12 })
    expect(peerStore().position(SOURCE)?.incomplete, 'nothing is missing').to.equal(undefined)
    expect(corrupt).to.deep.equal([])
  })

  it('says of a damaged slot that it cannot be read, and brings those beside it at once', async () => {
    const files = await uploadSome(9)
    const damaged = [...files.keys()].filter((_, i) => i === 0 || i === 4)
    for (const name of damaged) {
      damage(name)
      files.delete(name)
    }
    expect(await failedSessions()).to.equal(0)
    await expectAtPeer(files)
    expect(corrupt).to.deep.equal(damaged)
    expect(peerStore().position(SOURCE)).to.include({ incomplete: true, sequence: 9 })
    for (const name of damaged) expect(await peerStore().has(name)).to.equal(false)
  })

  it('charges what a disk does not give to the file that lies there, and to no other', async () => {
    const files = await uploadSome(9)
    const [unreadable] = [...files.keys()].slice(4)
    bad = { path: segmentOf(SOURCE, unreadable!), offsetBytes: decodeFileName(unreadable!).slot!.offsetBytes + 100 }
    expect(await failedSessions()).to.equal(11)
    expect(context.unreadable.size).to.equal(1)
    expect(corrupt).to.deep.equal([unreadable])
    expect(peerStore().position(SOURCE)).to.include({ incomplete: true, sequence: 9 })
    files.delete(unreadable!)
    await expectAtPeer(files)
  })

  it('brings a file after all whose disk gives it again', async () => {
    const files = await uploadSome(5)
    const [name] = [...files.keys()].slice(2)
    bad = { path: segmentOf(SOURCE, name!), offsetBytes: decodeFileName(name!).slot!.offsetBytes }
    expect(await codeOf(session())).not.to.equal('none')
    bad = undefined
    await session()
    await expectAtPeer(files)
    expect(peerStore().position(SOURCE)?.incomplete).to.equal(undefined)
    expect(corrupt).to.deep.equal([])
  })

  it('waits for a disk that is missing as a whole, for however long', async () => {
    const files = await uploadSome(3)
    disk.fail({ action: 'read', path: /storage-1.*segments/ }, 'ENODEV', { times: 200 })
    for (let i = 0; i < 20; i++) expect(await codeOf(session())).not.to.equal('none')
    disk.heal()
    await session()
    await expectAtPeer(files)
    expect(corrupt).to.deep.equal([])
  })

  it('fails as a whole where a peer has no room, and is applied when it comes again', async () => {
    const files = await uploadSome(20)
    disk.fail({ action: 'write', path: /storage-2.*segments/ }, 'ENOSPC')
    expect(await codeOf(session())).to.equal('no_space')
    await session()
    await expectAtPeer(files)
    expect((await recordsOf(peerStore())).map(({ origin }) => origin?.sequence)).to.deep.equal(
      Array.from({ length: 20 }, (_, i) => i + 1),
    )
  })

  describe('that is not what it says', () => {
    let names: string[]
    let slots: Buffer[]
    beforeEach(async () => {
      names = [...(await uploadSome(3)).keys()]
      slots = names.map(name => Buffer.alloc(decodeFileName(name).slot!.slotBytes))
      for (const [i, name] of names.entries()) await sourceStore().readSlots(decodeFileName(name), slots[i]!)
    })

    /** What the peer says to a run of all three records, made wrong somehow. */
    async function answer(
      wrong: { contents?: SyncContent[]; bytes?: Buffer; previous?: number; storageId?: number } = {},
      role: 'anonymous' | 'client' | 'peer' = 'peer',
    ): Promise<string> {
      const { contents = ['file', 'file', 'file'], bytes = Buffer.concat(slots), previous = 0 } = wrong
      const lines = (await recordsOf(sourceStore())).map(record => encodeRecord(record).slice(0, -1))
      const records = lines.map((line, i) => ({ line, content: contents[i]! }))
      const head = writeSyncRun({ storageId: wrong.storageId ?? SOURCE, previous, records })
      const connection = await cluster.connect(PEER, role)
      return codeOf(connection.request(COMMANDS.syncRun, Buffer.concat([head, bytes])))
    }
    async function expectUnchanged(): Promise<void> {
      expect(peerStore().position(SOURCE)).to.equal(undefined)
      for (const name of names) expect(await peerStore().has(name)).to.equal(false)
      expect(disk.count({ action: 'write', path: /storage-2.*segments/ })).to.equal(0)
    }

    it('is taken as it is', async () => {
      expect(await answer()).to.equal('none')
      expect(peerStore().position(SOURCE)?.sequence).to.equal(3)
    })

    it('is refused, and changes nothing, when one slot is not that of its name, wherever it differs', async () => {
      for (const at of [0, 1, 5, 9, 13, 17, 23, SLOT_HEADER_BYTES, SLOT_HEADER_BYTES + 499]) {
        const spoilt = slots.map(slot => Buffer.from(slot))
        spoilt[2]![at]! ^= 1
        expect(await answer({ bytes: Buffer.concat(spoilt) }), `byte ${at}`).to.equal('digest_mismatch')
      }
      expect(await answer({ bytes: Buffer.concat([slots[1]!, slots[0]!, slots[2]!]) })).to.equal('digest_mismatch')
      const free = Buffer.concat(slots)
      free[0] = 0
      expect(await answer({ bytes: free }), 'one that was deleted').to.equal('digest_mismatch')
      await expectUnchanged()
    })

    it('is refused when it has more slots than files, or fewer', async () => {
      expect(await answer({ contents: ['file', 'none', 'file'] })).to.be.oneOf(['digest_mismatch', 'bad_request'])
      expect(await answer({ bytes: Buffer.concat([...slots, slots[0]!]) })).to.equal('bad_request')
      expect(await answer({ bytes: Buffer.concat(slots.slice(0, 2)) })).to.equal('digest_mismatch')
      expect(await answer({ bytes: Buffer.alloc(0) })).to.equal('digest_mismatch')
      await expectUnchanged()
    })

    it('is refused when it is another’s to ship, or comes from no peer', async () => {
      expect(await answer({ storageId: 3 })).to.equal('forbidden')
      for (const role of ['anonymous', 'client'] as const) expect(await answer({}, role)).to.equal('unauthorized')
      await expectUnchanged()
    })

    it('is refused when it is empty, cut or too long, and the peer goes on', async () => {
      const whole = writeSyncRun({ storageId: SOURCE, previous: 0, records: [{ line: 'x', content: 'none' }] })
      for (const body of [Buffer.alloc(0), Buffer.alloc(5), whole.subarray(0, -1), whole]) {
        const connection = await cluster.connect(PEER, 'peer')
        expect(await codeOf(connection.request(COMMANDS.syncRun, body)), `${body.length} bytes`).to.equal('bad_request')
      }
      const connection = await cluster.connect(PEER, 'peer')
      const long = Buffer.alloc(10 * 1024 * 1024)
      expect(await codeOf(connection.request(COMMANDS.syncRun, long))).to.be.oneOf(['too_large', 'unavailable'])
      await expectUnchanged()
      expect(cluster.members.get(PEER)!.storage.blocks.takenBytes).to.equal(0)
      expect(await answer()).to.equal('none')
    })

    it('is refused when it leaves a gap, and the position stays', async () => {
      expect(await answer({ previous: 5 })).to.equal('bad_request')
      expect(peerStore().position(SOURCE)).to.equal(undefined)
      expect(await answer()).to.equal('none')
      expect(peerStore().position(SOURCE)?.sequence).to.equal(3)
    })

    it('is applied once, however often it comes', async () => {
      expect(await answer()).to.equal('none')
      await sourceStore().delete(names[1]!)
      await session()
      const before = disk.count({ action: 'write', path: /storage-2.*segments/ })
      // Of the deletion this run knows nothing: it was on its way before.
      const connection = await cluster.connect(PEER, 'peer')
      const lines = (await recordsOf(sourceStore())).slice(0, 3).map(record => encodeRecord(record).slice(0, -1))
      const records = lines.map(line => ({ line, content: 'file' as const }))
      const head = writeSyncRun({ storageId: SOURCE, previous: 0, records })
      await connection.request(COMMANDS.syncRun, Buffer.concat([head, ...slots]))
      expect(disk.count({ action: 'write', path: /storage-2.*segments/ })).to.equal(before)
      expect(await peerStore().has(names[1]!)).to.equal(false)
      expect(peerStore().position(SOURCE)?.sequence).to.equal(4)
    })
  })
})

/** A disk on which whatever reads a certain byte fails. */
function withBadSector(disk: Disk, bad: () => BadSector | undefined): Disk {
  const wrap = (file: DiskFile, path: string): DiskFile => ({
    read: async (target, offsetBytes) => {
      const sector = bad()
      const isHit =
        sector?.path === path && sector.offsetBytes >= offsetBytes && sector.offsetBytes < offsetBytes + target.length
      if (isHit) throw new DiskError('read', path, 'EIO')
      return file.read(target, offsetBytes)
    },
    write: (parts, offsetBytes) => file.write(parts, offsetBytes),
    writeDurably: (parts, offsetBytes) => file.writeDurably(parts, offsetBytes),
    sync: () => file.sync(),
    truncate: sizeBytes => file.truncate(sizeBytes),
    sizeBytes: () => file.sizeBytes(),
    close: () => file.close(),
  })
  return { ...disk, open: async (path, mode) => wrap(await disk.open(path, mode), path) }
}
