import { readdir, rename } from 'node:fs/promises'
import { join } from 'node:path'
import { expect } from 'chai'
import { decodeFileName } from '../../protocol/file-id.ts'
import { realWorld } from '../../runtime/real-world.ts'
import { BLOCK_BYTES } from '../../store/block-pool.ts'
import { raiseEpoch } from '../../store/plain-store.ts'
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

  it('refuses names of kinds it does not keep, and store paths it does not have', async () => {
    const { store } = await workshop.open()
    const name = await upload(store, contentOf(1))
    expect(await rejection(store.open(name.replace('.txt', '_small.txt')))).to.include({ code: 'bad_file_id' })
    expect(await rejection(store.open('../../identity'))).to.include({ code: 'bad_file_id' })
    expect(await rejection(store.open(name.replace('M00', 'M01')))).to.include({ code: 'bad_request' })
    expect(await rejection(store.receive(1, 1))).to.include({ code: 'bad_request' })
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
      expect(pathIndexOf(await store.create(file, { extension: '', uploadId: undefined }))).to.equal(1)
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

  it('begins a new binlog in a raised epoch with the own records of the one before, and keeps files and time', async () => {
    const opened = await workshop.open()
    opened.clock.advance(3_600_000)
    const name = await upload(opened.store, contentOf(5))
    await opened.close()
    const world = realWorld()
    const raised = await workshop.open()
    const { bootCount, incarnation } = raised
    const identity = {
      ...{ storageId: STORAGE_ID, group: 'group1', incarnation, bootCount, epoch: 1, storePathCount: 1 },
    }
    await raiseEpoch(world, optionsOf(raised.directory), identity, 4)
    await raised.close()
    const { store } = await workshop.open()
    expect(store.epoch).to.equal(4)
    expect(store.end.sequence).to.equal(1)
    expect(await download(store, name)).to.deep.equal(contentOf(5))
    const next = await upload(store, contentOf(5))
    expect(store.end.sequence).to.equal(2)
    expect(decodeFileName(next).createTimeS).to.equal(decodeFileName(name).createTimeS)
    const records = []
    for await (const { record } of store.readRecords({ after: 0, until: 2 })) records.push(record)
    const places = records.map(record => [record.epoch, record.sequence, record.name])
    expect(places).to.deep.equal([
      [4, 1, name],
      [4, 2, next],
    ])
  })
})
