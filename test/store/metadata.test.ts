/** Metadata in a store: what was set last is read, through crashes at any step, and goes with its file. */
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect } from 'chai'
import { decodeFileName } from '../../protocol/file-id.ts'
import { METADATA_BYTES_MAX } from '../../protocol/metadata.ts'
import type { Store } from '../../store/store.ts'
import { contentOf, type OpenStore, rejection, upload, Workshop } from './store-fixture.ts'

const OTHER_ID = 9

describe('metadata of a store', () => {
  let workshop: Workshop
  let opened: OpenStore

  beforeEach(async () => {
    workshop = await Workshop.make()
    opened = await workshop.open('data', { segmentFileBytesMax: 1_000 })
  })
  afterEach(() => workshop.remove())

  const set = (store: Store, name: string, text: string) => store.changeMetadata(name, async () => Buffer.from(text))
  const get = async (store: Store, name: string) => (await store.readMetadata(decodeFileName(name)))?.toString()
  const again = (name: string) => workshop.open(name, { segmentFileBytesMax: 1_000 })
  async function filesOn(directory = 'data'): Promise<string[]> {
    const entries = await readdir(join(workshop.path, directory, 'store'), { recursive: true, withFileTypes: true })
    const files = entries.filter(entry => entry.isFile() && /store\/(data|tmp)/.test(entry.parentPath))
    return files.map(({ name }) => name).sort()
  }

  for (const [kind, sizeBytes] of [
    ['a small file', 100],
    ['a plain file', 5_000],
  ] as const) {
    it(`of ${kind} is what was set last, goes with its file, and leaves nothing behind`, async () => {
      const { store } = opened
      const name = await upload(store, contentOf(sizeBytes))
      expect(await get(store, name)).to.equal(undefined)
      for (const text of ['a\x021', 'a\x022\x01b\x021', '']) {
        expect(await set(store, name, text)).to.equal(true)
        expect(await get(store, name)).to.equal(text)
      }
      expect(await store.changeMetadata(name, async before => Buffer.from(`${await before()}+`))).to.equal(true)
      expect(await get(store, name)).to.equal('+')
      expect(await store.delete(name)).to.equal(true)
      expect(await get(store, name)).to.equal(undefined)
      expect(await set(store, name, 'late')).to.equal(false)
      expect(await filesOn()).to.deep.equal([])
    })

    it(`of ${kind} outlives a crash and a restart`, async () => {
      const name = await upload(opened.store, contentOf(sizeBytes))
      await set(opened.store, name, 'first')
      await set(opened.store, name, 'second')
      const crashed = await again(await workshop.crash())
      expect(await get(crashed.store, name)).to.equal('second')
      await crashed.close()
      await opened.close()
      opened = await again('data')
      expect(await get(opened.store, name)).to.equal('second')
    })
  }

  it('is that of the last record after a power cut, whichever renames are durable', async () => {
    const name = await upload(opened.store, contentOf(10))
    const temporary = (directory: string, token: string) => join(workshop.path, directory, 'store', 'tmp', token)
    await set(opened.store, name, 'first')
    await set(opened.store, name, 'second')
    const copy = await workshop.crash()
    // The first rename is not durable though the second is.
    const tokens = (await recordsOf(opened.store)).filter(({ op }) => op === 'U').map(({ token }) => token!)
    const place = join(
      workshop.path,
      copy,
      'store',
      'data',
      decodeFileName(name).directory,
      `${decodeFileName(name).baseName}-m`,
    )
    const second = await readFile(place)
    await writeFile(temporary(copy, tokens[0]!), Buffer.from('old'))
    const crashed = await again(copy)
    expect(await get(crashed.store, name)).to.equal('second')
    expect(await readFile(place)).to.deep.equal(second)
    expect(await readdir(join(workshop.path, copy, 'store', 'tmp'))).to.deep.equal([])
  })

  it('is set and deleted in one order by all who do so at once', async () => {
    const { store } = opened
    for (let round = 0; round < 20; round++) {
      const name = await upload(store, contentOf(10, round))
      const changes = Array.from({ length: 5 }, (_, i) => set(store, name, `${i}`))
      const deleted = store.delete(name)
      const late = set(store, name, 'late')
      expect(await Promise.all(changes)).to.deep.equal(Array(5).fill(true))
      expect(await deleted).to.equal(true)
      expect(await late).to.equal(false)
    }
    expect(await filesOn()).to.deep.equal([])
  })

  it('is refused if it is too much, and told if it is damaged, until it is set anew', async () => {
    const { store } = opened
    const name = await upload(store, contentOf(10))
    const tooMuch = store.changeMetadata(name, async () => Buffer.alloc(METADATA_BYTES_MAX + 1))
    expect(await rejection(tooMuch)).to.have.property('code', 'too_large')
    await set(store, name, 'a\x021')
    const { directory, baseName } = decodeFileName(name)
    const path = join(workshop.path, 'data', 'store', 'data', directory, `${baseName}-m`)
    const bytes = await readFile(path)
    for (let at = 0; at < bytes.length; at++) {
      const flipped = Buffer.from(bytes)
      flipped[at]! ^= 0x10
      await writeFile(path, flipped)
      expect(await rejection(store.readMetadata(decodeFileName(name))), `byte ${at}`).to.have.property(
        'code',
        'corrupt',
      )
    }
    await set(store, name, 'b\x022')
    expect(await get(store, name)).to.equal('b\x022')
  })

  it('of a peer’s file is applied in the order of the source, and goes with the file', async () => {
    const source = await workshop.open('source', { segmentFileBytesMax: 1_000, storageId: OTHER_ID })
    const name = await upload(source.store, contentOf(5_000))
    await set(source.store, name, 'first')
    await set(source.store, name, 'second')
    const { store } = opened
    const file = decodeFileName(name)
    let previous = 0
    const shipments = []
    for (const record of await recordsOf(source.store)) {
      if (record.op === 'S') continue
      const text =
        record.op === 'U' ? await store.receiveMetadata(file, Buffer.from(`of ${record.sequence}`)) : undefined
      const origin = { storageId: OTHER_ID, epoch: record.epoch, sequence: record.sequence }
      shipments.push({ shipped: { origin, previous, record, file }, content: text })
      previous = record.sequence
    }
    await store.apply(shipments)
    expect(await get(store, name)).to.equal(`of ${previous}`)
    const crashed = await again(await workshop.crash())
    expect(await get(crashed.store, name)).to.equal(`of ${previous}`)
    const deletion = { ...shipments[0]!.shipped.record, op: 'D' as const, sequence: previous + 1, token: undefined }
    const origin = { storageId: OTHER_ID, epoch: deletion.epoch, sequence: deletion.sequence }
    await store.apply([{ shipped: { origin, previous, record: deletion, file }, content: undefined }])
    expect(await filesOn()).to.deep.equal([])
  })

  async function recordsOf(store: Store) {
    const records = []
    for await (const { record } of store.readRecords({ after: 0, until: store.end.sequence })) records.push(record)
    return records
  }
})
