/**
 * The records of other sources on their way into our binlog: those of one source in its order, each only once, and never
 * over a gap.
 *
 *     apply ─▶ make ready (files sealed, slots have room) ─▶ the turn of its source ─▶ binlog ─▶ position moves
 */
import type { BinlogPosition } from '../protocol/binlog-record.ts'
import { isAfter } from '../protocol/binlog-record.ts'
import { DfsError } from '../protocol/errors.ts'
import type { SourcePosition } from '../protocol/storage-messages.ts'
import { allDone } from './all-done.ts'
import { IncomingFile } from './incoming-file.ts'
import { positionAfter } from './recovery.ts'
import type { Shipment, ShippedRecord } from './store.ts'

/** What a store does with a shipment. */
export interface Applier {
  /** Makes ready what comes with records; a file that cannot be kept is thrown away. */
  prepare(shipments: readonly Shipment[]): Promise<void>
  /** Throws if a record cannot be applied now. */
  admit(shipment: Shipment): void
  /** Gives admitted records to the binlog; resolves when they are durable and their effects visible. */
  append(shipments: readonly Shipment[]): Promise<unknown>
}

const ORIGIN: BinlogPosition = { epoch: 0, sequence: 0 }

export class AppliedRecords {
  readonly #applier: Applier
  /** What has been applied and is durable, by source. */
  readonly #positions: Map<number, SourcePosition>
  /** What has been given to the binlog, by source: at or past the position. */
  readonly #enqueued = new Map<number, { at: BinlogPosition; done: Promise<unknown> }>()
  /** Resolves when the records before have been given to the binlog, by source. */
  readonly #turns = new Map<number, Promise<void>>()

  constructor(positions: Map<number, SourcePosition>, applier: Applier) {
    this.#positions = positions
    this.#applier = applier
  }

  position(storageId: number): SourcePosition | undefined {
    return this.#positions.get(storageId)
  }

  get positions(): readonly SourcePosition[] {
    return [...this.#positions.values()]
  }

  /** Applies records of one source that follow each other; durable when it resolves. */
  async apply(shipments: readonly Shipment[]): Promise<void> {
    const [first] = shipments
    if (first === undefined) return
    const source = first.shipped.origin.storageId
    const before = this.#turns.get(source)
    let done: Promise<unknown> = Promise.resolve()
    const turn = (async () => {
      // The bytes are made durable while those before it still are; the order is taken up again at the binlog.
      await Promise.all([before?.catch(ignore), this.#applier.prepare(shipments)])
      try {
        done = this.#enqueue(source, shipments)
      } catch (error) {
        await Promise.all(shipments.map(discard))
        throw error
      }
    })()
    this.#turns.set(source, turn)
    await turn
    await done
  }

  /** Gives those to the binlog that are not there already; resolves when all are durable. */
  #enqueue(source: number, shipments: readonly Shipment[]): Promise<unknown> {
    const last = this.#lastOf(source)
    const isKnown = ({ shipped }: Shipment) => !isAfter(shipped.origin, last.at)
    const known = shipments.filter(isKnown).map(discard)
    const fresh = shipments.filter(shipment => !isKnown(shipment))
    let at = last.at
    for (const { shipped } of fresh) at = expectNext(at, shipped)
    // All of them are possible, or none is begun.
    for (const shipment of fresh) this.#applier.admit(shipment)
    const appended = fresh.length > 0 ? this.#applier.append(fresh) : undefined
    // A position says that everything before it is here too. Effects of one flush end in any order, and one may fail:
    // the position moves in the order of the source, and never past a record that is to be shipped again.
    // Whatever becomes of one: nobody reads from the slots any more when their owner is told.
    const done = allDone([last.done, ...known, appended]).then(() => {
      const last = fresh.at(-1)?.shipped
      if (last === undefined) return
      const lacksFile = fresh.some(({ shipped }) => shipped.lacksFile)
      this.#positions.set(source, positionAfter(this.#positions.get(source), { ...last, lacksFile }))
    })
    const entry = { at, done }
    this.#enqueued.set(source, entry)
    // What failed must be shipped again: the next session starts from the position.
    done.catch(() => {
      if (this.#enqueued.get(source) === entry) this.#enqueued.delete(source)
    })
    return done
  }

  /** The last record of a source that was given to the binlog, and when it is durable. */
  #lastOf(source: number): { at: BinlogPosition; done: Promise<unknown> } {
    return this.#enqueued.get(source) ?? { at: this.#positions.get(source) ?? ORIGIN, done: Promise.resolve() }
  }
}

/** Throws away what came with a record that is not applied. */
export async function discard({ content }: Shipment): Promise<void> {
  if (content instanceof IncomingFile) await content.discard()
}

/** Where a source's records have got to with one more. Throws `bad_request` unless it is one that follows. */
function expectNext(last: BinlogPosition, { origin, previous, record }: ShippedRecord): BinlogPosition {
  if (record.op !== 'C' && record.op !== 'D') throw new DfsError('bad_request', 'a source ships its own records only')
  const expected = origin.epoch === last.epoch ? last.sequence : 0
  if (previous === expected) return origin
  const found = `record ${origin.sequence} follows ${previous}, but ${expected} is the last one here`
  throw new DfsError('bad_request', found)
}

/** Whoever was before us has its own failure; we only needed its place. */
function ignore(): void {}
