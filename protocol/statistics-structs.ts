/**
 * What trackers tell FastDFS's monitoring tools, as packed structs. Widths in bytes; times are seconds since 1970, sizes MiB.
 *
 *     GroupStat 113                         StorageStat 487 (IPv4), 517 (IPv6)
 *       0  group                17            0  status                1   0 INIT, 5 OFFLINE, 7 ACTIVE
 *      17  total                 8            1  read and write mode   1   6 both, 4 read, 0 neither
 *      25  free                  8            2  id                   16
 *      33  reserved              8           18  address           16/46
 *      41  trunk free            8            +  id of old data's source 16   empty: all members sync with all
 *      49  storage count         8            +  version               8
 *      57  storage port          8            +  join, up              8 each
 *      65  readable count        8            +  total, free, reserved 8 each
 *      73  writable count        8            +  upload priority       8
 *      81  current write server  8            +  store path count      8
 *      89  store path count      8            +  directories a level   8
 *      97  directories a level   8            +  current write path    8
 *     105  current trunk file    8            +  port                  8
 *                                             +  StatBuff            348
 *                                             +  is trunk server       1
 *
 *     StatBuff 348                          StorageBrief 67
 *       0  connection counts  3 x 4           0  status                1
 *      12  counters          42 x 8           1  port                  4
 *          in the order of statistics.ts      5  id                   16
 *                                            21  address              46
 *
 *     a tracker 90                          a storage server 106       a group's room 59
 *       0  host and port        52            0  id               16     0  group                17
 *      52  is leader             1           16  host and port    52    17  total                 8
 *      53  is active             1           68  is trunk server   1    25  free                  8
 *      54  connection counts 3 x 4           69  status            1    33  reserved              8
 *      66  version               8           70  connections   3 x 4    41  available             8
 *      74  up                    8           82  version           8    49  trunk free            8
 *      82  last heart beat       8           90  up                8    57  is disk available     1
 *                                            98  last heart beat   8    58  is trunk available    1
 *
 * There is no trunk server: trunk fields say what FastDFS says where trunk files are off, but that `trunk free` of a
 * group is the room in free slots. Our trackers keep no cursors that FastDFS would understand: "current" is always 0.
 */
import { FieldWriter } from './field-writer.ts'
import { GROUP_NAME_BYTES } from './file-id.ts'
import { CONNECTION_STATISTICS, COUNTERS } from './statistics.ts'
import { type StorageReport, type StorageStatus, spaceOf } from './storage-messages.ts'
import { formatAddress } from './tracker-bodies.ts'
import type { GroupView, RoleView, StorageView } from './tracker-messages.ts'

/** FastDFS's names and numbers for the states that ours have. */
export const STORAGE_STATUS = { INIT: 0, OFFLINE: 5, ACTIVE: 7 } as const

const STATUS_NAMES: Record<StorageStatus, keyof typeof STORAGE_STATUS> = {
  joining: 'INIT',
  active: 'ACTIVE',
  readonly: 'ACTIVE',
  draining: 'ACTIVE',
  offline: 'OFFLINE',
}

/** Subdirectories of a store path, and of each of them. */
export const SUBDIR_COUNT = 256

const READ = 4
const WRITE = 2

const ID_BYTES = 16
const VERSION_BYTES = 8
const HOST_BYTES = 52
/** An address in a struct ends with a NUL, unlike in the reply to a query. */
const IPV6_FIELD_BYTES = 46
const STAT_BUFF_BYTES = 348
const GROUP_FIELD_BYTES = GROUP_NAME_BYTES + 1
const MIB = 2 ** 20

/** What FastDFS would call the state of a storage server. */
export function statusNameOf({ report, online }: StorageView): keyof typeof STORAGE_STATUS {
  return online ? STATUS_NAMES[report.status] : 'OFFLINE'
}

export function writeGroupStat(group: GroupView): Buffer {
  const { diskFreeBytes, reservedBytes, reusableBytes, totalBytes } = group
  return new FieldWriter(113)
    .text(group.group, GROUP_FIELD_BYTES)
    .int64(mib(totalBytes), mib(diskFreeBytes), mib(reservedBytes), mib(reusableBytes))
    .int64(group.storages, group.port, group.readable, group.writable, 0)
    .int64(group.storePathCount, SUBDIR_COUNT, -1)
    .end()
}

/** `addressBytes` are those of the cluster's addresses, without the NUL; `nowMs` is the wall clock's. */
export function writeStorageStat(view: StorageView, addressBytes: number, nowMs: number): Buffer {
  const { report } = view
  const { totalBytes, freeBytes, reservedBytes } = spaceOf(report)
  const { madeS = 0, startedS = 0, uploadPriority, storePaths, port } = report
  return new FieldWriter(472 + addressBytes)
    .byte(STORAGE_STATUS[statusNameOf(view)], modeOf(view))
    .text(String(report.storageId), ID_BYTES)
    .text(report.ip, addressBytes + 1)
    .text('', ID_BYTES)
    .text(report.version, VERSION_BYTES)
    .int64(madeS, startedS, mib(totalBytes), mib(freeBytes), mib(reservedBytes))
    .int64(uploadPriority, storePaths.length, SUBDIR_COUNT, 0, port)
    .bytes(writeStatBuff(view, nowMs))
    .byte(0)
    .end()
}

function writeStatBuff(view: StorageView, nowMs: number): Buffer {
  const counters = { ...view.report.statistics, last_heart_beat_time: heardS(view, nowMs) }
  return new FieldWriter(STAT_BUFF_BYTES)
    .int32(...connectionsOf(view.report))
    .int64(...COUNTERS.map(name => (counters as Record<string, number>)[name] ?? 0))
    .end()
}

export function writeStorageBrief(view: StorageView): Buffer {
  const { storageId, ip, port } = view.report
  return new FieldWriter(67)
    .byte(STORAGE_STATUS[statusNameOf(view)])
    .int32(port)
    .text(String(storageId), ID_BYTES)
    .text(ip, IPV6_FIELD_BYTES)
    .end()
}

/** A tracker of the cluster, at an address that its name stands for now. */
export function writeTrackerPart(
  role: RoleView,
  { address, isLeader, isActive }: { address: string; isLeader: boolean; isActive: boolean },
  nowMs: number,
): Buffer {
  const { connectionPeak = 0, connections = 0 } = role
  return new FieldWriter(90)
    .text(address, HOST_BYTES)
    .byte(Number(isLeader), Number(isActive))
    .int32(connectionPeak, connections, connectionPeak)
    .text(role.version ?? '', VERSION_BYTES)
    .int64(role.startedS ?? 0, heardS(role, nowMs))
    .end()
}

export function writeStoragePart(view: StorageView, nowMs: number): Buffer {
  const { report } = view
  return new FieldWriter(106)
    .text(String(report.storageId), ID_BYTES)
    .text(formatAddress(report.ip, report.port), HOST_BYTES)
    .byte(0, STORAGE_STATUS[statusNameOf(view)])
    .int32(...connectionsOf(report))
    .text(report.version, VERSION_BYTES)
    .int64(report.startedS ?? 0, heardS(view, nowMs))
    .end()
}

export function writeVolumePart(group: GroupView): Buffer {
  const available = availableOf(group)
  return new FieldWriter(59)
    .text(group.group, GROUP_FIELD_BYTES)
    .int64(mib(group.totalBytes), mib(group.diskFreeBytes), mib(group.reservedBytes), mib(available), 0)
    .byte(Number(available > 0), 0)
    .end()
}

/** What uploads may take of a group's disks; nothing, where no member takes any. */
export function availableOf({ writable, diskFreeBytes, reservedBytes }: GroupView): number {
  return writable === 0 ? 0 : Math.max(0, diskFreeBytes - reservedBytes)
}

/** Whether a storage server takes reads and uploads now, as a sum of 4 and 2. */
export function modeOf({ report, online }: StorageView): number {
  if (!online || report.status === 'joining') return 0
  return report.status === 'active' ? READ | WRITE : READ
}

function connectionsOf({ statistics = {} }: StorageReport): number[] {
  return CONNECTION_STATISTICS.map(name => statistics[name] ?? 0)
}

function heardS({ beatAgeMs }: { beatAgeMs: number }, nowMs: number): number {
  return Math.floor((nowMs - beatAgeMs) / 1000)
}

function mib(bytes: number): number {
  return Math.floor(bytes / MIB)
}
