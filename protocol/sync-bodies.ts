/**
 * Bodies of the private commands between a source and its peers.
 *
 *     syncPosition 205   source's storage id 4, group 16, epoch 8, incarnation 16, the term that it has settled 8, another
 *                        member's storage id 4, or 0
 *              reply     incarnation 16, epoch 8, sequence 8, then the source's own: epoch 8, incarnation 16, then what is
 *                        here of a file that was cut off: its record's sequence 8, bytes 8, CRC32 4; all 0 if nothing is;
 *                        then how far that other member's records are applied here: epoch 8, sequence 8
 *     syncRecord 206     source's storage id 4, content 1, previous 8, offset 8, CRC32 4, line length 2, line, then the file
 *                        from the offset on
 *              reply     empty, once the record is durable here
 *     syncRun 207        source's storage id 4, previous 8, count 4, length of the lines 4, a content for each record, lines
 *                        with a line feed each, then the slots of those whose content is 1, each as long as its name says
 *              reply     empty, once all records are durable here
 *     syncHeld 209       for each file: size 8, CRC32 4, length of its name 1, name
 *              reply     a byte each: 1 if that file is here and good
 *
 * The life of the source that the reply names is the one whose records are taken; another one has to raise its epoch.
 * `content` is 1 if the file follows, 0 if it does not: a deletion, or a file that is gone at the source already; 2 if
 * the source has the file and cannot read it; 3 if the peer has said that it has the file; 4 if what follows is the whole
 * file, whatever the record says, which is of a time before its changes were in other hands; 5 if what the record says came
 * with the whole file, in front of it.
 * `previous` is the sequence of the record shipped before this one: a receiver sees a gap.
 * `CRC32` is that of the whole file, also where its name does not say it; 0 where no file follows.
 */
import type { BinlogPosition } from './binlog-record.ts'
import { GROUP_NAME_BYTES } from './file-id.ts'
import { readInt64, readString, writeInt64, writeString } from './frame.ts'

const INCARNATION_BYTES = 16
const TERM_AT = 4 + GROUP_NAME_BYTES + 8 + INCARNATION_BYTES
export const SYNC_POSITION_BYTES = TERM_AT + 12
const PARTIAL_AT = 2 * INCARNATION_BYTES + 24
const OTHER_AT = PARTIAL_AT + 20
export const SYNC_POSITION_REPLY_BYTES = OTHER_AT + 16
export const SYNC_RECORD_FIXED_BYTES = 4 + 1 + 8 + 8 + 4 + 2

/** Who asks a peer where it stands. */
export interface SyncPositionFields {
  readonly storageId: number
  readonly group: string
  readonly epoch: number
  /** 32 hex digits. */
  readonly incarnation: string
  /** What it has settled about who orders whose changes. */
  readonly term: number
  /** Whose position is wanted as well, or 0. */
  readonly other: number
}

export function writeSyncPosition(fields: SyncPositionFields): Buffer {
  const { storageId, group, epoch, incarnation, term, other } = fields
  const buffer = Buffer.alloc(SYNC_POSITION_BYTES)
  buffer.writeUInt32BE(storageId, 0)
  writeString(buffer, group, 4, GROUP_NAME_BYTES)
  writeInt64(buffer, epoch, 4 + GROUP_NAME_BYTES)
  buffer.write(incarnation, 12 + GROUP_NAME_BYTES, 'hex')
  writeInt64(buffer, term, TERM_AT)
  buffer.writeUInt32BE(other, TERM_AT + 8)
  return buffer
}

export function readSyncPosition(buffer: Buffer): SyncPositionFields {
  return {
    storageId: buffer.readUInt32BE(0),
    group: readString(buffer, 4, GROUP_NAME_BYTES),
    epoch: readInt64(buffer, 4 + GROUP_NAME_BYTES),
    incarnation: buffer.toString('hex', 12 + GROUP_NAME_BYTES, TERM_AT),
    term: readInt64(buffer, TERM_AT),
    other: buffer.readUInt32BE(TERM_AT + 8),
  }
}

/** What a peer has of a file that was cut off: of which record, how much, and the CRC32 of that. All 0 for nothing. */
export interface PartialFile {
  readonly sequence: number
  readonly bytes: number
  readonly crc32: number
}

/** Where a peer stands. */
export interface PeerPosition extends BinlogPosition {
  /** 32 hex digits. */
  readonly incarnation: string
  /** The life of the source whose records the peer takes. */
  readonly source: { readonly epoch: number; readonly incarnation: string }
  readonly partial: PartialFile
  /** How far the records of the other member are applied that was asked for. */
  readonly other: BinlogPosition
}

export function writePeerPosition(position: PeerPosition): Buffer {
  const buffer = Buffer.alloc(SYNC_POSITION_REPLY_BYTES)
  buffer.write(position.incarnation, 0, 'hex')
  writeInt64(buffer, position.epoch, INCARNATION_BYTES)
  writeInt64(buffer, position.sequence, INCARNATION_BYTES + 8)
  writeInt64(buffer, position.source.epoch, INCARNATION_BYTES + 16)
  buffer.write(position.source.incarnation, INCARNATION_BYTES + 24, 'hex')
  writeInt64(buffer, position.partial.sequence, PARTIAL_AT)
  writeInt64(buffer, position.partial.bytes, PARTIAL_AT + 8)
  buffer.writeUInt32BE(position.partial.crc32, PARTIAL_AT + 16)
  writeInt64(buffer, position.other.epoch, OTHER_AT)
  writeInt64(buffer, position.other.sequence, OTHER_AT + 8)
  return buffer
}

export function readPeerPosition(buffer: Buffer): PeerPosition {
  return {
    incarnation: buffer.toString('hex', 0, INCARNATION_BYTES),
    epoch: readInt64(buffer, INCARNATION_BYTES),
    sequence: readInt64(buffer, INCARNATION_BYTES + 8),
    source: {
      epoch: readInt64(buffer, INCARNATION_BYTES + 16),
      incarnation: buffer.toString('hex', INCARNATION_BYTES + 24, PARTIAL_AT),
    },
    partial: {
      sequence: readInt64(buffer, PARTIAL_AT),
      bytes: readInt64(buffer, PARTIAL_AT + 8),
      crc32: buffer.readUInt32BE(PARTIAL_AT + 16),
    },
    other: { epoch: readInt64(buffer, OTHER_AT), sequence: readInt64(buffer, OTHER_AT + 8) },
  }
}

/** What follows a record. */
export type SyncContent = 'none' | 'file' | 'unreadable' | 'held' | 'whole' | 'past'

const CONTENTS: readonly SyncContent[] = ['none', 'file', 'unreadable', 'held', 'whole', 'past']

/** The fields of `syncRecord` before the line. */
export interface SyncRecordFields {
  readonly storageId: number
  readonly content: SyncContent
  readonly previous: number
  /** Where the bytes that follow begin in the file. */
  readonly offset: number
  readonly crc32: number
  readonly lineBytes: number
}

export function writeSyncRecord(fields: Omit<SyncRecordFields, 'lineBytes'>, line: string): Buffer {
  const buffer = Buffer.alloc(SYNC_RECORD_FIXED_BYTES + line.length)
  buffer.writeUInt32BE(fields.storageId, 0)
  buffer[4] = CONTENTS.indexOf(fields.content)
  writeInt64(buffer, fields.previous, 5)
  writeInt64(buffer, fields.offset, 13)
  buffer.writeUInt32BE(fields.crc32, 21)
  buffer.writeUInt16BE(line.length, 25)
  buffer.write(line, SYNC_RECORD_FIXED_BYTES, 'latin1')
  return buffer
}

export function readSyncRecord(buffer: Buffer): SyncRecordFields {
  return {
    storageId: buffer.readUInt32BE(0),
    content: CONTENTS[buffer[4]!] ?? 'none',
    previous: readInt64(buffer, 5),
    offset: readInt64(buffer, 13),
    crc32: buffer.readUInt32BE(21),
    lineBytes: buffer.readUInt16BE(25),
  }
}

const SYNC_RUN_FIXED_BYTES = 4 + 8 + 4 + 4

/** A record of a run. */
export interface SyncRunRecord {
  readonly line: string
  readonly content: SyncContent
}

/** A run without its slots. */
export interface SyncRunFields {
  readonly storageId: number
  readonly previous: number
  readonly records: readonly SyncRunRecord[]
}

/** Everything of a run before its slots. */
export function writeSyncRun({ storageId, previous, records }: SyncRunFields): Buffer {
  const lines = records.map(({ line }) => `${line}\n`).join('')
  const buffer = Buffer.allocUnsafe(SYNC_RUN_FIXED_BYTES + records.length + lines.length)
  buffer.writeUInt32BE(storageId, 0)
  writeInt64(buffer, previous, 4)
  buffer.writeUInt32BE(records.length, 12)
  buffer.writeUInt32BE(lines.length, 16)
  records.forEach(({ content }, i) => {
    buffer[SYNC_RUN_FIXED_BYTES + i] = CONTENTS.indexOf(content)
  })
  buffer.write(lines, SYNC_RUN_FIXED_BYTES + records.length, 'latin1')
  return buffer
}

/** Reads a run; undefined if its lengths contradict each other. `slots` is what follows the lines. */
export function readSyncRun(buffer: Buffer): (SyncRunFields & { readonly slots: Buffer }) | undefined {
  if (buffer.length < SYNC_RUN_FIXED_BYTES) return undefined
  const count = buffer.readUInt32BE(12)
  const linesAt = SYNC_RUN_FIXED_BYTES + count
  const slotsAt = linesAt + buffer.readUInt32BE(16)
  if (slotsAt > buffer.length) return undefined
  const lines = buffer.toString('latin1', linesAt, slotsAt).split('\n')
  if (lines.pop() !== '' || lines.length !== count) return undefined
  const records = lines.map((line, i) => ({ line, content: CONTENTS[buffer[SYNC_RUN_FIXED_BYTES + i]!] ?? 'none' }))
  const slots = buffer.subarray(slotsAt)
  return { storageId: buffer.readUInt32BE(0), previous: readInt64(buffer, 4), records, slots }
}

/** A file that a peer may have. */
export interface HeldFile {
  readonly name: string
  readonly sizeBytes: number
  /** Of the whole file, also where its name does not say it. */
  readonly crc32: number
}

/** Files of one request: little to wait for, even if a disk has to move for each. */
export const HELD_FILES_MAX = 64
const HELD_FIXED_BYTES = 8 + 4 + 1
export const SYNC_HELD_BYTES_MAX = HELD_FILES_MAX * (HELD_FIXED_BYTES + 255)

export function writeSyncHeld(files: readonly HeldFile[]): Buffer {
  return Buffer.concat(
    files.map(({ name, sizeBytes, crc32 }) => {
      const buffer = Buffer.alloc(HELD_FIXED_BYTES + name.length)
      writeInt64(buffer, sizeBytes, 0)
      buffer.writeUInt32BE(crc32, 8)
      buffer[12] = name.length
      buffer.write(name, HELD_FIXED_BYTES, 'latin1')
      return buffer
    }),
  )
}

/** Reads what `writeSyncHeld` wrote; undefined if its lengths contradict each other. */
export function readSyncHeld(buffer: Buffer): readonly HeldFile[] | undefined {
  const files: HeldFile[] = []
  let at = 0
  while (at < buffer.length) {
    const nameAt = at + HELD_FIXED_BYTES
    const end = nameAt + (buffer[nameAt - 1] ?? 0)
    if (nameAt > buffer.length || end > buffer.length) return undefined
    const name = buffer.toString('latin1', nameAt, end)
    files.push({ name, sizeBytes: readInt64(buffer, at), crc32: buffer.readUInt32BE(at + 8) })
    at = end
  }
  return files
}
