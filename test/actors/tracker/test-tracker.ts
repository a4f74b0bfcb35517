/** A tracker for tests: its state, its step, and a time that only the test moves. */

import type { PlacementPolicy } from '../../../actors/tracker/placement.ts'
import {
  TRACKER_TICK_MS,
  type TrackerEffect,
  type TrackerMessage,
  type TrackerState,
  trackerBehaviour,
} from '../../../actors/tracker/tracker.ts'
import { encodeFileName, tailOf } from '../../../protocol/file-id.ts'
import type { StorageReport, Welcome } from '../../../protocol/storage-messages.ts'
import type { CommonEffect, ReplyTo } from '../../../runtime/actor.ts'

export type Effect = TrackerEffect | CommonEffect<TrackerMessage>

export const ROUND_ROBIN: PlacementPolicy = { group: 'round_robin', server: 'round_robin', path: 'round_robin' }

export const GIB = 1024 ** 3

/** A message that asks for something, without where to answer. */
type Question = TrackerMessage extends infer M ? (M extends { replyTo: unknown } ? Omit<M, 'replyTo'> : never) : never

export class TestTracker {
  nowMs = 1_000
  state: TrackerState
  readonly #behaviour: ReturnType<typeof trackerBehaviour>

  /** It has listened for a minute, unless it is to be younger. */
  constructor(policy: Partial<PlacementPolicy> = {}, listenedMs = 60_000) {
    this.#behaviour = trackerBehaviour({
      trackerId: 'tracker-1',
      version: '1.2.3',
      policy: { ...ROUND_ROBIN, ...policy },
    })
    this.state = this.#behaviour.init(this.nowMs)[0]
    this.nowMs += listenedMs
  }

  /** Takes one step; returns its effects. */
  tell(message: TrackerMessage): readonly Effect[] {
    const [state, effects] = this.#behaviour.step(this.state, message, this.nowMs)
    this.state = state
    return effects
  }

  /** Tells it what asks for an answer; returns the body, or the code it was refused with. */
  ask(question: Question): unknown {
    const effects = this.tell({ ...question, replyTo: NOBODY } as TrackerMessage)
    const answers = effects.flatMap(effect =>
      effect.do === 'reply' ? [effect.body] : effect.do === 'refuse' ? [effect.code] : [],
    )
    if (answers.length !== 1) throw new Error(`${answers.length} answers`)
    return answers[0]
  }

  beat(storageId: number, more: Partial<StorageReport> = {}): Welcome {
    return this.ask({ type: 'beat', report: reportOf(storageId, more) }) as Welcome
  }

  join(storageId: number, more: Partial<StorageReport> = {}): Welcome {
    return this.ask({ type: 'join', report: reportOf(storageId, more) }) as Welcome
  }

  /** Beats of another role, or of this one, which hears itself. */
  hears(role: string, id: string, leaving = false): readonly Effect[] {
    return this.tell({ type: 'roleBeat', beat: { role, id, endpoint: `${id}:1`, leaving } })
  }

  /**
   * Lets time pass, tick by tick; returns the events told meanwhile. Each tick first, those who are alive beat: the
   * tracker itself unless its NATS is gone.
   */
  pass(ms: number, alive: readonly (readonly [number, Partial<StorageReport>?])[] = [], itself = true): Event[] {
    const events: Event[] = []
    for (const endMs = this.nowMs + ms; this.nowMs < endMs; ) {
      this.nowMs += TRACKER_TICK_MS
      if (itself) this.hears('tracker', 'tracker-1')
      for (const [id, more] of alive)
        events.push(...eventsOf(this.tell({ type: 'beat', report: reportOf(id, more), replyTo: NOBODY })))
      events.push(...eventsOf(this.tell({ type: 'tick' })))
    }
    return events
  }
}

/** An event in short. */
export type Event = readonly [kind: string, storageId: unknown]

export function eventsOf(effects: readonly Effect[]): Event[] {
  return effects.flatMap(effect => (effect.do === 'event' ? [[effect.kind, effect.detail.storageId] as const] : []))
}

/** Where an answer goes that nobody waits for. */
export const NOBODY: ReplyTo<never> = { resolve: () => undefined, reject: () => undefined }

/** What an active storage server with one store path and 90 GiB to give says of itself. */
export function reportOf(storageId: number, more: Partial<StorageReport> = {}): StorageReport {
  return {
    protocol: 1,
    version: '1.2.3',
    storageId,
    group: 'group1',
    host: `storage-${storageId}`,
    ip: `10.0.0.${storageId}`,
    port: 23000,
    incarnation: String(storageId).padStart(32, '0'),
    boot: { count: 1, secret: String(storageId).padStart(16, '0') },
    epoch: 1,
    status: 'active',
    uploadPriority: 10,
    storePaths: [pathOf(0)],
    binlogEnd: { sequence: 0, timeMs: 0 },
    positions: [],
    counts: {},
    ...more,
  }
}

/** A store path with 100 GiB free, of which 10 are reserved. */
export function pathOf(
  index: number,
  more: Partial<StorageReport['storePaths'][number]> = {},
): StorageReport['storePaths'][number] {
  return { index, totalBytes: 1000 * GIB, freeBytes: 100 * GIB, reservedBytes: 10 * GIB, writable: true, ...more }
}

/** Where clients are told to find a storage server. */
export function addressOf(storageId: number) {
  return { storageId, host: `storage-${storageId}`, ip: `10.0.0.${storageId}`, port: 23000 }
}

/** The id of a file that `storageId` took at a time. */
export function fileIdOf(storageId: number, createTimeS: number, group = 'group1'): string {
  const name = encodeFileName({
    storePathIndex: 0,
    directoryIndex: 0,
    storageId,
    createTimeS,
    sizeBytes: 42,
    crc32: 0x1234_5678,
    salt: 1,
    tail: tailOf('jpg', 7),
  })
  return `${group}/${name}`
}
