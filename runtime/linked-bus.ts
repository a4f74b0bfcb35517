/**
 * A `Bus` on top of a link: all that NATS and its stand-in have in common is here, so they cannot differ in it.
 *
 *     actor -> LinkedBus (rules, requests, status) -> Link (nats-bus.ts or memory-bus.ts)
 */
import {
  type Bus,
  BusError,
  type BusHeaders,
  type BusMessage,
  type BusOptions,
  type BusReply,
  type BusStatus,
  type RequestOptions,
  type SubscribeOptions,
  type Subscription,
} from './bus.ts'
import { checkPattern, checkSubject, isSubject, messageBytes } from './bus-rules.ts'
import { newToken, RequestMux } from './request-mux.ts'
import type { Timers } from './timers.ts'
import type { Random } from './world.ts'

/** A server that has not confirmed by then that we take no more messages will not do so any more. */
const DRAIN_MS_MAX = 5_000

/** A message as it arrives, or is to be sent. */
export interface LinkMessage {
  readonly subject: string
  readonly payload: Uint8Array
  readonly headers: BusHeaders
  readonly replyTo: string | undefined
}

/** What carries messages. It is only given subjects, patterns and headers that keep the rules. */
export interface Link {
  readonly payloadBytesMax: number
  readonly jetstream: boolean
  readonly serverVersion: string
  /** Called only while connected. May throw a `BusError`. */
  send(message: LinkMessage): void
  listen(pattern: string, queue: string | undefined, receive: (message: LinkMessage) => void): Subscription
  /** May never settle if the connection is lost. */
  flush(): Promise<void>
  /** Takes no new messages and delivers those under way. May never settle if the connection is lost. */
  drain(): Promise<void>
  close(): Promise<void>
}

/** What a link tells its bus. */
export interface LinkEvents {
  /** The same status may come again; nothing counts after `closed`. */
  became(status: BusStatus): void
  forbade(operation: 'publish' | 'subscribe', subject: string): void
}

export class LinkedBus implements Bus {
  readonly #link: Link
  readonly #options: BusOptions
  readonly #timers: Timers
  readonly #random: Random
  readonly #mux: RequestMux
  readonly #listeners: ((status: BusStatus) => void)[] = []
  readonly #flushes = new Set<(error: BusError) => void>()
  #status: BusStatus = 'connected'
  #inboxIsForbidden = false
  #drained: Promise<void> | undefined

  /** The link must be connected. */
  constructor(options: BusOptions, timers: Timers, random: Random, makeLink: (events: LinkEvents) => Link) {
    this.#options = options
    this.#timers = timers
    this.#random = random
    this.#mux = new RequestMux(timers, random, options.inboxPrefix)
    this.#link = makeLink({
      became: status => this.#became(status),
      forbade: (operation, subject) => this.#forbade(operation, subject),
    })
    this.#link.listen(this.#mux.pattern, undefined, message => this.#mux.receive(message))
  }

  get status(): BusStatus {
    return this.#status
  }

  get payloadBytesMax(): number {
    return this.#link.payloadBytesMax
  }

  get jetstream(): boolean {
    return this.#link.jetstream
  }

  get serverVersion(): string {
    return this.#link.serverVersion
  }

  onStatus(listener: (status: BusStatus) => void): void {
    this.#listeners.push(listener)
  }

  publish(subject: string, payload: Uint8Array, options: { headers?: BusHeaders; replyTo?: string } = {}): void {
    const { headers = {}, replyTo } = options
    checkSubject(subject)
    if (replyTo !== undefined) checkSubject(replyTo)
    if (messageBytes(payload, headers) > this.payloadBytesMax) throw new BusError('too_large', subject)
    if (this.#status === 'closed') throw new BusError('closed', subject)
    // Lost, as the interface says: a client library would keep it, without limit, and lose it on the next dial.
    if (this.#status === 'disconnected') return
    this.#link.send({ subject, payload, headers, replyTo })
  }

  async request(subject: string, payload: Uint8Array, options: RequestOptions): Promise<BusReply> {
    const { timeoutMs, headers = {} } = options
    if (this.#drained !== undefined) throw new BusError('closed', subject)
    if (this.#status !== 'connected') throw new BusError(this.#status, subject)
    if (this.#inboxIsForbidden) throw new BusError('forbidden', this.#mux.pattern)
    return this.#mux.request(subject, timeoutMs, replyTo => this.publish(subject, payload, { replyTo, headers }))
  }

  subscribe(subject: string, handler: (message: BusMessage) => void, options: SubscribeOptions = {}): Subscription {
    const { queue } = options
    checkPattern(subject)
    if (queue !== undefined) checkSubject(queue)
    if (this.#drained !== undefined || this.#status === 'closed') throw new BusError('closed', subject)
    return this.#link.listen(subject, queue, message => deliver(handler, this.#incoming(message)))
  }

  newInbox(): string {
    return `${this.#options.inboxPrefix}.${newToken(this.#random)}`
  }

  flush(): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#status !== 'connected') throw new BusError(this.#status, 'flush')
      this.#flushes.add(reject)
      this.#link
        .flush()
        .then(resolve, cause => reject(new BusError('disconnected', 'flush', { cause })))
        .finally(() => this.#flushes.delete(reject))
    })
  }

  drain(): Promise<void> {
    this.#drained ??= this.#drain()
    return this.#drained
  }

  async #drain(): Promise<void> {
    if (this.#status === 'connected') {
      await new Promise<void>(resolve => {
        const cancel = this.#timers.set(DRAIN_MS_MAX, resolve)
        // Whether it went well makes no difference: the connection ends either way.
        this.#link
          .drain()
          .then(resolve, () => resolve())
          .finally(cancel)
      })
    }
    await this.#link.close()
    this.#became('closed')
  }

  #incoming(message: LinkMessage): BusMessage {
    // Others chose the reply subject: one that breaks the rules counts as none, it must not throw in the handler.
    const replyTo = message.replyTo !== undefined && isSubject(message.replyTo) ? message.replyTo : undefined
    return {
      ...message,
      replyTo,
      respond: (payload, headers = {}) => {
        if (replyTo !== undefined && this.#status !== 'closed') this.publish(replyTo, payload, { headers })
      },
    }
  }

  #became(status: BusStatus): void {
    if (this.#status === status || this.#status === 'closed') return
    this.#status = status
    if (status === 'connected') {
      this.#inboxIsForbidden = false
    } else {
      this.#mux.fail(status)
      for (const reject of this.#flushes) reject(new BusError(status, 'flush'))
      this.#flushes.clear()
    }
    for (const listener of this.#listeners) listener(status)
  }

  #forbade(operation: 'publish' | 'subscribe', subject: string): void {
    if (operation === 'publish') {
      this.#mux.fail('forbidden', subject)
    } else if (subject === this.#mux.pattern) {
      this.#inboxIsForbidden = true
      this.#mux.fail('forbidden')
    }
    this.#options.onForbidden?.(operation, subject)
  }
}

/**
 * Calls a handler. What it throws is a bug and surfaces as an uncaught exception, but apart from the link: nats.js stops
 * reading for ever, with a line on stdout, when a callback throws.
 */
function deliver(handler: (message: BusMessage) => void, message: BusMessage): void {
  try {
    handler(message)
  } catch (error) {
    queueMicrotask(() => {
      throw error
    })
  }
}
