/**
 * Bodies of the private command that lists files, and the order in which all members of a group list them.
 *
 *     listFiles 208   group 16, since 4 (seconds), then three fields: place, prefix of names, ids of the members asked
 *             reply   place (empty behind the last file), then for each file: name, and
 *                     size 8 (-1 if nobody knows), flags 1 (1: the CRC32 is known), CRC32 4
 *
 * A field, and a name, is its length 1 and so many bytes; ids have 4 bytes each. No id at all: those asked are not all.
 *
 * First come the slots, as they lie in segments, then files of their own, by directory and name. Both are the same on all
 * members, so a place in this order means the same to all of them:
 *
 *     slots/<store path>/<source>/<segment id>/<offset>     what lies in front of the offset has been listed
 *     plain/<store path>/<directory>/<name>                 the same up to this name
 */
import { DfsError } from './errors.ts'
import { decodeFileName, FILE_NAME_BYTES_MAX, GROUP_NAME_BYTES } from './file-id.ts'
import { readInt64, readString, writeInt64, writeString } from './frame.ts'
import { GROUP_MEMBERS_MAX } from './storage-messages.ts'

const FIXED_BYTES = GROUP_NAME_BYTES + 4
/** A name behind a phase and two numbers, or five numbers. */
const PLACE_BYTES_MAX = FILE_NAME_BYTES_MAX + 16
export const LIST_BYTES_MAX = FIXED_BYTES + 3 + PLACE_BYTES_MAX + FILE_NAME_BYTES_MAX + 4 * GROUP_MEMBERS_MAX

/** How many files a reply has at most: with the longest names that is 36 KiB. */
export const LIST_FILES_MAX = 256

const CRC_KNOWN = 1

/** In front of which everything has been listed. */
export type ListPlace =
  | {
      readonly phase: 'slots'
      readonly storePathIndex: number
      readonly storageId: number
      readonly segmentId: number
      readonly offsetBytes: number
    }
  | {
      readonly phase: 'plain'
      readonly storePathIndex: number
      readonly directoryIndex: number
      /** Empty at the beginning of a directory. */
      readonly after: string
    }

export const LIST_START: ListPlace = { phase: 'slots', storePathIndex: 0, storageId: 0, segmentId: 0, offsetBytes: 0 }

/** A file as a member knows it. */
export interface ListedName {
  readonly name: string
  /** Undefined of an appender or slave file that cannot be read. */
  readonly sizeBytes: number | undefined
  /** Undefined of files that change, too. */
  readonly crc32: number | undefined
}

export interface ListFields {
  readonly group: string
  /** Files that were made earlier are left out; 0 for none. */
  readonly sinceS: number
  readonly place: ListPlace
  /** The beginning of the names wanted. */
  readonly prefix: string
  readonly members: readonly number[]
}

/** Some files, in order, and the place behind what was looked at; undefined behind the last file. */
export interface ListPage {
  readonly place: ListPlace | undefined
  readonly files: readonly ListedName[]
}

export function writeList({ group, sinceS, place, prefix, members }: ListFields): Buffer {
  const fixed = Buffer.alloc(FIXED_BYTES)
  writeString(fixed, group, 0, GROUP_NAME_BYTES)
  fixed.writeUInt32BE(sinceS, GROUP_NAME_BYTES)
  const ids = Buffer.alloc(4 * members.length)
  for (const [i, id] of members.entries()) ids.writeUInt32BE(id, 4 * i)
  return Buffer.concat([fixed, ...[latin1(formatPlace(place)), latin1(prefix), ids].flatMap(field)])
}

/** Throws `bad_request`. */
export function readList(buffer: Buffer): ListFields {
  if (buffer.length < FIXED_BYTES + 3) throw cut()
  const [place, next] = readField(buffer, FIXED_BYTES)
  const [prefix, idsAt] = readField(buffer, next)
  const [ids, end] = readField(buffer, idsAt)
  if (end !== buffer.length || ids.length % 4 !== 0) throw cut()
  return {
    group: readString(buffer, 0, GROUP_NAME_BYTES),
    sinceS: buffer.readUInt32BE(GROUP_NAME_BYTES),
    place: parsePlace(place.toString('latin1')),
    prefix: prefix.toString('latin1'),
    members: Array.from({ length: ids.length / 4 }, (_, i) => ids.readUInt32BE(4 * i)),
  }
}

export function writeListPage({ place, files }: ListPage): Buffer {
  const parts = field(latin1(place === undefined ? '' : formatPlace(place)))
  for (const { name, sizeBytes, crc32 } of files) {
    const facts = Buffer.alloc(13)
    if (sizeBytes === undefined) facts.fill(0xff, 0, 8)
    else writeInt64(facts, sizeBytes, 0)
    facts[8] = crc32 === undefined ? 0 : CRC_KNOWN
    facts.writeUInt32BE(crc32 ?? 0, 9)
    parts.push(...field(latin1(name)), facts)
  }
  return Buffer.concat(parts)
}

export function readListPage(buffer: Buffer): ListPage {
  const [place, first] = readField(buffer, 0)
  const files: ListedName[] = []
  for (let at = first; at < buffer.length; ) {
    const [name, factsAt] = readField(buffer, at)
    at = factsAt + 13
    if (at > buffer.length) throw cut()
    const sizeBytes = readInt64(buffer, factsAt)
    const isKnown = buffer[factsAt + 8] === CRC_KNOWN
    files.push({
      name: name.toString('latin1'),
      sizeBytes: sizeBytes < 0 ? undefined : sizeBytes,
      crc32: isKnown ? buffer.readUInt32BE(factsAt + 9) : undefined,
    })
  }
  return { place: place.length === 0 ? undefined : parsePlace(place.toString('latin1')), files }
}

/** The place behind a file. */
export function placeBehind(name: string): ListPlace {
  const { slot, storageId, storePathIndex, directoryIndex } = decodeFileName(name)
  if (slot === undefined || storageId === undefined)
    return { phase: 'plain', storePathIndex, directoryIndex, after: name }
  const offsetBytes = slot.offsetBytes + slot.slotBytes
  return { phase: 'slots', storePathIndex, storageId, segmentId: slot.segmentId, offsetBytes }
}

/** Negative if `a` comes before `b`. */
export function comparePlaces(a: ListPlace, b: ListPlace): number {
  if (a.phase === 'slots' && b.phase === 'slots') {
    return (
      a.storePathIndex - b.storePathIndex ||
      a.storageId - b.storageId ||
      a.segmentId - b.segmentId ||
      a.offsetBytes - b.offsetBytes
    )
  }
  if (a.phase !== 'plain' || b.phase !== 'plain') return a.phase === 'slots' ? -1 : 1
  return (
    a.storePathIndex - b.storePathIndex ||
    a.directoryIndex - b.directoryIndex ||
    (a.after < b.after ? -1 : a.after > b.after ? 1 : 0)
  )
}

export function formatPlace(place: ListPlace): string {
  if (place.phase === 'plain') return `plain/${place.storePathIndex}/${place.directoryIndex}/${place.after}`
  const { storePathIndex, storageId, segmentId, offsetBytes } = place
  return `slots/${storePathIndex}/${storageId}/${segmentId}/${offsetBytes}`
}

/** Throws `bad_request`. */
export function parsePlace(text: string): ListPlace {
  const slots = /^slots\/(\d{1,3})\/(\d{1,8})\/(\d{1,10})\/(\d{1,8})$/.exec(text)
  if (slots !== null) {
    const [storePathIndex, storageId, segmentId, offsetBytes] = slots.slice(1).map(Number) as [
      number,
      number,
      number,
      number,
    ]
    return { phase: 'slots', storePathIndex, storageId, segmentId, offsetBytes }
  }
  const plain = /^plain\/(\d{1,3})\/(\d{1,5})\/(.*)$/.exec(text)
  if (plain === null) throw new DfsError('bad_request', 'this is no place in a listing')
  return { phase: 'plain', storePathIndex: Number(plain[1]), directoryIndex: Number(plain[2]), after: plain[3]! }
}

function latin1(text: string): Buffer {
  return Buffer.from(text, 'latin1')
}

function field(bytes: Buffer): Buffer[] {
  return [Buffer.of(bytes.length), bytes]
}

function readField(buffer: Buffer, at: number): [bytes: Buffer, next: number] {
  const next = at + 1 + (buffer[at] ?? 0)
  if (at >= buffer.length || next > buffer.length) throw cut()
  return [buffer.subarray(at + 1, next), next]
}

function cut(): DfsError {
  return new DfsError('bad_request', 'the lengths of a listing are not those of the body')
}
