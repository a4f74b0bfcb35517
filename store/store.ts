/** The one interface behind which files are kept; what is behind it may change without anybody in front noticing. */
import type { BinlogRecord, RecordOrigin } from '../protocol/binlog-record.ts'
import type { FileNameParts } from '../protocol/file-id.ts'
import type { ListPage } from '../protocol/list-bodies.ts'
import type { Succession } from '../protocol/orderers.ts'
import type { Counters } from '../protocol/statistics.ts'
import type { SourcePosition, StorePathReport } from '../protocol/storage-messages.ts'
import type { BinlogEnd, Flush } from './binlog.ts'
import type { BinlogCursor, ReadRecord, SequenceRange } from './binlog-reader.ts'
import type { ListWanted } from './file-list.ts'
import type { FileKind, IncomingFile } from './incoming-file.ts'
import type { IncomingMetadata } from './metadata-file.ts'
import type { Recovery } from './recovery.ts'
import type { SourceLife } from './source-lives.ts'
import type { OpenFile } from './stored-file.ts'

/** What recovery has to report. */
export type RecoveryReport = Omit<
  Recovery,
  | 'file'
  | 'fileBytes'
  | 'positions'
  | 'setBack'
  | 'uploads'
  | 'end'
  | 'ownEnd'
  | 'lastSequence'
  | 'skipped'
  | 'previousEpoch'
  | 'slots'
  | 'reopened'
  | 'catalogue'
  | 'uncounted'
>

/** A record of a source as a peer gets it: with the place of the shipped record before it, so that a gap is seen. */
export interface ShippedRecord {
  readonly origin: RecordOrigin
  /** The sequence of the source's record that was shipped before this one, 0 for the first of an epoch. */
  readonly previous: number
  readonly record: BinlogRecord
  /** What the record's name says. */
  readonly file: FileNameParts
  /** The source has the file and cannot read it: this member goes without. */
  readonly lacksFile?: boolean
  /** Others order the changes of this file now: the record counts, and what it says does not. */
  readonly isOverruled?: boolean
}

/** What comes with a record: a file of its own, a checked slot, metadata, or nothing. */
export type ShippedContent = IncomingFile | Uint8Array | IncomingMetadata | undefined

/** A record and what comes with it. */
export interface Shipment {
  readonly shipped: ShippedRecord
  readonly content: ShippedContent
  /** With a file: its metadata, which takes the place of what there is. */
  readonly metadata?: IncomingMetadata | undefined
}

/** A file of this source that is durable, and the place of its record in this epoch. */
export interface Stored {
  readonly name: string
  readonly sequence: number
}

/** What is to be kept of an upload, beside its bytes. */
export interface Upload {
  /** Without the dot; may be empty. */
  readonly extension: string
  readonly uploadId: string | undefined
  readonly isAppender?: boolean
}

/** The same of one whose bytes are at hand. */
export interface PackedUpload extends Upload {
  readonly storePathIndex: number
  readonly sizeBytes: number
  readonly crc32: number
}

/** What a copy is called: as a slave file, or as a new one with an extension. */
export interface CopyName {
  readonly slaveName: string | undefined
  readonly extension: string
}

/** Makes new metadata; `before` reads what there is. */
export type ChangeMetadata = (before: () => Promise<Buffer | undefined>) => Promise<Buffer>

/** Every failure is a DfsError or a DiskError. */
export interface Store {
  readonly storageId: number
  readonly group: string
  readonly epoch: number
  /** Names the data directory; 32 hex digits. */
  readonly incarnation: string
  /** Addresses and ids in names of files that were taken over from FastDFS, and are this source's now. */
  readonly formerly: readonly string[]
  readonly recovery: RecoveryReport
  /** What is counted in this life, by whoever works on the store. */
  readonly counters: Counters
  /** The last record that peers may have. */
  readonly end: BinlogEnd
  /** Between here and the end lies nothing that peers get from this server. */
  readonly ownEnd: number
  /** Why nothing can be changed any more, if so. */
  readonly failure: Error | undefined

  /** Opens a temporary file on a store path, or on one of the store's choice. Rejects with `no_space`. */
  receive(storePathIndex: number, expectedBytes: number, kind?: FileKind): Promise<IncomingFile>
  /**
   * Makes an uploaded file durable and visible, and names it; a known upload id gives the name it already has. The file
   * belongs to the store from here on, whatever happens.
   */
  create(file: IncomingFile, upload: Upload): Promise<Stored>
  /** The same for a slave file, which has its name already. Rejects with `already_exists`. */
  createSlave(file: IncomingFile, name: string): Promise<Stored>
  /**
   * Writes a part into an appender file of this source: at its end, or at an offset that is not behind it. The part belongs to
   * the store from here on. Undefined if the file is not here; rejects with `bad_range`.
   */
  writeAppender(name: string, part: IncomingFile, offset?: number): Promise<Stored | undefined>
  /** Cuts an appender file of this source; false if it is not here. Rejects with `bad_range` if it is shorter. */
  truncateAppender(name: string, sizeBytes: number): Promise<boolean>
  /** Makes a plain file of an appender file of this source, under a new name; undefined if it is not here. */
  regenerate(name: string): Promise<Stored | undefined>
  /**
   * Makes a file of this source with the content of another one, whoever's that is; undefined if it is not here. `buffer` has
   * room for its slot, or for a block. Rejects with `already_exists`.
   */
  copy(name: string, as: CopyName, buffer: Buffer): Promise<Stored | undefined>
  /** Whether a file of this size is packed into a segment. */
  packs(sizeBytes: number): boolean
  /**
   * The same for a small file at hand: `slot` has `slotBytesFor` its size, the file behind room for the header, and must
   * not change before it is done.
   */
  pack(slot: Buffer, upload: PackedUpload): Promise<Stored>
  /** Opens a file of its own by its name; undefined if it is not here. `once` is for who does not read it again soon. */
  open(name: string, times?: 'once'): Promise<OpenFile | undefined>
  /** Opens what a record has written into an appender file; undefined if it waits there no more. */
  openPart(file: FileNameParts, token: string): Promise<OpenFile | undefined>
  /** A file that was read lately. */
  cached(name: string): Buffer | undefined
  /** Reads a file that is in a segment, checked, into a buffer with room for its slot; undefined if it is not here. */
  read(name: string, file: FileNameParts, target: Buffer): Promise<Buffer | undefined>
  /** Reads what is in a file's slot and behind it, unchecked; returns how many bytes there were. */
  readSlots(file: FileNameParts, target: Uint8Array): Promise<number>
  /** Whether a file is here. */
  has(name: string): Promise<boolean>
  /** Deletes a file of this source; false if it is not here. */
  delete(name: string): Promise<boolean>
  /**
   * The metadata of a file as it lies here; undefined if there is none. What the record of a `token` set and its disk failed at
   * is done at the next start, and counts.
   */
  readMetadata(file: FileNameParts, token?: string): Promise<Buffer | undefined>
  /** Replaces the metadata of a file of this source by what `change` makes of it; false if the file is not here. */
  changeMetadata(name: string, change: ChangeMetadata): Promise<boolean>
  /** Makes metadata of a peer's file durable, before its record is applied. */
  receiveMetadata(file: FileNameParts, metadata: Buffer): Promise<IncomingMetadata>

  /**
   * Whether it is known here that a file which is not here was deleted: its slot says so, or this is its source and the
   * record that made it can be read.
   */
  knowsDeletion(name: string): Promise<boolean>

  /**
   * Whether a file was made by this source before it had this directory, or before it lost something of it: what is here
   * does not tell all of its past.
   */
  isOfEarlierLife(file: FileNameParts): boolean

  /** How far the records of a source have been applied here. */
  position(storageId: number): SourcePosition | undefined
  readonly positions: readonly SourcePosition[]
  /** Says whose records of a source are taken: of the life that asks, if its epoch is new here. */
  settleSource(asking: SourceLife): Promise<SourceLife>
  /**
   * Who orders the changes of this source's files has changed, or may have: before records of another one who does are
   * applied.
   */
  changeHands(succession: Succession | undefined): Promise<void>
  /** Files that were changed here and by another member, and kept aside as they were. */
  readonly asideCount: number
  /**
   * Applies records of a source that follow each other; they take effect in the order of the calls, and only once. The
   * contents belong to the store from here on; slots must not change before this is done. Rejects with `bad_request` if a
   * record in between has not been applied.
   */
  apply(shipments: readonly Shipment[]): Promise<void>
  /** Reads the binlog. */
  readRecords(range: SequenceRange): AsyncGenerator<ReadRecord>
  /** The same, many records at a time; a cursor lets the next call go on without searching. */
  readRecordPages(range: SequenceRange, cursor?: BinlogCursor): AsyncGenerator<readonly ReadRecord[]>

  /** Calls back after every flush, when its records may be shipped. */
  onFlush(listener: (flush: Flush) => void): void
  /** Measures the disks anew. */
  measure(): Promise<readonly StorePathReport[]>
  readonly storePaths: readonly StorePathReport[]
  /**
   * Names of whatever lies in the first directory of plain files there is from an index on, in order; undefined behind the
   * last. Rejects if the disk of the store path is not there.
   */
  namesFrom(
    storePathIndex: number,
    directoryIndex: number,
  ): Promise<{ directoryIndex: number; names: readonly string[] } | undefined>
  /** The files that are here, some at a time, in the order of protocol/list-bodies.ts. Rejects like `namesFrom`. */
  list(wanted: ListWanted): Promise<ListPage>
  /** Whether the disk of a file is there and good. */
  isSound(file: FileNameParts): Promise<boolean>
  /** Takes note of a read or write that failed on a file's disk. */
  noteFailure(name: string, error: unknown): void
  /** Finishes what is under way, writes a checkpoint, lets go of the directory. */
  close(): Promise<void>
}
