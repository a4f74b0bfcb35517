/** `dfs monitor`: what FastDFS's `fdfs_monitor` tells, under the same names. */
import { DfsError } from '../client/index.ts'
import { CONNECTION_STATISTICS, COUNTERS } from '../protocol/statistics.ts'
import { modeOf, SUBDIR_COUNT, statusNameOf } from '../protocol/statistics-structs.ts'
import { spaceOf } from '../protocol/storage-messages.ts'
import { formatAddress } from '../protocol/tracker-bodies.ts'
import type { GroupView, StorageView } from '../protocol/tracker-messages.ts'
import { realWorld } from '../runtime/real-world.ts'
import { DONE, formatBytes, formatSeconds, printJson } from './output.ts'
import type { ClusterFlags, Session } from './session.ts'
import type { ClusterStatus } from './status.ts'

type Line = readonly [name: string, value: string | number]

const MODES: Readonly<Record<number, string>> = { 0: 'none', 4: 'read', 6: 'both' }

export async function monitor(session: Session, group: string | undefined, flags: ClusterFlags): Promise<number> {
  const { groups, storages, ...rest } = await session.client.status()
  const isShown = (view: { group: string }) => group === undefined || view.group === group
  const shown = {
    ...rest,
    groups: groups.filter(isShown),
    storages: storages.filter(({ report }) => isShown(report)),
  }
  if (group !== undefined && shown.groups.length === 0) throw new DfsError('unknown_group')
  if (flags.json) printJson(shown)
  else process.stdout.write(formatMonitor(shown, realWorld().clock.wallMs()))
  return DONE
}

/** Group by group, and in each storage server by storage server: a line `name = value` for each number. */
export function formatMonitor({ roles, groups, storages }: ClusterStatus, nowMs: number): string {
  const trackers = roles.filter(({ role }) => role === 'tracker')
  const endpoints = trackers.map(({ endpoint }) => endpoint).join(', ')
  let text = `tracker server count: ${trackers.length}  ${endpoints}\ngroup count: ${groups.length}\n`
  for (const [i, group] of groups.entries()) {
    const members = storages.filter(({ report }) => report.group === group.group)
    text += `\nGroup ${i + 1}:\n${indented('', groupLines(group))}`
    for (const [i, view] of members.entries()) {
      text += `\n    Storage ${i + 1}:\n${indented('        ', storageLines(view, members, nowMs))}`
    }
  }
  return text
}

function groupLines(group: GroupView): Line[] {
  return [
    ['group name', group.group],
    ...spaceLines({ ...group, freeBytes: group.diskFreeBytes }),
    ['trunk free space', formatBytes(group.reusableBytes)],
    ['storage server count', group.storages],
    ['readable server count', group.readable],
    ['writable server count', group.writable],
    ['storage server port', group.port],
    ['store path count', group.storePathCount],
    ['subdir count per path', SUBDIR_COUNT],
  ]
}

function storageLines(view: StorageView, members: readonly StorageView[], nowMs: number): Line[] {
  const { report } = view
  const { storageId, ip, port, version, madeS = 0, startedS = 0, uploadPriority, storePaths } = report
  return [
    ['id', storageId],
    ['host', `${formatAddress(ip, port)}  ${statusNameOf(view)}`],
    ['read write mode', MODES[modeOf(view)]!],
    ['version', version],
    ['join time', formatTime(madeS)],
    ['up time', formatTime(startedS)],
    ...spaceLines(spaceOf(report)),
    ['upload priority', uploadPriority],
    ['store_path_count', storePaths.length],
    ['subdir_count_per_path', SUBDIR_COUNT],
    ...statisticLines(view, members, nowMs),
  ]
}

function spaceLines(space: { totalBytes: number; freeBytes: number; reservedBytes: number }): Line[] {
  const { totalBytes, freeBytes, reservedBytes } = space
  return [
    ['disk total space', formatBytes(totalBytes)],
    ['disk free space', formatBytes(freeBytes)],
    ['disk reserved space', formatBytes(reservedBytes)],
    ['disk available space', formatBytes(Math.max(0, freeBytes - reservedBytes))],
  ]
}

function statisticLines(view: StorageView, members: readonly StorageView[], nowMs: number): Line[] {
  const { statistics = {} } = view.report
  const heardS = Math.floor((nowMs - view.beatAgeMs) / 1000)
  const values: Readonly<Record<string, number>> = { ...statistics, last_heart_beat_time: heardS }
  return [
    ...CONNECTION_STATISTICS.map((name): Line => [name.replace('_', '.'), values[name] ?? 0]),
    ...COUNTERS.map((name): Line => {
      const value = values[name] ?? 0
      if (!name.startsWith('last_')) return [name, value]
      return [name, formatTime(value) + (name === 'last_synced_timestamp' ? delayText(view, members) : '')]
    }),
  ]
}

/** How much later than what a member has another one was changed. */
function delayText(view: StorageView, members: readonly StorageView[]): string {
  const others = members.filter(other => other !== view)
  const changedS = Math.max(0, ...others.map(({ report }) => report.statistics?.last_source_update ?? 0))
  const syncedS = view.report.statistics?.last_synced_timestamp ?? 0
  if (changedS === 0) return ''
  return syncedS === 0 ? '(never synced)' : ` (${formatSeconds(Math.max(0, changedS - syncedS))} delay)`
}

/** `2026-11-21 21:46:08`, where we are; empty for never. */
function formatTime(seconds: number): string {
  // Swedes write times as everybody should.
  return seconds === 0 ? '' : new Date(seconds * 1000).toLocaleString('sv-SE')
}

function indented(indent: string, lines: readonly Line[]): string {
  return lines
    .map(([name, value]) => `${indent}${name} = ${value}`.trimEnd())
    .map(line => `${line}\n`)
    .join('')
}
