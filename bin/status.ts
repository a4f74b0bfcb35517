/** `dfs status`. */
import { type Client, type SyncLag, syncLags } from '../client/index.ts'
import type { StorageView } from '../protocol/tracker-messages.ts'
import { realWorld } from '../runtime/real-world.ts'
import { Timers } from '../runtime/timers.ts'
import { DONE, formatBytes, formatSeconds, formatTable, printError, printJson } from './output.ts'
import type { ClusterFlags, Session } from './session.ts'

export interface StatusFlags extends ClusterFlags {
  readonly watch?: boolean
}

/** What a tracker says of the cluster. */
export type ClusterStatus = Awaited<ReturnType<Client['status']>>

const WATCH_EVERY_MS = 2_000
const CLEAR_SCREEN = '\x1b[H\x1b[2J\x1b[3J'

export async function status(session: Session, flags: StatusFlags): Promise<number> {
  if (!flags.watch) {
    await show(session.client, flags)
    return DONE
  }
  const timers = new Timers(realWorld().clock)
  while (!session.signal.aborted) {
    if (process.stdout.isTTY && !flags.json) process.stdout.write(CLEAR_SCREEN)
    // While a part of the cluster is down is when people watch.
    await show(session.client, flags).catch(error => printError('status', error))
    await pause(timers, session.signal)
  }
  return DONE
}

async function show(client: Client, flags: StatusFlags): Promise<void> {
  const status = await client.status()
  const lags = syncLags(status.storages)
  if (flags.json) printJson({ ...status, syncLags: lags })
  else process.stdout.write(formatStatus(status, lags))
}

/** The status as people read it: a few lines, then one table of groups and one of storage servers. */
export function formatStatus(status: ClusterStatus, lags: readonly SyncLag[]): string {
  const { trackerId, version, stale, natsServer, jetstream, roles, groups, storages } = status
  const warning = stale
    ? `STALE: ${trackerId} has not heard anybody for a while. What follows is what it knew before.\n\n`
    : ''
  const head = formatTable([
    ['natsdfs', `${version}, as ${trackerId} sees it`],
    ['NATS', `${natsServer || 'version unknown'}, JetStream ${jetstream ? 'on' : 'OFF'}`],
    // Whoever answers is there, even if it has not heard its own first beat yet.
    ['trackers', roleList(roles, 'tracker', trackerId)],
    ['gateways', roleList(roles, 'gateway', 'NONE')],
  ])
  const groupTable = formatTable([
    ['GROUP', 'ONLINE', 'FREE', 'TOTAL'],
    ...groups.map(({ group, online, storages, freeBytes, totalBytes }) => [
      group,
      `${online} of ${storages}`,
      formatBytes(freeBytes),
      formatBytes(totalBytes),
    ]),
  ])
  const storageTable = formatTable([
    [
      'ID',
      'GROUP',
      'ADDRESS',
      'STATUS',
      'FREE',
      'IN SLOTS',
      'TOTAL',
      'UPLOADS',
      'DOWNLOADS',
      'DELETES',
      'BINLOG',
      'PEERS BEHIND',
    ],
    ...storages.map(view => storageRow(view, lags)),
  ])
  const tables = [head, groups.length > 0 ? groupTable : '', storages.length > 0 ? storageTable : '']
  if (storages.length === 0) tables.push('No storage server has ever been heard of.\n')
  return warning + tables.filter(text => text !== '').join('\n')
}

/** How a storage server is, in a few words. */
export function statusText({ report, online, beatAgeMs }: StorageView): string {
  if (!online) return `OFFLINE, last heard ${formatSeconds(beatAgeMs / 1000)} ago`
  const { badFiles = 0, asideFiles = 0 } = report.counts
  const notes = [
    ...(badFiles === 0 ? [] : [`${badFiles} bad files`]),
    ...(asideFiles === 0 ? [] : [`${asideFiles} files kept aside`]),
    ...ordersText(report),
  ]
  if (report.status === 'active') return ['active', ...notes].join(', ')
  return report.reason === undefined ? report.status : `${report.status}: ${report.reason}`
}

/** Whose changes a storage server orders, if not only those of its own files. */
function ordersText({ storageId, orders }: StorageView['report']): string[] {
  if (orders === undefined) return []
  const others = orders.filter(source => source !== storageId)
  const own = orders.includes(storageId) ? [] : ['orders no changes of its files']
  return others.length === 0 ? own : [...own, `orders changes for ${others.join(', ')}`]
}

/** How far a peer is behind, in a few words. */
export function lagText({ behindMs, records, bytes }: SyncLag): string {
  if (behindMs === undefined) return 'has nothing yet'
  if (records === undefined) return behindMs === 0 ? 'in sync' : `${formatSeconds(behindMs / 1000)} behind`
  if (records === 0) return 'in sync'
  return `${records} records, ${formatBytes(bytes ?? 0)}, ${formatSeconds(behindMs / 1000)} behind`
}

function storageRow(view: StorageView, lags: readonly SyncLag[]): readonly string[] {
  const { storageId, group, host, port, storePaths, statistics = {}, binlogEnd } = view.report
  const peers = lags.filter(({ source }) => source === storageId).map(lag => `${lag.peer}: ${lagText(lag)}`)
  return [
    String(storageId),
    group,
    `${host}:${port}`,
    statusText(view),
    formatBytes(storePaths.reduce((sum, path) => sum + path.freeBytes, 0)),
    formatBytes(storePaths.reduce((sum, { reusableBytes = 0 }) => sum + reusableBytes, 0)),
    formatBytes(storePaths.reduce((sum, path) => sum + path.totalBytes, 0)),
    ...(['upload', 'download', 'delete'] as const).map(of => String(statistics[`success_${of}_count`] ?? 0)),
    String(binlogEnd.sequence),
    peers.length === 0 ? '-' : peers.join(', '),
  ]
}

function roleList(roles: ClusterStatus['roles'], wanted: string, ifNone: string): string {
  const found = roles.filter(({ role }) => role === wanted)
  if (found.length === 0) return ifNone
  return found.map(({ id, endpoint }) => (endpoint === '' ? id : `${id} (${endpoint})`)).join(', ')
}

function pause(timers: Timers, signal: AbortSignal): Promise<void> {
  return new Promise(resolve => {
    const end = () => {
      cancel()
      signal.removeEventListener('abort', end)
      resolve()
    }
    const cancel = timers.set(WATCH_EVERY_MS, end)
    signal.addEventListener('abort', end)
  })
}
