/**
 * Peers' records of the last flush whose slots are on a disk that is not there: slots and records are made durable at the
 * same time, and nobody can look whether these were. The positions of their sources go back in front of them, durably, so
 * that they are shipped again.
 *
 *     records   ... c7 c8 | c9 c10 c11 | S(8)            the last flush, c10 on a disk that is away
 */
import type { BinlogRecord } from '../protocol/binlog-record.ts'
import type { SourcePosition } from '../protocol/storage-messages.ts'

export class Unjudged {
  #batch = 0
  readonly #before = new Map<number, SourcePosition>()

  /** Takes note of a record; `before` is the position of its source. */
  note({ batch, origin, inSlot }: BinlogRecord, before: SourcePosition | undefined, isAway: boolean): void {
    // A later flush is only begun when the one before is durable.
    if (batch !== this.#batch) this.#before.clear()
    this.#batch = batch
    if (origin === undefined || !inSlot || !isAway || this.#before.has(origin.storageId)) return
    const { storageId, epoch } = origin
    this.#before.set(storageId, before ?? { storageId, epoch, sequence: 0, timeMs: 0 })
  }

  /** Where sources have to begin again. */
  get positions(): readonly SourcePosition[] {
    return [...this.#before.values()]
  }
}
