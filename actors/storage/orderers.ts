/**
 * Whose changes this member orders, and what it has promised the others about that.
 *
 *     settled ──prepare──▶ promised, nothing is ordered ──accept, or nobody goes on──▶ a majority is asked ──▶ settled
 *
 * After a start nothing is settled: another member may have taken over meanwhile. What is settled holds until somebody
 * prepares a new round here; in a group of three or more only for the time of a **lease** at once, which a majority gives by not
 * promising the orderer's files to anybody else.
 */

import type { BinlogRecord } from '../../protocol/binlog-record.ts'
import { DfsError } from '../../protocol/errors.ts'
import { decodeFileName, type FileNameParts, mayChange } from '../../protocol/file-id.ts'
import {
  type OrdererAnswer,
  type OrdererQuestion,
  type OrdererTable,
  ordererOf,
  roundOf,
  type Succession,
  successionOf,
} from '../../protocol/orderers.ts'
import { GROUP_MEMBERS_MAX } from '../../protocol/storage-messages.ts'
import type { Clock } from '../../runtime/world.ts'
import type { OrdererFile } from '../../store/orderer-file.ts'
import type { Store } from '../../store/store.ts'

/** How long an orderer may rest on the word of a majority, from when it asked. */
export const LEASE_MS = 6_000
/** Those who gave it keep it longer: their clocks run apart by far less. */
const LEASE_KEPT_MS = 1.25 * LEASE_MS
/** Records that others had better get first are held back from them no longer for a member that is away. */
const LOST_MS = 3_600_000
/** A round is over after that, or its beginner is gone: it waits for what is under way, and for the last records. */
const ROUND_MS = 8_000
/** Of so many members, a majority can be had without one of them. */
const MEMBERS_WITH_LEASE_MIN = 3

export interface OrderersParts {
  readonly file: OrdererFile
  readonly store: Store
  readonly clock: Clock
  /** How many members the group has, as far as is known here. */
  readonly members: () => number
  /** The source of a file now, which may have been taken over. */
  readonly sourceOf: (file: FileNameParts) => number | undefined
  /** Called when something has to be asked anew. */
  readonly onUnsettled: () => void
}

export class Orderers {
  readonly #parts: OrderersParts
  readonly #startedMs: number
  /** The round that a majority has agreed on. */
  #settled: number | undefined
  /** The same, also while a new one is begun. */
  #lastSettled: number | undefined
  /** What was done here since is compared with that. */
  #handsChanged: Promise<void> = Promise.resolve()
  #leaseUntilMs = 0
  /** When each member last asked, by storage id: that gives it a lease. */
  readonly #askedMs = new Map<number, number>()
  /** Rounds that sources had settled when they said that they ship, by storage id. */
  readonly #sessions = new Map<number, number>()
  /** When a round was promised last, and, if it is our own, what was settled before it. */
  #promisedMs = Number.NEGATIVE_INFINITY
  #beforeOwnRound: number | undefined
  #underWay = 0
  #drained: (() => void)[] = []

  constructor(parts: OrderersParts) {
    this.#parts = parts
    this.#startedMs = parts.clock.monotonicMs()
  }

  get table(): OrdererTable {
    return this.#parts.file.state.table
  }

  /** The round that is settled here; undefined while there is none. */
  get settled(): number | undefined {
    const { promised } = this.#parts.file.state
    return this.#settled === promised ? promised : undefined
  }

  /** Whether a majority can be had without one of the members. */
  get hasLeases(): boolean {
    return this.#parts.members() >= MEMBERS_WITH_LEASE_MIN
  }

  /** Who orders a source's changes, as far as is known here. */
  ordererOf(source: number): number {
    return ordererOf(this.table, source)
  }

  /** Whether this member orders the changes of a source's files now. */
  orders(source: number | undefined): boolean {
    if (source === undefined || this.settled === undefined) return false
    if (this.hasLeases && this.#parts.clock.monotonicMs() >= this.#leaseUntilMs) return false
    return this.ordererOf(source) === this.#parts.store.storageId
  }

  /** Sources whose changes are ordered here. */
  get ordered(): readonly number[] {
    const own = this.#parts.store.storageId
    const sources = [own, ...this.table.successions.map(({ source }) => source)]
    return [...new Set(sources)].filter(source => this.orders(source))
  }

  /** When this source took its files back; undefined if it always had them. */
  get takenBack(): Succession | undefined {
    const { storageId } = this.#parts.store
    const succession = successionOf(this.table, storageId)
    return succession?.orderer === storageId ? succession : undefined
  }

  /**
   * Whether a record of this binlog goes to peers with all that its file is now: of a file that changes, and has been in other
   * hands since, or has come into ours with it.
   */
  goesWhole({ op, name, epoch, sequence }: BinlogRecord): boolean {
    const { successions } = this.table
    if (successions.length === 0) return false
    const { storageId: own } = this.#parts.store
    const file = decodeFileName(name)
    const storageId = mayChange(file) ? this.#parts.sourceOf(file) : undefined
    if (storageId === undefined) return false
    if (storageId !== own) return op === 'C' || this.ordererOf(storageId) !== own
    const since = this.takenBack?.since
    return since !== undefined && epoch === since.epoch && sequence <= since.sequence
  }

  /**
   * The term under which this source ships: the last one that was settled here, also while a new one is; whoever has heard of that
   * refuses. Throws `unavailable` if there is none since the start, or others order its changes: it ships again when it has
   * theirs.
   */
  termToShip(): number {
    const { store, onUnsettled } = this.#parts
    if (this.settled === undefined) onUnsettled()
    if (this.#lastSettled === undefined || this.ordererOf(store.storageId) !== store.storageId)
      throw new DfsError('unavailable', 'who orders the changes of our files is being settled')
    return this.#lastSettled
  }

  /** Throws `unavailable` unless this member orders the changes of a source's files: what it knows of them may be of the past. */
  expectOrdering(source: number | undefined): void {
    if (!this.orders(source)) throw new DfsError('unavailable', 'who orders the changes of this file is being settled')
  }

  /** Makes a change of a source's file. Rejects with `unavailable` unless this member orders it, after `giveUp`. */
  async change<T>(source: number | undefined, work: () => Promise<T>, giveUp = nothing): Promise<T> {
    if (!this.orders(source)) await giveUp()
    this.expectOrdering(source)
    this.#underWay++
    try {
      return await work()
    } finally {
      this.#underWay--
      if (this.#underWay === 0) for (const drained of this.#drained.splice(0)) drained()
    }
  }

  /**
   * The same for a deletion: a file that never changes does not come again, so that its source may delete it whoever orders
   * its other changes, if nobody is known to do so.
   */
  async delete(file: FileNameParts, work: () => Promise<boolean>): Promise<boolean> {
    return this.deletes(file) ? work() : this.change(file.storageId, work)
  }

  /** Whether this member may delete a file by itself. */
  deletes(file: FileNameParts): boolean {
    const own = this.#parts.store.storageId
    return file.storageId === own && !mayChange(file) && this.ordererOf(own) === own
  }

  /** Resolves when all changes that are under way are recorded. */
  async drained(): Promise<void> {
    if (this.#underWay > 0) await new Promise<void>(resolve => this.#drained.push(resolve))
  }

  /** A majority has agreed on a round; it was asked at `askedMs`. */
  settle(term: number, askedMs: number): void {
    const { store } = this.#parts
    if (term > 0 && term !== this.#lastSettled) {
      this.#handsChanged = store.changeHands(successionOf(this.table, store.storageId))
      this.#handsChanged.catch(nothing)
    }
    this.#settled = term
    this.#lastSettled = term
    this.#leaseUntilMs = askedMs + LEASE_MS
  }

  /** Begins a round of our own. Rejects with `unavailable` if somebody else has a lease, or has just begun one. */
  async begin(question: OrdererQuestion, isAlone: boolean): Promise<void> {
    const reason = isAlone ? undefined : this.refusalOf(question)
    if (reason !== undefined) throw new DfsError('unavailable', reason)
    this.#beforeOwnRound = this.settled
    if (!(await this.#parts.file.promise(question.term))) throw new DfsError('busy', 'another round has begun')
    this.#settled = undefined
    await this.drained()
  }

  /** That round is over, whatever came of it. */
  end(): void {
    this.#beforeOwnRound = undefined
  }

  /** Whether somebody else may be in the middle of a round. */
  get isPromised(): boolean {
    const { promised, table } = this.#parts.file.state
    return promised !== table.term && this.#parts.clock.monotonicMs() - this.#promisedMs < ROUND_MS
  }

  /** Something newer than what is settled here was heard of. */
  doubt(): void {
    this.#settled = undefined
    this.#parts.onUnsettled()
  }

  /** How long a member has not asked: since our start, if it never has. */
  silentMs(storageId: number): number {
    return this.#parts.clock.monotonicMs() - (this.#askedMs.get(storageId) ?? this.#startedMs)
  }

  /** Whether a member has been away for so long that nobody is let wait for it. */
  isLost(storageId: number): boolean {
    return this.silentMs(storageId) > LOST_MS
  }

  /**
   * A source says what it has settled before it ships. What comes of it counts until a new round is promised here: what is
   * answered to whoever prepares that stays true. Rejects with `unavailable` as long as the two do not agree.
   */
  async beginSession(source: number, term: number): Promise<void> {
    const { file } = this.#parts
    // Whoever missed a round learns of it here.
    if (term > file.state.promised && (await file.promise(term))) this.doubt()
    await this.#handsChanged
    if (this.#taken !== term) {
      if (this.settled === undefined) this.#parts.onUnsettled()
      throw new DfsError('unavailable', 'who orders whose changes is being settled')
    }
    this.#sessions.set(source, term)
  }

  /** Whether a source ships to us under the term that is settled. */
  hasSession(source: number): boolean {
    return this.settled !== undefined && (this.#sessions.get(source) ?? 0) === this.settled
  }

  /** Throws `unavailable` if a round has begun since a source said what it has settled. */
  admitSession(source: number): void {
    // Who has not said anything has missed all rounds, if there were any.
    if (this.#taken === undefined || (this.#sessions.get(source) ?? 0) !== this.#taken)
      throw new DfsError('unavailable', 'a new round has begun about who orders whose changes')
  }

  /**
   * The term whose records are taken. In a round of our own nobody is told where we stand: what comes meanwhile does no harm, and
   * is waited for.
   */
  get #taken(): number | undefined {
    return this.settled ?? this.#beforeOwnRound
  }

  /** Answers another member. */
  async answer(question: OrdererQuestion): Promise<OrdererAnswer> {
    const { file, clock } = this.#parts
    const { kind, by, term, table } = question
    if (kind === 'ask') {
      const agrees = file.state.promised === term && file.state.table.term === term
      if (agrees) this.#askedMs.set(by, clock.monotonicMs())
      else if (term > file.state.promised) this.doubt()
      return this.#answer(agrees, this.refusalOf(question))
    }
    if (kind === 'prepare') {
      const reason = this.refusalOf(question)
      if (reason !== undefined) return this.#answer(false, reason)
      if (!(await file.promise(term))) return this.#answer(false, `round ${roundOf(file.state.promised)} is promised`)
      this.#promisedMs = clock.monotonicMs()
      this.doubt()
      await this.drained()
      return this.#answer(true)
    }
    const isTaken = table !== undefined && table.term === term && (await file.accept(table))
    // Who has a majority for it goes on at once.
    if (isTaken) this.#askedMs.set(by, clock.monotonicMs())
    if (isTaken) this.doubt()
    return this.#answer(isTaken)
  }

  /** Why a round may not begin: the files that it is about are in somebody's hands. */
  refusalOf({ by, source, isGiven }: OrdererQuestion): string | undefined {
    if (source === undefined || isGiven || !this.hasLeases) return undefined
    const holder = this.ordererOf(source)
    if (holder === by || holder === this.#parts.store.storageId) return undefined
    // What was given before this start is not known any more.
    return this.silentMs(holder) < LEASE_KEPT_MS ? `storage server ${holder} has a lease` : undefined
  }

  #answer(granted: boolean, reason?: string): OrdererAnswer {
    const { storageId, epoch, ownEnd: sequence, positions } = this.#parts.store
    const { promised, table } = this.#parts.file.state
    return {
      storageId,
      granted,
      promised,
      table,
      end: { storageId, epoch, sequence },
      positions: positions.slice(0, GROUP_MEMBERS_MAX),
      ...(reason === undefined ? {} : { reason }),
    }
  }
}

async function nothing(): Promise<void> {}
