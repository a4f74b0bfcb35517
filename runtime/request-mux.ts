/**
 * Matches replies to requests. All requests of a bus share one wildcard inbox and one set of timers:
 *
 *     request n  --- subject, reply to <prefix>.<token>.<n> --->  responder
 *     pending.get(n)  <--- <prefix>.<token>.<n> ---
 *
 * nats.js's own `request` costs two to four times as much, most of it a timer of the system for each.
 */
import { BusError, type BusErrorCode, type BusReply } from './bus.ts'
import type { Timers } from './timers.ts'
import type { Cancel, Random } from './world.ts'

/**
 * Requests that may wait at once. One takes about half a kilobyte, so this bounds the map to some 8 MiB; a service that
 * leaves this many unanswered will not answer the next one in time either.
 */
export const REQUESTS_PENDING_MAX = 16_384

/** The header in which a bus shows a status line of the server, as the Go client does. */
export const STATUS_HEADER = 'Status'

/** The status a server answers with, and an empty payload, when nobody subscribes to the subject of a request. */
export const NO_RESPONDERS_STATUS = '503'

/** Makes a subject token that nobody else has and nobody can guess. */
export function newToken(random: Random): string {
  return random.bytes(TOKEN_BYTES).toString('base64url')
}

/** 96 bits: two of a billion inboxes agree with a chance of 10^-11. */
const TOKEN_BYTES = 12

interface PendingRequest {
  readonly subject: string
  readonly resolve: (reply: BusReply) => void
  readonly reject: (error: BusError) => void
  readonly cancelTimeout: Cancel
}

export class RequestMux {
  readonly #timers: Timers
  readonly #inbox: string
  readonly #pending = new Map<string, PendingRequest>()
  #requests = 0

  constructor(timers: Timers, random: Random, inboxPrefix: string) {
    this.#timers = timers
    this.#inbox = `${inboxPrefix}.${newToken(random)}`
  }

  /** What a bus subscribes to on behalf of all requests; the messages go to `receive`. */
  get pattern(): string {
    return `${this.#inbox}.*`
  }

  /** How many requests wait for their reply. */
  get size(): number {
    return this.#pending.size
  }

  /** Waits for the reply to what `send` publishes. Rejects with a `BusError`, or with what `send` throws. */
  request(subject: string, timeoutMs: number, send: (replyTo: string) => void): Promise<BusReply> {
    return new Promise((resolve, reject) => {
      if (this.#pending.size >= REQUESTS_PENDING_MAX) throw new BusError('busy', subject)
      const id = (this.#requests++).toString(36)
      send(`${this.#inbox}.${id}`)
      const cancelTimeout = this.#timers.set(timeoutMs, () => this.#take(id)?.reject(new BusError('timeout', subject)))
      this.#pending.set(id, { subject, resolve, reject, cancelTimeout })
    })
  }

  /** Takes a message that came to `pattern`. One that nobody waits for any more is dropped. */
  receive(message: BusReply & { readonly subject: string }): void {
    const request = this.#take(message.subject.slice(this.#inbox.length + 1))
    if (request === undefined) return
    const { payload, headers } = message
    if (payload.length === 0 && headers[STATUS_HEADER] === NO_RESPONDERS_STATUS) {
      request.reject(new BusError('no_responders', request.subject))
    } else {
      request.resolve({ payload, headers })
    }
  }

  /** Rejects all requests that wait, or those to one subject. */
  fail(code: BusErrorCode, subject?: string): void {
    for (const [id, request] of this.#pending) {
      if (subject !== undefined && request.subject !== subject) continue
      this.#take(id)
      request.reject(new BusError(code, request.subject))
    }
  }

  #take(id: string): PendingRequest | undefined {
    const request = this.#pending.get(id)
    if (request === undefined) return undefined
    this.#pending.delete(id)
    request.cancelTimeout()
    return request
  }
}
