/** A store that dies at every sync in turn, and a slice of the campaign. */
import { randomInt } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { decodeFileName, encodeFileName, tailOf } from '../../protocol/file-id.ts'
import { silentLog } from '../../runtime/log.ts'
import { realWorld } from '../../runtime/real-world.ts'
import { Timers } from '../../runtime/timers.ts'
import { BLOCK_BYTES } from '../../store/block-pool.ts'
import { openDirectory } from '../../store/data-directory.ts'
import { FileStore } from '../../store/file-store.ts'
import { nameOfSlot, SLOT_HEADER_BYTES, slotBytesFor, writeSlotHeader } from '../../store/slot.ts'
import type { ShippedRecord } from '../../store/store.ts'
import { SeededRandom } from '../simulation/seeded-random.ts'
import { contentOf, download, fill, optionsOf, STORAGE_ID, sumOf, upload } from '../store/store-fixture.ts'
import { VirtualClock } from '../virtual-clock.ts'
import { audit } from './audit.ts'
import { LazyDisk } from './lazy-disk.ts'
import { mortalDisk } from './mortal-disk.ts'
import { powerCuts } from './power-cuts.ts'

/** Of one block and of more. */
const CONTENTS = [100, BLOCK_BYTES + 1, 2 * BLOCK_BYTES].map(sizeBytes => contentOf(sizeBytes, sizeBytes))

/** So that the smallest is packed, or none. */
const SEGMENT_FILE_BYTES_MAX = 64 * 1024

/** Another source, and what it ships: two files, and that the first is deleted. */
const SOURCE = 9

/** Its four cuts differ: a crash, nothing torn, torn in order, and in any order; one is in the middle of a flush. */
const SEED_OF_ALL_ENDS = 144

/** Lives are many, and each process takes its time to start. */
const TIMEOUT_MS = 60_000

/** What a store has said is done. */
interface Promised {
  /** Bytes, or undefined: there are none any more. */
  readonly files: Map<string, Buffer | undefined>
  /** The last record of the other source that was applied. */
  applied: number
}

describe('power', function () {
  this.timeout(TIMEOUT_MS)
  let directory = ''
  let root = ''
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'dfs-power-test-'))
    root = join(directory, 'disk')
  })
  afterEach(() => rmSync(directory, { recursive: true, force: true }))

  describe('a store that dies at each of its syncs in turn', () => {
    const seed = randomInt(2 ** 31)
    let segmentFileBytesMax: number
    let shipments: { shipment: ShippedRecord; content: Buffer }[]
    for (const [end, plain] of [
      ['crash', false],
      ['nothing', false],
      ['something', false],
      ['something', true],
    ] as const) {
      const what = end === 'crash' ? 'only the process dies' : `the power goes, ${end} torn`
      const kind = plain ? 'with plain files only ' : ''
      it(`keeps what it acknowledged ${kind}when ${what}, and when the power goes once more`, async () => {
        segmentFileBytesMax = plain ? 0 : SEGMENT_FILE_BYTES_MAX
        shipments = ([0, 1, 0] as const).map((content, i) =>
          shipped(i + 1, i < 2 ? 'C' : 'D', CONTENTS[content]!, segmentFileBytesMax),
        )
        for (let sync = 1, isOver = false; !isOver; sync++) {
          rmSync(root, { recursive: true, force: true })
          const promised: Promised = { files: new Map(), applied: 0 }
          const { disk, dead } = mortalDisk(root, sync)
          const last = await Promise.race([live(disk, promised), dead])
          const random = new SeededRandom(`${seed} ${sync}`)
          if (end === 'something') disk.tear(random.fork('tear'), random.pick(['in order', 'in any order']))
          const cache = end === 'crash' ? disk.cache() : undefined
          disk.die()
          const when = `after ${last ?? 'its end'}, seed ${seed}`
          await checkOn(new LazyDisk(root, { cache }), promised, when)
          await checkOn(new LazyDisk(root), promised, `at the second start ${when}`, true)
          await checkOn(new LazyDisk(root), promised, `at the third start ${when}`)
          isOver = last === undefined
        }
      })
    }

    /** A short life: files of its own and of another source, before and after a delete. */
    async function live(disk: LazyDisk, promised: Promised): Promise<undefined> {
      const store = await openOn(disk)
      const own = Promise.all(CONTENTS.map(content => keep(store, content, promised)))
      for (const { shipment, content } of shipments) {
        const { op, name } = shipment.record
        const isPacked = decodeFileName(name).slot !== undefined
        const whole = async () => fill(await store.receive(0, content.length), content)
        await store.apply([
          { shipped: shipment, content: op === 'D' ? undefined : isPacked ? slotOf(name, content) : await whole() },
        ])
        promised.applied = shipment.origin.sequence
      }
      const [, doomed] = await own
      // Until we hear that it is gone, either is right.
      promised.files.delete(doomed!)
      await store.delete(doomed!)
      promised.files.set(doomed!, undefined)
      await keep(store, CONTENTS[1]!, promised)
      await store.close()
    }

    /** Starts anew, finds everything as it was promised, may take one more file, and dies again. */
    async function checkOn(disk: LazyDisk, promised: Promised, when: string, takesMore = false): Promise<void> {
      const store = await openOn(disk)
      for (const { index, writable } of store.storePaths)
        expect(writable, `${when}: store path ${index} is there`).equal(true)
      const data = join(root, 'data')
      const end = { storageId: STORAGE_ID, epoch: store.epoch, sequence: store.end.sequence }
      expect(await audit(disk, data, [join(data, 'store')], end), when).deep.equal([])
      for (const [name, content] of promised.files) await checkFile(store, name, content, when)
      const applied = store.position(SOURCE)?.sequence ?? 0
      expect(applied, `${when}: applied`).least(promised.applied)
      // What the position covers will never be shipped again.
      const names = new Map<string, Buffer | undefined>()
      for (const { shipment, content } of shipments.slice(0, applied)) {
        names.set(shipment.record.name, shipment.record.op === 'C' ? content : undefined)
      }
      for (const [name, content] of names) await checkFile(store, name, content, when)
      if (takesMore) await keep(store, CONTENTS[1]!, promised)
      disk.die()
    }

    async function checkFile(store: FileStore, name: string, content: Buffer | undefined, when: string): Promise<void> {
      const found = await download(store, name).catch((error: Error) => error)
      if (found instanceof Error) throw new Error(`${when}: ${name}: ${found.message}`, { cause: found })
      const isRight = content === undefined ? found === undefined : found?.equals(content)
      if (!isRight) expect.fail(`${when}: ${name} is ${found === undefined ? 'lost' : 'wrong, or back again'}`)
    }

    async function keep(store: FileStore, content: Buffer, promised: Promised): Promise<string> {
      const name = await upload(store, content)
      promised.files.set(name, content)
      return name
    }

    async function openOn(disk: LazyDisk): Promise<FileStore> {
      const clock = new VirtualClock()
      const world = { ...realWorld(), disk, clock }
      const options = { ...optionsOf(join(root, 'data')), segmentFileBytesMax }
      const { identity } = await openDirectory(world, options)
      return FileStore.open(world, new Timers(clock), silentLog(), options, identity)
    }
  })

  describe('a storage server', () => {
    it('keeps what it acknowledged through four cuts', async () => {
      const { lost, wrong, problems, acknowledged } = await powerCuts({ cuts: 4, seed: SEED_OF_ALL_ENDS })
      expect({ lost, wrong, problems }).deep.equal({ lost: [], wrong: [], problems: [] })
      expect(acknowledged).greaterThan(0)
    })

    it('keeps what it acknowledged through two cuts with plain files only', async () => {
      const { lost, wrong, problems } = await powerCuts({ cuts: 2, seed: SEED_OF_ALL_ENDS, plain: true })
      expect({ lost, wrong, problems }).deep.equal({ lost: [], wrong: [], problems: [] })
    })

    it('loses packed files when syncs of segments do nothing, and that is seen', async () => {
      const lies = '/segments/'
      const { lost, problems } = await powerCuts({ cuts: 12, seed: SEED_OF_ALL_ENDS, lies })
      expect([...lost, ...problems]).not.deep.equal([])
    })

    it('loses files when syncs do nothing, and that is seen', async () => {
      const { lost, problems } = await powerCuts({ cuts: 12, seed: SEED_OF_ALL_ENDS, lies: '.' })
      expect([...lost, ...problems]).not.deep.equal([])
    })
  })
})

/** A record of the other source, as sync would ship it, and the bytes it is about. */
function shipped(
  sequence: number,
  op: 'C' | 'D',
  content: Buffer,
  segmentFileBytesMax: number,
): { shipment: ShippedRecord; content: Buffer } {
  const sizeBytes = content.length
  const parts = { sizeBytes, crc32: sumOf(content), createTimeS: 1_700_000_000, tail: tailOf('txt', 0) }
  const place = { storePathIndex: 0, storageId: SOURCE }
  const slot = { segmentId: 0x0010_0001, offsetBytes: 0, slotBytes: slotBytesFor(sizeBytes) }
  const isPacked = sizeBytes <= segmentFileBytesMax
  const name = isPacked
    ? nameOfSlot({ ...place, ...slot }, { ...parts, ...slot })
    : encodeFileName({ ...place, ...parts, directoryIndex: 0, salt: 1 })
  const at = { epoch: 1, sequence }
  const none = { token: undefined, origin: undefined, uploadId: undefined }
  const record = { ...at, batch: sequence, timeMs: 1_700_000_000_000, op, name, ...none }
  return {
    shipment: { origin: { storageId: SOURCE, ...at }, previous: sequence - 1, record, file: decodeFileName(name) },
    content,
  }
}

/** The slot of a packed file, as its source ships it. */
function slotOf(name: string, content: Buffer): Buffer {
  const { slot, sizeBytes, crc32, createTimeS, tail } = decodeFileName(name)
  const { slotBytes } = slot!
  const bytes = Buffer.alloc(slotBytes)
  content.copy(bytes, SLOT_HEADER_BYTES)
  writeSlotHeader(bytes, { slotBytes, sizeBytes: sizeBytes!, crc32, createTimeS, tail })
  return bytes
}
