/** Starts that find slots, records, or one without the other. */
import { mkdir, open, readdir, readFile, rename, rm, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect } from 'chai'
import { type BinlogRecord, decodeRecord } from '../../protocol/binlog-record.ts'
import { decodeFileName } from '../../protocol/file-id.ts'
import { realWorld } from '../../runtime/real-world.ts'
import { binlogPath } from '../../store/binlog-files.ts'
import { openDirectory, raiseEpoch } from '../../store/data-directory.ts'
import type { Store } from '../../store/store.ts'
import { SeededRandom } from '../simulation/seeded-random.ts'
import type { FaultyDisk } from './faulty-disk.ts'
import {
  contentOf,
  download,
  type OpenStore,
  optionsOf,
  rejection,
  STORAGE_ID,
  upload,
  Workshop,
} from './store-fixture.ts'

const OPTIONS = { segmentFileBytesMax: 64 * 1024 }
const FLUSH_RECORDS = 3
/** Of lines of some 110 bytes: the crash campaign takes them all. */
const STEP = 23

describe('a start of a store with segments', function () {
  this.timeout(60_000)
  let workshop: Workshop

  beforeEach(async () => {
    workshop = await Workshop.make()
  })
  afterEach(() => workshop.remove())

  const binlogOf = (name: string) => binlogPath(join(workshop.path, name, 'binlog'), 1, 1)
  const segmentsOf = (name: string, path = 'store') => join(workshop.path, name, path, 'segments', String(STORAGE_ID))
  const pathOf = (name: string, file: string) =>
    join(segmentsOf(name), String(decodeFileName(file).slot!.segmentId).padStart(10, '0'))
  async function recordsOf(store: Store): Promise<BinlogRecord[]> {
    const records: BinlogRecord[] = []
    for await (const { record } of store.readRecords({ after: 0, until: store.end.sequence })) records.push(record)
    return records
  }
  const createdIn = async (store: Store) =>
    (await recordsOf(store)).filter(({ op }) => op === 'C').map(({ name }) => name)
  async function expectAll(store: Store, files: ReadonlyMap<string, Buffer>, when = ''): Promise<void> {
    for (const [name, content] of files) {
      expect((await download(store, name))?.equals(content), `${name} ${when}`).to.equal(true)
    }
  }
  /** Uploads so many files, one after the other or all at once. */
  async function uploadSome(store: Store, count: number, seed = 0, together = false): Promise<Map<string, Buffer>> {
    const contents = Array.from({ length: count }, (_, i) => contentOf(100 * (i + 1), seed + i))
    const names: string[] = []
    if (together) names.push(...(await Promise.all(contents.map(content => upload(store, content)))))
    else for (const content of contents) names.push(await upload(store, content))
    return new Map(names.map((name, i) => [name, contents[i]!]))
  }
  /** Starts on a directory, and once more on what a crash right after that leaves: nothing is found again. */
  async function start(name: string): Promise<OpenStore> {
    const opened = await workshop.open(name, OPTIONS)
    const again = await workshop.open(await workshop.crash(name), OPTIONS)
    expect(again.store.recovery).to.deep.include({ orphans: [], tornBytes: 0, damagedLines: 0 })
    const created = await createdIn(again.store)
    expect(new Set(created).size).to.equal(created.length)
    await again.close()
    return opened
  }

  it('records a slot that is whole and has no record, once, and keeps its file', async () => {
    const { store, disk } = await workshop.open('data', OPTIONS)
    const files = await uploadSome(store, 3)
    const held = disk.hold({ action: 'write', path: /binlog/ })
    const name = upload(store, contentOf(77, 77))
    await held.reached
    const copy = await workshop.crash()
    held.release()
    const again = await start(copy)
    expect(again.store.recovery.orphans).to.deep.equal([await name])
    files.set(await name, contentOf(77, 77))
    await expectAll(again.store, files)
    expect(await createdIn(again.store)).to.deep.equal([...files.keys()])
  })

  it('records a slot behind another of its flush that never got to the disk', async () => {
    const { store, disk } = await workshop.open('data', OPTIONS)
    const files = await uploadSome(store, 2)
    const held = disk.hold({ action: 'write', path: /binlog/ })
    const names = Promise.all([upload(store, contentOf(300, 8)), upload(store, contentOf(70, 9))])
    await held.reached
    const copy = await workshop.crash()
    held.release()
    const [lost, found] = await names
    const { offsetBytes, slotBytes } = decodeFileName(lost!).slot!
    const path = pathOf(copy, lost!)
    const bytes = await readFile(path)
    await writeFile(path, bytes.fill(0, offsetBytes, offsetBytes + slotBytes))
    const again = await start(copy)
    expect(again.store.recovery.orphans).to.deep.equal([found])
    files.set(found!, contentOf(70, 9))
    await expectAll(again.store, files)
  })

  it('finds none after a crash with all records in place, nor after an orderly end', async () => {
    const opened = await workshop.open('data', OPTIONS)
    const files = await uploadSome(opened.store, 10, 0, true)
    const again = await start(await workshop.crash())
    expect(again.store.recovery.orphans).to.deep.equal([])
    await opened.close()
    const ended = await start('data')
    expect(ended.store.recovery).to.deep.include({ orphans: [], redone: 0 })
    await expectAll(ended.store, files)
  })

  it('takes a slot that is torn or damaged for nobody’s, and appends nothing to its segment', async () => {
    const { store, disk } = await workshop.open('data', OPTIONS)
    const files = await uploadSome(store, 2)
    const held = disk.hold({ action: 'write', path: /binlog/ })
    const torn = upload(store, contentOf(300, 9))
    await held.reached
    const copy = await workshop.crash()
    held.release()
    const { offsetBytes } = decodeFileName(await torn).slot!
    const path = pathOf(copy, await torn)
    for (const bytes of [offsetBytes + 323, offsetBytes + 100, offsetBytes + 24, offsetBytes + 10, offsetBytes]) {
      await truncate(path, bytes)
      const again = await start(await workshop.crash(copy))
      expect(again.store.recovery.orphans, `${bytes} bytes`).to.deep.equal([])
      await expectAll(again.store, files)
      const next = await upload(again.store, contentOf(300, 9))
      expect(decodeFileName(next).slot).to.include({ offsetBytes: 0 })
      await again.close()
    }
    expect((await readFile(path)).length).to.equal(offsetBytes)
  })

  it('keeps files whose records are damaged in the middle, and those at the end, wherever their segments begin', async () => {
    const opened = await workshop.open('data', OPTIONS)
    const files = await uploadSome(opened.store, 3)
    await opened.close()
    const second = await workshop.open('data', OPTIONS)
    for (const [name, content] of await uploadSome(second.store, 4, 10)) files.set(name, content)
    const [, , , first, , third] = [...files.keys()]
    await second.store.delete(third!)
    for (const damaged of [[first!], [first!, third!], [...files.keys()].slice(3)]) {
      const copy = await workshop.crash()
      const lines = (await readFile(binlogOf(copy), 'latin1')).split('\n')
      const spoilt = lines.map(line =>
        damaged.includes(decodeRecord(line)?.name ?? '') ? line.replace(' C ', ' c ') : line,
      )
      await writeFile(binlogOf(copy), spoilt.join('\n'), 'latin1')
      const again = await start(copy)
      expect(again.store.recovery.orphans).to.have.members(damaged.filter(name => name !== third))
      await expectAll(again.store, new Map([...files].filter(([name]) => name !== third)))
      expect(await again.store.has(third!)).to.equal(false)
      await again.close()
    }
  })

  it('records a file again whose record was covered by a checkpoint and is gone, so that peers get it', async () => {
    const opened = await workshop.open('data', OPTIONS)
    const files = await uploadSome(opened.store, 3)
    await opened.close()
    const bytes = (await readFile(binlogOf('data'))).length
    await truncate(binlogOf('data'), bytes - 1)
    const again = await start('data')
    expect(again.store.recovery.orphans).to.deep.equal([[...files.keys()].at(-1)])
    await expectAll(again.store, files)
    expect(await createdIn(again.store)).to.deep.equal([...files.keys()])
  })

  it('loses nothing and gives no name twice, wherever the last flush is cut, garbled or flipped', async () => {
    const { store, disk } = await workshop.open('data', OPTIONS)
    const files = await uploadSome(store, 2)
    const gone = await upload(store, contentOf(50, 50))
    await store.delete(gone)
    const before = (await readFile(binlogOf('data'))).length
    const held = disk.hold({ action: 'sync', path: /segments/ })
    const flush = uploadSome(store, FLUSH_RECORDS, 20, true)
    await held.reached
    held.release()
    for (const [name, content] of await flush) files.set(name, content)
    const made = await workshop.crash()
    const sound = await readFile(binlogOf(made))
    const random = new SeededRandom('flush')
    for (const damage of ['cut', 'garbled', 'flipped']) {
      for (let at = before; at < sound.length; at += STEP) {
        const when = `${damage} at ${at - before} of ${sound.length - before}`
        const copy = await workshop.crash(made)
        const bytes = Buffer.from(sound)
        if (damage === 'garbled') random.bytes(bytes.length - at).copy(bytes, at)
        if (damage === 'flipped') bytes[at]! ^= 1 << random.below(8)
        await writeFile(binlogOf(copy), damage === 'cut' ? bytes.subarray(0, at) : bytes)
        const again = await start(copy)
        await expectAll(again.store, files, when)
        expect(await again.store.has(gone), when).to.equal(false)
        expect(files.has(await upload(again.store, contentOf(100, 20))), when).to.equal(false)
        expect(await createdIn(again.store), when).to.include.members([...files.keys()])
        await again.close()
        await rm(join(workshop.path, copy), { recursive: true })
      }
    }
  })

  it('costs no file but its own when a slot is cut, garbled or flipped anywhere, with its record or without', async () => {
    const { store } = await workshop.open('data', OPTIONS)
    const files = await uploadSome(store, 2)
    const before = (await readFile(binlogOf('data'))).length
    const own = await upload(store, contentOf(60, 60))
    const made = await workshop.crash()
    const { offsetBytes } = decodeFileName(own).slot!
    const random = new SeededRandom('slot')
    for (const [damage, isRecordCut] of [
      ['cut', false],
      ['garbled', false],
      ['flipped', false],
      ['cut', true],
      ['flipped', true],
    ] as const) {
      for (let at = 0; at < 24 + 60; at += damage === 'flipped' ? 5 : STEP) {
        const when = `${damage} at ${at}${isRecordCut ? ', without its record' : ''}`
        const copy = await workshop.crash(made)
        const path = pathOf(copy, own)
        if (damage === 'cut') await truncate(path, offsetBytes + at)
        else {
          const file = await open(path, 'r+')
          const piece = damage === 'garbled' ? random.bytes(24 + 60 - at) : Buffer.alloc(1)
          if (damage === 'flipped') {
            await file.read(piece, 0, 1, offsetBytes + at)
            piece[0]! ^= 1 << random.below(8)
          }
          await file.write(piece, 0, piece.length, offsetBytes + at)
          await file.close()
        }
        if (isRecordCut) await truncate(binlogOf(copy), before)
        const again = await start(copy)
        await expectAll(again.store, files, when)
        const found = await download(again.store, own).catch(error => error.code)
        // A header is mended by its record.
        if (damage === 'flipped' && at < 24 && !isRecordCut) expect(found, when).to.deep.equal(contentOf(60, 60))
        else expect(found, when).to.be.oneOf([undefined, 'corrupt'])
        expect(again.store.recovery.orphans, when).not.to.include(own)
        await again.close()
        await rm(join(workshop.path, copy), { recursive: true })
      }
    }
  })

  it('leaves deleted files deleted when the records of their deletion are cut off', async () => {
    const { store } = await workshop.open('data', OPTIONS)
    const files = await uploadSome(store, 4)
    const before = (await readFile(binlogOf('data'))).length
    for (const name of files.keys()) await store.delete(name)
    const copy = await workshop.crash()
    await truncate(binlogOf(copy), before)
    const again = await start(copy)
    expect(again.store.recovery.orphans).to.deep.equal([])
    for (const name of files.keys()) {
      expect(await again.store.has(name)).to.equal(false)
      expect(await again.store.knowsDeletion(name)).to.equal(true)
    }
  })

  it('frees again what its records say is deleted, and makes that durable before a checkpoint forgets it', async () => {
    const { store, disk } = await workshop.open('data', OPTIONS)
    const [name] = [...(await uploadSome(store, 1)).keys()]
    const held = disk.hold({ action: 'write', path: /segments/ })
    const deleted = store.delete(name!)
    await held.reached
    const copy = await workshop.crash()
    held.release()
    await deleted
    let isSyncedFirst = false
    const again = await workshop.open(copy, OPTIONS)
    isSyncedFirst =
      again.disk.find('end', { action: 'sync', path: /segments/ }) <
      again.disk.find('begin', { action: 'rename', path: /checkpoint/ })
    expect(again.disk.count({ action: 'write', path: /segments/ })).to.equal(1)
    expect(isSyncedFirst).to.equal(true)
    expect(await again.store.knowsDeletion(name!)).to.equal(true)
  })

  it('begins at the first record when its checkpoint is damaged, and records nothing twice', async () => {
    const opened = await workshop.open('data', OPTIONS)
    const files = await uploadSome(opened.store, 5)
    const [gone] = files.keys()
    await opened.store.delete(gone!)
    files.delete(gone!)
    await opened.close()
    await writeFile(join(workshop.path, 'data', 'checkpoint'), 'spoilt')
    const again = await start('data')
    expect(again.store.recovery).to.deep.include({ orphans: [], checkpointDamaged: true })
    await expectAll(again.store, files)
    expect(await again.store.has(gone!)).to.equal(false)
  })

  it('goes on under another writer in a later epoch, and touches no slot of the one before', async () => {
    const opened = await workshop.open('data', OPTIONS)
    const files = await uploadSome(opened.store, 3)
    await opened.close()
    const world = { ...realWorld(), clock: opened.clock }
    const options = { ...optionsOf(opened.directory), ...OPTIONS }
    const { identity, lock } = await openDirectory(world, options)
    const raised = await raiseEpoch(world, options, identity, 2)
    await lock.release()
    expect(raised.writer).not.to.equal(identity.writer)
    const again = await workshop.open('data', OPTIONS)
    const before = await readFile(pathOf('data', [...files.keys()][0]!))
    const name = await upload(again.store, contentOf(10))
    expect(decodeFileName(name).slot!.segmentId >> 20).to.equal(raised.writer)
    expect((await readFile(pathOf('data', [...files.keys()][0]!))).equals(before)).to.equal(true)
    await expectAll(again.store, files)
    expect((await createdIn(again.store)).slice(0, 3), 'peers never ask for those again').to.deep.equal([
      ...files.keys(),
    ])
    await again.close()
    const third = await workshop.open('data', OPTIONS)
    expect(third.store.recovery.orphans).to.deep.equal([])
    await expectAll(third.store, files)
  })

  it('does not take the slots of a store path for new when that comes back after it was away', async () => {
    const storePaths = ['a', 'b'].map(name => join(workshop.path, name))
    const opened = await workshop.open('data', { ...OPTIONS, storePaths })
    const files = await uploadSome(opened.store, 6)
    await opened.close()
    const alone = await workshop.open('data', { ...OPTIONS, storePaths: storePaths.slice(0, 1) })
    await upload(alone.store, contentOf(10))
    await alone.close()
    const both = await workshop.open('data', { ...OPTIONS, storePaths })
    expect(both.store.recovery.orphans).to.deep.equal([])
    await expectAll(both.store, files)
    for (const [name, content] of await uploadSome(both.store, 4, 30)) {
      expect(files.has(name)).to.equal(false)
      files.set(name, content)
    }
    await expectAll(both.store, files)
  })

  for (const action of ['list', 'read'] as const) {
    it(`serves other store paths when one fails to ${action} what lies behind its last slot, and looks again later`, async () => {
      const storePaths = ['a', 'b'].map(name => join(workshop.path, name))
      const options = { ...OPTIONS, storePaths }
      const opened = await workshop.open('data', options)
      const files = await uploadSome(opened.store, 4)
      const held = opened.disk.hold({ action: 'write', path: /binlog/ })
      const unrecorded = upload(opened.store, contentOf(10, 9))
      await held.reached
      const copy = await workshop.crash()
      held.release()
      await unrecorded
      await opened.close()
      const sick = (disk: FaultyDisk) => disk.fail({ action, path: /a\/segments/ }, 'EIO', { times: 1_000 })
      const again = await workshop.open(copy, options, undefined, sick)
      expect(again.store.storePaths.map(({ writable }) => writable)).to.deep.equal([false, true])
      expect((await upload(again.store, contentOf(10))).slice(0, 3)).to.equal('M01')
      again.disk.heal()
      await expectAll(again.store, files)
      await again.close()
      const well = await workshop.open(copy, options)
      expect(well.store.recovery.orphans).to.deep.equal([await unrecorded])
      expect(well.store.storePaths.map(({ writable }) => writable)).to.deep.equal([true, true])
    })
  }

  it('judges no slot of a store path whose disk is missing, makes nothing there, and serves the others', async () => {
    const storePaths = ['a', 'b'].map(name => join(workshop.path, name))
    const opened = await workshop.open('data', { ...OPTIONS, storePaths })
    const files = await uploadSome(opened.store, 6)
    await opened.close()
    await rename(storePaths[1]!, `${storePaths[1]}.away`)
    await mkdir(storePaths[1]!)
    const again = await workshop.open('data', { ...OPTIONS, storePaths })
    for (const [name, content] of files) {
      if (name.startsWith('M00')) expect((await download(again.store, name))?.equals(content)).to.equal(true)
      else expect(await rejection(download(again.store, name))).to.include({ errno: 'ENODEV' })
    }
    for (let i = 0; i < 3; i++) expect((await upload(again.store, contentOf(10, i))).slice(0, 3)).to.equal('M00')
    expect(await readdir(storePaths[1]!)).to.deep.equal([])
    await again.close()
    await rm(storePaths[1]!, { recursive: true })
    await rename(`${storePaths[1]}.away`, storePaths[1]!)
    const whole = await workshop.open('data', { ...OPTIONS, storePaths })
    expect(whole.store.recovery.orphans).to.deep.equal([])
    await expectAll(whole.store, files)
  })
})
