/** The store: small files in slots of segments, all others in files of their own, and one binlog for both. */

import { DfsError } from '../protocol/errors.ts'
import { decodeFileName, encodeFileName, type FileNameParts, SALT_BITS, tailOf } from '../protocol/file-id.ts'
import type { ListPage } from '../protocol/list-bodies.ts'
import { METADATA_BYTES_MAX } from '../protocol/metadata.ts'
import type { Succession } from '../protocol/orderers.ts'
import { type Counters, zeroCounters } from '../protocol/statistics.ts'
import type { SourcePosition, StorePathReport } from '../protocol/storage-messages.ts'
import type { Log } from '../runtime/log.ts'
import type { Timers } from '../runtime/timers.ts'
import type { Cancel, Disk, DiskError, World } from '../runtime/world.ts'
import { AppenderFiles } from './appender-files.ts'
import { AppliedRecords } from './applied-records.ts'
import { AsideFiles } from './aside-files.ts'
import { Binlog, type BinlogEnd, type Flush, NotRecordedError, type RecordDraft } from './binlog.ts'
import { binlogDirectory } from './binlog-files.ts'
import { type BinlogCursor, type ReadRecord, readRecordPages, type SequenceRange } from './binlog-reader.ts'
import { CHECKPOINT_MS, Checkpoints } from './checkpoints.ts'
import { countedDisk } from './counted-disk.ts'
import { Effects } from './effects.ts'
import { FileChanges } from './file-changes.ts'
import { FileList, type ListWanted } from './file-list.ts'
import { HotFiles } from './hot-files.ts'
import type { Identity } from './identity.ts'
import { type FileKind, IncomingFile, isCached } from './incoming-file.ts'
import { encodeMetadata, IncomingMetadata, readMetadataFile } from './metadata-file.ts'
import { PartReader } from './part-reader.ts'
import type { OnPhase } from './phase.ts'
import { directoryIndexOf, removeTemporary } from './placing.ts'
import { recordStart } from './record-start.ts'
import { type Recovery, recover } from './recovery.ts'
import { type SlotBytes, writerOf } from './segments.ts'
import { ShipmentApplier } from './shipment-applier.ts'
import { nameOfSlot, PACKED_BYTES_MAX, slotBytesFor, writeSlotHeader } from './slot.ts'
import { REUSE, SlotSpace } from './slot-space.ts'
import { SlotWriter } from './slot-writer.ts'
import { hasRecordByName } from './sorted-records.ts'
import { type SourceLife, SourceLives } from './source-lives.ts'
import type {
  ChangeMetadata,
  CopyName,
  PackedUpload,
  RecoveryReport,
  Shipment,
  Store,
  Stored,
  Upload,
} from './store.ts'
import type { StoreOptions } from './store-options.ts'
import type { StorePath } from './store-path.ts'
import { StorePaths } from './store-paths.ts'
import { type OpenFile, StoredFile } from './stored-file.ts'
import { UploadIds } from './upload-ids.ts'

export class FileStore implements Store {
  readonly storageId: number
  readonly group: string
  readonly epoch: number
  readonly incarnation: string
  readonly recovery: RecoveryReport
  readonly counters: Counters
  readonly #world: World
  /** Where the files themselves are. */
  readonly #disk: Disk
  readonly #options: StoreOptions
  readonly #identity: Identity
  readonly #log: Log
  readonly #onPhase: OnPhase
  readonly #paths: StorePaths
  readonly #binlog: Binlog
  readonly #uploads = new UploadIds(stored => this.#isInPlace(stored.name, decodeFileName(stored.name)))
  readonly #lives: SourceLives
  readonly #hotFiles: HotFiles
  readonly #slotSpace: SlotSpace
  readonly #checkpoints: Checkpoints
  readonly #changes: FileChanges
  readonly #applied: AppliedRecords
  readonly #aside: AsideFiles
  readonly #appenders: AppenderFiles
  readonly #effects: Effects
  readonly #list: FileList
  #stopTicks: readonly Cancel[] = []
  #tokens = 0
  #looking: Promise<void> | undefined

  private constructor(
    world: World,
    log: Log,
    options: StoreOptions,
    identity: Identity,
    { paths, disk, counters }: { paths: StorePaths; disk: Disk; counters: Counters },
    recovered: Recovery,
    lives: SourceLives,
  ) {
    const { dataDirectory, durability, onPhase = ignore, reuse = REUSE } = options
    const { catalogue } = recovered
    this.#world = world
    this.#options = options
    this.#identity = identity
    this.#log = log
    this.#onPhase = onPhase
    this.#paths = paths
    this.#appenders = new AppenderFiles(disk)
    this.#disk = disk
    this.counters = counters
    this.storageId = identity.storageId
    this.group = identity.group
    this.epoch = identity.epoch
    this.incarnation = identity.incarnation
    this.#lives = lives
    const hotFiles = new HotFiles(options.hotFileBytes)
    this.#hotFiles = hotFiles
    const slotSpace = new SlotSpace(catalogue, recovered, paths, identity, world.clock, reuse)
    this.#slotSpace = slotSpace
    const slotWriter = new SlotWriter(identity.storageId, paths, slotSpace, recovered.slots, onPhase)
    this.#list = new FileList({ store: this, paths, catalogue, slotWriter })
    const binlog = new Binlog(world.disk, world.clock, {
      ...recovered,
      directory: binlogDirectory(dataDirectory),
      epoch: identity.epoch,
      syncs: durability === 'fsync',
      slotKeeper: slotWriter,
    })
    const checkpoints = new Checkpoints({
      ...{ disk: world.disk, dataDirectory, log, binlog, paths, catalogue, slotSpace },
      positions: () => this.positions,
      slotEnds: () => slotWriter.ends,
      onCovered: sequence => this.#appenders.forget(sequence),
    })
    this.#checkpoints = checkpoints
    const effects = new Effects({
      ...{ disk, log, paths, slotSpace, hotFiles, appenders: this.#appenders, onPhase },
      onChange: () => checkpoints.noteChange(),
    })
    this.#effects = effects
    const seal = (file: IncomingFile) => this.#seal(file)
    const onApplied = () => {
      counters.last_sync_update = Math.floor(world.clock.wallMs() / 1000)
    }
    this.#aside = new AsideFiles(world.disk, world.clock, log, paths)
    const applier = new ShipmentApplier({ aside: this.#aside, paths, slotSpace, effects, binlog, seal, onApplied })
    this.#applied = new AppliedRecords(recovered.positions, applier)
    this.#changes = new FileChanges({
      ...{ store: this, paths, binlog, effects, seal },
      isOwn: file => this.#isOwn(file),
      record: (file, name) => this.#record(file, undefined, () => name),
    })
    this.#binlog = binlog
    for (const { uploadId, ...stored } of recovered.uploads) this.#uploads.set(uploadId, Promise.resolve(stored))
    const { checkpointDamaged, redone, tornBytes, damagedLines, orphans, missing, removedTemporaries } = recovered
    this.recovery = { checkpointDamaged, redone, tornBytes, damagedLines, orphans, missing, removedTemporaries }
    binlog.onFlush(({ sequence }) => {
      slotSpace.flushed()
      checkpoints.noteFlush(sequence)
    })
  }

  /** Recovers a data directory and opens it. */
  static async open(
    world: World,
    timers: Timers,
    log: Log,
    options: StoreOptions,
    identity: Identity,
  ): Promise<FileStore> {
    const counters = zeroCounters()
    const disk = countedDisk(world.disk, counters)
    const paths = await StorePaths.open(disk, log, options, identity)
    const present = paths.all.filter(path => path.failure === undefined)
    const recovered = await recover(world.disk, options.dataDirectory, identity, paths.byIndex)
    for (const { failure, index } of present) {
      if (failure !== undefined) log.error({ err: failure, storePath: index }, 'a store path failed and takes no files')
    }
    if (recovered.uncounted)
      log.warn('the catalogue of segments cannot be read: all of them will be counted, which takes a while')
    const lives = await SourceLives.read(world.disk, options.dataDirectory)
    const store = new FileStore(world, log, options, identity, { paths, disk, counters }, recovered, lives)
    await store.#begin(timers, recovered)
    return store
  }

  get end(): BinlogEnd {
    return this.#binlog.end
  }

  get ownEnd(): number {
    return this.#binlog.ownEnd
  }

  get failure(): Error | undefined {
    return this.#binlog.failure
  }

  async receive(storePathIndex: number, expectedBytes: number, kind?: FileKind): Promise<IncomingFile> {
    if (this.failure !== undefined) throw new DfsError('unavailable', 'this storage server takes no changes now')
    // A part will be in its file, too.
    const path = this.#paths.choose(storePathIndex, kind === 'part' ? 2 * expectedBytes : expectedBytes)
    const create = () => IncomingFile.create(this.#disk, path, this.#newToken(), { expectedBytes, kind })
    return this.#paths.guard(path, create)
  }

  async create(file: IncomingFile, upload: Upload): Promise<Stored> {
    let isNew = false
    const make = () => {
      isNew = true
      return this.#create(file, upload)
    }
    try {
      return await this.#uploads.once(upload.uploadId, make)
    } finally {
      if (!isNew) await file.discard()
    }
  }

  createSlave(file: IncomingFile, name: string): Promise<Stored> {
    return this.#changes.createSlave(file, name)
  }

  writeAppender(name: string, part: IncomingFile, offset?: number): Promise<Stored | undefined> {
    return this.#changes.writeAppender(name, part, offset)
  }

  truncateAppender(name: string, sizeBytes: number): Promise<boolean> {
    return this.#changes.truncateAppender(name, sizeBytes)
  }

  regenerate(name: string): Promise<Stored | undefined> {
    return this.#changes.regenerate(name)
  }

  copy(name: string, as: CopyName, buffer: Buffer): Promise<Stored | undefined> {
    return this.#changes.copy(name, as, buffer)
  }

  packs(sizeBytes: number): boolean {
    const { segmentFileBytesMax } = this.#options
    return segmentFileBytesMax > 0 && sizeBytes <= Math.min(segmentFileBytesMax, PACKED_BYTES_MAX)
  }

  pack(slot: Buffer, upload: PackedUpload): Promise<Stored> {
    return this.#uploads.once(upload.uploadId, () => this.#pack(slot, upload))
  }

  cached(name: string): Buffer | undefined {
    return this.#hotFiles.get(name)
  }

  async read(name: string, file: FileNameParts, target: Buffer): Promise<Buffer | undefined> {
    const { removals } = this.#hotFiles
    const content = await this.#found(file, this.#paths.of(file).segments.read(name, file, target))
    if (content !== undefined) this.#hotFiles.keep(name, content, removals)
    return content
  }

  async open(name: string, times?: 'once'): Promise<OpenFile | undefined> {
    const parts = decodeFileName(name)
    const { kind, sizeBytes } = parts
    const path = this.#paths.of(parts)
    const way = times === 'once' && sizeBytes !== undefined && !isCached(sizeBytes) ? 'direct' : undefined
    try {
      const openSlave = () => StoredFile.openSlave(this.#disk, path.pathOf(parts))
      if (kind === 'slave') return await this.#appenders.inTurn(path, parts, openSlave)
      if (sizeBytes === undefined) return await this.#appenders.open(path, parts)
      return await StoredFile.open(this.#disk, path.pathOf(parts), sizeBytes, parts.crc32, way)
    } catch (error) {
      if ((error as DiskError).errno !== 'ENOENT') throw error
      await path.checkSound()
      return undefined
    }
  }

  openPart(file: FileNameParts, token: string): Promise<OpenFile | undefined> {
    return PartReader.open(this.#disk, this.#paths.of(file).temporaryPath(token))
  }

  async readSlots(file: FileNameParts, target: Uint8Array): Promise<number> {
    const path = this.#paths.of(file)
    const count = await path.segments.readRaw(file, target)
    if (count < target.length) await path.checkSound()
    return count
  }

  async has(name: string): Promise<boolean> {
    const file = decodeFileName(name)
    const found = await this.#found(
      file,
      this.#isInPlace(name, file).then(isThere => isThere || undefined),
    )
    return found === true
  }

  delete(name: string): Promise<boolean> {
    return this.#changes.delete(name)
  }

  readMetadata(file: FileNameParts, token?: string): Promise<Buffer | undefined> {
    return readMetadataFile(this.#disk, this.#paths.of(file), file, token)
  }

  changeMetadata(name: string, change: ChangeMetadata): Promise<boolean> {
    return this.#changes.changeMetadata(name, change)
  }

  async receiveMetadata(file: FileNameParts, metadata: Buffer): Promise<IncomingMetadata> {
    if (this.failure !== undefined) throw new DfsError('unavailable', 'this storage server takes no changes now')
    if (metadata.length > METADATA_BYTES_MAX) throw new DfsError('too_large', 'this is too much metadata for a file')
    const bytes = encodeMetadata(metadata)
    const path = this.#paths.choose(file.storePathIndex, bytes.length)
    return this.#paths.guard(path, () => IncomingMetadata.write(this.#disk, path, this.#newToken(), bytes))
  }

  async knowsDeletion(name: string): Promise<boolean> {
    const file = decodeFileName(name)
    if (file.slot !== undefined) {
      return (await this.#paths.of(file).segments.stateOf(name, file)) === 'deleted' || this.#isRemoved(file)
    }
    if (!this.#isOwn(file)) return false
    // Its name may have been given and taken often: who has kept all of them knows.
    if (file.kind === 'slave') return this.epoch === 1 && !this.isOfEarlierLife(file)
    return this.#hasRecordOf(name, file)
  }

  /** Whether a file was in a segment that is not there any more: as a peer, if it had come before. */
  #isRemoved(file: FileNameParts): boolean {
    if (!this.#slotSpace.isRemoved(file)) return false
    if (file.storageId === this.storageId) return true
    if (file.storageId === undefined) return false
    const position = this.position(file.storageId)
    if (position === undefined || position.epoch > 1 || position.incomplete) return false
    return Math.floor(position.timeMs / 1000) > file.createTimeS
  }

  async #hasRecordOf(name: string, { salt, createTimeS }: FileNameParts): Promise<boolean> {
    const { takeOver, madeS } = this.#identity
    if (takeOver !== undefined && createTimeS < madeS) {
      const until = this.epoch === 1 ? (takeOver.plainUntil ?? 0) : 0
      return hasRecordByName(range => this.readRecords(range), until, name)
    }
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

  isOfEarlierLife(file: FileNameParts): boolean {
    if (!this.#isOwn(file)) return false
    const { slot, createTimeS } = file
    const { writer, madeS } = this.#identity
    return slot === undefined ? createTimeS < madeS : writerOf(slot.segmentId) !== writer
  }

  get formerly(): readonly string[] {
    return this.#identity.takeOver?.sources ?? []
  }

  #isOwn({ storageId, address }: FileNameParts): boolean {
    return storageId === this.storageId || this.formerly.includes(address ?? String(storageId))
  }

  /**
   * Records what was found of FastDFS's, in order and before anything is served. They are older than all that comes, so
   * that a peer which has applied some of them takes nothing that it lacks for deleted.
   */
  takeOver(records: readonly Pick<RecordDraft, 'op' | 'name'>[]): Promise<void> {
    return this.#binlog.appendAll(() => records.map(({ op, name }) => ({ op, name, timeMs: 0 })))
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

  async changeHands(succession: Succession | undefined): Promise<void> {
    this.#changes.forgetRestated()
    if (succession === undefined || succession.orderer === this.storageId) return this.#aside.end()
    const { epoch, sequence } = succession.cut
    const after = epoch === this.epoch ? sequence : 0
    await this.#aside.expect(this.readRecords({ after, until: this.end.sequence }))
  }

  get asideCount(): number {
    return this.#aside.count
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
    await Promise.all(this.#paths.all.map(path => path.measure()))
    return this.storePaths
  }

  get storePaths(): readonly StorePathReport[] {
    return this.#paths.all.map(path => ({
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
    await this.#checkpoints.settled()
    if (await this.#slotSpace.look(this.#binlog.reach)) await this.#checkpoints.write({ isWanted: true })
  }

  async namesFrom(storePathIndex: number, directoryIndex: number) {
    return this.#paths.byIndex.get(storePathIndex)?.namesFrom(directoryIndex)
  }

  list(wanted: ListWanted): Promise<ListPage> {
    return this.#list.page(wanted)
  }

  isSound(file: FileNameParts): Promise<boolean> {
    return this.#paths
      .of(file)
      .checkSound()
      .then(
        () => true,
        () => false,
      )
  }

  noteFailure(name: string, error: unknown): void {
    this.#paths.noteFailure(this.#paths.of(decodeFileName(name)), error)
  }

  async close(): Promise<void> {
    for (const stop of this.#stopTicks) stop()
    await this.#looking
    await this.#binlog.close()
    // One that is under way does not know of the last records.
    await this.#checkpoints.settled()
    await this.#checkpoints.write()
    for (const path of this.#paths.all) await path.segments.close()
  }

  async #create(file: IncomingFile, { extension, uploadId, isAppender = false }: Upload): Promise<Stored> {
    await this.#seal(file)
    const { sizeBytes, crc32 } = file
    return this.#record(file, uploadId, ({ sequence, timeMs }) =>
      encodeFileName({
        storePathIndex: file.storePath.index,
        directoryIndex: directoryIndexOf(sequence, sizeBytes),
        storageId: this.storageId,
        createTimeS: Math.floor(timeMs / 1000),
        sizeBytes,
        crc32,
        // Second and sequence together never come twice, so no name does either; that needs no look at the disk.
        salt: sequence,
        isAppender,
        tail: this.#tailOf(extension),
      }),
    )
  }

  /** Records a sealed file under a name, and gives it that. */
  async #record(
    file: IncomingFile,
    uploadId: string | undefined,
    nameOf: (place: { sequence: number; timeMs: number }) => string,
  ): Promise<Stored> {
    const { token, storePath: path } = file
    let name = ''
    let sequence = 0
    try {
      await this.#binlog.append(place => {
        sequence = place.sequence
        name = nameOf(place)
        const effect = () =>
          this.#effects.place(path, token, name).catch(error => this.#withdraw(path, token, name, error))
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
    const { storageId } = this
    const { sizeBytes, extension, uploadId } = upload
    const slotBytes = slotBytesFor(sizeBytes)
    const path = this.#paths.choose(upload.storePathIndex, slotBytes, ({ index }) =>
      this.#slotSpace.hasFree(index, slotBytes),
    )
    const { index: storePathIndex } = path
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
        const header = { slotBytes, sizeBytes, crc32: upload.crc32, createTimeS, tail: this.#tailOf(extension) }
        writeSlotHeader(bytes, header)
        slot = { storePathIndex, storageId, segmentId, offsetBytes, bytes: bytes.subarray(0, slotBytes), reused }
        const name = nameOfSlot(slot, header)
        stored = { name, sequence }
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

  /** Frees the slot of an upload that failed and has no record: nobody was told of it, and no start shall find it. */
  async #takeBack(path: StorePath, name: string): Promise<void> {
    // The disk that failed may do so again. Then a start finds a file that nobody knows of, which costs its room.
    await path.segments.free(name, decodeFileName(name)).catch(ignore)
  }

  #tailOf(extension: string): string {
    return tailOf(extension, this.#world.random.below(10_000_000))
  }

  async #isInPlace(name: string, file: FileNameParts): Promise<boolean> {
    const path = this.#paths.of(file)
    if (file.slot !== undefined) return (await path.segments.stateOf(name, file)) === 'present'
    return (await this.#disk.stat(path.pathOf(file))) !== undefined
  }

  /** Before it may be said that a file is not there, its disk has to be there and good. */
  async #found<T>(file: FileNameParts, looked: Promise<T | undefined>): Promise<T | undefined> {
    const found = await looked
    if (found === undefined) await this.#paths.of(file).checkSound()
    return found
  }

  /** A binlog that cannot be written now refuses uploads later; what is there is served all the same. */
  async #begin(timers: Timers, recovered: Recovery): Promise<void> {
    const all = { after: 0, until: Number.POSITIVE_INFINITY }
    await this.#slotSpace.settle()
    const isRecorded = await recordStart(this.#binlog, recovered, epoch => this.#read(epoch, all)).then(
      () => true,
      error => this.#log.error({ err: error }, 'the start could not be recorded'),
    )
    if (isRecorded) await this.#checkpoints.begin()
    // Not before: a start has the store to itself.
    this.#stopTicks = [
      timers.every(CHECKPOINT_MS, () => void this.#checkpoints.write()),
      timers.every(this.#slotSpace.lookMs, () => void this.lookAfterSlots()),
    ]
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
      await this.#paths.guard(file.storePath, () => file.seal())
      this.#onPhase('synced')
    } catch (error) {
      await file.discard()
      throw error
    }
  }

  #newToken(): string {
    return `${this.#identity.bootCount}n${this.#tokens++}`
  }

  /**
   * Takes back an upload whose file could not be given its name: its record is durable, and the next start would give it,
   * after peers have taken it for deleted. The bytes go first, which needs no room on a disk that may have none.
   */
  async #withdraw(path: StorePath, token: string, name: string, error: unknown): Promise<never> {
    const note = (cause: unknown) =>
      this.#log.error({ err: cause, name }, 'an upload that failed could not be taken back')
    await removeTemporary(this.#disk, path, token)
      .then(() => path.syncTemporary())
      .catch(note)
    this.#binlog.append(() => ({ op: 'D', name, effect: () => this.#effects.remove(path, name) })).catch(note)
    throw error
  }
}

function isNowhere(error: unknown): boolean {
  return error instanceof NotRecordedError
}

/** Whoever has to hear of it does so elsewhere. */
function ignore(): void {}
