/** What a tracker knows: every storage server by its last report, and who else is there. Never a file. */
import type { FileNameParts } from '../../protocol/file-id.ts'
import type { PayloadOf } from '../../protocol/message.ts'
import {
  GROUP_MEMBERS_MAX,
  type Peer,
  type StorageReport,
  type StorePathReport,
  spaceOf,
} from '../../protocol/storage-messages.ts'
import type { GroupView, roleBeat, ServerAddress, StorageView } from '../../protocol/tracker-messages.ts'

/** Silent for so long, a server counts as offline: four beats. */
export const OFFLINE_AFTER_MS = 4_000

/** A storage server as it last spoke. */
export interface StorageEntry {
  readonly report: StorageReport
  /** When, by this tracker's monotonic clock. */
  readonly heardMs: number
  readonly online: boolean
}

/** A tracker, gateway or sync worker, as it last spoke. */
export type RoleEntry = Omit<PayloadOf<typeof roleBeat>, 'leaving'> & { readonly heardMs: number }

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

/** The storage id of a file's source among the members of its group, also of one that FastDFS named by its address. */
export function sourceIn(members: readonly StorageEntry[], file: FileNameParts): number | undefined {
  const namedAs = file.address ?? String(file.storageId)
  const heir = members.find(({ report }) => report.formerly?.includes(namedAs))
  return heir?.report.storageId ?? file.storageId
}

/** Who orders the changes of a source's files: the source, unless a member has taken over. */
export function ordererIn(members: readonly StorageEntry[], source: number | undefined): number | undefined {
  if (source === undefined) return undefined
  let last: StorageReport | undefined
  for (const { report } of members)
    if (report.orders?.includes(source) && (report.term ?? 0) >= (last?.term ?? 0)) last = report
  return last?.storageId ?? source
}

/** Whether a member surely holds a file: it is the source, or has applied the source's records past that second. */
export function surelyHolds(entry: StorageEntry, source: number | undefined, file: FileNameParts): boolean {
  if (source === undefined) return true
  if (entry.report.storageId === source) return true
  const position = entry.report.positions.find(at => at.storageId === source)
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
    .map(({ report: { storageId, host, ip, port, epoch, status, formerly, madeS }, online }) => ({
      storageId,
      host,
      ip,
      port,
      epoch,
      status: online ? status : 'offline',
      ...(formerly === undefined || madeS === undefined ? {} : { formerly, madeS }),
    }))
}

export function groupView(group: string, members: readonly StorageEntry[]): GroupView {
  const online = members.filter(member => member.online)
  const writable = members.filter(isWritable)
  const totals = online.map(({ report }) => spaceOf(report).totalBytes)
  const fullest = (writable.length > 0 ? writable : online).reduce<StorageEntry | undefined>(
    (least, entry) => (least === undefined || availableBytes(entry) < availableBytes(least) ? entry : least),
    undefined,
  )
  const space = spaceOf(fullest?.report ?? { storePaths: [] })
  const first = members[0]?.report
  return {
    group,
    storages: members.length,
    online: online.length,
    readable: members.filter(isReadable).length,
    writable: writable.length,
    freeBytes: groupAvailableBytes(members),
    totalBytes: totals.length === 0 ? 0 : Math.min(...totals),
    diskFreeBytes: space.freeBytes,
    reservedBytes: space.reservedBytes,
    reusableBytes: space.reusableBytes,
    port: first?.port ?? 0,
    storePathCount: first?.storePaths.length ?? 0,
  }
}

/** Whether any storage server has an IPv6 address; looked at again when the groups have changed. */
export function hasIpv6(groups: Groups): boolean {
  let found = ipv6.get(groups)
  if (found === undefined) {
    found = [...groups.values()].some(members => members.some(({ report }) => report.ip.includes(':')))
    ipv6.set(groups, found)
  }
  return found
}

const ipv6 = new WeakMap<Groups, boolean>()

export function storageView(entry: StorageEntry, nowMs: number): StorageView {
  return { report: entry.report, online: entry.online, beatAgeMs: Math.round(nowMs - entry.heardMs) }
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, n) => total + n, 0)
}
