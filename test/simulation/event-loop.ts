/**
 * Virtual time: events in the order of their times, one at a time, and after each of them every promise it settled.
 *
 *     after(delay, life, name, run) ──▶ heap ──▶ now := its time ──▶ is its life over? drop it ──▶ run ──▶ microtasks ──▶ next
 *
 * Everything that happens in a simulation is an event here, and each one goes into the hash: two runs of a seed are
 * alike if and only if their hashes are.
 */
import type { Cancel } from '../../runtime/world.ts'
import type { Life } from './life.ts'
import { hashText } from './seeded-random.ts'

/** So many events at one moment mean that somebody goes round without time passing. */
const EVENTS_AT_ONCE_MAX = 200_000

/** Enough to see how a failure came about. */
const TRACE_LINES_MAX = 4_000

interface SimEvent {
  readonly atMs: number
  readonly order: number
  readonly life: Life | undefined
  readonly name: string
  run: (() => void) | undefined
}

export class EventLoop {
  readonly #heap: SimEvent[] = []
  readonly #trace: string[] = []
  #nowMs = 0
  #orders = 0
  #hash = 0x811c9dc5
  #count = 0
  #stopped = false
  #atOnce = 0

  /** Since the beginning of the simulation. */
  get nowMs(): number {
    return this.#nowMs
  }

  /** How many events have run. */
  get count(): number {
    return this.#count
  }

  /** Of everything that has happened so far. */
  get hash(): string {
    return this.#hash.toString(16).padStart(8, '0')
  }

  /** What was noted last, oldest first. */
  get trace(): readonly string[] {
    return this.#trace
  }

  /** Calls `run` after a while, unless it is cancelled or `life` has ended by then. */
  after(delayMs: number, life: Life | undefined, name: string, run: () => void): Cancel {
    const event: SimEvent = { atMs: this.#nowMs + Math.max(0, delayMs), order: this.#orders++, life, name, run }
    this.#push(event)
    return () => {
      event.run = undefined
    }
  }

  /** Resolves after a while; never, if `life` ends before. */
  sleep(delayMs: number, life: Life | undefined, name: string): Promise<void> {
    return new Promise(resolve => this.after(delayMs, life, name, resolve))
  }

  /** Notes for people what happened, and for the hash. */
  note(who: string, what: string): void {
    this.#hash = hashText(what, hashText(who, this.#hash))
    this.#trace.push(`${(this.#nowMs / 1000).toFixed(4).padStart(9)} ${who.padEnd(12)} ${what}`)
    if (this.#trace.length > 2 * TRACE_LINES_MAX) this.#trace.splice(0, TRACE_LINES_MAX)
  }

  /** Ends `run` after the event under way. */
  stop(): void {
    this.#stopped = true
  }

  /** Runs events up to a moment, or until nothing is left to happen, or until `stop`. */
  async run(untilMs: number): Promise<void> {
    this.#stopped = false
    while (!this.#stopped) {
      const event = this.#heap[0]
      if (event === undefined || event.atMs > untilMs) break
      this.#pop()
      const { run, life } = event
      if (run === undefined || life?.ended) continue
      this.#atOnce = event.atMs > this.#nowMs ? 0 : this.#atOnce + 1
      if (this.#atOnce > EVENTS_AT_ONCE_MAX) throw new Error(`time stands still at ${this.#nowMs} ms, at ${event.name}`)
      this.#nowMs = event.atMs
      this.#count++
      // The order says which event, the name what it is: together with the time they are the event.
      this.#hash = hashText(event.name, Math.imul(this.#hash ^ event.order, 0x01000193) ^ Math.round(event.atMs * 1000))
      run()
      // A macrotask: all promises are settled by then, and a rejection nobody handles has been told to the process.
      await new Promise<void>(setImmediate)
    }
    if (!this.#stopped) this.#nowMs = Math.max(this.#nowMs, Math.min(untilMs, this.#heap[0]?.atMs ?? untilMs))
  }

  #push(event: SimEvent): void {
    const heap = this.#heap
    let place = heap.length
    heap.push(event)
    while (place > 0) {
      const parent = (place - 1) >> 1
      if (!before(event, heap[parent]!)) break
      heap[place] = heap[parent]!
      place = parent
    }
    heap[place] = event
  }

  #pop(): void {
    const heap = this.#heap
    const last = heap.pop()!
    if (heap.length === 0) return
    let place = 0
    for (;;) {
      let child = 2 * place + 1
      if (child >= heap.length) break
      if (child + 1 < heap.length && before(heap[child + 1]!, heap[child]!)) child++
      if (!before(heap[child]!, last)) break
      heap[place] = heap[child]!
      place = child
    }
    heap[place] = last
  }
}

function before(a: SimEvent, b: SimEvent): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order)
}
