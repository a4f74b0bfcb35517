/**
 * The way of a scrub through everything that is kept, a piece at a time.
 *
 *     slots    record after record, oldest first: the file each tells of is in the slot that its name says
 *     plain    directory after directory: the name of a file, or its sidecar, says what is in it; metadata has a check
 *
 * Slots are found by their records, because a header cannot vouch for itself: it has no checksum of its own, and what is
 * in a segment without a record is what a crash left, and no file.
 */
import type { BinlogRecord } from '../protocol/binlog-record.ts'
import { decodeFileName, type FileNameParts } from '../protocol/file-id.ts'
import type { Log } from '../runtime/log.ts'
import { type Disk, DiskError } from '../runtime/world.ts'
import { binlogDirectory, epochAfter } from './binlog-files.ts'
import { type BinlogCursor, readRecords } from './binlog-reader.ts'
import { BLOCK_BYTES } from './block-pool.ts'
import { fileOf, PlainWalk } from './plain-walk.ts'
import type { Quarantine } from './quarantine.ts'
import {
  beginningOf,
  type FilePiece,
  type FileReading,
  judgeSlot,
  readPiece,
  SEEK_BYTES,
  type Verdict,
  verdictOn,
} from './scrub-file.ts'
import type { ScrubPosition } from './scrub-mark.ts'
import type { Store } from './store.ts'

/** Records of one piece: what a page of the binlog holds. */
const RECORDS_MAX = 512

/** Slots of one piece, and the largest that is read with others. */
const SLOTS_BYTES = BLOCK_BYTES
const SMALL_SLOT_BYTES = BLOCK_BYTES / 4

const SLOTS_END: ScrubPosition = { phase: 'plain', storePathIndex: 0, directoryIndex: 0, after: '' }

/** What one piece of the way came to. */
export interface WalkPiece {
  readonly position: ScrubPosition
  readonly bytes: number
  /** Files that are neither good nor gone. */
  readonly found: readonly { readonly name: string; readonly verdict: Verdict }[]
  /** Files that were deleted, as the records say. */
  readonly deleted: readonly string[]
  /** A file to be read before the next piece. */
  readonly file?: FileReading
}

interface SlotRecord {
  readonly name: string
  readonly file: FileNameParts
}

export class ScrubWalk {
  readonly #disk: Disk
  readonly #dataDirectory: string
  readonly #store: Store
  readonly #plainWalk: PlainWalk
  readonly #quarantine: Quarantine
  readonly #log: Log
  readonly #buffer = Buffer.allocUnsafeSlow(SLOTS_BYTES + SMALL_SLOT_BYTES)
  #cursor: BinlogCursor = {}

  /** Files in quarantine are passed by. */
  constructor(parts: { disk: Disk; dataDirectory: string; store: Store; quarantine: Quarantine; log: Log }) {
    this.#disk = parts.disk
    this.#dataDirectory = parts.dataDirectory
    this.#store = parts.store
    this.#plainWalk = new PlainWalk(parts.store)
    this.#quarantine = parts.quarantine
    this.#log = parts.log
  }

  /** Reads the next piece of a file. */
  read(file: FileReading): Promise<FilePiece> {
    return readPiece(this.#store, file, this.#buffer)
  }

  /** Goes one piece further. What cannot be walked is left for the next pass. */
  async next(position: ScrubPosition): Promise<WalkPiece> {
    try {
      if (position.phase === 'slots') return await this.#slots(position)
      if (position.phase === 'plain') return await this.#plain(position)
      return piece(position)
    } catch (error) {
      if (!(error instanceof DiskError)) throw error
      this.#log.warn({ err: error, position }, 'the scrub cannot go on here')
      if (position.phase !== 'plain') return piece(SLOTS_END)
      return piece({ phase: 'plain', storePathIndex: position.storePathIndex + 1, directoryIndex: 0, after: '' })
    }
  }

  async #slots(position: ScrubPosition & { phase: 'slots' }): Promise<WalkPiece> {
    const { epoch } = position
    const directory = binlogDirectory(this.#dataDirectory)
    const isLast = epoch === this.#store.epoch
    const range = { after: position.sequence, until: isLast ? this.#store.end.sequence : Number.POSITIVE_INFINITY }
    const slots: SlotRecord[] = []
    const deleted: string[] = []
    let { sequence } = position
    let [records, slotBytes, lineBytes] = [0, 0, SEEK_BYTES]
    let large: string | undefined
    for await (const { record, line } of readRecords(this.#disk, directory, epoch, range, ignore, this.#cursor)) {
      sequence = record.sequence
      records++
      lineBytes += line.length
      if (record.op === 'D' || record.op === 'd') deleted.push(record.name)
      const slot = this.#slotOf(record)
      if (slot !== undefined && slot.file.slot!.slotBytes > SMALL_SLOT_BYTES) large = slot.name
      else if (slot !== undefined) {
        slots.push(slot)
        slotBytes += slot.file.slot!.slotBytes
      }
      if (large !== undefined || records >= RECORDS_MAX || slotBytes >= SLOTS_BYTES) break
    }
    if (records === 0) {
      const next = isLast ? undefined : await epochAfter(this.#disk, directory, epoch)
      return piece(next === undefined ? SLOTS_END : { phase: 'slots', epoch: next, sequence: 0 })
    }
    const found: { name: string; verdict: Verdict }[] = []
    // Of a slot that was damaged before its file was deleted, only the record tells.
    const runs = sideBySide(slots.filter(({ name }) => !deleted.includes(name)))
    for (const run of runs) await this.#check(run, found)
    const bytes = lineBytes + slotBytes + runs.length * SEEK_BYTES
    const file = large === undefined ? {} : { file: beginningOf(large) }
    return { position: { phase: 'slots', epoch, sequence }, bytes, found, deleted, ...file }
  }

  /** The slot that a record has filled. A peer's record without one is of a file that was deleted before it came, or damaged. */
  #slotOf({ op, name, inSlot }: BinlogRecord): SlotRecord | undefined {
    if (op !== 'C' && (op !== 'c' || !inSlot)) return undefined
    const file = decodeFileName(name)
    if (file.slot === undefined || file.storePathIndex >= this.#store.storePaths.length) return undefined
    return this.#quarantine.has(name) ? undefined : { name, file }
  }

  /** Reads slots that lie side by side; where that fails, each for itself, to know whose fault it is. */
  async #check(run: readonly SlotRecord[], found: { name: string; verdict: Verdict }[]): Promise<void> {
    const target = this.#buffer.subarray(
      0,
      run.reduce((sum, { file }) => sum + file.slot!.slotBytes, 0),
    )
    try {
      target.fill(0, await this.#store.readSlots(run[0]!.file, target))
    } catch (error) {
      if (run.length > 1) for (const slot of run) await this.#check([slot], found)
      else found.push({ name: run[0]!.name, verdict: await verdictOn(this.#store, run[0]!.file, error) })
      return
    }
    let fromBytes = 0
    for (const { name, file } of run) {
      const verdict = judgeSlot(target.subarray(fromBytes, fromBytes + file.slot!.slotBytes), file)
      if (verdict.is !== 'good' && verdict.is !== 'gone') found.push({ name, verdict })
      fromBytes += file.slot!.slotBytes
    }
  }

  async #plain(position: ScrubPosition & { phase: 'plain' }): Promise<WalkPiece> {
    const found = await this.#plainWalk.next(position, name => this.#isRead(name))
    if (found === undefined) return piece({ phase: 'known' })
    const { place, name } = found
    if (name === undefined) return piece({ phase: 'plain', ...place })
    return { ...piece({ phase: 'plain', ...place }, 0), file: beginningOf(name) }
  }

  /** Whether a name is that of a file, or of metadata. A sidecar goes with its file; what people have put there is no matter of ours. */
  #isRead(name: string): boolean {
    return fileOf(name) !== undefined && !this.#quarantine.has(name)
  }
}

function piece(position: ScrubPosition, bytes = SEEK_BYTES): WalkPiece {
  return { position, bytes, found: [], deleted: [] }
}

/** Slots in the order of their places, in runs without a gap. */
function sideBySide(slots: SlotRecord[]): SlotRecord[][] {
  const runs: SlotRecord[][] = []
  for (const slot of slots.sort((a, b) => compare(a.file, b.file))) {
    const last = runs.at(-1)
    if (last !== undefined && follows(slot.file, last.at(-1)!.file)) last.push(slot)
    else runs.push([slot])
  }
  return runs
}

function compare(a: FileNameParts, b: FileNameParts): number {
  return (
    a.storePathIndex - b.storePathIndex ||
    a.storageId! - b.storageId! ||
    a.slot!.segmentId - b.slot!.segmentId ||
    a.slot!.offsetBytes - b.slot!.offsetBytes
  )
}

function follows(file: FileNameParts, before: FileNameParts): boolean {
  return (
    file.storePathIndex === before.storePathIndex &&
    file.storageId === before.storageId &&
    file.slot!.segmentId === before.slot!.segmentId &&
    file.slot!.offsetBytes === before.slot!.offsetBytes + before.slot!.slotBytes
  )
}

/** A damaged record is told of by those who ship it. */
function ignore(): void {}
