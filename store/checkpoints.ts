/**
 * When the store writes a checkpoint, and what it says: everything up to the binlog's end is where it belongs.
 *
 *     changes of directories and slots are synced ──▶ catalogue of segments ──▶ checkpoint ──▶ segments open for reuse
 */
import type { SourcePosition } from '../protocol/storage-messages.ts'
import type { Log } from '../runtime/log.ts'
import type { Disk } from '../runtime/world.ts'
import type { Binlog } from './binlog.ts'
import { type SlotEnd, writeCheckpoint } from './checkpoint.ts'
import type { SlotCatalogue } from './slot-catalogue.ts'
import type { SlotSpace } from './slot-space.ts'
import type { StorePaths } from './store-paths.ts'

/**
 * Recovery reads at most so many records, and does so many of them again, or this much time's worth. That a file is in its
 * slot need not be done again.
 */
const CHECKPOINT_RECORDS = 50_000
const CHECKPOINT_CHANGES = 2000
export const CHECKPOINT_MS = 10_000

export interface CheckpointParts {
  readonly disk: Disk
  readonly dataDirectory: string
  readonly log: Log
  readonly binlog: Binlog
  readonly paths: StorePaths
  readonly catalogue: SlotCatalogue
  readonly slotSpace: SlotSpace
  /** How far the records of peers have been applied. */
  readonly positions: () => readonly SourcePosition[]
  /** Where the own slots end that have records. */
  readonly slotEnds: () => readonly SlotEnd[]
  /** No record up to this one will be done again. */
  readonly onCovered: (sequence: number) => Promise<void>
}

export class Checkpoints {
  readonly #parts: CheckpointParts
  /** As of the binlog's end. */
  #slotEnds: readonly SlotEnd[]
  /** The last one covers everything up to here. */
  #sequence: number
  /** Renames and removals since. */
  #changes = 0
  /** Whatever a start has to record is recorded: before, no checkpoint may say so. */
  #begun = false
  #writing: Promise<void> | undefined

  constructor(parts: CheckpointParts) {
    this.#parts = parts
    this.#slotEnds = parts.slotEnds()
    this.#sequence = parts.binlog.end.sequence
  }

  /** The start is recorded; writes the first checkpoint, unless a path has failed. */
  async begin(): Promise<void> {
    this.#begun = true
    if (!this.#parts.paths.hasFailed) await this.#write()
  }

  /** A file got its name, or a file or slot went. */
  noteChange(): void {
    this.#changes++
  }

  /** A flush is over. */
  noteFlush(sequence: number): void {
    this.#slotEnds = this.#parts.slotEnds()
    if (sequence - this.#sequence >= CHECKPOINT_RECORDS || this.#changes >= CHECKPOINT_CHANGES) void this.write()
  }

  /** Resolves when the one that is under way, if any, is written, or could not be. */
  async settled(): Promise<void> {
    await this.#writing
  }

  /** Writes a checkpoint if there is anything new, or if it `isWanted` for what else it says. Never rejects. */
  async write({ isWanted = false } = {}): Promise<void> {
    const { binlog, paths, log } = this.#parts
    // A path that failed keeps its records in front of the checkpoint, for the day its disk is back.
    if (!this.#begun || paths.hasFailed) return
    if (binlog.end.sequence === this.#sequence && !isWanted) return
    this.#writing ??= this.#write()
      .catch(error => log.error({ err: error }, 'no checkpoint could be written'))
      .finally(() => {
        this.#writing = undefined
      })
    await this.#writing
  }

  async #write(): Promise<void> {
    const { disk, dataDirectory, binlog, paths, catalogue, slotSpace, positions } = this.#parts
    const { epoch, ownEnd } = binlog
    const { sequence, timeMs } = binlog.end
    this.#changes = 0
    const { reopened, open } = slotSpace.declare(binlog.reach)
    const checkpoint = { epoch, sequence, ownEnd, timeMs, positions: positions(), slots: this.#slotEnds, reopened }
    const counted = catalogue.encode(epoch, sequence)
    for (const path of paths.all) {
      if (path.failure !== undefined) throw path.failure
      await path.syncChanges()
    }
    // First: it may know more than the checkpoint does, but not less.
    if (counted !== undefined) await catalogue.write(disk, dataDirectory, counted)
    await writeCheckpoint(disk, dataDirectory, checkpoint)
    this.#sequence = sequence
    open()
    await this.#parts.onCovered(sequence)
  }
}
