import { readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect } from 'chai'
import { slaveNameOf } from '../../../protocol/file-id.ts'
import { BLOCK_BYTES } from '../../../store/block-pool.ts'
import { SIDECAR_HEADER_BYTES, sidecarPath } from '../../../store/sidecar.ts'
import { SLOT_HEADER_BYTES } from '../../../store/slot.ts'
import { contentOf, download, fill, type OpenStore, upload, Workshop } from '../../store/store-fixture.ts'
import { type Files, fillStore, flip, PACKS, placeIn, placeOf, shorten, spoil, TestScrub } from './scrub-fixture.ts'

/** Where fields stand in the header of a slot. */
const SIZE_OFFSET = 5
const TIME_OFFSET = 16

/** The largest piece: records, slots and seeks. */
const PIECE_BYTES_MAX = 2 * BLOCK_BYTES

describe('the scrub', () => {
  let workshop: Workshop
  let files: Files
  let opened: OpenStore
  let test: TestScrub

  beforeEach(async () => {
    workshop = await Workshop.make()
    files = await fillStore(workshop)
    opened = await workshop.open('data', PACKS)
    test = await TestScrub.start(opened)
  })
  afterEach(async () => {
    await test.scrub.stop()
    await workshop.remove()
  })

  /** A new life of the same data directory. */
  async function restart(bytesPerSecond?: number): Promise<void> {
    await test.scrub.stop()
    await opened.close()
    opened = await workshop.open('data', PACKS)
    test = await TestScrub.start(opened, bytesPerSecond)
  }

  it('finds nothing where all is well, and reads everything in each pass', async () => {
    await test.passes(1)
    const once = test.scrub.counts().scrubBytes
    expect(once).to.be.above(600_000 + 100_000 + 300_000 + 1000)
    await test.passes(1)
    expect(test.scrub.counts().scrubBytes).to.be.closeTo(2 * once, 1000)
    expect([test.bad, test.told]).to.deep.equal([{}, []])
  })

  it('finds every kind of damage, counts it, and tells of each file once', async () => {
    const [content, type, size, time] = files.small.slice(5)
    await spoil(opened, content!, SLOT_HEADER_BYTES + 100)
    await spoil(opened, type!, 0)
    await spoil(opened, size!, SIZE_OFFSET + 3)
    // A header with another time is that of another file, and all its sums are right: only its record knows better.
    await spoil(opened, time!, TIME_OFFSET)
    await spoil(opened, files.large[0]!, SLOT_HEADER_BYTES + 99_999)
    await spoil(opened, files.large[1]!, SLOT_HEADER_BYTES + 299_999)
    await spoil(opened, files.oneBlock, 999)
    await spoil(opened, files.threeBlocks, BLOCK_BYTES + 17)
    await test.passes(1)
    const slots = [content, type, size, time, ...files.large].map(name => [name, 'slot'])
    const expected = Object.fromEntries([...slots, [files.oneBlock, 'block 0'], [files.threeBlocks, 'block 1']])
    expect(test.bad).to.deep.equal(expected)
    expect(test.quarantine.count).to.equal(8)
    expect(test.told).to.have.length(8)
    expect(test.told).to.include(`${files.threeBlocks} block 1 fails its checksum`)
    await test.passes(2)
    expect(test.bad).to.deep.equal(expected)
    expect(test.told).to.have.length(8)

    await restart()
    expect(test.bad).to.deep.equal(expected)
    await test.passes(1)
    expect(test.bad).to.deep.equal(expected)
    expect(test.told).to.deep.equal([])
  })

  it('does not judge slave and appender files that somebody could not read, whose names do not say what they are', async () => {
    const { store, directory } = opened
    const slave = slaveNameOf(files.oneBlock, '_a', 'jpg')
    await store.createSlave(await fill(await store.receive(0, 10, 'slave'), contentOf(10)), slave)
    const part = await fill(await store.receive(0, 10, 'appender'), contentOf(10))
    const { name } = await store.create(part, { extension: 'log', uploadId: undefined, isAppender: true })
    await rm(`${placeIn(directory, name).path}~sum`)
    for (const suspect of [slave, name]) test.scrub.suspect(suspect)
    await test.passes(2)
    expect([test.bad, test.told]).to.deep.equal([{}, []])
  })

  for (const [what, spoilSidecar] of [
    ['whose sidecar has a wrong checksum', (path: string) => flip(path, SIDECAR_HEADER_BYTES + 4)],
    ['whose sidecar has a damaged header', (path: string) => flip(path, 0)],
    ['whose sidecar is short', (path: string) => shorten(path, SIDECAR_HEADER_BYTES + 5)],
    ['whose sidecar is gone', (path: string) => rm(path)],
  ] as const) {
    it(`knows a good file ${what} from a bad one`, async () => {
      await spoilSidecar(sidecarPath(placeOf(opened, files.threeBlocks).path))
      await test.passes(1)
      expect(test.bad).to.deep.equal({ [files.threeBlocks]: 'sidecar' })
    })
  }

  it('finds a file that is short', async () => {
    await shorten(placeOf(opened, files.threeBlocks).path, 300_000)
    await shorten(placeOf(opened, files.oneBlock).path, 10)
    await test.passes(1)
    expect(test.bad).to.deep.equal({ [files.threeBlocks]: 'block 1', [files.oneBlock]: 'block 0' })
  })

  it('forgets files that are deleted, and files that are good again', async () => {
    const [deleted, mended] = files.small.slice(5)
    await spoil(opened, deleted!, SLOT_HEADER_BYTES)
    await spoil(opened, mended!, SLOT_HEADER_BYTES)
    await spoil(opened, files.oneBlock, 0)
    await spoil(opened, files.threeBlocks, 0)
    await test.passes(1)
    expect(Object.keys(test.bad)).to.have.members([deleted, mended, files.oneBlock, files.threeBlocks])
    await opened.store.delete(deleted!)
    await opened.store.delete(files.oneBlock)
    await spoil(opened, mended!, SLOT_HEADER_BYTES)
    await spoil(opened, files.threeBlocks, 0)
    await test.passes(1)
    expect(test.bad).to.deep.equal({})
    await restart()
    expect(test.quarantine.count).to.equal(0)
  })

  it('does not call a deleted file bad because its slot is damaged', async () => {
    const [before, after] = files.small.slice(5)
    await opened.store.delete(before!)
    await spoil(opened, before!, 0, 0x10)
    // What cannot be marked any more was deleted all the same: the record says so.
    await opened.store.delete(after!)
    await spoil(opened, after!, 0, 'F'.charCodeAt(0))
    await spoil(opened, after!, TIME_OFFSET)
    await test.passes(2)
    expect([test.bad, test.told]).to.deep.equal([{}, []])
  })

  it('takes a slot without a record for what it is: what a crash has left', async () => {
    const { path, offsetBytes } = placeOf(opened, files.small[5]!)
    await test.scrub.stop()
    await opened.close()
    const segment = await readFile(path)
    const torn = Buffer.from(segment.subarray(offsetBytes, offsetBytes + 1000))
    torn.fill(0, 500)
    await writeFile(path, Buffer.concat([segment, torn]))
    opened = await workshop.open('data', PACKS)
    test = await TestScrub.start(opened)
    await test.passes(2)
    expect(test.bad).to.deep.equal({})
  })

  it('goes on after a file that goes while it is on its way', async () => {
    const more: string[] = []
    for (let i = 0; i < 5; i++) more.push(await upload(opened.store, contentOf(600_000, 20 + i)))
    await test.until(() => test.scrub.counts().scrubBytes > 1_100_000)
    for (const name of [files.threeBlocks, files.oneBlock, ...more]) await opened.store.delete(name)
    await test.passes(2)
    expect(test.bad).to.deep.equal({})
  })

  it('reads no faster than it may, and nearly as fast', async () => {
    await restart(100_000)
    const startMs = test.clock.monotonicMs()
    await test.until(() => {
      const elapsedMs = test.clock.monotonicMs() - startMs
      expect(test.scrub.counts().scrubBytes).to.be.at.most(elapsedMs * 100 + PIECE_BYTES_MAX)
      return test.scrub.counts().scrubPasses === 1
    })
    const elapsedMs = test.clock.monotonicMs() - startMs
    expect(elapsedMs * 100).to.be.closeTo(test.scrub.counts().scrubBytes, 1_000_000)
    expect(elapsedMs).to.be.above(10_000)
  })

  it('goes on after a restart where it was', async () => {
    await test.passes(1)
    const whole = test.scrub.counts().scrubBytes
    await restart()
    await test.until(() => test.scrub.counts().scrubBytes > 0.7 * whole)
    const first = test.scrub.counts().scrubBytes
    await restart()
    await test.until(() => test.scrub.counts().scrubPasses === 1)
    const second = test.scrub.counts().scrubBytes
    expect(first + second).to.be.closeTo(whole, PIECE_BYTES_MAX)
    expect(second).to.be.below(0.4 * whole)
  })

  it('keeps its suspects over a restart', async () => {
    const name = files.small[5]!
    await spoil(opened, name, 1)
    await test.until(() => test.scrub.counts().scrubBytes > 300_000)
    expect(test.bad).to.deep.equal({})
    await restart()
    await test.until(() => test.scrub.counts().scrubPasses === 1)
    expect(test.bad).to.deep.equal({ [name]: 'slot' })
  })

  it('calls a file bad that its disk does not give for a minute, and not one that it gives the next time', async () => {
    const { disk } = opened
    const path = new RegExp(placeOf(opened, files.oneBlock).path)
    const segment = new RegExp(placeOf(opened, files.small[5]!).path)
    disk.fail({ action: 'read', path }, 'EIO', { times: Number.POSITIVE_INFINITY })
    disk.fail({ action: 'read', path: segment }, 'EIO', { times: 70 })
    await test.passes(1)
    expect(test.bad).to.deep.equal({ [files.oneBlock]: 'unreadable' })
    expect(test.told).to.deep.equal([`${files.oneBlock} its disk does not give it`])
    disk.heal()
    await test.passes(1)
    expect(test.bad).to.deep.equal({})
  })

  it('calls nothing bad on a store path that is away, and looks at it again when it is back', async () => {
    await spoil(opened, files.oneBlock, 0)
    const path = join(opened.directory, 'store')
    await test.scrub.stop()
    await opened.close()
    await rename(path, `${path}-away`)
    opened = await workshop.open('data', PACKS)
    test = await TestScrub.start(opened)
    await test.passes(2)
    expect(test.bad).to.deep.equal({})
    await rename(`${path}-away`, path)
    await restart()
    await test.passes(1)
    expect(test.bad).to.deep.equal({ [files.oneBlock]: 'block 0' })
  })

  it('makes passes of an empty store, too', async () => {
    await test.scrub.stop()
    await opened.close()
    opened = await workshop.open('empty', PACKS)
    test = await TestScrub.start(opened)
    await test.passes(2)
    expect(test.bad).to.deep.equal({})
    await upload(opened.store, contentOf(1000))
    await test.passes(1)
    expect(test.bad).to.deep.equal({})
  })

  it('looks again at what somebody could not read, and reads nothing else where it is off', async () => {
    await restart(0)
    await spoil(opened, files.threeBlocks, 5)
    await spoil(opened, files.small[5]!, SLOT_HEADER_BYTES)
    for (const name of [files.threeBlocks, files.small[5]!, files.small[6]!]) test.scrub.suspect(name)
    await test.until(() => test.quarantine.count === 2)
    expect(test.bad).to.deep.equal({ [files.threeBlocks]: 'block 0', [files.small[5]!]: 'slot' })
    await test.until(() => test.clock.alarmCount === 0)
    expect(test.scrub.counts().scrubBytes).to.be.below(700_000)
    expect(test.scrub.counts().scrubPasses).to.equal(0)
    // It is known: nobody is told again.
    test.scrub.suspect(files.threeBlocks)
    await new Promise(resolve => setImmediate(resolve))
    expect(test.clock.alarmCount).to.equal(0)
    expect(test.told).to.have.length(2)
  })

  it('leaves the bytes alone', async () => {
    await spoil(opened, files.oneBlock, 3)
    await test.passes(1)
    await spoil(opened, files.oneBlock, 3)
    expect(await download(opened.store, files.oneBlock)).to.deep.equal(contentOf(1000, 1))
  })
})
