/** Consistent hashing: a key keeps its group when other groups come and go. */
import { crc32c } from '@node-rs/crc32'

/** Points of each group on the ring: with so many, shares differ by about a tenth. */
const VIRTUAL_NODES = 128

/** Points in ascending order, each with its group. */
export interface HashRing {
  readonly points: Uint32Array
  readonly groups: readonly string[]
  readonly groupCount: number
}

/** Builds the ring of a set of groups; their order does not matter. */
export function makeRing(groups: readonly string[]): HashRing {
  const nodes = groups
    .flatMap(group => Array.from({ length: VIRTUAL_NODES }, (_, i) => ({ point: hash(`${group}#${i}`), group })))
    .sort((a, b) => a.point - b.point || (a.group < b.group ? -1 : 1))
  return {
    points: Uint32Array.from(nodes, node => node.point),
    groups: nodes.map(node => node.group),
    groupCount: new Set(groups).size,
  }
}

/** The groups for a key in the order of preference: each group once, walking the ring from the key. */
export function groupsFor(ring: HashRing, key: string): string[] {
  const at = hash(key)
  let low = 0
  let high = ring.points.length
  while (low < high) {
    const middle = (low + high) >> 1
    if (ring.points[middle]! < at) low = middle + 1
    else high = middle
  }
  const order = new Set<string>()
  for (let i = 0; order.size < ring.groupCount; i++) order.add(ring.groups[(low + i) % ring.groups.length]!)
  return [...order]
}

/** CRC32C alone leaves similar keys close together; the finalizer of MurmurHash3 spreads them. */
function hash(text: string): number {
  let h = crc32c(text)
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return (h ^ (h >>> 16)) >>> 0
}
