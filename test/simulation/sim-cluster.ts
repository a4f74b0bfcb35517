/**
 * A cluster of simulated machines that run the real thing: `startTracker`, `startStorageServer` and the SDK's `Client`,
 * each process in a World of its own.
 *
 *     tracker-1 .. tracker-3          storage-1 .. storage-3: group1          client-1 .. client-3
 *                                     storage-4, storage-5:   group2
 *
 * Each machine runs one process, and starts it again when it has died, as a supervisor would. Storage servers have two
 * store paths: a disk for each, as far as faults are concerned.
 */
import { pino } from 'pino'
import type { StorageOptions } from '../../actors/storage/start-storage.ts'
import { startTracker } from '../../actors/tracker/start-tracker.ts'
import { type StorageServer, startStorageServer } from '../../bin/storage-server.ts'
import { Client } from '../../client/client.ts'
import type { AckLevel } from '../../protocol/ack.ts'
import { roleKey } from '../../runtime/handshake.ts'
import type { RoleContext } from '../../runtime/role.ts'
import { Timers } from '../../runtime/timers.ts'
import type { Processes, World } from '../../runtime/world.ts'
import type { Phase } from '../../store/phase.ts'
import { Doors } from './doors.ts'
import type { EventLoop } from './event-loop.ts'
import { type Death, Life } from './life.ts'
import type { SeededRandom } from './seeded-random.ts'
import { SimBroker } from './sim-broker.ts'
import { SimClock } from './sim-clock.ts'
import { SimDisk } from './sim-disk.ts'
import { SimNetwork } from './sim-network.ts'

export const DATA_DIRECTORY = '/data'
export const STORE_PATHS = ['/store0', '/store1']
export const TRACKERS = ['tracker-1', 'tracker-2', 'tracker-3']
export const CLIENTS = ['client-1', 'client-2', 'client-3']

/** Group and storage id of every storage server's machine. */
interface SimStorage {
  readonly group: string
  readonly storageId: number
  readonly segmentFileBytesMax: number
}

/** Some pack all files, some the smallest, some none: members need not agree. */
export const STORAGES: ReadonlyMap<string, SimStorage> = new Map([
  ['storage-1', { group: 'group1', storageId: 1, segmentFileBytesMax: 2 ** 20 }],
  ['storage-2', { group: 'group1', storageId: 2, segmentFileBytesMax: 2 ** 12 }],
  ['storage-3', { group: 'group1', storageId: 3, segmentFileBytesMax: 0 }],
  ['storage-4', { group: 'group2', storageId: 4, segmentFileBytesMax: 2 ** 20 }],
  ['storage-5', { group: 'group2', storageId: 5, segmentFileBytesMax: 2 ** 14 }],
])

/** Quicker than in life, so that a seed sees several passes. */
const SCRUB = { bytesPerSecond: 8 * 2 ** 20, passMsMin: 15_000 }
/** Slots are used again, and segments removed, several times while a seed lasts. */
const REUSE = { segmentBytes: 2 ** 17, restMs: 500, freeBytesMin: 64 }

/** How fast a clock may run ahead or behind: a hundred times worse than a cheap quartz. */
const DRIFT_MAX = 0.005
/** Clocks of machines that were never set. */
const WALL_OFFSET_MS_MAX = 60_000
const SECRET = 'ab'.repeat(32)

export interface Machine {
  readonly name: string
  readonly disk: SimDisk
  readonly clock: SimClock
  /** Undefined while it is down. */
  life: Life | undefined
  /** The storage server that runs on it, once it has started. */
  server: StorageServer | undefined
  /** Kills the process when a change gets to this phase. */
  killAt: Phase | undefined
  /** Cuts the power a moment after a change has got to this phase. */
  cutAfter: { readonly phase: Phase; readonly delayMs: number } | undefined
  /** It is down, and not started again. */
  isAway: boolean
  lives: number
  /** It has had errors in calls that were to succeed: what it did may have been done again. */
  hadErrors: boolean
  /** Until when something that it had promised may have been spoilt or taken from its disks. */
  harmedMs: number
  /** A record of its binlog cannot be read any more: what it had promised cannot be seen there. */
  lostRecord: boolean
}

/** What the simulation wants to hear of. */
export interface ClusterEvents {
  /** A line of a process's log, of level error. */
  onError(machine: string, message: string, error: string | undefined): void
  /** A client may begin to work; it works until its life ends. */
  onClient(machine: string, doors: Doors, life: Life): void
}

export class SimCluster {
  readonly loop: EventLoop
  readonly network: SimNetwork
  readonly broker: SimBroker
  readonly machines = new Map<string, Machine>()
  readonly #random: SeededRandom
  readonly #events: ClusterEvents
  /** What storage servers wait for before they acknowledge, by group. */
  readonly #acks: ReadonlyMap<string, AckLevel>

  constructor(loop: EventLoop, random: SeededRandom, events: ClusterEvents, acks: ReadonlyMap<string, AckLevel>) {
    this.loop = loop
    this.#acks = acks
    this.#random = random.fork('cluster')
    this.#events = events
    this.network = new SimNetwork(loop, random.fork('network'))
    this.broker = new SimBroker(loop, random.fork('broker'))
    for (const name of [...TRACKERS, ...STORAGES.keys(), ...CLIENTS]) {
      const rate = 1 + this.#random.between(-DRIFT_MAX, DRIFT_MAX)
      const offsetMs = this.#random.between(-WALL_OFFSET_MS_MAX, WALL_OFFSET_MS_MAX)
      this.machines.set(name, {
        name,
        disk: new SimDisk(loop, random.fork(`disk ${name}`)),
        clock: new SimClock(loop, rate, offsetMs),
        life: undefined,
        server: undefined,
        killAt: undefined,
        cutAfter: undefined,
        isAway: false,
        lives: 0,
        hadErrors: false,
        harmedMs: Number.NEGATIVE_INFINITY,
        lostRecord: false,
      })
    }
  }

  machine(name: string): Machine {
    return this.machines.get(name)!
  }

  /** Switches everything on, each machine in its own time. */
  start(): void {
    for (const machine of this.machines.values()) this.#startIn(machine, this.#random.between(0, 1_000))
  }

  /** `kill -9`, and a new start after a while. */
  kill(name: string): void {
    const machine = this.machine(name)
    if (this.#end(machine, 'killed')) this.#startIn(machine, this.#random.between(50, 3_000))
  }

  /** The machines lose power together, and what they had not synced; each comes back in its own time. */
  powerCut(names: readonly string[]): void {
    for (const name of names) {
      const machine = this.machine(name)
      if (!this.#end(machine, 'power')) continue
      machine.disk.powerCut()
      this.#startIn(machine, this.#random.between(500, 8_000))
    }
  }

  /** The machine dies, one way or the other, and stays away until it is brought back. */
  takeAway(name: string, how: Death): void {
    const machine = this.machine(name)
    machine.isAway = true
    if (this.#end(machine, how) && how === 'power') machine.disk.powerCut()
  }

  bringBack(name: string): void {
    const machine = this.machine(name)
    if (!machine.isAway) return
    machine.isAway = false
    this.#startIn(machine, this.#random.between(50, 1_000))
  }

  /** The machine comes back with an empty disk. */
  replaceDisk(name: string): void {
    const machine = this.machine(name)
    if (!this.#end(machine, 'power')) return
    machine.disk.replace()
    machine.harmedMs = this.loop.nowMs
    this.#startIn(machine, this.#random.between(500, 8_000))
  }

  #end(machine: Machine, how: Death): boolean {
    const { life } = machine
    if (life === undefined) return false
    this.loop.note(machine.name, how === 'power' ? 'loses power' : 'is killed')
    machine.life = undefined
    machine.server = undefined
    machine.killAt = undefined
    machine.cutAfter = undefined
    life.end(how)
    return true
  }

  #startIn(machine: Machine, delayMs: number): void {
    this.loop.after(delayMs, undefined, 'start', () => {
      if (machine.life !== undefined || machine.isAway) return
      const life = new Life(machine.name, machine.name)
      machine.life = life
      machine.lives++
      this.loop.note(machine.name, `starts, life ${machine.lives}`)
      // A process that cannot start ends, and is tried again; one that rejects otherwise would have ended, too.
      this.#run(machine, life).catch((error: Error) => {
        if (life.ended) return
        this.loop.note(machine.name, `cannot run: ${error.message}`)
        this.#end(machine, 'killed')
        this.#startIn(machine, this.#random.between(500, 2_000))
      })
    })
  }

  #run(machine: Machine, life: Life): Promise<void> {
    const context = this.#context(machine, life)
    if (STORAGES.has(machine.name)) return this.#runStorage(machine, life, context)
    return TRACKERS.includes(machine.name)
      ? this.#runTracker(machine, context)
      : this.#runClient(machine, life, context)
  }

  async #runTracker({ name }: Machine, context: RoleContext): Promise<void> {
    await startTracker(context, {
      trackerId: name,
      credentials: credentials('tracker'),
      bind: { host: name, port: 22122 },
      advertiseHost: name,
      policy: { group: 'round_robin', server: 'round_robin', path: 'round_robin' },
    })
    this.loop.note(name, 'tracker is ready')
  }

  async #runStorage(machine: Machine, life: Life, context: RoleContext): Promise<void> {
    const { name } = machine
    const { group, storageId } = STORAGES.get(name)!
    const options: StorageOptions = {
      dataDirectory: DATA_DIRECTORY,
      group,
      storageId,
      storePaths: STORE_PATHS,
      storePathChoice: 'round_robin',
      reservedBytes: 0,
      segmentFileBytesMax: STORAGES.get(name)!.segmentFileBytesMax,
      hotFileBytes: 2 ** 16,
      durability: 'fsync',
      ack: this.#acks.get(group)!,
      reuse: REUSE,
      credentials: credentials(`storage_${group}`),
      clusterSecret: SECRET,
      bind: { host: name, port: 23000 },
      advertiseHost: name,
      uploadPriority: 10,
      onPhase: phase => {
        if (machine.life !== life) return
        if (machine.cutAfter?.phase === phase) {
          this.loop.after(machine.cutAfter.delayMs, life, 'power cut', () => this.powerCut([name]))
          machine.cutAfter = undefined
        }
        if (machine.killAt !== phase) return
        this.loop.note(name, `has ${phase} a change`)
        this.kill(name)
      },
    }
    for (;;) {
      const server = await startStorageServer(context, {
        ...options,
        syncCredentials: credentials(`sync_${group}`),
        scrub: SCRUB,
      })
      machine.server = server
      this.loop.note(
        name,
        `storage server is ready, epoch ${server.storage.store.epoch}, end ${server.storage.store.end.sequence}`,
      )
      await server.ended
      machine.server = undefined
    }
  }

  async #runClient({ name }: Machine, life: Life, { world, timers, prefix }: RoleContext): Promise<void> {
    const bus = await world.connectBus({ ...credentials('client'), name, waitForServer: true })
    const parts = { world, timers, bus, prefix, dataSecret: roleKey(SECRET, 'client') }
    this.#events.onClient(name, new Doors(new Client(parts), parts), life)
  }

  #context(machine: Machine, life: Life): RoleContext {
    const { name } = machine
    const clock = machine.clock.as(life)
    const timers = new Timers(clock)
    const random = this.#random.fork(`${name} life ${machine.lives}`)
    const world: World = {
      clock,
      random,
      disk: machine.disk.as(life),
      sockets: this.network.as(life),
      processes: NO_PROCESSES,
      connectBus: this.broker.as(life, timers, random),
    }
    const log = pino(
      { level: 'error', base: null, timestamp: false },
      {
        write: (line: string) => {
          const { msg, err } = JSON.parse(line) as { msg: string; err?: { message: string; stack: string } }
          if (!life.ended) this.#events.onError(name, msg, err?.stack)
        },
      },
    )
    return { world, timers, log, prefix: 'dfs', version: '0.0.0' }
  }
}

const NO_PROCESSES = undefined as unknown as Processes

function credentials(user: string) {
  return { servers: ['nats'], user, password: '', inboxPrefix: `_INBOX_${user}` }
}
