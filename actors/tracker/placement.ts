/** Where an upload goes: a group, then a server in it, then a store path. */
import type { ErrorCode } from '../../protocol/errors.ts'
import { STORE_PATH_ANY } from '../../protocol/storage-messages.ts'
import type { ServerAddress } from '../../protocol/tracker-messages.ts'
import { groupsFor, type HashRing } from './consistent-hash.ts'
import { addressOf, availableOn, type Groups, groupAvailableBytes, isWritable, type StorageEntry } from './view.ts'

/** How a tracker chooses; FastDFS's `store_lookup`, `store_server` and `store_path`. */
export interface PlacementPolicy {
  /** `{ named }` sends everything to one group. */
  readonly group: 'round_robin' | 'most_free' | { readonly named: string }
  readonly server: 'round_robin' | 'by_address' | 'by_priority'
  readonly path: 'round_robin' | 'most_free'
}

/** Whose turn it is, for what goes round. */
export interface Turns {
  readonly group: number
  /** Of each group on its own: turns counted together would fall into step, and some server never come first. */
  readonly inGroup: ReadonlyMap<string, number>
}

export interface Placement {
  readonly group: string
  /** The chosen one first; the others are for when it fails. */
  readonly servers: readonly ServerAddress[]
  readonly storePathIndex: number
  readonly turns: Turns
}

export interface PlacementRequest {
  readonly group?: string
  readonly key?: string
}

/** Chooses; or says why nothing can be chosen. */
export function place(
  groups: Groups,
  ring: HashRing,
  policy: PlacementPolicy,
  turns: Turns,
  request: PlacementRequest,
): Placement | { readonly code: ErrorCode } {
  const candidates = groupCandidates(groups, ring, policy, turns, request)
  if (candidates.length === 0 || candidates.some(name => !groups.has(name))) {
    return { code: groups.size === 0 ? 'no_storage' : 'unknown_group' }
  }
  const group = candidates.find(name => groups.get(name)!.some(isWritable))
  if (group === undefined) {
    const online = candidates.some(name =>
      groups.get(name)!.some(member => member.online && member.report.status === 'active'),
    )
    return { code: online ? 'no_space' : 'no_storage' }
  }
  const turn = turns.inGroup.get(group) ?? 0
  const writable = groups.get(group)!.filter(isWritable)
  const servers = orderServers(writable, policy, turn)
  // When all servers have had their turn, it is the next path's of each.
  const pathTurn = policy.server === 'round_robin' ? Math.floor(turn / writable.length) : turn
  const goesRound = request.group === undefined && request.key === undefined
  return {
    group,
    servers: servers.map(addressOf),
    storePathIndex: choosePath(servers[0]!, policy, pathTurn),
    turns: {
      group: goesRound ? turns.group + 1 : turns.group,
      inGroup: new Map(turns.inGroup).set(group, turn + 1),
    },
  }
}

function groupCandidates(
  groups: Groups,
  ring: HashRing,
  policy: PlacementPolicy,
  turns: Turns,
  request: PlacementRequest,
): readonly string[] {
  if (request.group !== undefined) return [request.group]
  if (request.key !== undefined) return groupsFor(ring, request.key)
  if (typeof policy.group === 'object') return [policy.group.named]
  const names = [...groups.keys()].sort()
  if (policy.group === 'round_robin') return rotate(names, turns.group)
  const free = new Map(names.map(name => [name, groupAvailableBytes(groups.get(name)!)]))
  return names.sort((a, b) => free.get(b)! - free.get(a)!)
}

function orderServers(
  writable: readonly StorageEntry[],
  policy: PlacementPolicy,
  turn: number,
): readonly StorageEntry[] {
  switch (policy.server) {
    case 'round_robin':
      return rotate(writable, turn)
    case 'by_address':
      return [...writable].sort((a, b) => compareText(a.report.ip, b.report.ip) || a.report.port - b.report.port)
    case 'by_priority':
      return [...writable].sort((a, b) => a.report.uploadPriority - b.report.uploadPriority)
  }
}

function choosePath(server: StorageEntry, policy: PlacementPolicy, turn: number): number {
  const paths = server.report.storePaths.filter(path => availableOn(path) > 0)
  const first = paths[0]
  if (first === undefined) return STORE_PATH_ANY
  if (policy.path === 'round_robin') return paths[turn % paths.length]!.index
  return paths.reduce((best, path) => (availableOn(path) > availableOn(best) ? path : best), first).index
}

/** The same items, beginning with the one whose turn it is. */
export function rotate<T>(items: readonly T[], turn: number): readonly T[] {
  if (items.length < 2) return items
  const first = turn % items.length
  return [...items.slice(first), ...items.slice(0, first)]
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}
