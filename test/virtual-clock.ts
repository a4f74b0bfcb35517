/** A clock for tests that moves only when told to; its alarms ring in the order of their times, each at its own time. */
import type { Cancel, Clock } from '../runtime/world.ts'

/** Where the wall clock of every test begins. */
const WALL_START_MS = 1_700_000_000_000

interface Alarm {
  readonly atMs: number
  readonly ring: () => void
}

export class VirtualClock implements Clock {
  #nowMs = 0
  /** In the order set. */
  readonly #alarms = new Set<Alarm>()

  wallMs(): number {
    return WALL_START_MS + this.#nowMs
  }

  monotonicMs(): number {
    return this.#nowMs
  }

  alarm(delayMs: number, ring: () => void): Cancel {
    const alarm = { atMs: this.#nowMs + delayMs, ring }
    this.#alarms.add(alarm)
    return () => void this.#alarms.delete(alarm)
  }

  turn(): Promise<void> {
    return new Promise(resolve => setImmediate(resolve))
  }

  /** How many alarms are set. */
  get alarmCount(): number {
    return this.#alarms.size
  }

  /** Moves on, ringing what becomes due on the way. */
  advance(ms: number): void {
    const untilMs = this.#nowMs + ms
    while (this.ringNext(untilMs));
    this.#nowMs = untilMs
  }

  /** Moves to the next alarm and rings it; false if there is none until then. */
  ringNext(untilMs = Number.POSITIVE_INFINITY): boolean {
    let next: Alarm | undefined
    for (const alarm of this.#alarms) if (next === undefined || alarm.atMs < next.atMs) next = alarm
    if (next === undefined || next.atMs > untilMs) return false
    this.#alarms.delete(next)
    this.#nowMs = Math.max(this.#nowMs, next.atMs)
    next.ring()
    return true
  }
}
