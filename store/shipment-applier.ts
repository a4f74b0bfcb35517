/** Gives records of peers to our binlog, with what comes with them. */
import type { BinlogOp, BinlogRecord } from '../protocol/binlog-record.ts'
import { DfsError } from '../protocol/errors.ts'
import { allDone } from './all-done.ts'
import { type Applier, discard } from './applied-records.ts'
import type { AsideFiles } from './aside-files.ts'
import { type Binlog, NotRecordedError, type RecordDraft } from './binlog.ts'
import type { Effects } from './effects.ts'
import { groupBy } from './group-by.ts'
import { IncomingFile } from './incoming-file.ts'
import { IncomingMetadata } from './metadata-file.ts'
import { placeOf } from './segments.ts'
import type { SlotSpace } from './slot-space.ts'
import type { Shipment } from './store.ts'
import type { StorePath } from './store-path.ts'
import type { StorePaths } from './store-paths.ts'

export interface ApplierParts {
  readonly paths: StorePaths
  readonly aside: AsideFiles
  readonly slotSpace: SlotSpace
  readonly effects: Effects
  readonly binlog: Binlog
  readonly seal: (file: IncomingFile) => Promise<void>
  readonly onApplied: () => void
}

/** What is applied from a peer. */
const LOWER: Readonly<Record<string, BinlogOp>> = { C: 'c', D: 'd', U: 'u', A: 'a', M: 'm', T: 't' }

export class ShipmentApplier implements Applier {
  readonly #parts: ApplierParts

  constructor(parts: ApplierParts) {
    this.#parts = parts
  }

  /** Files are durable, slots have room, what was changed here and is changed by others is kept. */
  async prepare(shipments: readonly Shipment[]): Promise<void> {
    const { paths, aside, slotSpace, seal } = this.#parts
    const files = shipments.map(({ content }) => content).filter(content => content instanceof IncomingFile)
    const packed = shipments.filter(({ content }) => content instanceof Uint8Array)
    const named = packed.map(({ shipped: { record, file } }) => ({ name: record.name, file, reused: record.reused }))
    const byPath = groupBy(named, ({ file }) => paths.of(file))
    if (aside.isExpecting) for (const { shipped } of shipments) await aside.keep(shipped.record.name)
    await Promise.all([
      ...files.map(file => seal(file)),
      ...[...byPath].map(async ([path, group]) => {
        for (const { file } of await path.segments.expectRoom(group)) slotSpace.doubt(file)
      }),
    ])
  }

  /** Throws if the store path that a record is about is not there, or cannot be written to. */
  admit({ shipped: { file, record }, content }: Shipment): void {
    const { paths } = this.#parts
    if (content instanceof Uint8Array && !record.reused) paths.choose(file.storePathIndex, content.length)
    else paths.of(file)
  }

  async append(shipments: readonly Shipment[]): Promise<void> {
    const appended = this.#parts.binlog.appendAll(() => shipments.flatMap(shipment => this.#draftsOf(shipment)))
    await appended.catch(async error => {
      if (error instanceof NotRecordedError) await allDone(shipments.map(discard))
      throw error
    })
    this.#parts.onApplied()
  }

  /** Metadata that comes with a file stands in front of it, at the place before: without the file, both are shipped again. */
  #draftsOf({ shipped, content, metadata }: Shipment): RecordDraft[] {
    const draft = this.#draftOf({ shipped, content })
    if (metadata === undefined) return [draft]
    const record = { ...shipped.record, op: 'U' as const }
    const origin = { ...shipped.origin, sequence: shipped.previous }
    return [this.#draftOf({ shipped: { ...shipped, record, origin }, content: metadata }), draft]
  }

  #draftOf({ shipped, content }: Shipment): RecordDraft {
    const { origin, record, lacksFile } = shipped
    const { name, timeMs, uploadId } = record
    const { token, range, inSlot, reused, slot, effect } = this.#workOf({ shipped, content })
    return {
      op: LOWER[record.op]!,
      name,
      token,
      range,
      inSlot,
      reused,
      lacksFile,
      origin,
      uploadId,
      slot,
      timeMs,
      effect,
    }
  }

  /** What is to be written and done for a record. */
  #workOf({ shipped, content }: Shipment): Omit<RecordDraft, 'op' | 'name'> {
    const { effects, paths } = this.#parts
    const { record, file } = shipped
    const { name } = record
    const path = paths.of(file)
    if (record.op === 'D') return { effect: () => effects.remove(path, name) }
    if (record.range !== undefined) return this.#changeOf(path, { shipped, content }, record.range)
    if (content === undefined) return {}
    if (content instanceof IncomingFile) {
      const { token } = content
      return { token, effect: () => effects.place(path, token, name) }
    }
    if (content instanceof IncomingMetadata) {
      const { token } = content
      return { token, effect: () => effects.placeMetadata(path, file, token) }
    }
    const { storePathIndex } = file
    const { storageId, segmentId, offsetBytes, directory } = placeOf(file)
    const { reused } = record
    return {
      inSlot: true,
      reused,
      slot: { storePathIndex, storageId, segmentId, offsetBytes, directory, bytes: content, reused },
    }
  }

  /** What was done to an appender file; of bytes that are there no more, something that comes later tells. */
  #changeOf(
    path: StorePath,
    { shipped: { file, record }, content }: Shipment,
    { offset }: NonNullable<BinlogRecord['range']>,
  ): Pick<RecordDraft, 'token' | 'range' | 'effect'> {
    const part = content instanceof IncomingFile ? content : undefined
    const token = part?.token
    const range = { offset, bytes: part?.sizeBytes ?? 0 }
    if (part === undefined && record.op !== 'T') return { range }
    const { effects, binlog } = this.#parts
    const effect = () =>
      effects.change(path, file, binlog.reach.given, { offset, token }).catch(error => {
        // Our copy is damaged, and reads so: that must not keep all that follows from us.
        if (!(error instanceof DfsError)) throw error
      })
    return { token, range, effect }
  }
}
