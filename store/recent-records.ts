/**
 * The last records of the binlog, in memory: whoever follows it as it grows, as sync does to peers that are level, reads
 * them here and not from the disk.
 */
import type { ReadRecord } from './binlog-reader.ts'

/** Some 3 MiB; what a busy server writes in a tenth of a second. */
const RECORDS_MAX = 4096

export class RecentRecords {
  readonly #recordsMax: number
  /** Oldest first, without a gap behind `#after`. */
  #records: ReadRecord[] = []
  #after: number

  /** Knows of what follows a sequence, the last there is. */
  constructor(after: number, recordsMax = RECORDS_MAX) {
    this.#after = after
    this.#recordsMax = recordsMax
  }

  /** Takes the records of a flush. */
  add(records: readonly ReadRecord[]): void {
    this.#records.push(...records)
    const surplus = this.#records.length - this.#recordsMax
    // Not one by one: what is cut off the front moves all that is behind.
    if (surplus < this.#recordsMax) return
    this.#after = this.#records[surplus - 1]!.record.sequence
    this.#records = this.#records.slice(surplus)
  }

  /** All records after one sequence up to another; undefined if some of them have been forgotten. */
  read({ after, until }: { after: number; until: number }): ReadRecord[] | undefined {
    if (after < this.#after) return undefined
    return this.#records.filter(({ record }) => record.sequence > after && record.sequence <= until)
  }
}
