/** What the answers of the tracker's port share. */
import { IPV4_BYTES, IPV6_BYTES } from '../../protocol/data-bodies.ts'
import type { Actor } from '../../runtime/actor.ts'
import type { FrameReply } from '../../runtime/frame-server.ts'
import type { Clock, Endpoint } from '../../runtime/world.ts'
import type { PlacementPolicy } from './placement.ts'
import type { TrackerEffect, TrackerMessage, TrackerState } from './tracker.ts'
import { hasIpv6 } from './view.ts'

export type TrackerActor = Actor<TrackerState, TrackerMessage, TrackerEffect>

export interface PortContext {
  readonly tracker: TrackerActor
  readonly policy: PlacementPolicy
  readonly clock: Clock
  /** Seconds since 1970. */
  readonly startedS: number
  /** Where clients find this tracker. */
  readonly advertised: () => Endpoint
  /** The address that a name stands for now. */
  readonly resolve: (host: string) => Promise<string>
}

/** Success, with a body in parts. */
export function reply(...parts: readonly Uint8Array[]): FrameReply {
  return { status: 0, parts }
}

/** How long addresses are in replies: FastDFS has one width for the whole cluster, and clients go by it. */
export function widthOf({ tracker }: PortContext): number {
  const { state } = tracker
  return state !== undefined && hasIpv6(state.groups) ? IPV6_BYTES : IPV4_BYTES
}
