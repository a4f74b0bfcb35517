/** Listing a store: every file once, in an order that can be resumed anywhere, while others come and go. */
import { renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'chai'
import { decodeFileName, slaveNameOf } from '../../protocol/file-id.ts'
import {
  comparePlaces,
  LIST_FILES_MAX,
  LIST_START,
  type ListedName,
  type ListPlace,
  placeBehind,
} from '../../protocol/list-bodies.ts'
import type { Store } from '../../store/store.ts'
import { until } from '../until.ts'
import { contentOf, fill, pack, rejection, STORAGE_ID, sumOf, upload, Workshop } from './store-fixture.ts'

const MAX = 4096

describe('a listing of a store', () => {
  let workshop: Workshop
  beforeEach(async () => {
    workshop = await Workshop.make()
  })
  afterEach(() => workshop.remove())

  const open = (options = {}) => workshop.open('data', { segmentFileBytesMax: MAX, ...options })
  async function list(store: Store, wanted = {}, between: () => Promise<unknown> = async () => {}) {
    const files: ListedName[] = []
    let place: ListPlace | undefined = LIST_START
    let pages = 0
    for (; place !== undefined; pages++) {
      const page = await store.list({ place, prefix: '', sinceS: 0, ...wanted })
      if (page.place !== undefined) expect(comparePlaces(page.place, place), 'it goes on').to.be.above(0)
      expect(page.files.length).to.be.at.most(LIST_FILES_MAX)
      files.push(...page.files)
      place = page.place
      await between()
    }
    return { files, names: files.map(({ name }) => name), pages }
  }
  const inOrder = (names: readonly string[]) => [...names].sort((a, b) => comparePlaces(placeBehind(a), placeBehind(b)))

  it('has each file once, in order, with what is known of it, over many pages and store paths', async () => {
    const { store } = await open({ storePaths: ['a', 'b'].map(name => join(workshop.path, name)) })
    const sizes = [
      ...Array.from({ length: 3 * LIST_FILES_MAX }, (_, i) => i % MAX),
      ...Array.from({ length: 40 }, () => MAX + 1),
    ]
    const stored = await Promise.all(sizes.map((size, i) => upload(store, contentOf(size, i + 1))))
    const { files, names, pages } = await list(store)
    expect(names).to.deep.equal(inOrder(stored))
    expect(pages).to.be.above(3)
    for (const { name, ...facts } of files) {
      const { sizeBytes, crc32 } = decodeFileName(name)
      expect(facts).to.deep.equal({ sizeBytes, crc32 })
    }
  })

  it('knows slave and appender files, and neither metadata nor what others have put there', async () => {
    const { store, directory } = await open()
    const master = await upload(store, contentOf(2 * MAX))
    await store.changeMetadata(master, async () => Buffer.from('a\u0002b'))
    const slave = slaveNameOf(master, '_s', 'png')
    await store.createSlave(await fill(await store.receive(0xff, 9, 'slave'), contentOf(9)), slave)
    const appender = (
      await store.create(await fill(await store.receive(0xff, 5, 'appender'), contentOf(5)), {
        extension: 'log',
        uploadId: undefined,
        isAppender: true,
      })
    ).name
    const strange = join(directory, 'store', 'data', decodeFileName(master).directory, 'notes.txt')
    writeFileSync(strange, 'mine')
    const { files } = await list(store)
    expect(Object.fromEntries(files.map(({ name, ...facts }) => [name, facts]))).to.deep.equal({
      [master]: { sizeBytes: 2 * MAX, crc32: sumOf(contentOf(2 * MAX)) },
      [slave]: { sizeBytes: 9, crc32: sumOf(contentOf(9)) },
      [appender]: { sizeBytes: 5, crc32: undefined },
    })
  })

  it('has what was there from beginning to end exactly once, whatever comes and goes', async () => {
    const { store } = await open()
    const size = (i: number) => (i % 10 === 0 ? MAX + 1 : 50 + (i % 300))
    const all = await Promise.all(Array.from({ length: 900 }, (_, i) => upload(store, contentOf(size(i), i + 1))))
    const [staying, going] = [all.filter((_, i) => i % 3 !== 0), all.filter((_, i) => i % 3 === 0)]
    const coming: string[] = []
    let left = 300
    const { names } = await list(store, {}, async () => {
      for (const name of going.splice(0, 30)) await store.delete(name)
      for (let i = 0; i < 30 && left > 0; i++, left--)
        coming.push(await upload(store, contentOf(size(left), left + 5000)))
    })
    expect(new Set(names).size, 'nothing twice').to.equal(names.length)
    expect(
      staying.filter(name => !names.includes(name)),
      'all that stayed',
    ).to.deep.equal([])
    expect(
      names.filter(name => !all.includes(name) && !coming.includes(name)),
      'nothing else',
    ).to.deep.equal([])
  })

  it('does not have what is deleted, of another time, or under another prefix', async () => {
    const { store, clock } = await open()
    const early = await upload(store, contentOf(10, 1))
    const gone = await upload(store, contentOf(10, 2))
    const gonePlain = await upload(store, contentOf(2 * MAX, 2))
    clock.advance(5_000)
    const late = [await upload(store, contentOf(10, 3)), await upload(store, contentOf(2 * MAX, 3))]
    await store.delete(gone)
    await store.delete(gonePlain)
    expect((await list(store)).names).to.deep.equal([early, ...late])
    const sinceS = decodeFileName(late[0]!).createTimeS
    expect((await list(store, { sinceS })).names).to.deep.equal(late)
    expect((await list(store, { prefix: late[1]!.slice(0, 10) })).names).to.include(late[1])
    expect((await list(store, { prefix: late[1] })).names).to.deep.equal([late[1]])
    expect((await list(store, { prefix: 'M01' })).names).to.deep.equal([])
  })

  it('does not have a file whose slot has no record yet', async () => {
    const { store, disk } = await open()
    const first = await upload(store, contentOf(10, 1))
    const slots = { action: 'sync', path: /segments/ } as const
    const before = disk.count(slots)
    const held = disk.hold({ action: 'sync', path: /binlog/ })
    const second = upload(store, contentOf(10, 2))
    await held.reached
    await until('its slot is written', () => disk.count(slots) > before)
    const { names } = await list(store)
    held.release()
    expect(names).to.deep.equal([first])
    const both = [first, await second]
    expect((await list(store)).names).to.deep.equal(both)
  })

  it('goes on behind damage, and ends where a segment is cut off', async () => {
    const { store, disk, directory } = await open()
    const names: string[] = []
    for (let i = 0; i < 5; i++) names.push(await pack(store, contentOf(100, i + 1)))
    const { slot } = decodeFileName(names[1]!)
    const path = join(directory, 'store', 'segments', String(STORAGE_ID), String(slot!.segmentId).padStart(10, '0'))
    const file = await disk.open(path, 'update')
    await file.write([Buffer.alloc(24, 0xee)], slot!.offsetBytes)
    await file.close()
    expect((await list(store)).names).to.deep.equal(names.filter((_, i) => i !== 1))
  })

  it('fails if the disk of a store path is not there: what is on it is not gone', async () => {
    const { store, directory } = await open()
    await upload(store, contentOf(10))
    await upload(store, contentOf(2 * MAX))
    renameSync(join(directory, 'store'), join(directory, 'away'))
    expect((await rejection(list(store))).errno).to.equal('ENODEV')
    renameSync(join(directory, 'away'), join(directory, 'store'))
    expect((await list(store)).names).to.have.length(2)
  })
})
