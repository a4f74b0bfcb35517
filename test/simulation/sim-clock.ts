/** The clocks of a simulated machine: they drift, and its wall clock can be set. */
import type { Clock } from '../../runtime/world.ts'
import type { EventLoop } from './event-loop.ts'
import type { Life } from './life.ts'

/** No alarm rings sooner: what rounding leaves of a delay must not keep the time from going on. */
const ALARM_MS_MIN = 0.001

/** Where the wall clock of every simulation begins. */
const WALL_START_MS = 1_700_000_000_000

export class SimClock {
  readonly #loop: EventLoop
  /** How fast it runs: 1.01 gains a hundredth. */
  readonly #rate: number
  #wallOffsetMs: number

  constructor(loop: EventLoop, rate: number, wallOffsetMs: number) {
    this.#loop = loop
    this.#rate = rate
    this.#wallOffsetMs = wallOffsetMs
  }

  /** Sets the wall clock forward, or back. */
  jump(ms: number): void {
    this.#wallOffsetMs += ms
  }

  /** The clock as one process sees it. */
  as(life: Life): Clock {
    const loop = this.#loop
    const rate = this.#rate
    const bornMs = loop.nowMs
    return {
      wallMs: () => Math.floor(WALL_START_MS + this.#wallOffsetMs + loop.nowMs * rate),
      monotonicMs: () => (loop.nowMs - bornMs) * rate,
      alarm: (delayMs, ring) => loop.after(Math.max(ALARM_MS_MIN, delayMs / rate), life, 'alarm', ring),
      turn: () => new Promise(resolve => void loop.after(0, life, 'turn', resolve)),
    }
  }
}
