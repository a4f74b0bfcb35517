/**
 * A slot of a segment: one small file behind a header. FastDFS's trunk slot.
 *
 *     0      1          5         9       13      17          24
 *     +------+----------+---------+-------+-------+-----------+---------------+-------+
 *     | type | slot size| size    | CRC32 | time  | tail      | file          | slack |
 *     +------+----------+---------+-------+-------+-----------+---------------+-------+
 *      1      4          4         4       4       7
 *
 *     type    `F` there is a file, 0 there was one
 *     tail    the last seven characters of the name; time in seconds; numbers big-endian
 *
 * Everything a name says stands in the header or follows from where the slot is, so the name is known from the slot and
 * the slot from the name. Deleting is one byte: what remains of the header still says whose slot it was.
 *
 * FastDFS's own trunk files have the same slots, of any size and anywhere; their names say which directory they are in.
 */
import { crc32 } from '@node-rs/crc32'
import { DfsError } from '../protocol/errors.ts'
import { DIRECTORIES, encodeFileName, type FileNameParts, type Slot } from '../protocol/file-id.ts'

export const SLOT_HEADER_BYTES = 24

/** As FastDFS: a segment takes no more slots past this. */
export const SEGMENT_BYTES = 64 * 1024 * 1024

/** The largest slot, an eighth of a segment, as FastDFS: what is left at a segment's end is little. */
export const SLOT_BYTES_MAX = SEGMENT_BYTES / 8

/** The largest file that has a slot. */
export const PACKED_BYTES_MAX = SLOT_BYTES_MAX - SLOT_HEADER_BYTES

/** Segments with ids below this are FastDFS's own: those of writer 0. */
const TRUNK_IDS = 2 ** 20

/** What FastDFS lets a trunk file grow to is configured; this is the most that offset and size in a name can mean. */
const TRUNK_BYTES_MAX = 2 ** 32

/** Slots begin at multiples of this, so that no header lies across two sectors. */
export const SLOT_ALIGNMENT = 64

/** Sixteen sizes between a power of two and the next: few enough for slots to be used again, and 6 % slack at most. */
const SIZES_PER_OCTAVE = 16

const FILE = 'F'.charCodeAt(0)
const FREE = 0
const TYPE_OFFSET = 0
/** What marks a slot free, and where in the slot it goes. */
export const FREE_MARK: Uint8Array = Uint8Array.of(FREE)

const TAIL = /^\d*(\.[A-Za-z0-9._-]{1,6})?$/

/** What a slot's header says. */
export interface SlotHeader {
  readonly isFree: boolean
  readonly slotBytes: number
  readonly sizeBytes: number
  readonly crc32: number
  readonly createTimeS: number
  readonly tail: string
}

/** Whether a segment is a trunk file of FastDFS's: it is read, its slots are freed, and none is taken. */
export function isTrunkFile({ segmentId }: Pick<Slot, 'segmentId'>): boolean {
  return segmentId < TRUNK_IDS
}

/** The size of the slot that a file gets. */
export function slotBytesFor(sizeBytes: number): number {
  const needed = SLOT_HEADER_BYTES + sizeBytes
  const step = Math.max(SLOT_ALIGNMENT, 2 ** (31 - Math.clz32(needed)) / SIZES_PER_OCTAVE)
  return Math.ceil(needed / step) * step
}

/** Writes the header in front of a file, and clears what is behind it: there may be another one's bytes. */
export function writeSlotHeader(slot: Uint8Array, header: Omit<SlotHeader, 'isFree'>): void {
  slot.subarray(SLOT_HEADER_BYTES + header.sizeBytes, header.slotBytes).fill(0)
  const bytes = Buffer.from(slot.buffer, slot.byteOffset, SLOT_HEADER_BYTES)
  bytes[TYPE_OFFSET] = FILE
  bytes.writeUInt32BE(header.slotBytes, 1)
  bytes.writeUInt32BE(header.sizeBytes, 5)
  bytes.writeUInt32BE(header.crc32, 9)
  bytes.writeUInt32BE(header.createTimeS, 13)
  bytes.write(header.tail, 17, 'latin1')
}

/** Reads a header; undefined if this is none, nor has been one. */
export function readSlotHeader(bytes: Buffer): SlotHeader | undefined {
  if (bytes.length < SLOT_HEADER_BYTES) return undefined
  const type = bytes[TYPE_OFFSET]
  if (type !== FILE && type !== FREE) return undefined
  const header = headerIn(bytes, type === FREE)
  const { slotBytes, sizeBytes, tail } = header
  const sound = slotBytes > 0 && slotBytes === slotBytesFor(sizeBytes) && TAIL.test(tail)
  return sound ? header : undefined
}

function headerIn(bytes: Buffer, isFree: boolean): SlotHeader {
  return {
    isFree,
    slotBytes: bytes.readUInt32BE(1),
    sizeBytes: bytes.readUInt32BE(5),
    crc32: bytes.readUInt32BE(9),
    createTimeS: bytes.readUInt32BE(13),
    tail: bytes.toString('latin1', 17, SLOT_HEADER_BYTES),
  }
}

/** The file of a slot that was read as a whole; undefined if its bytes are not what its header says. */
export function contentOf(slot: Buffer, { sizeBytes, crc32: sum }: Pick<SlotHeader, 'sizeBytes' | 'crc32'>) {
  const content = slot.subarray(SLOT_HEADER_BYTES, SLOT_HEADER_BYTES + sizeBytes)
  return content.length === sizeBytes && crc32(content) === sum ? content : undefined
}

/**
 * Reads what is in the place of a file's slot. In a trunk file that is a header whatever it is: FastDFS cuts and joins slots,
 * so there may be the middle of a file.
 */
export function readHeaderOf(bytes: Buffer, { slot }: Pick<FileNameParts, 'slot'>): SlotHeader | undefined {
  if (slot === undefined || !isTrunkFile(slot)) return readSlotHeader(bytes)
  if (bytes.length < SLOT_HEADER_BYTES || bytes.subarray(0, SLOT_HEADER_BYTES).every(byte => byte === 0))
    return undefined
  const type = bytes[TYPE_OFFSET]
  const header = headerIn(bytes, type === FREE)
  // One that is neither differs in this from any that is.
  return type === FILE || type === FREE ? header : { ...header, tail: '' }
}

/** Whether a slot that was read as a whole holds the file of a name: there, deleted, or neither. */
export function stateOf(slot: Buffer, file: FileNameParts): 'present' | 'deleted' | 'corrupt' {
  const header = readHeaderOf(slot, file)
  if (header === undefined) return 'corrupt'
  if (!isHeaderOf(header, file)) return isOfAnother(header, file) ? 'deleted' : 'corrupt'
  if (header.isFree) return 'deleted'
  return contentOf(slot, header) === undefined ? 'corrupt' : 'present'
}

/** What is thrown where a slot should hold a file and does not. */
export function corruptSlot(name: string): DfsError {
  return new DfsError('corrupt', `the slot of ${name} fails its checksum`)
}

/** The name of the file in a slot. */
export function nameOfSlot(
  at: { storePathIndex: number; storageId: number; segmentId: number; offsetBytes: number },
  { slotBytes, sizeBytes, crc32: sum, createTimeS, tail }: Omit<SlotHeader, 'isFree'>,
): string {
  const { storePathIndex, storageId, segmentId, offsetBytes } = at
  const slot: Slot = { segmentId, offsetBytes, slotBytes }
  const directoryIndex = segmentId % (DIRECTORIES * DIRECTORIES)
  return encodeFileName({ storePathIndex, directoryIndex, storageId, createTimeS, sizeBytes, crc32: sum, slot, tail })
}

/** Whether a header is that of a name: in a slot of its own it is the same file, there or deleted. */
export function isHeaderOf(
  header: SlotHeader,
  { slot, sizeBytes, crc32: sum, createTimeS, tail }: FileNameParts,
): boolean {
  return (
    slot !== undefined &&
    header.slotBytes === slot.slotBytes &&
    header.sizeBytes === sizeBytes &&
    header.crc32 === sum &&
    header.createTimeS === createTimeS &&
    header.tail === tail
  )
}

/**
 * Whether a header is that of a file that came into the slot after the one of a name, which was deleted before: a slot is
 * given again only in a later second.
 */
export function isOfLaterFile(header: SlotHeader, file: FileNameParts): boolean {
  const isLater = header.createTimeS > file.createTimeS && header.slotBytes === file.slot?.slotBytes
  return isLater && (header.isFree || !isDamagedHeaderOf(header, file))
}

/** Whether what is in the slot of a name proves that its file is gone. FastDFS puts any other slots over it. */
function isOfAnother(header: SlotHeader, file: FileNameParts): boolean {
  if (isTrunkFile(file.slot!)) return !isDamagedHeaderOf(header, file)
  return isOfLaterFile(header, file)
}

/**
 * Whether a header that is not that of a name was, before a bit of it was flipped: one field differs. That of another file
 * in the same place differs in more; or, if it is the same file again, in its time alone, and mostly in more bits than one.
 */
export function isDamagedHeaderOf(header: SlotHeader, file: FileNameParts): boolean {
  const pairs = [
    [header.slotBytes, file.slot?.slotBytes],
    [header.sizeBytes, file.sizeBytes],
    [header.crc32, file.crc32],
    [header.createTimeS, file.createTimeS],
    [header.tail, file.tail],
  ]
  if (pairs.filter(([there, named]) => there !== named).length !== 1) return false
  const flipped = header.createTimeS ^ file.createTimeS
  return header.createTimeS <= file.createTimeS || (flipped & (flipped - 1)) === 0
}

/** Whether a name can be that of a slot: inside a segment, at a place where slots begin, and spelled in the one way we do. */
export function isSlotName(name: string, file: FileNameParts): boolean {
  const { slot, storageId, storePathIndex, sizeBytes = 0, crc32: sum, createTimeS, tail } = file
  if (slot === undefined) return false
  const { segmentId, offsetBytes, slotBytes } = slot
  if (isTrunkFile(slot)) {
    const isRoom = slotBytes >= SLOT_HEADER_BYTES + sizeBytes && slotBytes <= SLOT_BYTES_MAX
    return isRoom && offsetBytes + slotBytes <= TRUNK_BYTES_MAX
  }
  if (storageId === undefined) return false
  if (offsetBytes % SLOT_ALIGNMENT !== 0 || offsetBytes + slotBytes > SEGMENT_BYTES) return false
  if (slotBytes > SLOT_BYTES_MAX || slotBytes !== slotBytesFor(sizeBytes)) return false
  const at = { storePathIndex, storageId, segmentId, offsetBytes }
  return name === nameOfSlot(at, { slotBytes, sizeBytes, crc32: sum, createTimeS, tail })
}
