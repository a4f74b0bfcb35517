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
 */
import type { BinlogRecord } from '../protocol/binlog-record.ts'
import { decodeFileName } from '../protocol/file-id.ts'
import { DiskError } from '../runtime/world.ts'
import type { SlotEnd } from './checkpoint.ts'
import { nextSegmentId, writerOf } from './segments.ts'
import { contentOf, SEGMENT_BYTES } from './slot.ts'
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
  /** Found at an earlier start, and recorded out of order then. */
  readonly #recorded = new Set<string>()

  /** `slots` is what a checkpoint says, for the records it covers. */
  constructor({ storageId, writer }: { storageId: number; writer: number }, slots: readonly SlotEnd[]) {
    this.#storageId = storageId
    this.#writer = writer
    const own = slots.filter(({ segmentId }) => writerOf(segmentId) === writer)
    this.#ends = new Map(own.map(end => [end.storePathIndex, end]))
  }

  /** Takes note of the next record. */
  note({ op, name }: BinlogRecord): void {
    if (op !== 'C') return
    const { storePathIndex, storageId, slot } = decodeFileName(name)
    if (slot === undefined || storageId !== this.#storageId || writerOf(slot.segmentId) !== this.#writer) return
    const from = this.#endOf(storePathIndex)
    const { segmentId, offsetBytes, slotBytes } = slot
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
    const found: string[] = []
    for (const path of storePaths.values()) {
      if (path.failure !== undefined) continue
      try {
        for await (const name of this.#filesOn(path)) if (!this.#recorded.has(name)) found.push(name)
      } catch (error) {
        if (!(error instanceof DiskError)) throw error
        path.fail(error)
      }
    }
    return found
  }

  /**
   * Where slots end now, with nothing left behind them that could be found again. Those of a store path that is not there
   * are as they were, for the day it is back.
   */
  async settled(storePaths: ReadonlyMap<number, StorePath>): Promise<SlotEnd[]> {
    const ends = new Map(this.#ends)
    for (const [storePathIndex, path] of storePaths) {
      if (path.failure !== undefined) continue
      const last = (await path.segments.list(this.#storageId, this.#writer)).at(-1)
      const seen = this.#ends.get(storePathIndex)?.segmentId
      const lastSeen = last === undefined ? seen : Math.max(last, seen ?? 0)
      const segmentId = nextSegmentId(this.#writer, lastSeen) - 1
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
  }

  async *#filesIn(
    path: StorePath,
    segmentId: number,
    range: { fromBytes: number; untilBytes: number },
  ): AsyncGenerator<string> {
    const segment = { storageId: this.#storageId, segmentId }
    for await (const { name, offsetBytes, slot, header } of path.segments.slots(segment, path.index, range)) {
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
