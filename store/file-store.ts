/** The store: small files in slots of segments, all others in files of their own, and one binlog for both. */
import { join } from 'node:path'
import { DfsError } from '../protocol/errors.ts'
import {
  decodeFileName,
  encodeFileName,
  type FileNameParts,
  SALT_BITS,
  STORAGE_ID_MAX,
  tailOf,
} from '../protocol/file-id.ts'
import {
  type SourcePosition,
  STORE_PATH_ANY,
  STORE_PATHS_MAX,
  type StorePathReport,
} from '../protocol/storage-messages.ts'
import type { Log } from '../runtime/log.ts'
import type { Timers } from '../runtime/timers.ts'
import { DiskError, type DiskLock, type World } from '../runtime/world.ts'
import { allDone } from './all-done.ts'
import { AppliedRecords, discard } from './applied-records.ts'
import { Binlog, type BinlogEnd, type Flush, NotRecordedError, type RecordDraft } from './binlog.ts'
import { binlogDirectory } from './binlog-files.ts'
import { type BinlogCursor, type ReadRecord, readRecordPages, type SequenceRange } from './binlog-reader.ts'
import { type SlotEnd, writeCheckpoint } from './checkpoint.ts'
import { makeDurableDirectory } from './durable-directory.ts'
import { groupBy } from './group-by.ts'
import { HotFiles } from './hot-files.ts'
import { type Identity, nextWriter, openIdentity, writeIdentity } from './identity.ts'
import { IncomingFile, isCached } from './incoming-file.ts'
import type { OnPhase } from './phase.ts'
import { directoryIndexOf, placeFile, removeFile, removeTemporary } from './placing.ts'
import { recordStart } from './record-start.ts'
import { type Recovery, recover } from './recovery.ts'
import { type SlotBytes, writerOf } from './segments.ts'
import { nameOfSlot, PACKED_BYTES_MAX, slotBytesFor, writeSlotHeader } from './slot.ts'
import type { SlotCatalogue } from './slot-catalogue.ts'
import { REUSE, type ReuseOptions, SlotSpace } from './slot-space.ts'
import { type SourceLife, SourceLives } from './source-lives.ts'
import type { PackedUpload, RecoveryReport, Shipment, Store, Stored, Upload } from './store.ts'
import { StorePath } from './store-path.ts'
import { StoredFile } from './stored-file.ts'
import { UploadIds } from './upload-ids.ts'

/**
 * Recovery reads at most so many records, and does so many of them again, or this much time's worth. That a file is in its
 * slot need not be done again.
 */
const CHECKPOINT_RECORDS = 50_000
const CHECKPOINT_CHANGES = 2000
const CHECKPOINT_MS = 10_000

/** Errors after which a disk is not written to again; a full one heals by itself. */
const HARMLESS = new Set(['ENOSPC', 'EDQUOT', 'ENOENT', 'EEXIST'])

export interface StoreOptions {
  readonly dataDirectory: string
  readonly group: string
  /** Given, or kept from the first start, or chosen at random then. */
  readonly storageId?: number
  /** Empty for one store path inside the data directory. */
  readonly storePaths: readonly string[]
  readonly storePathChoice: 'round_robin' | 'most_free'
  readonly reservedBytes: number
  /** Larger files get a file of their own; 0 for all of them. */
  readonly segmentFileBytesMax: number
  /** Memory for small files that were read lately. */
  readonly hotFileBytes: number
  /** `os` acknowledges what the system has taken: a power cut may lose it. */
  readonly durability: Durability
  /** How slots of deleted files are used again; tests are in a hurry. */
  readonly reuse?: ReuseOptions | undefined
  readonly onPhase?: OnPhase | undefined
}

export type Durability = 'fsync' | 'os'

/** What a data directory is opened with: identity and lock come first, because an epoch may have to be raised before the rest. */
export interface OpenDirectory {
  readonly identity: Identity
  readonly lock: DiskLock
}

/** Locks a data directory and reads whose it is. Rejects with a DiskError (`EEXIST`) if another process has it. */
export async function openDirectory(world: World, options: StoreOptions): Promise<OpenDirectory> {
  await makeDurableDirectory(world.disk, options.dataDirectory)
  const lock = await world.disk.lock(options.dataDirectory)
  try {
    const wanted = { storageId: options.storageId, group: options.group }
    const identity = await openIdentity(
      world.disk,
      world.random,
      world.clock.wallMs(),
      options.dataDirectory,
      wanted,
      STORAGE_ID_MAX,
    )
    return { identity, lock }
  } catch (error) {
    await lock.release()
    throw error
  }
}

/** Takes a higher epoch: this id has lived before, in a directory that is gone. */
export async function raiseEpoch(world: World, options: StoreOptions, identity: Identity, epoch: number) {
  const raised = { ...identity, epoch, writer: nextWriter(identity.writer) }
  await writeIdentity(world.disk, options.dataDirectory, raised)
  return raised
}

export class FileStore implements Store {
  readonly storageId: number
  readonly group: string
  readonly epoch: number
  readonly incarnation: string
  readonly recovery: RecoveryReport
  readonly #world: World
  readonly #options: StoreOptions
  readonly #identity: Identity
  readonly #log: Log
  readonly #onPhase: OnPhase
  readonly #paths: ReadonlyMap<number, StorePath>
  readonly #binlog: Binlog
  readonly #uploads = new UploadIds()
  readonly #lives: SourceLives
  readonly #hotFiles: HotFiles
  readonly #catalogue: SlotCatalogue
  readonly #slotSpace: SlotSpace
  /** Where the slots end that have records, by store path; `#slotEnds` as of the binlog's end. */
  readonly #recordedSlots: Map<number, SlotEnd>
  #slotEnds: readonly SlotEnd[]
  /** Files of ours that are being deleted. */
  readonly #deleting = new Map<string, Promise<unknown>>()
  readonly #applied: AppliedRecords
  #stopTicks: readonly (() => void)[] = []
  /** Whatever a start has to record is recorded: before, no checkpoint may say so. */
  #begun = false
  #tokens = 0
  #pathTurn = 0
  #checkpointed: number
  /** Renames and removals since the last checkpoint. */
  #changes = 0
  #checkpointing: Promise<void> | undefined
  #looking: Promise<void> | undefined

  private constructor(
    world: World,
    log: Log,
    options: StoreOptions,
    identity: Identity,
    paths: ReadonlyMap<number, StorePath>,
    recovered: Recovery,
    lives: SourceLives,
  ) {
    this.#world = world
    this.#options = options
    this.#identity = identity
    this.#log = log
    this.#onPhase = options.onPhase ?? ignore
    this.#paths = paths
    this.storageId = identity.storageId
    this.group = identity.group
    this.epoch = identity.epoch
    this.incarnation = identity.incarnation
    this.#lives = lives
    this.#hotFiles = new HotFiles(options.hotFileBytes)
    this.#applied = new AppliedRecords(recovered.positions, {
      prepare: shipments => this.#prepare(shipments),
      admit: shipment => this.#admit(shipment),
      append: shipments => this.#appendShipped(shipments),
    })
    this.#slotEnds = recovered.slots
    this.#recordedSlots = new Map(recovered.slots.map(end => [end.storePathIndex, end]))
    this.#catalogue = recovered.catalogue
    this.#slotSpace = new SlotSpace(
      recovered.catalogue,
      recovered,
      paths,
      identity,
      world.clock,
      options.reuse ?? REUSE,
      (path, error) => this.#noteFailure(path, error),
    )
    this.#checkpointed = recovered.end.sequence
    this.#binlog = new Binlog(world.disk, world.clock, {
      ...recovered,
      directory: binlogDirectory(options.dataDirectory),
      epoch: identity.epoch,
      syncs: options.durability === 'fsync',
      slotKeeper: {
        put: slots => this.#putSlots(slots),
        recorded: slots => this.#noteSlots(slots),
      },
    })
    for (const { uploadId, ...stored } of recovered.uploads) this.#uploads.set(uploadId, Promise.resolve(stored))
    const { checkpointDamaged, redone, tornBytes, damagedLines, orphans, missing, removedTemporaries } = recovered
    this.recovery = { checkpointDamaged, redone, tornBytes, damagedLines, orphans, missing, removedTemporaries }
    this.#binlog.onFlush(({ sequence }) => {
      this.#slotSpace.flushed()
      this.#slotEnds = [...this.#recordedSlots.values()]
      const isDue = sequence - this.#checkpointed >= CHECKPOINT_RECORDS || this.#changes >= CHECKPOINT_CHANGES
      if (isDue) void this.#checkpoint()
    })
  }

  #startTicks(timers: Timers): void {
    this.#stopTicks = [
      every(timers, CHECKPOINT_MS, () => void this.#checkpoint()),
      every(timers, this.#slotSpace.lookMs, () => void this.lookAfterSlots()),
    ]
  }

  /** Recovers a data directory and opens it. */
  static async open(
    world: World,
    timers: Timers,
    log: Log,
    options: StoreOptions,
    identity: Identity,
  ): Promise<FileStore> {
    const roots = options.storePaths.length > 0 ? options.storePaths : [join(options.dataDirectory, 'store')]
    if (roots.length > STORE_PATHS_MAX) throw new RangeError(`at most ${STORE_PATHS_MAX} store paths`)
    const paths = new Map<number, StorePath>()
    for (const [index, root] of roots.entries()) {
      const seen = index < identity.storePathCount
      const { incarnation } = identity
      const { reservedBytes, durability } = options
      const syncs = durability === 'fsync'
      const path = await StorePath.open(world.disk, index, root, { reservedBytes, incarnation, seen, syncs })
      if (path.failure !== undefined) log.error({ err: path.failure, storePath: index }, 'a store path is missing')
      paths.set(index, path)
    }
    if (roots.length > identity.storePathCount) {
      await writeIdentity(world.disk, options.dataDirectory, { ...identity, storePathCount: roots.length })
    }
    const present = [...paths.values()].filter(path => path.failure === undefined)
    const recovered = await recover(world.disk, options.dataDirectory, identity, paths)
    for (const { failure, index } of present) {
      if (failure !== undefined) log.error({ err: failure, storePath: index }, 'a store path failed and takes no files')
    }
    if (recovered.uncounted)
      log.warn('the catalogue of segments cannot be read: all of them will be counted, which takes a while')
    const lives = await SourceLives.read(world.disk, options.dataDirectory)
    const store = new FileStore(world, log, options, identity, paths, recovered, lives)
    await store.#slotSpace.settle()
    await store.#begin(recovered)
    if (store.#begun && !store.#hasFailedPath) await store.#writeCheckpoint()
    store.#startTicks(timers)
    return store
  }

  get end(): BinlogEnd {
    return this.#binlog.end
  }

  get failure(): Error | undefined {
    return this.#binlog.failure
  }

  async receive(storePathIndex: number, expectedBytes: number): Promise<IncomingFile> {
    if (this.failure !== undefined) throw new DfsError('unavailable', 'this storage server takes no changes now')
    const path = this.#choosePath(storePathIndex, expectedBytes)
    return this.#newFile(path, expectedBytes)
  }

  async create(file: IncomingFile, upload: Upload): Promise<Stored> {
    let isNew = false
    const make = () => {
      isNew = true
      return this.#create(file, upload)
    }
    try {
      return await this.#once(upload, make)
    } finally {
      if (!isNew) await file.discard()
    }
  }

  packs(sizeBytes: number): boolean {
    const { segmentFileBytesMax } = this.#options
    return segmentFileBytesMax > 0 && sizeBytes <= Math.min(segmentFileBytesMax, PACKED_BYTES_MAX)
  }

  pack(slot: Buffer, upload: PackedUpload): Promise<Stored> {
    return this.#once(upload, () => this.#pack(slot, upload))
  }

  cached(name: string): Buffer | undefined {
    return this.#hotFiles.get(name)
  }

  async read(name: string, file: FileNameParts, target: Buffer): Promise<Buffer | undefined> {
    const { removals } = this.#hotFiles
    const content = await this.#found(file, this.#pathOf(file).segments.read(name, file, target))
    if (content !== undefined) this.#hotFiles.keep(name, content, removals)
    return content
  }

  async open(name: string, times?: 'once'): Promise<StoredFile | undefined> {
    const parts = decodeFileName(name)
    if (parts.sizeBytes === undefined) throw notKept()
    const path = this.#pathOf(parts)
    const way = times === 'once' && !isCached(parts.sizeBytes) ? 'direct' : undefined
    try {
      return await StoredFile.open(this.#world.disk, path.pathOf(parts), parts.sizeBytes, parts.crc32, way)
    } catch (error) {
      if ((error as DiskError).errno !== 'ENOENT') throw error
      await checkSound(path)
      return undefined
    }
  }

  async readSlots(file: FileNameParts, target: Uint8Array): Promise<number> {
    const path = this.#pathOf(file)
    const count = await path.segments.readRaw(file, target)
    if (count < target.length) await checkSound(path)
    return count
  }

  async has(name: string): Promise<boolean> {
    const file = decodeFileName(name)
    if (file.sizeBytes === undefined) throw notKept()
    const found = await this.#found(
      file,
      this.#isInPlace(name, file).then(isThere => isThere || undefined),
    )
    return found === true
  }

  async delete(name: string): Promise<boolean> {
    const before = this.#deleting.get(name)
    // Two at once are one: a file is deleted only once.
    if (before !== undefined) {
      await before
      return true
    }
    if (!(await this.has(name))) return false
    const path = this.#pathOf(decodeFileName(name))
    const deleted =
      this.#deleting.get(name) ?? this.#binlog.append(() => ({ op: 'D', name, effect: () => this.#remove(path, name) }))
    this.#deleting.set(name, deleted)
    try {
      await deleted
    } finally {
      this.#deleting.delete(name)
    }
    return true
  }

  async knowsDeletion(name: string): Promise<boolean> {
    const file = decodeFileName(name)
    if (file.slot !== undefined) {
      return (await this.#pathOf(file).segments.stateOf(name, file)) === 'deleted' || this.#isRemoved(file)
    }
    return file.storageId === this.storageId && this.#hasRecordOf(name, file)
  }

  /** Whether a file was in a segment that is not there any more: as a peer, if it had come before. */
  #isRemoved(file: FileNameParts): boolean {
    if (!this.#slotSpace.isRemoved(file)) return false
    if (file.storageId === this.storageId) return true
    const position = this.position(file.storageId!)
    if (position === undefined || position.epoch > 1 || position.incomplete) return false
    return Math.floor(position.timeMs / 1000) > file.createTimeS
  }

  async #hasRecordOf(name: string, { salt }: FileNameParts): Promise<boolean> {
    if (salt === undefined) return false
    // The salt is the low bits of the sequence; a binlog long enough has a few that fit.
    const last = this.end.sequence - ((this.end.sequence - salt) % 2 ** SALT_BITS)
    for (let sequence = last; sequence > 0; sequence -= 2 ** SALT_BITS) {
      for await (const { record } of this.readRecords({ after: sequence - 1, until: sequence })) {
        if (record.name === name) return true
      }
    }
    return false
  }

  isOfEarlierLife({ storageId, slot, createTimeS }: FileNameParts): boolean {
    if (storageId !== this.storageId) return false
    const { writer, madeS } = this.#identity
    return slot === undefined ? createTimeS < madeS : writerOf(slot.segmentId) !== writer
  }

  position(storageId: number): SourcePosition | undefined {
    return this.#applied.position(storageId)
  }

  get positions(): readonly SourcePosition[] {
    return this.#applied.positions
  }

  settleSource(asking: SourceLife): Promise<SourceLife> {
    return this.#lives.settle(asking)
  }

  apply(shipments: readonly Shipment[]): Promise<void> {
    return this.#applied.apply(shipments)
  }

  async *readRecords(range: SequenceRange): AsyncGenerator<ReadRecord> {
    for await (const page of this.readRecordPages(range)) yield* page
  }

  readRecordPages(range: SequenceRange, cursor?: BinlogCursor): AsyncGenerator<readonly ReadRecord[]> {
    return this.#read(this.epoch, range, cursor)
  }

  onFlush(listener: (flush: Flush) => void): void {
    this.#binlog.onFlush(listener)
  }

  async measure(): Promise<readonly StorePathReport[]> {
    await Promise.all([...this.#paths.values()].map(path => path.measure()))
    return this.storePaths
  }

  get storePaths(): readonly StorePathReport[] {
    return [...this.#paths.values()].map(path => ({
      ...path.report,
      reusableBytes: this.#slotSpace.reusableBytes(path.index),
    }))
  }

  /** Looks after free slots and segments, as it is done every now and then. */
  lookAfterSlots(): Promise<void> {
    this.#looking ??= this.#lookAfterSlots()
      .catch(error => this.#log.error({ err: error }, 'free slots could not be looked after'))
      .finally(() => {
        this.#looking = undefined
      })
    return this.#looking
  }

  async #lookAfterSlots(): Promise<void> {
    // It is at work in segments that may go.
    await this.#checkpointing
    if (await this.#slotSpace.look(this.#reach)) await this.#checkpoint({ isWanted: true })
  }

  /** How far the binlog has got. */
  get #reach() {
    return { given: this.#binlog.lastSequence, durable: this.#binlog.end.sequence }
  }

  async namesFrom(storePathIndex: number, directoryIndex: number) {
    return this.#paths.get(storePathIndex)?.namesFrom(directoryIndex)
  }

  isSound(file: FileNameParts): Promise<boolean> {
    return checkSound(this.#pathOf(file)).then(
      () => true,
      () => false,
    )
  }

  noteFailure(name: string, error: unknown): void {
    this.#noteFailure(this.#pathOf(decodeFileName(name)), error)
  }

  async close(): Promise<void> {
    for (const stop of this.#stopTicks) stop()
    await this.#looking
    await this.#binlog.close()
    // One that is under way does not know of the last records.
    await this.#checkpointing
    await this.#checkpoint()
    for (const path of this.#paths.values()) await path.segments.close()
  }

  async #create(file: IncomingFile, { extension, uploadId }: Upload): Promise<Stored> {
    const path = file.storePath
    await this.#seal(file)
    const { token, sizeBytes, crc32 } = file
    let name = ''
    let sequence = 0
    try {
      await this.#binlog.append(place => {
        sequence = place.sequence
        name = encodeFileName({
          storePathIndex: path.index,
          directoryIndex: directoryIndexOf(sequence, sizeBytes),
          storageId: this.storageId,
          createTimeS: Math.floor(place.timeMs / 1000),
          sizeBytes,
          crc32,
          // Second and sequence together never come twice, so no name does either; that needs no look at the disk.
          salt: sequence,
          tail: this.#tailOf(extension),
        })
        const effect = () => this.#place(path, token, name).catch(error => this.#withdraw(path, token, name, error))
        return { op: 'C', name, token, uploadId, effect }
      })
    } catch (error) {
      // A record that the disk had no room for is nowhere; any other failure may have left it behind, and its file too.
      if (isNowhere(error)) await file.discard()
      throw error
    }
    return { name, sequence }
  }

  async #pack(bytes: Buffer, upload: PackedUpload): Promise<Stored> {
    if (this.failure !== undefined) throw new DfsError('unavailable', 'this storage server takes no changes now')
    const { sizeBytes, extension, uploadId } = upload
    const slotBytes = slotBytesFor(sizeBytes)
    const path = this.#choosePath(upload.storePathIndex, slotBytes, slotBytes)
    let stored: Stored = { name: '', sequence: 0 }
    let slot: SlotBytes | undefined
    try {
      await this.#binlog.append(({ sequence, timeMs }) => {
        // The record's time, which never goes back: of two files in one slot it tells which came later.
        const createTimeS = Math.floor(timeMs / 1000)
        const { segmentId, offsetBytes, reused } = this.#slotSpace.take(path, slotBytes, {
          timeS: createTimeS,
          sequence,
        })
        const place = { storePathIndex: path.index, storageId: this.storageId, segmentId, offsetBytes }
        const header = { slotBytes, sizeBytes, crc32: upload.crc32, createTimeS, tail: this.#tailOf(extension) }
        writeSlotHeader(bytes, header)
        const name = nameOfSlot(place, header)
        stored = { name, sequence }
        slot = { ...place, bytes: bytes.subarray(0, slotBytes), reused }
        return { op: 'C', name, inSlot: true, reused, uploadId, slot }
      })
      return stored
    } catch (error) {
      // The next one does not go behind a place that may be empty.
      if (slot !== undefined) this.#slotSpace.failed(slot)
      if (slot !== undefined && isNowhere(error)) await this.#takeBack(path, stored.name)
      throw error
    }
  }

  /** Puts the slots of a flush in their places; durable when it resolves. */
  async #putSlots(slots: readonly SlotBytes[]): Promise<void> {
    this.#onPhase('written')
    this.#slotSpace.touch(slots)
    const groups = [...groupBy(slots, ({ storePathIndex }) => storePathIndex)]
    await allDone(
      groups.map(([index, group]) => {
        const path = this.#paths.get(index)!
        path.reserve(group.reduce((sum, { bytes, reused }) => (reused ? sum : sum + bytes.length), 0))
        return this.#guard(path, () => path.segments.put(group))
      }),
    )
    this.#onPhase('synced')
  }

  /** Frees the slot of an upload that failed and has no record: nobody was told of it, and no start shall find it. */
  async #takeBack(path: StorePath, name: string): Promise<void> {
    // The disk that failed may do so again. Then a start finds a file that nobody knows of, which costs its room.
    await path.segments.free(name, decodeFileName(name)).catch(ignore)
  }

  /** Takes note of how far the own slots have records. */
  #noteSlots(slots: readonly SlotBytes[]): void {
    this.#onPhase('recorded')
    this.#slotSpace.filled(slots)
    for (const { storePathIndex, storageId, segmentId, offsetBytes, bytes, reused } of slots) {
      if (storageId !== this.storageId || reused) continue
      const last = this.#recordedSlots.get(storePathIndex)
      // The last slots of a segment and the first of the next are written side by side.
      if (last !== undefined && segmentId < last.segmentId) continue
      this.#recordedSlots.set(storePathIndex, { storePathIndex, segmentId, endBytes: offsetBytes + bytes.length })
    }
    this.#onPhase('renamed')
  }

  #tailOf(extension: string): string {
    return tailOf(extension, this.#world.random.below(10_000_000))
  }

  /** Makes an upload, unless its id has a file already, or will have. */
  #once({ uploadId }: Upload, make: () => Promise<Stored>): Promise<Stored> {
    if (uploadId === undefined) return make()
    // Nothing comes between looking and taking note: those who send it at the same time wait for each other.
    const stored = this.#storedAs(this.#uploads.get(uploadId)).then(known => known ?? make())
    this.#uploads.set(uploadId, stored)
    return stored
  }

  /** The file of an upload, if it is there. */
  async #storedAs(upload: Promise<Stored> | undefined): Promise<Stored | undefined> {
    const stored = await upload?.catch(() => undefined)
    // A name whose file is gone was taken back, or deleted: whoever sends the bytes again wants them kept.
    return stored !== undefined && (await this.#isInPlace(stored.name, decodeFileName(stored.name)))
      ? stored
      : undefined
  }

  async #isInPlace(name: string, file: FileNameParts): Promise<boolean> {
    const path = this.#pathOf(file)
    if (file.slot !== undefined) return (await path.segments.stateOf(name, file)) === 'present'
    return (await this.#world.disk.stat(path.pathOf(file))) !== undefined
  }

  /** Before it may be said that a file is not there, its disk has to be there and good. */
  async #found<T>(file: FileNameParts, looked: Promise<T | undefined>): Promise<T | undefined> {
    const found = await looked
    if (found === undefined) await checkSound(this.#pathOf(file))
    return found
  }

  /** What has to be true before records of a peer may be given to the binlog: files are durable, slots have room. */
  async #prepare(shipments: readonly Shipment[]): Promise<void> {
    const files = shipments.map(({ content }) => content).filter(content => content instanceof IncomingFile)
    const packed = shipments.filter(({ content }) => content instanceof Uint8Array)
    const named = packed.map(({ shipped: { record, file } }) => ({ name: record.name, file, reused: record.reused }))
    const byPath = groupBy(named, ({ file }) => this.#pathOf(file))
    await Promise.all([
      ...files.map(file => this.#seal(file)),
      ...[...byPath].map(async ([path, group]) => {
        for (const { file } of await path.segments.expectRoom(group)) this.#slotSpace.doubt(file)
      }),
    ])
  }

  /** Throws if the store path that a record is about is not there, or cannot be written to. */
  #admit({ shipped: { file, record }, content }: Shipment): void {
    if (content instanceof Uint8Array && !record.reused) this.#choosePath(file.storePathIndex, content.length)
    else this.#pathOf(file)
  }

  /** Appends records of a peer, with their slots if they have some. */
  async #appendShipped(shipments: readonly Shipment[]): Promise<void> {
    const appended = this.#binlog.appendAll(() => shipments.map(shipment => this.#draftOf(shipment)))
    await appended.catch(async error => {
      if (isNowhere(error)) await allDone(shipments.map(discard))
      throw error
    })
  }

  #draftOf({ shipped, content }: Shipment): RecordDraft {
    const { origin, record, file, lacksFile } = shipped
    const { name, timeMs, uploadId } = record
    const path = this.#pathOf(file)
    const fields = { name, lacksFile, origin, uploadId, timeMs }
    if (record.op === 'D') return { op: 'd', ...fields, effect: () => this.#remove(path, name) }
    if (content instanceof IncomingFile) {
      const { token } = content
      return { op: 'c', ...fields, token, effect: () => this.#place(path, token, name) }
    }
    if (content === undefined) return { op: 'c', ...fields }
    const { storePathIndex, storageId, slot } = file
    return {
      op: 'c',
      ...fields,
      inSlot: true,
      reused: record.reused,
      slot: { storePathIndex, storageId: storageId!, ...slot!, bytes: content, reused: record.reused },
    }
  }

  /** A binlog that cannot be written now refuses uploads later; what is there is served all the same. */
  async #begin(recovered: Recovery): Promise<void> {
    const all = { after: 0, until: Number.POSITIVE_INFINITY }
    try {
      await recordStart(this.#binlog, recovered, epoch => this.#read(epoch, all))
      this.#begun = true
    } catch (error) {
      this.#log.error({ err: error }, 'the start could not be recorded')
    }
  }

  #read(epoch: number, range: SequenceRange, cursor?: BinlogCursor): AsyncGenerator<readonly ReadRecord[]> {
    const directory = binlogDirectory(this.#options.dataDirectory)
    const onDamage = (path: string, offsetBytes: number) =>
      this.#log.error({ path, offsetBytes }, 'a binlog line is damaged and cannot be shipped')
    return readRecordPages(this.#world.disk, directory, epoch, range, onDamage, cursor)
  }

  /** Makes the bytes durable. Later failures leave the temporary file alone: its record may be durable already. */
  async #seal(file: IncomingFile): Promise<void> {
    this.#onPhase('written')
    try {
      await this.#guard(file.storePath, () => file.seal())
      this.#onPhase('synced')
    } catch (error) {
      await file.discard()
      throw error
    }
  }

  #newFile(path: StorePath, expectedBytes: number): Promise<IncomingFile> {
    const token = `${this.#identity.bootCount}n${this.#tokens++}`
    return this.#guard(path, () => IncomingFile.create(this.#world.disk, path, token, expectedBytes))
  }

  /** Chooses a store path with room for a file, or with a free slot of `slotBytes`. */
  #choosePath(storePathIndex: number, expectedBytes: number, slotBytes = 0): StorePath {
    const hasRoom = (path: StorePath) =>
      path.availableBytes > expectedBytes || this.#slotSpace.hasFree(path.index, slotBytes)
    const writable = (path: StorePath) => path.failure === undefined && hasRoom(path)
    if (storePathIndex !== STORE_PATH_ANY) {
      const path = this.#paths.get(storePathIndex)
      if (path === undefined) throw new DfsError('bad_request', `there is no store path ${storePathIndex}`)
      if (!writable(path)) throw new DfsError('no_space')
      return path
    }
    const candidates = [...this.#paths.values()].filter(writable)
    const first = candidates[0]
    if (first === undefined) throw new DfsError('no_space')
    if (this.#options.storePathChoice === 'round_robin') return candidates[this.#pathTurn++ % candidates.length]!
    return candidates.reduce((best, path) => (path.availableBytes > best.availableBytes ? path : best), first)
  }

  #pathOf(parts: FileNameParts): StorePath {
    const path = this.#paths.get(parts.storePathIndex)
    if (path === undefined) throw new DfsError('bad_request', `there is no store path ${parts.storePathIndex} here`)
    return path
  }

  async #place(path: StorePath, token: string, name: string): Promise<void> {
    this.#onPhase('recorded')
    this.#changes++
    await this.#guard(path, () => placeFile(this.#world.disk, path, token, name))
    this.#onPhase('renamed')
  }

  /**
   * Takes back an upload whose file could not be given its name: its record is durable, and the next start would give it,
   * after peers have taken it for deleted. The bytes go first, which needs no room on a disk that may have none.
   */
  async #withdraw(path: StorePath, token: string, name: string, error: unknown): Promise<never> {
    const note = (cause: unknown) =>
      this.#log.error({ err: cause, name }, 'an upload that failed could not be taken back')
    await removeTemporary(this.#world.disk, path, token)
      .then(() => path.syncTemporary())
      .catch(note)
    this.#binlog.append(() => ({ op: 'D', name, effect: () => this.#remove(path, name) })).catch(note)
    throw error
  }

  async #remove(path: StorePath, name: string): Promise<void> {
    this.#onPhase('recorded')
    this.#changes++
    const file = decodeFileName(name)
    const remove = () =>
      file.slot === undefined ? removeFile(this.#world.disk, path, name) : this.#free(path, name, file)
    // Not before: until it is gone it can be read, and kept again.
    await this.#guard(path, remove).finally(() => this.#hotFiles.remove(name))
    this.#onPhase('renamed')
  }

  async #free(path: StorePath, name: string, file: FileNameParts): Promise<void> {
    if ((await path.segments.free(name, file)) === 'file') this.#slotSpace.freed(file)
  }

  /** Does disk work for a path; an error that means a bad disk turns the path read-only. */
  async #guard<T>(path: StorePath, work: () => Promise<T>): Promise<T> {
    try {
      return await work()
    } catch (error) {
      this.#noteFailure(path, error)
      throw error
    }
  }

  #noteFailure(path: StorePath, error: unknown): void {
    if (!(error instanceof DiskError) || HARMLESS.has(error.errno) || path.failure !== undefined) return
    path.fail(error)
    this.#log.error({ err: error, storePath: path.index }, 'a store path failed and takes no more files')
  }

  get #hasFailedPath(): boolean {
    return [...this.#paths.values()].some(path => path.failure !== undefined)
  }

  /** Writes a checkpoint if there is anything new, or if it `isWanted` for what else it says. */
  async #checkpoint({ isWanted = false } = {}): Promise<void> {
    // A path that failed keeps its records in front of the checkpoint, for the day its disk is back.
    if (!this.#begun || this.#hasFailedPath) return
    if (this.#binlog.end.sequence === this.#checkpointed && !isWanted) return
    this.#checkpointing ??= this.#writeCheckpoint()
      .catch(error => this.#log.error({ err: error }, 'no checkpoint could be written'))
      .finally(() => {
        this.#checkpointing = undefined
      })
    await this.#checkpointing
  }

  async #writeCheckpoint(): Promise<void> {
    const { sequence, timeMs } = this.#binlog.end
    this.#changes = 0
    const { reopened, open } = this.#slotSpace.declare(this.#reach)
    const slots = this.#slotEnds
    const checkpoint = { epoch: this.epoch, sequence, timeMs, positions: this.positions, slots, reopened }
    const catalogue = this.#slotSpace.encode(this.epoch, sequence)
    for (const path of this.#paths.values()) {
      if (path.failure !== undefined) throw path.failure
      await path.syncChanges()
    }
    const { dataDirectory } = this.#options
    // First: it may know more than the checkpoint does, but not less.
    if (catalogue !== undefined) await this.#catalogue.write(this.#world.disk, dataDirectory, catalogue)
    await writeCheckpoint(this.#world.disk, dataDirectory, checkpoint)
    this.#checkpointed = sequence
    open()
  }
}

function notKept(): DfsError {
  return new DfsError('bad_file_id', 'files of this kind are not kept here')
}

function isNowhere(error: unknown): boolean {
  return error instanceof NotRecordedError
}

/** Throws unless the disk behind a path is there and good: only then may it be said that it does not have a file. */
async function checkSound(path: StorePath): Promise<void> {
  await path.checkPresent()
  if (path.failure !== undefined) throw path.failure
}

/** Does something again and again, until the function it returns is called. */
function every(timers: Timers, periodMs: number, work: () => void): () => void {
  const tick = () => {
    work()
    cancel = timers.set(periodMs, tick)
  }
  let cancel = timers.set(periodMs, tick)
  return () => cancel()
}

/** Whoever has to hear of it does so elsewhere. */
function ignore(): void {}
