/**
 * The room in segments: where new slots go, what becomes of free ones, and which segments go away.
 *
 *     freed ──▶ counted ──▶ enough in one segment: listed ──▶ rest ──▶ a checkpoint says so ──▶ given out again
 *                     └──▶ all of it: rest ──▶ the segment is removed
 *
 * A slot rests from when it is listed, because nobody knows how long it has been free: whoever reads it may not have heard.
 * Before the first one of a segment is written, a checkpoint says that it may be: after a crash slots without a record are
 * looked for there (`slot-orphans.ts`).
 */
import type { FileNameParts } from '../protocol/file-id.ts'
import { type Clock, DiskError } from '../runtime/world.ts'
import { BATCH_RECORDS_MAX, type BinlogReach } from './binlog.ts'
import type { ReopenedSegment } from './checkpoint.ts'
import { FreeSlots } from './free-slots.ts'
import type { Recovery } from './recovery.ts'
import { type SlotBytes, writerOf } from './segments.ts'
import { isTrunkFile, SEGMENT_BYTES } from './slot.ts'
import { type NewSlot, SlotAllocator } from './slot-allocator.ts'
import type { SegmentEntry, SegmentPlace, SlotCatalogue } from './slot-catalogue.ts'
import type { StorePath } from './store-path.ts'
import type { StorePaths } from './store-paths.ts'

/** How free slots come to be used again. */
export interface ReuseOptions {
  /** Where a segment ends, for those that append to it. */
  readonly segmentBytes: number
  /** How long a free slot is left alone: readers may still be at it. */
  readonly restMs: number
  /** A segment with less free is not looked through, unless the disk is full. */
  readonly freeBytesMin: number
}

export const REUSE: ReuseOptions = { segmentBytes: SEGMENT_BYTES, restMs: 60_000, freeBytesMin: SEGMENT_BYTES / 16 }

/** Listed and resting, for each store path: as many as are given out while one rests, if each lasts some seconds. */
const LISTS_MAX = 16

/** Segments counted or removed with each look, so that nobody waits long for the disk. */
const WORK_MAX = 4

interface Resting {
  readonly free: FreeSlots
  readonly untilMs: number
}

/** A segment that checkpoints say is open, for a flush longer than it is: the last one may lose its records. */
interface Declared extends ReopenedSegment {
  readonly sinceSequence: number
  /** Its free slots; undefined if an earlier life gave them out. */
  readonly free: FreeSlots | undefined
}

export class SlotSpace {
  readonly #catalogue: SlotCatalogue
  readonly #allocators: ReadonlyMap<number, SlotAllocator>
  readonly #paths: StorePaths
  readonly #own: { readonly storageId: number; readonly writer: number }
  readonly #clock: Clock
  readonly #options: ReuseOptions
  readonly #resting = new Map<number, Resting[]>()
  #declared: Declared[]
  /** As of the last look. */
  #durable = 0
  /** Listed since all others were. */
  readonly #tried = new Set<SegmentEntry>()
  /** Segments without a file: since when, as far as nothing was done to them. */
  readonly #freeSince = new Map<SegmentEntry, { changes: number; sinceMs: number }>()
  /** Segments to be counted, as they were at the last look. */
  #doubted = new Map<SegmentEntry, { changes: number; given: number }>()
  /** Freed by the effects of a flush that is not over. */
  #freed: { readonly place: SegmentPlace; readonly slotBytes: number }[] = []

  constructor(
    catalogue: SlotCatalogue,
    { slots, reopened, end, skipped }: Pick<Recovery, 'slots' | 'reopened' | 'end' | 'skipped'>,
    paths: StorePaths,
    own: { storageId: number; writer: number },
    clock: Clock,
    options: ReuseOptions,
  ) {
    this.#declared = reopened.map(segment => ({ ...segment, sinceSequence: end.sequence + skipped, free: undefined }))
    this.#catalogue = catalogue
    this.#paths = paths
    this.#own = own
    this.#clock = clock
    this.#options = options
    this.#allocators = new Map(
      slots.map(({ storePathIndex, segmentId }) => [
        storePathIndex,
        new SlotAllocator(own.writer, segmentId + 1, options.segmentBytes),
      ]),
    )
  }

  /** How often to look. */
  get lookMs(): number {
    return Math.ceil(this.#options.restMs / LISTS_MAX)
  }

  /** Gives a place to a new slot. Throws `no_space` if there is neither a free slot nor room. */
  take(path: StorePath, slotBytes: number, record: { timeS: number; sequence: number }): NewSlot {
    return this.#allocators.get(path.index)!.take(slotBytes, record, path.availableBytes > slotBytes)
  }

  /** Whether a store path has a free slot of a size. */
  hasFree(storePathIndex: number, slotBytes: number): boolean {
    return this.#allocators.get(storePathIndex)?.hasFree(slotBytes) === true
  }

  /** What was to go into a slot has failed: nobody knows what is there. */
  failed(place: SegmentPlace): void {
    this.#allocators.get(place.storePathIndex)!.leave(place.segmentId)
    this.#catalogue.doubt(place)
  }

  /** Slots are about to be written or freed. */
  touch(places: readonly SegmentPlace[]): void {
    this.#catalogue.touch(places)
  }

  /** These slots have records now. */
  filled(slots: readonly SlotBytes[]): void {
    this.#catalogue.filled(slots)
  }

  /** The slot of a file was freed; it counts with the flush of its record. */
  freed({ storePathIndex, storageId, slot }: FileNameParts): void {
    const { segmentId, slotBytes } = slot!
    if (isTrunkFile(slot!)) return
    this.#freed.push({ place: { storePathIndex, storageId: storageId!, segmentId }, slotBytes })
  }

  /** A file is in its slot already, and may have been counted. */
  doubt({ storePathIndex, storageId, slot }: FileNameParts): void {
    if (isTrunkFile(slot!)) return
    this.#catalogue.doubt({ storePathIndex, storageId: storageId!, segmentId: slot!.segmentId })
  }

  /** A flush is over. */
  flushed(): void {
    for (const { place, slotBytes } of this.#freed.splice(0)) this.#catalogue.freed(place, slotBytes)
  }

  /** Whether the segment of a file was removed, when all files in it had been deleted. */
  isRemoved({ storePathIndex, storageId, slot }: FileNameParts): boolean {
    return this.#catalogue.isRemoved({ storePathIndex, storageId: storageId!, segmentId: slot!.segmentId })
  }

  /** Bytes without a file in the own segments of a store path; a hole that damage made comes back with its whole segment only. */
  reusableBytes(storePathIndex: number): number {
    return this.#catalogue.freeBytes(entry => entry.storePathIndex === storePathIndex && this.#isOwn(entry))
  }

  /** Counts at a start what has to be, if that is little; otherwise it is done later. */
  async settle(): Promise<void> {
    await this.#settleRemoved()
    const doubted = this.#catalogue.entries.filter(({ inDoubt }) => inDoubt)
    if (doubted.length > WORK_MAX) return
    for (const entry of doubted) await this.#count(entry)
  }

  /** Segments that were removed after the catalogue had been written. */
  async #settleRemoved(): Promise<void> {
    for (const entry of this.#catalogue.entries.filter(isFree)) {
      const path = this.#paths.byIndex.get(entry.storePathIndex)
      if (path === undefined || path.failure !== undefined) continue
      if ((await this.#guard(path, () => path.segments.has(entry))) === false) this.#catalogue.remove(entry)
    }
  }

  /** Looks after all segments. Returns whether a checkpoint would open one of them. */
  async look(reach: BinlogReach): Promise<boolean> {
    const entries = this.#catalogue.entries
    this.#durable = reach.durable
    await this.#countDoubted(entries, reach)
    await this.#removeFree(entries)
    for (const path of this.#paths.all) {
      if (path.failure === undefined && this.#allocators.has(path.index)) await this.#list(path, entries)
    }
    return this.#ripe().length > 0
  }

  /** What the next checkpoint has to say of segments that are open, with those that it opens. */
  declare({ given, durable }: BinlogReach): { reopened: readonly ReopenedSegment[]; open: () => void } {
    this.#declared = this.#declared.filter(
      declared => this.#isOpen(declared) || lastSequenceOf(declared) + BATCH_RECORDS_MAX >= durable,
    )
    const ripe = this.#ripe()
    const opened = ripe.map(([storePathIndex, { free }]) => ({
      storePathIndex,
      segmentId: free.segmentId,
      sinceSequence: given,
      free,
    }))
    this.#declared.push(...opened)
    const reopened = this.#declared.map(({ storePathIndex, segmentId }) => ({ storePathIndex, segmentId }))
    const open = () => {
      for (const [storePathIndex, { free }] of ripe) {
        this.#allocators.get(storePathIndex)!.reopen(free)
        this.#resting.get(storePathIndex)!.shift()
      }
    }
    return { reopened, open }
  }

  /** For each store path that could do with one, the list that has rested. */
  #ripe(): [storePathIndex: number, Resting][] {
    const now = this.#clock.monotonicMs()
    return [...this.#resting].flatMap(([index, [first]]) => {
      const isWanted = this.#allocators.get(index)!.reopened?.isSpent !== false
      return first !== undefined && isWanted && first.untilMs <= now ? [[index, first]] : []
    })
  }

  /** Lists the free slots of the segment that has most. */
  async #list(path: StorePath, entries: readonly SegmentEntry[]): Promise<void> {
    const resting = this.#resting.get(path.index) ?? []
    if (resting.length >= LISTS_MAX) return
    const isFull = path.availableBytes < SEGMENT_BYTES
    const freeBytesMin = isFull ? 1 : this.#options.freeBytesMin
    const all = entries.filter(
      entry =>
        entry.storePathIndex === path.index &&
        entry.usedBytes > 0 &&
        freeBytesOf(entry) >= freeBytesMin &&
        this.#isOwn(entry) &&
        !this.#isInUse(entry),
    )
    let candidates = all.filter(entry => !this.#tried.has(entry))
    if (candidates.length === 0) {
      for (const entry of all) this.#tried.delete(entry)
      candidates = all
    }
    const first = candidates[0]
    if (first === undefined) return
    const best = candidates.reduce((best, entry) => (freeBytesOf(entry) > freeBytesOf(best) ? entry : best), first)
    this.#tried.add(best)
    const free = await this.#guard(path, () => FreeSlots.list(path.segments, best))
    const untilMs = this.#clock.monotonicMs() + this.#options.restMs
    if (free !== undefined && free.count > 0) this.#resting.set(path.index, [...resting, { free, untilMs }])
  }

  /** Removes segments without a file that nothing was done to for a while. */
  async #removeFree(entries: readonly SegmentEntry[]): Promise<void> {
    const now = this.#clock.monotonicMs()
    let left = WORK_MAX
    for (const entry of entries) {
      const path = this.#paths.byIndex.get(entry.storePathIndex)
      if (path === undefined || path.failure !== undefined || !isFree(entry) || this.#isInUse(entry)) {
        this.#freeSince.delete(entry)
        continue
      }
      const since = this.#freeSince.get(entry)
      if (since?.changes !== entry.changes) this.#freeSince.set(entry, { changes: entry.changes, sinceMs: now })
      else if (now - since.sinceMs >= this.#options.restMs && left-- > 0) await this.#remove(path, entry)
    }
  }

  async #remove(path: StorePath, entry: SegmentEntry): Promise<void> {
    const isRemoved = await this.#guard(path, () => path.segments.remove(entry))
    if (isRemoved === undefined) return
    this.#freeSince.delete(entry)
    this.#tried.delete(entry)
    if (isRemoved) this.#catalogue.remove(entry)
    else this.#catalogue.doubt(entry)
  }

  /** Counts segments that nothing is being done to: what was begun before the last look is over, and nothing since. */
  async #countDoubted(entries: readonly SegmentEntry[], { given, durable }: BinlogReach): Promise<void> {
    const before = this.#doubted
    const doubted = entries.filter(({ inDoubt }) => inDoubt)
    let left = WORK_MAX
    for (const entry of doubted) {
      const seen = before.get(entry)
      if (seen?.changes === entry.changes && durable >= seen.given && left-- > 0) await this.#count(entry)
    }
    this.#doubted = new Map(doubted.map(entry => [entry, { changes: entry.changes, given }]))
  }

  async #count(entry: SegmentEntry): Promise<void> {
    const path = this.#paths.byIndex.get(entry.storePathIndex)
    if (path === undefined || path.failure !== undefined) return
    const { changes } = entry
    const sum = await this.#guard(path, async () => (await path.segments.walk(entry)) ?? { usedBytes: 0, endBytes: 0 })
    if (sum !== undefined && entry.changes === changes) this.#catalogue.set(entry, sum)
  }

  /** Undefined if the disk fails. */
  #guard<T>(path: StorePath, work: () => Promise<T>): Promise<T | undefined> {
    return this.#paths.guard(path, work).catch(error => {
      if (!(error instanceof DiskError)) throw error
      return undefined
    })
  }

  /** Whether a segment is one that this life of this server gives out slots of. */
  #isOwn({ storageId, segmentId }: SegmentEntry): boolean {
    return storageId === this.#own.storageId && writerOf(segmentId) === this.#own.writer
  }

  #isOpen({ storePathIndex, free }: Declared): boolean {
    return free !== undefined && this.#allocators.get(storePathIndex)?.reopened === free
  }

  /** Whether slots of a segment are being given out, or will be. */
  #isInUse(entry: SegmentEntry): boolean {
    if (!this.#isOwn(entry)) return false
    const { storePathIndex, segmentId } = entry
    const isIt = (other: Declared) => other.segmentId === segmentId && other.storePathIndex === storePathIndex
    const mayBeWritten = (other: Declared) => this.#isOpen(other) || lastSequenceOf(other) > this.#durable
    return (
      segmentId >= (this.#allocators.get(storePathIndex)?.segmentId ?? 0) ||
      this.#declared.some(other => isIt(other) && mayBeWritten(other)) ||
      this.#resting.get(storePathIndex)?.some(({ free }) => free.segmentId === segmentId) === true
    )
  }
}

/** The last record that may have a slot in a segment, if no more are given out. */
function lastSequenceOf({ sinceSequence, free }: Declared): number {
  return Math.max(sinceSequence, free?.lastSequence ?? 0)
}

function isFree({ usedBytes, endBytes }: SegmentEntry): boolean {
  return usedBytes === 0 && endBytes > 0
}

function freeBytesOf({ usedBytes, endBytes }: SegmentEntry): number {
  return endBytes - usedBytes
}
