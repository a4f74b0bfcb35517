/**
 * Takes over the directory of a FastDFS storage server that was stopped, in place. Nothing of what is there is changed.
 *
 *     walk ──▶ each file is read, and compared with its name ──▶ sidecar, where ours have one ──▶ record in our binlog
 *       └────▶ trunk files, by what FastDFS's binlog says is in them ────────────────────────────┘
 *
 * The store is not served meanwhile. What was begun and not finished is done again from the beginning: what it has made is
 * thrown away (our binlog) or written over (sidecars). It is finished when the identity says so, and only then a server starts.
 * Records of plain files stand in the order of their names, so that each can be looked up (`sorted-records.ts`).
 *
 * A file has one source, who ships it and orders its changes: files of others get no record here. They are served, and
 * shipped by their source to whoever lacks them.
 */
import { dirname, join } from 'node:path'
import { DfsError } from '../protocol/errors.ts'
import { decodeFileName, type FileNameParts, nameAt } from '../protocol/file-id.ts'
import { METADATA_BYTES_MAX, readMetadata } from '../protocol/metadata.ts'
import type { Log } from '../runtime/log.ts'
import { replaceFile } from '../runtime/text-file.ts'
import type { Timers } from '../runtime/timers.ts'
import { type Disk, DiskError, type World } from '../runtime/world.ts'
import { BATCH_RECORDS_MAX } from './binlog.ts'
import { binlogDirectory } from './binlog-files.ts'
import { openDirectory } from './data-directory.ts'
import { directoriesOf, isTrunkFileName, readFastdfsBinlog, readInitFlag } from './fastdfs-directory.ts'
import { FileStore } from './file-store.ts'
import { type Identity, writeIdentity } from './identity.ts'
import { hasSidecar, SidecarWriter, sidecarPath } from './sidecar.ts'
import { isSlotName, isTrunkFile, SLOT_BYTES_MAX, stateOf } from './slot.ts'
import type { StoreOptions } from './store-options.ts'
import { TakeOverReport } from './take-over-report.ts'

/** Files that are read at the same time: enough to keep a disk busy. */
const FILES_AT_ONCE = 8
/** Read at a time of a file. */
const PIECE_BYTES = 1024 * 1024

export interface TakeOverOptions extends StoreOptions {
  /** FastDFS's own: `data/.data_init_flag` and `data/sync` are below it. */
  readonly basePath: string
  readonly storageId: number
  /** Storage ids of the servers whose addresses and ids are in names; the last address of this one need not be given. */
  readonly sources: ReadonlyMap<string, number>
  readonly onProgress?: (report: TakeOverReport) => void
}

interface Draft {
  readonly op: 'C' | 'U'
  readonly name: string
}

/** A file that was found, and what is to be recorded of it. */
interface Found {
  readonly name: string
  readonly path: string
  readonly file: FileNameParts
  readonly hasMetadata: boolean
}

/**
 * Takes over everything, and says what was found. Rejects with an Error that says what to do if the directory cannot be taken
 * over as it is: it is in use, was served already, or has files of a source that is not known.
 */
export async function takeOver(
  { world, timers, log }: { world: World; timers: Timers; log: Log },
  options: TakeOverOptions,
): Promise<TakeOverReport> {
  const { disk, clock } = world
  const { dataDirectory } = options
  const { identity, lock } = await openDirectory(world, options, { takesOver: true })
  try {
    await expectFresh(disk, dataDirectory, identity)
    const sources = await sourcesOf(disk, options)
    const own = [...sources].filter(([, storageId]) => storageId === identity.storageId).map(([name]) => name)
    const storePathCount = Math.max(identity.storePathCount, options.storePaths.length, 1)
    const madeS = Math.floor(clock.wallMs() / 1000)
    const begun: Identity = { ...identity, madeS, takeOver: { sources: own } }
    await writeIdentity(disk, dataDirectory, begun)
    await removeBegun(disk, dataDirectory)
    const store = await FileStore.open(world, timers, log, options, begun)
    const report = await TakeOverReport.create(disk, dataDirectory)
    const work = new TakeOver(disk, store, report, sources, options)
    let plainUntil: number
    try {
      if (store.failure !== undefined || store.storePaths.some(path => !path.writable))
        throw new Error('a store path or the binlog cannot be written')
      plainUntil = await work.takePlain()
      await work.takePacked()
    } finally {
      await store.close()
    }
    await report.close()
    // The last word: everything before it is durable.
    await writeIdentity(disk, dataDirectory, { ...begun, storePathCount, takeOver: { sources: own, plainUntil } })
    return report
  } finally {
    await lock.release()
  }
}

class TakeOver {
  readonly #disk: Disk
  readonly #store: FileStore
  readonly #report: TakeOverReport
  readonly #sources: ReadonlyMap<string, number>
  readonly #options: TakeOverOptions
  #drafts: Draft[] = []

  constructor(
    disk: Disk,
    store: FileStore,
    report: TakeOverReport,
    sources: ReadonlyMap<string, number>,
    options: TakeOverOptions,
  ) {
    this.#disk = disk
    this.#store = store
    this.#report = report
    this.#sources = sources
    this.#options = options
  }

  /** Takes all files of their own; returns the sequence of the last record. */
  async takePlain(): Promise<number> {
    for (const [index, root] of this.#roots.entries()) {
      for await (const { directory, names } of directoriesOf(this.#disk, root)) {
        const found = await this.#filesIn(index, join(root, 'data', directory), directory, names)
        for (let at = 0; at < found.length; at += FILES_AT_ONCE) {
          const files = found.slice(at, at + FILES_AT_ONCE)
          for (const drafts of await Promise.all(files.map(file => this.#take(file)))) await this.#record(drafts)
        }
        this.#options.onProgress?.(this.#report)
      }
    }
    await this.#flush()
    return this.#store.end.sequence
  }

  /** Takes the files in trunk files: their slots do not say whose they are, FastDFS's binlog does. */
  async takePacked(): Promise<void> {
    if (this.#report.counts.trunkFiles === 0) return
    const buffer = Buffer.allocUnsafe(SLOT_BYTES_MAX)
    for await (const { op, name } of readFastdfsBinlog(this.#disk, this.#options.basePath)) {
      const isLink = op.toUpperCase() === 'L'
      if (op.toUpperCase() !== 'C' && !isLink) continue
      const file = fileOf(name)
      if (file?.slot === undefined || !isTrunkFile(file.slot)) continue
      if (isLink) {
        await this.#report.note('left', name, 'a link in a trunk file')
        continue
      }
      await this.#takePacked(name, file, buffer)
      this.#options.onProgress?.(this.#report)
    }
    await this.#flush()
  }

  get #roots(): readonly string[] {
    const { storePaths, dataDirectory } = this.#options
    return storePaths.length > 0 ? storePaths : [join(dataDirectory, 'store')]
  }

  /** What of a directory's entries is a file; of the rest it is noted what it is. */
  async #filesIn(index: number, path: string, directory: string, names: readonly string[]): Promise<Found[]> {
    const there = new Set(names)
    const found: Found[] = []
    for (const baseName of names) {
      // Ours, from an attempt that was not finished.
      if (baseName.includes('~sum')) continue
      const name = nameAt(index, directory, baseName)
      if (isTrunkFileName(baseName)) this.#report.counts.trunkFiles++
      else if (baseName.endsWith('-m') && isMetadataOf(fileOf(name.slice(0, -2)), baseName, there)) continue
      else {
        const file = fileOf(name)
        const isFile = file !== undefined && file.slot === undefined && !baseName.endsWith('-m')
        if (isFile) found.push({ name, path: join(path, baseName), file, hasMetadata: there.has(`${baseName}-m`) })
        else await this.#report.note('left', join(path, baseName), 'this is no file that a name can mean')
      }
    }
    return found
  }

  /** Checks a file of its own and makes what ours have beside them; returns what is to be recorded. */
  async #take({ name, path, file, hasMetadata }: Found): Promise<Draft[]> {
    const { counts } = this.#report
    const owner = this.#ownerOf(name, file)
    try {
      const { sizeBytes, sums } = await sumUp(this.#disk, path)
      const isNamed = file.sizeBytes !== undefined
      const isGood = !isNamed || (sizeBytes === file.sizeBytes && sums.crc32 === file.crc32)
      if (isGood && (!isNamed || hasSidecar(sizeBytes)))
        await replaceFile(this.#disk, sidecarPath(path), sums.encode(sizeBytes))
      if (isGood) counts[file.kind === 'segment' ? 'packed' : file.kind]++
      counts.bytes += sizeBytes
      if (!isGood) {
        const is = `${sizeBytes} bytes with CRC32 ${hex(sums.crc32)}`
        await this.#report.note('damaged', name, `${is}, by its name ${file.sizeBytes} with ${hex(file.crc32)}`)
      }
    } catch (error) {
      if (!(error instanceof DiskError)) throw error
      await this.#report.note('damaged', name, error.message)
    }
    const isSet = hasMetadata && (await this.#takeMetadata(name, `${path}-m`))
    return this.#draftsOf(name, owner, isSet)
  }

  async #takePacked(name: string, file: FileNameParts, buffer: Buffer): Promise<void> {
    const { counts } = this.#report
    if (!isSlotName(name, file) || file.storePathIndex >= this.#roots.length)
      return this.#report.note('left', name, 'its slot is larger than ours can be, or on no store path')
    const owner = this.#ownerOf(name, file)
    const slot = buffer.subarray(0, file.slot!.slotBytes)
    const count = await this.#store.readSlots(file, slot)
    if (count === 0) return this.#report.note('left', name, 'its trunk file is gone, or ends before it')
    const state = stateOf(slot.fill(0, count), file)
    if (state === 'deleted') return
    if (state === 'corrupt') await this.#report.note('damaged', name, 'its slot fails its checksum')
    else counts.packed++
    counts.bytes += file.sizeBytes!
    const path = `${join(this.#roots[file.storePathIndex]!, 'data', file.directory, file.baseName)}-m`
    const hasMetadata = (await this.#disk.stat(path)) !== undefined
    await this.#record(this.#draftsOf(name, owner, hasMetadata && (await this.#takeMetadata(name, path))))
  }

  /** Puts a sum beside FastDFS's metadata; false if that is none. */
  async #takeMetadata(name: string, path: string): Promise<boolean> {
    try {
      const { sizeBytes, sums, first } = await sumUp(this.#disk, path)
      if (sizeBytes > METADATA_BYTES_MAX) throw new DfsError('too_large')
      readMetadata(first)
      await replaceFile(this.#disk, sidecarPath(path), sums.encode(sizeBytes))
      this.#report.counts.metadata++
      return true
    } catch (error) {
      if (!(error instanceof DfsError) && !(error instanceof DiskError)) throw error
      await this.#report.note('damaged', `${name}-m`, 'this is no metadata')
      return false
    }
  }

  #draftsOf(name: string, owner: number, hasMetadata: boolean): Draft[] {
    if (owner !== this.#store.storageId) {
      this.#report.noteForeign(owner)
      return []
    }
    return hasMetadata
      ? [
          { op: 'C', name },
          { op: 'U', name },
        ]
      : [{ op: 'C', name }]
  }

  async #record(drafts: readonly Draft[]): Promise<void> {
    if (this.#drafts.length + drafts.length > BATCH_RECORDS_MAX) await this.#flush()
    this.#drafts.push(...drafts)
  }

  async #flush(): Promise<void> {
    const drafts = this.#drafts
    this.#drafts = []
    await this.#store.takeOver(drafts)
  }

  /** The storage id of a file's source. Throws where it would have to be guessed. */
  #ownerOf(name: string, { address, storageId }: FileNameParts): number {
    const owner = this.#sources.get(address ?? String(storageId)) ?? storageId
    if (owner !== undefined) return owner
    const how = `--source ${address}=<storage id> says which storage server is to be their source`
    throw new Error(`there are files of a server with the address ${address}, such as ${name}: ${how}`)
  }
}

/** Throws if a server of ours has run on the directory, or it was taken over already. */
async function expectFresh(disk: Disk, dataDirectory: string, { takeOver }: Identity): Promise<void> {
  if (takeOver?.plainUntil !== undefined) throw new Error(`${dataDirectory}: this was taken over already`)
  if (takeOver !== undefined) return
  const binlog = await listIfThere(disk, binlogDirectory(dataDirectory))
  if (binlog.length > 0)
    throw new Error(`${dataDirectory}: a storage server has run here, and nothing is taken over then`)
}

/** Removes our own half of an attempt that was not finished; nobody was served from it. */
async function removeBegun(disk: Disk, dataDirectory: string): Promise<void> {
  const binlog = binlogDirectory(dataDirectory)
  for (const name of await listIfThere(disk, binlog)) await disk.remove(join(binlog, name))
  const names = new Set(await disk.list(dataDirectory))
  for (const name of ['checkpoint', 'catalogue']) if (names.has(name)) await disk.remove(join(dataDirectory, name))
  await disk.syncDirectory(dataDirectory)
}

async function listIfThere(disk: Disk, path: string): Promise<string[]> {
  return (await disk.stat(path)) === undefined ? [] : disk.list(path)
}

/** All that is known of whose names are whose. */
async function sourcesOf(disk: Disk, options: TakeOverOptions): Promise<Map<string, number>> {
  const { storageId, basePath } = options
  const sources = new Map([[String(storageId), storageId], ...options.sources])
  const flag = await readInitFlag(disk, basePath)
  for (const address of (flag.get('last_ip_addr') ?? '').split(','))
    if (address !== '' && !sources.has(address)) sources.set(address, storageId)
  return sources
}

/** Reads a file to its end; `first` is what was read first. */
async function sumUp(disk: Disk, path: string): Promise<{ sizeBytes: number; sums: SidecarWriter; first: Buffer }> {
  const file = await disk.open(path, 'read')
  try {
    const buffer = Buffer.allocUnsafe(Math.max(1, Math.min(PIECE_BYTES, await file.sizeBytes())))
    const sums = new SidecarWriter()
    let first: Buffer | undefined
    for (let at = 0; ; ) {
      const count = await file.read(buffer, at)
      if (count > 0) sums.add(buffer.subarray(0, count))
      first ??= Buffer.from(buffer.subarray(0, Math.min(count, METADATA_BYTES_MAX)))
      at += count
      if (count < buffer.length) return { sizeBytes: at, sums, first }
    }
  } finally {
    await file.close()
  }
}

/** What a name says; undefined if it is none. */
function fileOf(name: string): FileNameParts | undefined {
  try {
    return decodeFileName(name)
  } catch {
    return undefined
  }
}

/** Whether metadata has a file: beside it, or in a trunk file, which is looked at later. */
function isMetadataOf(file: FileNameParts | undefined, baseName: string, there: ReadonlySet<string>): boolean {
  return file?.slot !== undefined || (file !== undefined && there.has(baseName.slice(0, -2)))
}

function hex(sum: number): string {
  return sum.toString(16).padStart(8, '0')
}

/** Where FastDFS keeps its own files, if our data directory is in `base_path` as `--fastdfs-conf` has it. */
export function basePathOf(dataDirectory: string): string {
  return dirname(dataDirectory)
}
