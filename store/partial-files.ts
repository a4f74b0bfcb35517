/**
 * What came of files before their connection broke, so that a source need not begin again: one file of each source, until
 * another record of it has come, or for a while. Only in memory is it known what they are: a start sweeps them away.
 *
 *     broken off ──▶ keep ──▶ what is on the disk is compared ──▶ offer: so much, with this sum ──▶ take ──▶ the rest
 */
import { type BinlogPosition, isAfter } from '../protocol/binlog-record.ts'
import { DfsError } from '../protocol/errors.ts'
import type { PartialFile } from '../protocol/sync-bodies.ts'
import type { Timers } from '../runtime/timers.ts'
import type { Cancel } from '../runtime/world.ts'
import type { BlockPool } from './block-pool.ts'
import type { IncomingFile } from './incoming-file.ts'
import type { ShippedRecord } from './store.ts'

/** Longer than a network is usually away; what nobody goes on with then takes room from others. */
export const PARTIAL_FILE_MS = 10 * 60_000

const NOTHING: PartialFile = { sequence: 0, bytes: 0, crc32: 0 }

/** How long a source is let wait for the comparison, before it is told to come again: less than it would wait by itself. */
const COMPARE_MS = 5_000

interface Kept {
  readonly origin: BinlogPosition
  readonly name: string
  readonly file: IncomingFile
  readonly cancel: Cancel
  /** Resolves when it is known whether the disk gives what it was given. */
  readonly compared: Promise<void>
  isIntact: boolean | undefined
}

interface Coming {
  cutOff(): void
  readonly ended: Promise<unknown>
}

export class PartialFiles {
  readonly #timers: Timers
  readonly #blocks: BlockPool
  readonly #kept = new Map<number, Kept>()
  readonly #coming = new Map<number, Coming>()

  constructor(timers: Timers, blocks: BlockPool) {
    this.#timers = timers
    this.#blocks = blocks
  }

  /** Receives a file of a source; `cutOff` breaks that off when the source asks anew, which it does when it has given up. */
  async receive<T>(storageId: number, work: () => Promise<T>, cutOff: () => void): Promise<T> {
    const coming: Coming = { cutOff, ended: work() }
    this.#coming.set(storageId, coming)
    try {
      return (await coming.ended) as T
    } finally {
      if (this.#coming.get(storageId) === coming) this.#coming.delete(storageId)
    }
  }

  /** Keeps full blocks of a record's file, all written. The file is not the caller's any more. */
  async keep({ origin, record }: ShippedRecord, file: IncomingFile): Promise<void> {
    const { storageId } = origin
    const before = this.#kept.get(storageId)
    const cancel = this.#timers.set(PARTIAL_FILE_MS, () => void this.#drop(storageId, kept).catch(ignore))
    const compared = file.isIntact(this.#blocks).then(
      isIntact => {
        kept.isIntact = isIntact
      },
      () => {
        kept.isIntact = false
      },
    )
    const kept: Kept = { origin, name: record.name, file, cancel, compared, isIntact: undefined }
    this.#kept.set(storageId, kept)
    before?.cancel()
    await before?.file.discard()
  }

  /** What a source that stands at a position need not send again. Rejects with `unavailable` if comparing it takes long. */
  async offer(storageId: number, epoch: number, position: BinlogPosition): Promise<PartialFile> {
    const coming = this.#coming.get(storageId)
    coming?.cutOff()
    await coming?.ended.catch(ignore)
    const kept = this.#kept.get(storageId)
    if (kept === undefined) return NOTHING
    await Promise.race([kept.compared, this.#timers.sleep(COMPARE_MS)])
    if (kept.isIntact === undefined) throw new DfsError('unavailable', 'what came of a file is still being compared')
    const isWanted = kept.origin.epoch === epoch && isAfter(kept.origin, position)
    if (kept.isIntact && isWanted && kept.file.storePath.isWritable) {
      return { sequence: kept.origin.sequence, bytes: kept.file.sizeBytes, crc32: kept.file.crc32 }
    }
    await this.#drop(storageId, kept)
    return NOTHING
  }

  /**
   * Gives back the beginning of a record's file, if it is here and ends where the source goes on. Whatever else is kept of
   * the source, and is not of a later record, goes.
   */
  async take(
    { origin, record }: Pick<ShippedRecord, 'origin' | 'record'>,
    fromBytes: number,
  ): Promise<IncomingFile | undefined> {
    const kept = this.#kept.get(origin.storageId)
    if (kept === undefined || isAfter(kept.origin, origin)) return undefined
    const isSame = !isAfter(origin, kept.origin) && kept.name === record.name
    if (!isSame || kept.isIntact !== true || kept.file.sizeBytes !== fromBytes) {
      await this.#drop(origin.storageId, kept)
      return undefined
    }
    this.#kept.delete(origin.storageId)
    kept.cancel()
    return kept.file
  }

  /** Throws everything away. */
  async clear(): Promise<void> {
    for (const [storageId, kept] of this.#kept) await this.#drop(storageId, kept)
  }

  async #drop(storageId: number, kept: Kept): Promise<void> {
    if (this.#kept.get(storageId) !== kept) return
    this.#kept.delete(storageId)
    kept.cancel()
    await kept.file.discard()
  }
}

/** The failure is told where it belongs; here it only matters that it is over. */
function ignore(): void {}
