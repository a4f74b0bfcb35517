/** Connections that a server turned away. */
import type { Log } from './log.ts'
import type { Clock, Socket } from './world.ts'

/** Told of at most that often: whoever knocks without end must not fill the log. */
const LOG_EVERY_MS = 10_000

/** Closes connections, counts them and tells of them now and then, for one reason. */
export class Refusals {
  readonly #clock: Clock
  readonly #log: Log
  readonly #reason: string
  #count = 0
  #nextLogMs = Number.NEGATIVE_INFINITY

  constructor({ clock, log }: { readonly clock: Clock; readonly log: Log }, reason: string) {
    this.#clock = clock
    this.#log = log
    this.#reason = reason
  }

  get count(): number {
    return this.#count
  }

  refuse(socket: Socket): void {
    socket.destroy()
    this.#count++
    const nowMs = this.#clock.monotonicMs()
    if (nowMs < this.#nextLogMs) return
    this.#nextLogMs = nowMs + LOG_EVERY_MS
    this.#log.warn({ remote: socket.remote, refused: this.#count }, `${this.#reason}: refused`)
  }
}
