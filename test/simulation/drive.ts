/** Lets virtual time pass by itself, for tests that were written for real time. */
import type { Cancel } from '../../runtime/world.ts'
import type { EventLoop } from './event-loop.ts'

/** Runs the events of a loop, as fast as they come, until it is cancelled. */
export function drive(loop: EventLoop): Cancel {
  let running = true
  void (async () => {
    while (running) {
      await loop.run(loop.nowMs + 1)
      // Even an empty loop must let others have their turn.
      await new Promise<void>(setImmediate)
    }
  })()
  return () => {
    running = false
  }
}
