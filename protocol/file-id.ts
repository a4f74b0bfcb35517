/**
 * The file id: it says where the file is, when it came, how large it is and what its bytes sum up to. FastDFS's layout.
 *
 *     group1/M00/0A/3F/AQAAAGkf3nGAAAAqAAAQABcT3q4123.jpg
 *     |group| |  |  |  |<---- 27 characters ---->|<- 7 ->|      everything after `group1/` is the file name
 *             |  |  |  base64 of 20 bytes         pad digits + extension
 *             |  directories, two hex digits each
 *             store path index, two hex digits
 *
 *     byte  0-3   source: storage id, little-endian, 1 .. 2^24-1; anything else is an IPv4 address in dotted order
 *           4-7   create time, seconds since 1970                                     (big-endian from here on)
 *           8-15  size field: bit 63 set: size in the low 32 bits, salt in bits 54-32
 *                             bit 63 clear: the size itself, for 4 GiB and more
 *                             bit 58: appender file (the size is not in the id)
 *                             bit 59: lies in a segment (size in the low 32 bits)
 *          16-19  CRC32 of the content
 *
 * A file in a segment has 16 more characters (12 bytes: segment id, offset, slot size) before the last 7. A slave
 * file's name is its master's without extension, then a prefix, then its own extension.
 * Base64 in the order A-Z a-z 0-9 - _ (RFC 4648's URL alphabet), never padded. Source: FastDFS 6.16, golden bytes.
 */
import { DfsError } from './errors.ts'

/** FastDFS gives a group's name 16 bytes in every frame. */
export const GROUP_NAME_BYTES = 16
/** Storage ids are 24 bit, so that the four bytes of an id can be told from an IPv4 address. */
export const STORAGE_ID_MAX = 2 ** 24 - 1
/** FastDFS's limit for a name in a request. */
export const FILE_NAME_BYTES_MAX = 127
/** 256 x 256 directories below each store path. */
export const DIRECTORIES = 256

const GROUP = /^[A-Za-z0-9]{1,16}$/
const PREFIX = /^(?!.*\.\.)[A-Za-z0-9._-]{1,16}$/
const EXTENSION = /^(?!\.|.*\.\.)[A-Za-z0-9._-]{0,6}$/
/** 27 characters hold two bits more than 20 bytes: the last one is spelled with both of them clear, or it is no name. */
const NAME =
  /^(?!.*\.\.)M([0-9A-F]{2})\/([0-9A-F]{2})\/([0-9A-F]{2})\/([A-Za-z0-9_-]{26}[AEIMQUYcgkosw048])([A-Za-z0-9_-]{16})?([A-Za-z0-9._-]+)$/

// Bits of the size field's upper half.
const SIZE_IN_LOW_BITS = 2 ** 31
const APPENDER = 1 << 26
const SEGMENT = 1 << 27
/** How many bits of a salt a name keeps. */
export const SALT_BITS = 23
const SALT_MASK = 2 ** SALT_BITS - 1
/** Padding and extension. */
const TAIL_LENGTH = 7
const METADATA_SUFFIX = '-m'
/** From here on the size field holds nothing but the size. */
export const SIZE_WITHOUT_SALT_MIN = 2 ** 32

/** Both digits of each byte: every name has three. */
const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).toUpperCase().padStart(2, '0'))

/** What base64 is read into and written from: nothing here waits in between, and a name costs no buffer. */
const NAME_BYTES = 20
const scratch = Buffer.alloc(NAME_BYTES)
const slotScratch = Buffer.alloc(12)

/** A group and a name in it. */
export interface FileId {
  readonly group: string
  readonly name: string
}

/** Where a small file lies: in a slot of one of its source's segments. */
export interface Slot {
  readonly segmentId: number
  readonly offsetBytes: number
  /** Header and slack included. */
  readonly slotBytes: number
}

/** What a file name says. */
export interface FileNameParts {
  readonly storePathIndex: number
  /** `0A/3F`, as on disk below the store path's data directory. */
  readonly directory: string
  /** The same as a number, 0 .. 65535. */
  readonly directoryIndex: number
  /** The last part, as on disk. */
  readonly baseName: string
  /** The source's storage id, or undefined if the name carries an address. */
  readonly storageId: number | undefined
  /** The source's IPv4 address, if the name carries one. */
  readonly address: string | undefined
  readonly createTimeS: number
  readonly kind: 'plain' | 'appender' | 'segment' | 'slave'
  /** Undefined where the name does not say it: appender and slave files. */
  readonly sizeBytes: number | undefined
  /** Of the whole content; meaningless for appender and slave files. */
  readonly crc32: number
  /** 23 bits; undefined where the size field has no room for it. */
  readonly salt: number | undefined
  /** Undefined but for a file in a segment. */
  readonly slot: Slot | undefined
  /** The last seven characters: padding and extension. */
  readonly tail: string
}

/** What a new file's name is made of. */
export interface NewFileName {
  readonly storePathIndex: number
  /** 0 .. 65535: 256 directories of 256. */
  readonly directoryIndex: number
  readonly storageId: number
  readonly createTimeS: number
  readonly sizeBytes: number
  readonly crc32: number
  /** Tells files of one second, size and content apart; 23 bits are used. Files in segments have none. */
  readonly salt?: number
  /** Of an appender file the name does not say the size. */
  readonly isAppender?: boolean
  readonly slot?: Slot
  /** From `tailOf`. */
  readonly tail: string
}

/**
 * The name of a slave file: that of its master without the extension, then the prefix, then an extension of its own. Throws
 * `bad_request`.
 */
export function slaveNameOf(masterName: string, prefix: string, extension: string): string {
  if (!PREFIX.test(prefix)) throw new DfsError('bad_request', 'a prefix is 1 to 16 of A-Z a-z 0-9 . _ -')
  if (!isExtension(extension)) throw new DfsError('bad_request', 'an extension is up to 6 of A-Z a-z 0-9 . _ -')
  // As FastDFS does: an extension is what follows the first dot of the last seven characters.
  const dot = masterName.indexOf('.', masterName.length - TAIL_LENGTH)
  const name = `${dot < 0 ? masterName : masterName.slice(0, dot)}${prefix}${extension && `.${extension}`}`
  if (name.length > FILE_NAME_BYTES_MAX || isMetadataName(name) || decodeFileName(name).kind !== 'slave')
    throw new DfsError('bad_request', 'this cannot be the name of a slave file')
  return name
}

/** Whether a name would be that of metadata, which lies beside its file under the same name and `-m`. */
export function isMetadataName(name: string): boolean {
  return name.endsWith(METADATA_SUFFIX)
}

/** What the metadata of a file is called. */
export function metadataNameOf(name: string): string {
  return `${name}${METADATA_SUFFIX}`
}

/** The name of the file whose metadata has this name; undefined if it is no name of metadata. */
export function fileOfMetadata(name: string): string | undefined {
  return isMetadataName(name) ? name.slice(0, -METADATA_SUFFIX.length) : undefined
}

/** Splits a file id. Throws `bad_file_id`. */
export function parseFileId(text: string): FileId {
  const slash = text.indexOf('/')
  const group = text.slice(0, slash)
  const name = text.slice(slash + 1)
  if (slash < 0 || !isGroupName(group)) throw new DfsError('bad_file_id', 'a file id starts with a group and a slash')
  decodeFileName(name)
  return { group, name }
}

/** Joins what `parseFileId` split. */
export function formatFileId(id: FileId): string {
  return `${id.group}/${id.name}`
}

/** Whether a text may name a group: letters and digits, 1 to 16. */
export function isGroupName(text: string): boolean {
  return GROUP.test(text)
}

/** The extension a file keeps: FastDFS allows six characters; anything longer or stranger is dropped, not refused. */
export function extensionOf(path: string): string {
  const dot = path.lastIndexOf('.')
  const extension = dot < 0 ? '' : path.slice(dot + 1)
  return isExtension(extension) ? extension : ''
}

/** Whether an extension can be kept: at most six characters, `tar.gz` included, and nothing a path could climb with. */
export function isExtension(text: string): boolean {
  return EXTENSION.test(text)
}

/** Whether what is under a name may change, or come again: all others mean one thing for ever. */
export function mayChange({ kind }: Pick<FileNameParts, 'kind'>): boolean {
  return kind === 'slave' || kind === 'appender'
}

/** Reads what a file name says. Throws `bad_file_id`; what it lets through holds no `..` and stays below a store path. */
export function decodeFileName(name: string): FileNameParts {
  const match = name.length <= FILE_NAME_BYTES_MAX ? NAME.exec(name) : null
  if (match === null) throw new DfsError('bad_file_id', 'this is not the name of a file')
  const [, path = '', high = '', low = '', encoded = '', extent = '', rest = ''] = match
  const bytes = scratch
  bytes.write(encoded, 'base64url')
  const field = bytes.readUInt32BE(8)
  const inSegment = (field & SEGMENT) !== 0
  const tail = inSegment ? rest : extent + rest
  const kind =
    tail.length > TAIL_LENGTH ? 'slave' : inSegment ? 'segment' : (field & APPENDER) !== 0 ? 'appender' : 'plain'
  if (tail.length < TAIL_LENGTH || (inSegment && extent === '')) {
    throw new DfsError('bad_file_id', 'this is not the name of a file')
  }
  const source = bytes.readUInt32LE(0)
  const isId = source >= 1 && source <= STORAGE_ID_MAX
  const lowBytes = bytes.readUInt32BE(12)
  const isSizeInLowBits = inSegment || (field & SIZE_IN_LOW_BITS) !== 0
  const sizeBytes = isSizeInLowBits ? lowBytes : field * 2 ** 32 + lowBytes
  return {
    storePathIndex: Number.parseInt(path, 16),
    directory: `${high}/${low}`,
    directoryIndex: Number.parseInt(high + low, 16),
    baseName: encoded + extent + rest,
    storageId: isId ? source : undefined,
    address: isId ? undefined : bytes.subarray(0, 4).join('.'),
    createTimeS: bytes.readUInt32BE(4),
    kind,
    sizeBytes: kind === 'plain' || kind === 'segment' ? sizeBytes : undefined,
    crc32: bytes.readUInt32BE(16),
    salt: (field & SIZE_IN_LOW_BITS) !== 0 ? field & SALT_MASK : undefined,
    slot: kind === 'segment' ? slotOf(extent) : undefined,
    tail: tail.slice(-TAIL_LENGTH),
  }
}

/** The directory with an index, as on disk below the store path's data directory. */
export function directoryName(directoryIndex: number): string {
  return `${hex(directoryIndex >> 8)}/${hex(directoryIndex & 0xff)}`
}

/** The file name of what lies in a directory of a store path. */
export function nameAt(storePathIndex: number, directory: string, baseName: string): string {
  return `M${hex(storePathIndex)}/${directory}/${baseName}`
}

/** Makes the name of a new plain file. Throws RangeError on a size, id or extension that does not fit. */
export function encodeFileName(file: NewFileName): string {
  if (file.storageId < 1 || file.storageId > STORAGE_ID_MAX) throw new RangeError(`storage id ${file.storageId}`)
  if (!Number.isSafeInteger(file.sizeBytes) || file.sizeBytes < 0) throw new RangeError(`size ${file.sizeBytes}`)
  if (file.tail.length !== TAIL_LENGTH) throw new RangeError(`tail ${file.tail}`)
  const bytes = scratch
  bytes.writeUInt32LE(file.storageId, 0)
  bytes.writeUInt32BE(file.createTimeS, 4)
  bytes.writeUInt32BE(upperHalf(file), 8)
  bytes.writeUInt32BE(file.isAppender ? 0 : file.sizeBytes >>> 0, 12)
  bytes.writeUInt32BE(file.crc32, 16)
  const directory = directoryName(file.directoryIndex)
  const extent = file.slot === undefined ? '' : extentOf(file.slot)
  return nameAt(file.storePathIndex, directory, bytes.toString('base64url', 0, NAME_BYTES) + extent + file.tail)
}

/**
 * The last seven characters of a name: digits that fill the place the extension leaves, and the extension. `padding` is
 * 0 .. 9_999_999; the extension has no dot in front, and may be empty. Throws RangeError if it does not fit.
 */
export function tailOf(extension: string, padding: number): string {
  if (!isExtension(extension)) throw new RangeError(`extension ${extension}`)
  const suffix = extension === '' ? '' : `.${extension}`
  const padLength = TAIL_LENGTH - suffix.length
  return padLength === 0 ? suffix : String(padding % 10 ** padLength).padStart(padLength, '0') + suffix
}

function upperHalf({ sizeBytes, salt = 0, isAppender, slot }: NewFileName): number {
  if (slot !== undefined) return SEGMENT
  if (isAppender) return (SIZE_IN_LOW_BITS | APPENDER | (salt & SALT_MASK)) >>> 0
  if (sizeBytes >= SIZE_WITHOUT_SALT_MIN) return Math.floor(sizeBytes / 2 ** 32)
  return (SIZE_IN_LOW_BITS | (salt & SALT_MASK)) >>> 0
}

/** Sixteen characters: segment id, offset, slot size, 4 bytes each. */
function extentOf({ segmentId, offsetBytes, slotBytes }: Slot): string {
  slotScratch.writeUInt32BE(segmentId, 0)
  slotScratch.writeUInt32BE(offsetBytes, 4)
  slotScratch.writeUInt32BE(slotBytes, 8)
  return slotScratch.toString('base64url')
}

function slotOf(extent: string): Slot {
  slotScratch.write(extent, 'base64url')
  return {
    segmentId: slotScratch.readUInt32BE(0),
    offsetBytes: slotScratch.readUInt32BE(4),
    slotBytes: slotScratch.readUInt32BE(8),
  }
}

function hex(byte: number): string {
  return HEX[byte]!
}
