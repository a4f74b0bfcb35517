/** How far the members of a group are behind each other, from what they have told the trackers. */
import type { StorageView } from '../protocol/tracker-messages.ts'

/** How far a peer has got with a source's records. */
export interface SyncLag {
  readonly group: string
  readonly source: number
  readonly peer: number
  /**
   * By the source's own clock: the age of the oldest record that the peer lacks. Of a source that is offline: the time
   * between its last record and the last one that the peer has; undefined if it has none.
   */
  readonly behindMs: number | undefined
  /** What the peer lacks, as a source that is online tells. */
  readonly records?: number
  readonly bytes?: number
}

/** Compares every member with every other of its group, in the order given. */
export function syncLags(storages: readonly StorageView[]): SyncLag[] {
  const lags: SyncLag[] = []
  for (const { report: source, online } of storages) {
    for (const { report: peer } of storages) {
      if (peer.group !== source.group || peer.storageId === source.storageId) continue
      const pair = { group: source.group, source: source.storageId, peer: peer.storageId }
      const told = online ? source.peers?.find(({ storageId }) => storageId === peer.storageId) : undefined
      if (told !== undefined) {
        const { records, bytes, behindMs } = told
        lags.push({ ...pair, behindMs, records, bytes })
        continue
      }
      const position = peer.positions.find(({ storageId }) => storageId === source.storageId)
      // Times, not sequences: the binlog also counts the records of others, which nobody fetches from here.
      const { timeMs } = source.binlogEnd
      const behindMs = timeMs === 0 ? 0 : position === undefined ? undefined : Math.max(0, timeMs - position.timeMs)
      lags.push({ ...pair, behindMs })
    }
  }
  return lags
}
