/**
 * Who holds the records of this source. Sync tells what each peer has confirmed; an upload that more members have to hold
 * waits here for it.
 *
 *     members     this source   peer 2   peer 3        whoever trackers, marks or records tell of
 *     confirmed                   1040      900        sequences of this source's epoch, by the peers' own word
 *     held                        by a quorum up to 1040, by all up to 900
 *     waiting     {1041, quorum}  {950, all}           looked at when a peer confirms, given up by one sweep
 */
import { ACK_TIMEOUT_MS, ACK_TIMEOUT_MS_MAX, type AckLevel } from '../protocol/ack.ts'
import { DfsError } from '../protocol/errors.ts'
import type { PeerBacklog } from '../protocol/storage-messages.ts'
import type { Timers } from '../runtime/timers.ts'
import type { Cancel, Clock } from '../runtime/world.ts'
import { Backlog, type Totals } from './backlog.ts'
import type { Stored } from './store.ts'

/** Uploads that wait: 4 MiB of memory, and some seconds of a busy server without its peers. */
export const WAITING_MAX = 16_384

/** A timeout is late by so much at most, and costs an upload no timer. */
const SWEEP_MS = 100

/** Files that went to the peers as unreadable: more than that is a dying disk, which is noticed otherwise. */
const LACKING_MAX = 1000

interface Peer {
  /** It has everything up to here. */
  sequence: number
  /** It has said so in this life of ours; before, our mark says so, which may be out of date. */
  isConfirmed: boolean
}

interface Waiting {
  readonly stored: Stored
  readonly level: AckLevel
  readonly deadlineMs: number
  resolve(isReached: boolean): void
  reject(error: Error): void
}

export class Replicas {
  readonly backlog: Backlog
  readonly #clock: Clock
  readonly #timers: Timers
  readonly #peers = new Map<number, Peer>()
  /** Names of files that peers have the record of, and not the bytes. */
  readonly #lacking = new Set<string>()
  #waiting: Waiting[] = []
  /** Who is told when an upload begins to wait. */
  readonly #gathering = new Set<() => void>()
  #cancelSweep: Cancel | undefined

  /** For a source whose binlog ends at a sequence; `totals` are of this life. */
  constructor(clock: Clock, timers: Timers, endSequence: number, totals: () => Totals) {
    this.#clock = clock
    this.#timers = timers
    this.backlog = new Backlog(clock, endSequence, totals)
  }

  /** How many members the group has, as far as is known here. */
  get members(): number {
    return this.#peers.size + 1
  }

  /** Whether no more uploads may begin to wait. */
  get isFull(): boolean {
    return this.#waiting.length >= WAITING_MAX
  }

  /** How far the peer has got that is furthest behind. */
  get slowest(): number {
    let slowest = Number.POSITIVE_INFINITY
    for (const { sequence } of this.#peers.values()) slowest = Math.min(slowest, sequence)
    return slowest
  }

  /** Notes that a peer belongs to the group, and what our mark says of it, if there is one. */
  expect(peer: number, markedSequence = 0): void {
    if (!this.#peers.has(peer)) this.#peers.set(peer, { sequence: markedSequence, isConfirmed: false })
  }

  /** A peer says up to where it durably has all our records: less than it had before, if it has lost its disk. */
  begin(peer: number, sequence: number): void {
    this.#peers.set(peer, { sequence, isConfirmed: true })
    this.#settle()
  }

  /** A peer that has begun durably has more; its answers may be heard out of order. */
  confirm(peer: number, sequence: number): void {
    if (sequence <= (this.#peers.get(peer)?.sequence ?? 0)) return
    this.#peers.set(peer, { sequence, isConfirmed: true })
    this.backlog.forget(this.slowest)
    this.#settle()
  }

  /** A file that cannot be read goes to the peers as a record alone: whatever they confirm, they do not hold it. */
  lacks(name: string): void {
    this.#lacking.add(name)
    if (this.#lacking.size > LACKING_MAX) this.#lacking.delete(this.#lacking.values().next().value!)
  }

  /** How many members surely hold a file. */
  holders({ name, sequence }: Stored): number {
    let holders = 1
    if (this.#lacking.has(name)) return holders
    for (const peer of this.#peers.values()) if (peer.isConfirmed && peer.sequence >= sequence) holders++
    return holders
  }

  /** Whether as many members hold a file as a level asks for. */
  reaches(level: AckLevel, stored: Stored): boolean {
    return level === 'one' || this.holders(stored) >= this.#needed(level)
  }

  /** Waits until a level is reached; resolves with whether it was. Rejects with `unavailable` if the server ends before. */
  wait(level: AckLevel, stored: Stored, timeoutMs = ACK_TIMEOUT_MS): Promise<boolean> {
    const deadlineMs = this.#clock.monotonicMs() + Math.min(timeoutMs, ACK_TIMEOUT_MS_MAX)
    this.#cancelSweep ??= this.#timers.set(SWEEP_MS, () => this.#sweep())
    return new Promise((resolve, reject) => {
      this.#waiting.push({ stored, level, deadlineMs, resolve, reject })
      for (const end of this.#gathering) end()
    })
  }

  /** Resolves as soon as an upload waits for peers, or after some time. */
  untilAwaited(timeoutMs: number): Promise<void> {
    if (this.#waiting.length > 0) return Promise.resolve()
    return new Promise(resolve => {
      const end = () => {
        cancel()
        this.#gathering.delete(end)
        resolve()
      }
      const cancel = this.#timers.set(timeoutMs, end)
      this.#gathering.add(end)
    })
  }

  /** How far behind every peer is. */
  backlogs(): PeerBacklog[] {
    return [...this.#peers].map(([storageId, { sequence }]) => ({ storageId, ...this.backlog.after(sequence) }))
  }

  /** Lets go of those that wait: their files stay, and nobody will confirm them here. */
  close(): void {
    this.#cancelSweep?.()
    this.#cancelSweep = undefined
    const error = new DfsError('unavailable', 'this storage server ends while its peers were waited for')
    for (const { reject } of this.#waiting.splice(0)) reject(error)
  }

  #needed(level: AckLevel): number {
    return level === 'all' ? this.members : Math.floor(this.members / 2) + 1
  }

  /** Up to where as many members as a level asks for hold everything. */
  #heldUpTo(level: AckLevel): number {
    const others = this.#needed(level) - 1
    if (others === 0) return Number.POSITIVE_INFINITY
    const confirmed = [...this.#peers.values()].filter(peer => peer.isConfirmed).map(({ sequence }) => sequence)
    return confirmed.sort((a, b) => b - a)[others - 1] ?? 0
  }

  #settle(): void {
    if (this.#waiting.length === 0) return
    const held = { one: Number.POSITIVE_INFINITY, quorum: this.#heldUpTo('quorum'), all: this.#heldUpTo('all') }
    this.#keep(({ stored, level, resolve }) => {
      if (stored.sequence > held[level] || this.#lacking.has(stored.name)) return true
      resolve(true)
      return false
    })
  }

  #sweep(): void {
    const nowMs = this.#clock.monotonicMs()
    this.#keep(({ deadlineMs, resolve }) => {
      if (deadlineMs > nowMs) return true
      resolve(false)
      return false
    })
    this.#cancelSweep = this.#waiting.length === 0 ? undefined : this.#timers.set(SWEEP_MS, () => this.#sweep())
  }

  #keep(isKept: (waiting: Waiting) => boolean): void {
    this.#waiting = this.#waiting.filter(isKept)
  }
}
