/**
 * One seed: a cluster, its clients, its bad days, and the mending afterwards.
 *
 *     0 s ── boot, clients work ──▶ faults begin at 3 s ──▶ faults end, everything is mended ──▶ converged? ──▶ all is read back
 */

import type { AckLevel } from '../../protocol/ack.ts'
import { toDfsError } from '../../protocol/errors.ts'
import { changingDifferences, checkHistories, doubleOrderers, unsettled } from './changing-checkers.ts'
import { isReadable, lookBack } from './changing-files.ts'
import {
  checkAcknowledged,
  checkIdle,
  checkKept,
  checkLimits,
  checkMarks,
  checkOrder,
  checkRecords,
  checkRecordsFirst,
  countReused,
  differences,
} from './checkers.ts'
import type { Doors } from './doors.ts'
import { EventLoop } from './event-loop.ts'
import { drawFaults, type Fault, mendAll, schedule } from './faults.ts'
import { holds, Ledger } from './ledger.ts'
import type { Life } from './life.ts'
import { Reigns } from './reigns.ts'
import { checkFound, passesOf, ScrubChecker } from './scrub-checkers.ts'
import { SeededRandom } from './seeded-random.ts'
import { CLIENTS, type ClusterEvents, SimCluster, STORAGES } from './sim-cluster.ts'
import { type Acknowledged, work } from './workload.ts'

const FAULTS_MS = 30_000
/** In two of five seeds with names that may change members are gone so long that others take over. */
const GONE = 0.4
const FAULTS_WITH_GONE_MS = 75_000
/** Then clients do more to those names, and in some groups more members have to hold it. */
const CHANGES_WITH_GONE = 0.5
const HELD = 0.5
/** In two of five seeds clients do so much to names that may change; a seed of both is slower, and each finds what it is for. */
const CHANGES = 0.25
/** After the mending: offline members are noticed in 4 s, retries wait 10 s at most, a silent NATS is noticed in 40 s. */
const CONVERGE_MS_MAX = 150_000
/** Reading everything back, with retries: what is excused may be tried for half a minute each. */
const READ_BACK_MS_MAX = 240_000
const READERS = 16
/** A body that stalled is given up after 30 s: then everything that was held has been let go. */
const IDLE_MS = 45_000
const CHECK_MS = 2_000
/** Two that order the same do so for a moment. */
const GLANCE_MS = 50
/** Far more than any seed needs: a loop that goes round without time passing must end, too. */
const EVENTS_MAX = 5_000_000

export interface SimulationOptions {
  readonly seed: number
  /** Numbers of faults to leave out. */
  readonly withoutFaults?: ReadonlySet<number>
  /** Operations to leave out, as `client-1 17`. */
  readonly withoutOperations?: ReadonlySet<string>
}

/** What became of a seed. */
export interface Outcome {
  readonly seed: number
  /** Undefined if all is well. */
  readonly violation: string | undefined
  readonly hash: string
  readonly events: number
  readonly virtualMs: number
  readonly faults: readonly Fault[]
  /** All that were carried out. */
  readonly operations: readonly string[]
  readonly uploads: number
  readonly downloads: number
  readonly deletes: number
  /** Changes of names that may change. */
  readonly changes: number
  /** Slots of deleted files that were given to others. */
  readonly reused: number
  /** How often somebody's files have come into other hands. */
  readonly reigns: number
  /** Changes that whoever took over did not know of. */
  readonly unknown: number
  readonly failures: number
  readonly excused: number
  /** How long after the mending the groups were alike. */
  readonly convergedMs: number
  readonly trace: readonly string[]
}

/** What goes on in a seed, and the stream for more of that. */
export function kindOf(seed: number): { kind: SeededRandom; withChanges: boolean; withGone: boolean } {
  const kind = new SeededRandom(`seed ${seed}`).fork('with changes')
  const withChanges = kind.chance(0.4)
  return { kind, withChanges, withGone: withChanges && kind.chance(GONE) }
}

export async function simulate(options: SimulationOptions): Promise<Outcome> {
  const { seed, withoutFaults = new Set(), withoutOperations = new Set() } = options
  const random = new SeededRandom(`seed ${seed}`)
  const loop = new EventLoop()
  const ledger = new Ledger()
  const { kind, withChanges, withGone } = kindOf(seed)
  const changes = withGone ? CHANGES_WITH_GONE : withChanges ? CHANGES : 0
  const faultsMs = withGone ? FAULTS_WITH_GONE_MS : FAULTS_MS
  const ackIn = (group: string) => [group, withGone && kind.chance(HELD) ? 'quorum' : 'one'] as const
  const acks = new Map<string, AckLevel>([...new Set([...STORAGES.values()].map(({ group }) => group))].map(ackIn))
  const operations: string[] = []
  const clients = new Map<string, Doors>()
  /** Clients with an operation under way. */
  const working = new Set<Life>()
  let violation: string | undefined
  let convergedMs = 0

  const wrong = (what: string) => {
    if (violation !== undefined) return
    violation = what
    loop.note('VIOLATION', what)
    loop.stop()
  }
  const isSkipped = (operation: string) => {
    const skipped = withoutOperations.has(operation)
    if (!skipped) operations.push(operation)
    return skipped
  }
  const events: ClusterEvents = {
    onError: (machine, message, error) => {
      loop.note(machine, `${message}${error === undefined ? '' : `: ${error.split('\n')[0]}`}`)
      if (isBug(message, error)) wrong(`${machine}: ${message}: ${error}`)
    },
    onClient: (machine, doors, life) => {
      clients.set(machine, doors)
      const own = random.fork(`work of ${machine} ${cluster.machine(machine).lives}`)
      const onAcknowledged = (upload: Acknowledged) => checkAcknowledged(cluster, upload, wrong)
      const ackOf = (group: string) => acks.get(group)!
      const context = { loop, ledger, changes, ackOf, isSkipped, onViolation: wrong, onAcknowledged }
      working.add(life)
      void work(context, doors, life, own, faultsMs).finally(() => working.delete(life))
      life.onEnd(() => working.delete(life))
    },
  }
  const cluster: SimCluster = new SimCluster(loop, random, events, acks)
  const reigns = new Reigns(cluster)
  const onRejection = (error: unknown) => wrong(`a rejection that nobody handled: ${(error as Error)?.stack ?? error}`)
  const scrubChecker = new ScrubChecker()
  process.on('unhandledRejection', onRejection)
  const faults = drawFaults(random.fork('faults'), faultsMs, withGone).filter(
    ({ number }) => !withoutFaults.has(number),
  )
  try {
    cluster.start()
    for (const fault of faults) schedule(fault, cluster, ledger, random.fork(`fault ${fault.number}`))
    await runChecked(faultsMs)
    mendAll(cluster)
    const healedMs = loop.nowMs
    for (let converged = false; !converged && violation === undefined; ) {
      restartUnsound(cluster)
      await runChecked(loop.nowMs + CHECK_MS)
      const left = [...differences(cluster, ledger), ...changingDifferences(cluster, ledger), ...unsettled(cluster)]
      // What a client still changes is not all over yet; and a handle from before a disk went away may only fail now.
      converged = left.length === 0 && working.size === 0 && everybodyIsSound(cluster)
      convergedMs = loop.nowMs - healedMs
      if (!converged && convergedMs > CONVERGE_MS_MAX)
        wrong(`not alike after ${convergedMs} ms: ${left.slice(0, 5).join('; ')}`)
    }
    if (violation === undefined) await readBack()
    const passes = passesOf(cluster)
    if (violation === undefined) await runChecked(loop.nowMs + IDLE_MS)
    if (violation === undefined) {
      checkFound(cluster, passes, wrong)
      checkKept(cluster, ledger, wrong)
      checkRecords(cluster, ledger, wrong)
      checkHistories(cluster, ledger, reigns, wrong)
      checkIdle(cluster, wrong)
    }
  } finally {
    process.off('unhandledRejection', onRejection)
  }
  return {
    seed,
    violation,
    hash: loop.hash,
    events: loop.count,
    virtualMs: loop.nowMs,
    faults,
    operations,
    uploads: ledger.uploads,
    downloads: ledger.downloads,
    deletes: ledger.deletes,
    changes: ledger.changes,
    reused: countReused(cluster),
    reigns: reigns.count,
    unknown: ledger.histories.reduce((sum, { source, name }) => sum + reigns.unknown(source, name), 0),
    failures: ledger.failures,
    excused: ledger.excusedCount,
    convergedMs,
    trace: loop.trace,
  }

  /** Runs up to a moment, with a look at the disks every now and then. */
  async function runChecked(untilMs: number): Promise<void> {
    while (violation === undefined && loop.nowMs < untilMs) {
      const checkMs = Math.min(untilMs, loop.nowMs + CHECK_MS)
      while (violation === undefined && loop.nowMs < checkMs) {
        await loop.run(Math.min(checkMs, loop.nowMs + GLANCE_MS))
        for (const double of doubleOrderers(cluster)) wrong(double)
      }
      if (loop.count > EVENTS_MAX) wrong(`more than ${EVENTS_MAX} events`)
      checkMarks(cluster, wrong)
      checkOrder(cluster, wrong)
      checkRecordsFirst(cluster, wrong)
      checkLimits(cluster, wrong)
      scrubChecker.check(cluster, wrong)
    }
  }

  /** Every file through a client: what is there has the right bytes, what was deleted is gone. */
  async function readBack(): Promise<void> {
    const doors = clients.get(CLIENTS[0]!)!
    // Of a source that lost data nobody can say any more that a file never was: that would be waited for.
    const files = ledger.files.filter(file => file.state === 'present' || !hasLostData(cluster, file.source))
    const histories = ledger.histories.filter(
      history => isReadable(ledger, history) && !hasLostData(cluster, history.source),
    )
    let left = files.length + histories.length
    const [queue, changing] = [files.values(), histories.values()]
    const read = async () => {
      for (const history of changing) {
        const code = await lookBack(doors, history)
        if (code !== undefined) wrong(`${history.fileId} reads as ${code} in the end`)
        if (--left === 0) loop.stop()
      }
      for (const file of queue) {
        const code = await doors.client.download(file.fileId).then(
          bytes => (holds(file.content, bytes, 0, file.content.sizeBytes) ? 'right' : 'wrong bytes'),
          error => toDfsError(error).code,
        )
        const expected = { present: ['right'], deleting: ['right', 'not_found'], deleted: ['not_found'] }[file.state]
        if (code === 'wrong bytes' || (!expected.includes(code) && !ledger.isExcused(file.name))) {
          wrong(`${file.fileId}, ${file.state}, reads as ${code} in the end`)
        }
        if (--left === 0) loop.stop()
      }
    }
    for (let i = 0; i < READERS; i++) void read()
    if (left > 0) await loop.run(loop.nowMs + READ_BACK_MS_MAX)
    if (left > 0 && violation === undefined) wrong(`${left} files could not be read back in time`)
  }
}

/** Of such a source nobody can say any more that a file never was. */
function hasLostData(cluster: SimCluster, storageId: number): boolean {
  return [...cluster.machines.values()].some(({ server }) => {
    const store = server?.storage.store
    return store?.storageId === storageId && store.epoch > 1
  })
}

/** A server that does not trust its disk any more is started again by its operator. */
function restartUnsound(cluster: SimCluster): void {
  for (const name of STORAGES.keys()) {
    if (cluster.machine(name).server !== undefined && !isSound(cluster, name)) cluster.kill(name)
  }
}

/** Whether a server runs and trusts its disk. */
function isSound(cluster: SimCluster, name: string): boolean {
  const store = cluster.machine(name).server?.storage.store
  return store !== undefined && store.failure === undefined && store.storePaths.every(path => path.writable)
}

function everybodyIsSound(cluster: SimCluster): boolean {
  return [...STORAGES.keys()].every(name => isSound(cluster, name)) && cluster.machine(CLIENTS[0]!).life !== undefined
}

/** Disks and peers fail, and servers say so; anything else that is logged as an error is one of ours. */
function isBug(message: string, error: string | undefined): boolean {
  if (message.startsWith('actor ')) return true
  const isExpected =
    error === undefined || /DiskError|DfsError|SocketError|BusError|FrameCutError|DocumentDamagedError/.test(error)
  return !isExpected
}
