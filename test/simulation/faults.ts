/**
 * The fault model: what the world does to a cluster, and what the cluster owes its clients in spite of it.
 *
 * Files are acknowledged at level `one`: durable on one storage server, their source; its peers follow.
 *
 *     fault                                                    an acknowledged file
 *     -------------------------------------------------------  --------------------------------------------------------
 *     any process killed, at any moment or at a phase          is never lost
 *     power cut of any machines, also of all at once:          is never lost
 *       unsynced writes and entries lost, torn or kept
 *     NATS down, silent, losing, doubling, reordering          is never lost
 *     machines cut off from each other, one way or both        is never lost
 *     sockets cut at any byte, half-open, slow, refused        is never lost
 *     wall clocks that jump, clocks that drift                 is never lost
 *     disks that are slow or full                              is never lost
 *     disks that fail reads, writes, syncs, renames            is never lost
 *     a store path that vanishes and comes back                is never lost; unavailable while it and its peers are away
 *     a member that is gone for so long that another takes     is never lost; of its files that may change, what not as many held
 *       over its files: dead, or cut off where a majority        as a majority are may be missing until it is back, and for ever
 *       can be had without it; that one dying, too               if the other one has changed the same file
 *     a bit flipped in a file or a sidecar                     is never lost if another member has a good copy
 *     a bit flipped in a mark or a checkpoint                  is never lost
 *     a bit flipped in a binlog                                may be lost where it was not replicated, or stay deleted
 *                                                              on some members only
 *     writes that land in the wrong place of a file            may be lost if that was its source; else as a flipped bit
 *     a disk that is replaced by an empty one                  is never lost if another member has a good copy; its
 *                                                              deletions may come undone where they were not replicated
 *
 * Of names that may change a source ships what is new and nobody ships it for the source: what a bit or a replaced disk takes
 * from a source is lost unless all of its peers had everything of that name.
 *
 * Whatever happens: no wrong byte is served, and nobody says "not found" of a file that must be there. What "may be
 * lost" is known to the ledger as excused, file by file, at the moment the fault strikes.
 *
 * After the last fault everything is mended, as an operator would: then all members of a group hold the same files.
 */

import { decodeRecord } from '../../protocol/binlog-record.ts'
import { decodeFileName } from '../../protocol/file-id.ts'
import type { Phase } from '../../store/phase.ts'
import { sidecarPath } from '../../store/sidecar.ts'
import { isLevel } from './changing-checkers.ts'
import { isFreedOn, isGoodOn, nameOf, pathOf, plainNames, slotNames } from './disk-view.ts'
import type { Ledger } from './ledger.ts'
import type { SeededRandom } from './seeded-random.ts'
import { CLIENTS, DATA_DIRECTORY, type SimCluster, STORAGES, STORE_PATHS, TRACKERS } from './sim-cluster.ts'

/** One fault of a plan. What it does beyond its kind is drawn from its own stream when it strikes. */
export interface Fault {
  /** Stays the same when others are left out. */
  readonly number: number
  readonly kind: FaultKind
  readonly atMs: number
  readonly lastsMs: number
}

/** What a fault has at hand. */
interface Scene {
  readonly cluster: SimCluster
  readonly ledger: Ledger
  readonly random: SeededRandom
  readonly untilMs: number
  /** Says what is being done. */
  readonly note: (what: string) => void
}

/** Undoes a fault that lasts. */
type Mend = () => void

const STORAGE_MACHINES = [...STORAGES.keys()]
const MACHINES = [...TRACKERS, ...STORAGE_MACHINES, ...CLIENTS]
const PHASES: readonly Phase[] = ['written', 'synced', 'recorded', 'renamed', 'acknowledged']
const ERRORS = ['readError', 'writeError', 'syncError', 'renameError', 'openError', 'removeError'] as const
const HOUR_MS = 3_600_000
const OPERATOR_MS = 700

const FAULTS = {
  kill({ cluster, random }) {
    cluster.kill(random.pick(MACHINES))
  },
  killStorage({ cluster, random }) {
    cluster.kill(random.pick(STORAGE_MACHINES))
  },
  killAtPhase({ cluster, random, note }) {
    const machine = cluster.machine(random.pick(STORAGE_MACHINES))
    machine.killAt = random.pick(PHASES)
    note(`${machine.name} will die when it has ${machine.killAt} a change`)
  },
  powerCutAtPhase({ cluster, random, note }) {
    const machine = cluster.machine(random.pick(STORAGE_MACHINES))
    machine.cutAfter = { phase: random.pick(PHASES), delayMs: random.between(0, 4) }
    note(`${machine.name} will lose power after it has ${machine.cutAfter.phase} a change`)
  },
  powerCut({ cluster, random }) {
    const some = STORAGE_MACHINES.filter(() => random.chance(0.3))
    cluster.powerCut(random.chance(0.2) ? MACHINES : some.length > 0 ? some : [random.pick(STORAGE_MACHINES)])
  },
  natsDown({ cluster, note }) {
    note('NATS is down')
    cluster.broker.stop()
    return () => cluster.broker.start()
  },
  natsLoses({ cluster, random, note }) {
    const { faults } = cluster.broker
    const [loss, duplicate, reorder] = [random.between(0, 0.3), random.between(0, 0.2), random.between(0, 0.3)]
    note(`NATS loses ${loss.toFixed(2)}, doubles ${duplicate.toFixed(2)}, reorders ${reorder.toFixed(2)}`)
    Object.assign(faults, { loss, duplicate, reorder })
    return () => Object.assign(faults, { loss: 0, duplicate: 0, reorder: 0 })
  },
  natsIsolates({ cluster, random, note }) {
    const machine = random.pick(MACHINES)
    const how = random.pick(['told', 'silent'] as const)
    note(`${machine} is cut off from NATS, ${how}`)
    cluster.broker.isolate(machine, how)
    return () => cluster.broker.heal(machine)
  },
  networkCut({ cluster, random, note }) {
    const a = random.pick(MACHINES)
    const b = random.pick(['*', ...MACHINES.filter(machine => machine !== a)])
    const how = random.pick(['silent', 'reset'] as const)
    const oneWay = random.chance(0.3)
    note(`no packets from ${a} to ${b}${oneWay ? '' : ' and back'}, ${how}`)
    cluster.network.cut(a, b, how, { oneWay })
    return () => cluster.network.heal(a, b)
  },
  networkBad({ cluster, random, note }) {
    const { faults } = cluster.network
    const slow = random.chance(0.5) ? random.between(1, 50) : 1
    const [resetPerChunk, stallPerChunk] = [random.between(0, 0.02), random.between(0, 0.005)]
    const refuse = random.between(0, 0.3)
    note(
      `the network is slow x${slow.toFixed(0)}, resets ${resetPerChunk.toFixed(3)}, stalls ${stallPerChunk.toFixed(3)}`,
    )
    Object.assign(faults, { slow, resetPerChunk, stallPerChunk, refuse })
    return () => Object.assign(faults, { slow: 1, resetPerChunk: 0, stallPerChunk: 0, refuse: 0 })
  },
  clockJump({ cluster, random, note }) {
    const machine = cluster.machine(random.pick(MACHINES))
    const byMs = random.chance(0.5) ? random.between(-5_000, 5_000) : random.between(-HOUR_MS, HOUR_MS)
    note(`the clock of ${machine.name} jumps by ${(byMs / 1000).toFixed(1)} s`)
    machine.clock.jump(byMs)
  },
  diskSlow({ cluster, random, note }) {
    const { name, disk } = cluster.machine(random.pick(STORAGE_MACHINES))
    disk.faults.slow = random.between(5, 200)
    note(`the disks of ${name} are slow x${disk.faults.slow.toFixed(0)}`)
    return () => {
      disk.faults.slow = 1
    }
  },
  slowAndCut({ cluster, random, note }) {
    const { name, disk } = cluster.machine(random.pick(STORAGE_MACHINES))
    disk.faults.slow = random.between(50, 300)
    cluster.network.faults.resetPerChunk = random.between(0.01, 0.1)
    note(`the disks of ${name} are slow x${disk.faults.slow.toFixed(0)}, and connections reset`)
    return () => {
      disk.faults.slow = 1
      cluster.network.faults.resetPerChunk = 0
    }
  },
  diskFull({ cluster, random, note }) {
    const machine = cluster.machine(random.pick(STORAGE_MACHINES))
    const { name, disk } = machine
    machine.hadErrors = true
    disk.faults.full = true
    note(`the disks of ${name} are full`)
    return () => {
      disk.faults.full = false
    }
  },
  diskErrors({ cluster, random, note }) {
    const machine = cluster.machine(random.pick(STORAGE_MACHINES))
    const { name, disk } = machine
    machine.hadErrors = true
    const where = random.pick([DATA_DIRECTORY, ...STORE_PATHS])
    const errors = Object.fromEntries(
      ERRORS.filter(() => random.chance(0.5)).map(kind => [kind, random.between(0, 0.3)]),
    )
    note(`${where} of ${name} fails: ${Object.keys(errors).join(' ')}`)
    Object.assign(disk.faults, errors, { faultPath: new RegExp(`^${where}`) })
    return () => Object.assign(disk.faults, Object.fromEntries(ERRORS.map(kind => [kind, 0])))
  },
  pathVanishes({ cluster, random, untilMs, note }) {
    const machine = cluster.machine(random.pick(STORAGE_MACHINES))
    const { name, disk } = machine
    machine.hadErrors = true
    machine.harmedMs = untilMs
    const path = random.pick(STORE_PATHS)
    note(`${path} of ${name} vanishes`)
    disk.vanish(path)
    return () => disk.reappear(path)
  },
  bitFlip(scene) {
    const { cluster, ledger, random, note } = scene
    const machine = random.pick(STORAGE_MACHINES)
    const { disk } = cluster.machine(machine)
    const files = STORE_PATHS.flatMap(path => [...disk.files(`${path}/data`), ...disk.files(`${path}/segments`)])
    if (files.length === 0) return
    const path = random.pick(files)
    const names = [...plainNames(disk), ...slotNames(disk)].filter(name =>
      [pathOf(name), sidecarPath(pathOf(name))].includes(path),
    )
    const good = names.filter(name => isGoodOn(disk, name, 'now'))
    const freed = [...ledger.files, ...ledger.histories].filter(
      ({ name }) => pathOf(name) === path && isFreedOn(disk, name),
    )
    const changing = ledger.histories.filter(({ name }) => names.includes(name) || nameOf(path) === name)
    for (const history of changing) {
      // What its source cannot read any more, and a peer lacks, nobody gets.
      const isSource = STORAGES.get(machine)!.storageId === history.source
      if (isSource && !isLevel(cluster, ledger, history)) ledger.excuse(history.name)
      ledger.spoil(machine, history.name)
    }
    disk.flipBit(path, random)
    cluster.machine(machine).harmedMs = cluster.loop.nowMs
    const spoilt = good.filter(name => !isGoodOn(disk, name, 'now'))
    const excused = spoilt.filter(name => isNamed(name) && !hasGoodCopy(cluster, machine, name))
    for (const name of excused) ledger.excuse(name)
    // Nobody mends a header yet: its file can be read elsewhere, but not be deleted.
    const isUnnamed = (name: string) => decodeFileName(name).slot !== undefined && !slotNames(disk).includes(name)
    for (const name of spoilt.filter(isUnnamed)) ledger.excuse(name)
    // Nor one that says that its file was deleted: a peer that has removed the segment and made it anew does not know either.
    for (const { name } of freed) if (!isFreedOn(disk, name)) ledger.excuse(name)
    note(`a bit flips in ${path} of ${machine}${excused.length > 0 ? `, the only copy of ${excused}` : ''}`)
  },
  documentFlip({ cluster, random, note }) {
    const machine = random.pick(STORAGE_MACHINES)
    const { disk } = cluster.machine(machine)
    const documents = [...disk.files(`${DATA_DIRECTORY}/marks`), `${DATA_DIRECTORY}/checkpoint`]
    const path = random.pick(documents)
    if (disk.flipBit(path, random)) note(`a bit flips in ${path} of ${machine}`)
  },
  binlogFlip({ cluster, ledger, random, note }) {
    const machine = cluster.machine(random.pick(STORAGE_MACHINES))
    const { name, disk } = machine
    const files = disk.files(`${DATA_DIRECTORY}/binlog`)
    if (files.length === 0) return
    const path = random.pick(files)
    const before = linesOf(disk.read(path))
    disk.flipBit(path, random)
    const after = linesOf(disk.read(path))
    // A flipped line feed joins two lines: whatever is not there any more is damaged.
    const damaged = [...before].filter(line => !after.has(line))
    for (const line of damaged) {
      const record = decodeRecord(line)
      if (record !== undefined) ledger.excuse(record.name)
    }
    machine.lostRecord ||= damaged.length > 0
    machine.harmedMs = cluster.loop.nowMs
    note(`a bit flips in ${path} of ${name}: ${damaged.join(' | ')}`)
  },
  misdirected({ cluster, ledger, random, untilMs, note }) {
    const machine = random.pick(STORAGE_MACHINES)
    const { disk } = cluster.machine(machine)
    Object.assign(disk.faults, { misdirected: random.between(0.05, 0.3), misdirectedPath: /^\/store\d\/tmp/ })
    ledger.suspect(STORAGES.get(machine)!.storageId, untilMs)
    ledger.suspectCopies(machine, untilMs)
    cluster.machine(machine).harmedMs = untilMs
    note(`writes of ${machine} go to the wrong place`)
    return () => {
      disk.faults.misdirected = 0
    }
  },
  diskReplaced({ cluster, ledger, random, note }) {
    const machine = random.pick(STORAGE_MACHINES)
    const { disk } = cluster.machine(machine)
    if (cluster.machine(machine).life === undefined) return
    note(`the disks of ${machine} are replaced by empty ones`)
    // A path that has vanished would have come back: what it holds is lost with the rest.
    for (const path of STORE_PATHS) disk.reappear(path)
    for (const name of [...plainNames(disk), ...slotNames(disk)].filter(isNamed)) {
      if (!hasGoodCopy(cluster, machine, name)) ledger.excuse(name)
    }
    for (const history of ledger.histories) {
      if (STORAGES.get(machine)!.storageId !== history.source) continue
      if (!isLevel(cluster, ledger, history)) ledger.excuse(history.name)
      ledger.spoil(machine, history.name)
    }
    // Deletions that not all peers have applied are lost with it.
    for (const { name, source, state } of ledger.files) {
      if (STORAGES.get(machine)!.storageId === source && state !== 'present') ledger.excuse(name)
    }
    // What nobody else holds durably is lost, also what is acknowledged this very moment.
    ledger.suspect(STORAGES.get(machine)!.storageId, cluster.loop.nowMs)
    cluster.replaceDisk(machine)
  },
  memberGone(scene) {
    const { cluster, ledger, random, note, untilMs } = scene
    const name = random.pick(STORAGE_MACHINES.filter(machine => !isPair(machine) || isAtPeace(cluster, machine)))
    if (name === undefined || cluster.machine(name).isAway) return
    const others = othersOf(name)
    const aloneMs = random.chance(0.7) ? random.between(0, ALONE_MS_MAX) : 0
    if (aloneMs > 0) for (const other of others) cluster.network.cut(name, other, 'reset')
    note(`${name} goes away in ${aloneMs.toFixed(0)} ms`)
    const how = random.pick(['killed', 'power'] as const)
    const endsOther = random.chance(0.4)
      ? { after: random.between(0.5, 0.9), forMs: random.between(100, 20_000) }
      : undefined
    let isOver = false
    if (aloneMs > 0) ledger.lonely = { machine: name, sources: [STORAGES.get(name)!.storageId] }
    cluster.loop.after(aloneMs, undefined, 'goes away', () => {
      ledger.lonely = undefined
      if (isOver) return
      cluster.takeAway(name, how)
      for (const other of others) cluster.network.heal(name, other)
      if (isPair(name)) void takeOver(scene, name, () => isOver)
    })
    if (endsOther !== undefined) {
      const inMs = (untilMs - cluster.loop.nowMs) * endsOther.after
      cluster.loop.after(inMs, undefined, 'goes away, too', () => endHeir(scene, name, endsOther.forMs, () => isOver))
    }
    return () => {
      isOver = true
      for (const other of others) cluster.network.heal(name, other)
      cluster.bringBack(name)
    }
  },
  memberCutOff({ cluster, random, note }) {
    // In a pair nobody could tell it from one that is dead.
    const name = random.pick(STORAGE_MACHINES.filter(machine => !isPair(machine)))
    const clients = random.chance(0.7) ? [] : CLIENTS
    const how = random.pick(['silent', 'reset'] as const)
    note(`${name} is cut off from its group and NATS${clients.length === 0 ? '' : ', and from clients'}, ${how}`)
    const cut = [...othersOf(name), ...TRACKERS, ...clients]
    for (const other of cut) cluster.network.cut(name, other, how)
    cluster.broker.isolate(name, random.pick(['told', 'silent']))
    return () => {
      for (const other of cut) cluster.network.heal(name, other)
      cluster.broker.heal(name)
    }
  },
} satisfies Record<string, (scene: Scene) => Mend | undefined | void>

export type FaultKind = keyof typeof FAULTS

export const FAULT_KINDS = Object.keys(FAULTS) as FaultKind[]

/** Somebody else takes over: only where there is time for it. */
const GONE = ['memberGone', 'memberCutOff'] as const
const GONE_COUNT_MAX = 3
/** What a member changes so long before it goes, nobody else has. */
const ALONE_MS_MAX = 4_000
/** A member that is silent for 15 s counts as gone; then others take over, which takes them a moment. */
const GONE_MS = { min: 17_000, max: 40_000 }

/** Faults that cost files at level `one` and are rare in life: a plan has them less often. */
const RARE: ReadonlySet<FaultKind> = new Set(['binlogFlip', 'misdirected', 'diskReplaced', 'bitFlip'])
const FAULTS_MIN = 2
const FAULTS_MAX = 25
const LASTS_MS_MAX = 12_000

/**
 * Draws the faults of a seed. Each seed has its own weather: some kinds often, others hardly ever. Where members are gone for
 * long, nothing is damaged: what a fault takes from a source is judged by what its peers have, and not who orders it.
 */
export function drawFaults(random: SeededRandom, untilMs: number, withGone: boolean): Fault[] {
  const rarely = withGone ? 0 : 0.3
  const kinds = FAULT_KINDS.filter(kind => !isGoneKind(kind))
  const weights = kinds.map(kind => random.between(0, 1) ** 3 * (RARE.has(kind) ? rarely : 1))
  const total = weights.reduce((sum, weight) => sum + weight, 0)
  const draw = () => {
    let left = random.between(0, total)
    const drawn = weights.findIndex(weight => {
      left -= weight
      return left < 0
    })
    return kinds[drawn] ?? 'kill'
  }
  const count = FAULTS_MIN + random.below(FAULTS_MAX - FAULTS_MIN + 1)
  const faults: Omit<Fault, 'number'>[] = Array.from({ length: count }, () => ({
    kind: draw(),
    atMs: random.between(3_000, untilMs),
    lastsMs: random.between(100, LASTS_MS_MAX),
  }))
  const gone = withGone ? 1 + random.below(GONE_COUNT_MAX) : 0
  for (let i = 0; i < gone; i++) {
    const lastsMs = random.between(GONE_MS.min, GONE_MS.max)
    const kind = random.chance(0.7) ? GONE[0] : GONE[1]
    faults.push({ kind, atMs: random.between(3_000, untilMs - lastsMs), lastsMs })
  }
  return faults.sort((a, b) => a.atMs - b.atMs).map((fault, number) => ({ number, ...fault }))
}

function isGoneKind(kind: FaultKind): boolean {
  return (GONE as readonly FaultKind[]).includes(kind)
}

/** Carries out a fault when its time comes, and mends it when it is over. */
export function schedule(fault: Fault, cluster: SimCluster, ledger: Ledger, random: SeededRandom): void {
  const { loop } = cluster
  const note = (what: string) => loop.note('FAULT', `${fault.number} ${fault.kind}: ${what}`)
  loop.after(fault.atMs - loop.nowMs, undefined, 'fault', () => {
    const untilMs = fault.atMs + fault.lastsMs
    const mend = (FAULTS[fault.kind] as (scene: Scene) => Mend | undefined)({ cluster, ledger, random, untilMs, note })
    if (mend === undefined) return
    loop.after(fault.lastsMs, undefined, 'mend', () => {
      note('is over')
      mend()
    })
  })
}

/** Ends all faults that last. */
export function mendAll(cluster: SimCluster): void {
  cluster.loop.note('FAULT', 'all faults are over')
  cluster.broker.start()
  cluster.broker.heal()
  Object.assign(cluster.broker.faults, { loss: 0, duplicate: 0, reorder: 0 })
  cluster.network.heal()
  Object.assign(cluster.network.faults, { slow: 1, resetPerChunk: 0, stallPerChunk: 0, refuse: 0 })
  for (const machine of cluster.machines.values()) {
    const { disk } = machine
    machine.killAt = undefined
    machine.cutAfter = undefined
    Object.assign(
      disk.faults,
      { slow: 1, full: false, misdirected: 0 },
      Object.fromEntries(ERRORS.map(kind => [kind, 0])),
    )
    for (const path of STORE_PATHS) disk.reappear(path)
    cluster.bringBack(machine.name)
  }
}

/** The other members of a machine's group. */
function othersOf(machine: string): string[] {
  const { group } = STORAGES.get(machine)!
  return STORAGE_MACHINES.filter(other => other !== machine && STORAGES.get(other)!.group === group)
}

/** Of two, none can have a majority without the other one. */
function isPair(machine: string): boolean {
  return othersOf(machine).length === 1
}

/** Whether all members of its group order the changes of their own files. */
function isAtPeace(cluster: SimCluster, machine: string): boolean {
  return [machine, ...othersOf(machine)].every(
    name => cluster.machine(name).server?.storage.orders(STORAGES.get(name)!.storageId) === true,
  )
}

/** The operator of a pair tells the one that is left to take over, until it has, or the other one comes back. */
async function takeOver({ cluster, note }: Scene, gone: string, isOver: () => boolean): Promise<void> {
  const [left] = othersOf(gone)
  let told: unknown
  for (;;) {
    await cluster.loop.sleep(OPERATOR_MS, undefined, 'operator')
    if (isOver()) return
    const { server } = cluster.machine(left!)
    if (server === undefined || told === server) continue
    told = server
    server.storage.takeOver(STORAGES.get(gone)!.storageId, true).then(
      () => note(`${left} has taken over from ${gone}`),
      () => {
        told = undefined
      },
    )
    if (server.storage.orders(STORAGES.get(gone)!.storageId)) return
  }
}

/** Whoever orders the files of one that is gone goes away, too. */
function endHeir({ cluster, ledger, random, note }: Scene, gone: string, forMs: number, isOver: () => boolean): void {
  const { storageId } = STORAGES.get(gone)!
  const heir = othersOf(gone).find(name => cluster.machine(name).server?.storage.orders(storageId) === true)
  if (heir === undefined || isOver()) return
  note(`${heir}, which has taken over, goes away, too`)
  const others = othersOf(heir)
  for (const other of others) cluster.network.cut(heir, other, 'reset')
  ledger.lonely = { machine: heir, sources: [storageId, STORAGES.get(heir)!.storageId] }
  cluster.loop.after(random.between(0, ALONE_MS_MAX), undefined, 'goes away', () => {
    ledger.lonely = undefined
    cluster.takeAway(heir, random.pick(['killed', 'power'] as const))
    for (const other of others) cluster.network.heal(heir, other)
    cluster.loop.after(forMs, undefined, 'comes back', () => cluster.bringBack(heir))
  })
}

/** Whether another member of a machine's group surely has a file, whole and right. */
function hasGoodCopy(cluster: SimCluster, machine: string, name: string): boolean {
  const { group } = STORAGES.get(machine)!
  return STORAGE_MACHINES.some(
    other =>
      other !== machine &&
      STORAGES.get(other)!.group === group &&
      isGoodOn(cluster.machine(other).disk, name, 'durable'),
  )
}

/** Whether a name says what its file is: of others, histories tell. */
function isNamed(name: string): boolean {
  return decodeFileName(name).sizeBytes !== undefined
}

function linesOf(bytes: Buffer | undefined): Set<string> {
  return new Set((bytes ?? Buffer.alloc(0)).toString('latin1').split('\n'))
}
