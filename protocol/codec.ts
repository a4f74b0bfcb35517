/**
 * How a map becomes bytes: msgpack between our own, JSON for people.
 *
 * The root of every message is a map, so its first byte tells the encoding: JSON starts with `{` (0x7b) or white space,
 * msgpack maps with 0x80-0x8f, 0xde or 0xdf. An empty payload means "all defaults", and its reply is JSON.
 */
import { Packr } from 'msgpackr'
import { DfsError } from './errors.ts'

export type Encoding = 'json' | 'msgpack'

export const CONTENT_TYPES = { json: 'application/json', msgpack: 'application/msgpack' } as const

// Plain maps, so that any language can read them; no record extension, and never an `undefined`: a field without a
// value is left out, as in JSON, because a nil would be refused as an optional field. Other languages send large
// integers in 64 bits: those are numbers to us, exact up to 2^53, as they are in JSON.
const PLAIN = {
  useRecords: false,
  encodeUndefinedAsNil: true,
  skipValues: [undefined],
  int64AsType: 'number',
} as const
const packr = new Packr(PLAIN)

/** Encodes a map. */
export function encode(value: object, encoding: Encoding): Uint8Array {
  return encoding === 'json' ? Buffer.from(JSON.stringify(value)) : packr.pack(value)
}

/** Decodes a map and tells how it was encoded. Throws `bad_request`. */
export function decode(payload: Uint8Array): { value: Record<string, unknown>; encoding: Encoding } {
  if (payload.length === 0) return { value: {}, encoding: 'json' }
  const encoding = isMsgpackMap(payload[0]!) ? 'msgpack' : 'json'
  let value: unknown
  try {
    value = encoding === 'msgpack' ? packr.unpack(payload) : JSON.parse(Buffer.from(payload).toString('utf8'))
  } catch (cause) {
    throw new DfsError('bad_request', `the payload is neither JSON nor msgpack`, { cause })
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new DfsError('bad_request', 'the payload must be a map')
  }
  return { value: value as Record<string, unknown>, encoding }
}

function isMsgpackMap(first: number): boolean {
  return (first >= 0x80 && first <= 0x8f) || first === 0xde || first === 0xdf
}
