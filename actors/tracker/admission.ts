/** Who may join: the checks that keep two servers from living under one storage id. */
import type { StorageReport, Welcome } from '../../protocol/storage-messages.ts'
import { findStorage, type Groups } from './view.ts'

export type Admission = Pick<Welcome, 'accepted' | 'code' | 'epochMin'>

const ACCEPTED: Admission = { accepted: true }
const IN_USE: Admission = { accepted: false, code: 'storage_id_in_use' }

/** Judges a beat: two that are alive under one id cannot both be right, and the older start gives way. */
export function admitBeat(groups: Groups, report: StorageReport): Admission {
  const known = findStorage(groups, report.storageId)
  if (known === undefined) return ACCEPTED
  if (known.report.incarnation !== report.incarnation) return known.online ? IN_USE : ACCEPTED
  const { count, secret } = known.report.boot
  if (report.boot.count < count) return IN_USE
  if (report.boot.count === count && report.boot.secret !== secret && known.online) return IN_USE
  return ACCEPTED
}

/** Judges a join. Before it, a server has promised nothing in this life, so its binlog can be held against its past. */
export function admitJoin(groups: Groups, report: StorageReport): Admission {
  const admission = admitBeat(groups, report)
  if (!admission.accepted) return admission
  const epochMin = leastEpoch(groups, report)
  return epochMin > report.epoch ? { accepted: false, code: 'epoch_too_old', epochMin } : ACCEPTED
}

/**
 * The least epoch an id may use. Peers that have applied more of an epoch than the server itself has in its binlog
 * show that it lost data: sequences would be used twice.
 */
function leastEpoch(groups: Groups, report: StorageReport): number {
  const known = findStorage(groups, report.storageId)?.report
  let least = report.epoch
  if (known !== undefined && known.incarnation !== report.incarnation) least = Math.max(least, known.epoch + 1)
  for (const members of groups.values()) {
    for (const { report: other } of members) {
      if (other.storageId === report.storageId) continue
      const position = other.positions.find(at => at.storageId === report.storageId)
      if (position === undefined || position.epoch < report.epoch) continue
      if (position.epoch > report.epoch || position.sequence > report.binlogEnd.sequence) {
        least = Math.max(least, position.epoch + 1)
      }
    }
  }
  return least
}
