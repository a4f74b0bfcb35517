/** What a tracker knows: every storage server by its last report, and who else is there. Never a file. */
import type { FileNameParts } from '../../protocol/file-id.ts'
import {
  GROUP_MEMBERS_MAX,
  type Peer,
  type StorageReport,
  type StorePathReport,
} from '../../protocol/storage-messages.ts'
import type { GroupView, ServerAddress, StorageView } from '../../protocol/tracker-messages.ts'

/** Silent for so long, a server counts as offline: four beats. */
export const OFFLINE_AFTER_MS = 4_000

/** A storage server as it last spoke. */
export interface StorageEntry {
  readonly report: StorageReport
  /** When, by this tracker's monotonic clock. */
  readonly heardMs: number
  readonly online: boolean
}

/** A tracker, gateway or sync worker. */
export interface RoleEntry {
  readonly role: string
  readonly id: string
  readonly endpoint: string
  readonly heardMs: number
}

/** Members in the order of their ids. */
export type Groups = ReadonlyMap<string, readonly StorageEntry[]>

/** Replaces or adds a member; other groups stay as they are. A server that changed groups leaves the old one. */
export function withStorage(groups: Groups, entry: StorageEntry): Groups {
  const { group, storageId } = entry.report
  const next = new Map(groups)
  for (const [name, members] of groups) {
    if (name !== group && members.some(member => member.report.storageId === storageId)) {
      next.set(
        name,
        members.filter(member => member.report.storageId !== storageId),
      )
    }
  }
  const others = (groups.get(group) ?? []).filter(member => member.report.storageId !== storageId)
  const members = [...others, entry].sort((a, b) => a.report.storageId - b.report.storageId)
  return next.set(group, members)
}

/** The storage server with an id, whatever its group. */
export function findStorage(groups: Groups, storageId: number): StorageEntry | undefined {
  for (const members of groups.values()) {
    const found = members.find(member => member.report.storageId === storageId)
    if (found !== undefined) return found
  }
  return undefined
}

/** Whether a member takes uploads now. */
export function isWritable(entry: StorageEntry): boolean {
  return entry.online && entry.report.status === 'active' && availableBytes(entry) > 0
}

/** Whether a member answers reads now. */
export function isReadable(entry: StorageEntry): boolean {
  const { status } = entry.report
  return entry.online && (status === 'active' || status === 'readonly' || status === 'draining')
}

/** Room for uploads on a store path, above what it reserves: for small ones also in slots that are free. */
export function availableOn(path: StorePathReport): number {
  const { freeBytes, reservedBytes, reusableBytes = 0 } = path
  return path.writable ? Math.max(0, freeBytes - reservedBytes) + reusableBytes : 0
}

/** Room for uploads on a member. */
export function availableBytes(entry: StorageEntry): number {
  return sum(entry.report.storePaths.map(availableOn))
}

/** Room for uploads in a group: every file goes to all members, so the fullest one decides. */
export function groupAvailableBytes(members: readonly StorageEntry[]): number {
  const writable = members.filter(isWritable)
  return writable.length === 0 ? 0 : Math.min(...writable.map(availableBytes))
}

/** Whether a member surely holds a file: it is the source, or has applied the source's records past that second. */
export function surelyHolds(entry: StorageEntry, file: FileNameParts): boolean {
  if (file.storageId === undefined) return true
  if (entry.report.storageId === file.storageId) return true
  const position = entry.report.positions.find(at => at.storageId === file.storageId)
  return position !== undefined && Math.floor(position.timeMs / 1000) > file.createTimeS
}

export function addressOf({ report }: StorageEntry): ServerAddress {
  const { storageId, host, ip, port } = report
  return { storageId, host, ip, port }
}

/** The other members of a group; of one that is larger than allowed, as many as a Welcome can name. */
export function peersOf(groups: Groups, report: StorageReport): Peer[] {
  return (groups.get(report.group) ?? [])
    .filter(member => member.report.storageId !== report.storageId)
    .slice(0, GROUP_MEMBERS_MAX - 1)
    .map(({ report: { storageId, host, ip, port, epoch, status }, online }) => ({
      storageId,
      host,
      ip,
      port,
      epoch,
      status: online ? status : 'offline',
    }))
}

export function groupView(group: string, members: readonly StorageEntry[]): GroupView {
  const totals = members
    .filter(member => member.online)
    .map(({ report }) => sum(report.storePaths.map(p => p.totalBytes)))
  return {
    group,
    storages: members.length,
    online: members.filter(member => member.online).length,
    freeBytes: groupAvailableBytes(members),
    totalBytes: totals.length === 0 ? 0 : Math.min(...totals),
  }
}

export function storageView(entry: StorageEntry, nowMs: number): StorageView {
  return { report: entry.report, online: entry.online, beatAgeMs: Math.round(nowMs - entry.heardMs) }
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, n) => total + n, 0)
}
