/** Starts a storage server: its store, its data port, its actor, and then its place on the bus. */
import type { AckLevel } from '../../protocol/ack.ts'
import { encode } from '../../protocol/codec.ts'
import { toDfsError } from '../../protocol/errors.ts'
import { admit, PROTOCOL_VERSION, subjectOf } from '../../protocol/message.ts'
import { type Statistics, withoutZeros } from '../../protocol/statistics.ts'
import {
  actorStatus,
  GROUP_MEMBERS_MAX,
  type Peer,
  type StorageReport,
  storageBeat,
  storageStatus,
  takeOver,
  Welcome,
} from '../../protocol/storage-messages.ts'
import { trackerJoin } from '../../protocol/tracker-messages.ts'
import { Actor } from '../../runtime/actor.ts'
import type { Bus } from '../../runtime/bus.ts'
import { serve } from '../../runtime/endpoint.ts'
import { FramePool } from '../../runtime/frame-pool.ts'
import { type Admits, FrameServer } from '../../runtime/frame-server.ts'
import { Gatekeeper } from '../../runtime/handshake.ts'
import type { MicroService } from '../../runtime/micro-service.ts'
import {
  announce,
  connectRole,
  lifetime,
  publishEvent,
  publishQuietly,
  type RoleContext,
  type RunningRole,
} from '../../runtime/role.ts'
import type { Credentials } from '../../runtime/secrets.ts'
import type { Endpoint } from '../../runtime/world.ts'
import { BlockPool } from '../../store/block-pool.ts'
import { openDirectory, raiseEpoch } from '../../store/data-directory.ts'
import { FileStore } from '../../store/file-store.ts'
import { MarkFiles } from '../../store/mark-file.ts'
import { OrdererFile } from '../../store/orderer-file.ts'
import type { Ordering } from '../../store/ordering.ts'
import { PartialFiles } from '../../store/partial-files.ts'
import { Quarantine } from '../../store/quarantine.ts'
import { Replicas } from '../../store/replicas.ts'
import type { Store } from '../../store/store.ts'
import type { StoreOptions } from '../../store/store-options.ts'
import { Access, type DataAuth } from './access.ts'
import { Agreement } from './agree.ts'
import { BinlogFeed } from './binlog-feed.ts'
import { Listers } from './list-files.ts'
import { Orderers } from './orderers.ts'
import type { PortContext, PortCounts } from './port-context.ts'
import { type StorageEffect, type StorageMessage, type StorageState, storageBehaviour } from './storage.ts'
import { closesAfter, storagePort } from './storage-port.ts'

export interface StorageOptions extends StoreOptions {
  readonly credentials: Credentials
  readonly clusterSecret: string
  readonly bind: Endpoint
  /** Who may connect to the data port; undefined for everybody. */
  readonly admits?: Admits | undefined
  /** What clients and peers are told to connect to; a name is resolved anew with every report. */
  readonly advertiseHost: string
  readonly uploadPriority: number
  /** How many members hold an upload before it is answered, unless it says so itself. */
  readonly ack: AckLevel
  /** What clients have to show; `none` if not given. */
  readonly auth?: DataAuth | undefined
}

/** A storage server that runs, as its sync workers see it. */
export interface RunningStorage extends RunningRole {
  readonly endpoint: Endpoint
  readonly storageId: number
  readonly store: Store
  readonly blocks: BlockPool
  readonly quarantine: Quarantine
  /** Connections to other members' data ports, as a peer. */
  readonly pool: FramePool
  /** What the peers have of our records, as sync learns it. */
  readonly replicas: Replicas
  readonly ordering: Ordering
  /** Whether this member orders the changes of a source's files now. */
  orders(source: number): boolean
  /** Orders the changes of a source's files from now on; see `Agreement`. */
  takeOver(source: number, isAlone: boolean): Promise<void>
  onPeers(listener: (peers: readonly Peer[]) => void): void
  /** A peer has applied more of our records than we have: we lost data, and go on under another epoch. */
  epochTooOld(epochMin: number): void
  /** Calls back with a file that could not be read as it should. */
  onCorruption(listener: (name: string) => void): void
  /** Counts in every report what others count beside this actor. */
  addCounts(count: () => Readonly<Record<string, number>>): void
  /** Tells people that a file is bad here. */
  tellCorruption(name: string, problem: string): void
}

/** FastDFS clients keep connections for an hour; a body that stalls for half a minute will not come. */
const TIMEOUTS = { idleMs: 3_600_000, headerMs: 10_000, bodyMs: 30_000 }
/** Our own requests to peers: an answer may wait for their disks. */
const PEER_TIMEOUTS = { idleMs: 30_000, headerMs: 10_000, bodyMs: 30_000 }
const CONNECTIONS_MAX = 1024
/** The largest file: what a size field without salt holds is more, what a disk holds is less. */
const BODY_BYTES_MAX = 2 ** 44
const CONNECT_MS = 2_000
const PEER_CONNECTIONS_MAX = 4
const PEER_IDLE_MS = 60_000
const JOIN_TIMEOUT_MS = 2_000
const CLOSE_GRACE_MS = 3_000

export async function startStorage(context: RoleContext, options: StorageOptions): Promise<RunningStorage> {
  const { world, timers, log, prefix } = context
  const { onPhase } = options
  if (options.auth === 'ticket' && (options.credentials.ticketKeys ?? []).length === 0)
    throw new Error('tickets are asked for, and the credentials have no key to tell them by')
  const { identity, lock } = await openDirectory(world, options)
  const { storageId, group, incarnation } = identity
  const actorId = `storage-${storageId}`
  const bootSecret = world.random.bytes(8).toString('hex')
  const startedS = Math.floor(world.clock.wallMs() / 1000)
  const store: Store = await FileStore.open(world, timers, log, options, identity).catch(async error => {
    await lock.release()
    throw error
  })
  const { recovery } = store
  const read = <T>(reading: Promise<T>) =>
    reading.catch(async error => {
      await store.close()
      await lock.release()
      throw error
    })
  const quarantine = await read(Quarantine.read(world.disk, options.dataDirectory))
  const ordererFile = await read(OrdererFile.read(world.disk, options.dataDirectory))
  log.info({ storageId, group, epoch: store.epoch, end: store.end.sequence, ...recovery }, 'the store is recovered')

  const blocks = new BlockPool()
  const partials = new PartialFiles(timers, blocks)
  const pool = new FramePool({
    sockets: world.sockets,
    clock: world.clock,
    timers,
    random: world.random,
    connectMs: CONNECT_MS,
    timeouts: PEER_TIMEOUTS,
    proof: { role: 'peer', key: options.clusterSecret },
    connectionsPerServerMax: PEER_CONNECTIONS_MAX,
    idleMsMax: PEER_IDLE_MS,
  })
  const counts: PortCounts = {
    uploads: 0,
    uploadBytes: 0,
    downloads: 0,
    downloadBytes: 0,
    deletes: 0,
    ackTimeouts: 0,
    infos: 0,
    forwarded: 0,
    applied: 0,
    appliedBytes: 0,
    cacheHits: 0,
    corruptBlocks: 0,
    failed: 0,
  }
  const replicas = new Replicas(world.clock, timers, store.end.sequence, () => ({
    records: counts.uploads + counts.deletes,
    bytes: counts.uploadBytes,
  }))
  // Before any tracker tells: a member that was forgotten would not be waited for.
  for (const position of store.positions) replicas.expect(position.storageId)
  for (const { peer, epoch, sequence } of await new MarkFiles(world.disk, options.dataDirectory).readAll()) {
    replicas.expect(peer, epoch === store.epoch ? sequence : 0)
  }
  for (const member of ordererFile.state.members) replicas.expect(member)
  const peerListeners: ((peers: readonly Peer[]) => void)[] = []
  const corruptionListeners: ((name: string) => void)[] = []
  const counters: (() => Readonly<Record<string, number>>)[] = []
  let bus: Bus | undefined
  /** Where trackers answer beats. */
  let beatInbox = ''
  let service: MicroService | undefined
  let ownIp = options.advertiseHost
  let heirs = heirsAmong([store])
  const { ended, end } = lifetime()

  const actor = new Actor<StorageState, StorageMessage, StorageEffect>(storageBehaviour, perform, {
    name: actorId,
    clock: world.clock,
    timers,
    log,
    onRestart: (error, restarts) => tell('actor_restarted', { error: String(error), restarts }),
  })
  const members = () => replicas.members
  const peers = () => actor.state?.peers ?? new Map<number, Peer>()
  const orderers: Orderers = new Orderers({
    ...{ file: ordererFile, store, clock: world.clock, members },
    sourceOf: ({ storageId, address }) => heirs.get(address ?? String(storageId)) ?? storageId,
    onUnsettled: () => agreement.wake(),
  })
  const agreement = new Agreement({
    ...{ orderers, file: ordererFile, store, pool, timers, log, members, peers },
    joined: () => actor.state?.joined === true,
    clock: world.clock,
    random: world.random,
    onSuccession: ({ source }) => tell('orderer_changed', { source, orderer: storageId }),
  })
  const portContext: PortContext = {
    store,
    orderers,
    replicas,
    ack: options.ack,
    isDurable: options.durability === 'fsync',
    blocks,
    partials,
    pool,
    access: new Access(options.auth ?? 'none', group, world.clock),
    listers: new Listers(),
    log,
    counts,
    uploadsRefused: () => {
      const { state } = actor
      return state?.status === 'active' ? undefined : (state?.reason ?? 'the storage server is starting anew')
    },
    peers,
    heirs: () => heirs,
    joined: () => actor.state?.joined === true,
    ownIp: () => ownIp,
    acknowledged: onPhase === undefined ? {} : { release: async () => onPhase('acknowledged') },
    onCorruption: name => {
      for (const listener of corruptionListeners) listener(name)
    },
  }
  const feed = new BinlogFeed({ context, group, storageId, bus: () => bus })
  const port = await FrameServer.listen({
    sockets: world.sockets,
    clock: world.clock,
    timers,
    log,
    listenAt: options.bind,
    admits: options.admits,
    connectionsMax: CONNECTIONS_MAX,
    bodyBytesMax: BODY_BYTES_MAX,
    timeouts: TIMEOUTS,
    handler: storagePort(
      portContext,
      new Gatekeeper(options.clusterSecret, world, options.credentials.ticketKeys),
      incarnation,
    ),
    closesAfter,
  }).catch(async error => {
    await store.close()
    await lock.release()
    throw error
  })
  store.onFlush(flush => replicas.backlog.grow(flush))
  store.onFlush(flush => feed.add(flush))
  actor.start()
  void agreement.run()
  // Files are served whether NATS is there or not; only new ones wait for a tracker's word.
  connectBus().catch(error => log.error({ err: error }, 'NATS refuses us'))
  if (recovery.missing.length > 0)
    log.error({ files: recovery.missing.slice(0, 100) }, 'files of the binlog are missing')
  log.info({ endpoint: port.endpoint, storageId, group }, 'storage server is ready')

  return {
    endpoint: port.endpoint,
    storageId,
    store,
    blocks,
    quarantine,
    pool,
    replicas,
    ordering: {
      term: () => orderers.termToShip(),
      isLost: member => orderers.isLost(member),
      goesWhole: record => orderers.goesWhole(record),
      get takenBack() {
        return orderers.takenBack
      },
    },
    orders: source => orderers.orders(source),
    takeOver: (source, isAlone) => agreement.takeOver(source, isAlone),
    ended,
    onPeers: listener => void peerListeners.push(listener),
    epochTooOld: epochMin => void actor.post({ type: 'epochTooOld', epochMin }),
    onCorruption: listener => void corruptionListeners.push(listener),
    addCounts: count => void counters.push(count),
    tellCorruption: (name, problem) => tell('corruption', { file: `${group}/${name}`, problem }),
    stop: () => stop('stopped'),
  }

  async function connectBus(): Promise<void> {
    const connected = await connectRole(context, options.credentials, `dfs-${actorId}`)
    const inbox = connected.newInbox()
    connected.subscribe(inbox, message => {
      try {
        actor.post({ type: 'welcome', welcome: admit(Welcome, message.payload).value })
      } catch (error) {
        log.warn({ err: error }, "a tracker's answer cannot be read")
      }
    })
    service = announce(context, connected, 'storage', actorId, 'holds the files of a group', {
      group,
      endpoint: `${options.advertiseHost}:${port.endpoint.port}`,
    })
    const report = () => actor.ask<StorageReport>(replyTo => ({ type: 'status', replyTo }))
    serve(service, storageStatus, subjectOf(storageStatus, { prefix, group }), log, report)
    serve(service, actorStatus, subjectOf(actorStatus, { prefix, id: actorId }), log, report, {
      data: () => ({ ...statistics() }),
    })
    serve(service, takeOver, subjectOf(takeOver, { prefix, id: actorId }), log, async ({ source, alone }) => {
      await agreement.takeOver(source, alone === true)
      log.warn({ source, alone }, 'an operator has made us order the changes of a source that is gone')
      return { source, orderer: storageId, term: orderers.table.term }
    })
    beatInbox = inbox
    bus = connected
    actor.post({ type: 'natsConnected' })
    connected.onStatus(status => {
      if (status === 'connected') actor.post({ type: 'natsConnected' })
    })
  }

  async function perform(effect: StorageEffect): Promise<StorageMessage | undefined> {
    switch (effect.do) {
      case 'join':
        return join()
      case 'beat':
        await beat()
        return undefined
      case 'examine':
        return { type: 'examined', problem: await examine() }
      case 'tellPeers':
        for (const { storageId: peer } of effect.peers) replicas.expect(peer)
        if (orderers.settled === undefined) agreement.wake()
        heirs = heirsAmong([store, ...effect.peers])
        for (const listener of peerListeners) listener(effect.peers)
        return undefined
      case 'raiseEpoch':
        log.warn({ epoch: effect.epoch }, 'this storage id has lived before: starting anew under a higher epoch')
        await raiseEpoch(world, options, identity, effect.epoch)
        void stop('again')
        return undefined
      case 'report':
        effect.to.resolve(await report())
        return undefined
      case 'event':
        tell(effect.kind, effect.detail)
        return undefined
    }
  }

  async function join(): Promise<StorageMessage> {
    if (bus === undefined) return { type: 'joinFailed', reason: 'NATS cannot be reached yet' }
    try {
      const payload = encode(await report(), 'msgpack')
      const reply = await bus.request(subjectOf(trackerJoin, { prefix }), payload, { timeoutMs: JOIN_TIMEOUT_MS })
      return { type: 'joined', welcome: admit(Welcome, reply.payload).value }
    } catch (error) {
      return { type: 'joinFailed', reason: `no tracker has answered: ${toDfsError(error).message}` }
    }
  }

  async function beat(): Promise<void> {
    if (bus === undefined) return
    const subject = subjectOf(storageBeat, { prefix, group, id: String(storageId) })
    publishQuietly(context, bus, subject, encode(await report(), 'msgpack'), { replyTo: beatInbox })
  }

  async function report(status = actor.state?.status ?? 'joining'): Promise<StorageReport> {
    // A name may stand for another address after a restart of its container.
    ownIp = await world.sockets.resolve(options.advertiseHost).catch(() => ownIp)
    const reason = actor.state?.reason
    return {
      protocol: PROTOCOL_VERSION,
      version: context.version,
      storageId,
      group,
      host: options.advertiseHost,
      ip: ownIp,
      port: port.endpoint.port,
      incarnation,
      boot: { count: identity.bootCount, secret: bootSecret },
      epoch: store.epoch,
      status,
      ...(reason === undefined ? {} : { reason }),
      uploadPriority: options.uploadPriority,
      auth: options.auth ?? 'none',
      ...(store.formerly.length === 0 ? {} : { formerly: [...store.formerly] }),
      storePaths: [...store.storePaths],
      binlogEnd: { ...store.end },
      positions: [...store.positions],
      peers: replicas.backlogs().slice(0, GROUP_MEMBERS_MAX),
      ...(orderers.table.term === 0 ? {} : { orders: [...orderers.ordered], term: orderers.table.term }),
      counts: {
        ...counts,
        connections: port.connectionCount,
        refused: port.refusedCount,
        bytesInFlight: blocks.takenBytes,
        restarts: actor.stats.restarts,
        dropped: actor.stats.dropped,
        recoveryTornBytes: recovery.tornBytes,
        recoveryDamagedLines: recovery.damagedLines,
        recoveryMissing: recovery.missing.length,
        recoveryOrphans: recovery.orphans.length,
        badFiles: quarantine.count,
        asideFiles: store.asideCount,
        ...Object.assign({}, ...counters.map(count => count())),
      },
      statistics: statistics(),
      madeS: identity.madeS,
      startedS,
    }
  }

  function statistics(): Statistics {
    const synced = store.positions.map(({ timeMs }) => Math.floor(timeMs / 1000))
    return withoutZeros({
      ...store.counters,
      connection_alloc_count: port.connectionPeak,
      connection_current_count: port.connectionCount,
      connection_max_count: port.connectionPeak,
      last_source_update: Math.floor(store.end.timeMs / 1000),
      last_synced_timestamp: synced.length === 0 ? 0 : Math.min(...synced),
    })
  }

  /** What keeps us from taking files, if anything. */
  async function examine(): Promise<string | undefined> {
    if (!(await lock.held())) return 'the lock of the data directory was taken away'
    const paths = await store.measure()
    if (store.failure !== undefined) return `the binlog cannot be written: ${store.failure.message}`
    if (paths.every(path => !path.writable)) return 'no store path can be written'
    return undefined
  }

  function tell(kind: string, detail: Record<string, unknown>): void {
    if (bus !== undefined) publishEvent(context, bus, { actor: actorId, group, kind, detail: { storageId, ...detail } })
    else log.warn({ event: kind, ...detail }, `event ${kind}`)
  }

  async function stop(how: 'stopped' | 'again'): Promise<void> {
    actor.post({ type: 'drain' })
    agreement.stop()
    replicas.close()
    await port.close(CLOSE_GRACE_MS)
    feed.publish()
    await service?.stop()
    if (bus !== undefined) {
      const goodbye = encode(await report('offline'), 'msgpack')
      publishQuietly(context, bus, subjectOf(storageBeat, { prefix, group, id: String(storageId) }), goodbye, {
        replyTo: beatInbox,
      })
    }
    actor.stop()
    pool.close()
    await partials.clear()
    await store.close()
    await lock.release()
    await bus?.drain()
    end(how)
  }
}

/** Storage ids by the names that FastDFS gave to servers whose files were taken over. */
function heirsAmong(
  members: readonly { storageId: number; formerly?: readonly string[] }[],
): ReadonlyMap<string, number> {
  return new Map(members.flatMap(({ storageId, formerly = [] }) => formerly.map(name => [name, storageId] as const)))
}
