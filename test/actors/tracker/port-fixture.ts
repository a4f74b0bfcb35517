/** What a tracker's port is given, where no started tracker is behind it. */
import type { PortContext, TrackerActor } from '../../../actors/tracker/port-context.ts'
import type { Clock } from '../../../runtime/world.ts'
import { ROUND_ROBIN } from './test-tracker.ts'

export function portContext(tracker: TrackerActor, clock: Clock): PortContext {
  return {
    tracker,
    policy: ROUND_ROBIN,
    clock,
    startedS: Math.floor(clock.wallMs() / 1000),
    advertised: () => ({ host: 'tracker-1', port: 22122 }),
    resolve: async host => host.replace('tracker-', '10.0.9.'),
  }
}
