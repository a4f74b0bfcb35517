/** Slots that records are about, kept as ranges: those of one run lie side by side, mostly. */
import type { FileNameParts } from '../protocol/file-id.ts'

interface SlotRange {
  readonly storageId: number | undefined
  readonly storePathIndex: number
  readonly segmentId: number
  readonly fromBytes: number
  untilBytes: number
}

export class SlotRanges {
  readonly #ranges: SlotRange[] = []

  /** Adds the slot of a file, if it is in one. */
  add({ storageId, storePathIndex, slot }: FileNameParts): void {
    if (slot === undefined) return
    const { segmentId, offsetBytes: fromBytes, slotBytes } = slot
    const untilBytes = fromBytes + slotBytes
    const last = this.#ranges.at(-1)
    const isNext =
      last?.untilBytes === fromBytes &&
      last.segmentId === segmentId &&
      last.storePathIndex === storePathIndex &&
      last.storageId === storageId
    if (isNext) last.untilBytes = untilBytes
    else this.#ranges.push({ storageId, storePathIndex, segmentId, fromBytes, untilBytes })
  }

  /** Whether a file is in one of them, or in a part of one. */
  has({ storageId, storePathIndex, slot }: FileNameParts): boolean {
    if (slot === undefined) return false
    const { segmentId, offsetBytes, slotBytes } = slot
    for (const range of this.#ranges) {
      const isBeside = range.untilBytes <= offsetBytes || range.fromBytes >= offsetBytes + slotBytes
      if (isBeside || range.segmentId !== segmentId) continue
      if (range.storePathIndex === storePathIndex && range.storageId === storageId) return true
    }
    return false
  }
}
