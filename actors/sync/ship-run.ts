/**
 * Ships records that follow each other in one frame, with the slots of their files: a small file must not cost a round
 * trip, nor a read. Slots that lie side by side are read at once, and sent as they lie.
 *
 *     records   C  C  D  C  C      the fourth was deleted meanwhile: it goes without its slot
 *     read      |-----|  |-----|
 *     sent      |-----|     |--|
 */

import { decodeFileName, type FileNameParts } from '../../protocol/file-id.ts'
import { COMMANDS } from '../../protocol/frame.ts'
import { type SyncContent, writeSyncRun } from '../../protocol/sync-bodies.ts'
import type { FrameClient } from '../../runtime/frame-client.ts'
import type { ReadRecord } from '../../store/binlog-reader.ts'
import { corruptSlot, stateOf } from '../../store/slot.ts'
import type { Store } from '../../store/store.ts'

/**
 * Slots of one run: enough for a write that is worth its sync, little enough for a buffer per peer. With its records a
 * run fits a buffer of 512 KiB: larger ones are made for whole pieces, and slow to take small ones from.
 */
const RUN_BYTES_MAX = 448 * 1024

const RUN_RECORDS_MAX = 512

/** A slot of a run, and where in the run's buffer it goes. */
interface RunSlot {
  readonly name: string
  readonly file: FileNameParts
  readonly fromBytes: number
  readonly untilBytes: number
}

interface RunRecord {
  readonly line: string
  readonly sequence: number
  readonly slot: RunSlot | undefined
  content: SyncContent
}

/** What a run asks of those who keep count of damage. */
export interface RunContext {
  readonly store: Store
  /** Whether a file goes without its bytes, because its disk did not give them often enough. */
  isUnreadable(name: string): boolean
  /** Takes note of a file that cannot be read; throws if that may pass. */
  noteUnreadable(name: string, error: unknown): void
}

/** Records on their way into one frame. */
export class Run {
  readonly #context: RunContext
  #records: RunRecord[] = []
  #slotBytes = 0
  /** One for each peer, as large as it has to be. */
  #buffer = Buffer.alloc(0)

  constructor(context: RunContext) {
    this.#context = context
  }

  get length(): number {
    return this.#records.length
  }

  /** Takes a record, if it is one for a run (a file that the peer holds needs no frame of its own) and there is room; an empty run has room for any. */
  add({ record: { op, name, sequence }, line }: ReadRecord, isHeld = false): boolean {
    if (op !== 'C' && op !== 'D') return false
    const file = op === 'C' ? decodeFileName(name) : undefined
    if (file !== undefined && file.slot === undefined && !isHeld) return false
    const isUnreadable = file !== undefined && this.#context.isUnreadable(name)
    const slotBytes = isUnreadable || isHeld ? 0 : (file?.slot?.slotBytes ?? 0)
    const untilBytes = this.#slotBytes + slotBytes
    const isFull = this.#records.length >= RUN_RECORDS_MAX || untilBytes > RUN_BYTES_MAX
    if (isFull && this.length > 0) return false
    const slot = slotBytes > 0 ? { name, file: file!, fromBytes: this.#slotBytes, untilBytes } : undefined
    this.#records.push({ line, sequence, slot, content: isHeld ? 'held' : isUnreadable ? 'unreadable' : 'none' })
    this.#slotBytes = untilBytes
    return true
  }

  /**
   * Sends all records and begins anew, when the frame has been sent; `done` resolves when they are durable at the peer.
   * `previous` is the sequence of the record shipped before them.
   */
  async ship(client: FrameClient, previous: number): Promise<{ sequence: number; done: Promise<unknown> }> {
    const records = this.#records
    if (this.#buffer.length < this.#slotBytes) this.#buffer = Buffer.allocUnsafeSlow(this.#slotBytes)
    this.#records = []
    this.#slotBytes = 0
    for (const slots of sideBySide(records)) await this.#readAll(slots)
    const sent = records.filter(record => this.#judge(record) === 'file').map(({ slot }) => slot!)
    const pieces = joined(sent).map(({ fromBytes, untilBytes }) => this.#buffer.subarray(fromBytes, untilBytes))
    const head = writeSyncRun({ storageId: this.#context.store.storageId, previous, records })
    const slotBytes = pieces.reduce((sum, piece) => sum + piece.length, 0)
    const bytes = head.length + slotBytes
    const { counters } = this.#context.store
    counters.total_sync_out_bytes += slotBytes
    let done: Promise<unknown> = Promise.resolve()
    await new Promise<void>((resolve, reject) => {
      done = client.exchange(COMMANDS.syncRun, bytes, send => send([head, ...pieces]).then(resolve), skip)
      done.then(() => {
        counters.success_sync_out_bytes += slotBytes
      }, reject)
    })
    return { sequence: records.at(-1)!.sequence, done }
  }

  /** What is to be said of a record, now that its slot was read. */
  #judge(record: RunRecord): SyncContent {
    const { slot } = record
    if (slot === undefined || record.content === 'unreadable') return record.content
    const state = stateOf(this.#buffer.subarray(slot.fromBytes, slot.untilBytes), slot.file)
    if (state === 'corrupt') this.#context.noteUnreadable(slot.name, corruptSlot(slot.name))
    record.content = state === 'present' ? 'file' : state === 'corrupt' ? 'unreadable' : 'none'
    return record.content
  }

  /** Reads slots that lie side by side; where that fails, each for itself, to know whose fault it is. */
  async #readAll(records: readonly RunRecord[]): Promise<void> {
    const slots = records.map(({ slot }) => slot!)
    try {
      await this.#read(slots[0]!, slots.at(-1)!)
    } catch {
      for (const [i, slot] of slots.entries()) {
        try {
          await this.#read(slot, slot)
        } catch (error) {
          this.#context.noteUnreadable(slot.name, error)
          records[i]!.content = 'unreadable'
        }
      }
    }
  }

  async #read(first: RunSlot, last: RunSlot): Promise<void> {
    const target = this.#buffer.subarray(first.fromBytes, last.untilBytes)
    const count = await this.#context.store.readSlots(first.file, target)
    target.fill(0, count)
  }
}

/** Records whose slots lie side by side on the disk, as they do in the buffer. */
function sideBySide(records: readonly RunRecord[]): RunRecord[][] {
  const ranges: RunRecord[][] = []
  for (const record of records) {
    if (record.slot === undefined) continue
    const last = ranges.at(-1)
    if (last !== undefined && follows(record.slot.file, last.at(-1)!.slot!.file)) last.push(record)
    else ranges.push([record])
  }
  return ranges
}

function follows(file: FileNameParts, before: FileNameParts): boolean {
  const [slot, last] = [file.slot!, before.slot!]
  return (
    file.storePathIndex === before.storePathIndex &&
    slot.segmentId === last.segmentId &&
    slot.offsetBytes === last.offsetBytes + last.slotBytes
  )
}

/** The same bytes in as few pieces as there can be. */
function joined(slots: readonly RunSlot[]): { fromBytes: number; untilBytes: number }[] {
  const pieces: { fromBytes: number; untilBytes: number }[] = []
  for (const { fromBytes, untilBytes } of slots) {
    const last = pieces.at(-1)
    if (last?.untilBytes === fromBytes) last.untilBytes = untilBytes
    else pieces.push({ fromBytes, untilBytes })
  }
  return pieces
}

async function skip(): Promise<void> {}
