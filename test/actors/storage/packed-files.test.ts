/** Small files through the data ports of a group: at the wrong door, damaged, deleted, and under names that are made up. */
import { readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'chai'
import { writeGroupAndName } from '../../../protocol/data-bodies.ts'
import { decodeFileName, formatFileId, parseFileId } from '../../../protocol/file-id.ts'
import { COMMANDS } from '../../../protocol/frame.ts'
import type { FrameClient } from '../../../runtime/frame-client.ts'
import { realWorld } from '../../../runtime/real-world.ts'
import {
  nameOfSlot,
  PACKED_BYTES_MAX,
  SEGMENT_BYTES,
  SLOT_BYTES_MAX,
  SLOT_HEADER_BYTES,
  slotBytesFor,
} from '../../../store/slot.ts'
import { fetchFile, uploadFile } from '../../data-port.ts'
import { FaultyDisk } from '../../store/faulty-disk.ts'
import { contentOf } from '../../store/store-fixture.ts'
import { until } from '../../until.ts'
import { codeOf, SmallCluster } from '../small-cluster.ts'

const OPTIONS = { sync: false, segmentFileBytesMax: 64 * 1024 }
/** Beats, which members learn of each other by, come this many times sooner. */
const HASTE = 4

const SIZES = [0, 1, 4_096, 64 * 1024]

describe('a packed file', function () {
  this.timeout(30_000)
  let cluster: SmallCluster
  let disk: FaultyDisk

  beforeEach(async () => {
    const { clock, ...real } = realWorld()
    disk = new FaultyDisk(real.disk)
    cluster = await SmallCluster.start({
      disk,
      clock: {
        wallMs: () => clock.wallMs(),
        monotonicMs: () => clock.monotonicMs() * HASTE,
        alarm: (delayMs, ring) => clock.alarm(delayMs / HASTE, ring),
        turn: () => clock.turn(),
      },
    })
    await cluster.addStorage(1, OPTIONS)
  })
  afterEach(async () => {
    disk.heal()
    await cluster.remove()
  })

  const storeOf = (storageId: number) => cluster.members.get(storageId)!.storage.store
  async function upload(content: Buffer): Promise<string> {
    return uploadFile(await cluster.connect(1, 'client'), content)
  }
  async function ask(command: number, storageId: number, fileId: string): Promise<string> {
    const { group, name } = parseFileId(fileId)
    return codeOf((await cluster.connect(storageId, 'client')).request(command, writeGroupAndName(group, name)))
  }
  const remove = (storageId: number, fileId: string) => ask(COMMANDS.deleteFile, storageId, fileId)
  const info = (storageId: number, fileId: string) => ask(COMMANDS.queryFileInfo, storageId, fileId)
  const fetch = async (storageId: number, fileId: string) =>
    codeOf(fetchFile(await cluster.connect(storageId, 'client'), fileId))
  /** Adds a second member and waits until the two know each other. */
  async function addPeer(): Promise<FrameClient> {
    await cluster.addStorage(2, OPTIONS)
    for (const [storageId, other] of [
      [1, 2],
      [2, 1],
    ] as const) {
      let isKnown = false
      cluster.members.get(storageId)!.storage.onPeers(peers => {
        isKnown = peers.some(peer => peer.storageId === other)
      })
      await until(`${storageId} knows ${other}`, () => isKnown)
    }
    return cluster.connect(2)
  }
  async function synced(): Promise<void> {
    if (cluster.members.get(1)!.sync === undefined) await cluster.startSync(1)
    await until('the peer has everything', () => storeOf(2).position(1)?.sequence === storeOf(1).end.sequence)
  }
  /** Flips a bit in a member's copy. */
  function flip(storageId: number, fileId: string, at: number): void {
    const { slot } = decodeFileName(parseFileId(fileId).name)
    const { dataDirectory } = cluster.members.get(storageId)!
    const path = join(dataDirectory, 'store', 'segments', '1', String(slot!.segmentId).padStart(10, '0'))
    const bytes = readFileSync(path)
    bytes[slot!.offsetBytes + at]! ^= 1
    writeFileSync(path, bytes)
  }

  it('is given as a whole and in ranges, by its source and at the door of a member that lacks it', async () => {
    const files = new Map<string, Buffer>()
    for (const [i, bytes] of SIZES.entries()) files.set(await upload(contentOf(bytes, i)), contentOf(bytes, i))
    await addPeer()
    for (const storageId of [1, 2]) {
      const connection = await cluster.connect(storageId)
      for (const [fileId, content] of files) {
        expect(decodeFileName(parseFileId(fileId).name).kind).to.equal('segment')
        expect((await fetchFile(connection, fileId)).equals(content), fileId).to.equal(true)
        if (content.length < 10) continue
        const range = await fetchFile(connection, fileId, { offset: 7, length: content.length - 9 })
        expect(range.equals(content.subarray(7, -2)), fileId).to.equal(true)
      }
    }
    expect(cluster.members.get(1)!.storage.blocks.takenBytes).to.equal(0)
  })

  it('is "bad_range" where it has ended', async () => {
    const fileId = await upload(contentOf(100))
    for (const offset of [100, 101]) {
      const connection = await cluster.connect(1, 'client')
      expect(await codeOf(fetchFile(connection, fileId, { offset })), `${offset}`).to.equal('bad_range')
    }
    const tail = await fetchFile(await cluster.connect(1), fileId, { offset: 90, length: 1000 })
    expect(tail.equals(contentOf(100).subarray(90))).to.equal(true)
  })

  it('that is damaged is given by another member, in whatever byte of header or content it is', async () => {
    const fileId = await upload(contentOf(200))
    await addPeer()
    await synced()
    for (const at of [0, 1, 5, 9, 13, 17, 23, SLOT_HEADER_BYTES, SLOT_HEADER_BYTES + 199]) {
      for (const storageId of [1, 2]) {
        flip(storageId, fileId, at)
        const found = await fetchFile(await cluster.connect(storageId), fileId)
        expect(found.equals(contentOf(200)), `byte ${at} at ${storageId}`).to.equal(true)
        flip(storageId, fileId, at)
      }
    }
  })

  it('that is damaged everywhere is "corrupt", and never said not to be there', async () => {
    const fileId = await upload(contentOf(200))
    for (const at of [0, 5, 9, 13, 17, SLOT_HEADER_BYTES]) {
      flip(1, fileId, at)
      expect(await fetch(1, fileId), `byte ${at}, alone`).to.equal('corrupt')
      flip(1, fileId, at)
    }
    await addPeer()
    flip(1, fileId, 13)
    expect(await fetch(1, fileId), 'with a peer that does not have it').to.equal('corrupt')
    flip(1, fileId, 13)
    await synced()
    for (const storageId of [1, 2]) flip(storageId, fileId, SLOT_HEADER_BYTES)
    for (const storageId of [1, 2]) expect(await fetch(storageId, fileId)).to.equal('corrupt')
  })

  it('that was deleted is "not found" for everybody, also while its source is away', async () => {
    const [gone, kept] = [await upload(contentOf(100, 1)), await upload(contentOf(100, 2))]
    await addPeer()
    await synced()
    expect(await remove(2, gone), 'at the wrong door').to.equal('none')
    await synced()
    for (const storageId of [1, 2]) {
      expect([await fetch(storageId, gone), await info(storageId, gone)]).to.deep.equal(['not_found', 'not_found'])
    }
    expect(await remove(1, gone)).to.equal('not_found')
    await cluster.stopStorage(1)
    expect([await fetch(2, gone), await info(2, gone)]).to.deep.equal(['not_found', 'not_found'])
    expect((await fetchFile(await cluster.connect(2), kept)).equals(contentOf(100, 2))).to.equal(true)
  })

  it('is "unavailable" at a member that never got it while its source is away', async () => {
    const fileId = await upload(contentOf(100))
    await addPeer()
    await cluster.stopStorage(1)
    expect([await fetch(2, fileId), await info(2, fileId)]).to.deep.equal(['unavailable', 'unavailable'])
  })

  it('of a name that never was is "not found" when everybody was asked, whatever lies in that place', async () => {
    const fileId = await upload(contentOf(100))
    await addPeer()
    await synced()
    const stale = { createTimeS: 5, crc32: 5, tail: '123.txt' }
    for (const parts of [stale, { ...stale, offsetBytes: 6_400 }, { ...stale, segmentId: 5 }]) {
      const forged = forge(fileId, parts)
      for (const storageId of [1, 2]) {
        const answers = [await fetch(storageId, forged), await info(storageId, forged)]
        expect(answers, `${JSON.stringify(parts)} at ${storageId}`).to.deep.equal(['not_found', 'not_found'])
      }
      expect(await remove(1, forged)).to.equal('not_found')
    }
    expect(await fetch(1, forge(fileId, { ...stale, offsetBytes: 64 })), 'in the middle of a slot').not.to.equal('none')
    expect((await fetchFile(await cluster.connect(1), fileId)).equals(contentOf(100))).to.equal(true)
  })

  it('is refused at the door under a name with a slot that cannot be, before any buffer is taken', async () => {
    const fileId = await upload(contentOf(100))
    for (const parts of [
      { sizeBytes: PACKED_BYTES_MAX + 1, slotBytes: slotBytesFor(PACKED_BYTES_MAX + 1), offsetBytes: 0 },
      { sizeBytes: SEGMENT_BYTES, slotBytes: slotBytesFor(SEGMENT_BYTES), offsetBytes: 0 },
      { sizeBytes: 2 ** 32 - 1, slotBytes: 2 ** 32 - 64 },
      { sizeBytes: 100, slotBytes: SLOT_BYTES_MAX },
      { slotBytes: 0 },
      { offsetBytes: 1 },
      { offsetBytes: SEGMENT_BYTES },
    ]) {
      const forged = forge(fileId, parts)
      const answers = [await fetch(1, forged), await info(1, forged), await remove(1, forged)]
      expect(answers, JSON.stringify(parts)).to.deep.equal(['bad_file_id', 'bad_file_id', 'bad_file_id'])
    }
    expect(cluster.members.get(1)!.storage.blocks.takenBytes).to.equal(0)
  })

  it('may be as large as its largest slot in a name that never was, and is "not found" then', async () => {
    const fileId = await upload(contentOf(100))
    const forged = forge(fileId, { sizeBytes: PACKED_BYTES_MAX, slotBytes: SLOT_BYTES_MAX, crc32: 5, offsetBytes: 0 })
    expect(await fetch(1, forged)).to.equal('not_found')
    expect(cluster.members.get(1)!.storage.blocks.takenBytes).to.equal(0)
  })

  for (const [errno, code] of [
    ['ENOSPC', 'no_space'],
    ['EDQUOT', 'no_space'],
    ['EIO', 'unavailable'],
  ] as const) {
    for (const action of ['open', 'write', 'sync'] as const) {
      it(`is "${code}" for its upload when its disk says ${errno} at ${action}, and its buffer is given back`, async () => {
        disk.fail({ action, path: /segments\/1\// }, errno, { times: action === 'open' ? 2 : 1 })
        expect(await codeOf(upload(contentOf(100)))).to.equal(code)
        expect(cluster.members.get(1)!.storage.blocks.takenBytes).to.equal(0)
        disk.heal()
        if (code === 'no_space') expect(await fetch(1, await upload(contentOf(100)))).to.equal('none')
      })
    }
  }

  it('is "unavailable" for whoever reads or deletes when its disk fails, and no reason not to read when it is well again', async () => {
    const fileId = await upload(contentOf(100))
    for (const work of [fetch, info, remove]) {
      disk.fail({ action: 'read', path: /segments/ }, 'EIO', { times: 2 })
      expect(await work(1, fileId)).to.equal('unavailable')
      disk.heal()
    }
    expect(await fetch(1, fileId)).to.equal('none')
  })

  it('whose segment was cut short is given by another member', async () => {
    const fileId = await upload(contentOf(5_000))
    await addPeer()
    await synced()
    const { slot } = decodeFileName(parseFileId(fileId).name)
    const { dataDirectory } = cluster.members.get(1)!
    const path = join(dataDirectory, 'store', 'segments', '1', String(slot!.segmentId).padStart(10, '0'))
    for (const bytes of [3_000, SLOT_HEADER_BYTES, 10, 0]) {
      truncateSync(path, bytes)
      const found = await fetchFile(await cluster.connect(1), fileId)
      expect(found.equals(contentOf(5_000)), `${bytes} bytes`).to.equal(true)
    }
  })
})

/** The id of another file, made of that of one there is. */
function forge(
  fileId: string,
  parts: Partial<Parameters<typeof nameOfSlot>[0] & Parameters<typeof nameOfSlot>[1]>,
): string {
  const { group, name } = parseFileId(fileId)
  const { storePathIndex, slot, sizeBytes, crc32, createTimeS, tail } = decodeFileName(name)
  const real = { storePathIndex, storageId: 1, ...slot!, sizeBytes: sizeBytes!, crc32, createTimeS, tail, ...parts }
  return formatFileId({ group, name: nameOfSlot(real, real) })
}
