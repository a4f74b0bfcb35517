/** What sync has to know of who orders whose changes; the storage actor keeps it. */
import type { BinlogRecord } from '../protocol/binlog-record.ts'
import type { Succession } from '../protocol/orderers.ts'

export interface Ordering {
  /**
   * The term under which this source ships. Throws `unavailable` if it is not known, or others order its changes: it ships again
   * when it has theirs.
   */
  term(): number
  /** When this source took its files back; undefined if it always had them. */
  readonly takenBack: Succession | undefined
  /** Whether a member has been away for so long that nobody is let wait for it. */
  isLost(storageId: number): boolean
  /**
   * Whether a record goes with all that its file is now, its metadata included: of a file that changes, and has been in other
   * hands since, or is in ours for another source.
   */
  goesWhole(record: BinlogRecord): boolean
}
