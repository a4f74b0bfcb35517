/** The storage actor: joins, beats, knows its peers, and says what the data port may take. */

import {
  GROUP_MEMBERS_MAX,
  type Peer,
  type StorageReport,
  type StorageStatus,
  type Welcome,
} from '../../protocol/storage-messages.ts'
import type { CommonEffect, ReplyTo, Step } from '../../runtime/actor.ts'
import { unreachable } from '../../runtime/actor.ts'

/** How often it beats, looks at its disks, and tries to join again. */
export const STORAGE_TICK_MS = 1_000

export interface StorageState {
  readonly status: StorageStatus
  /** Why it is not active, for people. */
  readonly reason: string | undefined
  /** A tracker has accepted us in this life. */
  readonly joined: boolean
  readonly joining: boolean
  readonly peers: ReadonlyMap<number, Peer>
}

export type StorageMessage =
  | { type: 'tick' }
  | { type: 'natsConnected' }
  | { type: 'joined'; welcome: Welcome }
  | { type: 'joinFailed'; reason: string }
  | { type: 'welcome'; welcome: Welcome }
  /** A peer has applied more of our records than we have. */
  | { type: 'epochTooOld'; epochMin: number }
  /** What is wrong with binlog, disks or lock; undefined if nothing. */
  | { type: 'examined'; problem: string | undefined }
  | { type: 'drain' }
  | { type: 'status'; replyTo: ReplyTo<StorageReport> }

export type StorageEffect =
  | { readonly do: 'join' }
  | { readonly do: 'beat' }
  | { readonly do: 'examine' }
  | { readonly do: 'tellPeers'; readonly peers: readonly Peer[] }
  | { readonly do: 'raiseEpoch'; readonly epoch: number }
  | { readonly do: 'report'; readonly to: ReplyTo<StorageReport> }
  | { readonly do: 'event'; readonly kind: string; readonly detail: Record<string, unknown> }

type StorageStep = Step<StorageState, StorageEffect | CommonEffect<StorageMessage>>

const TICK = { do: 'after', key: 'tick', delayMs: STORAGE_TICK_MS, message: { type: 'tick' } } as const

/** The deciding half of a storage server. */
export const storageBehaviour = {
  init(): StorageStep {
    const state: StorageState = {
      status: 'joining',
      reason: 'no tracker has answered yet',
      joined: false,
      joining: true,
      peers: new Map(),
    }
    return [state, [{ do: 'examine' }, { do: 'join' }, TICK]]
  },
  step,
}

function step(state: StorageState, message: StorageMessage): StorageStep {
  switch (message.type) {
    case 'tick': {
      if (state.joined) return [state, [{ do: 'examine' }, { do: 'beat' }, TICK]]
      if (state.joining) return [state, [{ do: 'examine' }, TICK]]
      return [{ ...state, joining: true }, [{ do: 'examine' }, { do: 'join' }, TICK]]
    }
    case 'natsConnected':
      // A join that is under way knows of no NATS yet; beats need no hurry.
      return state.joined ? [state, []] : [{ ...state, joining: true }, [{ do: 'join' }]]
    case 'joined':
      return joined({ ...state, joining: false }, message.welcome)
    case 'joinFailed':
      return [{ ...state, joining: false, ...(state.status === 'joining' ? { reason: message.reason } : {}) }, []]
    case 'welcome':
      return welcomed(state, message.welcome)
    case 'epochTooOld':
      return raised(state, message.epochMin)
    case 'examined':
      return examined(state, message.problem)
    case 'drain':
      return [{ ...state, status: 'draining', reason: 'it is about to stop' }, state.joined ? [{ do: 'beat' }] : []]
    case 'status':
      return [state, [{ do: 'report', to: message.replyTo }]]
    default:
      return unreachable(message)
  }
}

function joined(state: StorageState, welcome: Welcome): StorageStep {
  if (welcome.accepted) {
    const status = state.status === 'joining' ? 'active' : state.status
    const reason = status === 'active' ? undefined : state.reason
    return withPeers({ ...state, status, reason, joined: true }, welcome.peers, [{ do: 'beat' }])
  }
  if (welcome.code === 'epoch_too_old' && welcome.epochMin !== undefined) return raised(state, welcome.epochMin)
  return [{ ...state, reason: welcome.code ?? 'refused' }, []]
}

/** Others know a past of this id that we have lost: nothing more may happen under this epoch. */
function raised(state: StorageState, epoch: number): StorageStep {
  // The next life will be told again.
  if (state.status === 'draining') return [state, []]
  const reason = `this storage id has lived before: going on under epoch ${epoch}`
  return [{ ...state, status: 'joining', reason, joined: false }, [{ do: 'raiseEpoch', epoch }]]
}

/** The answer to a beat; one tracker that refuses us is enough to stop taking files. */
function welcomed(state: StorageState, welcome: Welcome): StorageStep {
  if (welcome.accepted) return withPeers(state, welcome.peers, [])
  if (!state.joined) return [state, []]
  const reason = welcome.code ?? 'refused'
  const status = state.status === 'active' ? 'joining' : state.status
  return [{ ...state, status, reason, joined: false }, [{ do: 'event', kind: 'storage_refused', detail: { reason } }]]
}

/** A tracker that has just started knows few; nobody is forgotten because of it. */
function withPeers(state: StorageState, told: readonly Peer[], effects: readonly StorageEffect[]): StorageStep {
  const peers = new Map(state.peers)
  for (const peer of told) {
    if (peers.has(peer.storageId) || peers.size < GROUP_MEMBERS_MAX - 1) peers.set(peer.storageId, peer)
  }
  return [{ ...state, peers }, [...effects, { do: 'tellPeers', peers: [...peers.values()] }]]
}

function examined(state: StorageState, problem: string | undefined): StorageStep {
  if (state.status === 'draining') return [state, []]
  if (problem !== undefined) {
    if (state.status === 'readonly') return [{ ...state, reason: problem }, []]
    const event: StorageEffect = { do: 'event', kind: 'storage_readonly', detail: { reason: problem } }
    return [{ ...state, status: 'readonly', reason: problem }, [event]]
  }
  if (state.status !== 'readonly') return [state, []]
  return [{ ...state, status: state.joined ? 'active' : 'joining', reason: undefined }, []]
}
