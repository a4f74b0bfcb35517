/**
 * Generated lives of a store with segments, held against a model: uploads, deletions, restarts, crashes, and tails of the
 * binlog and of a segment that are cut off. What was acknowledged reads right unless its own bytes were cut, what was
 * deleted never does again, and no name ever gives other bytes than its own. Slots of deleted files are used again and free
 * segments removed all the while; what the store says of its room is held against the headers of all slots. fast-check prints
 * the seed of what fails.
 */
import { readdir, readFile, stat, truncate } from 'node:fs/promises'
import { join } from 'node:path'
import { expect } from 'chai'
import fc from 'fast-check'
import { decodeRecord } from '../../protocol/binlog-record.ts'
import { decodeFileName } from '../../protocol/file-id.ts'
import type { FileStore } from '../../store/file-store.ts'
import { readSlotHeader, SEGMENT_BYTES, SLOT_ALIGNMENT, SLOT_HEADER_BYTES } from '../../store/slot.ts'
import { VirtualClock } from '../virtual-clock.ts'
import { contentOf, download, type OpenStore, STORAGE_ID, upload, Workshop } from './store-fixture.ts'

const MAX = 3_000
const RUNS = 12
/** Then shrinking ends, and what has failed is told. */
const LIVES_MS_MAX = 60_000
/** Some files to a segment; a slot rests for less than the second that must be over anyway. */
const REUSE = { segmentBytes: 8_192, restMs: 100, freeBytesMin: 64 }
const OPTIONS = { segmentFileBytesMax: MAX, reuse: REUSE }
const LINE_FEED = 0x0a
/** A look each for what is counted, listed, rested, opened or removed. */
const LOOKS = 4
const LOOK_MS = 1_100
/** Segments that a start counts before it is over, if it has to. */
const COUNTED_AT_START = 4

/** Around the ends of slots' sizes, of what is packed, and of what is not. */
const sizes = fc.constantFrom(0, 1, 39, 40, 41, 104, 105, 999, 1_000, 1_001, 2_024, 2_025, MAX - 1, MAX, MAX + 1)
const steps = fc.oneof(
  { weight: 5, arbitrary: fc.record({ op: fc.constant('upload' as const), sizes: fc.array(sizes, { maxLength: 6 }) }) },
  {
    weight: 3,
    arbitrary: fc.record({ op: fc.constant('delete' as const), which: fc.array(fc.nat(), { maxLength: 6 }) }),
  },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('clear' as const) }) },
  { weight: 3, arbitrary: fc.record({ op: fc.constant('wait' as const) }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('restart' as const) }) },
  {
    weight: 3,
    arbitrary: fc.record({
      op: fc.constant('crash' as const),
      binlogBytes: fc.oneof(fc.constant(0), fc.nat(1_000)),
      segmentBytes: fc.oneof({ weight: 3, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.nat(4_000) }),
    }),
  },
)

type Step = typeof steps extends fc.Arbitrary<infer T> ? T : never

/** How each life begins: some files go, and others come into their slots. */
const CHURN: readonly Step[] = [
  { op: 'upload', sizes: Array<1_000>(12).fill(1_000) },
  { op: 'delete', which: [0, 1, 2, 3] },
  { op: 'wait' },
  { op: 'upload', sizes: [1_000, 1_000] },
]

interface Kept {
  readonly content: Buffer
  /** `cut`: bytes of its own are gone, and it may read as anything but other bytes. */
  state: 'kept' | 'cut' | 'deleted'
}

describe('a store with segments', function () {
  this.timeout(120_000)

  it('keeps what it acknowledged, and nothing else, through whatever life it has', async () => {
    await fc.assert(fc.asyncProperty(fc.array(steps, { minLength: 4, maxLength: 24 }), live), {
      numRuns: RUNS,
      interruptAfterTimeLimit: LIVES_MS_MAX,
    })
    expect(reused, 'slots used again').to.be.above(0)
    expect(removed, 'segments removed').to.be.above(0)
  })
})

async function live(life: readonly Step[]): Promise<void> {
  const workshop = await Workshop.make()
  try {
    const run = new Life(workshop)
    await run.start('data')
    for (const step of [...CHURN, ...life]) await run.take(step)
    await run.take({ op: 'crash', binlogBytes: 0, segmentBytes: 0 })
    reused += run.reused
    removed += run.removed
  } finally {
    await workshop.remove()
  }
}

/** How often it has happened in all lives: lives in which nothing is used again prove nothing. */
let reused = 0
let removed = 0

class Life {
  readonly #workshop: Workshop
  readonly #clock = new VirtualClock()
  /** Places of all slots there have been, and their segments. */
  readonly #places = new Set<string>()
  readonly #segments = new Set<number>()
  reused = 0
  removed = 0
  readonly #files = new Map<string, Kept>()
  #directory = ''
  /** What is free is known to the byte: a start leaves much that has to be counted for later. */
  #isCounted = true
  /** Slots are gone that nobody looks at, because nothing was done to them lately. */
  #isCut = false
  #opened: OpenStore | undefined
  #seeds = 0

  constructor(workshop: Workshop) {
    this.#workshop = workshop
  }

  get #store(): FileStore {
    return this.#opened!.store
  }

  async start(directory: string): Promise<void> {
    this.#directory = directory
    this.#opened = await this.#workshop.open(directory, OPTIONS, this.#clock)
  }

  async take(step: Step): Promise<void> {
    if (step.op === 'upload') await Promise.all(step.sizes.map(sizeBytes => this.#upload(sizeBytes)))
    else if (step.op === 'delete') await this.#delete(step.which)
    else if (step.op === 'clear') await this.#delete([...this.#files.keys()].map((_, i) => i))
    else if (step.op === 'wait') await this.#wait()
    else if (step.op === 'restart') await this.#restart()
    else await this.#crash(step)
    await this.#check()
    await this.#checkSpace()
  }

  async #upload(sizeBytes: number): Promise<void> {
    const content = contentOf(sizeBytes, ++this.#seeds)
    const name = await upload(this.#store, content)
    expect(this.#files.has(name), `${name} is given again`).to.equal(false)
    this.#files.set(name, { content, state: 'kept' })
    const { slot } = decodeFileName(name)
    if (slot === undefined) return
    const place = `${slot.segmentId} ${slot.offsetBytes}`
    if (this.#places.has(place)) this.reused++
    this.#places.add(place)
    this.#segments.add(slot.segmentId)
  }

  async #wait(): Promise<void> {
    for (let i = 0; i < LOOKS; i++) {
      this.#clock.advance(LOOK_MS)
      await this.#store.lookAfterSlots()
    }
    this.#isCounted = true
  }

  /** What the store says of its segments is what their headers say, to the byte. */
  async #checkSpace(): Promise<void> {
    const ids = await this.#segmentIds(this.#directory)
    let freeBytes = 0
    for (const id of ids) freeBytes += freeBytesIn(await readFile(join(this.#segmentsOf(this.#directory), id)))
    const [path] = this.#store.storePaths
    if (this.#isCounted && !this.#isCut) expect(path!.reusableBytes, 'bytes without a file').to.equal(freeBytes)
    this.removed = [...this.#segments].filter(id => !ids.includes(String(id).padStart(10, '0'))).length
  }

  async #delete(which: readonly number[]): Promise<void> {
    const kept = [...this.#files].filter(([, { state }]) => state === 'kept')
    const chosen = new Set(kept.length === 0 ? [] : which.map(index => kept[index % kept.length]!))
    await Promise.all(
      [...chosen].map(async ([name, file]) => {
        file.state = 'deleted'
        expect(await this.#store.delete(name), name).to.equal(true)
      }),
    )
  }

  async #restart(): Promise<void> {
    await this.#opened!.close()
    await this.start(this.#directory)
    expect(this.#store.recovery).to.deep.include({ redone: 0, orphans: [] })
  }

  /** What a crash leaves, with tails cut off on top of it. The second start finds nothing that the first one has not. */
  async #crash({ binlogBytes, segmentBytes }: { binlogBytes: number; segmentBytes: number }): Promise<void> {
    const copy = await this.#workshop.crash(this.#directory)
    await this.#opened!.close()
    await this.#cutBinlog(copy, binlogBytes)
    await this.#cutSegment(copy, segmentBytes)
    this.#isCounted = (await this.#segmentIds(copy)).length <= COUNTED_AT_START
    this.#isCut ||= segmentBytes > 0
    await this.start(copy)
    const { orphans } = this.#store.recovery
    for (const name of orphans) expect(this.#files.get(name)?.state, `found: ${name}`).to.be.oneOf(['kept', 'cut'])
    // Of a last flush without all its slots some records are cut: files of it that are whole get new ones.
    if (binlogBytes + segmentBytes === 0) expect(orphans, 'with all records in place').to.deep.equal([])
    const again = await this.#workshop.open(await this.#workshop.crash(copy), OPTIONS, this.#clock)
    expect(again.store.recovery).to.deep.include({ orphans: [], tornBytes: 0, damagedLines: 0 })
    await again.close()
    await this.#checkRecords()
  }

  async #cutBinlog(copy: string, bytes: number): Promise<void> {
    const directory = join(this.#workshop.path, copy, 'binlog')
    const [file] = await readdir(directory)
    if (file === undefined) return
    const path = join(directory, file)
    const until = Math.max(0, (await stat(path)).size - bytes)
    // What ends with a line does not look torn: then nobody knows that there was more, and that it has to be counted.
    const isUnseen = bytes > 0 && (await readFile(path))[until - 1] === LINE_FEED
    await truncate(path, until - (isUnseen ? 1 : 0))
  }

  async #cutSegment(copy: string, bytes: number): Promise<void> {
    if (bytes === 0) return
    const last = (await this.#segmentIds(copy)).at(-1)
    if (last === undefined) return
    const path = join(this.#segmentsOf(copy), last)
    const until = Math.max(0, (await stat(path)).size - bytes)
    await truncate(path, until)
    for (const [name, file] of this.#files) {
      const { slot } = decodeFileName(name)
      const isCut = slot?.segmentId === Number(last) && slot.offsetBytes + slot.slotBytes > until
      if (isCut && file.state === 'kept') file.state = 'cut'
    }
  }

  #segmentsOf(directory: string): string {
    return join(this.#workshop.path, directory, 'store', 'segments', String(STORAGE_ID))
  }

  async #segmentIds(directory: string): Promise<string[]> {
    return (await readdir(this.#segmentsOf(directory)).catch(() => [])).sort()
  }

  async #check(): Promise<void> {
    for (const [name, { content, state }] of this.#files) {
      const found = await download(this.#store, name).catch(error => error as Error)
      if (state === 'deleted') expect(found, `${name} was deleted`).to.equal(undefined)
      else if (state === 'kept' || Buffer.isBuffer(found)) {
        expect(Buffer.isBuffer(found) && found.equals(content), `${name} (${state}) is ${found}`).to.equal(true)
      }
      const stale = staleNameOf(name)
      if (stale !== undefined) {
        const other = await download(this.#store, stale).catch(() => undefined)
        expect(other, `${stale} is none of ours`).to.equal(undefined)
      }
    }
  }

  /** Every file has one creation at most, and as many as are kept have one. */
  async #checkRecords(): Promise<void> {
    const created: string[] = []
    for await (const { line } of this.#store.readRecords({ after: 0, until: this.#store.end.sequence })) {
      const { op, name } = decodeRecord(line)!
      if (op === 'C') created.push(name)
    }
    expect(new Set(created).size, 'names that are created once').to.equal(created.length)
  }
}

/** Bytes without a file before the end of a segment's last slot; behind what is no slot, nobody knows. */
function freeBytesIn(segment: Buffer): number {
  let usedBytes = 0
  let endBytes = 0
  for (let at = 0; at < segment.length; ) {
    const head = segment.subarray(at, at + SLOT_HEADER_BYTES)
    const header = readSlotHeader(head)
    const isHole = head.length < SLOT_HEADER_BYTES || head.every(byte => byte === 0)
    if (header === undefined && !isHole) return at - usedBytes
    at += header?.slotBytes ?? SLOT_ALIGNMENT
    if (header !== undefined) endBytes = at
    if (header?.isFree === false) usedBytes += header.slotBytes
  }
  return endBytes - usedBytes
}

/** The name that another file would have had in the same slot. */
function staleNameOf(name: string): string | undefined {
  const { slot, crc32 } = decodeFileName(name)
  if (slot === undefined || slot.offsetBytes + slot.slotBytes > SEGMENT_BYTES) return undefined
  const bytes = Buffer.from(name.slice(10, 37), 'base64url')
  bytes.writeUInt32BE((crc32 ^ 0xffff) >>> 0, 16)
  bytes.writeUInt32BE(5, 4)
  return name.slice(0, 10) + bytes.toString('base64url') + name.slice(37)
}
