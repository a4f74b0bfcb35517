/** What becomes of a valid request: bits, lengths, names, ends. Everything comes from the random stream that is given. */
import { HEADER_BYTES } from '../../protocol/frame.ts'
import type { SeededRandom } from '../simulation/seeded-random.ts'

/** Stands in every name that climbs, so that a file it made would be found. */
export const MARKER = 'fuzzed'

type Mutation = (request: Buffer, random: SeededRandom, other: () => Buffer) => Buffer

/** Lengths and sizes that no honest client sends; 2^31, 2^32, 2^40, 2^44 and 2^53 are limits of somebody's. */
const EXTREMES: readonly bigint[] = [
  ...[0n, 1n, -1n, -(2n ** 63n), 2n ** 63n - 1n],
  ...[31n, 32n, 40n, 44n, 53n].flatMap(power => [2n ** power - 1n, 2n ** power, 2n ** power + 1n]),
]

/** Where the commands have their 8-byte numbers. */
const NUMBERS_AT = [0, HEADER_BYTES, HEADER_BYTES + 1, HEADER_BYTES + 8, HEADER_BYTES + 16]

const FILE_NAME = /M[0-9A-F]{2}\/[0-9A-F]{2}\/[0-9A-F]{2}\/[\w.-]{34,}/

/** Names that lead elsewhere, or nowhere. */
const NAMES: readonly ((name: string) => string)[] = [
  () => `M00/00/00/../../../../../../${MARKER}`,
  () => `../../../../../../tmp/${MARKER}`,
  () => `/tmp/${MARKER}`,
  name => `${name.slice(0, 10)}../../${MARKER}${name.slice(10)}`,
  name => name.replace(/\.\w+$/, `/../../${MARKER}`),
  name => name.replace('/', '/./'),
  name => `${name}\0${MARKER}`,
  name => `\0${name.slice(1)}`,
  name => `${name}-m`,
  name => `${name}~sum`,
  name => name.padEnd(127, 'a'),
  name => name.padEnd(128, 'a'),
  name => name.padEnd(5_000, 'a'),
  name => name.replace('M00', 'M01'),
  name => name.replace('M00', 'MFF'),
  name => name.slice(0, 9),
  name => name.slice(0, 43),
  name => name.toLowerCase(),
  () => '',
]

const MUTATIONS: readonly Mutation[] = [
  flipBits,
  flipBits,
  (request, random) => {
    const flipped = Buffer.from(request)
    for (let i = random.below(20); i >= 0; i--) flipped[random.below(flipped.length)] = random.below(256)
    return flipped
  },
  setNumber,
  setNumber,
  nudgeNumber,
  nudgeNumber,
  rename,
  rename,
  renameGroup,
  (request, random) => withByte(request, 8, random.below(256)),
  (request, random) => withByte(request, 9, random.below(256)),
  (request, random) => request.subarray(0, random.below(request.length)),
  (request, random) => withLength(request.subarray(0, HEADER_BYTES + random.below(request.length))),
  (request, random) => Buffer.concat([request, random.bytes(1 + random.below(50))]),
  (request, random) => withLength(Buffer.concat([request, random.bytes(1 + random.below(5_000))])),
  (request, random, other) => {
    const tail = other()
    return Buffer.concat([request.subarray(0, random.below(request.length)), tail.subarray(random.below(tail.length))])
  },
  (request, random) => random.bytes(1 + random.below(2 * request.length)),
]

/** Makes something else of a request, by one mutation or several. */
export function mutate(request: Buffer, random: SeededRandom, other: () => Buffer): Buffer {
  let mutated = request
  do {
    if (mutated.length === 0) return mutated
    mutated = random.pick(MUTATIONS)(mutated, random, other)
  } while (random.chance(0.25))
  return mutated
}

/** Mostly in the fields that mean something. */
function flipBits(request: Buffer, random: SeededRandom): Buffer {
  const flipped = Buffer.from(request)
  const within = random.chance(0.7) ? Math.min(60, flipped.length) : flipped.length
  for (let i = random.below(4); i >= 0; i--) flipped[random.below(within)]! ^= 1 << random.below(8)
  return flipped
}

function setNumber(request: Buffer, random: SeededRandom): Buffer {
  return withNumber(request, random, () => random.pick(EXTREMES))
}

function nudgeNumber(request: Buffer, random: SeededRandom): Buffer {
  const by = BigInt(random.pick([-2, -1, 1, 2, 16, 100]))
  return withNumber(request, random, number => BigInt.asIntN(64, number + by))
}

function withNumber(request: Buffer, random: SeededRandom, change: (number: bigint) => bigint): Buffer {
  const changed = Buffer.from(request)
  const at = random.pick(NUMBERS_AT)
  if (at + 8 <= changed.length) changed.writeBigInt64BE(change(changed.readBigInt64BE(at)), at)
  return changed
}

/** Another name in place of the one in a request; the lengths follow it, or not. */
function rename(request: Buffer, random: SeededRandom): Buffer {
  const text = request.toString('latin1')
  const name = FILE_NAME.exec(text)?.[0]
  if (name === undefined) return flipBits(request, random)
  const other = random.pick(NAMES)(name)
  const renamed = Buffer.from(
    text.replace(name, () => other),
    'latin1',
  )
  if (random.chance(0.2)) return renamed
  // The commands that say how long a name is say it first.
  const saysLength = request.length >= HEADER_BYTES + 8 && request.readBigInt64BE(HEADER_BYTES) === BigInt(name.length)
  if (saysLength) renamed.writeBigInt64BE(BigInt(other.length), HEADER_BYTES)
  return withLength(renamed)
}

function renameGroup(request: Buffer, random: SeededRandom): Buffer {
  const group = random.pick(['group2', '', '../grp', 'GROUP1', 'g'.repeat(16), '\0roup1', 'gro\0p1'])
  const text = request.toString('latin1')
  const field = 'group1'.padEnd(16, '\0')
  return Buffer.from(
    text.replace(field, () => group.padEnd(16, '\0')),
    'latin1',
  )
}

function withByte(request: Buffer, at: number, byte: number): Buffer {
  const changed = Buffer.from(request)
  if (at < changed.length) changed[at] = byte
  return changed
}

/** A request that announces as many bytes as it has. */
function withLength(request: Buffer): Buffer {
  const whole = Buffer.from(request)
  if (whole.length >= HEADER_BYTES) whole.writeBigInt64BE(BigInt(whole.length - HEADER_BYTES), 0)
  return whole
}
