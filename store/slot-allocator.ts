/** Gives out the places of a source's slots on one store path: free ones of a segment before, or one behind the other. */
import { DfsError } from '../protocol/errors.ts'
import type { FreeSlots } from './free-slots.ts'
import { writerOf } from './segments.ts'
import { SEGMENT_BYTES } from './slot.ts'

/** Where a new slot goes. */
export interface NewSlot {
  readonly segmentId: number
  readonly offsetBytes: number
  /** There was another file before. */
  readonly reused: boolean
}

export class SlotAllocator {
  readonly #writer: number
  readonly #segmentBytes: number
  #segmentId: number
  #offsetBytes = 0
  #free: FreeSlots | undefined

  constructor(writer: number, firstSegmentId: number, segmentBytes = SEGMENT_BYTES) {
    this.#writer = writer
    this.#segmentId = firstSegmentId
    this.#segmentBytes = segmentBytes
  }

  /** What is appended to. */
  get segmentId(): number {
    return this.#segmentId
  }

  /** The segment whose free slots are given out. */
  get reopened(): FreeSlots | undefined {
    return this.#free
  }

  /** Gives out the free slots of a segment from now on, or of none. */
  reopen(free: FreeSlots | undefined): void {
    this.#free = free
  }

  /** Whether a slot may be had without any room on the disk. */
  hasFree(slotBytes: number): boolean {
    return this.#free?.has(slotBytes) === true
  }

  /**
   * The place of a new slot whose record has this second and sequence. Throws `no_space` if it would have to be appended and must not,
   * or when the writer has no segment left: the next id would be another writer's.
   */
  take(slotBytes: number, { timeS, sequence }: { timeS: number; sequence: number }, mayAppend = true): NewSlot {
    const offsetBytes = this.#free?.take(slotBytes, timeS, sequence)
    if (offsetBytes !== undefined) return { segmentId: this.#free!.segmentId, offsetBytes, reused: true }
    if (!mayAppend) throw new DfsError('no_space')
    return this.#append(slotBytes)
  }

  /** Goes on elsewhere: this segment has a place of which nobody knows what is in it. */
  leave(segmentId: number): void {
    if (segmentId === this.#free?.segmentId) this.#free = undefined
    if (segmentId !== this.#segmentId) return
    this.#segmentId++
    this.#offsetBytes = 0
  }

  #append(slotBytes: number): NewSlot {
    if (this.#offsetBytes > 0 && this.#offsetBytes + slotBytes > this.#segmentBytes) this.leave(this.#segmentId)
    if (writerOf(this.#segmentId) !== this.#writer) throw new DfsError('no_space', 'this writer has no segment left')
    const offsetBytes = this.#offsetBytes
    this.#offsetBytes += slotBytes
    return { segmentId: this.#segmentId, offsetBytes, reused: false }
  }
}
