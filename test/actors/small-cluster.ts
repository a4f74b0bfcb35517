/**
 * A tracker and storage servers in this process: real disks and sockets, a quick clock, the bus in
 * memory, sync started when wanted.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startGateway } from '../../actors/gateway/start-gateway.ts'
import { type RunningStorage, startStorage } from '../../actors/storage/start-storage.ts'
import { startSync } from '../../actors/sync/start-sync.ts'
import { startTracker } from '../../actors/tracker/start-tracker.ts'
import { Client } from '../../client/client.ts'
import type { AckLevel } from '../../protocol/ack.ts'
import { FrameClient } from '../../runtime/frame-client.ts'
import { authenticate, roleKey } from '../../runtime/handshake.ts'
import { silentLog } from '../../runtime/log.ts'
import { MemoryBroker } from '../../runtime/memory-bus.ts'
import { realWorld } from '../../runtime/real-world.ts'
import type { RoleContext, RunningRole } from '../../runtime/role.ts'
import { Timers } from '../../runtime/timers.ts'
import type { Endpoint, World } from '../../runtime/world.ts'
import { quickClock } from '../quick-clock.ts'
import { until } from '../until.ts'

const SECRET = 'ab'.repeat(32)
const LOOPBACK = { host: '127.0.0.1', port: 0 }
const TIMEOUTS = { idleMs: 5_000, headerMs: 5_000, bodyMs: 5_000 }

export interface Member {
  readonly storage: RunningStorage
  readonly dataDirectory: string
  sync: RunningRole | undefined
}

interface StorageParts {
  readonly sync: boolean
  readonly storePaths?: string[]
  readonly segmentFileBytesMax?: number
  readonly ack?: AckLevel
  /** Its id if not given: lower ones are preferred. */
  readonly uploadPriority?: number
  readonly reservedBytes?: number
}

export class SmallCluster {
  readonly broker: MemoryBroker
  readonly context: RoleContext
  readonly members = new Map<number, Member>()
  readonly #directory = mkdtempSync(join(tmpdir(), 'dfs-small-'))
  #tracker: (RunningRole & { endpoint: Endpoint }) | undefined
  readonly #clients: { close(): void | Promise<void> }[] = []

  private constructor(parts: Partial<World>) {
    const given = { ...realWorld(), clock: quickClock(), ...parts }
    const timers = new Timers(given.clock)
    this.broker = new MemoryBroker(timers, given.random)
    const world: World = { ...given, connectBus: this.broker.connector() }
    this.context = { world, timers, log: silentLog(), prefix: 'dfs', version: '0.0.0' }
  }

  /** Starts a tracker; `parts` replaces parts of this World. */
  static async start(parts: Partial<World> = {}): Promise<SmallCluster> {
    const cluster = new SmallCluster(parts)
    await cluster.startTracker()
    return cluster
  }

  /** Starts a tracker that knows nothing of what was before. */
  async startTracker(): Promise<void> {
    this.#tracker = await startTracker(this.context, {
      trackerId: 'tracker-1',
      credentials: credentials('tracker'),
      bind: LOOPBACK,
      advertiseHost: '127.0.0.1',
      policy: { group: 'round_robin', server: 'by_priority', path: 'round_robin' },
    })
  }

  async stopTracker(): Promise<void> {
    await this.#tracker?.stop()
    this.#tracker = undefined
  }

  get trackerEndpoint(): Endpoint {
    return this.#tracker!.endpoint
  }

  dataDirectoryOf(storageId: number): string {
    return join(this.#directory, `storage-${storageId}`)
  }

  /** Starts a storage server, or starts it again, and waits for nobody's word; lower ids are preferred. */
  async startStorage(storageId: number, options: StorageParts = { sync: true }): Promise<Member> {
    const dataDirectory = this.dataDirectoryOf(storageId)
    const storage = await startStorage(this.context, {
      dataDirectory,
      group: 'group1',
      storageId,
      storePaths: options.storePaths ?? [],
      storePathChoice: 'round_robin',
      reservedBytes: options.reservedBytes ?? 0,
      segmentFileBytesMax: options.segmentFileBytesMax ?? 0,
      hotFileBytes: 2 ** 20,
      durability: 'fsync',
      credentials: credentials('storage_group1'),
      clusterSecret: SECRET,
      bind: LOOPBACK,
      advertiseHost: '127.0.0.1',
      uploadPriority: options.uploadPriority ?? storageId,
      ack: options.ack ?? 'one',
    })
    const member: Member = { storage, dataDirectory, sync: undefined }
    this.members.set(storageId, member)
    if (options.sync) await this.startSync(storageId)
    return member
  }

  /** The same, and waits until it takes uploads. */
  async addStorage(storageId: number, options: StorageParts = { sync: true }): Promise<Member> {
    const member = await this.startStorage(storageId, options)
    let again = false
    void member.storage.ended.then(how => {
      again = how === 'again'
    })
    const client = await this.client()
    await until(`storage server ${storageId} is active`, async () => {
      if (again) return true
      const { storages } = await client.status()
      return storages.some(
        ({ report, online }) => online && report.storageId === storageId && report.status === 'active',
      )
    })
    if (again) {
      await member.sync?.stop()
      return this.addStorage(storageId, options)
    }
    return member
  }

  async startSync(storageId: number): Promise<void> {
    const member = this.members.get(storageId)!
    const { store, ordering, blocks, pool, replicas } = member.storage
    member.sync = await startSync(this.context, {
      credentials: credentials('sync_group1'),
      dataDirectory: member.dataDirectory,
      store,
      ordering,
      blocks,
      pool,
      replicas,
      onPeers: listener => member.storage.onPeers(listener),
      onEpochTooOld: epochMin => member.storage.epochTooOld(epochMin),
      onCorruption: () => {},
    })
  }

  /** Stops the sync of a storage server: its peers have what was there, and nothing that comes after. */
  async stopSync(storageId: number): Promise<void> {
    await this.members.get(storageId)?.sync?.stop()
    // A replay under way takes along what comes while it lasts: it gathers for ten milliseconds.
    await this.context.timers.sleep(200)
  }

  async stopStorage(storageId: number): Promise<void> {
    const member = this.members.get(storageId)
    this.members.delete(storageId)
    await member?.sync?.stop()
    await member?.storage.stop()
  }

  /** A client of its own; ended with the cluster. */
  async client(): Promise<Client> {
    const { world, timers, prefix } = this.context
    const bus = await world.connectBus({ ...credentials('client'), name: 'test', waitForServer: false })
    const client = new Client({ world, timers, bus, prefix, dataSecret: roleKey(SECRET, 'client') })
    this.#clients.push(client)
    return client
  }

  /** Starts a gateway; ended with the cluster. */
  async startGateway(): Promise<void> {
    const gateway = await startGateway(this.context, {
      gatewayId: 'gateway-1',
      credentials: { ...credentials('gateway'), dataSecret: roleKey(SECRET, 'client') },
    })
    this.#clients.push({ close: () => gateway.stop() })
  }

  /** A connection straight to a storage server, as any FastDFS client or as a proven role. */
  async connect(storageId: number, role: 'anonymous' | 'client' | 'peer' = 'anonymous'): Promise<FrameClient> {
    const { world, timers } = this.context
    const { endpoint } = this.members.get(storageId)!.storage
    const { sockets, clock } = world
    const client = await FrameClient.connect(endpoint, { sockets, clock, timers, connectMs: 2_000, timeouts: TIMEOUTS })
    this.#clients.push(client)
    if (role !== 'anonymous') await authenticate(client, { role, key: roleKey(SECRET, role) }, world.random)
    return client
  }

  async remove(): Promise<void> {
    for (const client of this.#clients) await client.close()
    for (const id of [...this.members.keys()]) await this.stopStorage(id)
    await this.stopTracker()
    rmSync(this.#directory, { recursive: true, force: true })
  }
}

function credentials(user: string) {
  return { servers: [], user, password: '', inboxPrefix: `_INBOX_${user}` }
}

/** The code that work fails with, or `none`. */
export async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work
  } catch (error) {
    return (error as { code: string }).code
  }
  return 'none'
}
