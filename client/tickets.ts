/** The tickets of a client: they come with the trackers' answers, and are shown once on each connection. */
import { DfsError } from '../protocol/errors.ts'
import type { IssuedTicket } from '../protocol/ticket.ts'
import type { FrameClient } from '../runtime/frame-client.ts'
import { authenticate } from '../runtime/handshake.ts'
import type { Clock, Random } from '../runtime/world.ts'

/** A ticket is replaced when this much of its life is left: no request that waits behind others finds it over. */
const LEFT_MS_MIN = 30_000

/** Groups times operations, and upload ids that callers chose: the oldest is forgotten first. */
const TICKETS_MAX = 1024

interface Held {
  readonly ticket: Buffer
  readonly key: Buffer
  readonly untilMs: number
}

export class Tickets {
  readonly #clock: Clock
  readonly #random: Random
  readonly #held = new Map<string, Held>()
  /** What each connection has been shown, or is being shown. */
  readonly #shown = new WeakMap<FrameClient, Map<Held, Promise<void> | undefined>>()

  constructor(clock: Clock, random: Random) {
    this.#clock = clock
    this.#random = random
  }

  /** Takes a ticket that came with an answer, if it is time for another. */
  keep(purpose: string, issued: IssuedTicket | undefined): void {
    if (issued === undefined || this.#leftMs(purpose) > LEFT_MS_MIN) return
    const untilMs = this.#clock.monotonicMs() + issued.leaseMs
    const bytes = (text: string) => Buffer.from(text, 'base64url')
    this.#held.delete(purpose)
    this.#held.set(purpose, { ticket: bytes(issued.ticket), key: bytes(issued.secret), untilMs })
    if (this.#held.size > TICKETS_MAX) this.#held.delete(this.#held.keys().next().value!)
  }

  /** Whether there is one that is good for a while. */
  has(purpose: string): boolean {
    return this.#leftMs(purpose) > LEFT_MS_MIN
  }

  /** Forgets all of them: a server does not believe one. */
  clear(): void {
    this.#held.clear()
  }

  /** Shows the ticket for a purpose, if there is one, to a server; undefined if that has been done. Rejects as `authenticate` does. */
  show(client: FrameClient, purpose: string): Promise<void> | undefined {
    const held = this.#held.get(purpose)
    if (held === undefined) return undefined
    if (held.untilMs < this.#clock.monotonicMs()) return Promise.reject(new DfsError('ticket_expired'))
    const shown = this.#shown.get(client) ?? new Map<Held, Promise<void> | undefined>()
    if (shown.has(held)) return shown.get(held)
    this.#shown.set(client, shown)
    // One proof at a time: a server remembers what it expects of a connection only once.
    const before = [...shown.values()].at(-1)
    const done = (before?.catch(ignore) ?? Promise.resolve())
      .then(() => authenticate(client, { role: 'ticket', ...held }, this.#random))
      .then(
        () => void shown.set(held, undefined),
        error => {
          shown.delete(held)
          throw error
        },
      )
    shown.set(held, done)
    for (const [other] of shown) if (other.untilMs < this.#clock.monotonicMs()) shown.delete(other)
    return done
  }

  #leftMs(purpose: string): number {
    return (this.#held.get(purpose)?.untilMs ?? 0) - this.#clock.monotonicMs()
  }
}

function ignore(): void {}
