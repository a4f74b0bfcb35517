/** Puts the slots of a flush in their places, and keeps count of how far the own ones have records. */
import { allDone } from './all-done.ts'
import type { SlotKeeper } from './binlog.ts'
import type { SlotEnd } from './checkpoint.ts'
import { groupBy } from './group-by.ts'
import type { OnPhase } from './phase.ts'
import type { SlotBytes } from './segments.ts'
import type { SlotSpace } from './slot-space.ts'
import type { StorePaths } from './store-paths.ts'

export class SlotWriter implements SlotKeeper {
  readonly #storageId: number
  readonly #paths: StorePaths
  readonly #slotSpace: SlotSpace
  readonly #onPhase: OnPhase
  readonly #ends: Map<number, SlotEnd>
  /** Of flushes that are not over. */
  readonly #writing = new Set<readonly SlotBytes[]>()

  /** For the source `storageId`, whose slots end at `ends`. */
  constructor(storageId: number, paths: StorePaths, slotSpace: SlotSpace, ends: readonly SlotEnd[], onPhase: OnPhase) {
    this.#storageId = storageId
    this.#paths = paths
    this.#slotSpace = slotSpace
    this.#onPhase = onPhase
    this.#ends = new Map(ends.map(end => [end.storePathIndex, end]))
  }

  /** Where the own slots end that have records, by store path. */
  get ends(): SlotEnd[] {
    return [...this.#ends.values()]
  }

  /** Slots that are being written, or have no record yet. */
  get writing(): readonly SlotBytes[] {
    return [...this.#writing].flat()
  }

  async put(slots: readonly SlotBytes[]): Promise<void> {
    this.#writing.add(slots)
    this.#onPhase('written')
    this.#slotSpace.touch(slots)
    const groups = [...groupBy(slots, slot => this.#paths.of(slot))]
    await allDone(
      groups.map(([path, group]) => {
        path.reserve(group.reduce((sum, { bytes, reused }) => (reused ? sum : sum + bytes.length), 0))
        return this.#paths.guard(path, () => path.segments.put(group))
      }),
    )
    this.#onPhase('synced')
  }

  dropped(slots: readonly SlotBytes[]): void {
    this.#writing.delete(slots)
  }

  recorded(slots: readonly SlotBytes[]): void {
    this.#writing.delete(slots)
    this.#onPhase('recorded')
    this.#slotSpace.filled(slots)
    for (const { storePathIndex, storageId, segmentId, offsetBytes, bytes, reused } of slots) {
      if (storageId !== this.#storageId || reused) continue
      const last = this.#ends.get(storePathIndex)
      // The last slots of a segment and the first of the next are written side by side.
      if (last !== undefined && segmentId < last.segmentId) continue
      this.#ends.set(storePathIndex, { storePathIndex, segmentId, endBytes: offsetBytes + bytes.length })
    }
    this.#onPhase('renamed')
  }
}
