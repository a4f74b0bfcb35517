/**
 * A storage server on a lazy disk, with a tracker and a bus beside it in the same process, that ends by a power cut, or by
 * a crash. For power-cuts.ts.
 *
 *     stdin    a PowerPlan, one line of JSON, begins it; any further line ends it
 *     stdout   a PowerReport, one line of JSON: it is recovered and takes uploads
 */
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { SCRUB_BYTES_PER_SECOND } from '../../actors/scrub/scrub.ts'
import { startTracker } from '../../actors/tracker/start-tracker.ts'
import { startStorageServer } from '../../bin/storage-server.ts'
import { Client } from '../../client/client.ts'
import { processLog } from '../../runtime/log.ts'
import { MemoryBroker } from '../../runtime/memory-bus.ts'
import { realWorld } from '../../runtime/real-world.ts'
import type { RoleContext } from '../../runtime/role.ts'
import { Timers } from '../../runtime/timers.ts'
import type { Clock, World } from '../../runtime/world.ts'
import type { Phase } from '../../store/phase.ts'
import type { RecoveryReport } from '../../store/store.ts'
import { SeededRandom } from '../simulation/seeded-random.ts'
import { until } from '../until.ts'
import { type AuditProblems, audit } from './audit.ts'
import { type EntryOrder, LazyDisk } from './lazy-disk.ts'

/** A phase of a change; a sync that is about to take effect; one of the binlog. */
export type PowerEvent = Phase | 'sync' | 'flush'

/** One life of the server, and its end. */
export interface PowerPlan {
  readonly directory: string
  readonly seed: string
  /** Only the process dies, and the machine keeps its memory for the next one. */
  readonly isCrash: boolean
  /** What gets through while the power goes, besides what was synced; undefined for nothing. */
  readonly tear?: EntryOrder | undefined
  /** It ends when this has happened so often since the start, if nobody says so before. */
  readonly endAt?: { readonly event: PowerEvent; readonly count: number } | undefined
  /** Larger files get a file of their own; 0 for all of them. */
  readonly segmentFileBytesMax: number
  /** The source of a regular expression: syncs of these paths do nothing. */
  readonly lies?: string | undefined
}

export interface PowerReport {
  readonly port: number
  readonly recovery: RecoveryReport
  readonly problems: AuditProblems
}

const STORAGE_ID = 7
const LOOPBACK = { host: '127.0.0.1', port: 0 }
const SECRET = 'ab'.repeat(32)

/** Lives are short: everything that waits for time, checkpoints above all, comes this many times sooner. */
const HASTE = 20

const orders = createInterface({ input: process.stdin })
orders.once('line', plan => void live(JSON.parse(plan) as PowerPlan))
// Nobody is there any more to tell us.
orders.on('close', () => process.exit(0))

async function live(plan: PowerPlan): Promise<void> {
  const random = new SeededRandom(plan.seed)
  let left = plan.endAt?.count
  const disk = new LazyDisk(join(plan.directory, 'disk'), {
    lies: plan.lies === undefined ? undefined : new RegExp(plan.lies),
    random: random.fork('latency'),
    cache: takeCache(plan.directory),
    onSync: path => {
      pass('sync')
      if (/\/binlog\/./.test(path)) pass('flush')
    },
  })
  orders.on('line', end)

  const context = contextOf(disk)
  await startTracker(context, {
    trackerId: 'tracker-1',
    credentials: credentials('tracker'),
    bind: LOOPBACK,
    advertiseHost: LOOPBACK.host,
    policy: { group: 'round_robin', server: 'by_priority', path: 'round_robin' },
  })
  const dataDirectory = join(plan.directory, 'disk', 'data')
  const storePaths = ['path0', 'path1'].map(name => join(plan.directory, 'disk', name))
  const { storage } = await startStorageServer(context, {
    dataDirectory,
    group: 'group1',
    storageId: STORAGE_ID,
    storePaths,
    storePathChoice: 'round_robin',
    reservedBytes: 0,
    segmentFileBytesMax: plan.segmentFileBytesMax,
    hotFileBytes: 0,
    durability: 'fsync',
    ack: 'one',
    scrub: { bytesPerSecond: SCRUB_BYTES_PER_SECOND },
    // Slots are used again within a life or two.
    reuse: { segmentBytes: 2 ** 20, restMs: 100, freeBytesMin: 64 },
    credentials: credentials('storage_group1'),
    syncCredentials: credentials('sync_group1'),
    clusterSecret: SECRET,
    bind: LOOPBACK,
    advertiseHost: LOOPBACK.host,
    uploadPriority: 1,
    onPhase: pass,
  })
  const { store, endpoint } = storage
  const last = { storageId: STORAGE_ID, epoch: store.epoch, sequence: store.end.sequence }
  const problems = await audit(disk, dataDirectory, storePaths, last)
  await isActive(context)
  const report: PowerReport = { port: endpoint.port, recovery: store.recovery, problems }
  process.stdout.write(`${JSON.stringify(report)}\n`)

  function pass(event: PowerEvent): void {
    if (left !== undefined && event === plan.endAt?.event && --left === 0) end()
  }

  function end(): void {
    if (plan.isCrash) writeFileSync(cachePath(plan.directory), disk.cache())
    else if (plan.tear !== undefined) disk.tear(random.fork('tear'), plan.tear)
    process.kill(process.pid, 'SIGKILL')
  }
}

/** The machine but for its disk, in a hurry, and with a bus of its own. */
function contextOf(disk: LazyDisk): RoleContext {
  const real = realWorld()
  const { clock } = real
  const hasty: Clock = {
    wallMs: () => clock.wallMs(),
    monotonicMs: () => clock.monotonicMs() * HASTE,
    alarm: (delayMs, ring) => clock.alarm(delayMs / HASTE, ring),
    turn: () => clock.turn(),
  }
  const timers = new Timers(hasty)
  const broker = new MemoryBroker(timers, real.random)
  const world: World = { ...real, disk, clock: hasty, connectBus: broker.connector() }
  return { world, timers, log: processLog('error', {}), prefix: 'dfs', version: '0.0.0' }
}

/** Waits until the server takes uploads. */
async function isActive({ world, timers, prefix }: RoleContext): Promise<void> {
  const bus = await world.connectBus({ ...credentials('client'), name: 'power', waitForServer: false })
  const client = new Client({ world, timers, bus, prefix, dataSecret: '' })
  await until('the storage server is active', async () => {
    const { storages } = await client.status()
    return storages.some(({ report }) => report.status === 'active')
  })
  await client.close()
}

function credentials(user: string) {
  return { servers: [], user, password: '', inboxPrefix: `_INBOX_${user}` }
}

function cachePath(directory: string): string {
  return join(directory, 'cache')
}

/** What the process before left in the machine's memory, if only the process died. */
function takeCache(directory: string): Buffer | undefined {
  if (!existsSync(cachePath(directory))) return undefined
  const cache = readFileSync(cachePath(directory))
  rmSync(cachePath(directory))
  return cache
}
