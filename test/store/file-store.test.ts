import { mkdir, readdir, readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect } from 'chai'
import { type BinlogRecord, encodeRecord } from '../../protocol/binlog-record.ts'
import { decodeFileName, encodeFileName, SIZE_WITHOUT_SALT_MIN, tailOf } from '../../protocol/file-id.ts'
import { realWorld } from '../../runtime/real-world.ts'
import { binlogPath } from '../../store/binlog-files.ts'
import { BLOCK_BYTES } from '../../store/block-pool.ts'
import { openDirectory, raiseEpoch } from '../../store/data-directory.ts'
import { directoryIndexOf } from '../../store/placing.ts'
import type { Store } from '../../store/store.ts'
import { until } from '../until.ts'
import { VirtualClock } from '../virtual-clock.ts'
import {
  contentOf,
  download,
  fill,
  optionsOf,
  rejection,
  SIZES,
  START_SEQUENCES,
  STORAGE_ID,
  sumOf,
  upload,
  Workshop,
} from './store-fixture.ts'

const UPLOAD_ID = '00112233445566778899aabbccddeeff'

describe('plain store', () => {
  let workshop: Workshop

  beforeEach(async () => {
    workshop = await Workshop.make()
  })
  afterEach(() => workshop.remove())

  const temporaries = () => readdir(join(workshop.path, 'data', 'store', 'tmp'))
  const twoPaths = () => ['a', 'b'].map(name => join(workshop.path, name))
  const pathIndexOf = (name: string) => decodeFileName(name).storePathIndex
  async function recordsOf(store: Store): Promise<BinlogRecord[]> {
    const records: BinlogRecord[] = []
    for await (const { record } of store.readRecords({ after: 0, until: store.end.sequence })) records.push(record)
    return records
  }

  it('keeps a file of any size until it is deleted', async () => {
    const { store } = await workshop.open()
    for (const [i, sizeBytes] of SIZES.entries()) {
      const content = contentOf(sizeBytes, i + 1)
      const name = await upload(store, content)
      expect(decodeFileName(name)).to.include({
        ...{ kind: 'plain', storageId: STORAGE_ID, storePathIndex: 0, sizeBytes, crc32: sumOf(content) },
        createTimeS: 1_700_000_000,
      })
      expect((await download(store, name))?.equals(content), name).to.equal(true)
      expect(await store.delete(name)).to.equal(true)
      expect(await store.open(name)).to.equal(undefined)
      expect(await store.delete(name)).to.equal(false)
    }
    expect(await temporaries()).to.deep.equal([])
  })

  it('finds its files again after a restart', async () => {
    const opened = await workshop.open()
    const names = await Promise.all(SIZES.map((sizeBytes, i) => upload(opened.store, contentOf(sizeBytes, i))))
    await opened.close()
    const { store } = await workshop.open()
    for (const [i, name] of names.entries()) {
      expect((await download(store, name))?.equals(contentOf(SIZES[i]!, i)), name).to.equal(true)
    }
  })

  it('gives every file a name of its own, also to equal files in the same second and after a crash', async () => {
    const opened = await workshop.open()
    const again = () => Promise.all(Array.from({ length: 150 }, () => upload(opened.store, contentOf(10))))
    const names = new Set(await again())
    const crashed = await workshop.open(await workshop.crash())
    for (let i = 0; i < 150; i++) names.add(await upload(crashed.store, contentOf(10)))
    expect(names.size).to.equal(300)
    expect(new Set([...names].map(name => decodeFileName(name).directory)).size).to.equal(5)
  })

  it('does not answer an upload before file, directory entry and record are durable and the file has its name', async () => {
    const { store, disk } = await workshop.open()
    const name = await upload(store, contentOf(BLOCK_BYTES + 1))
    const record = disk.find('begin', { action: 'write', path: /binlog/ })
    expect(disk.find('end', { action: 'sync', path: /tmp\/1n0$/ })).to.be.within(0, record)
    expect(disk.find('end', { action: 'sync', path: /tmp\/1n0~sum$/ })).to.be.within(0, record)
    expect(disk.find('end', { action: 'syncDirectory', path: /tmp$/ })).to.be.within(0, record)
    const synced = disk.find('end', { action: 'sync', path: /binlog/ }, record)
    const sidecar = disk.find('begin', { action: 'rename', path: /1n0~sum$/ }, synced)
    expect(sidecar).to.be.greaterThan(synced)
    expect(disk.find('begin', { action: 'rename', path: /1n0$/ })).to.be.greaterThan(sidecar)
    expect(disk.find('end', { action: 'rename', path: new RegExp(`${name.slice(10)}$`) })).to.be.greaterThan(sidecar)
  })

  it('refuses what is no name, and store paths it does not have', async () => {
    const { store } = await workshop.open()
    const name = await upload(store, contentOf(1))
    expect(await rejection(store.open('../../identity'))).to.include({ code: 'bad_file_id' })
    expect(await rejection(store.open(name.replace('M00', 'M01')))).to.include({ code: 'bad_request' })
    expect(await rejection(store.receive(1, 1))).to.include({ code: 'bad_request' })
  })

  it('ends at the time of the last record that peers get, also after a restart, which records itself', async () => {
    const opened = await workshop.open()
    await upload(opened.store, contentOf(10))
    const { timeMs } = opened.store.end
    const clock = new VirtualClock()
    clock.advance(60_000)
    const crashed = await workshop.open(await workshop.crash(), {}, clock)
    expect(crashed.store.end).to.deep.equal({ sequence: 1 + START_SEQUENCES, timeMs })
    const again = await workshop.open(await workshop.crash('copy0'), {}, clock)
    expect(again.store.end.timeMs).to.equal(timeMs)
  })

  describe('upload id', () => {
    it('makes a repeated upload the same upload, also after a restart and after a crash', async () => {
      const opened = await workshop.open()
      const name = await upload(opened.store, contentOf(10), UPLOAD_ID)
      expect(await upload(opened.store, contentOf(10), UPLOAD_ID)).to.equal(name)
      const crashed = await workshop.open(await workshop.crash())
      expect(await upload(crashed.store, contentOf(10), UPLOAD_ID)).to.equal(name)
      expect(crashed.store.end.sequence).to.equal(1 + START_SEQUENCES)
      await opened.close()
      const again = await workshop.open()
      const file = await fill(await again.store.receive(0xff, 10), contentOf(10))
      expect(await again.store.create(file, { extension: 'txt', uploadId: UPLOAD_ID })).to.deep.equal({
        name,
        sequence: 1,
      })
      expect(again.store.recovery.redone).to.equal(0)
      expect(await upload(again.store, contentOf(10), UPLOAD_ID)).to.equal(name)
      expect(again.store.end.sequence).to.equal(1 + START_SEQUENCES)
      expect(await temporaries()).to.deep.equal([])
    })

    it('makes uploads at the same time the same upload', async () => {
      const { store } = await workshop.open()
      const names = await Promise.all(Array.from({ length: 20 }, () => upload(store, contentOf(10), UPLOAD_ID)))
      expect(new Set(names).size).to.equal(1)
      expect(store.end.sequence).to.equal(1)
      expect(await temporaries()).to.deep.equal([])
      expect(await download(store, names[0]!)).to.deep.equal(contentOf(10))
    })

    it('of an upload that failed may be used again', async () => {
      const { store, disk } = await workshop.open()
      disk.fail({ action: 'sync', path: /tmp\/\w+$/ }, 'ENOSPC')
      expect(await rejection(upload(store, contentOf(10), UPLOAD_ID))).to.include({ errno: 'ENOSPC' })
      const name = await upload(store, contentOf(10), UPLOAD_ID)
      expect(await download(store, name)).to.deep.equal(contentOf(10))
    })
  })

  describe('choice of a store path', () => {
    it('goes round, or to the one asked for', async () => {
      const { store } = await workshop.open('data', { storePaths: twoPaths() })
      const names = []
      for (let i = 0; i < 4; i++) names.push(await upload(store, contentOf(1)))
      expect(names.map(pathIndexOf)).to.deep.equal([0, 1, 0, 1])
      const file = await fill(await store.receive(1, 1), contentOf(1))
      expect(pathIndexOf((await store.create(file, { extension: '', uploadId: undefined })).name)).to.equal(1)
    })

    it('goes to the one with the most room, counting what is about to be written', async () => {
      const { store } = await workshop.open('data', { storePaths: twoPaths(), storePathChoice: 'most_free' })
      const files = []
      for (let i = 0; i < 4; i++) files.push(await store.receive(0xff, 1_000_000_000 + i))
      const indexes = files.map(file => file.storePath.index)
      expect(new Set(indexes.slice(0, 2))).to.deep.equal(new Set([0, 1]))
      expect(new Set(indexes.slice(2))).to.deep.equal(new Set([0, 1]))
      for (const file of files) await file.discard()
    })

    it('says no_space where the reserve begins, on all or on the one asked for', async () => {
      const { store } = await workshop.open('data', { reservedBytes: Number.MAX_SAFE_INTEGER })
      expect(await rejection(store.receive(0xff, 1))).to.include({ code: 'no_space' })
      expect(await rejection(store.receive(0, 1))).to.include({ code: 'no_space' })
      expect(await temporaries()).to.deep.equal([])
    })
  })

  describe('with a full disk', () => {
    for (const [what, pattern] of [
      ['in the middle of a block', { action: 'write', path: /tmp\/\w+$/ }],
      ['in the sidecar', { action: 'write', path: /~sum$/ }],
      ['at the sync', { action: 'sync', path: /tmp\/\w+$/ }],
      ['at the directory', { action: 'syncDirectory', path: /tmp$/ }],
    ] as const) {
      it(`refuses a file, keeps nothing of it and goes on: ${what}`, async () => {
        const { store, disk } = await workshop.open()
        const content = contentOf(2 * BLOCK_BYTES)
        disk.fail(pattern, 'ENOSPC', { keptBytes: 1000 })
        const file = await store.receive(0xff, content.length)
        const uploaded = (async () => {
          await fill(file, content)
          return store.create(file, { extension: '', uploadId: undefined })
        })()
        expect(await rejection(uploaded)).to.include({ name: 'DiskError', errno: 'ENOSPC' })
        await file.discard()
        expect(await temporaries()).to.deep.equal([])
        expect(store.end.sequence).to.equal(0)
        expect(store.storePaths[0]?.writable).to.equal(true)
        expect((await download(store, await upload(store, content)))?.equals(content)).to.equal(true)
      })
    }

    it('does not acknowledge a file that could not get its name', async () => {
      const { store, disk } = await workshop.open()
      disk.fail({ action: 'rename' }, 'ENOSPC')
      expect(await rejection(upload(store, contentOf(5)))).to.include({ errno: 'ENOSPC' })
      expect(store.storePaths[0]?.writable).to.equal(true)
      await upload(store, contentOf(5))
    })
  })

  describe('with a failing disk', () => {
    it('turns its store path read-only and goes on with the others', async () => {
      const { store, disk } = await workshop.open('data', { storePaths: twoPaths() })
      const before = await upload(store, contentOf(5))
      expect(pathIndexOf(before)).to.equal(0)
      await upload(store, contentOf(5))
      disk.fail({ action: 'sync', path: /a\/tmp/ }, 'EIO')
      expect(await rejection(upload(store, contentOf(5)))).to.include({ errno: 'EIO' })
      expect(store.storePaths.map(path => path.writable)).to.deep.equal([false, true])
      expect(await rejection(store.receive(0, 1))).to.include({ code: 'no_space' })
      for (let i = 0; i < 3; i++) expect(pathIndexOf(await upload(store, contentOf(5)))).to.equal(1)
      expect(await download(store, before)).to.deep.equal(contentOf(5))
      expect(await readdir(join(workshop.path, 'a', 'tmp'))).to.deep.equal([])
      expect(store.failure).to.equal(undefined)
    })

    it('never says that a file is not there', async () => {
      const { store } = await workshop.open()
      const name = await upload(store, contentOf(5))
      await store.delete(name)
      const error = Object.assign(new Error(), { errno: 'EIO' })
      store.noteFailure(name, error)
      expect(store.storePaths[0]?.writable, 'only what the disk said counts').to.equal(true)
      const { disk } = realWorld()
      const refused = await rejection(disk.open(`${workshop.path}/data/identity/x`, 'read'))
      store.noteFailure(name, refused)
      expect(store.storePaths[0]?.writable).to.equal(false)
      expect(await rejection(store.open(name))).to.include({ errno: 'ENOTDIR' })
      expect(await rejection(store.delete(name))).to.include({ errno: 'ENOTDIR' })
    })

    it('writes no checkpoint any more, so that a restart does again what that disk may have lost', async () => {
      const opened = await workshop.open('data', { storePaths: twoPaths() })
      await upload(opened.store, contentOf(5))
      opened.disk.fail({ action: 'sync', path: /b\/tmp/ }, 'EIO')
      await rejection(upload(opened.store, contentOf(5)))
      await opened.close()
      const again = await workshop.open('data', { storePaths: twoPaths() })
      expect(again.store.recovery.redone).to.equal(1)
      expect(again.store.storePaths.map(path => path.writable)).to.deep.equal([true, true])
    })

    it('that loses the binlog takes no changes any more, but still serves files', async () => {
      const { store, disk } = await workshop.open()
      const name = await upload(store, contentOf(5))
      disk.fail({ action: 'sync', path: /binlog/ }, 'EIO')
      expect(await rejection(upload(store, contentOf(5)))).to.include({ code: 'unavailable' })
      expect(store.failure).to.include({ errno: 'EIO' })
      expect(await rejection(store.receive(0xff, 1))).to.include({ code: 'unavailable' })
      expect(await rejection(store.delete(name))).to.include({ code: 'unavailable' })
      expect(await download(store, name)).to.deep.equal(contentOf(5))
    })
  })

  describe('with a disk that went away', () => {
    it('says so, and never that a file is not there', async () => {
      const { store } = await workshop.open()
      const kept = await upload(store, contentOf(5))
      const deleted = await upload(store, contentOf(6))
      await store.delete(deleted)
      const root = join(workshop.path, 'data', 'store')
      await rename(root, `${root}.away`)
      for (const name of [kept, deleted]) {
        expect(await rejection(store.open(name))).to.include({ errno: 'ENODEV' })
        expect(await rejection(store.delete(name))).to.include({ errno: 'ENODEV' })
      }
      await rejection(store.receive(0xff, 1))
      expect((await store.measure())[0]?.writable).to.equal(false)
      await rename(`${root}.away`, root)
      expect(await download(store, kept)).to.deep.equal(contentOf(5))
      expect(await rejection(store.receive(0xff, 1))).to.include({ code: 'no_space' })
    })
  })

  it('finishes what is under way when it is closed, and checkpoints it', async () => {
    const opened = await workshop.open()
    const { disk, clock } = opened
    await upload(opened.store, contentOf(1))
    // A checkpoint of the first record is under way; it must not be taken for one of the second.
    const held = disk.hold({ action: 'sync', path: /checkpoint\.new$/ })
    clock.advance(10_000)
    await held.reached
    const name = await upload(opened.store, contentOf(2))
    const closed = opened.store.close()
    held.release()
    await closed
    await opened.close()
    const again = await workshop.open(await workshop.crash())
    expect(again.store.recovery.redone).to.equal(0)
    expect(await download(again.store, name)).to.deep.equal(contentOf(2))
  })

  describe('with an upload that cannot get its name', () => {
    for (const sizeBytes of [10, 2 * BLOCK_BYTES]) {
      const content = contentOf(sizeBytes)

      it(`takes ${sizeBytes} bytes back, at once and for good, and frees their upload id`, async () => {
        const opened = await workshop.open('data', { storePaths: twoPaths() })
        opened.disk.fail({ action: 'rename', path: /a\/tmp\/\w+$/ }, 'EIO')
        expect(await rejection(upload(opened.store, content, UPLOAD_ID))).to.include({ errno: 'EIO' })
        await until('it is taken back', () => opened.store.end.sequence === 2)
        const [created, deleted] = await recordsOf(opened.store)
        expect([created?.op, deleted?.op, deleted?.name]).to.deep.equal(['C', 'D', created?.name])
        expect(await filesBelow('a')).to.deep.equal(['identity'])
        const second = await upload(opened.store, content, UPLOAD_ID)
        expect(pathIndexOf(second)).to.equal(1)
        await opened.close()
        const again = await workshop.open('data', { storePaths: twoPaths() })
        expect(again.store.recovery).to.include({ redone: 3, removedTemporaries: 0 })
        expect(again.store.recovery.missing).to.deep.equal([])
        expect(await again.store.open(created!.name)).to.equal(undefined)
        expect((await download(again.store, second))?.equals(content)).to.equal(true)
        expect(await upload(again.store, content, UPLOAD_ID)).to.equal(second)
      })

      it(`takes ${sizeBytes} bytes back also over a restart, and does not know their upload id then`, async () => {
        const opened = await workshop.open()
        opened.disk.fail({ action: 'rename', path: /tmp\/\w+$/ }, 'EIO')
        expect(await rejection(upload(opened.store, content, UPLOAD_ID))).to.include({ errno: 'EIO' })
        await until('it is taken back', () => opened.store.end.sequence === 2)
        const [{ name } = { name: '' }] = await recordsOf(opened.store)
        const again = await workshop.open(await workshop.crash())
        expect(await again.store.open(name)).to.equal(undefined)
        expect(await filesBelow('copy0/store')).to.deep.equal(['identity'])
        const second = await upload(again.store, content, UPLOAD_ID)
        expect(second).to.not.equal(name)
        expect((await download(again.store, second))?.equals(content)).to.equal(true)
      })
    }

    it('does not give it to the next start either, when there is no room for the record that takes it back', async () => {
      const opened = await workshop.open()
      const renamed = opened.disk.hold({ action: 'rename', path: /tmp\/\w+$/ })
      const uploaded = rejection(upload(opened.store, contentOf(10), UPLOAD_ID))
      await renamed.reached
      opened.disk.fail({ action: 'write', path: /binlog/ }, 'ENOSPC')
      renamed.release('ENOSPC')
      expect(await uploaded).to.include({ errno: 'ENOSPC' })
      const synced = () => opened.disk.find('end', { action: 'syncDirectory', path: /tmp$/ }, gone())
      const gone = () => opened.disk.find('end', { action: 'remove', path: /tmp\/\w+$/ })
      await until('its bytes are gone for good', () => gone() >= 0 && synced() >= 0)
      const again = await workshop.open(await workshop.crash())
      const [created, ...others] = (await recordsOf(again.store)).filter(({ op }) => op !== 'S')
      expect(others).to.deep.equal([])
      expect(await again.store.open(created!.name)).to.equal(undefined)
      expect(again.store.recovery.missing).to.deep.equal([created!.name])
    })

    /** Names of all files below a directory of the workshop. */
    async function filesBelow(name: string): Promise<string[]> {
      const entries = await readdir(join(workshop.path, name), { recursive: true, withFileTypes: true })
      return entries.filter(entry => entry.isFile()).map(entry => entry.name)
    }
  })

  describe('asked for the record of a file', () => {
    it('has it of every file it made, also of one that is deleted, and of no other', async () => {
      const { store } = await workshop.open()
      const names = [await upload(store, contentOf(5, 1)), await upload(store, contentOf(5, 2))]
      await store.delete(names[0]!)
      for (const name of names) expect(await store.knowsDeletion(name)).to.equal(true)
      const { createTimeS } = decodeFileName(names[0]!)
      const made = { storePathIndex: 0, directoryIndex: 0, storageId: STORAGE_ID, createTimeS }
      for (const salt of [1, 3, 4, 5000]) {
        const name = encodeFileName({ ...made, sizeBytes: 5, crc32: 1, salt, tail: tailOf('', 0) })
        expect(await store.knowsDeletion(name), `with salt ${salt}`).to.equal(false)
      }
      const large = encodeFileName({
        ...made,
        sizeBytes: SIZE_WITHOUT_SALT_MIN,
        crc32: 1,
        salt: 1,
        tail: tailOf('', 0),
      })
      expect(await store.knowsDeletion(large), 'a name without a salt').to.equal(false)
    })

    it('does not have it when its line is damaged, or was found again under another sequence', async () => {
      const opened = await workshop.open()
      const name = await upload(opened.store, contentOf(5, 1))
      await upload(opened.store, contentOf(5, 2))
      const path = binlogPath(join(workshop.path, 'data', 'binlog'), 1, 1)
      await writeFile(path, (await readFile(path, 'latin1')).replace(' C ', ' D '), 'latin1')
      expect(await opened.store.knowsDeletion(name)).to.equal(false)
      const again = await workshop.open(await workshop.crash())
      expect(again.store.recovery.orphans).to.deep.equal([name])
      expect((await recordsOf(again.store)).at(-1)?.name).to.equal(name)
      expect(await again.store.knowsDeletion(name)).to.equal(false)
    })

    it('has it of sequences that differ only in what a name has no room for', async () => {
      const sequences = [42, 42 + 2 ** 23, 42 + 3 * 2 ** 23]
      await writeBinlog(1, sequences.map(ownLine))
      const { store } = await workshop.open()
      for (const sequence of sequences)
        expect(await store.knowsDeletion(ownName(sequence)), `${sequence}`).to.equal(true)
      expect(await store.knowsDeletion(ownName(42 + 2 * 2 ** 23))).to.equal(false)
      expect(await store.knowsDeletion(ownName(43))).to.equal(false)
    })
  })

  describe('in a raised epoch', () => {
    /** More than a flush; every seventh is of a peer. */
    const RECORDS = 1500
    const isOfPeer = (sequence: number) => sequence % 7 === 0
    const sequences = Array.from({ length: RECORDS }, (_, i) => i + 1)
    const ownNames = sequences.filter(sequence => !isOfPeer(sequence)).map(sequence => ownName(sequence))
    const EPOCH_4 = /binlog\/4\./

    beforeEach(async () => {
      await (await workshop.open()).close()
      await writeBinlog(
        1,
        sequences.map(sequence => (isOfPeer(sequence) ? peerLine(sequence) : ownLine(sequence))),
      )
      await raise(4)
    })

    it('begins with the own records of the one before, in their order, and leaves out those of peers', async () => {
      const opened = await workshop.open()
      const records = await recordsOf(opened.store)
      expect(records.map(record => record.name)).to.deep.equal(ownNames)
      expect(records.every(({ epoch, op, origin }) => epoch === 4 && op === 'C' && origin === undefined)).to.equal(true)
      await opened.close()
      const again = await workshop.open()
      const created = (await recordsOf(again.store)).filter(({ op }) => op === 'C')
      expect(created, 'and no more than once').to.have.lengthOf(ownNames.length)
    })

    for (const errno of ['EIO', 'ENOSPC']) {
      it(`begins anew when it was interrupted in the middle by ${errno}, and misses none`, async () => {
        let held: { reached: Promise<unknown>; release(errno?: string): void } | undefined
        const opening = workshop.open('data', {}, new VirtualClock(), disk => {
          disk.hold({ action: 'write', path: EPOCH_4 }).release()
          held = disk.hold({ action: 'write', path: EPOCH_4 })
        })
        await held?.reached
        held?.release(errno)
        const opened = await opening
        expect((await recordsOf(opened.store)).length).to.be.within(1, ownNames.length - 1)
        await opened.close()
        const again = await workshop.open()
        const names = (await recordsOf(again.store)).filter(({ op }) => op === 'C').map(({ name }) => name)
        expect(names.slice(-ownNames.length)).to.deep.equal(ownNames)
        await again.close()
        const later = await workshop.open()
        expect((await recordsOf(later.store)).filter(({ op }) => op === 'C')).to.have.lengthOf(names.length)
      })
    }

    it('writes no checkpoint before all of that is recorded: not in time, and not at the end', async () => {
      const clock = new VirtualClock()
      let held: { reached: Promise<unknown>; release(errno?: string): void } | undefined
      let checkpoints = () => 0
      const opening = workshop.open('data', {}, clock, disk => {
        disk.hold({ action: 'write', path: EPOCH_4 }).release()
        held = disk.hold({ action: 'write', path: EPOCH_4 })
        checkpoints = () => disk.trace.filter(({ path }) => /checkpoint/.test(path) && /new$/.test(path)).length
      })
      await held?.reached
      for (let i = 0; i < 20; i++) await new Promise(resolve => setImmediate(resolve))
      clock.advance(10_000)
      for (let i = 0; i < 20; i++) await new Promise(resolve => setImmediate(resolve))
      expect(checkpoints()).to.equal(0)
      held?.release('EIO')
      const opened = await opening
      expect(opened.store.failure).to.include({ errno: 'EIO' })
      clock.advance(10_000)
      await opened.close()
      expect(checkpoints()).to.equal(0)
    })
  })

  it('begins a new binlog in a raised epoch with the own records of the one before, and keeps files and time', async () => {
    const opened = await workshop.open()
    opened.clock.advance(3_600_000)
    const name = await upload(opened.store, contentOf(5))
    await opened.close()
    await raise(4)
    const { store } = await workshop.open()
    expect(store.epoch).to.equal(4)
    expect(store.end.sequence).to.equal(1)
    expect(await download(store, name)).to.deep.equal(contentOf(5))
    const next = await upload(store, contentOf(5))
    expect(store.end.sequence).to.equal(2)
    expect(decodeFileName(next).createTimeS).to.equal(decodeFileName(name).createTimeS)
    const places = (await recordsOf(store)).map(record => [record.epoch, record.sequence, record.name])
    expect(places).to.deep.equal([
      [4, 1, name],
      [4, 2, next],
    ])
  })

  /** Lets the next start go on under a later epoch. */
  async function raise(epoch: number): Promise<void> {
    const options = optionsOf(join(workshop.path, 'data'))
    const { identity, lock } = await openDirectory(realWorld(), options)
    await raiseEpoch(realWorld(), options, identity, epoch)
    await lock.release()
  }

  async function writeBinlog(epoch: number, lines: readonly string[]): Promise<void> {
    const directory = join(workshop.path, 'data', 'binlog')
    await mkdir(directory, { recursive: true })
    await writeFile(binlogPath(directory, epoch, 1), lines.join(''), 'latin1')
  }
})

/** The name of a file that was made with a sequence. */
function ownName(sequence: number, storageId = STORAGE_ID): string {
  return encodeFileName({
    ...{ storePathIndex: 0, directoryIndex: directoryIndexOf(sequence, 5), storageId, createTimeS: 1_700_000_000 },
    // As the sequence goes round in a salt, something else has to tell.
    ...{ sizeBytes: 5, crc32: sequence, salt: sequence, tail: tailOf('txt', 0) },
  })
}

/** A record of a file that is gone since, so that recovery looks for none. */
function ownLine(sequence: number): string {
  const place = { epoch: 1, sequence, batch: sequence, timeMs: 1_700_000_000_000 }
  const none = { token: undefined, origin: undefined, uploadId: undefined }
  return encodeRecord({ ...place, ...none, op: 'C', name: ownName(sequence) })
}

function peerLine(sequence: number): string {
  const place = { epoch: 1, sequence, batch: sequence, timeMs: 1_700_000_000_000 }
  const origin = { storageId: 9, epoch: 1, sequence }
  return encodeRecord({ ...place, token: undefined, uploadId: undefined, op: 'c', name: ownName(sequence, 9), origin })
}
