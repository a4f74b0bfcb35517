import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'chai'
import { decodeFileName } from '../../protocol/file-id.ts'
import { realWorld } from '../../runtime/real-world.ts'
import { Timers } from '../../runtime/timers.ts'
import { BLOCK_BYTES, BlockPool } from '../../store/block-pool.ts'
import { IncomingFile } from '../../store/incoming-file.ts'
import { PARTIAL_FILE_MS, PartialFiles } from '../../store/partial-files.ts'
import type { ShippedRecord } from '../../store/store.ts'
import { StorePath } from '../../store/store-path.ts'
import { until } from '../until.ts'
import { VirtualClock } from '../virtual-clock.ts'
import { contentOf, fill, pathOptions, sumOf, Workshop } from './store-fixture.ts'

const SOURCE = 3
const NAME = 'M00/00/00/AQAAAGkf3nGAAAAqAAAQABcT3q4123.jpg'
const NOTHING = { sequence: 0, bytes: 0, crc32: 0 }
const START = { epoch: 0, sequence: 0 }

describe('what came of a file that was cut off', () => {
  const content = contentOf(2 * BLOCK_BYTES)
  let workshop: Workshop
  let storePath: StorePath
  let clock: VirtualClock
  let partials: PartialFiles

  beforeEach(async () => {
    workshop = await Workshop.make()
    storePath = await StorePath.open(realWorld().disk, 0, workshop.path, pathOptions('0'.repeat(32)))
    clock = new VirtualClock()
    partials = new PartialFiles(new Timers(clock), new BlockPool())
  })
  afterEach(async () => {
    await partials.clear()
    await workshop.remove()
  })

  const temporaries = () => readdirSync(join(workshop.path, 'tmp'))
  function recordOf(sequence: number, { storageId = SOURCE, epoch = 1, name = NAME } = {}): ShippedRecord {
    const none = { token: undefined, origin: undefined, uploadId: undefined }
    const record = { epoch, sequence, batch: 1, timeMs: 0, op: 'C' as const, name, ...none }
    return { origin: { storageId, epoch, sequence }, previous: 0, record, file: decodeFileName(name) }
  }
  async function keep(record: ShippedRecord, token = 'a'): Promise<IncomingFile> {
    const file = await fill(
      await IncomingFile.create(realWorld().disk, storePath, token, { expectedBytes: 10 * BLOCK_BYTES }),
      content,
    )
    await partials.keep(record, file)
    return file
  }

  it('is offered to its source, and given back for its own record from where it ends', async () => {
    const file = await keep(recordOf(7))
    expect(await partials.offer(SOURCE + 1, 1, START)).to.deep.equal(NOTHING)
    const offered = { sequence: 7, bytes: content.length, crc32: sumOf(content) }
    expect(await partials.offer(SOURCE, 1, START)).to.deep.equal(offered)
    expect(await partials.take(recordOf(7, { storageId: SOURCE + 1 }), content.length)).to.equal(undefined)
    expect(await partials.take(recordOf(6), 0), 'an earlier record').to.equal(undefined)
    expect(await partials.take(recordOf(7), content.length)).to.equal(file)
    expect(await partials.take(recordOf(7), content.length), 'only once').to.equal(undefined)
    await file.discard()
  })

  for (const [what, record, fromBytes] of [
    ['a later record', recordOf(8), content.length],
    ['a record of a later epoch', recordOf(1, { epoch: 2 }), content.length],
    ['its own record from the beginning', recordOf(7), 0],
    ['its own record from elsewhere', recordOf(7), BLOCK_BYTES],
    ['another file under its place', recordOf(7, { name: NAME.replace('123', '124') }), content.length],
  ] as const) {
    it(`goes when ${what} comes`, async () => {
      await keep(recordOf(7))
      await partials.offer(SOURCE, 1, START)
      expect(await partials.take(record, fromBytes)).to.equal(undefined)
      expect(temporaries()).to.deep.equal([])
    })
  }

  it('goes when its source is past it, or lives in another epoch', async () => {
    for (const [epoch, position] of [
      [1, { epoch: 1, sequence: 7 }],
      [2, START],
    ] as const) {
      await keep(recordOf(7))
      expect(await partials.offer(SOURCE, epoch, position)).to.deep.equal(NOTHING)
      expect(temporaries()).to.deep.equal([])
    }
  })

  it('goes when its store path takes no more', async () => {
    await keep(recordOf(7))
    storePath.fail(new Error('it broke'))
    expect(await partials.offer(SOURCE, 1, START)).to.deep.equal(NOTHING)
    expect(temporaries()).to.deep.equal([])
  })

  it('is one of each source: the next takes its place', async () => {
    await keep(recordOf(7))
    await keep(recordOf(7, { storageId: SOURCE + 1 }), 'b')
    await keep(recordOf(8), 'c')
    expect(temporaries().sort()).to.deep.equal(['b', 'c'])
  })

  it('goes after a while, and not before', async () => {
    await keep(recordOf(7))
    clock.advance(PARTIAL_FILE_MS - 1)
    expect(await partials.offer(SOURCE, 1, START)).to.include({ sequence: 7 })
    clock.advance(1)
    await until('it is gone', () => temporaries().length === 0)
    expect(await partials.offer(SOURCE, 1, START)).to.deep.equal(NOTHING)
  })

  it('is waited for while its old connection still brings it, which is cut off', async () => {
    let cut = () => {}
    const coming = partials.receive(
      SOURCE,
      () => new Promise<void>(resolve => (cut = resolve)).then(() => keep(recordOf(7))),
      () => cut(),
    )
    expect(await partials.offer(SOURCE, 1, START)).to.include({ sequence: 7 })
    await coming
  })
})
