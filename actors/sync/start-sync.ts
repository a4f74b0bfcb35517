/** Starts the sync workers of a storage server: one actor that serves all its peers, beside the store it reads. */
import { DfsError } from '../../protocol/errors.ts'
import { subjectOf } from '../../protocol/message.ts'
import { binlogFlushed, type Peer, syncStatus } from '../../protocol/storage-messages.ts'
import { Actor } from '../../runtime/actor.ts'
import type { Bus } from '../../runtime/bus.ts'
import { serve } from '../../runtime/endpoint.ts'
import type { FramePool } from '../../runtime/frame-pool.ts'
import type { MicroService } from '../../runtime/micro-service.ts'
import {
  announce,
  connectRole,
  lifetime,
  publishEvent,
  type RoleContext,
  type RunningRole,
  sendRoleBeat,
} from '../../runtime/role.ts'
import type { Credentials } from '../../runtime/secrets.ts'
import type { BlockPool } from '../../store/block-pool.ts'
import { MarkFiles } from '../../store/mark-file.ts'
import type { Ordering } from '../../store/ordering.ts'
import type { Replicas } from '../../store/replicas.ts'
import type { Store } from '../../store/store.ts'
import { type ReplayContext, replayBinlog } from './replay-binlog.ts'
import { type PeerMark, POLL_MS, type SyncEffect, type SyncMessage, type SyncState, syncBehaviour } from './sync.ts'

export interface SyncOptions {
  readonly credentials: Credentials
  readonly dataDirectory: string
  readonly store: Store
  readonly ordering: Ordering
  readonly blocks: BlockPool
  readonly pool: FramePool
  /** Learns what each peer has confirmed. */
  readonly replicas: Replicas
  /** Tells the peers whenever they are told. */
  readonly onPeers: (listener: (peers: readonly Peer[]) => void) => void
  /** Told when a peer knows more of our records than we do. */
  readonly onEpochTooOld: (epochMin: number) => void
  /** Told of an own file that is shipped as unreadable. */
  readonly onCorruption: (name: string) => void
}

export async function startSync(context: RoleContext, options: SyncOptions): Promise<RunningRole> {
  const { world, timers, log, prefix } = context
  const { store, replicas } = options
  const { storageId, group, epoch } = store
  const syncId = `sync-${storageId}`
  const markFiles = new MarkFiles(world.disk, options.dataDirectory)
  const marks = new Map<number, PeerMark>()
  for (const mark of await markFiles.readAll()) {
    if (mark.epoch !== epoch) continue
    marks.set(mark.peer, { incarnation: mark.peerIncarnation, sequence: mark.sequence, shipped: mark.shipped })
  }
  let bus: Bus | undefined
  let service: MicroService | undefined
  let stopped = false
  /** Marks that moved since they were written: once a poll is enough for what is only a copy. */
  const unwritten = new Map<number, PeerMark>()

  const replay: ReplayContext = {
    store,
    ordering: options.ordering,
    replicas,
    blocks: options.blocks,
    pool: options.pool,
    log,
    cursors: new Map(),
    unreadable: new Map(),
    onProgress: ({ storageId: peer }, mark) => {
      unwritten.set(peer, mark)
      actor.post({ type: 'progress', storageId: peer, mark })
    },
    onEpochTooOld: options.onEpochTooOld,
    onCorruption: options.onCorruption,
  }
  const actor = new Actor<SyncState, SyncMessage, SyncEffect>(
    syncBehaviour({ epoch, marks }),
    effect => {
      switch (effect.do) {
        case 'poll':
          return poll()
        case 'replay':
          return replayTo(effect.peer, effect.mark)
        case 'report': {
          const peers = effect.peers.map(peer => ({ ...peer, ...replicas.backlog.after(peer.mark.sequence) }))
          effect.to.resolve({ storageId, group, peers })
          return undefined
        }
      }
    },
    {
      name: syncId,
      clock: world.clock,
      timers,
      log,
      onRestart: (error, restarts) => tell('actor_restarted', { error: String(error), restarts }),
    },
  )
  store.onFlush(({ sequence }) => void actor.post({ type: 'binlogFlushed', end: sequence }))
  options.onPeers(peers => void actor.post({ type: 'peers', peers }))
  actor.start()
  countBefore().catch(error => log.error({ err: error }, 'what the peers lacked before this start cannot be read'))
  connectBus().catch(error => log.error({ err: error }, 'NATS refuses the sync worker'))

  const { ended, end } = lifetime()
  return {
    ended,
    async stop() {
      stopped = true
      actor.stop()
      await writeMarks().catch(error => log.error({ err: error }, 'a mark could not be written'))
      await service?.stop()
      beat(true)
      await bus?.drain()
      end('stopped')
    },
  }

  async function connectBus(): Promise<void> {
    const connected = await connectRole(context, options.credentials, `dfs-${syncId}`)
    service = announce(context, connected, 'sync', syncId, 'ships the binlog of a storage server to its peers', {
      group,
    })
    serve(service, syncStatus, subjectOf(syncStatus, { prefix, id: syncId }), log, () =>
      actor.ask(replyTo => ({ type: 'status', replyTo })),
    )
    // The binlog's own event, as everybody else hears it: in one process it is an echo, apart it is the doorbell.
    connected.subscribe(subjectOf(binlogFlushed, { prefix, group, id: String(storageId) }), () =>
      actor.post({ type: 'binlogFlushed', end: store.end.sequence }),
    )
    bus = connected
  }

  async function poll(): Promise<SyncMessage> {
    beat(false)
    await writeMarks().catch(error => log.error({ err: error }, 'a mark could not be written'))
    await timers.sleep(POLL_MS)
    return { type: 'poll', end: store.end.sequence }
  }

  /** Counts what the peers lacked when this server started. */
  async function countBefore(): Promise<void> {
    const { sequence: until } = store.end
    const after = replicas.slowest
    if (after < until) await replicas.backlog.readBefore(after, store.readRecords({ after, until }))
  }

  async function writeMarks(): Promise<void> {
    for (const [peer, { incarnation, sequence, shipped }] of unwritten) {
      unwritten.delete(peer)
      await markFiles.write({ peer, peerIncarnation: incarnation, epoch, sequence, shipped })
    }
  }

  function beat(leaving: boolean): void {
    if (bus === undefined) return
    sendRoleBeat(context, bus, { role: 'sync', group, id: syncId, endpoint: '', leaving })
  }

  async function replayTo(peer: Peer, mark: PeerMark | undefined): Promise<SyncMessage | undefined> {
    const { storageId: peerId } = peer
    try {
      const reached = await replayBinlog(replay, peer, mark)
      unwritten.set(peerId, reached)
      return { type: 'replayed', storageId: peerId, mark: reached }
    } catch (error) {
      if (stopped) return undefined
      const message = error instanceof Error ? error.message : String(error)
      log.warn({ err: error, peer: peerId }, 'a peer could not be synced; it will be tried again')
      const skipsOnce = error instanceof DfsError && error.code === 'corrupt'
      return { type: 'replayFailed', storageId: peerId, error: message, skipsOnce }
    }
  }

  function tell(kind: string, detail: Record<string, unknown>): void {
    if (bus !== undefined) publishEvent(context, bus, { actor: syncId, group, kind, detail: { storageId, ...detail } })
    else log.warn({ event: kind, ...detail }, `event ${kind}`)
  }
}
