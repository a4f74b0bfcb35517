/**
 * The binlog: the redo log of the store, and what its peers are fed with.
 *
 *     append ─▶ queue ─▶ flush: write lines, fdatasync ─▶ effects (rename, remove) ─▶ end moves, listeners, promises
 *                              slots of small files ──┘
 *
 * A record is durable before its effect is visible, and its effect is visible before anybody (a caller, a peer, a
 * mark) may know of the record. Appends that arrive while a flush is under way go together into the next one.
 *
 * Slots are made durable at the same time as their records: a flush is done when both are. Until then none of it was
 * acknowledged; of the last flush, recovery cuts what has no slot.
 */
import { type BinlogOp, type BinlogRecord, formatRecord, type RecordOrigin } from '../protocol/binlog-record.ts'
import { DfsError } from '../protocol/errors.ts'
import { type Clock, type Disk, type DiskFile, isFull } from '../runtime/world.ts'
import { BINLOG_FILE_BYTES, binlogPath } from './binlog-files.ts'
import type { SlotBytes } from './segments.ts'

/** Records of one flush: 512 KiB of lines at most, and a bound on what a crash leaves unacknowledged. */
export const BATCH_RECORDS_MAX = 1024

/** A record waits so many turns of the event loop at most for others to go with it: some hundred microseconds. */
const GATHER_TURNS_MAX = 8

/** What the caller says of a record; the binlog gives it its place. */
export interface RecordDraft {
  readonly op: BinlogOp
  readonly name: string
  readonly token?: string | undefined
  readonly range?: BinlogRecord['range'] | undefined
  readonly inSlot?: boolean | undefined
  readonly reused?: boolean | undefined
  readonly lacksFile?: boolean | undefined
  readonly origin?: RecordOrigin | undefined
  readonly uploadId?: string | undefined
  /** What the record stands for: made durable while the record is. */
  readonly slot?: SlotBytes | undefined
  /** The source's time, for records of a peer; ours otherwise. */
  readonly timeMs?: number
  /** Makes the change visible, if that takes anything. Safe to repeat: recovery does it again. */
  readonly effect?: (() => Promise<void>) | undefined
}

/** Where the next record stands. */
export interface RecordPlace {
  readonly sequence: number
  readonly timeMs: number
}

/** Why a record is not in the binlog, and will not be at the next start: nothing stands for it. */
export class NotRecordedError extends DfsError {}

/** Where a flush ended, and its lines, without line feeds. */
export interface Flush {
  readonly epoch: number
  readonly previous: number
  readonly sequence: number
  readonly lines: readonly string[]
}

/** Records that were appended together. */
interface Waiting {
  readonly firstSequence: number
  readonly drafts: readonly RecordDraft[]
  readonly timeMs: number
  resolve(): void
  reject(error: Error): void
}

/** One flush: who waits for it, what is written, and the slots that go with it. */
interface Batch {
  readonly waiting: readonly Waiting[]
  readonly lines: readonly string[]
  readonly slots: readonly SlotBytes[]
  readonly lastSequence: number
  /** The last record that is ours to ship, or 0, and the latest time of one. */
  readonly lastOwn: number
  readonly timeMs: number
}

/** Where slots are kept. */
export interface SlotKeeper {
  /** Makes slots durable; is done with all of them when it settles. */
  put(slots: readonly SlotBytes[]): Promise<void>
  /** They have records now. */
  recorded(slots: readonly SlotBytes[]): void
  /** They will have none. */
  dropped(slots: readonly SlotBytes[]): void
}

/** Where a binlog is: given out so far, and durable with its effect visible. */
export interface BinlogReach {
  readonly given: number
  readonly durable: number
}

/** Where a binlog ends. */
export interface BinlogEnd {
  readonly sequence: number
  /** Of the last record that is ours to ship: how far peers are behind is measured by it. */
  readonly timeMs: number
}

export class Binlog {
  readonly epoch: number
  readonly #disk: Disk
  readonly #clock: Clock
  readonly #directory: string
  readonly #fileBytesMax: number
  readonly #syncs: boolean
  readonly #slotKeeper: SlotKeeper | undefined
  readonly #queue: Waiting[] = []
  readonly #listeners: ((flush: Flush) => void)[] = []
  #file: DiskFile | undefined
  #fileBytes: number
  #lastSequence: number
  #lastTimeMs: number
  /** The last record that is durable. */
  #durableSequence: number
  #end: BinlogEnd
  #ownEnd: number
  #flushing: Promise<void> | undefined
  #effects: Promise<void> = Promise.resolve()
  #failure: Error | undefined

  /**
   * Goes on where recovery found the end, behind the record with `lastSequence`. `skipped` sequences are not given to
   * anybody. `file` is the last binlog file, `fileBytes` its length, undefined for a new binlog. Without `syncs` a record
   * is as durable as the system makes it by itself.
   */
  constructor(
    disk: Disk,
    clock: Clock,
    at: {
      directory: string
      epoch: number
      end: BinlogEnd
      /** Of the last record that is ours to ship; the end, if it is not known. */
      ownEnd?: number
      lastSequence: number
      skipped: number
      file: DiskFile | undefined
      fileBytes: number
      fileBytesMax?: number
      syncs?: boolean
      slotKeeper?: SlotKeeper
    },
  ) {
    this.#disk = disk
    this.#clock = clock
    this.#directory = at.directory
    this.#fileBytesMax = at.fileBytesMax ?? BINLOG_FILE_BYTES
    this.#syncs = at.syncs ?? true
    this.#slotKeeper = at.slotKeeper
    this.epoch = at.epoch
    this.#end = at.end
    this.#ownEnd = at.ownEnd ?? at.end.sequence
    this.#lastSequence = at.end.sequence + at.skipped
    this.#lastTimeMs = at.end.timeMs
    this.#durableSequence = at.lastSequence
    this.#file = at.file
    this.#fileBytes = at.fileBytes
  }

  /** The last record that is durable and whose effect is visible. */
  get end(): BinlogEnd {
    return this.#end
  }

  /** Between here and the end lies nothing that peers get from this server. */
  get ownEnd(): number {
    return this.#ownEnd
  }

  /** The last sequence that was given to a record, or to none, and the end. */
  get reach(): BinlogReach {
    return { given: this.#lastSequence, durable: this.#end.sequence }
  }

  /** Why nothing can be appended any more, if so: a disk that failed a sync once is not trusted again. */
  get failure(): Error | undefined {
    return this.#failure
  }

  /** Calls back after each flush, when its effects are visible. */
  onFlush(listener: (flush: Flush) => void): void {
    this.#listeners.push(listener)
  }

  /**
   * Appends one record. `make` learns the record's place, because a new file's name is made of it, and runs at once, so
   * that records stand in the order of the calls. Resolves when the record is durable and its effect is visible.
   */
  append(make: (place: RecordPlace) => RecordDraft): Promise<void> {
    return this.appendAll(place => [make(place)])
  }

  /** Appends records that follow each other, `BATCH_RECORDS_MAX` at most; all of them are in one flush. */
  appendAll(make: (first: RecordPlace) => readonly RecordDraft[]): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(readOnly(this.#failure))
    const firstSequence = this.#lastSequence + 1
    // Never back, so that a second that lies behind a position in this binlog is over for good.
    const timeMs = Math.max(this.#clock.wallMs(), this.#lastTimeMs)
    const drafts = make({ sequence: firstSequence, timeMs })
    if (drafts.length > BATCH_RECORDS_MAX) throw new RangeError(`${drafts.length} records do not fit one flush`)
    if (drafts.length === 0) return Promise.resolve()
    this.#lastSequence += drafts.length
    if (drafts.some(draft => draft.timeMs === undefined)) this.#lastTimeMs = timeMs
    return new Promise((resolve, reject) => {
      this.#queue.push({ firstSequence, drafts, timeMs, resolve, reject })
      this.#flushing ??= this.#flush()
    })
  }

  /** Waits for everything appended so far, then closes the file. Nothing may be appended afterwards. */
  async close(): Promise<void> {
    this.#failure ??= new Error('the binlog is closed')
    await this.#flushing
    await this.#effects
    await this.#file?.close()
  }

  /** Writes batch after batch until nobody waits. Never rejects. */
  async #flush(): Promise<void> {
    while (this.#queue.length > 0) {
      await this.#gather()
      const batch = this.#nextBatch()
      const { waiting, lines, slots, lastSequence } = batch
      const { firstSequence } = waiting[0]!
      const bytes = Buffer.from(`${lines.join('\n')}\n`, 'latin1')
      // Whatever becomes of the others: nobody may be writing any more when their callers are told.
      const [written, kept] = await Promise.allSettled([
        this.#write(bytes, firstSequence),
        slots.length > 0 ? this.#slotKeeper?.put(slots) : undefined,
      ])
      const problem = failureOf(written) ?? failureOf(kept)
      if (problem !== undefined) {
        const isUndone = await this.#undo(written.status === 'fulfilled', problem, firstSequence)
        if (isUndone) this.#slotKeeper?.dropped(slots)
        if (isUndone) this.#reject(waiting, notRecorded(problem))
        else this.#fail(problem, waiting)
        break
      }
      this.#fileBytes += bytes.length
      this.#durableSequence = lastSequence
      // Effects of one batch wait for those of the last: a removal must not overtake the rename it follows.
      this.#effects = this.#effects.then(() => this.#takeEffect(batch))
    }
    this.#flushing = undefined
  }

  /** Takes from the queue what goes into the next flush. Loops, because every record of the store passes here. */
  #nextBatch(): Batch {
    const { epoch } = this
    const first = this.#durableSequence + 1
    const lines: string[] = []
    const slots: SlotBytes[] = []
    let lastTimeMs = 0
    let lastOwn = 0
    let lastSequence = 0
    let count = 0
    for (const { firstSequence, drafts, timeMs } of this.#queue) {
      if (lines.length + drafts.length > BATCH_RECORDS_MAX) break
      count++
      let sequence = firstSequence
      for (const draft of drafts) {
        const { op, name, token, range, inSlot, reused, lacksFile, origin, uploadId, slot } = draft
        const recordMs = draft.timeMs ?? timeMs
        const place = { epoch, sequence, batch: first, timeMs: recordMs }
        lines.push(formatRecord(place, { op, name, token, range, inSlot, reused, lacksFile, origin, uploadId }))
        if (slot !== undefined) slots.push(slot)
        if (isShipped(draft)) {
          lastOwn = sequence
          lastTimeMs = Math.max(lastTimeMs, recordMs)
        }
        lastSequence = sequence++
      }
    }
    return { waiting: this.#queue.splice(0, count), lines, slots, lastSequence, lastOwn, timeMs: lastTimeMs }
  }

  /** Waits while more comes with every turn: those who were answered together come again together, and go together. */
  async #gather(): Promise<void> {
    for (let turn = 0; turn < GATHER_TURNS_MAX; turn++) {
      const before = this.#queue.length
      await this.#clock.turn()
      if (this.#queue.length === before) return
    }
  }

  async #write(bytes: Buffer, firstSequence: number): Promise<void> {
    // An empty file has the name the next one would get.
    const full = this.#fileBytes > 0 && this.#fileBytes + bytes.length > this.#fileBytesMax
    if (this.#file !== undefined && full) {
      await this.#file.close()
      this.#file = undefined
    }
    if (this.#file === undefined) {
      this.#file = await this.#disk.open(binlogPath(this.#directory, this.epoch, firstSequence), 'create')
      this.#fileBytes = 0
    }
    // Not only of a new file: the one before may have failed at this very sync.
    if (this.#fileBytes === 0) await this.#disk.syncDirectory(this.#directory)
    if (this.#syncs) await this.#file.writeDurably([bytes], this.#fileBytes)
    else await this.#file.write([bytes], this.#fileBytes)
  }

  /**
   * Takes back what was written of a batch that failed, if that can be: a disk that was full has promised nothing, and what
   * it took is written over by the next batch; lines that are durable, but not what they stand for, are cut off again.
   */
  async #undo(isWritten: boolean, problem: Error, firstSequence: number): Promise<boolean> {
    if (!isWritten && !isFull(problem)) return false
    try {
      await this.#file?.truncate(this.#fileBytes)
      // What there was no room for may be durable in part.
      if (this.#syncs) await this.#file?.sync()
    } catch {
      // Then the end of the file is not known any more, and nothing may be written after it.
      return false
    }
    this.#lastSequence = firstSequence - 1
    return true
  }

  async #takeEffect({ waiting, lines, slots, lastSequence, lastOwn, timeMs }: Batch): Promise<void> {
    const failures = new Map<Waiting, Error>()
    // Effects on one name keep their order; all others go at the same time.
    const turns = new Map<string, Promise<void>>()
    for (const one of waiting) {
      for (const { name, effect } of one.drafts) {
        if (effect === undefined) continue
        const done = turns.get(name)?.then(effect) ?? effect()
        turns.set(
          name,
          done.catch(error => void failures.set(one, error)),
        )
      }
    }
    if (turns.size > 0) await Promise.all(turns.values())
    if (slots.length > 0) this.#slotKeeper?.recorded(slots)
    const previous = this.#end.sequence
    this.#end = { sequence: lastSequence, timeMs: Math.max(timeMs, this.#end.timeMs) }
    this.#ownEnd = Math.max(this.#ownEnd, lastOwn)
    for (const one of waiting) {
      const failure = failures.get(one)
      if (failure === undefined) one.resolve()
      else one.reject(failure)
    }
    for (const listener of this.#listeners) {
      listener({ epoch: this.epoch, previous, sequence: lastSequence, lines })
    }
  }

  #fail(error: Error, batch: readonly Waiting[]): void {
    this.#failure ??= error
    this.#reject(batch, readOnly(error))
  }

  /** Those that wait behind a batch have names made of sequences that will not be theirs. */
  #reject(batch: readonly Waiting[], error: DfsError): void {
    for (const waiting of [...batch, ...this.#queue.splice(0)]) waiting.reject(error)
  }
}

function failureOf(result: PromiseSettledResult<unknown> | undefined): Error | undefined {
  return result?.status === 'rejected' ? result.reason : undefined
}

function notRecorded(cause: Error): NotRecordedError {
  if (isFull(cause)) return new NotRecordedError('no_space', undefined, { cause })
  return new NotRecordedError('unavailable', 'a disk of this server failed', { cause })
}

/** Whether a record is one that peers get from here. */
export function isShipped({ origin, op }: { op: BinlogOp; origin?: RecordOrigin | undefined }): boolean {
  return origin === undefined && op !== 'S'
}

function readOnly(cause: Error): DfsError {
  return new DfsError('unavailable', 'this storage server takes no changes: its binlog cannot be written', { cause })
}
