/** Tells followers and sync workers of flushes, those of some milliseconds in one message: a busy server has a thousand a second. */

import { encode } from '../../protocol/codec.ts'
import { subjectOf } from '../../protocol/message.ts'
import { binlogFlushed } from '../../protocol/storage-messages.ts'
import type { Bus } from '../../runtime/bus.ts'
import { publishQuietly, type RoleContext } from '../../runtime/role.ts'
import type { Cancel } from '../../runtime/world.ts'
import type { Flush } from '../../store/binlog.ts'

/** A follower learns of a file so much later at most. */
const GATHER_MS = 10

/** Lines of one message: with what is around them they fit the payload of any NATS server. */
const LINES_BYTES_MAX = 256 * 1024

export interface BinlogFeedOptions {
  readonly context: RoleContext
  readonly group: string
  readonly storageId: number
  /** Undefined while there is none. */
  readonly bus: () => Bus | undefined
}

export class BinlogFeed {
  readonly #options: BinlogFeedOptions
  #gathered: Flush | undefined
  #bytes = 0
  #cancel: Cancel | undefined

  constructor(options: BinlogFeedOptions) {
    this.#options = options
  }

  add(flush: Flush): void {
    const bytes = flush.lines.reduce((sum, line) => sum + line.length, 0)
    if (this.#bytes + bytes > LINES_BYTES_MAX) this.publish()
    const before = this.#gathered
    this.#gathered = before === undefined ? flush : joined(before, flush)
    this.#bytes += bytes
    this.#cancel ??= this.#options.context.timers.set(GATHER_MS, () => this.publish())
  }

  /** Publishes what was gathered, if there is anything, and a NATS. */
  publish(): void {
    this.#cancel?.()
    this.#cancel = undefined
    const flush = this.#gathered
    const fits = this.#bytes <= LINES_BYTES_MAX
    this.#gathered = undefined
    this.#bytes = 0
    const { context, group, storageId } = this.#options
    const bus = this.#options.bus()
    if (flush === undefined || bus === undefined || bus.status !== 'connected') return
    const { epoch, previous, sequence, lines } = flush
    const body = { storageId, epoch, previous, sequence, ...(fits ? { records: lines } : {}) }
    const subject = subjectOf(binlogFlushed, { prefix: context.prefix, group, id: String(storageId) })
    publishQuietly(context, bus, subject, encode(body, 'msgpack'), {
      headers: { 'Nats-Msg-Id': `${storageId}:${epoch}:${sequence}` },
    })
  }
}

/** Two flushes that follow each other, as one. */
function joined(before: Flush, after: Flush): Flush {
  return { ...after, previous: before.previous, lines: [...before.lines, ...after.lines] }
}
