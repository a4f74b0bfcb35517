/**
 * How the members of a group agree on who orders whose changes: rounds of prepare and accept by majority, begun after each
 * start, when a source takes its files back, and when a member takes over for one that is gone.
 *
 *     prepare ──▶ each promises, stops ordering, and says what it has agreed on, and where it stands
 *             ◀── the newest table of a majority counts; what is decided builds on it
 *     accept  ──▶ each agrees on the new table, unless it has promised a later round since
 *             ◀── a majority: settled
 */
import { type BinlogPosition, isAfter } from '../../protocol/binlog-record.ts'
import { encode } from '../../protocol/codec.ts'
import { DfsError } from '../../protocol/errors.ts'
import { COMMANDS } from '../../protocol/frame.ts'
import { admit } from '../../protocol/message.ts'
import {
  OrdererAnswer,
  type OrdererQuestion,
  type OrdererTable,
  type Succession,
  successionOf,
  termAfter,
  withSuccession,
} from '../../protocol/orderers.ts'
import type { Peer } from '../../protocol/storage-messages.ts'
import type { FramePool } from '../../runtime/frame-pool.ts'
import type { Log } from '../../runtime/log.ts'
import type { Timers } from '../../runtime/timers.ts'
import type { Clock, Random } from '../../runtime/world.ts'
import type { OrdererFile } from '../../store/orderer-file.ts'
import type { Store } from '../../store/store.ts'
import { LEASE_MS, type Orderers } from './orderers.ts'

/** How often a lease is asked for, and it is looked whether anything has changed hands. */
const TEND_MS = LEASE_MS / 3
/** The same while nothing is settled. */
const UNSETTLED_MS = 250
/** Members that say different things may be about to agree: after so many looks it is no more waited for. */
const LOOKS_MIN = 3
/** Who has not asked for so long is gone: a restart takes less. */
const GONE_MS = 10_000

/** An answer to `ask` needs one write at most. */
const ASK_MS = 2_000
/** What is under way is recorded before a promise is answered: it may wait for a slow disk. */
const PREPARE_MS = 10_000

/** How long a source waits for the last changes of who orders its files, once that has stopped. */
const CATCH_UP_MS = 5_000
const CATCH_UP_POLL_MS = 20
/** A source takes its files back when it lacks fewer records: those come in a moment. */
const BEHIND_MAX = 1_000

export interface AgreementParts {
  readonly orderers: Orderers
  readonly file: OrdererFile
  readonly store: Store
  readonly pool: FramePool
  readonly clock: Clock
  readonly timers: Timers
  readonly random: Random
  readonly log: Log
  readonly members: () => number
  readonly peers: () => ReadonlyMap<number, Peer>
  /** Whether a tracker has told who they are. */
  readonly joined: () => boolean
  /** Told when files have changed hands. */
  readonly onSuccession: (succession: Succession) => void
}

export class Agreement {
  readonly #parts: AgreementParts
  #stopped = false
  /** One thing at a time. */
  #turn: Promise<unknown> = Promise.resolve()
  #wake: (() => void) | undefined
  /** The newest term that was heard of. */
  #seen = 0
  /** How often the members have said different things, one after another. */
  #looks = 0

  constructor(parts: AgreementParts) {
    this.#parts = parts
  }

  /** Goes on until `stop`. */
  async run(): Promise<void> {
    while (!this.#stopped) {
      await this.#inTurn(() => this.#tend()).catch(error => this.#parts.log.debug({ err: error }, 'not settled'))
      if (this.#stopped) return
      await this.#pause(this.#isAtHome ? TEND_MS : UNSETTLED_MS)
    }
  }

  stop(): void {
    this.#stopped = true
    this.wake()
  }

  /** Looks again soon: something may have changed. */
  wake(): void {
    this.#wake?.()
  }

  /**
   * Takes over the files of a source whose orderer is gone, by an operator's word. `isAlone` says that whoever else would
   * have to be asked is dead, too. Rejects with `still_in_use` if the orderer lives, with `unavailable` if there is no
   * majority, or one of it has more of the orderer's records than we do.
   */
  takeOver(source: number, isAlone: boolean): Promise<void> {
    return this.#inTurn(() => this.#takeOver(source, isAlone))
  }

  /** Whether everything is as it should be: settled, and this source orders its own files. */
  get #isAtHome(): boolean {
    const { orderers, store } = this.#parts
    return orderers.settled !== undefined && orderers.ordererOf(store.storageId) === store.storageId
  }

  async #tend(): Promise<void> {
    const { orderers, store } = this.#parts
    await this.#confirm()
    if (orderers.settled === undefined) return
    const { storageId } = store
    if (orderers.ordererOf(storageId) !== storageId) await this.#takeBack()
    if (orderers.hasLeases) await this.#replaceTheGone()
  }

  /** Asks whether what was agreed on here is what a majority has agreed on. */
  async #confirm(): Promise<void> {
    const { orderers, file, store, members, peers, joined, clock } = this.#parts
    await file.remember([...peers().keys()])
    // Whoever knows of no others waits for a tracker's word that there are none.
    if (members() === 1 && !joined()) return
    const askedMs = clock.monotonicMs()
    const { table, promised, isAlone } = file.state
    const answers = await this.#ask({ kind: 'ask', by: store.storageId, term: table.term }, ASK_MS)
    const isSame = (answer: OrdererAnswer) => answer.promised === promised && answer.table.term === table.term
    const isUnanimous = promised === table.term && answers.every(isSame)
    if (isUnanimous && (isAlone || this.#isMajority(answers.length))) {
      if (isAlone && this.#isMajority(answers.length)) await file.endAlone()
      this.#looks = 0
      if (file.state.promised === promised) orderers.settle(promised, askedMs)
      return
    }
    if (answers.some(answer => answer.promised > promised)) orderers.doubt()
    if (isUnanimous || orderers.isPromised || !this.#isMajority(answers.length)) return
    // Whoever comes first spares the others the round.
    if (++this.#looks < LOOKS_MIN || this.#parts.random.below(members()) > 0) return
    this.#looks = 0
    await this.#round({ decide: table => table })
  }

  /** A source that has come back: takes its files back when it has what was ordered meanwhile. */
  async #takeBack(): Promise<void> {
    const { orderers, store } = this.#parts
    const { storageId: source } = store
    const orderer = orderers.ordererOf(source)
    // Its last records come only if it ships already: once it has promised the round, it begins nothing.
    if (!orderers.hasSession(orderer)) return
    const [heard] = await this.#ask({ kind: 'ask', by: source, term: orderers.table.term }, ASK_MS, [orderer])
    if (heard === undefined) return
    const { sequence } = this.#positionOf(orderer, heard.end.epoch)
    if (heard.end.sequence - sequence > BEHIND_MAX) return
    // A round that comes to nothing unsettles everybody, and so keeps away what is waited for.
    this.#expectReached(successionOf(orderers.table, source)?.after)
    await this.#round({
      source,
      givenBy: orderer,
      decide: async (table, answers) => {
        const { end } = answers.find(({ storageId }) => storageId === orderer)!
        await this.#catchUp(end)
        this.#expectReached(successionOf(table, source)?.after)
        const since = this.#end()
        return withSuccession(table, { source, orderer: source, after: end, since, cut: since })
      },
    })
  }

  async #takeOver(source: number, isAlone: boolean): Promise<void> {
    const { orderers, store, members, peers } = this.#parts
    const orderer = orderers.ordererOf(source)
    if (source !== store.storageId && !peers().has(source))
      throw new DfsError('unknown_storage', `storage server ${source} is not known here`)
    if (orderer !== store.storageId) {
      const [alive] = await this.#ask({ kind: 'ask', by: store.storageId, term: 0 }, ASK_MS, [orderer])
      if (alive !== undefined || peers().get(orderer)?.status !== 'offline')
        throw new DfsError('still_in_use', `storage server ${orderer} orders these files, and is not offline`)
    }
    if (!isAlone && members() < 3)
      throw new DfsError('unavailable', 'in a group of two somebody has to say that the other one is dead')
    // Who orders them already has to be sure of it only.
    if (orderer === store.storageId) await this.#round({ isAlone, decide: table => table })
    else await this.#succeed(source, orderer, isAlone)
  }

  /** Takes over from orderers that are gone, if nobody has more of their records. */
  async #replaceTheGone(): Promise<void> {
    const { orderers, store, members, peers } = this.#parts
    for (const source of [store.storageId, ...peers().keys()]) {
      const orderer = orderers.ordererOf(source)
      if (peers().get(orderer)?.status !== 'offline' || orderers.silentMs(orderer) < GONE_MS) continue
      // Whoever comes first spares the others the round.
      if (this.#parts.random.below(members()) > 0) continue
      // A round that is refused unsettles everybody who has promised it.
      const question = { kind: 'ask', by: store.storageId, term: orderers.table.term, source } as const
      const answers = await this.#ask(question, ASK_MS)
      const isHopeless = !this.#isMajority(answers.length) || answers.some(({ reason }) => reason !== undefined)
      if (!isHopeless) await this.#succeed(source, orderer, false)
    }
  }

  async #succeed(source: number, orderer: number, isAlone: boolean): Promise<void> {
    await this.#round({
      source,
      isAlone,
      decide: (table, answers) => {
        const logs = new Set([source, orderer])
        for (const answer of answers) this.#expectNotAhead(answer, logs)
        const after = this.#placeIn(orderer)
        const cut = this.#placeIn(source)
        const { storageId } = this.#parts.store
        return withSuccession(table, { source, orderer: storageId, after, since: this.#end(), cut })
      },
    })
  }

  /** Throws `unavailable` if we lack something of who ordered our files before the last one did. */
  #expectReached(place: Succession['after'] | undefined): void {
    if (place === undefined || place.storageId === this.#parts.store.storageId) return
    if (isAfter(place, this.#positionOf(place.storageId)))
      throw new DfsError('unavailable', `records of ${place.storageId} about our files have not come yet`)
  }

  /** Throws `unavailable` if a member has more of others' records than we have: what those say would be lost. */
  #expectNotAhead({ storageId, positions }: OrdererAnswer, logs: ReadonlySet<number>): void {
    for (const log of logs) {
      const theirs = positions.find(position => position.storageId === log)
      if (theirs === undefined || storageId === log || log === this.#parts.store.storageId) continue
      if (isAfter(theirs, this.#positionOf(log)))
        throw new DfsError('unavailable', `storage server ${storageId} has more of the records of ${log}`)
    }
  }

  #round(round: Round): Promise<void> {
    return this.#agree(round).finally(() => this.#parts.orderers.end())
  }

  /** One round; resolves when a majority has agreed on what `decide` makes of what was agreed on before. */
  async #agree({ source, givenBy, isAlone = false, decide }: Round): Promise<void> {
    const { file, store, orderers, clock, onSuccession } = this.#parts
    const { storageId: by } = store
    const term = termAfter(Math.max(file.state.promised, this.#seen), by)
    const prepare: OrdererQuestion = { kind: 'prepare', by, term, ...(source === undefined ? {} : { source }) }
    await orderers.begin(givenBy === undefined ? prepare : { ...prepare, isGiven: true }, isAlone)
    const given = givenBy === undefined ? [] : await this.#ask(prepare, PREPARE_MS, [givenBy])
    const isGiven = given.some(({ granted }) => granted)
    if (givenBy !== undefined && !isGiven)
      throw new DfsError('unavailable', `storage server ${givenBy} keeps these files`)
    const others = [...this.#parts.peers().keys()].filter(peer => peer !== givenBy)
    const answers = [...given, ...(await this.#ask(isGiven ? { ...prepare, isGiven } : prepare, PREPARE_MS, others))]
    const refusal = answers.find(({ granted }) => !granted)
    if (refusal !== undefined)
      throw new DfsError('unavailable', `storage server ${refusal.storageId} refuses: ${refusal.reason}`)
    this.#expectMajority(answers.length, isAlone)
    const tables = [file.state.table, ...answers.map(({ table }) => table)]
    const newest = tables.reduce((a, b) => (b.term > a.term ? b : a))
    const { successions } = await decide(newest, answers)
    const table: OrdererTable = { term, successions }
    const acceptedMs = clock.monotonicMs()
    if (!(await file.accept(table, isAlone))) throw new DfsError('busy', 'another round has begun')
    const taken = await this.#ask({ kind: 'accept', by, term, table }, ASK_MS)
    this.#expectMajority(taken.filter(({ granted }) => granted).length, isAlone)
    if (file.state.promised !== term) throw new DfsError('busy', 'another round has begun')
    orderers.settle(term, acceptedMs)
    for (const succession of successions)
      if (succession.source === source && succession.orderer === by) onSuccession(succession)
  }

  /** Waits until all records of a member up to a place are applied here. */
  async #catchUp({ storageId, epoch, sequence }: BinlogPosition & { storageId: number }): Promise<void> {
    const { clock, timers } = this.#parts
    const untilMs = clock.monotonicMs() + CATCH_UP_MS
    while (this.#positionOf(storageId, epoch).sequence < sequence) {
      if (clock.monotonicMs() > untilMs) throw new DfsError('unavailable', 'the last changes have not come in time')
      await timers.sleep(CATCH_UP_POLL_MS)
    }
  }

  /** How far a member's records are applied here; at the beginning, if not in the epoch that is asked for. */
  #positionOf(storageId: number, epoch?: number): BinlogPosition {
    const at = this.#parts.store.position(storageId)
    if (at === undefined || (epoch !== undefined && at.epoch !== epoch)) return { epoch: epoch ?? 0, sequence: 0 }
    return { epoch: at.epoch, sequence: at.sequence }
  }

  /** How far we are in a member's binlog: our own, or what is applied of it. */
  #placeIn(storageId: number) {
    return storageId === this.#parts.store.storageId ? this.#end() : { storageId, ...this.#positionOf(storageId) }
  }

  #end() {
    const { storageId, epoch, ownEnd: sequence } = this.#parts.store
    return { storageId, epoch, sequence }
  }

  #isMajority(others: number): boolean {
    return others + 1 > this.#parts.members() / 2
  }

  #expectMajority(others: number, isAlone: boolean): void {
    if (!isAlone && !this.#isMajority(others))
      throw new DfsError('unavailable', 'too few members of the group can be asked')
  }

  /** Asks members, all if none are named; those that cannot be asked, or not in time, are left out. */
  async #ask(question: OrdererQuestion, timeoutMs: number, among?: readonly number[]): Promise<OrdererAnswer[]> {
    const peers = this.#parts.peers()
    const asked = [...(among ?? peers.keys())].map(id => peers.get(id)).filter(peer => peer !== undefined)
    const answers = await Promise.all(asked.map(peer => this.#askOne(peer, question, timeoutMs)))
    const heard = answers.filter(answer => answer !== undefined)
    for (const { promised } of heard) this.#seen = Math.max(this.#seen, promised)
    return heard
  }

  async #askOne({ ip, port }: Peer, question: OrdererQuestion, timeoutMs: number): Promise<OrdererAnswer | undefined> {
    const { pool, timers, log } = this.#parts
    let cancel = () => {}
    const late = new Promise<undefined>(resolve => {
      cancel = timers.set(timeoutMs, () => resolve(undefined))
    })
    const asked = pool
      .connection({ host: ip, port })
      .then(client => client.request(COMMANDS.orderers, Buffer.from(encode(question, 'msgpack'))))
      .then(payload => admit(OrdererAnswer, payload).value)
      .catch(error => {
        log.debug({ err: error }, 'a member cannot be asked who orders whose changes')
        return undefined
      })
    return await Promise.race([asked, late]).finally(() => cancel())
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#turn.then(work)
    this.#turn = done.catch(ignore)
    return done
  }

  #pause(delayMs: number): Promise<void> {
    return new Promise(resolve => {
      const end = () => {
        cancel()
        this.#wake = undefined
        resolve()
      }
      const cancel = this.#parts.timers.set(delayMs, end)
      this.#wake = end
    })
  }
}

interface Round {
  /** Whose files change hands, if any do. */
  readonly source?: number
  /** Who has them, and has to be asked first. */
  readonly givenBy?: number
  /** Nobody else has to be asked. */
  readonly isAlone?: boolean
  readonly decide: (table: OrdererTable, answers: readonly OrdererAnswer[]) => OrdererTable | Promise<OrdererTable>
}

/** Whoever asked is told. */
function ignore(): void {}
