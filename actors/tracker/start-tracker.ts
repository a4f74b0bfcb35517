/** Starts a tracker: its actor, its place on the bus, its FastDFS port. */
import { encode } from '../../protocol/codec.ts'
import { DfsError } from '../../protocol/errors.ts'
import { admit, type ReplyOf, type RequestDefinition, type RequestOf, subjectOf } from '../../protocol/message.ts'
import { StorageReport, storageBeat, type Welcome } from '../../protocol/storage-messages.ts'
import type { Operation } from '../../protocol/ticket.ts'
import { formatAddress } from '../../protocol/tracker-bodies.ts'
import {
  deleteGroup,
  deleteStorage,
  queryFetch,
  queryStore,
  queryUpdate,
  roleBeat,
  trackerForget,
  trackerGroups,
  trackerJoin,
  trackerLocate,
  trackerStatus,
  trackerStorages,
  trackerTicket,
} from '../../protocol/tracker-messages.ts'
import { Actor, type ReplyTo } from '../../runtime/actor.ts'
import type { BusMessage } from '../../runtime/bus.ts'
import { serve } from '../../runtime/endpoint.ts'
import { type Admits, FrameServer } from '../../runtime/frame-server.ts'
import { ensureStream } from '../../runtime/jetstream.ts'
import {
  announce,
  connectRole,
  lifetime,
  publishEvent,
  publishQuietly,
  type RoleContext,
  type RunningRole,
  sendRoleBeat,
} from '../../runtime/role.ts'
import type { Credentials } from '../../runtime/secrets.ts'
import type { Endpoint } from '../../runtime/world.ts'
import type { Forgotten } from './forget.ts'
import type { PlacementPolicy } from './placement.ts'
import { TicketOffice } from './ticket-office.ts'
import { type TrackerEffect, type TrackerMessage, type TrackerState, trackerBehaviour } from './tracker.ts'
import { TRACKER_BODY_BYTES_MAX, trackerPort } from './tracker-port.ts'

export interface TrackerOptions {
  /** `tracker-1`: one token of a subject. */
  readonly trackerId: string
  readonly credentials: Credentials
  readonly bind: Endpoint
  /** Who may connect to the port; undefined for everybody. */
  readonly admits?: Admits | undefined
  /** What clients are told to connect to. */
  readonly advertiseHost: string
  readonly policy: PlacementPolicy
}

/** FastDFS clients keep connections for an hour; a header that takes seconds is an attack or a broken network. */
const TIMEOUTS = { idleMs: 3_600_000, headerMs: 10_000, bodyMs: 30_000 }
const CONNECTIONS_MAX = 4096
const CLOSE_GRACE_MS = 1_000

export async function startTracker(
  context: RoleContext,
  options: TrackerOptions,
): Promise<RunningRole & { readonly endpoint: Endpoint }> {
  const { world, timers, log, prefix } = context
  const { trackerId } = options
  const startedS = Math.floor(world.clock.wallMs() / 1000)
  const office = new TicketOffice(options.credentials.ticketKeys ?? [], world.clock)
  const bus = await connectRole(context, options.credentials, `dfs-${trackerId}`)
  const beat = (leaving: boolean) =>
    sendRoleBeat(context, bus, {
      role: 'tracker',
      group: 'all',
      id: trackerId,
      endpoint: formatAddress(options.advertiseHost, port.endpoint.port),
      startedS,
      connections: port.connectionCount,
      connectionPeak: port.connectionPeak,
      leaving,
    })
  const tracker = new Actor<TrackerState, TrackerMessage, TrackerEffect>(
    trackerBehaviour({ trackerId, version: context.version, policy: options.policy }),
    effect => {
      switch (effect.do) {
        case 'beat':
          return beat(false)
        case 'event':
          return publishEvent(context, bus, { actor: trackerId, ...effect })
        case 'ensureStream':
          return ensureBinlogStream(effect.group)
        case 'tellForget':
          return tellForget(effect.what)
      }
    },
    {
      name: trackerId,
      clock: world.clock,
      timers,
      log,
      onRestart: (error, restarts) =>
        publishEvent(context, bus, {
          actor: trackerId,
          group: 'all',
          kind: 'actor_restarted',
          detail: { error: String(error), restarts },
        }),
    },
  )
  const port = await FrameServer.listen({
    sockets: world.sockets,
    clock: world.clock,
    timers,
    log,
    listenAt: options.bind,
    admits: options.admits,
    connectionsMax: CONNECTIONS_MAX,
    bodyBytesMax: TRACKER_BODY_BYTES_MAX,
    timeouts: TIMEOUTS,
    lengthBits: 32,
    handler: trackerPort({
      tracker,
      policy: options.policy,
      clock: world.clock,
      startedS,
      advertised: () => ({ host: options.advertiseHost, port: port.endpoint.port }),
      resolve: host => world.sockets.resolve(host).catch(() => host),
    }),
    // FastDFS's tracker keeps a connection after any error.
    closesAfter: () => false,
  })
  bus.onStatus(status => {
    if (status === 'connected') noteNats()
  })
  noteNats()

  bus.subscribe(subjectOf(storageBeat, { prefix }), message => hearStorage(message))
  bus.subscribe(subjectOf(roleBeat, { prefix }), message => hearRole(message))
  bus.subscribe(subjectOf(trackerForget, { prefix }), message => hearForget(message))
  // After the ears, the mouth: its own first beat comes back to it too.
  tracker.start()
  const service = announce(context, bus, 'tracker', trackerId, 'knows the groups and picks storage servers', {
    endpoint: `${options.advertiseHost}:${port.endpoint.port}`,
  })
  answer(trackerJoin, (report, replyTo) => ({ type: 'join', report, replyTo }))
  answer(
    queryStore,
    (request, replyTo) => ({ type: 'queryStore', request, replyTo }),
    (reply, { uploadIds }) => (uploadIds === undefined ? reply : withTicket(reply, ['upload'], uploadIds)),
  )
  answer(
    queryFetch,
    ({ fileId }, replyTo) => ({ type: 'queryFetch', fileId, replyTo }),
    reply => withTicket(reply, ['read']),
  )
  answer(
    queryUpdate,
    ({ fileId }, replyTo) => ({ type: 'queryUpdate', fileId, replyTo }),
    reply => withTicket(reply, ['change', 'delete']),
  )
  answer(trackerLocate, ({ fileId }, replyTo) => ({ type: 'locate', fileId, replyTo }))
  answer(trackerGroups, (_, replyTo) => ({ type: 'groups', replyTo }))
  answer(trackerStorages, ({ group }, replyTo) => ({ type: 'storages', group, replyTo }))
  answer(deleteStorage, ({ group, storageId }, replyTo) => ({ type: 'delete', group, storageId, replyTo }))
  answer(deleteGroup, ({ group }, replyTo) => ({ type: 'delete', group, replyTo }))
  answer(trackerStatus, (_, replyTo) => ({ type: 'status', replyTo }))
  serve(service, trackerTicket, subjectOf(trackerTicket, { prefix }), log, async request => {
    if (tracker.state?.groups.has(request.group) !== true) throw new DfsError('unknown_group')
    return office.issue(request)
  })
  await bus.flush().catch(error => log.warn({ err: error }, 'NATS is not there yet'))
  log.info({ endpoint: port.endpoint }, 'tracker is ready')

  const { ended, end } = lifetime()
  return {
    endpoint: port.endpoint,
    ended,
    async stop() {
      await port.close(CLOSE_GRACE_MS)
      await service.stop()
      beat(true)
      tracker.stop()
      await bus.drain()
      end('stopped')
    },
  }

  function answer<D extends RequestDefinition>(
    definition: D,
    make: (request: RequestOf<D>, replyTo: ReplyTo<never>) => TrackerMessage,
    complete: (reply: ReplyOf<D>, request: RequestOf<D>) => ReplyOf<D> = reply => reply,
  ): void {
    serve(service, definition, subjectOf(definition, { prefix }), log, async request =>
      complete(await tracker.ask<ReplyOf<D>>(replyTo => make(request, replyTo as ReplyTo<never>)), request),
    )
  }

  /** Adds a ticket to an answer that leads to servers which ask for one. */
  function withTicket<R extends { group: string }>(reply: R, operations: readonly Operation[], uploadIds?: string): R {
    const { group } = reply
    const isAsked = tracker.state?.groups.get(group)?.some(({ report }) => report.auth === 'ticket')
    return isAsked && office.isOpen ? { ...reply, ticket: office.issue({ group, operations, uploadIds }) } : reply
  }

  function hearStorage(message: BusMessage): void {
    try {
      const report = admit(StorageReport, message.payload).value
      const replyTo: ReplyTo<Welcome> = {
        resolve: welcome => message.respond(encode(welcome, 'msgpack')),
        reject: () => undefined,
      }
      tracker.post({ type: 'beat', report, replyTo })
    } catch (error) {
      log.warn({ err: error, subject: message.subject }, 'a beat cannot be read')
    }
  }

  function hearRole(message: BusMessage): void {
    // Storage servers' beats come below the same root; their subject has its own listener.
    if (message.subject.startsWith(`${prefix}.hb.storage.`)) return
    try {
      tracker.post({ type: 'roleBeat', beat: admit(roleBeat.payload, message.payload).value })
    } catch (error) {
      log.warn({ err: error, subject: message.subject }, 'a beat cannot be read')
    }
  }

  /** Those that hear it decide by what they hear, as this one did. */
  function tellForget(what: Forgotten): void {
    const subject = subjectOf(trackerForget, { prefix, group: what.group, id: String(what.storageId ?? 'all') })
    publishQuietly(context, bus, subject, encode(what, 'msgpack'))
  }

  function hearForget(message: BusMessage): void {
    try {
      tracker.post({ type: 'forget', ...admit(trackerForget.payload, message.payload).value })
    } catch (error) {
      log.warn({ err: error, subject: message.subject }, 'what is to be forgotten cannot be read')
    }
  }

  function noteNats(): void {
    tracker.post({ type: 'natsConnected', jetstream: bus.jetstream, serverVersion: bus.serverVersion })
    if (!bus.jetstream) log.warn('this NATS has no JetStream: binlog events are not kept, everything else works')
  }

  async function ensureBinlogStream(group: string): Promise<void> {
    try {
      await ensureStream(bus, `${prefix.toUpperCase()}_BINLOG_${group}`, [`${prefix}.binlog.${group}.>`])
    } catch (error) {
      // A copy for followers, not the log itself: its absence is told, and stops nobody.
      log.warn({ err: error, group }, 'the binlog stream could not be made')
    }
  }
}
