/** The tracker: hears every beat, knows the groups, answers every question about where to go. */

import { type ErrorCode, toDfsError } from '../../protocol/errors.ts'
import { decodeFileName, type FileId, mayChange, parseFileId } from '../../protocol/file-id.ts'
import type { PayloadOf, ReplyOf, RequestOf } from '../../protocol/message.ts'
import type { StorageReport, Welcome } from '../../protocol/storage-messages.ts'
import type {
  queryFetch,
  queryStore,
  roleBeat,
  trackerGroups,
  trackerLocate,
  trackerStatus,
  trackerStorages,
} from '../../protocol/tracker-messages.ts'
import type { CommonEffect, ReplyTo, Step } from '../../runtime/actor.ts'
import { unreachable } from '../../runtime/actor.ts'
import { type Admission, admitBeat, admitJoin } from './admission.ts'
import { type HashRing, makeRing } from './consistent-hash.ts'
import { type Forgotten, forget } from './forget.ts'
import { type PlacementPolicy, place, rotate, type Turns } from './placement.ts'
import {
  addressOf,
  type Groups,
  groupView,
  isReadable,
  OFFLINE_AFTER_MS,
  ordererIn,
  peersOf,
  type RoleEntry,
  type StorageEntry,
  sourceIn,
  storageView,
  surelyHolds,
  withStorage,
} from './view.ts'

/** How often it beats, and looks who has gone silent. */
export const TRACKER_TICK_MS = 1_000

/** How long a placement may be used without asking again: long enough to matter, short enough to go round. */
const LEASE_MS = 1_000

/**
 * A tracker that has been silent for so long no longer speaks for all. Sooner than a storage server counts as offline:
 * when a machine dies with both, somebody is left to tell. An event told twice does no harm.
 */
const UNSPOKEN_AFTER_MS = OFFLINE_AFTER_MS / 2

/** Roles that have been silent for so long are forgotten; storage servers never are, they hold files. */
const ROLE_FORGOTTEN_MS = 60_000

export interface TrackerConfig {
  readonly trackerId: string
  readonly version: string
  readonly policy: PlacementPolicy
}

export interface TrackerState {
  readonly groups: Groups
  readonly ring: HashRing
  readonly roles: ReadonlyMap<string, RoleEntry>
  readonly turns: Turns & { readonly fetch: number }
  /** When anything was heard last; our own beats come back to us, so silence means that our NATS is gone. */
  readonly heardMs: number
  /** Nobody is judged by a silence that began before this. */
  readonly listeningSinceMs: number
  readonly stale: boolean
  readonly nats: { readonly jetstream: boolean; readonly serverVersion: string }
}

export type TrackerMessage =
  | { type: 'tick' }
  | { type: 'natsConnected'; jetstream: boolean; serverVersion: string }
  | { type: 'beat'; report: StorageReport; replyTo: ReplyTo<Welcome> }
  | { type: 'join'; report: StorageReport; replyTo: ReplyTo<Welcome> }
  | { type: 'roleBeat'; beat: PayloadOf<typeof roleBeat> }
  | { type: 'queryStore'; request: RequestOf<typeof queryStore>; replyTo: ReplyTo<ReplyOf<typeof queryStore>> }
  | { type: 'queryFetch'; fileId: string; replyTo: ReplyTo<ReplyOf<typeof queryFetch>> }
  | { type: 'queryUpdate'; fileId: string; replyTo: ReplyTo<ReplyOf<typeof queryFetch>> }
  | { type: 'locate'; fileId: string; replyTo: ReplyTo<ReplyOf<typeof trackerLocate>> }
  | { type: 'groups'; replyTo: ReplyTo<ReplyOf<typeof trackerGroups>> }
  | { type: 'storages'; group: string | undefined; replyTo: ReplyTo<ReplyOf<typeof trackerStorages>> }
  | { type: 'status'; replyTo: ReplyTo<ReplyOf<typeof trackerStatus>> }
  /** Somebody asks to forget. */
  | ({ type: 'delete'; replyTo: ReplyTo<Record<string, never>> } & Forgotten)
  /** A tracker was asked. */
  | ({ type: 'forget' } & Forgotten)

export type TrackerEffect =
  | { readonly do: 'beat' }
  | { readonly do: 'event'; readonly kind: string; readonly group: string; readonly detail: Record<string, unknown> }
  | { readonly do: 'ensureStream'; readonly group: string }
  | { readonly do: 'tellForget'; readonly what: Forgotten }

type Effects = (TrackerEffect | CommonEffect<TrackerMessage>)[]
type TrackerStep = Step<TrackerState, TrackerEffect | CommonEffect<TrackerMessage>>

const TICK = { do: 'after', key: 'tick', delayMs: TRACKER_TICK_MS, message: { type: 'tick' } } as const

/** The deciding half of a tracker. */
export function trackerBehaviour(config: TrackerConfig) {
  return {
    init: (nowMs: number): TrackerStep => [emptyState(nowMs), [{ do: 'beat' }, TICK]],
    step: (state: TrackerState, message: TrackerMessage, nowMs: number): TrackerStep => {
      const [next, effects] = step(config, state, message, nowMs)
      const isTold = effects.some(isEvent) && !speaksForAll(config, state, nowMs)
      return [next, isTold ? effects.filter(effect => !isEvent(effect)) : effects]
    },
  }
}

/** All trackers see the same; of those that are there, the one with the first id tells the world. */
function speaksForAll(config: TrackerConfig, state: TrackerState, nowMs: number): boolean {
  return [...state.roles.values()].every(
    ({ role, id, heardMs }) => role !== 'tracker' || id >= config.trackerId || nowMs - heardMs > UNSPOKEN_AFTER_MS,
  )
}

function isEvent(effect: Effects[number]): boolean {
  return effect.do === 'event'
}

function emptyState(nowMs: number): TrackerState {
  return {
    groups: new Map(),
    ring: makeRing([]),
    roles: new Map(),
    turns: { group: 0, inGroup: new Map(), fetch: 0 },
    heardMs: nowMs,
    listeningSinceMs: nowMs,
    stale: false,
    nats: { jetstream: false, serverVersion: '' },
  }
}

function step(config: TrackerConfig, state: TrackerState, message: TrackerMessage, nowMs: number): TrackerStep {
  switch (message.type) {
    case 'tick':
      return tick(state, nowMs)
    case 'natsConnected': {
      const { jetstream, serverVersion } = message
      const ensured = jetstream ? [...state.groups.keys()].map(group => ({ do: 'ensureStream', group }) as const) : []
      // What was said while we were not connected, nobody is blamed for.
      return [{ ...state, nats: { jetstream, serverVersion }, listeningSinceMs: nowMs }, ensured]
    }
    case 'beat':
      return welcome(config, state, message, admitBeat(state.groups, message.report), nowMs)
    case 'join':
      return welcome(config, state, message, admitJoin(state.groups, message.report), nowMs)
    case 'roleBeat':
      return [withRole(heard(state, nowMs), message.beat, nowMs), []]
    case 'queryStore': {
      const { groups, ring, turns } = state
      const placed = place(groups, ring, config.policy, turns, message.request)
      if ('code' in placed) {
        const code = placed.code === 'unknown_group' ? ignoranceOf(state, nowMs) : placed.code
        return [state, [{ do: 'refuse', to: message.replyTo, code }]]
      }
      const { group, servers, storePathIndex } = placed
      const body = { group, servers: [...servers], storePathIndex, leaseMs: LEASE_MS }
      return [{ ...state, turns: { ...turns, ...placed.turns } }, [{ do: 'reply', to: message.replyTo, body }]]
    }
    case 'queryFetch':
      return answerFor(state, message, nowMs, fileId => {
        const turns = { ...state.turns, fetch: state.turns.fetch + 1 }
        return [{ ...state, turns }, readersOf(state, fileId)]
      })
    case 'queryUpdate':
      return answerFor(state, message, nowMs, fileId => [state, orderersOf(state, fileId)])
    case 'locate':
      return locate(state, message.fileId, message.replyTo)
    case 'groups':
      return [state, [{ do: 'reply', to: message.replyTo, body: { groups: groupViews(state) } }]]
    case 'storages': {
      const { group } = message
      if (group !== undefined && !state.groups.has(group)) {
        return [state, [{ do: 'refuse', to: message.replyTo, code: 'unknown_group' }]]
      }
      return [state, [{ do: 'reply', to: message.replyTo, body: { storages: storageViews(state, nowMs, group) } }]]
    }
    case 'status':
      return [state, [{ do: 'reply', to: message.replyTo, body: statusOf(config, state, nowMs) }]]
    case 'delete':
      return deleted(state, message, nowMs)
    case 'forget': {
      const [next, effects] = forgotten(state, message)
      return [next, effects]
    }
    default:
      return unreachable(message)
  }
}

function tick(state: TrackerState, nowMs: number): TrackerStep {
  const effects: Effects = [{ do: 'beat' }, TICK]
  if (nowMs - state.heardMs > OFFLINE_AFTER_MS) return [{ ...state, stale: true }, effects]
  let groups = state.groups
  for (const members of state.groups.values()) {
    for (const entry of members) {
      const silentMs = nowMs - Math.max(entry.heardMs, state.listeningSinceMs)
      if (!entry.online || silentMs <= OFFLINE_AFTER_MS) continue
      groups = withStorage(groups, { ...entry, online: false })
      effects.push(memberEvent('storage_offline', entry.report, { silentMs: Math.round(silentMs) }))
    }
  }
  const roles = new Map([...state.roles].filter(([, role]) => nowMs - role.heardMs < ROLE_FORGOTTEN_MS))
  return [{ ...state, groups, roles }, effects]
}

/** Notes that something was heard. After a silence of everything, nobody is blamed for it. */
function heard(state: TrackerState, nowMs: number): TrackerState {
  if (!state.stale) return { ...state, heardMs: nowMs }
  return { ...state, heardMs: nowMs, stale: false, listeningSinceMs: nowMs }
}

function welcome(
  config: TrackerConfig,
  before: TrackerState,
  { report, replyTo }: { report: StorageReport; replyTo: ReplyTo<Welcome> },
  admission: Admission,
  nowMs: number,
): TrackerStep {
  const state = heard(before, nowMs)
  const body: Welcome = { trackerId: config.trackerId, ...admission, peers: peersOf(state.groups, report) }
  const effects: Effects = [{ do: 'reply', to: replyTo, body }]
  if (!admission.accepted) return [state, effects]
  const known = state.groups.get(report.group)?.find(member => member.report.storageId === report.storageId)
  const online = report.status !== 'offline'
  if (known?.online !== online) {
    effects.push(memberEvent(online ? 'storage_online' : 'storage_offline', report, {}))
  }
  const isNewGroup = !state.groups.has(report.group)
  const groups = withStorage(state.groups, { report, heardMs: nowMs, online })
  if (isNewGroup && state.nats.jetstream) effects.push({ do: 'ensureStream', group: report.group })
  return [{ ...state, groups, ring: isNewGroup ? makeRing([...groups.keys()]) : state.ring }, effects]
}

function withRole(state: TrackerState, beat: PayloadOf<typeof roleBeat>, nowMs: number): TrackerState {
  const { leaving, ...role } = beat
  const key = `${role.role} ${role.id}`
  const roles = new Map(state.roles)
  if (leaving) roles.delete(key)
  else roles.set(key, { ...role, heardMs: nowMs })
  return { ...state, roles }
}

/** Forgets what may be forgotten, and has the other trackers forget it. */
function deleted(
  state: TrackerState,
  { group, storageId, replyTo }: Forgotten & { replyTo: ReplyTo<never> },
  nowMs: number,
): TrackerStep {
  const what = { group, ...(storageId === undefined ? {} : { storageId }) }
  const [next, effects, code] = forgotten(state, what)
  if (code === undefined)
    return [next, [{ do: 'reply', to: replyTo, body: {} }, { do: 'tellForget', what }, ...effects]]
  return [state, [{ do: 'refuse', to: replyTo, code: code === 'unknown_group' ? ignoranceOf(state, nowMs) : code }]]
}

/** Forgets; or says why not. */
function forgotten(state: TrackerState, what: Forgotten): readonly [...TrackerStep, ErrorCode?] {
  const left = forget(state.groups, what)
  if ('code' in left) return [state, [], left.code]
  const { groups, member } = left
  if (member !== undefined) return [{ ...state, groups }, [memberEvent('storage_deleted', member.report, {})]]
  const event: TrackerEffect = { do: 'event', kind: 'group_deleted', group: what.group, detail: {} }
  return [{ ...state, groups, ring: makeRing([...groups.keys()]) }, [event]]
}

/** Answers a question about a file with candidates, or with what is wrong with the question. */
function answerFor(
  state: TrackerState,
  { fileId, replyTo }: { fileId: string; replyTo: ReplyTo<ReplyOf<typeof queryFetch>> },
  nowMs: number,
  choose: (id: FileId) => readonly [TrackerState, readonly StorageEntry[]],
): TrackerStep {
  try {
    const id = parseFileId(fileId)
    if (!state.groups.has(id.group)) return [state, [{ do: 'refuse', to: replyTo, code: ignoranceOf(state, nowMs) }]]
    const [next, candidates] = choose(id)
    if (candidates.length === 0) return [state, [{ do: 'refuse', to: replyTo, code: 'no_storage' }]]
    const file = decodeFileName(id.name)
    const members = state.groups.get(id.group)!
    const source = ordererIn(members, sourceIn(members, file))
    const positions = candidates.flatMap(({ report: { storageId, positions } }) => {
      const at = positions.find(position => position.storageId === source)
      return at === undefined ? [] : [{ storageId, epoch: at.epoch, sequence: at.sequence }]
    })
    const body = {
      group: id.group,
      servers: candidates.map(addressOf),
      ...(positions.length === 0 ? {} : { positions }),
      ...(source === undefined || source === file.storageId ? {} : { source }),
    }
    return [next, [{ do: 'reply', to: replyTo, body }]]
  } catch (error) {
    return [state, [refusal(error, replyTo)]]
  }
}

/** What it means not to know a group: a tracker that has just begun to listen may hear of it any moment. */
function ignoranceOf(state: TrackerState, nowMs: number): 'unknown_group' | 'no_storage' {
  return nowMs - state.listeningSinceMs < OFFLINE_AFTER_MS ? 'no_storage' : 'unknown_group'
}

/** Members that surely hold the file, in turn; then the others, which would have to ask them. */
function readersOf(state: TrackerState, { group, name }: FileId): readonly StorageEntry[] {
  const file = decodeFileName(name)
  // What is under its name may change, and the source is the first to know.
  if (mayChange(file)) return orderersOf(state, { group, name })
  const all = state.groups.get(group) ?? []
  const members = all.filter(isReadable)
  const source = sourceIn(all, file)
  const sure = members.filter(member => surelyHolds(member, source, file))
  return [...rotate(sure, state.turns.fetch), ...members.filter(member => !sure.includes(member))]
}

/** First who orders the changes of the file, since others would only pass them on. */
function orderersOf(state: TrackerState, { group, name }: FileId): readonly StorageEntry[] {
  const all = state.groups.get(group) ?? []
  const orderer = ordererIn(all, sourceIn(all, decodeFileName(name)))
  const members = all.filter(isReadable)
  const isOrderer = (member: StorageEntry) => member.report.storageId === orderer
  return [...members.filter(isOrderer), ...members.filter(member => !isOrderer(member))]
}

function locate(state: TrackerState, fileId: string, replyTo: ReplyTo<ReplyOf<typeof trackerLocate>>): TrackerStep {
  try {
    const id = parseFileId(fileId)
    const file = decodeFileName(id.name)
    const { storePathIndex, createTimeS, kind, crc32, address, sizeBytes } = file
    const storageId = sourceIn(state.groups.get(id.group) ?? [], file)
    const body: ReplyOf<typeof trackerLocate> = {
      group: id.group,
      storePathIndex,
      createTimeS,
      kind,
      crc32,
      ...(storageId === undefined ? {} : { source: storageId }),
      ...(address === undefined ? {} : { sourceAddress: address }),
      ...(sizeBytes === undefined ? {} : { sizeBytes }),
      servers: readersOf(state, id).map(addressOf),
    }
    return [state, [{ do: 'reply', to: replyTo, body }]]
  } catch (error) {
    return [state, [refusal(error, replyTo)]]
  }
}

/** A file id that cannot be read is the caller's mistake; anything else is a bug and goes on being thrown. */
function refusal(error: unknown, to: ReplyTo<never>): CommonEffect<TrackerMessage> {
  const { code, message } = toDfsError(error)
  if (code === 'internal') throw error
  return { do: 'refuse', to, code, message }
}

function groupViews(state: TrackerState) {
  return [...state.groups]
    .map(([group, members]) => groupView(group, members))
    .sort((a, b) => (a.group < b.group ? -1 : 1))
}

function storageViews(state: TrackerState, nowMs: number, group?: string) {
  const members = group === undefined ? [...state.groups.values()].flat() : (state.groups.get(group) ?? [])
  return members.map(entry => storageView(entry, nowMs)).sort((a, b) => a.report.storageId - b.report.storageId)
}

function statusOf(config: TrackerConfig, state: TrackerState, nowMs: number): ReplyOf<typeof trackerStatus> {
  return {
    trackerId: config.trackerId,
    version: config.version,
    stale: state.stale,
    jetstream: state.nats.jetstream,
    natsServer: state.nats.serverVersion,
    roles: [...state.roles.values()].map(({ heardMs, ...role }) => ({
      ...role,
      beatAgeMs: Math.round(nowMs - heardMs),
    })),
    groups: groupViews(state),
    storages: storageViews(state, nowMs),
  }
}

function memberEvent(kind: string, report: StorageReport, detail: Record<string, unknown>): TrackerEffect {
  return {
    do: 'event',
    kind,
    group: report.group,
    detail: { storageId: report.storageId, host: report.host, port: report.port, ...detail },
  }
}
