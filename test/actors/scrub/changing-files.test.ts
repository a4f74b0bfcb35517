import { rm } from 'node:fs/promises'
import { expect } from 'chai'
import { metadataNameOf, slaveNameOf } from '../../../protocol/file-id.ts'
import { BLOCK_BYTES } from '../../../store/block-pool.ts'
import { SIDECAR_HEADER_BYTES, sidecarPath } from '../../../store/sidecar.ts'
import { contentOf, fill, type OpenStore, upload, Workshop } from '../../store/store-fixture.ts'
import { flip, PACKS, placeOf, spoil, TestScrub } from './scrub-fixture.ts'

const SIZE_BYTES = 2 * BLOCK_BYTES + 17

/** The scrub of files whose names do not say what is in them. */
describe('the scrub of files that change', () => {
  let workshop: Workshop
  let opened: OpenStore
  let test: TestScrub
  let slave: string
  let appender: string
  let metadata: string

  beforeEach(async () => {
    workshop = await Workshop.make()
    opened = await workshop.open('data', PACKS)
    const { store } = opened
    const master = await upload(store, contentOf(1000))
    await store.changeMetadata(master, async () => Buffer.from('a\x021'))
    metadata = metadataNameOf(master)
    slave = slaveNameOf(master, '_small', 'jpg')
    const content = contentOf(SIZE_BYTES, 2)
    await store.createSlave(await fill(await store.receive(0, content.length, 'slave'), content), slave)
    const file = await fill(await store.receive(0, content.length, 'appender'), content)
    appender = (await store.create(file, { extension: 'log', uploadId: undefined, isAppender: true })).name
    test = await TestScrub.start(opened)
  })
  afterEach(async () => {
    await test.scrub.stop()
    await workshop.remove()
  })

  async function append(content: Buffer): Promise<void> {
    const part = await fill(await opened.store.receive(0, content.length, 'part'), content)
    await opened.store.writeAppender(appender, part)
  }

  it('finds nothing where all is well, and reads all of it', async () => {
    await test.passes(1)
    expect(test.bad).to.deep.equal({})
    expect(test.scrub.counts().scrubBytes).to.be.above(2 * SIZE_BYTES)
  })

  it('finds damaged bytes, and forgets them when they are good again', async () => {
    await spoil(opened, slave, BLOCK_BYTES + 5)
    await spoil(opened, appender, 2 * BLOCK_BYTES + 5)
    await spoil(opened, metadata, 9)
    await test.passes(1)
    expect(test.bad).to.deep.equal({ [slave]: 'block 1', [appender]: 'block 2', [metadata]: 'metadata' })
    expect(test.told).to.include(`${metadata} it is metadata, and fails its checksum`)
    await spoil(opened, slave, BLOCK_BYTES + 5)
    await spoil(opened, appender, 2 * BLOCK_BYTES + 5)
    await spoil(opened, metadata, 9)
    await test.passes(1)
    expect(test.bad).to.deep.equal({})
  })

  it('finds sidecars that are gone or damaged', async () => {
    await rm(sidecarPath(placeOf(opened, slave).path))
    await flip(sidecarPath(placeOf(opened, appender).path), 0)
    await test.passes(1)
    expect(test.bad).to.deep.equal({ [slave]: 'sidecar', [appender]: 'sidecar' })
  })

  it('takes a flipped checksum for a bad block: nothing else says what its bytes are', async () => {
    await flip(sidecarPath(placeOf(opened, slave).path), SIDECAR_HEADER_BYTES)
    await test.passes(1)
    expect(test.bad).to.deep.equal({ [slave]: 'block 0' })
  })

  it('calls nothing bad that changes, or goes, while it is read', async () => {
    const until = test.scrub.counts().scrubPasses + 20
    let changes = 0
    await test.until(() => {
      changes++
      if (changes % 50 === 1 && changes < 1000) {
        append(contentOf(BLOCK_BYTES / 3, changes)).catch(() => {})
        opened.store.truncateAppender(appender, BLOCK_BYTES / 2 + (changes % 7)).catch(() => {})
      }
      return test.scrub.counts().scrubPasses >= until
    })
    await opened.store.delete(slave)
    await opened.store.delete(appender)
    await test.passes(2)
    expect([test.bad, test.told]).to.deep.equal([{}, []])
  })
})
