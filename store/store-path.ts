/**
 * One store path: a directory, usually a disk of its own, that holds a share of the files.
 *
 *     <path>/identity            { version, incarnation, index }: tells our disk from another one mounted here
 *     <path>/tmp/<token>         files on their way in
 *     <path>/data/0A/3F/<name>   files, in 256 x 256 directories made when they are first needed
 *     <path>/segments/           small files; see segments.ts
 */
import { dirname, join } from 'node:path'
import { DIRECTORIES, directoryName, type FileNameParts, nameAt } from '../protocol/file-id.ts'
import type { StorePathReport } from '../protocol/storage-messages.ts'
import { type Disk, DiskError } from '../runtime/world.ts'
import { CoalescedSync } from './coalesced-sync.ts'
import { makeDurableDirectory } from './durable-directory.ts'
import { DocumentDamagedError, readDocument, writeDocument } from './durable-document.ts'
import { Segments } from './segments.ts'

const STORE_PATH_VERSION = 1

const DIRECTORY_NAME = /^[0-9A-F]{2}$/

export interface StorePathOptions {
  /** Never given to uploads. */
  readonly reservedBytes: number
  /** Of the data directory. */
  readonly incarnation: string
  /** There has been such a path before. */
  readonly seen: boolean
  /** Whether files are synced before they are acknowledged. */
  readonly syncs: boolean
}

export class StorePath {
  readonly index: number
  readonly root: string
  readonly reservedBytes: number
  readonly segments: Segments
  /** Whether files are synced before they are acknowledged. */
  readonly syncs: boolean
  readonly #disk: Disk
  readonly #incarnation: string
  readonly #temporarySync: CoalescedSync
  /** One bit per directory that is known to exist. */
  readonly #made = new Uint8Array((DIRECTORIES * DIRECTORIES) / 8)
  /** Directories whose entries changed since the last checkpoint. */
  #changed = new Set<string>()
  #changedFiles = new Set<string>()
  #space = { totalBytes: 0, freeBytes: 0 }
  #failure: Error | undefined

  private constructor(disk: Disk, index: number, root: string, options: StorePathOptions) {
    this.#disk = disk
    this.index = index
    this.root = root
    this.reservedBytes = options.reservedBytes
    this.syncs = options.syncs
    this.#incarnation = options.incarnation
    const checkPresent = () => this.checkPresent()
    this.segments = new Segments(disk, root, { syncs: this.syncs, checkPresent })
    this.#temporarySync = new CoalescedSync(() => disk.syncDirectory(join(root, 'tmp')))
  }

  /**
   * Opens a store path of a data directory, or makes it. Throws if another data directory's path is there. One that has
   * been `seen` before and is not there any more is a disk that is missing: it is opened as failed, and nothing is made
   * on what is mounted instead.
   */
  static async open(disk: Disk, index: number, root: string, options: StorePathOptions): Promise<StorePath> {
    const { incarnation } = options
    const path = new StorePath(disk, index, root, options)
    if (options.seen && (await path.#readIdentity()) === undefined) {
      path.fail(new DiskError('find', root, 'ENODEV'))
      return path
    }
    await makeDurableDirectory(disk, root)
    await disk.makeDirectory(join(root, 'tmp'))
    await disk.makeDirectory(join(root, 'data'))
    await disk.makeDirectory(join(root, 'segments'))
    const found = await path.#readIdentity()
    if (found === undefined) {
      await writeDocument(disk, join(root, 'identity'), { version: STORE_PATH_VERSION, incarnation, index })
    } else if (found.incarnation !== incarnation || found.index !== index) {
      throw new DocumentDamagedError(join(root, 'identity'), 'this is a store path of another data directory')
    }
    // What was found may be in memory only: whoever wrote it may not have come to this.
    await disk.syncDirectory(root)
    await path.measure()
    return path
  }

  /** Where a file lies. */
  pathOf(file: Pick<FileNameParts, 'directory' | 'baseName'>): string {
    return join(this.root, 'data', file.directory, file.baseName)
  }

  temporaryPath(token: string): string {
    return join(this.root, 'tmp', token)
  }

  /** Makes the entries of files on their way in durable; many at once share one sync. */
  syncTemporary(): Promise<void> {
    return this.#temporarySync.request()
  }

  /** Makes sure that a file's directory exists. */
  async makeDirectoryOf(file: Pick<FileNameParts, 'directory' | 'directoryIndex'>): Promise<void> {
    const index = file.directoryIndex
    const bit = 1 << (index & 7)
    if ((this.#made[index >> 3]! & bit) !== 0) return
    await this.#disk.makeDirectory(join(this.root, 'data', file.directory))
    this.#changed.add(dirname(join(this.root, 'data', file.directory))).add(join(this.root, 'data'))
    this.#made[index >> 3]! |= bit
  }

  /** Whether a file's directory exists. Rejects if the disk is not there: an empty mount point has no directories. */
  async hasDirectoryOf(file: Pick<FileNameParts, 'directory'>): Promise<boolean> {
    await this.checkPresent()
    return (await this.#disk.stat(join(this.root, 'data', file.directory))) !== undefined
  }

  /** Names of whatever lies in some directories, by their indexes; those that do not exist cost nothing. */
  async *namesIn(directoryIndexes: Iterable<number>): AsyncGenerator<string> {
    const data = join(this.root, 'data')
    const made = new Map<string, Set<string>>()
    const high = new Set(await this.#disk.list(data))
    for (const directory of [...directoryIndexes].map(directoryName)) {
      const [parent = '', own = ''] = directory.split('/')
      if (!high.has(parent)) continue
      if (!made.has(parent)) made.set(parent, new Set(await this.#disk.list(join(data, parent))))
      if (!made.get(parent)!.has(own)) continue
      for (const name of await this.#disk.list(join(data, directory))) yield nameAt(this.index, directory, name)
    }
  }

  /** Names in the first directory there is from an index on, in order; undefined behind the last. Rejects if the disk is not there. */
  async namesFrom(directoryIndex: number): Promise<{ directoryIndex: number; names: string[] } | undefined> {
    await this.checkPresent()
    if (directoryIndex >= DIRECTORIES * DIRECTORIES) return undefined
    const data = join(this.root, 'data')
    const from = directoryName(directoryIndex)
    for (const parent of (await this.#disk.list(data)).filter(isDirectoryName).sort()) {
      if (parent < from.slice(0, 2)) continue
      const owns = (await this.#disk.list(join(data, parent))).filter(isDirectoryName).sort()
      const directory = owns.map(own => `${parent}/${own}`).find(found => found >= from)
      if (directory === undefined) continue
      const names = (await this.#disk.list(join(data, directory))).sort()
      return {
        directoryIndex: Number.parseInt(directory.replace('/', ''), 16),
        names: names.map(name => nameAt(this.index, directory, name)),
      }
    }
    return undefined
  }

  /** Notes that a file's directory has to be synced before the record of the change may be forgotten. */
  noteChange(file: Pick<FileNameParts, 'directory'>): void {
    this.#changed.add(join(this.root, 'data', file.directory))
  }

  /** The same of a file that changed in place. */
  noteFile(path: string): void {
    this.#changedFiles.add(path)
  }

  /** Makes all changes so far durable. */
  async syncChanges(): Promise<void> {
    const changed = this.#changed
    const changedFiles = this.#changedFiles
    this.#changed = new Set()
    this.#changedFiles = new Set()
    try {
      for (const path of changedFiles) await this.#syncFile(path)
      for (const directory of changed) await this.#disk.syncDirectory(directory)
      await this.segments.syncChanges()
    } catch (error) {
      for (const path of changedFiles) this.#changedFiles.add(path)
      for (const directory of changed) this.#changed.add(directory)
      // Not every file system tells the truth when it is asked again.
      this.fail(error as Error)
      throw error
    }
  }

  async #syncFile(path: string): Promise<void> {
    const file = await this.#disk.open(path, 'update').catch(error => {
      // One that is not there was deleted since: its directory is synced.
      if ((error as DiskError).errno !== 'ENOENT') throw error
    })
    try {
      await file?.sync()
    } finally {
      await file?.close()
    }
  }

  /** Turns the path read-only for good: a disk that failed once is not trusted again by this process. */
  fail(error: Error): void {
    this.#failure ??= error
  }

  /** Whether there is room, on a disk that is good. */
  get isWritable(): boolean {
    return this.#failure === undefined && this.availableBytes > 0
  }

  get failure(): Error | undefined {
    return this.#failure
  }

  /** Throws unless the disk behind this path is still ours: an empty mount point has no files, and none is deleted. */
  async checkPresent(): Promise<void> {
    const found = await this.#readIdentity()
    if (found?.incarnation !== this.#incarnation || found.index !== this.index) {
      throw new DiskError('find', this.root, 'ENODEV')
    }
  }

  /** Throws unless the disk is there and good: only then may it be said that it does not have a file. */
  async checkSound(): Promise<void> {
    await this.checkPresent()
    if (this.#failure !== undefined) throw this.#failure
  }

  /** Looks at the disk's free space, and whether the disk is there. */
  async measure(): Promise<void> {
    try {
      await this.checkPresent()
      this.#space = await this.#disk.space(this.root)
    } catch (error) {
      this.fail(error as Error)
    }
  }

  /** Room for uploads above the reserve. */
  get availableBytes(): number {
    return Math.max(0, this.#space.freeBytes - this.reservedBytes)
  }

  /** Counts bytes that are about to be written, or will not be after all, until the next measurement sees the truth. */
  reserve(bytes: number): void {
    this.#space = { ...this.#space, freeBytes: this.#space.freeBytes - bytes }
  }

  get report(): StorePathReport {
    return {
      index: this.index,
      totalBytes: this.#space.totalBytes,
      freeBytes: Math.max(0, this.#space.freeBytes),
      reservedBytes: this.reservedBytes,
      writable: this.#failure === undefined,
    }
  }

  async #readIdentity(): Promise<{ incarnation: string; index: number } | undefined> {
    const identity = join(this.root, 'identity')
    const found = (await readDocument(this.#disk, identity)) as
      | { version: number; incarnation: string; index: number }
      | undefined
    if (found !== undefined && found.version !== STORE_PATH_VERSION) {
      throw new DocumentDamagedError(identity, `version ${found.version} is not known here`)
    }
    return found
  }
}

function isDirectoryName(name: string): boolean {
  return DIRECTORY_NAME.test(name)
}
