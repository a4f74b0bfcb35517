/**
 * One line of the binlog.
 *
 *     <epoch> <sequence> <batch> <timeMs> <op> <name> <extent> <origin> <uploadId> <check>\n
 *
 *     7 42 40 1763690000123 C M00/00/0C/AQAAAGkf3nGAAAAqAAAQABcT3q4123.jpg t:51 - 9f0c…e2 1a2b3c4d
 *
 *     epoch     the incarnation of this server's binlog, from 1
 *     sequence  from 1, rising over the whole epoch; each start of the server leaves a gap before its S
 *     batch     one more than the sequence of the last record that was durable when this one was written: it is what
 *               tells a torn, never acknowledged end from damage to something acknowledged
 *     timeMs    the source's clock, never decreasing over one source's records
 *     op        C create, D delete, U metadata is set; A append, M modify, T truncate an appender file; lower case: applied
 *               from a peer (FastDFS's letters); S the server has started
 *     name      the file name, without the group; `-` for S
 *     extent    where the bytes are: `t:<token>` in a temporary file, with `@<offset>+<bytes>` behind it or instead where they
 *               belong in an appender file, `s` in the slot that the name says, `r` the same where
 *               another file was before, `-` for none, `!` for a file that the source could not read and this member goes
 *               without
 *     origin    of a lower-case record: `<storageId>:<epoch>:<sequence>` at its source; of an S: back to where the position of
 *               a source has gone; else `-`
 *     uploadId  32 hex digits that make a repeated upload the same upload, or `-`
 *     check     CRC32C of the line before it, 8 hex digits
 *
 * Fields are separated by one space; none is empty; the line has at most 512 bytes.
 */
import { crc32c } from '@node-rs/crc32'

/** A name has up to 127 bytes, all numbers together under 150, the upload id 32: the rest is room for later fields. */
export const RECORD_BYTES_MAX = 512

export type BinlogOp = 'C' | 'D' | 'U' | 'A' | 'M' | 'T' | 'c' | 'd' | 'u' | 'a' | 'm' | 't' | 'S'

/** Where a record stands in the binlog of one source. */
export interface BinlogPosition {
  readonly epoch: number
  readonly sequence: number
}

/** Whose record this was first. */
export interface RecordOrigin extends BinlogPosition {
  readonly storageId: number
}

/** Bytes of a file. */
export interface ByteRange {
  readonly offset: number
  readonly bytes: number
}

export interface BinlogRecord extends BinlogPosition {
  readonly batch: number
  readonly timeMs: number
  readonly op: BinlogOp
  readonly name: string
  /** The temporary file the bytes wait in, or undefined: the file is gone already, or the op has none. */
  readonly token: string | undefined
  /** Which bytes of an appender file; none of them, and where its new end is, of one that is truncated. */
  readonly range?: ByteRange | undefined
  /** The bytes are in the slot that the name says. */
  readonly inSlot?: boolean | undefined
  /** Another file of the source was in the slot before, and was deleted. */
  readonly reused?: boolean | undefined
  /** The source could not read the file: its absence here says nothing. */
  readonly lacksFile?: boolean | undefined
  readonly origin: RecordOrigin | undefined
  readonly uploadId: string | undefined
}

const LINE =
  /^([1-9]\d*) ([1-9]\d*) ([1-9]\d*) (\d+) ([CDSUAMTcduamt]) (\S+) (-|!|s|r|(?:t:[0-9a-z]+)?(?:@\d+\+\d+)?) (?:-|(\d+):(\d+):(\d+)) (?:-|([0-9a-f]{32})) ([0-9a-f]{8})$/

/** Both digits of each byte: every record is checked several times on its way. */
const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'))

/** Formats a record as its line, the line feed included. */
export function encodeRecord(record: BinlogRecord): string {
  return `${formatRecord(record, record)}\n`
}

/** The same without the line feed, from where a record stands and what it says. */
export function formatRecord(
  { epoch, sequence, batch, timeMs }: Pick<BinlogRecord, 'epoch' | 'sequence' | 'batch' | 'timeMs'>,
  record: Omit<BinlogRecord, 'epoch' | 'sequence' | 'batch' | 'timeMs'>,
): string {
  const { op, name, token, range, lacksFile, inSlot, reused, origin, uploadId } = record
  const slot = inSlot ? (reused ? 'r' : 's') : '-'
  const part = token !== undefined ? `t:${token}` : ''
  const place = range !== undefined ? `@${range.offset}+${range.bytes}` : ''
  const extent = part + place || (lacksFile ? '!' : slot)
  const from = origin ? `${origin.storageId}:${origin.epoch}:${origin.sequence}` : '-'
  const fields = `${epoch} ${sequence} ${batch} ${timeMs} ${op} ${name} ${extent} ${from} ${uploadId ?? '-'}`
  return `${fields} ${checkOf(fields)}`
}

/** Reads a line without its line feed; undefined if it is torn, flipped or not a record at all. */
export function decodeRecord(line: string): BinlogRecord | undefined {
  const match = line.length < RECORD_BYTES_MAX ? LINE.exec(line) : null
  if (match === null) return undefined
  const [, epoch, sequence, batch, timeMs, op, name, extent, storageId, originEpoch, originSequence, uploadId, check] =
    match
  if (checkOf(line.slice(0, -9)) !== check) return undefined
  // Most are of one character: where the bytes are in a segment, or none.
  const [part, place] = extent!.length > 1 ? extent!.split('@') : []
  const isReused = extent === 'r'
  return {
    epoch: Number(epoch),
    sequence: Number(sequence),
    batch: Number(batch),
    timeMs: Number(timeMs),
    op: op as BinlogOp,
    name: name!,
    token: part?.startsWith('t:') ? part.slice(2) : undefined,
    range: place === undefined ? undefined : rangeOf(place),
    inSlot: isReused || extent === 's' ? true : undefined,
    reused: isReused ? true : undefined,
    lacksFile: extent === '!' ? true : undefined,
    origin:
      storageId === undefined
        ? undefined
        : { storageId: Number(storageId), epoch: Number(originEpoch), sequence: Number(originSequence) },
    uploadId,
  }
}

function rangeOf(place: string): ByteRange {
  const [offset, bytes] = place.split('+')
  return { offset: Number(offset), bytes: Number(bytes) }
}

/** Whether `a` lies after `b`: a later epoch wins over any sequence. */
export function isAfter(a: BinlogPosition, b: BinlogPosition): boolean {
  return a.epoch > b.epoch || (a.epoch === b.epoch && a.sequence > b.sequence)
}

function checkOf(text: string): string {
  const sum = crc32c(text)
  return HEX[sum >>> 24]! + HEX[(sum >>> 16) & 0xff]! + HEX[(sum >>> 8) & 0xff]! + HEX[sum & 0xff]!
}
