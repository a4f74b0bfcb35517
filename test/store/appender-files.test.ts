/** Appender files: whatever is done to them, and whenever it ends, they are what the records say. */
import { cp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { crc32 } from '@node-rs/crc32'
import { expect } from 'chai'
import fc from 'fast-check'
import type { BinlogRecord } from '../../protocol/binlog-record.ts'
import { decodeFileName } from '../../protocol/file-id.ts'
import { realWorld } from '../../runtime/real-world.ts'
import { BLOCK_BYTES } from '../../store/block-pool.ts'
import { CHECKPOINT_MS } from '../../store/checkpoints.ts'
import { openDirectory, raiseEpoch } from '../../store/data-directory.ts'
import type { ShippedContent, Store } from '../../store/store.ts'
import { until } from '../until.ts'
import { contentOf, fill, type OpenStore, optionsOf, readSummed, rejection, upload, Workshop } from './store-fixture.ts'

const OTHER_ID = 9
const RUNS = 40

type Step = { do: 'append' | 'modify' | 'truncate'; at: number; bytes: number }

const sizes = fc.oneof(fc.integer({ min: 1, max: 40 }), fc.constantFrom(BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1))
const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.record({
    do: fc.constantFrom('append' as const, 'modify' as const, 'truncate' as const),
    at: fc.nat(1_000_000),
    bytes: sizes,
  }),
  { minLength: 1, maxLength: 12 },
)

describe('appender files of a store', function () {
  this.timeout(60_000)
  let workshop: Workshop
  let opened: OpenStore

  beforeEach(async () => {
    workshop = await Workshop.make()
    opened = await workshop.open()
  })
  afterEach(() => workshop.remove())

  const temporaries = (directory = 'data') => readdir(join(workshop.path, directory, 'store', 'tmp'))
  async function create(store: Store, content: Buffer): Promise<string> {
    const file = await fill(await store.receive(0, content.length, 'appender'), content)
    return (await store.create(file, { extension: 'log', uploadId: undefined, isAppender: true })).name
  }
  async function write(store: Store, name: string, content: Buffer, offset?: number) {
    return store.writeAppender(name, await fill(await store.receive(0, content.length, 'part'), content), offset)
  }
  const read = readSummed
  async function take(store: Store, name: string, before: Buffer, { do: what, at, bytes }: Step, seed: number) {
    const offset = at % (before.length + 1)
    if (what === 'truncate') {
      expect(await store.truncateAppender(name, offset)).to.equal(true)
      return before.subarray(0, offset)
    }
    const content = contentOf(bytes, seed)
    await write(store, name, content, what === 'modify' ? offset : undefined)
    const from = what === 'modify' ? offset : before.length
    const after = Buffer.alloc(Math.max(before.length, from + bytes))
    before.copy(after)
    content.copy(after, from)
    return after
  }
  /** Resolves when nothing has come or gone for a while. */
  async function settled(directory: string): Promise<void> {
    for (let before = -1, left = 100; left > 0; left--) {
      const { length } = await temporaries(directory)
      await new Promise(resolve => setTimeout(resolve, 5))
      if (length === before) return
      before = length
    }
  }
  async function recordsOf(store: Store): Promise<BinlogRecord[]> {
    const records = []
    for await (const { record } of store.readRecords({ after: 0, until: store.end.sequence })) records.push(record)
    return records
  }

  it('have names that say what they are, and are not told from by size', async () => {
    const name = await create(opened.store, contentOf(10))
    expect(decodeFileName(name)).to.include({ kind: 'appender', sizeBytes: undefined, crc32: crc32(contentOf(10)) })
    expect(name).to.have.lengthOf(44)
    const plain = await upload(opened.store, contentOf(10))
    const part = await opened.store.receive(0, 5, 'part')
    expect(await rejection(opened.store.writeAppender(plain, part))).to.have.property('code', 'bad_request')
    expect(await rejection(opened.store.truncateAppender(plain, 5))).to.have.property('code', 'bad_request')
    expect(await temporaries()).to.deep.equal([])
  })

  it('are written at their end or before it, and cut, and never beyond it', async () => {
    const { store } = opened
    const name = await create(store, Buffer.from('abc'))
    await write(store, name, Buffer.from('def'))
    await write(store, name, Buffer.from('XY'), 1)
    expect((await read(store, name))?.toString()).to.equal('aXYdef')
    expect(await store.truncateAppender(name, 4)).to.equal(true)
    expect((await read(store, name))?.toString()).to.equal('aXYd')
    await write(store, name, Buffer.from('longer'), 4)
    expect((await read(store, name))?.toString()).to.equal('aXYdlonger')
    expect(await rejection(write(store, name, Buffer.from('x'), 11))).to.have.property('code', 'bad_range')
    expect(await rejection(store.truncateAppender(name, 11))).to.have.property('code', 'bad_range')
    expect(await store.delete(name)).to.equal(true)
    expect(await write(store, name, Buffer.from('x'))).to.equal(undefined)
    expect(await store.truncateAppender(name, 0)).to.equal(false)
    expect(await store.regenerate(name)).to.equal(undefined)
    expect(await store.knowsDeletion(name)).to.equal(true)
  })

  it('are recorded by their creation alone in a later epoch, which ships them as they are', async () => {
    const name = await create(opened.store, contentOf(10))
    await write(opened.store, name, contentOf(10, 2))
    await opened.store.changeMetadata(name, async () => Buffer.from('a\x021'))
    await opened.store.truncateAppender(name, 5)
    await opened.close()
    const options = optionsOf(join(workshop.path, 'data'))
    const { identity, lock } = await openDirectory(realWorld(), options)
    await raiseEpoch(realWorld(), options, identity, 2)
    await lock.release()
    opened = await workshop.open()
    expect((await recordsOf(opened.store)).map(({ op }) => op)).to.deep.equal(['C', 'U'])
    expect((await read(opened.store, name))?.equals(contentOf(10).subarray(0, 5))).to.equal(true)
  })

  it('become plain files with all that is known of them', async () => {
    const { store } = opened
    const content = contentOf(2 * BLOCK_BYTES + 5)
    const name = await create(store, content.subarray(0, 100))
    await write(store, name, content.subarray(100))
    await store.changeMetadata(name, async () => Buffer.from('a\x021'))
    const made = (await store.regenerate(name))!
    expect(decodeFileName(made.name)).to.include({ kind: 'plain', sizeBytes: content.length, crc32: crc32(content) })
    expect(made.name.slice(-4)).to.equal('.log')
    expect((await read(store, made.name))?.equals(content)).to.equal(true)
    expect((await store.readMetadata(decodeFileName(made.name)))?.toString()).to.equal('a\x021')
    expect(await store.has(name)).to.equal(false)
  })

  it('are what they were after each crash, and after each crash during the start that follows', async () => {
    let seed = 0
    await fc.assert(
      fc.asyncProperty(steps, fc.array(fc.boolean(), { minLength: 12, maxLength: 12 }), async (life, checkpoints) => {
        const directory = `life${seed++}`
        const own = await workshop.open(directory)
        let content = contentOf(100, seed)
        const name = await create(own.store, content)
        for (const [i, step] of life.entries()) {
          content = await take(own.store, name, content, step, seed * 100 + i)
          if (checkpoints[i]) own.clock.advance(CHECKPOINT_MS)
          expect((await read(own.store, name))?.equals(content), 'now').to.equal(true)
        }
        // A copy of a directory in which a checkpoint removes files would not be that of one moment.
        await settled(directory)
        const crash = await workshop.crash(directory)
        const crashed = await workshop.open(crash)
        expect((await read(crashed.store, name))?.equals(content), 'after a crash').to.equal(true)
        const twice = await workshop.open(await workshop.crash(crash))
        expect((await read(twice.store, name))?.equals(content), 'after two').to.equal(true)
        for (const one of [own, crashed, twice]) await one.close()
        const again = await workshop.open(crash)
        expect((await read(again.store, name))?.equals(content), 'after a restart').to.equal(true)
        await again.close()
      }),
      { numRuns: RUNS, interruptAfterTimeLimit: 30_000 },
    )
  })

  it('are done again from their parts, whatever a power cut has left of file and sidecar', async () => {
    const name = await create(opened.store, contentOf(BLOCK_BYTES + 10))
    const { directory, baseName } = decodeFileName(name)
    const path = (data: string) => join(workshop.path, data, 'store', 'data', directory, baseName)
    opened.clock.advance(CHECKPOINT_MS)
    await workshop.crash()
    const before = await workshop.crash()
    let content = contentOf(BLOCK_BYTES + 10)
    for (const [i, step] of (['modify', 'truncate', 'append', 'modify', 'append'] as const).entries())
      content = await take(opened.store, name, content, { do: step, at: 77_777 * (i + 1), bytes: 5_000 }, i)
    const files = ['', '~sum']
    for (const lost of [[''], ['~sum'], files]) {
      const cut = await workshop.crash()
      for (const end of lost) await cp(`${path(before)}${end}`, `${path(cut)}${end}`)
      const found = await workshop.open(cut)
      expect((await read(found.store, name))?.equals(content), `without the new ${lost}`).to.equal(true)
      await found.close()
    }
  })

  it('are not spoiled by a part that comes back though a later one does not', async () => {
    const { store } = opened
    const name = await create(store, contentOf(100))
    await write(store, name, Buffer.alloc(50, 'a'), 0)
    const early = await workshop.crash()
    await write(store, name, Buffer.alloc(50, 'b'), 0)
    const cut = await workshop.crash()
    const parts = (await recordsOf(store)).flatMap(({ range, token }) => (range === undefined ? [] : [token!]))
    const tmp = (directory: string) => join(workshop.path, directory, 'store', 'tmp')
    expect(await readFile(join(tmp(early), parts[0]!))).to.deep.equal(Buffer.alloc(50, 'a'))
    await rm(join(tmp(cut), parts[1]!))
    const found = await workshop.open(cut)
    expect((await read(found.store, name))?.subarray(0, 50)).to.deep.equal(Buffer.alloc(50, 'b'))
  })

  it('leave no parts behind once a checkpoint has made them needless', async () => {
    const { store, clock } = opened
    const name = await create(store, contentOf(100))
    for (let i = 0; i < 5; i++) await write(store, name, contentOf(10, i))
    expect(await temporaries()).to.have.lengthOf(5)
    clock.advance(CHECKPOINT_MS)
    await until('they are gone', async () => (await temporaries()).length === 0)
  })

  it('are read whole while they are written, by whoever began before', async () => {
    const { store } = opened
    const content = contentOf(3 * BLOCK_BYTES)
    const name = await create(store, content)
    const file = (await store.open(name))!
    const changes = Array.from({ length: 20 }, (_, i) => write(store, name, contentOf(100, i)))
    for (let round = 0; round < 20; round++) {
      for (let block = 0; block < 3; block++) {
        const found = await file.readBlocks(block, Buffer.alloc(BLOCK_BYTES))
        expect(found.equals(content.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES))).to.equal(true)
      }
    }
    await Promise.all(changes)
    await store.truncateAppender(name, 10)
    expect(await rejection(file.readBlocks(0, Buffer.alloc(BLOCK_BYTES)))).to.have.property('code', 'unavailable')
    await file.close()
  })

  it('never read wrong, whatever bit flips', async () => {
    const content = contentOf(300)
    const name = await create(opened.store, content)
    const { directory, baseName } = decodeFileName(name)
    const path = join(workshop.path, 'data', 'store', 'data', directory, baseName)
    for (const one of [path, `${path}~sum`]) {
      const bytes = await readFile(one)
      for (let at = 0; at < bytes.length; at += 3) {
        const flipped = Buffer.from(bytes)
        flipped[at]! ^= 1 << (at % 8)
        await writeFile(one, flipped)
        const found = await read(opened.store, name).catch(error => error)
        const isGood = Buffer.isBuffer(found) && found.equals(content)
        expect(isGood || found.code === 'corrupt', `byte ${at} of ${one}: ${found}`).to.equal(true)
      }
      await writeFile(one, bytes)
    }
  })

  it('that are damaged keep neither a start nor the records of a peer from going on', async () => {
    const source = await workshop.open('source', { storageId: OTHER_ID })
    const name = await create(source.store, contentOf(100))
    await write(source.store, name, contentOf(50, 2))
    const file = decodeFileName(name)
    const records = (await recordsOf(source.store)).filter(({ op }) => op !== 'S')
    const [created, appended] = records.map((record, i) => {
      const origin = { storageId: OTHER_ID, epoch: record.epoch, sequence: record.sequence }
      return { origin, previous: i === 0 ? 0 : records[i - 1]!.sequence, record, file }
    })
    const { store } = opened
    const content = await fill(await store.receive(0, 100, 'appender'), contentOf(100))
    await store.apply([{ shipped: created!, content }])
    await writeFile(join(workshop.path, 'data', 'store', 'data', file.directory, `${file.baseName}~sum`), 'spoilt')
    await store.apply([
      { shipped: appended!, content: await fill(await store.receive(0, 50, 'part'), contentOf(50, 2)) },
    ])
    expect(store.position(OTHER_ID)?.sequence).to.equal(appended!.origin.sequence)
    const plain = await upload(store, contentOf(10))
    const crashed = await workshop.open(await workshop.crash())
    expect(crashed.store.recovery.missing).to.deep.equal([name])
    expect(await crashed.store.has(plain)).to.equal(true)
    expect(crashed.store.storePaths[0]!.writable).to.equal(true)
    expect(await rejection(read(crashed.store, name))).to.have.property('code', 'corrupt')
  })

  it('never take a bad block for good because something near it was changed', async () => {
    const { store } = opened
    const content = contentOf(4 * BLOCK_BYTES)
    const name = await create(store, content)
    const { directory, baseName } = decodeFileName(name)
    const path = join(workshop.path, 'data', 'store', 'data', directory, baseName)
    const flip = async (at: number) => {
      const bytes = await readFile(path)
      bytes[at]! ^= 1
      await writeFile(path, bytes)
    }
    const blockIsGood = async (block: number) => {
      const file = (await store.open(name))!
      const found = await file.readBlocks(block, Buffer.alloc(BLOCK_BYTES)).catch(error => error.code)
      await file.close()
      return found !== 'corrupt'
    }
    await flip(3 * BLOCK_BYTES + 5)
    await write(store, name, contentOf(10, 2), 100)
    expect(await blockIsGood(0), 'the block that was changed').to.equal(true)
    expect(await blockIsGood(3), 'a later one that is bad').to.equal(false)
    const before = await recordsOf(store)
    expect(await rejection(write(store, name, contentOf(10, 3), 3 * BLOCK_BYTES))).to.have.property('code', 'corrupt')
    expect(await rejection(store.truncateAppender(name, 3 * BLOCK_BYTES + 50))).to.have.property('code', 'corrupt')
    expect((await recordsOf(store)).length, 'nothing is recorded').to.equal(before.length)
    expect(await temporaries()).to.have.lengthOf(1)
    // Written over as a whole it is good again.
    await write(store, name, contentOf(BLOCK_BYTES, 4), 3 * BLOCK_BYTES)
    expect(await blockIsGood(3)).to.equal(true)
  })

  it('are not read at a peer that lacks one of their changes, though the blocks beside it are good', async () => {
    const source = await workshop.open('source', { storageId: OTHER_ID })
    const name = await create(source.store, contentOf(4 * BLOCK_BYTES))
    await write(source.store, name, contentOf(2 * BLOCK_BYTES, 2), 100)
    const file = decodeFileName(name)
    const records = (await recordsOf(source.store)).filter(({ op }) => op !== 'S')
    const [created, modified] = records.map((record, i) => {
      const origin = { storageId: OTHER_ID, epoch: record.epoch, sequence: record.sequence }
      return { origin, previous: i === 0 ? 0 : records[i - 1]!.sequence, record, file }
    })
    const { store } = opened
    const whole = contentOf(4 * BLOCK_BYTES)
    await store.apply([
      { shipped: created!, content: await fill(await store.receive(0, whole.length, 'appender'), whole) },
    ])
    const path = join(workshop.path, 'data', 'store', 'data', file.directory, file.baseName)
    const bytes = await readFile(path)
    bytes[50]! ^= 1
    await writeFile(path, bytes)
    const change = contentOf(2 * BLOCK_BYTES, 2)
    await store.apply([
      { shipped: modified!, content: await fill(await store.receive(0, change.length, 'part'), change) },
    ])
    expect(store.position(OTHER_ID)?.sequence).to.equal(modified!.origin.sequence)
    // Not of its good blocks either: one of them has the bytes from before.
    expect(await rejection(store.open(name))).to.have.property('code', 'corrupt')
  })

  it('are not done again at a peer from before they came as a whole', async () => {
    const source = await workshop.open('source', { storageId: OTHER_ID })
    const name = await create(source.store, contentOf(100))
    await write(source.store, name, contentOf(50, 2))
    const file = decodeFileName(name)
    const [created, appended] = (await recordsOf(source.store)).filter(({ op }) => op !== 'S')
    const { store } = opened
    const comes = async (record: BinlogRecord, previous: number, kind: 'appender' | 'part', content: Buffer) => {
      const origin = { storageId: OTHER_ID, epoch: record.epoch, sequence: record.sequence }
      const sent = await fill(await store.receive(0, content.length, kind), content)
      await store.apply([{ shipped: { origin, previous, record, file }, content: sent }])
    }
    await comes(created!, 0, 'appender', contentOf(100))
    await comes(appended!, created!.sequence, 'part', contentOf(50, 2))
    // In a later epoch it is shipped as it is now, with changes of which no record will come.
    await comes({ ...created!, epoch: 2 }, 0, 'appender', contentOf(200, 3))
    const crashed = await workshop.open(await workshop.crash())
    expect((await read(crashed.store, name))?.equals(contentOf(200, 3))).to.equal(true)
  })

  it('tell of a file that is deleted while it is read, not of a bad one', async () => {
    const { store } = opened
    const name = await create(store, contentOf(2 * BLOCK_BYTES))
    const file = (await store.open(name))!
    await store.delete(name)
    expect(await rejection(file.readBlocks(0, Buffer.alloc(BLOCK_BYTES)))).to.have.property('code', 'not_found')
    await file.close()
  })

  it('come to the same at a peer, however late it gets the bytes of each change', async () => {
    let run = 0
    await fc.assert(
      fc.asyncProperty(steps, async life => {
        const source = await workshop.open(`source${++run}`, { storageId: OTHER_ID })
        const peer = await workshop.open(`peer${run}`)
        let content = contentOf(100, run)
        const name = await create(source.store, content)
        for (const [i, step] of life.entries()) content = await take(source.store, name, content, step, run * 100 + i)
        const file = decodeFileName(name)
        let previous = 0
        for (const record of await recordsOf(source.store)) {
          if (record.op === 'S') continue
          const now = (await read(source.store, name))!
          const { range } = record
          const bytes = range === undefined ? now : now.subarray(range.offset, range.offset + range.bytes)
          let sent: ShippedContent
          if (record.op === 'C') sent = await fill(await peer.store.receive(0, bytes.length, 'appender'), bytes)
          else if (bytes.length > 0) sent = await fill(await peer.store.receive(0, bytes.length, 'part'), bytes)
          const origin = { storageId: OTHER_ID, epoch: record.epoch, sequence: record.sequence }
          await peer.store.apply([{ shipped: { origin, previous, record, file }, content: sent }])
          previous = record.sequence
        }
        expect((await read(peer.store, name))?.equals(content)).to.equal(true)
        const crashed = await workshop.open(await workshop.crash(`peer${run}`))
        expect((await read(crashed.store, name))?.equals(content)).to.equal(true)
        for (const one of [source, peer, crashed]) await one.close()
      }),
      { numRuns: RUNS, interruptAfterTimeLimit: 30_000 },
    )
  })
})
