/**
 * Tells how long the other side of a connection has been silent, by looking at it now and then: what moves costs nothing
 * while it moves. Silence counts from the first look that sees it.
 */
export class Silence {
  #movedBytes = 0
  #patienceMs = Number.POSITIVE_INFINITY
  #sinceMs = 0

  /** Whether it has lasted for longer than `patienceMs`: nothing moved, and nothing else was waited for. */
  isTooLong(nowMs: number, movedBytes: number, patienceMs: number): boolean {
    if (movedBytes !== this.#movedBytes || patienceMs !== this.#patienceMs) {
      this.#movedBytes = movedBytes
      this.#patienceMs = patienceMs
      this.#sinceMs = nowMs
    }
    return nowMs - this.#sinceMs > patienceMs
  }
}
