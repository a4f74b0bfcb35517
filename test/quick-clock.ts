/** The machine's clock, but faster: for clusters in this process, whose tests mostly wait for beats, which members learn of each other by. */
import { realWorld } from '../runtime/real-world.ts'
import type { Clock } from '../runtime/world.ts'

/** A cluster's timeouts of seconds must still outlast a busy machine. */
const TIMES = 4

export function quickClock(): Clock {
  const { clock } = realWorld()
  const [startWallMs, startMs] = [clock.wallMs(), clock.monotonicMs()]
  const monotonicMs = () => startMs + (clock.monotonicMs() - startMs) * TIMES
  return {
    monotonicMs,
    wallMs: () => startWallMs + Math.floor(monotonicMs() - startMs),
    alarm: (delayMs, ring) => clock.alarm(delayMs / TIMES, ring),
    turn: () => clock.turn(),
  }
}
