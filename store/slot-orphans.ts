/**
 * Slots of this source that hold a file while no record tells of them: the record has been lost since, flipped or cut off
 * with what looked like a torn end. As with plain files, the file may have been acknowledged and no peer will ever ask for
 * it; or it never got that far, and is kept for nothing.
 *
 * Slots are recorded in the order they lie in, so that whatever lies between two records that follow each other, or behind
 * the last one, has none.
 *
 *     slots      |  41  |  42  |      |      |  45  |      |
 *     records       C      C     gap    gap     C     gap
 *
 * In a segment whose free slots are used again they lie anywhere: it is looked through as a whole, for files of the second of
 * the checkpoint and later.
 */
import type { BinlogRecord } from '../protocol/binlog-record.ts'
import { decodeFileName } from '../protocol/file-id.ts'
import { DiskError } from '../runtime/world.ts'
import type { Checkpoint, ReopenedSegment, SlotEnd } from './checkpoint.ts'
import { nextSegmentId, writerOf } from './segments.ts'
import { contentOf, nameOfSlot, SEGMENT_BYTES, type SlotHeader } from './slot.ts'
import type { SegmentPlace, SlotCatalogue } from './slot-catalogue.ts'
import type { StorePath } from './store-path.ts'

/** From where to where no slot has a record. */
interface Gap {
  readonly storePathIndex: number
  readonly from: { readonly segmentId: number; readonly endBytes: number }
  readonly until: { readonly segmentId: number; readonly endBytes: number }
}

export class SlotOrphanSearch {
  readonly #storageId: number
  readonly #writer: number
  /** Where the slots end that have records, by store path. */
  readonly #ends: Map<number, SlotEnd>
  readonly #gaps: Gap[] = []
  /** Out of the order of slots: in slots that are used again, or found at an earlier start. */
  readonly #recorded = new Set<string>()
  readonly #reopened: readonly ReopenedSegment[]
  readonly #sinceS: number
  readonly #onDoubt: (place: SegmentPlace) => void

  /**
   * `slots`, `reopened` and `timeMs` are what a checkpoint says, for the records it covers. `onDoubt` is called with each
   * segment that has more in it than was recorded.
   */
  constructor(
    { storageId, writer }: { storageId: number; writer: number },
    { slots, reopened, timeMs }: Pick<Checkpoint, 'slots' | 'reopened' | 'timeMs'>,
    onDoubt: (place: SegmentPlace) => void,
  ) {
    this.#storageId = storageId
    this.#writer = writer
    this.#reopened = reopened
    this.#sinceS = Math.floor(timeMs / 1000)
    this.#onDoubt = onDoubt
    const own = slots.filter(({ segmentId }) => writerOf(segmentId) === writer)
    this.#ends = new Map(own.map(end => [end.storePathIndex, end]))
  }

  /** Whether records before the checkpoint have to be noted, too: those from this time on. */
  get noteFromMs(): number | undefined {
    return this.#reopened.length === 0 ? undefined : this.#sinceS * 1000
  }

  /** Takes note of a record before the checkpoint. */
  noteEarlier({ op, name }: BinlogRecord): void {
    if (op !== 'C') return
    const { storePathIndex, slot } = decodeFileName(name)
    if (slot !== undefined && this.#isReopened(storePathIndex, slot.segmentId)) this.#recorded.add(name)
  }

  /** Takes note of the next record. */
  note({ op, name }: BinlogRecord): void {
    if (op !== 'C') return
    const { storePathIndex, storageId, slot } = decodeFileName(name)
    if (slot === undefined || storageId !== this.#storageId || writerOf(slot.segmentId) !== this.#writer) return
    const from = this.#endOf(storePathIndex)
    const { segmentId, offsetBytes, slotBytes } = slot
    if (this.#isReopened(storePathIndex, segmentId)) this.#recorded.add(name)
    const isBehind = segmentId > from.segmentId || (segmentId === from.segmentId && offsetBytes >= from.endBytes)
    if (!isBehind) {
      this.#recorded.add(name)
      return
    }
    if (segmentId > from.segmentId || offsetBytes > from.endBytes) {
      this.#gaps.push({ storePathIndex, from, until: { segmentId, endBytes: offsetBytes } })
    }
    this.#ends.set(storePathIndex, { storePathIndex, segmentId, endBytes: offsetBytes + slotBytes })
  }

  /**
   * Looks into all gaps, and behind the last record; what is found is durable. A store path that does not give what lies
   * there has failed, and the others go on: its slots are looked for again at the next start.
   */
  async find(storePaths: ReadonlyMap<number, StorePath>): Promise<string[]> {
    // In a segment that is looked through as a whole there may be gaps, too.
    const found = new Set<string>()
    for (const path of storePaths.values()) {
      if (path.failure !== undefined) continue
      try {
        for await (const name of this.#filesOn(path)) if (!this.#recorded.has(name)) found.add(name)
      } catch (error) {
        if (!(error instanceof DiskError)) throw error
        path.fail(error)
      }
    }
    return [...found]
  }

  /**
   * Where slots end now, with nothing left behind them that could be found again. Those of a store path that is not there
   * are as they were, for the day it is back. The catalogue knows of segments that were removed since.
   */
  async settled(storePaths: ReadonlyMap<number, StorePath>, catalogue: SlotCatalogue): Promise<SlotEnd[]> {
    const ends = new Map(this.#ends)
    for (const [storePathIndex, path] of storePaths) {
      if (path.failure !== undefined) continue
      const there = await path.segments.list(this.#storageId, this.#writer)
      const seen = this.#ends.get(storePathIndex)?.segmentId ?? 0
      const known = catalogue.lastIds(storePathIndex, this.#storageId).filter(id => writerOf(id) === this.#writer)
      const last = [...there, ...known].reduce((last, id) => Math.max(last, id), seen)
      const segmentId = nextSegmentId(this.#writer, last === 0 ? undefined : last) - 1
      ends.set(storePathIndex, { storePathIndex, segmentId, endBytes: SEGMENT_BYTES })
    }
    return [...ends.values()]
  }

  async *#filesOn(path: StorePath): AsyncGenerator<string> {
    const segmentIds = await path.segments.list(this.#storageId, this.#writer)
    const behind = { segmentId: Number.POSITIVE_INFINITY, endBytes: 0 }
    const gaps = this.#gaps.filter(gap => gap.storePathIndex === path.index)
    for (const { from, until } of [...gaps, { from: this.#endOf(path.index), until: behind }]) {
      for (const segmentId of segmentIds) {
        if (segmentId < from.segmentId || segmentId > until.segmentId) continue
        yield* this.#filesIn(path, segmentId, {
          fromBytes: segmentId === from.segmentId ? from.endBytes : 0,
          untilBytes: segmentId === until.segmentId ? until.endBytes : SEGMENT_BYTES,
        })
      }
    }
    for (const segmentId of segmentIds)
      if (this.#isReopened(path.index, segmentId)) yield* this.#laterFilesIn(path, segmentId)
  }

  #isReopened(storePathIndex: number, segmentId: number): boolean {
    return this.#reopened.some(other => other.storePathIndex === storePathIndex && other.segmentId === segmentId)
  }

  /** Files in slots that may have been used again. */
  async *#laterFilesIn(path: StorePath, segmentId: number): AsyncGenerator<string> {
    const segment = { storageId: this.#storageId, segmentId }
    const later: { name: string; offsetBytes: number; header: SlotHeader }[] = []
    await path.segments.walk(segment, (offsetBytes, header) => {
      if (header.isFree || header.createTimeS < this.#sinceS) return
      const name = nameOfSlot({ storePathIndex: path.index, ...segment, offsetBytes }, header)
      if (!this.#recorded.has(name)) later.push({ name, offsetBytes, header })
    })
    for (const { offsetBytes, header } of later) {
      const range = { fromBytes: offsetBytes, untilBytes: offsetBytes + header.slotBytes }
      yield* this.#filesIn(path, segmentId, range)
    }
  }

  async *#filesIn(
    path: StorePath,
    segmentId: number,
    range: { fromBytes: number; untilBytes: number },
  ): AsyncGenerator<string> {
    const segment = { storageId: this.#storageId, segmentId }
    for await (const { name, offsetBytes, slot, header } of path.segments.slots(segment, path.index, range)) {
      this.#onDoubt({ storePathIndex: path.index, ...segment })
      if (header.isFree || contentOf(slot, header) === undefined) continue
      // It may be in memory only.
      await path.segments.put([{ ...segment, storePathIndex: path.index, offsetBytes, bytes: slot }])
      yield name
    }
  }

  #endOf(storePathIndex: number): SlotEnd {
    return this.#ends.get(storePathIndex) ?? { storePathIndex, segmentId: 0, endBytes: 0 }
  }
}
