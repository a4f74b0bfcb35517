/**
 * What is known of every segment, so that no directory is walked: how much of it is in use, and which ones have been removed.
 * Written in front of each checkpoint.
 *
 *     <data>/catalogue
 *
 *     0       4       8       16         24        28       32
 *     +-------+-------+-------+----------+---------+--------+-------------+------------+--------+
 *     | magic |version| epoch | sequence | entries | ranges | entries ... | ranges ... | CRC32C |
 *     +-------+-------+-------+----------+---------+--------+-------------+------------+--------+
 *      "DFSC"    1                         counts
 *
 *     entry   | path, 1 | source, 3 | segment id, 4 | used bytes, 4; bit 0: in doubt | end, 4 |
 *     range   | path, 1 | source, 3 | first segment id, 4 | last, 4 |    segments that have been removed
 *
 * It tells what all records up to `sequence` have come to; those behind it are counted again at a start. Numbers are
 * big-endian. One that is missing, damaged or of another epoch is made anew by looking at all segments.
 */
import { join } from 'node:path'
import { crc32c } from '@node-rs/crc32'
import type { BinlogRecord } from '../protocol/binlog-record.ts'
import type { FileNameParts } from '../protocol/file-id.ts'
import { replaceFile } from '../runtime/text-file.ts'
import type { Disk } from '../runtime/world.ts'
import type { FoundInSlot, SegmentRef, SegmentSum, SlotBytes } from './segments.ts'
import { isTrunkFile, SLOT_ALIGNMENT } from './slot.ts'

const MAGIC = 0x44465343
const VERSION = 1
const HEAD_BYTES = 32
const ENTRY_BYTES = 16
const RANGE_BYTES = 12
const SUM_BYTES = 4
const IN_DOUBT = 1

/** A segment, and on which store path. */
export interface SegmentPlace extends SegmentRef {
  readonly storePathIndex: number
}

/** What is known of a segment. */
export interface SegmentEntry extends SegmentPlace {
  usedBytes: number
  endBytes: number
  /** What is in use has to be counted. */
  inDoubt: boolean
  /** Grows with whatever is done to it. */
  changes: number
}

/** Ids of segments from one to another, both included. */
interface Range {
  readonly first: number
  readonly last: number
}

export class SlotCatalogue {
  /** By store path and source, then by segment id. */
  readonly #entries = new Map<number, Map<number, SegmentEntry>>()
  readonly #removed = new Map<number, readonly Range[]>()
  /** Slots of a flush mostly go into one segment. */
  #last: SegmentEntry | undefined
  #isChanged = true

  /** Reads the catalogue of an epoch, and which record it knows last; undefined if it has to be made anew. */
  static async read(disk: Disk, dataDirectory: string, epoch: number) {
    const path = cataloguePath(dataDirectory)
    if ((await disk.stat(path)) === undefined) return undefined
    const file = await disk.open(path, 'read')
    try {
      const bytes = Buffer.alloc(await file.sizeBytes())
      return decode(bytes.subarray(0, await file.read(bytes, 0)), epoch)
    } finally {
      await file.close()
    }
  }

  get entries(): SegmentEntry[] {
    return [...this.#entries.values()].flatMap(entries => [...entries.values()])
  }

  /** Bytes of free slots in the segments that `isWanted`. */
  freeBytes(isWanted: (entry: SegmentEntry) => boolean): number {
    return this.entries.filter(isWanted).reduce((sum, { usedBytes, endBytes }) => sum + endBytes - usedBytes, 0)
  }

  /** What is known of a segment; of one that was not known, that nothing was. */
  of(place: SegmentPlace): SegmentEntry {
    const known = this.#find(place)
    if (known !== undefined) return known
    const { storePathIndex, storageId, segmentId } = place
    const key = keyOf(place)
    const entry = { storePathIndex, storageId, segmentId, usedBytes: 0, endBytes: 0, inDoubt: false, changes: 0 }
    this.#entries.set(key, (this.#entries.get(key) ?? new Map<number, SegmentEntry>()).set(segmentId, entry))
    this.#forgetRemoved(key, segmentId)
    return entry
  }

  /** Slots are about to be written or freed: whoever counts a segment meanwhile has counted for nothing. */
  touch(places: readonly SegmentPlace[]): void {
    for (const place of places) {
      const entry = this.#find(place)
      if (entry !== undefined) entry.changes++
    }
  }

  /** There are files in these slots now. */
  filled(
    slots: readonly Pick<SlotBytes, 'storePathIndex' | 'storageId' | 'segmentId' | 'offsetBytes' | 'bytes'>[],
  ): void {
    for (const slot of slots) if (!isTrunkFile(slot)) this.#fill(slot, slot.offsetBytes, slot.bytes.length)
  }

  /** There is no file in a slot any more. */
  freed(place: SegmentPlace, slotBytes: number): void {
    const entry = this.of(place)
    entry.usedBytes -= slotBytes
    // Something had been counted wrong.
    if (entry.usedBytes < 0) this.set(entry, { usedBytes: 0, endBytes: entry.endBytes }, true)
    this.#changed(entry)
  }

  /** What is in use of a segment has to be counted. */
  doubt(place: SegmentPlace): void {
    const entry = this.of(place)
    entry.inDoubt = true
    this.#changed(entry)
  }

  /** What was counted. */
  set(entry: SegmentEntry, { usedBytes, endBytes }: SegmentSum, inDoubt = false): void {
    Object.assign(entry, { usedBytes, endBytes, inDoubt })
    this.#changed(entry)
  }

  /** A segment is not there any more: all its files have been deleted. */
  remove(entry: SegmentEntry): void {
    const key = keyOf(entry)
    const { segmentId } = entry
    this.#entries.get(key)?.delete(segmentId)
    this.#last = undefined
    const others = this.#removed.get(key) ?? []
    const before = others.find(({ last }) => last === segmentId - 1)
    const after = others.find(({ first }) => first === segmentId + 1)
    const joined = { first: before?.first ?? segmentId, last: after?.last ?? segmentId }
    this.#removed.set(key, [...others.filter(range => range !== before && range !== after), joined])
    this.#isChanged = true
  }

  isRemoved(place: SegmentPlace): boolean {
    const { segmentId } = place
    return this.#removed.get(keyOf(place))?.some(({ first, last }) => first <= segmentId && segmentId <= last) === true
  }

  /** Ids of a source's segments on a store path: all there are, and the last of each range of those removed. */
  lastIds(storePathIndex: number, storageId: number): number[] {
    const key = keyOf({ storePathIndex, storageId })
    return [...(this.#entries.get(key)?.keys() ?? []), ...(this.#removed.get(key)?.map(({ last }) => last) ?? [])]
  }

  /**
   * Counts a record again that the catalogue does not know; `found` is what the deletion of its file found. `isOwn` is true
   * of slots that this life of this server gives out: only these have been counted without looking.
   */
  redo(
    record: BinlogRecord,
    file: FileNameParts,
    { found, isOwn }: { found: FoundInSlot | undefined; isOwn: boolean },
  ): void {
    const { storePathIndex, storageId, slot } = file
    const { segmentId, offsetBytes, slotBytes } = slot!
    const place = { storePathIndex, storageId: storageId!, segmentId }
    const isFirstEpoch = record.origin?.epoch === 1
    if (record.op === 'D' || record.op === 'd') {
      // A slot that is damaged was not freed.
      const isDamaged = found === 'nothing'
      if (!isDamaged && (isOwn || found === 'file' || found === 'free')) this.freed(place, slotBytes)
      const isPlain = isOwn || found === 'file' || found === 'removed' || (found === 'free' && isFirstEpoch)
      if (isDamaged || !isPlain) this.doubt(place)
    } else if (record.inSlot) {
      this.#fill(place, offsetBytes, slotBytes)
      if (!isOwn && !isFirstEpoch) this.doubt(place)
    } else if (isOwn) this.doubt(place)
  }

  /** The file it is written as, if anything has changed since the last time. */
  encode(epoch: number, sequence: number): Buffer | undefined {
    if (!this.#isChanged) return undefined
    this.#isChanged = false
    const { entries } = this
    const ranges = [...this.#removed].flatMap(([key, of]) => of.map(range => ({ key, ...range })))
    const sumAt = HEAD_BYTES + entries.length * ENTRY_BYTES + ranges.length * RANGE_BYTES
    const bytes = Buffer.alloc(sumAt + SUM_BYTES)
    bytes.writeUInt32BE(MAGIC, 0)
    bytes.writeUInt32BE(VERSION, 4)
    bytes.writeBigUInt64BE(BigInt(epoch), 8)
    bytes.writeBigUInt64BE(BigInt(sequence), 16)
    bytes.writeUInt32BE(entries.length, 24)
    bytes.writeUInt32BE(ranges.length, 28)
    let at = HEAD_BYTES
    for (const entry of entries) {
      at = bytes.writeUInt32BE(keyOf(entry), at)
      at = bytes.writeUInt32BE(entry.segmentId, at)
      at = bytes.writeUInt32BE(entry.usedBytes + (entry.inDoubt ? IN_DOUBT : 0), at)
      at = bytes.writeUInt32BE(entry.endBytes, at)
    }
    for (const { key, first, last } of ranges) {
      at = bytes.writeUInt32BE(key, at)
      at = bytes.writeUInt32BE(first, at)
      at = bytes.writeUInt32BE(last, at)
    }
    bytes.writeUInt32BE(crc32c(bytes.subarray(0, sumAt)), sumAt)
    return bytes
  }

  /** Writes what `encode` gave; durable when it resolves. If that fails, the next time all is written. */
  async write(disk: Disk, dataDirectory: string, bytes: Buffer): Promise<void> {
    try {
      await replaceFile(disk, cataloguePath(dataDirectory), bytes)
    } catch (error) {
      this.#isChanged = true
      throw error
    }
  }

  /** Takes note of what was read from the file. */
  add(entry: Omit<SegmentEntry, 'changes'>): void {
    Object.assign(this.of(entry), entry)
  }

  /** Takes note of segments that were removed. */
  addRemoved(key: number, range: Range): void {
    this.#removed.set(key, [...(this.#removed.get(key) ?? []), range])
  }

  #find(place: SegmentPlace): SegmentEntry | undefined {
    if (this.#last !== undefined && isSame(this.#last, place)) return this.#last
    this.#last = this.#entries.get(keyOf(place))?.get(place.segmentId)
    return this.#last
  }

  #fill(place: SegmentPlace, offsetBytes: number, slotBytes: number): void {
    const entry = this.of(place)
    entry.usedBytes += slotBytes
    entry.endBytes = Math.max(entry.endBytes, offsetBytes + slotBytes)
    this.#changed(entry)
  }

  #changed(entry: SegmentEntry): void {
    entry.changes++
    this.#isChanged = true
  }

  #forgetRemoved(key: number, segmentId: number): void {
    const ranges = this.#removed.get(key)
    const range = ranges?.find(({ first, last }) => first <= segmentId && segmentId <= last)
    if (ranges === undefined || range === undefined) return
    const parts = [
      { first: range.first, last: segmentId - 1 },
      { first: segmentId + 1, last: range.last },
    ].filter(({ first, last }) => first <= last)
    this.#removed.set(key, [...ranges.filter(other => other !== range), ...parts])
  }
}

function decode(bytes: Buffer, epoch: number): { catalogue: SlotCatalogue; sequence: number } | undefined {
  const sumAt = bytes.length - SUM_BYTES
  if (sumAt < HEAD_BYTES || bytes.readUInt32BE(sumAt) !== crc32c(bytes.subarray(0, sumAt))) return undefined
  if (bytes.readUInt32BE(0) !== MAGIC || bytes.readUInt32BE(4) !== VERSION) return undefined
  if (bytes.readBigUInt64BE(8) !== BigInt(epoch)) return undefined
  const rangesAt = HEAD_BYTES + bytes.readUInt32BE(24) * ENTRY_BYTES
  if (rangesAt + bytes.readUInt32BE(28) * RANGE_BYTES !== sumAt) return undefined
  const catalogue = new SlotCatalogue()
  for (let at = HEAD_BYTES; at < rangesAt; at += ENTRY_BYTES) {
    const key = bytes.readUInt32BE(at)
    const used = bytes.readUInt32BE(at + 8)
    catalogue.add({
      storePathIndex: bytes[at]!,
      storageId: key % 2 ** 24,
      segmentId: bytes.readUInt32BE(at + 4),
      usedBytes: used - (used % SLOT_ALIGNMENT),
      endBytes: bytes.readUInt32BE(at + 12),
      inDoubt: used % SLOT_ALIGNMENT === IN_DOUBT,
    })
  }
  for (let at = rangesAt; at < sumAt; at += RANGE_BYTES) {
    catalogue.addRemoved(bytes.readUInt32BE(at), {
      first: bytes.readUInt32BE(at + 4),
      last: bytes.readUInt32BE(at + 8),
    })
  }
  return { catalogue, sequence: Number(bytes.readBigUInt64BE(16)) }
}

function keyOf({ storePathIndex, storageId }: Pick<SegmentPlace, 'storePathIndex' | 'storageId'>): number {
  return storePathIndex * 2 ** 24 + storageId
}

function isSame(entry: SegmentEntry, { storePathIndex, storageId, segmentId }: SegmentPlace): boolean {
  return entry.segmentId === segmentId && entry.storageId === storageId && entry.storePathIndex === storePathIndex
}

function cataloguePath(dataDirectory: string): string {
  return join(dataDirectory, 'catalogue')
}
