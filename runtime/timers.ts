/**
 * Timers on a binary min-heap over one alarm of the clock, so that a thousand connections with deadlines cost one
 * timer of the operating system.
 *
 *     heap[0] rings next; heap[i] rings no later than heap[2i+1] and heap[2i+2]; equal times ring in the order set.
 */
import type { Cancel, Clock } from './world.ts'

/** The longest alarm asked of the clock: Node rings one past 2^31 - 1 ms at once. */
const ALARM_MS_MAX = 2 ** 30

interface Timer {
  atMs: number
  readonly order: number
  /** Where it stands in the heap; -1 when it is not there. */
  place: number
  ring: () => void
}

export class Timers {
  readonly #clock: Clock
  readonly #heap: Timer[] = []
  #orders = 0
  #alarm: { atMs: number; cancel: Cancel } | undefined

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** How many timers are set. */
  get size(): number {
    return this.#heap.length
  }

  /** Calls `ring` once after `delayMs`. */
  set(delayMs: number, ring: () => void): Cancel {
    const atMs = this.#clock.monotonicMs() + Math.max(0, delayMs)
    const timer: Timer = { atMs, order: this.#orders++, place: this.#heap.length, ring }
    this.#heap.push(timer)
    this.#rise(timer)
    this.#arm()
    return () => {
      this.#remove(timer)
      // An alarm nobody waits for would keep the process alive.
      if (this.#heap.length === 0) this.#arm()
    }
  }

  /** Calls `ring` again and again, `periodMs` after it was called before. */
  every(periodMs: number, ring: () => void): Cancel {
    const tick = () => {
      cancel = this.set(periodMs, tick)
      ring()
    }
    let cancel = this.set(periodMs, tick)
    return () => cancel()
  }

  /** Resolves after `delayMs`. */
  sleep(delayMs: number): Promise<void> {
    return new Promise(resolve => this.set(delayMs, resolve))
  }

  #arm(): void {
    const next = this.#heap[0]
    if (next === undefined) {
      this.#alarm?.cancel()
      this.#alarm = undefined
      return
    }
    // An alarm that rings too early finds nothing due and arms again: cheaper than moving it with every cancelled timer.
    if (this.#alarm !== undefined && this.#alarm.atMs <= next.atMs) return
    this.#alarm?.cancel()
    const nowMs = this.#clock.monotonicMs()
    const delayMs = Math.min(Math.max(0, next.atMs - nowMs), ALARM_MS_MAX)
    this.#alarm = { atMs: nowMs + delayMs, cancel: this.#clock.alarm(delayMs, () => this.#ring()) }
  }

  #ring(): void {
    this.#alarm = undefined
    const nowMs = this.#clock.monotonicMs()
    // Only what was set before this turn: a timer that sets itself again with no delay must not hold the loop.
    const ordersEnd = this.#orders
    try {
      for (let next = this.#heap[0]; next !== undefined; next = this.#heap[0]) {
        if (next.atMs > nowMs || next.order >= ordersEnd) break
        this.#remove(next)
        next.ring()
      }
    } finally {
      this.#arm()
    }
  }

  #remove(timer: Timer): void {
    const place = timer.place
    if (place < 0) return
    timer.place = -1
    const last = this.#heap.pop()!
    if (last === timer) return
    this.#heap[place] = last
    last.place = place
    this.#sink(last)
    this.#rise(last)
  }

  #rise(timer: Timer): void {
    while (timer.place > 0) {
      const parent = this.#heap[(timer.place - 1) >> 1]!
      if (!ringsBefore(timer, parent)) return
      this.#swap(timer, parent)
    }
  }

  #sink(timer: Timer): void {
    for (;;) {
      const left = this.#heap[2 * timer.place + 1]
      if (left === undefined) return
      const right = this.#heap[2 * timer.place + 2]
      const child = right !== undefined && ringsBefore(right, left) ? right : left
      if (!ringsBefore(child, timer)) return
      this.#swap(child, timer)
    }
  }

  #swap(a: Timer, b: Timer): void {
    const place = a.place
    a.place = b.place
    b.place = place
    this.#heap[a.place] = a
    this.#heap[b.place] = b
  }
}

function ringsBefore(a: Timer, b: Timer): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order)
}
