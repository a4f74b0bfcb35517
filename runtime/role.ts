/** What every role of the cluster is started with, and the small things all of them do. */
import { encode } from '../protocol/codec.ts'
import { type PayloadOf, subjectOf } from '../protocol/message.ts'
import { clusterEvent } from '../protocol/storage-messages.ts'
import { roleBeat } from '../protocol/tracker-messages.ts'
import type { Bus, BusHeaders } from './bus.ts'
import type { Log } from './log.ts'
import { MicroService } from './micro-service.ts'
import type { Credentials } from './secrets.ts'
import type { Timers } from './timers.ts'
import type { World } from './world.ts'

/** The environment of a role. */
export interface RoleContext {
  readonly world: World
  readonly timers: Timers
  readonly log: Log
  /** The first token of every subject. */
  readonly prefix: string
  readonly version: string
}

/** A role that runs. */
export interface RunningRole {
  /** Resolves with `again` when the role asks to be started anew, or with `stopped`. */
  readonly ended: Promise<'stopped' | 'again'>
  /** Finishes what is under way, says goodbye, lets go of everything. */
  stop(): Promise<void>
}

/** The promise of a role's end, and the way to keep it. */
export function lifetime(): { readonly ended: RunningRole['ended']; end(how: 'stopped' | 'again'): void } {
  let end: (how: 'stopped' | 'again') => void = () => undefined
  const ended = new Promise<'stopped' | 'again'>(resolve => {
    end = resolve
  })
  return { ended, end }
}

/** Connects to NATS under the credentials of a role; keeps trying for ever. */
export function connectRole(context: RoleContext, credentials: Credentials, name: string): Promise<Bus> {
  const { servers, user, password, inboxPrefix } = credentials
  return context.world.connectBus({ servers, user, password, inboxPrefix, name, waitForServer: true })
}

/** Announces a role as a NATS micro service. */
export function announce(
  context: RoleContext,
  bus: Bus,
  role: 'tracker' | 'storage' | 'sync' | 'gateway',
  id: string,
  description: string,
  metadata: Record<string, string>,
): MicroService {
  return new MicroService(bus, context.world.clock, {
    name: `${context.prefix}-${role}`,
    id,
    version: context.version,
    description,
    metadata: { ...metadata, protocol: '1', formats: 'json,msgpack' },
  })
}

/** Tells the trackers that a role is there, or is leaving. */
export function sendRoleBeat(
  context: RoleContext,
  bus: Bus,
  { group, ...beat }: PayloadOf<typeof roleBeat> & { group: string },
): void {
  const { role, id } = beat
  const subject = subjectOf(roleBeat, { prefix: context.prefix, role, group, id })
  publishQuietly(context, bus, subject, encode({ ...beat, version: context.version }, 'msgpack'))
}

/** Tells people that something happened; JSON. */
export function publishEvent(
  context: RoleContext,
  bus: Bus,
  event: { actor: string; group: string; kind: string; detail: Record<string, unknown> },
): void {
  const { actor, group, kind, detail } = event
  context.log.info({ event: kind, group, ...detail }, `event ${kind}`)
  const body = { type: kind, group, actor, timeMs: context.world.clock.wallMs(), detail }
  publishQuietly(
    context,
    bus,
    subjectOf(clusterEvent, { prefix: context.prefix, group, id: kind }),
    encode(body, 'json'),
  )
}

/** Publishes what nobody depends on: a bus that is down loses it, and that is all. */
export function publishQuietly(
  context: RoleContext,
  bus: Bus,
  subject: string,
  payload: Uint8Array,
  options?: { replyTo?: string; headers?: BusHeaders },
): void {
  try {
    bus.publish(subject, payload, options)
  } catch (error) {
    context.log.debug({ err: error, subject }, 'not published')
  }
}
