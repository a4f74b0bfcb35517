/**
 * The records of other sources on their way into our binlog: those of one source in its order, each only once, and never
 * over a gap.
 *
 *     apply ─▶ make ready (files sealed, slots have room) ─▶ the turn of its source ─▶ binlog ─▶ position moves
 *
 * A slot that is used again waits for what was there before: records in front of it that are about the same slot are durable,
 * and their effects visible, before it is looked at.
 */
import { type BinlogOp, type BinlogPosition, isAfter } from '../protocol/binlog-record.ts'
import { DfsError } from '../protocol/errors.ts'
import type { SourcePosition } from '../protocol/storage-messages.ts'
import { allDone } from './all-done.ts'
import { IncomingFile } from './incoming-file.ts'
import { IncomingMetadata } from './metadata-file.ts'
import { positionAfter } from './recovery.ts'
import { SlotRanges } from './slot-ranges.ts'
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

/** What a source ships of its own. */
const SHIPPED_OPS: ReadonlySet<BinlogOp> = new Set(['C', 'D', 'U', 'A', 'M', 'T'])

const ORIGIN: BinlogPosition = { epoch: 0, sequence: 0 }

/** Records of a run that may be given to the binlog together. */
interface Part {
  readonly shipments: Shipment[]
  /** Slots that they are about. */
  readonly slots: SlotRanges
  /** Something before is about one of their slots. */
  readonly waits: boolean
}

export class AppliedRecords {
  readonly #applier: Applier
  /** What has been applied and is durable, by source. */
  readonly #positions: Map<number, SourcePosition>
  /** What has been given to the binlog, by source: at or past the position. */
  readonly #enqueued = new Map<number, { at: BinlogPosition; done: Promise<unknown> }>()
  /** Resolves when the records before have been given to the binlog, by source. */
  readonly #turns = new Map<number, Promise<void>>()
  /**
   * Those that are not over. An array, for a map that fills and empties with each run makes garbage that refers to garbage
   * that came later: V8's young generation then takes all of it for alive, and a major collection follows each half second.
   */
  readonly #parts: Part[] = []

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
    const parts = this.#partsOf(shipments)
    let before = this.#turns.get(source)
    const all: Promise<unknown>[] = []
    for (const part of parts) {
      const { turn, done } = this.#applyPart(source, part, before)
      before = turn
      all.push(done.finally(() => this.#parts.splice(this.#parts.indexOf(part), 1)))
    }
    this.#turns.set(source, before!)
    await allDone(all)
  }

  /** Applies a part when the turn of those before it is over. */
  #applyPart(source: number, part: Part, before: Promise<void> | undefined) {
    const { shipments, waits } = part
    let appended: Promise<unknown> = Promise.resolve()
    const turn = (async () => {
      if (waits) {
        await before?.catch(ignore)
        await this.#lastOf(source).done.catch(ignore)
      }
      // The bytes are made durable while those before it still are; the order is taken up again at the binlog.
      await Promise.all([before?.catch(ignore), this.#applier.prepare(shipments)])
      try {
        appended = this.#enqueue(source, shipments)
      } catch (error) {
        await Promise.all(shipments.map(discard))
        throw error
      }
    })()
    return { turn, done: turn.then(() => appended) }
  }

  /** Cuts a run in front of each file whose slot something before it is about. */
  #partsOf(shipments: readonly Shipment[]): Part[] {
    let part = this.#newPart(false)
    const parts = [part]
    for (const shipment of shipments) {
      const { file } = shipment.shipped
      if (shipment.content !== undefined && this.#parts.some(({ slots }) => slots.has(file))) {
        part = this.#newPart(true)
        parts.push(part)
      }
      part.slots.add(file)
      part.shipments.push(shipment)
    }
    return parts
  }

  #newPart(waits: boolean): Part {
    const part = { shipments: [], slots: new SlotRanges(), waits }
    this.#parts.push(part)
    return part
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
      const { origin, record } = last
      const lacksFile = fresh.some(({ shipped }) => shipped.lacksFile)
      this.#positions.set(source, positionAfter(this.#positions.get(source), { origin, record, lacksFile }))
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
export async function discard({ content, metadata }: Shipment): Promise<void> {
  await metadata?.discard()
  if (content instanceof IncomingFile || content instanceof IncomingMetadata) await content.discard()
}

/** Where a source's records have got to with one more. Throws `bad_request` unless it is one that follows. */
function expectNext(last: BinlogPosition, { origin, previous, record }: ShippedRecord): BinlogPosition {
  if (!SHIPPED_OPS.has(record.op)) throw new DfsError('bad_request', 'a source ships its own records only')
  const expected = origin.epoch === last.epoch ? last.sequence : 0
  if (previous === expected) return origin
  const found = `record ${origin.sequence} follows ${previous}, but ${expected} is the last one here`
  throw new DfsError('bad_request', found)
}

/** Whoever was before us has its own failure; we only needed its place. */
function ignore(): void {}
