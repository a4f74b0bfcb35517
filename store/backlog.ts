/**
 * How much of this source's binlog lies behind a sequence: own records, bytes of the files they create, and the age of the
 * first. A step is noted about every second, so that nothing is counted for a single record, and nothing is read.
 *
 *     sequence   1000 ────────── 1040 ────────── 2210 ──────── end
 *     step        │ 10:00:01      │ 10:00:02      │ 10:00:09        the first flush behind it; what was there before
 *                                      ▲ a peer at 1625: half of what lies between two steps is behind it
 */
import { decodeFileName } from '../protocol/file-id.ts'
import type { Backlog as BacklogReport } from '../protocol/storage-messages.ts'
import type { Clock } from '../runtime/world.ts'
import { type Flush, isShipped } from './binlog.ts'
import type { ReadRecord } from './binlog-reader.ts'

const STEP_MS = 1_000

/** When there are more, every second one goes, and the next are twice as far apart. */
const STEPS_MAX = 512

/** What a start reads of the time before it: some tenth of a second. */
const READ_RECORDS_MAX = 50_000

/** Own records, and the bytes of the files they create, from the start of this server on. */
export interface Totals {
  readonly records: number
  readonly bytes: number
}

/** What was true of the binlog where it ended with `sequence`; the totals of a time before the start are negative. */
interface Step extends Totals {
  readonly sequence: number
  /** When the first flush behind it was, and the last one before the next step. */
  firstMs: number
  lastMs: number
}

const NONE: BacklogReport = { records: 0, bytes: 0, behindMs: 0 }

export class Backlog {
  readonly #clock: Clock
  readonly #totals: () => Totals
  #steps: Step[] = []
  #stepMs = STEP_MS
  /** Of what lies before it only the number of sequences is known. */
  #knownFrom: number
  #end: number

  /** Begins where the binlog ends; `totals` count from there on. */
  constructor(clock: Clock, endSequence: number, totals: () => Totals) {
    this.#clock = clock
    this.#knownFrom = endSequence
    this.#end = endSequence
    this.#totals = totals
  }

  /** Notes a flush; the totals may be without it yet. */
  grow({ previous, sequence }: Pick<Flush, 'previous' | 'sequence'>): void {
    const nowMs = this.#clock.wallMs()
    const totals = this.#totals()
    const last = this.#steps.at(-1)
    this.#end = sequence
    if (last !== undefined && (last.records === totals.records || Math.abs(nowMs - last.firstMs) < this.#stepMs)) {
      // Since the step began came only records of others, which no peer gets from here.
      if (last.records === totals.records) last.firstMs = nowMs
      last.lastMs = nowMs
      return
    }
    this.#steps.push({ sequence: previous, firstMs: nowMs, lastMs: nowMs, ...totals })
    this.#thin()
  }

  /**
   * Reads what the binlog had after a sequence when this life began. If that is too much, the rest counts as more of the
   * same, a record for each sequence.
   */
  async readBefore(after: number, records: AsyncIterable<ReadRecord>): Promise<void> {
    const steps: Step[] = []
    const until = this.#knownFrom
    const nowMs = this.#clock.wallMs()
    let own = 0
    let bytes = 0
    let end = after
    for await (const { record } of records) {
      if (!isShipped(record)) continue
      const { sequence } = record
      // Files that were taken over are older than any other, and have waited for no peer yet.
      const timeMs = record.timeMs || nowMs
      const last = steps.at(-1)
      if (last !== undefined && timeMs - last.firstMs < STEP_MS) last.lastMs = timeMs
      else steps.push({ sequence: sequence - 1, firstMs: timeMs, lastMs: timeMs, records: own, bytes })
      own++
      end = sequence
      if (record.op === 'C') bytes += decodeFileName(record.name).sizeBytes ?? 0
      else bytes += record.range?.bytes ?? 0
      if (own < READ_RECORDS_MAX) continue
      bytes += ((until - sequence) * bytes) / own
      own += until - sequence
      end = until
      break
    }
    // What comes behind the last of them, such as the record of the start, is not for the peers.
    steps.push({ sequence: end, firstMs: nowMs, lastMs: nowMs, records: own, bytes })
    this.#steps.unshift(...steps.map(step => ({ ...step, records: step.records - own, bytes: step.bytes - bytes })))
    this.#knownFrom = after
    this.#thin()
  }

  /** Forgets what is not behind any peer any more. */
  forget(beforeSequence: number): void {
    while (this.#steps.length > 1 && this.#steps[1]!.sequence <= beforeSequence) {
      this.#steps.shift()
      this.#knownFrom = this.#steps[0]!.sequence
    }
    if (this.#steps.length === 1) this.#stepMs = STEP_MS
  }

  /** What lies behind a sequence. */
  after(sequence: number): BacklogReport {
    if (sequence >= this.#end) return NONE
    const now = this.#totals()
    const nowMs = this.#clock.wallMs()
    const at = Math.max(
      0,
      this.#steps.findLastIndex(step => step.sequence <= sequence),
    )
    const from = this.#steps[at] ?? { sequence: this.#end, firstMs: nowMs, lastMs: nowMs, ...now }
    const to = this.#steps[at + 1] ?? { sequence: this.#end, ...now }
    const share = sequence <= from.sequence ? 0 : (sequence - from.sequence) / (to.sequence - from.sequence)
    const between = (a: number, b: number) => a + share * (b - a)
    const unknown = Math.max(0, this.#knownFrom - sequence)
    // A part of a record is one, unless it is what the division left.
    const records = unknown + Math.ceil(now.records - between(from.records, to.records) - 1e-6)
    if (records <= 0) return NONE
    const bytes = Math.round(now.bytes - between(from.bytes, to.bytes))
    const behindMs = Math.round(nowMs - between(from.firstMs, from.lastMs))
    return { records, bytes: Math.max(0, bytes), behindMs: Math.max(0, behindMs) }
  }

  #thin(): void {
    while (this.#steps.length > STEPS_MAX) {
      this.#stepMs *= 2
      const kept = this.#steps.filter((_, i) => i % 2 === 0)
      kept.forEach((step, i) => {
        step.lastMs = this.#steps[2 * i + 1]?.lastMs ?? step.lastMs
      })
      this.#steps = kept
    }
  }
}
