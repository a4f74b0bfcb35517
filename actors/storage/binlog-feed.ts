/**
 * Tells followers and sync workers of flushes, those of some milliseconds in one message: a busy server has a thousand a
 * second.
 */

import { encode } from '../../protocol/codec.ts'
import { subjectOf } from '../../protocol/message.ts'
import { binlogFlushed } from '../../protocol/storage-messages.ts'
import type { Bus } from '../../runtime/bus.ts'
import { publishQuietly, type RoleContext } from '../../runtime/role.ts'
import type { Cancel } from '../../runtime/world.ts'
import type { Flush } from '../../store/binlog.ts'

/** A follower learns of a file so much later at most. */
const GATHER_MS = 10

/** Lines of one message: with what is around them they fit what a NATS server takes unless it is told otherwise. */
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
  /** Flushes that follow each other, and their lines in bytes. */
  #gathered: Flush[] = []
  #bytes = 0
  #cancel: Cancel | undefined

  constructor(options: BinlogFeedOptions) {
    this.#options = options
  }

  add(flush: Flush): void {
    const bytes = flush.lines.reduce((sum, line) => sum + line.length, 0)
    if (this.#bytes + bytes > LINES_BYTES_MAX) this.publish()
    this.#gathered.push(flush)
    this.#bytes += bytes
    this.#cancel ??= this.#options.context.timers.set(GATHER_MS, () => this.publish())
  }

  /** Publishes what was gathered, if there is anything, and a NATS. */
  publish(): void {
    this.#cancel?.()
    this.#cancel = undefined
    const flushes = this.#gathered
    const bytes = this.#bytes
    this.#gathered = []
    this.#bytes = 0
    const { context, group, storageId } = this.#options
    const bus = this.#options.bus()
    const last = flushes.at(-1)
    if (last === undefined || bus === undefined || bus.status !== 'connected') return
    const { epoch, sequence } = last
    const { previous } = flushes[0]!
    // Numbers and lengths take less than the lines do.
    const fits = bytes <= bus.payloadBytesMax / 2
    const records = fits ? { records: flushes.flatMap(({ lines }) => lines) } : {}
    const subject = subjectOf(binlogFlushed, { prefix: context.prefix, group, id: String(storageId) })
    const body = encode({ storageId, epoch, previous, sequence, ...records }, 'msgpack')
    publishQuietly(context, bus, subject, body, { headers: { 'Nats-Msg-Id': `${storageId}:${epoch}:${sequence}` } })
  }
}
