/**
 * The free slots of one segment, in memory while they are used again: by their sizes, of which there are few, so that a
 * slot is never cut in two. What is freed later is not among them.
 */
import type { SegmentRef, Segments } from './segments.ts'

/** Of one segment: 256 KiB of memory or so. The others are found when the segment is looked through again. */
const SLOTS_MAX = 64 * 1024

/** So many slots in a row that were not to be had: those that are left fit nobody. */
const MISSES_MAX = 256

export class FreeSlots {
  readonly segmentId: number
  /** Offsets by size of the slot, the last one first. */
  readonly #offsets = new Map<number, number[]>()
  #count = 0
  #misses = 0
  /** The last second in which one of them was given out before. */
  #givenS = 0
  #lastSequence = 0

  private constructor(segmentId: number) {
    this.segmentId = segmentId
  }

  /** Looks through a segment. */
  static async list(segments: Segments, ref: SegmentRef): Promise<FreeSlots> {
    const free = new FreeSlots(ref.segmentId)
    await segments.walk(ref, (offsetBytes, header) => {
      if (header.isFree && free.#count < SLOTS_MAX) free.#add(offsetBytes, header)
    })
    for (const offsets of free.#offsets.values()) offsets.reverse()
    return free
  }

  get count(): number {
    return this.#count
  }

  /** Whether another segment would serve better. */
  get isSpent(): boolean {
    return this.#count === 0 || this.#misses > MISSES_MAX
  }

  /** The last record that one was given out for. */
  get lastSequence(): number {
    return this.#lastSequence
  }

  has(slotBytes: number): boolean {
    return (this.#offsets.get(slotBytes)?.length ?? 0) > 0
  }

  /**
   * Gives out one for a file of this second, with a record of this sequence: by their times it is known which of two files
   * came later.
   */
  take(slotBytes: number, timeS: number, sequence: number): number | undefined {
    const offset = timeS > this.#givenS ? this.#offsets.get(slotBytes)?.pop() : undefined
    if (offset === undefined) this.#misses++
    else {
      this.#misses = 0
      this.#lastSequence = sequence
      this.#count--
    }
    return offset
  }

  #add(offsetBytes: number, { slotBytes, createTimeS }: { slotBytes: number; createTimeS: number }): void {
    const offsets = this.#offsets.get(slotBytes)
    if (offsets === undefined) this.#offsets.set(slotBytes, [offsetBytes])
    else offsets.push(offsetBytes)
    this.#count++
    this.#givenS = Math.max(this.#givenS, createTimeS)
  }
}
