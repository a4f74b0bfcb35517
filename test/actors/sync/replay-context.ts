/** What a session replays with, where no sync actor is behind it. */
import type { RunningStorage } from '../../../actors/storage/start-storage.ts'
import type { ReplayContext } from '../../../actors/sync/replay-binlog.ts'
import { silentLog } from '../../../runtime/log.ts'

/** Replays from a storage server; names of damaged files go to `corrupt`. */
export function replayContext(
  { store, ordering, blocks, pool, replicas }: RunningStorage,
  corrupt: string[],
  onEpochTooOld: (epochMin: number) => void = () => {},
): ReplayContext {
  return {
    ...{
      store,
      ordering,
      blocks,
      pool,
      replicas,
      log: silentLog(),
      cursors: new Map(),
      unreadable: new Map(),
      onProgress: () => {},
    },
    onCorruption: name => void corrupt.push(name),
    onEpochTooOld,
  }
}
