/**
 * What is killed in the crash tests: storage servers as processes of their own, with a real nats-server, and a tracker
 * in this process. One group on loopback and free ports, in a temporary directory; nothing of it is left behind.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { startTracker } from '../../actors/tracker/start-tracker.ts'
import { connect } from '../../client/connect.ts'
import { toDfsError } from '../../protocol/errors.ts'
import { COMMANDS } from '../../protocol/frame.ts'
import { type PeerPosition, readPeerPosition, writeSyncPosition } from '../../protocol/sync-bodies.ts'
import { FrameClient } from '../../runtime/frame-client.ts'
import { pickPort } from '../../runtime/free-ports.ts'
import { authenticate, type ProvenRole, roleKey } from '../../runtime/handshake.ts'
import { silentLog } from '../../runtime/log.ts'
import type { NatsServer } from '../../runtime/nats-server.ts'
import { realWorld } from '../../runtime/real-world.ts'
import type { RunningRole } from '../../runtime/role.ts'
import { ensureSecrets } from '../../runtime/secrets.ts'
import { Timers } from '../../runtime/timers.ts'
import type { Phase } from '../../store/phase.ts'
import { credentialsOf, natsServerBinaries, startTestServer, temporaryDirectory } from '../runtime/nats-fixture.ts'
import { until } from '../until.ts'
import type { StorageProcessOptions } from './storage-options.ts'
import type { StorageProcessReport } from './storage-process.ts'

export const GROUP = 'group1'

const HOST = '127.0.0.1'
const PROGRAM = fileURLToPath(new URL('storage-process.js', import.meta.url))
/** A start takes a quarter of a second on an idle machine; this one may be shared. */
const START_MS = 30_000
const TIMEOUTS = { idleMs: 20_000, headerMs: 20_000, bodyMs: 20_000 }
/** Lines of a server's log that are kept to explain an end that nobody asked for. */
const LOG_LINES_MAX = 30

/** One life of a storage server. Made before it is wanted: loading its program takes longer than its start. */
export class StorageProcess {
  /** Resolves with the signal or exit code when it has ended. */
  readonly exited: Promise<string>
  readonly #child: ChildProcess
  readonly #log: string[] = []
  #ended = false
  #report: StorageProcessReport | undefined
  #startedMs = 0
  #startMs = 0

  constructor() {
    const child = spawn(process.execPath, [PROGRAM], { stdio: ['pipe', 'pipe', 'pipe'] })
    this.#child = child
    // A pipe to a process that has just died is no news.
    child.stdin.on('error', () => child.stdin.destroy())
    createInterface({ input: child.stdout }).on('line', line => {
      this.#report = JSON.parse(line) as StorageProcessReport
      this.#startMs ||= performance.now() - this.#startedMs
    })
    createInterface({ input: child.stderr }).on('line', line => {
      this.#log.push(line)
      if (this.#log.length > LOG_LINES_MAX) this.#log.shift()
    })
    this.exited = once(child, 'exit').then(([code, signal]) => {
      this.#ended = true
      return signal ?? `code ${code}`
    })
  }

  begin(options: StorageProcessOptions): void {
    this.#startedMs = performance.now()
    this.#child.stdin!.write(`${JSON.stringify(options)}\n`)
  }

  get alive(): boolean {
    return !this.#ended
  }

  /** From its beginning until it took uploads. */
  get startMs(): number {
    return this.#startMs
  }

  /** The last lines of its log. */
  get log(): string {
    return this.#log.join('\n')
  }

  /** Waits until it takes uploads. Rejects, with its log, if it ends before that. */
  async ready(): Promise<StorageProcessReport> {
    await until('a storage server starts', () => this.#report ?? this.#ended, START_MS)
    if (this.#report === undefined) throw new Error(`a storage server did not start:\n${this.log}`)
    return this.#report
  }

  /** Has it kill itself at an occurrence of a phase, counted from now. */
  dieAt(phase: Phase, occurrence: number): void {
    this.#child.stdin!.write(`die ${phase} ${occurrence}\n`)
  }

  /** Kills it as a power switch would, but for its disk. */
  kill(): void {
    this.#child.kill('SIGKILL')
  }
}

export class CrashCluster {
  readonly directory: string
  readonly #removeDirectory: () => Promise<void>
  readonly #world = realWorld()
  readonly #timers = new Timers(this.#world.clock)
  readonly #ports = new Map<number, number>()
  readonly #processes: StorageProcess[] = []
  readonly #clients: FrameClient[] = []
  /** The one that is started next. */
  #next = new StorageProcess()
  #nats: NatsServer | undefined
  #clusterSecret = ''
  #tracker: RunningRole | undefined

  private constructor(made: { path: string; remove(): Promise<void> }) {
    this.directory = made.path
    this.#removeDirectory = made.remove
  }

  /** Starts a nats-server and a tracker. */
  static async start(): Promise<CrashCluster> {
    const cluster = new CrashCluster(await temporaryDirectory())
    try {
      const [binary = ''] = await natsServerBinaries()
      cluster.#nats = await startTestServer({ binary, directory: cluster.directory, groups: [GROUP] })
      const wanted = { groups: [GROUP], servers: [cluster.#nats.url] }
      cluster.#clusterSecret = (await ensureSecrets(cluster.#world, cluster.directory, wanted)).clusterSecret
      await cluster.renewTracker()
      return cluster
    } catch (error) {
      await cluster.remove()
      throw error
    }
  }

  /** Starts a tracker that knows nothing of what was before. */
  async renewTracker(): Promise<void> {
    await this.#tracker?.stop()
    const context = { world: this.#world, timers: this.#timers, log: silentLog(), prefix: 'dfs', version: '0.0.0' }
    this.#tracker = await startTracker(context, {
      trackerId: 'tracker-1',
      credentials: await credentialsOf(this.directory, 'tracker'),
      bind: { host: HOST, port: 0 },
      advertiseHost: HOST,
      policy: { group: 'round_robin', server: 'round_robin', path: 'round_robin' },
    })
  }

  /** The data directory of a storage server, unless it is started on another. */
  dataDirectory(storageId: number): string {
    return join(this.directory, `storage-${storageId}`)
  }

  /** Starts a storage server, always on the same port. */
  async startStorage(storageId: number, options: Partial<StorageProcessOptions> = {}): Promise<StorageProcess> {
    const { sockets, random } = this.#world
    const port = this.#ports.get(storageId) ?? (await pickPort(sockets, random, HOST, new Set(this.#ports.values())))
    this.#ports.set(storageId, port)
    const started = this.#next
    this.#processes.push(started)
    started.begin({
      dataDirectory: this.dataDirectory(storageId),
      ...{ group: GROUP, storageId, port, secretsDirectory: this.directory },
      ...options,
    })
    this.#next = new StorageProcess()
    await started.ready()
    return started
  }

  /** A connection to a storage server's data port, as any FastDFS client or as a proven role; closed with the cluster. */
  async connect(storageId: number, role: 'anonymous' | ProvenRole = 'anonymous'): Promise<FrameClient> {
    const { sockets, clock, random } = this.#world
    const remote = { host: HOST, port: this.#ports.get(storageId)! }
    const options = { sockets, clock, timers: this.#timers, connectMs: 2_000, timeouts: TIMEOUTS }
    const client = await FrameClient.connect(remote, options)
    this.#clients.push(client)
    if (role !== 'anonymous') await authenticate(client, { role, key: roleKey(this.#clusterSecret, role) }, random)
    return client
  }

  /** Ends all connections. */
  disconnect(): void {
    for (const client of this.#clients.splice(0)) client.close()
  }

  /** Has a member take over from a source, as an operator who knows that it is dead; false if that cannot be yet. */
  async takeOver(source: number, by: number): Promise<boolean> {
    const credentials = await credentialsOf(this.directory, 'ops')
    const client = await connect({ credentials })
    try {
      await client.takeOver(by, source, { alone: true })
      return true
    } catch (error) {
      // What lived for less than a beat is not known to everybody yet.
      if (!['still_in_use', 'unknown_storage'].includes(toDfsError(error).code)) throw error
      return false
    } finally {
      await client.close()
    }
  }

  /** How far a storage server has applied the records of a source, by its own word. */
  async position(asked: FrameClient, source: number): Promise<PeerPosition> {
    // In no epoch: whoever asks only, must not be taken for a new life of the source.
    const asking = { storageId: source, group: GROUP, epoch: 0, incarnation: '0'.repeat(32), term: 0, other: 0 }
    return readPeerPosition(await asked.request(COMMANDS.syncPosition, writeSyncPosition(asking)))
  }

  /** Kills the storage servers that still run. */
  async killAll(): Promise<void> {
    this.disconnect()
    const left = this.#processes.splice(0)
    for (const process of left) if (process.alive) process.kill()
    await Promise.all(left.map(process => process.exited))
  }

  async remove(): Promise<void> {
    await this.killAll()
    this.#next.kill()
    await this.#next.exited
    await this.#tracker?.stop()
    await this.#nats?.stop()
    await this.#removeDirectory()
  }
}
