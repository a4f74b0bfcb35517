/** Slave files: their names are given, taken and given again, and what is under one is what came last. */
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect } from 'chai'
import { decodeFileName, slaveNameOf } from '../../protocol/file-id.ts'
import { BLOCK_BYTES } from '../../store/block-pool.ts'
import type { Store } from '../../store/store.ts'
import { contentOf, fill, type OpenStore, readSummed, rejection, SIZES, upload, Workshop } from './store-fixture.ts'

const OPTIONS = { segmentFileBytesMax: 1_000 }

describe('slave files of a store', () => {
  let workshop: Workshop
  let opened: OpenStore
  let name: string

  beforeEach(async () => {
    workshop = await Workshop.make()
    opened = await workshop.open('data', OPTIONS)
    name = slaveNameOf(await upload(opened.store, contentOf(10)), '_150x150', 'jpg')
  })
  afterEach(() => workshop.remove())

  async function create(store: Store, content: Buffer): Promise<void> {
    await store.createSlave(await fill(await store.receive(0, content.length, 'slave'), content), name)
  }
  const read = (store: Store) => readSummed(store, name)
  const again = async (directory: string) => (await workshop.open(directory, OPTIONS)).store
  const pathOf = (directory: string) => {
    const file = decodeFileName(name)
    return join(workshop.path, directory, 'store', 'data', file.directory, file.baseName)
  }

  it('are kept at any size, deleted, and come again under their names', async () => {
    const { store } = opened
    for (const [i, sizeBytes] of SIZES.entries()) {
      const content = contentOf(sizeBytes, i)
      expect(await store.has(name)).to.equal(false)
      await create(store, content)
      expect((await read(store))?.equals(content), `${sizeBytes} bytes`).to.equal(true)
      expect(await rejection(create(store, contentOf(5)))).to.have.property('code', 'already_exists')
      expect((await read(await again(await workshop.crash())))?.equals(content), `${sizeBytes} after a crash`).to.equal(
        true,
      )
      expect(await store.delete(name)).to.equal(true)
      expect(await read(store)).to.equal(undefined)
      expect(await store.knowsDeletion(name)).to.equal(true)
    }
    expect(await readdir(join(workshop.path, 'data', 'store', 'tmp'))).to.deep.equal([])
  })

  it('are what came last after a crash, however often the name was given and taken', async () => {
    const { store } = opened
    for (let i = 0; i < 3; i++) {
      await create(store, contentOf(100, i))
      await store.delete(name)
    }
    await create(store, contentOf(2 * BLOCK_BYTES, 9))
    await store.changeMetadata(name, async () => Buffer.from('a\x021'))
    const crashed = await again(await workshop.crash())
    expect((await read(crashed))?.equals(contentOf(2 * BLOCK_BYTES, 9))).to.equal(true)
    expect((await crashed.readMetadata(decodeFileName(name)))?.toString()).to.equal('a\x021')
    await store.delete(name)
    const gone = await again(await workshop.crash())
    expect(await read(gone)).to.equal(undefined)
    expect(await gone.readMetadata(decodeFileName(name))).to.equal(undefined)
  })

  it('are one of those that come at the same time', async () => {
    const { store } = opened
    const contents = Array.from({ length: 8 }, (_, i) => contentOf(100 + i, i))
    const results = await Promise.allSettled(contents.map(content => create(store, content)))
    const winners = results.flatMap(({ status }, i) => (status === 'fulfilled' ? [contents[i]!] : []))
    expect(winners).to.have.lengthOf(1)
    expect((await read(store))?.equals(winners[0]!)).to.equal(true)
    expect(await readdir(join(workshop.path, 'data', 'store', 'tmp'))).to.deep.equal([])
  })

  it('never read wrong, whatever bit of them or of their sidecars flips', async () => {
    const content = contentOf(50)
    await create(opened.store, content)
    for (const path of [pathOf('data'), `${pathOf('data')}~sum`]) {
      const bytes = await readFile(path)
      for (let at = 0; at < bytes.length; at++) {
        const flipped = Buffer.from(bytes)
        flipped[at]! ^= 1 << (at % 8)
        await writeFile(path, flipped)
        const found = await read(opened.store).catch(error => error)
        // Four bytes of the sidecar's header mean nothing.
        const isGood = Buffer.isBuffer(found) && found.equals(content)
        expect(isGood || found.code === 'corrupt', `byte ${at} of ${path}: ${found}`).to.equal(true)
      }
      await writeFile(path, bytes)
    }
  })
})
