/** How far the two storage servers are behind each other, by their own word. */
import type { StorageReport, SyncPeerReport } from '../protocol/storage-messages.ts'
import { BusError } from '../runtime/bus.ts'
import type { Timers } from '../runtime/timers.ts'
import { type BenchCluster, STORAGE_IDS } from './cluster.ts'

const POLL_MS = 10
/** Standing still for so long is not slow, it is broken. */
const STILL_MS_MAX = 60_000

/** What one storage server, and its sync workers, say of themselves. */
export interface Member {
  readonly report: Pick<StorageReport, 'storageId' | 'epoch' | 'binlogEnd' | 'positions'>
  /** How far each peer has been served. */
  readonly served: readonly Pick<SyncPeerReport, 'storageId' | 'mark'>[]
}

/** Between a source's last durable record and the last one that its peer has, in the source's time: the larger of the two. */
export function lagMs(members: readonly Member[]): number {
  const lags = members.flatMap(source =>
    members.filter(peer => peer !== source).map(peer => lagBehind(source, peer.report)),
  )
  return Math.max(0, ...lags)
}

function lagBehind({ report, served }: Member, peer: Member['report']): number {
  const { binlogEnd, epoch } = report
  const position = peer.positions.find(({ storageId }) => storageId === report.storageId)
  const mark = served.find(({ storageId }) => storageId === peer.storageId)?.mark
  // A start is a record of its own, with a time, that is not for peers: only the mark passes over it.
  if (mark?.epoch === epoch && mark.sequence >= binlogEnd.sequence) return 0
  return binlogEnd.timeMs === 0 ? 0 : binlogEnd.timeMs - (position?.timeMs ?? 0)
}

/** Waits until nobody is further behind than `lagMsMax`; resolves with the seconds that it took. */
export async function untilReplicated(cluster: BenchCluster, timers: Timers, lagMsMax: number): Promise<number> {
  const startMs = performance.now()
  let last = ''
  let movedMs = startMs
  for (;;) {
    const members = await askMembers(cluster)
    const isNear = members.length === STORAGE_IDS.length && lagMs(members) <= lagMsMax
    if (isNear) return (performance.now() - startMs) / 1000
    const positions = JSON.stringify(members.map(({ report }) => [report.binlogEnd, ...report.positions]))
    if (positions !== last) movedMs = performance.now()
    last = positions
    if (performance.now() - movedMs > STILL_MS_MAX) throw new Error(`replication stands still at ${positions}`)
    await timers.sleep(POLL_MS)
  }
}

/** Asks all members; one that has just started, and is not on the bus yet, is left out. */
async function askMembers(cluster: BenchCluster): Promise<Member[]> {
  const members = await Promise.all(
    STORAGE_IDS.map(async id => {
      try {
        return { report: await cluster.report(id), served: (await cluster.syncReport(id)).peers }
      } catch (error) {
        if (error instanceof BusError && error.code === 'no_responders') return undefined
        throw error
      }
    }),
  )
  return members.filter(member => member !== undefined)
}
