/** `dfs doctor`: looks at what commonly goes wrong, on this machine and in the cluster, and says what to do about it. */
import { connect as connectSocket } from 'node:net'
import { join } from 'node:path'
import { type Client, type SyncLag, syncLags } from '../client/index.ts'
import type { StorageView } from '../protocol/tracker-messages.ts'
import { type ClusterFile, findCluster } from '../runtime/cluster-file.ts'
import { findNatsServer, natsServerVersion } from '../runtime/nats-server.ts'
import { realEnvironment } from '../runtime/real-environment.ts'
import { realWorld } from '../runtime/real-world.ts'
import { Timers } from '../runtime/timers.ts'
import type { World } from '../runtime/world.ts'
import { DONE, FAILED, formatBytes, formatSeconds, printJson, printLine } from './output.ts'
import { type ClusterFlags, connectAs } from './session.ts'
import { type ClusterStatus, lagText, statusText } from './status.ts'

/** One thing that was looked at. */
export interface Check {
  readonly level: 'ok' | 'warn' | 'fail'
  readonly text: string
  /** What to do, unless all is well. */
  readonly advice?: string
}

const NODE_MIN = '20.19.0'

/** Beats come every second; a tracker calls a storage server offline after four. */
const SILENT_MS = 4_000
/** Beats of two servers are up to a second apart, and a busy group is always some records behind. */
const LAG_MS_MAX = 10_000
/** Two beats and a replay later. */
const SECOND_LOOK_MS = 2_500
/** Of a store path or disk; below that people should think about more room. */
const FREE_SHARE_MIN = 0.05
/** A disk with less cannot keep a binlog for long. */
const FREE_BYTES_MIN = 256 * 1024 * 1024

/** A unix socket's path ends at about a hundred bytes; a lock behind a longer one cannot be asked by its name. */
const SOCKET_PATH_BYTES_MAX = 100

/** First patch of each line of nats-server without the known holes; what is older than all of them has them too. */
const NATS_SAFE = ['2.10.27', '2.11.15', '2.12.6'] as const

export async function doctor(flags: ClusterFlags): Promise<void> {
  const world = realWorld()
  const checks: Check[] = [checkNode(process.versions.node)]
  const { client, failure } = await connectAs(flags).then(
    client => ({ client, failure: undefined }),
    (failure: unknown) => ({ client: undefined, failure }),
  )
  checks.push(await checkNatsProgram(world, client !== undefined))
  if (client === undefined) {
    checks.push(
      fail(plain(failure), 'start a cluster with `dfs up`, or say where one is: --cluster, --credentials, --nats'),
    )
  } else {
    checks.push(ok('NATS answers'), ...(await checkCluster(client, new Timers(world.clock))))
    await client.close()
  }
  const cluster = await findCluster(world.disk, realEnvironment(), flags.cluster).catch(() => undefined)
  if (cluster !== undefined) checks.push(...(await checkDataDirectories(world, cluster)))

  const healthy = checks.every(({ level }) => level !== 'fail')
  if (flags.json) printJson({ healthy, checks })
  else for (const check of checks) printLine(formatCheck(check))
  // Not left to Node: a failed attempt to connect may leave a socket that keeps the process alive.
  process.exit(healthy ? DONE : FAILED)
}

/** `warn  text  - what to do`. */
export function formatCheck({ level, text, advice }: Check): string {
  return `${level.padEnd(4)}  ${text}${advice === undefined ? '' : `  - ${advice}`}`
}

/** Node itself. */
export function checkNode(version: string): Check {
  if (compareVersions(version, NODE_MIN) >= 0) return ok(`Node ${version}`)
  return fail(`Node ${version} is too old`, `install Node ${NODE_MIN} or newer`)
}

/** A version of nats-server, running or about to be run. */
export function checkNatsVersion(version: string, what: string): Check {
  if (!/^\d+\.\d+/.test(version)) return warn(`${what} does not say its version`, 'use a released nats-server')
  const line = NATS_SAFE.find(safe => minorOf(safe) === minorOf(version)) ?? NATS_SAFE[0]
  if (compareVersions(version, line) >= 0) return ok(`${what} ${version}`)
  return warn(
    `${what} ${version} has published holes: CVE-2025-30215, and CVE-2026-33218 where it listens for leaf nodes`,
    `upgrade to ${NATS_SAFE.join(', ')} or newer, and let nobody but the cluster reach it until then`,
  )
}

/** What a tracker's view shows: roles, members, room, sync. */
export function examineStatus(status: ClusterStatus): Check[] {
  const { stale, trackerId, natsServer, jetstream, storages } = status
  const checks: Check[] = [checkNatsVersion(natsServer, 'the running nats-server')]
  checks.push(
    stale
      ? fail(`the view of ${trackerId} is stale: it hears nobody`, 'see whether its connection to NATS works')
      : ok(`${trackerId} hears the cluster`),
    jetstream
      ? ok('JetStream is on')
      : warn('JetStream is off: binlog events are not kept for followers', 'enable it in nats-server.conf'),
    checkRole(status, 'tracker'),
    checkRole(status, 'gateway'),
  )
  if (storages.length === 0) checks.push(fail('there is no storage server', 'start one with `dfs storage`'))
  for (const view of storages) checks.push(checkStorage(view), ...checkStorePaths(view))
  checks.push(...checkGroups(status), ...checkSync(storages, syncLags(storages)))
  return checks
}

async function checkCluster(client: Client, timers: Timers): Promise<Check[]> {
  try {
    const first = await client.status()
    if (!syncLags(first.storages).some(isLate)) return examineStatus(first)
    // After an hour without uploads, the first one is for a moment an hour ahead of its peers: only what lasts counts.
    await timers.sleep(SECOND_LOOK_MS)
    return examineStatus(await client.status())
  } catch (error) {
    return [fail(plain(error), 'start a tracker with `dfs tracker`, or the whole cluster with `dfs up`')]
  }
}

async function checkNatsProgram({ disk, processes }: World, isRunning: boolean): Promise<Check> {
  const { natsServer: configured, searchPath, home } = realEnvironment()
  try {
    const path = await findNatsServer(disk, { configured, searchPath, home })
    return checkNatsVersion(await natsServerVersion(processes, path), path)
  } catch (error) {
    const advice = 'install nats-server, or name one in DFS_NATS_SERVER'
    // Whoever has a NATS elsewhere needs none here.
    return isRunning ? warn(plain(error), `${advice}, if \`dfs up\` is to run here`) : fail(plain(error), advice)
  }
}

function checkRole({ roles }: ClusterStatus, wanted: string): Check {
  const found = roles.filter(({ role }) => role === wanted)
  const silent = found.filter(({ beatAgeMs }) => beatAgeMs > SILENT_MS)
  if (found.length === 0) return warn(`no ${wanted} has been heard of`, `start one with \`dfs ${wanted}\``)
  if (silent.length === 0) return ok(`${wanted}: ${found.map(({ id }) => id).join(', ')}`)
  const age = formatSeconds(Math.max(...silent.map(({ beatAgeMs }) => beatAgeMs)) / 1000)
  return warn(
    `${wanted} ${silent.map(({ id }) => id).join(', ')} silent for ${age}`,
    'see whether it runs, and its log',
  )
}

function checkStorage(view: StorageView): Check {
  const { storageId, group, status } = view.report
  const text = `storage server ${storageId} of ${group}: ${statusText(view)}`
  if (!view.online) return fail(text, 'see whether it runs, and its log')
  switch (status) {
    case 'active':
      if ((view.report.counts.badFiles ?? 0) === 0) return ok(text)
      return warn(text, 'its file `quarantine` names them; clients get those of its peers; see to its disks')
    case 'draining':
      return warn(text, 'it is about to stop; start it again')
    default:
      return fail(text, 'it takes no uploads until this is mended')
  }
}

function checkStorePaths({ report, online }: StorageView): Check[] {
  if (!online) return []
  return report.storePaths.map(({ index, freeBytes, totalBytes, reservedBytes, writable }) => {
    const name = `store path M${index.toString(16).toUpperCase().padStart(2, '0')} of storage server ${report.storageId}`
    const leftBytes = freeBytes - reservedBytes
    const room = `${formatBytes(Math.max(0, leftBytes))} left above the ${formatBytes(reservedBytes)} reserved`
    if (!writable)
      return fail(`${name} cannot be written`, 'see its log, its disk and its mount; then restart the server')
    if (leftBytes <= 0) return fail(`${name} is full`, 'free some space, add a store path, or add a group')
    if (leftBytes < totalBytes * FREE_SHARE_MIN) return warn(`${name}: ${room}`, 'free some space or add a group soon')
    return ok(`${name}: ${room}`)
  })
}

function checkGroups({ groups }: ClusterStatus): Check[] {
  return groups
    .filter(({ freeBytes }) => freeBytes === 0)
    .map(({ group }) => fail(`${group} takes no uploads`, 'mend a member of it, or make room'))
}

function checkSync(storages: readonly StorageView[], lags: readonly SyncLag[]): Check[] {
  const late = lags.filter(isLate)
  if (lags.length > 0 && late.length === 0) return [ok('all members are in sync, or seconds behind')]
  return late.map(lag => {
    const isOnline = (id: number) => storages.some(({ report, online }) => report.storageId === id && online)
    const text = `storage server ${lag.peer}, files of ${lag.source}: ${lagText(lag)}`
    const advice = [lag.source, lag.peer].every(isOnline) ? `see the log of storage server ${lag.source}` : 'start both'
    return warn(text, advice)
  })
}

function isLate({ behindMs }: SyncLag): boolean {
  return behindMs === undefined || behindMs > LAG_MS_MAX
}

/** What only this machine knows: the processes, locks and disks of a `dfs up`. */
async function checkDataDirectories({ disk, processes }: World, cluster: ClusterFile): Promise<Check[]> {
  const checks: Check[] = []
  for (const { id, dataDir, pid } of cluster.storages) {
    const name = `data directory ${dataDir}`
    if ((await disk.stat(dataDir)) === undefined) {
      checks.push(fail(`${name} is gone`, `restore it, or give storage server ${id} a new one`))
      continue
    }
    const runs = processes.alive(pid)
    const locked = await isLocked(dataDir)
    if (runs && locked === false) {
      checks.push(fail(`${name} is not locked, but its server runs`, 'restart it: somebody removed its lock file'))
    } else if (!runs) {
      const text = locked ? `${name} is locked by another process` : `storage server ${id} does not run`
      checks.push(warn(text, locked ? 'see who else uses it' : 'start the cluster with `dfs up`'))
    } else checks.push(ok(`${name} is ${locked === undefined ? 'in use' : 'locked'} by its server`))
    const { freeBytes, totalBytes } = await disk.space(dataDir)
    const text = `${formatBytes(freeBytes)} free for ${name}`
    if (freeBytes < FREE_BYTES_MIN) checks.push(fail(text, 'free some space: a binlog that cannot grow stops uploads'))
    else if (freeBytes < totalBytes * FREE_SHARE_MIN) checks.push(warn(text, 'free some space soon'))
    else checks.push(ok(text))
  }
  return checks
}

/** Whether somebody answers on the lock of a directory; undefined if it cannot be asked. Taking it would be in the way. */
function isLocked(directory: string): Promise<boolean | undefined> {
  const path = join(directory, 'lock')
  if (Buffer.byteLength(path) > SOCKET_PATH_BYTES_MAX) return Promise.resolve(undefined)
  return new Promise(resolve => {
    const visitor = connectSocket(path, () => {
      visitor.destroy()
      resolve(true)
    })
    visitor.on('error', () => resolve(false))
  })
}

function ok(text: string): Check {
  return { level: 'ok', text }
}

function warn(text: string, advice: string): Check {
  return { level: 'warn', text, advice }
}

function fail(text: string, advice: string): Check {
  return { level: 'fail', text, advice }
}

function plain(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

function minorOf(version: string): string {
  return version.split('.').slice(0, 2).join('.')
}

/** Compares the numbers of versions; what follows them does not count. */
function compareVersions(a: string, b: string): number {
  const [left, right] = [a, b].map(version => version.split(/[^0-9]+/, 3).map(Number))
  for (const i of [0, 1, 2]) {
    const difference = (left![i] ?? 0) - (right![i] ?? 0)
    if (difference !== 0) return difference
  }
  return 0
}
