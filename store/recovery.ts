/**
 * What happens before a data directory serves again.
 *
 *     checkpoint ──▶ every record after it ──▶ its effect is done again ──▶ left-over temporary files are removed
 *                            │                                            └▶ files without a record are looked for
 *                            │
 *                            ├─ a bad line, and nothing of a later batch behind it: the torn end of the last flush,
 *                            │  which was never acknowledged; the file is cut there
 *                            └─ a bad line with a later batch behind it: damage to something acknowledged; it is
 *                               counted and told, and the records after it are kept
 *
 * What looks like a torn end may be a damaged one: a record that was acknowledged, and that peers may have. So the
 * sequences that a torn flush could have had are never given again, and a file that has its name, which only a durable
 * record can have given it, gets a new record if its own is not there.
 */

import type { BinlogRecord, RecordOrigin } from '../protocol/binlog-record.ts'
import { decodeFileName } from '../protocol/file-id.ts'
import type { SourcePosition } from '../protocol/storage-messages.ts'
import type { Disk, DiskFile } from '../runtime/world.ts'
import { BATCH_RECORDS_MAX, type BinlogEnd, isShipped } from './binlog.ts'
import { binlogDirectory, epochBefore, fileOf, findSequence, listBinlogFiles, readLines } from './binlog-files.ts'
import { readRecords } from './binlog-reader.ts'
import { type FoundCheckpoint, type ReopenedSegment, readCheckpoint, type SlotEnd } from './checkpoint.ts'
import { makeDurableDirectory } from './durable-directory.ts'
import { LastChanges } from './last-changes.ts'
import { cutUnfinished } from './last-flush.ts'
import { OrphanSearch } from './orphans.ts'
import { placeAgain, removeFile } from './placing.ts'
import { type FoundInSlot, writerOf } from './segments.ts'
import { isTrunkFile } from './slot.ts'
import { type SegmentPlace, SlotCatalogue } from './slot-catalogue.ts'
import { SlotOrphanSearch } from './slot-orphans.ts'
import type { Stored } from './store.ts'
import type { StorePath } from './store-path.ts'
import { Unjudged } from './unjudged.ts'
import { UPLOAD_IDS_MAX } from './upload-ids.ts'

/** A checkpoint lies some 300 KiB behind the end, at most: one or two reads. */
const REWRITE_BYTES = 256 * 1024

/** Looked at first to find those of one second: mostly enough. */
const NOTED_RECORDS = 4096

/** What recovery found and did. */
export interface Recovery {
  readonly end: BinlogEnd
  /** The last record of our own, 0 for none. */
  readonly ownEnd: number
  /** Of the last record that can be read: before the end, if the checkpoint covers one that was lost. */
  readonly lastSequence: number
  /** So many sequences after the end may have been given to records that are gone, and must not be given again. */
  readonly skipped: number
  /** The epoch whose records this one has to begin with: peers may not have them all. */
  readonly previousEpoch: number | undefined
  /** Names of files of this source that are in place and have no record. */
  readonly orphans: readonly string[]
  /** Behind which slots this start may fill new ones. */
  readonly slots: readonly SlotEnd[]
  /** Segments whose free slots may have been used again. */
  readonly reopened: readonly ReopenedSegment[]
  readonly catalogue: SlotCatalogue
  /** All segments have to be counted: what was known of them is missing or damaged. */
  readonly uncounted: boolean
  readonly positions: Map<number, SourcePosition>
  /** Those of them that lie before what was recorded. */
  readonly setBack: readonly SourcePosition[]
  /** The last binlog file, open for the next record, and its length. */
  readonly file: DiskFile | undefined
  readonly fileBytes: number
  /** Upload ids at the end of the binlog and their files, oldest first. */
  readonly uploads: readonly (Stored & { readonly uploadId: string })[]
  /** There was one and it could not be read: everything was done again. */
  readonly checkpointDamaged: boolean
  readonly redone: number
  /** Bytes cut from the end of the binlog. */
  readonly tornBytes: number
  /** Bad lines between acknowledged ones. */
  readonly damagedLines: number
  /** Files a record says are here, and are not; without those deleted later. */
  readonly missing: readonly string[]
  readonly removedTemporaries: number
}

export async function recover(
  disk: Disk,
  dataDirectory: string,
  identity: { epoch: number; storageId: number; writer: number },
  storePaths: ReadonlyMap<number, StorePath>,
): Promise<Recovery> {
  const { epoch, storageId } = identity
  const directory = binlogDirectory(dataDirectory)
  await makeDurableDirectory(disk, directory)
  const checkpoint = await readCheckpoint(disk, dataDirectory, epoch)
  const positions = new Map(checkpoint.positions.map(position => [position.storageId, position]))
  const missing = new Set<string>()
  const lastChanges = new LastChanges()
  const unjudged = new Unjudged()
  const orphans = new OrphanSearch(storageId, checkpoint.timeMs)
  const found = await SlotCatalogue.read(disk, dataDirectory, epoch)
  const catalogue = found?.catalogue ?? new SlotCatalogue()
  const onDoubt = catalogue.doubt.bind(catalogue)
  let slotOrphans = new SlotOrphanSearch(identity, checkpoint, onDoubt)
  let end: BinlogEnd = { sequence: checkpoint.sequence, timeMs: checkpoint.timeMs }
  let { ownEnd } = checkpoint
  let redone = 0
  let tornBytes = 0
  let damagedLines = 0
  let lastSequence = 0
  let isCheckpointTrue = checkpoint.sequence === 0
  let last: { file: DiskFile; bytes: number } | undefined

  const files = await listBinlogFiles(disk, directory, epoch)
  const first = fileOf(files, checkpoint.sequence + 1)
  const replayed = first === undefined ? files : files.slice(files.indexOf(first))
  await disk.syncDirectory(directory)
  for (const { path, firstSequence } of replayed) {
    await last?.file.close()
    const file = await disk.open(path, 'update')
    const from = await findSequence(file, checkpoint.sequence + 1)
    await makeDurable(file, from)
    if (from === 0) orphans.noteFile(firstSequence)
    if (path === replayed.at(-1)!.path) {
      const range = { fromBytes: from, afterSequence: checkpoint.sequence }
      tornBytes += await cutUnfinished(file, range, storePaths)
    }
    let bytes = await file.sizeBytes()
    lastSequence = firstSequence - 1
    for await (const { record, offsetBytes } of readLines(file, from)) {
      if (record === undefined) {
        const isLastFile = path === replayed.at(-1)!.path
        if (isLastFile && (await isTornEnd(file, offsetBytes, lastSequence))) {
          // What a checkpoint covers was acknowledged: that is damage, even at the very end.
          if (lastSequence < checkpoint.sequence) damagedLines++
          tornBytes += bytes - offsetBytes
          bytes = offsetBytes
          await file.truncate(bytes)
          break
        }
        damagedLines++
        continue
      }
      lastSequence = record.sequence
      isCheckpointTrue ||= record.sequence === checkpoint.sequence
      orphans.note(record)
      slotOrphans.note(record)
      if (record.sequence <= checkpoint.sequence) continue
      const freed = lastChanges.note(record) ? undefined : await redo(disk, record, storePaths, missing)
      if (record.sequence > (found?.sequence ?? Number.POSITIVE_INFINITY)) recount(catalogue, record, identity, freed)
      redone++
      if (isShipped(record)) ownEnd = record.sequence
      end = { sequence: record.sequence, timeMs: isShipped(record) ? record.timeMs : end.timeMs }
      const { origin, lacksFile } = record
      const before = origin && positions.get(origin.storageId)
      unjudged.note(record, before, isAway(record, storePaths))
      if (origin !== undefined) positions.set(origin.storageId, positionAfter(before, { origin, record, lacksFile }))
    }
    last = { file, bytes }
  }
  await lastChanges.redo(disk, storePaths, missing)
  for (const position of unjudged.positions) positions.set(position.storageId, position)
  // What was cut must stay cut.
  await last?.file.sync()
  if (!isCheckpointTrue) slotOrphans = await searchBehindAll(disk, directory, identity, checkpoint, onDoubt)
  else await noteEarlier(disk, directory, checkpoint, slotOrphans)
  for (const path of storePaths.values()) await path.syncChanges()
  // What was done may have lost its record: with what looked like a torn end, or in a line that is damaged.
  const isTrue =
    found !== undefined &&
    checkpoint.current &&
    isCheckpointTrue &&
    found.sequence <= end.sequence &&
    tornBytes + damagedLines === 0
  if (!isTrue) for (const path of storePaths.values()) await doubtAll(catalogue, path)
  return {
    end,
    ownEnd,
    lastSequence,
    reopened: checkpoint.reopened,
    catalogue,
    uncounted: found === undefined && catalogue.entries.length > 0,
    previousEpoch: checkpoint.current ? undefined : await epochBefore(disk, directory, epoch),
    skipped: files.length === 0 ? 0 : BATCH_RECORDS_MAX,
    orphans: [...(await orphans.find(storePaths, end.sequence)), ...(await slotOrphans.find(storePaths))],
    slots: await slotOrphans.settled(storePaths, catalogue),
    positions,
    setBack: unjudged.positions,
    file: last?.file,
    fileBytes: last?.bytes ?? 0,
    uploads: await lastUploads(disk, directory, epoch, end.sequence),
    checkpointDamaged: checkpoint.damaged,
    redone,
    tornBytes,
    damagedLines,
    missing: [...missing],
    removedTemporaries: await removeTemporaries(disk, storePaths),
  }
}

/** Where a source's records have got to with one more; a file that could not be had is never forgotten. */
export function positionAfter(
  before: SourcePosition | undefined,
  {
    origin,
    record: { timeMs },
    lacksFile,
  }: { origin: RecordOrigin; record: { timeMs: number }; lacksFile?: boolean | undefined },
): SourcePosition {
  const { storageId, epoch, sequence } = origin
  const isIncomplete = before?.incomplete || lacksFile
  return isIncomplete
    ? { storageId, epoch, sequence, timeMs, incomplete: true }
    : { storageId, epoch, sequence, timeMs }
}

/**
 * Makes durable what is about to be read: it may be in memory only, and no effect may outlive its record. Written again,
 * because after a sync that failed the system takes such pages for clean and would sync nothing.
 */
async function makeDurable(file: DiskFile, fromBytes: number): Promise<void> {
  const buffer = Buffer.allocUnsafe(REWRITE_BYTES)
  for (let at = fromBytes; ; ) {
    const count = await file.read(buffer, at)
    if (count === 0) break
    await file.write([buffer.subarray(0, count)], at)
    at += count
  }
  await file.sync()
}

/** Whether everything from a bad line on belongs to the flush the bad line was in, and so was never acknowledged. */
async function isTornEnd(file: DiskFile, offsetBytes: number, lastGoodSequence: number): Promise<boolean> {
  for await (const { record } of readLines(file, offsetBytes)) {
    // A later batch was only begun after the one of the bad line was durable.
    if (record !== undefined && record.batch > lastGoodSequence + 1) return false
  }
  return true
}

/** A record that the checkpoint covers is gone, and its slot lies before where the checkpoint says that slots end. */
async function searchBehindAll(
  disk: Disk,
  directory: string,
  identity: { epoch: number; storageId: number; writer: number },
  { reopened }: FoundCheckpoint,
  onDoubt: (place: SegmentPlace) => void,
): Promise<SlotOrphanSearch> {
  const search = new SlotOrphanSearch(identity, { slots: [], reopened, timeMs: 0 }, onDoubt)
  const all = { after: 0, until: Number.POSITIVE_INFINITY }
  for await (const { record } of readRecords(disk, directory, identity.epoch, all, () => {})) search.note(record)
  return search
}

/** Notes the records of the checkpoint's second: a file's time does not tell on which side of the checkpoint it came. */
async function noteEarlier(
  disk: Disk,
  directory: string,
  { epoch, sequence }: { epoch: number; sequence: number },
  search: SlotOrphanSearch,
): Promise<void> {
  const { noteFromMs } = search
  if (noteFromMs === undefined) return
  for (let count = NOTED_RECORDS, until = sequence; until > 0; count *= 2) {
    const after = Math.max(0, until - count)
    let isEnough = false
    for await (const record of ownRecords(disk, directory, epoch, { after, until })) {
      isEnough ||= record.timeMs < noteFromMs
      search.noteEarlier(record)
    }
    if (isEnough) return
    until = after
  }
}

async function* ownRecords(disk: Disk, directory: string, epoch: number, range: { after: number; until: number }) {
  for await (const { record } of readRecords(disk, directory, epoch, range, () => {})) {
    if (isShipped(record)) yield record
  }
}

/** Counts a record again; `freed` is what freeing its slot found. */
function recount(
  catalogue: SlotCatalogue,
  record: BinlogRecord,
  { storageId, writer }: { storageId: number; writer: number },
  freed: FoundInSlot | undefined,
): void {
  if (record.op === 'S' || record.op === 'U' || record.op === 'u') return
  const file = decodeFileName(record.name)
  if (file.slot === undefined || isTrunkFile(file.slot)) return
  const isOwn = file.storageId === storageId && writerOf(file.slot.segmentId) === writer
  catalogue.redo(record, file, { found: freed, isOwn })
}

/** Whatever is known of the segments of a store path has to be counted, and those that are not known. */
async function doubtAll(catalogue: SlotCatalogue, path: StorePath): Promise<void> {
  if (path.failure !== undefined) return
  for (const entry of catalogue.entries) if (entry.storePathIndex === path.index) catalogue.doubt(entry)
  try {
    for (const ref of await path.segments.listAll()) catalogue.doubt({ storePathIndex: path.index, ...ref })
  } catch (error) {
    // The others go on, and until it is back no checkpoint says that anything was counted.
    path.fail(error as Error)
  }
}

/** Whether the disk of a record's file is not there. */
function isAway({ op, name }: BinlogRecord, storePaths: ReadonlyMap<number, StorePath>): boolean {
  if (op === 'S') return false
  const path = storePaths.get(decodeFileName(name).storePathIndex)
  return path === undefined || path.failure !== undefined
}

/** Does the effect of a record again, whatever of it was done before; returns what freeing its slot found. */
async function redo(
  disk: Disk,
  record: BinlogRecord,
  storePaths: ReadonlyMap<number, StorePath>,
  missing: Set<string>,
): Promise<FoundInSlot | undefined> {
  if (record.op === 'S') return undefined
  const parts = decodeFileName(record.name)
  const storePath = storePaths.get(parts.storePathIndex)
  if (storePath === undefined || storePath.failure !== undefined) {
    // The disk is not there: its files are not judged, and nothing on it is touched.
    return undefined
  }
  const isDelete = record.op === 'D' || record.op === 'd'
  if (parts.slot !== undefined) {
    // The bytes were durable before their record.
    if (isDelete) return storePath.segments.free(record.name, parts)
  } else if (isDelete) {
    missing.delete(record.name)
    await removeFile(disk, storePath, record.name)
  } else if (record.token !== undefined) {
    if (!(await placeAgain(disk, storePath, record.token, record.name))) missing.add(record.name)
  }
  return undefined
}

async function lastUploads(disk: Disk, directory: string, epoch: number, endSequence: number) {
  const after = Math.max(0, endSequence - UPLOAD_IDS_MAX)
  const uploads = new Map<string, Stored & { uploadId: string }>()
  for await (const { record } of readRecords(disk, directory, epoch, { after, until: endSequence }, () => {})) {
    // An upload that was withdrawn has to be possible again under its id.
    if (record.op === 'D') uploads.delete(record.name)
    else if (record.op === 'C' && record.uploadId !== undefined) {
      const { uploadId, name, sequence } = record
      uploads.set(name, { uploadId, name, sequence })
    }
  }
  return [...uploads.values()]
}

/** Nobody is on the way in when a server starts: what lies in `tmp` belongs to uploads that were never acknowledged. */
async function removeTemporaries(disk: Disk, storePaths: ReadonlyMap<number, StorePath>): Promise<number> {
  let removed = 0
  for (const storePath of storePaths.values()) {
    if (storePath.failure !== undefined) continue
    for (const name of await disk.list(storePath.temporaryPath(''))) {
      await disk.remove(storePath.temporaryPath(name))
      removed++
    }
  }
  return removed
}
