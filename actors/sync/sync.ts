/**
 * The sync actor of one storage server: keeps every peer supplied with this server's records.
 *
 * It is driven by level, not by edge: whatever happens sets a field and calls `drive`, which starts a replay for each
 * peer that is reachable, behind or unconfirmed, and not being replayed to already. A message that gets lost costs a
 * poll interval, never a file.
 */
import type { BinlogPosition } from '../../protocol/binlog-record.ts'
import type { ReplyOf } from '../../protocol/message.ts'
import type { Backlog, Peer, SyncPeerReport, syncStatus } from '../../protocol/storage-messages.ts'
import type { CommonEffect, ReplyTo, Step } from '../../runtime/actor.ts'
import { unreachable } from '../../runtime/actor.ts'

/** How long a lost doorbell can go unnoticed. */
export const POLL_MS = 1_000
/** How often a peer that lacks nothing is asked whether that is still true: it may have lost its disk. */
const CONFIRM_MS = 10_000
/** Pause after the first failure, doubled for each that follows, up to the last. */
const RETRY_MS = 200
const RETRY_MS_MAX = 10_000

/** Where one peer stands, as the last replay left it. */
export interface PeerMark {
  /** 32 hex digits; a peer that comes back with another one has lost its data. */
  readonly incarnation: string
  /** Everything up to here that is ours is durable at the peer. */
  readonly sequence: number
  /** The last record the peer was sent: between it and `sequence` lie only records that are not ours to ship. */
  readonly shipped: number
}

interface PeerState {
  readonly peer: Peer | undefined
  readonly mark: PeerMark | undefined
  readonly state: 'idle' | 'replaying' | 'waiting'
  readonly confirmedMs: number
  readonly failures: number
  readonly lastError: string | undefined
}

/** What the actor itself knows of a peer. */
export type PeerStanding = Omit<SyncPeerReport, keyof Backlog>

export interface SyncState {
  readonly epoch: number
  /** The last record that may be shipped. */
  readonly end: number
  readonly peers: ReadonlyMap<number, PeerState>
}

export type SyncMessage =
  | { type: 'poll'; end: number }
  | { type: 'binlogFlushed'; end: number }
  | { type: 'peers'; peers: readonly Peer[] }
  | { type: 'progress'; storageId: number; mark: PeerMark }
  | { type: 'replayed'; storageId: number; mark: PeerMark }
  /** `skipsOnce`: it failed over a file of our own that the next one will go on without. */
  | { type: 'replayFailed'; storageId: number; error: string; skipsOnce: boolean }
  | { type: 'retry'; storageId: number }
  | { type: 'status'; replyTo: ReplyTo<ReplyOf<typeof syncStatus>> }

export type SyncEffect =
  | { readonly do: 'replay'; readonly peer: Peer; readonly mark: PeerMark | undefined }
  /** Looks at the binlog's end and beats; answers with `poll` after a while. */
  | { readonly do: 'poll' }
  /** Answers with how far each peer is, and how much that leaves. */
  | { readonly do: 'report'; readonly to: ReplyTo<ReplyOf<typeof syncStatus>>; readonly peers: readonly PeerStanding[] }

type SyncStep = Step<SyncState, SyncEffect | CommonEffect<SyncMessage>>

export interface SyncConfig {
  readonly epoch: number
  /** Marks from disk, by the peer's storage id. */
  readonly marks: ReadonlyMap<number, PeerMark>
}

/** The deciding half of sync. */
export function syncBehaviour(config: SyncConfig) {
  return {
    init: (): SyncStep => {
      const peers = new Map([...config.marks].map(([id, mark]) => [id, newPeer(undefined, mark)] as const))
      return [{ epoch: config.epoch, end: 0, peers }, [{ do: 'poll' }]]
    },
    step,
  }
}

function step(state: SyncState, message: SyncMessage, nowMs: number): SyncStep {
  switch (message.type) {
    case 'poll':
      return drive({ ...state, end: Math.max(state.end, message.end) }, nowMs, [{ do: 'poll' }])
    case 'binlogFlushed':
      return drive({ ...state, end: Math.max(state.end, message.end) }, nowMs, [])
    case 'peers':
      return withPeers(state, message.peers, nowMs)
    case 'progress':
      return [withPeer(state, message.storageId, { mark: message.mark }), []]
    case 'replayed': {
      const { storageId, mark } = message
      const done = { mark, state: 'idle', confirmedMs: nowMs, failures: 0, lastError: undefined } as const
      return drive(withPeer(state, storageId, done), nowMs, [])
    }
    case 'replayFailed': {
      const { storageId, error, skipsOnce } = message
      const failures = skipsOnce ? 1 : (state.peers.get(storageId)?.failures ?? 0) + 1
      const delayMs = Math.min(RETRY_MS * 2 ** (failures - 1), RETRY_MS_MAX)
      const retry = { do: 'after', key: `retry ${storageId}`, delayMs, message: { type: 'retry', storageId } } as const
      return [withPeer(state, storageId, { state: 'waiting', failures, lastError: error }), [retry]]
    }
    case 'retry':
      return drive(withPeer(state, message.storageId, { state: 'idle' }), nowMs, [])
    case 'status': {
      const peers = [...state.peers].map(([storageId, peer]) => standingOf(state, storageId, peer))
      return [state, [{ do: 'report', to: message.replyTo, peers }]]
    }
    default:
      return unreachable(message)
  }
}

/** Starts whatever should run and does not. */
function drive(state: SyncState, nowMs: number, effects: readonly SyncEffect[]): SyncStep {
  const started: SyncEffect[] = []
  const peers = new Map(state.peers)
  for (const [storageId, entry] of state.peers) {
    if (entry.state !== 'idle' || entry.peer === undefined || entry.peer.status === 'offline') continue
    const behind = entry.mark === undefined || entry.mark.sequence < state.end
    if (!behind && nowMs - entry.confirmedMs < CONFIRM_MS) continue
    peers.set(storageId, { ...entry, state: 'replaying' })
    started.push({ do: 'replay', peer: entry.peer, mark: entry.mark })
  }
  return [{ ...state, peers }, [...effects, ...started]]
}

function withPeers(state: SyncState, told: readonly Peer[], nowMs: number): SyncStep {
  let next = state
  for (const peer of told) {
    const known = next.peers.get(peer.storageId) ?? newPeer(peer, undefined)
    const cameBack = known.peer?.status === 'offline' && peer.status !== 'offline'
    const change = { peer, ...(cameBack && known.state === 'waiting' ? ({ state: 'idle' } as const) : {}) }
    next = { ...next, peers: new Map(next.peers).set(peer.storageId, { ...known, ...change }) }
  }
  return drive(next, nowMs, [])
}

function withPeer(state: SyncState, storageId: number, change: Partial<PeerState>): SyncState {
  const known = state.peers.get(storageId)
  if (known === undefined) return state
  return { ...state, peers: new Map(state.peers).set(storageId, { ...known, ...change }) }
}

function newPeer(peer: Peer | undefined, mark: PeerMark | undefined): PeerState {
  // Never confirmed in this life: the first replay asks the peer itself, whatever the mark says.
  const confirmedMs = Number.NEGATIVE_INFINITY
  return { peer, mark, state: 'idle', confirmedMs, failures: 0, lastError: undefined }
}

function standingOf(state: SyncState, storageId: number, entry: PeerState): PeerStanding {
  const mark: BinlogPosition = { epoch: state.epoch, sequence: entry.mark?.sequence ?? 0 }
  const unreachable = entry.peer === undefined || entry.peer.status === 'offline'
  return {
    storageId,
    state: unreachable ? 'unreachable' : entry.state,
    mark,
    ...(entry.lastError === undefined ? {} : { lastError: entry.lastError }),
  }
}
