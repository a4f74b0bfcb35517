/**
 * Writes what a FastDFS storage server needs to go on with the files of one of ours, under the same ids.
 *
 *     <to>/base_path/data/.data_init_flag      written last: without it FastDFS takes the directory for a new one
 *     <to>/base_path/data/sync/binlog.000      a record for each file, so that peers get what they lack
 *     <to>/store_path0/data/0A/3F/<name>       plain and slave files (links, where they can be), appender files, metadata
 *     <to>/store_path0/data/0A/3F/<id>         trunk files: segments
 *
 * What FastDFS writes into is copied: our own directory stays as it is, whatever becomes of the other.
 */
import { join } from 'node:path'
import { DfsError } from '../protocol/errors.ts'
import { DIRECTORIES, decodeFileName, directoryName, type FileNameParts, nameAt } from '../protocol/file-id.ts'
import type { Log } from '../runtime/log.ts'
import { readText } from '../runtime/text-file.ts'
import type { Timers } from '../runtime/timers.ts'
import type { Disk, DiskFile, World } from '../runtime/world.ts'
import { binlogDirectory, epochsOf } from './binlog-files.ts'
import { readRecords } from './binlog-reader.ts'
import { openDirectory } from './data-directory.ts'
import { directoriesOf, isTrunkFileName, readInitFlag } from './fastdfs-directory.ts'
import { FileStore } from './file-store.ts'
import { Segments, trunkFileName } from './segments.ts'
import { isTrunkFile, SLOT_BYTES_MAX, stateOf } from './slot.ts'
import type { StoreOptions } from './store-options.ts'

const PIECE_BYTES = 1024 * 1024
/** Lines of the binlog that are written at a time. */
const LINES_BYTES = 64 * 1024
/** Directories that are made at the same time. */
const DIRECTORIES_AT_ONCE = 64

export interface ExportOptions extends StoreOptions {
  /** Where to; must be empty, or not there. */
  readonly to: string
  /** FastDFS's own, if it was taken over from there: its state goes on. */
  readonly basePath: string
  /** What FastDFS is to know the server by, if nothing is left of it there. */
  readonly address?: string | undefined
  readonly port: number
  /** `subdir_count_per_path`. */
  readonly subdirCount: number
  /** Gives a file another name; false where that cannot be. */
  readonly link: (from: string, to: string) => Promise<boolean>
}

/** What was written. */
export interface ExportCounts {
  plain: number
  slave: number
  appender: number
  packed: number
  metadata: number
  trunkFiles: number
  linked: number
}

/** Writes everything. Rejects with an Error if it cannot be said how FastDFS would go on, or `to` is not empty. */
export async function exportToFastdfs(
  { world, timers, log }: { world: World; timers: Timers; log: Log },
  options: ExportOptions,
): Promise<ExportCounts> {
  const { disk } = world
  const { dataDirectory, to, storePaths } = options
  if ((await disk.stat(join(dataDirectory, 'identity'))) === undefined)
    throw new Error(`${dataDirectory}: there is no storage server's data here`)
  const { identity, lock } = await openDirectory(world, options)
  try {
    const flag = await initFlagOf(disk, options)
    await makeEmpty(disk, to)
    const store = await FileStore.open(world, timers, log, options, identity)
    try {
      const roots = storePaths.length > 0 ? storePaths : [join(dataDirectory, 'store')]
      return await new Export(disk, store, roots, options).write(flag)
    } finally {
      await store.close()
    }
  } finally {
    await lock.release()
  }
}

class Export {
  readonly counts: ExportCounts = {
    plain: 0,
    slave: 0,
    appender: 0,
    packed: 0,
    metadata: 0,
    trunkFiles: 0,
    linked: 0,
  }
  readonly #disk: Disk
  readonly #store: FileStore
  readonly #roots: readonly string[]
  readonly #options: ExportOptions
  #binlog: DiskFile | undefined
  #binlogBytes = 0
  #lines: string[] = []
  #linesBytes = 0

  constructor(disk: Disk, store: FileStore, roots: readonly string[], options: ExportOptions) {
    this.#disk = disk
    this.#store = store
    this.#roots = roots
    this.#options = options
  }

  async write(flag: Map<string, string>): Promise<ExportCounts> {
    const disk = this.#disk
    const base = join(this.#options.to, 'base_path')
    for (const path of [base, join(base, 'data'), join(base, 'data/sync')]) await disk.makeDirectory(path)
    this.#binlog = await disk.open(join(base, 'data/sync/binlog.000'), 'create')
    let trunkIdMax = Number(flag.get('current_trunk_file_id') ?? 0)
    for (const [index, root] of this.#roots.entries()) {
      const to = join(this.#options.to, `store_path${index}`)
      await this.#makeDirectories(to)
      trunkIdMax = Math.max(trunkIdMax, await this.#copyFiles(index, root, to))
      await this.#copySegments(index, root, to)
      const mark = await this.#copyMark(root, to)
      if (mark !== undefined) flag.set(`store_path_mark${index}`, mark)
      await this.#syncDirectories(to)
    }
    await this.#recordTrunkFiles()
    await this.#writeLines()
    await this.#binlog.sync()
    await this.#binlog.close()
    await this.#writeText(join(base, 'data/sync/binlog_index.dat'), 'current_write=0\ncurrent_compress=0\n')
    flag.set('current_trunk_file_id', String(trunkIdMax))
    await disk.syncDirectory(join(base, 'data/sync'))
    const text = [...flag].map(([key, value]) => `${key}=${value}\n`).join('')
    await this.#writeText(join(base, 'data/.data_init_flag'), text)
    await disk.syncDirectory(join(base, 'data'))
    return this.counts
  }

  /** All that FastDFS makes itself when it begins anew, and never later. */
  async #makeDirectories(to: string): Promise<void> {
    const { subdirCount } = this.#options
    for (const path of [to, join(to, 'data')]) await this.#disk.makeDirectory(path)
    const each = Array.from({ length: subdirCount }, (_, i) => i)
    for (const high of each) await this.#disk.makeDirectory(join(to, 'data', directoryName(high).slice(3)))
    for (const high of each) {
      for (let at = 0; at < subdirCount; at += DIRECTORIES_AT_ONCE) {
        const some = each.slice(at, at + DIRECTORIES_AT_ONCE).map(low => directoryName(high * DIRECTORIES + low))
        await Promise.all(some.map(directory => this.#disk.makeDirectory(join(to, 'data', directory))))
      }
    }
  }

  async #syncDirectories(to: string): Promise<void> {
    const data = join(to, 'data')
    for (const high of await this.#disk.list(data)) {
      if ((await this.#disk.stat(join(data, high)))?.kind !== 'directory') continue
      for (const low of await this.#disk.list(join(data, high))) await this.#disk.syncDirectory(join(data, high, low))
      await this.#disk.syncDirectory(join(data, high))
    }
    for (const path of [data, to]) await this.#disk.syncDirectory(path)
  }

  /** Plain, slave and appender files, FastDFS's own trunk files, and metadata; returns the largest id of a trunk file. */
  async #copyFiles(index: number, root: string, to: string): Promise<number> {
    let trunkIdMax = 0
    for await (const { directory, names } of directoriesOf(this.#disk, root)) {
      const [from, into] = [join(root, 'data', directory), await this.#directory(to, directory)]
      for (const baseName of names) {
        if (isTrunkFileName(baseName)) {
          await copyFile(this.#disk, join(from, baseName), join(into, baseName))
          this.counts.trunkFiles++
          trunkIdMax = Math.max(trunkIdMax, Number(baseName))
          continue
        }
        const name = nameAt(index, directory, baseName)
        if (baseName.endsWith('-m')) await this.#copyMetadata(name.slice(0, -2), join(into, baseName))
        else await this.#copyFile(name, join(from, baseName), join(into, baseName))
      }
    }
    return trunkIdMax
  }

  async #copyFile(name: string, from: string, to: string): Promise<void> {
    const file = fileOf(name)
    if (file === undefined || file.kind === 'segment') return
    // FastDFS writes into appender files, and nobody shall write into ours.
    const isLinked = file.kind !== 'appender' && (await this.#options.link(from, to))
    if (isLinked) this.counts.linked++
    else await copyFile(this.#disk, from, to)
    this.counts[file.kind]++
    await this.#record(name, file)
  }

  async #copyMetadata(name: string, to: string): Promise<void> {
    const file = fileOf(name)
    const metadata = file && (await this.#store.readMetadata(file).catch(ignoreCorrupt))
    // None is empty: FastDFS has no file then.
    if (file === undefined || metadata === undefined || metadata.length === 0) return
    await this.#writeBytes(to, metadata)
    this.counts.metadata++
    await this.#record(`${name}-m`, file)
  }

  /** Segments become trunk files: slots and names are the same. */
  async #copySegments(index: number, root: string, to: string): Promise<void> {
    const segments = new Segments(this.#disk, root, { syncs: false, checkPresent: async () => {} })
    for (const ref of await segments.listAll()) {
      const directory = directoryName(ref.segmentId % (DIRECTORIES * DIRECTORIES))
      const from = join(root, 'segments', String(ref.storageId), String(ref.segmentId).padStart(10, '0'))
      const path = join(await this.#directory(to, directory), trunkFileName(ref))
      if ((await this.#disk.stat(path)) !== undefined)
        throw new Error(`${from}: two storage servers have a segment with this id, and FastDFS can have only one`)
      await copyFile(this.#disk, from, path)
      this.counts.trunkFiles++
      for await (const { name, header } of segments.slots(ref, index, { fromBytes: 0, untilBytes: Infinity })) {
        if (header.isFree) continue
        this.counts.packed++
        await this.#record(name, decodeFileName(name))
      }
    }
    await segments.close()
  }

  /** What is in FastDFS's own trunk files: their slots do not say whose it is, our records do. */
  async #recordTrunkFiles(): Promise<void> {
    if (this.counts.trunkFiles === 0) return
    const directory = binlogDirectory(this.#options.dataDirectory)
    const buffer = Buffer.allocUnsafe(SLOT_BYTES_MAX)
    for (const epoch of await epochsOf(this.#disk, directory)) {
      const all = { after: 0, until: Number.POSITIVE_INFINITY }
      for await (const { record } of readRecords(this.#disk, directory, epoch, all, () => {})) {
        const file = record.op.toUpperCase() === 'C' ? fileOf(record.name) : undefined
        if (file?.slot === undefined || !isTrunkFile(file.slot)) continue
        const slot = buffer.subarray(0, file.slot.slotBytes)
        const count = await this.#store.readSlots(file, slot)
        if (stateOf(slot.fill(0, count), file) !== 'present') continue
        this.counts.packed++
        await this.#record(record.name, file)
      }
    }
  }

  /** FastDFS's word for whose store path this is, which stands in two places. */
  async #copyMark(root: string, to: string): Promise<string | undefined> {
    const text = await readText(this.#disk, join(root, 'data/.fastdfs_vars'))
    if (text === undefined) return undefined
    await this.#writeText(join(to, 'data/.fastdfs_vars'), text)
    return /^store_path_mark=(.*)$/m.exec(text)?.[1]
  }

  /** A file of another source has been got from it, and is not sent to anybody. */
  async #record(name: string, { storageId, address, createTimeS }: FileNameParts): Promise<void> {
    const { formerly, storageId: own } = this.#store
    const isOwn = storageId === own || formerly.includes(address ?? String(storageId))
    const line = `${createTimeS} ${isOwn ? 'C' : 'c'} ${name}\n`
    this.#lines.push(line)
    this.#linesBytes += line.length
    if (this.#linesBytes >= LINES_BYTES) await this.#writeLines()
  }

  async #writeLines(): Promise<void> {
    await this.#binlog!.write([Buffer.from(this.#lines.join(''), 'latin1')], this.#binlogBytes)
    this.#binlogBytes += this.#linesBytes
    this.#lines = []
    this.#linesBytes = 0
  }

  async #directory(to: string, directory: string): Promise<string> {
    const path = join(to, 'data', directory)
    await this.#disk.makeDirectory(join(to, 'data', directory.slice(0, 2)))
    await this.#disk.makeDirectory(path)
    return path
  }

  #writeText(path: string, text: string): Promise<void> {
    return this.#writeBytes(path, Buffer.from(text))
  }

  async #writeBytes(path: string, bytes: Buffer): Promise<void> {
    const file = await this.#disk.open(path, 'create')
    try {
      await file.write([bytes], 0)
      await file.sync()
    } finally {
      await file.close()
    }
  }
}

/** What `.data_init_flag` will say. Throws if nobody knows the address. */
async function initFlagOf(disk: Disk, { basePath, address, port }: ExportOptions): Promise<Map<string, string>> {
  const flag = new Map(await readInitFlag(disk, basePath))
  const known = address ?? flag.get('last_ip_addr')
  if (known === undefined) throw new Error('FastDFS wants the address of its storage server: --address says it')
  const defaults = { storage_join_time: '0', sync_src_server: '', sync_until_timestamp: '0' }
  for (const [key, value] of Object.entries(defaults)) if (!flag.has(key)) flag.set(key, value)
  if (!flag.has('last_server_port')) flag.set('last_server_port', String(port))
  return flag.set('sync_old_done', '1').set('last_ip_addr', known)
}

async function makeEmpty(disk: Disk, path: string): Promise<void> {
  await disk.makeDirectory(path)
  if ((await disk.list(path)).length > 0) throw new Error(`${path} is not empty: an export begins with nothing`)
}

async function copyFile(disk: Disk, from: string, to: string): Promise<void> {
  const source = await disk.open(from, 'read')
  try {
    const target = await disk.open(to, 'create')
    try {
      const buffer = Buffer.allocUnsafe(PIECE_BYTES)
      for (let at = 0; ; ) {
        const count = await source.read(buffer, at)
        if (count === 0) break
        await target.write([buffer.subarray(0, count)], at)
        at += count
      }
      await target.sync()
    } finally {
      await target.close()
    }
  } finally {
    await source.close()
  }
}

/** What a name says; undefined if it is none, such as that of a sidecar. */
function fileOf(name: string): FileNameParts | undefined {
  try {
    return decodeFileName(name)
  } catch {
    return undefined
  }
}

/** What is damaged here is not passed on as good. */
function ignoreCorrupt(error: unknown): undefined {
  if (error instanceof DfsError && error.code === 'corrupt') return undefined
  throw error
}
