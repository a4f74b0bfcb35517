/**
 * A disk that has lost, when this process is killed, whatever nobody synced: SIGKILL is a power cut. The idea is that
 * of LazyFS, one layer higher.
 *
 *     create, rename, remove, makeDirectory ──▶ changes ──syncDirectory──▶ the directory tree below `root`
 *     write, truncate ──▶ pieces ──sync──▶ the file, or `<root>.nameless/<n>` as long as the disk has no name for it
 *
 * Changes and pieces are in memory alone, and the process sees its disk through them. A sync of a directory makes the
 * changes in it durable, and what those could not be without: earlier changes of the same file, of the same name, and the
 * making of the directories on the way. Others stay behind, in whatever order they came. A rename is never half done.
 *
 * The real files are touched by calls that do not wait: between two of them the disk is always in a state of our choice.
 * Nothing is synced for real: the machine lives on, and what it was told it keeps.
 */
import {
  closeSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  unlinkSync,
  writeSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { deserialize, serialize } from 'node:v8'
import { realDisk } from '../../runtime/real-disk.ts'
import { type Disk, type DiskEntry, DiskError, type DiskFile, type DiskLock } from '../../runtime/world.ts'
import type { SeededRandom } from '../simulation/seeded-random.ts'

/** What a disk writes as a whole or not at all. */
const SECTOR_BYTES = 512

/** The slowest call and the slowest sync of a disk that takes its time: long enough for others to come in between. */
const CALL_MS_MAX = 2
const SYNC_MS_MAX = 4

/** How entries that nobody synced get to the disk when the power goes: as in a journal, or each for itself. */
export type EntryOrder = 'in order' | 'in any order'

export interface LazyDiskOptions {
  /** Syncs of these paths do nothing and say they did: the control that shows what a test can see. */
  readonly lies?: RegExp | undefined
  /** Lets every call take a random while, so that calls meet in many orders. */
  readonly random?: SeededRandom
  /** Called when a sync is about to take effect. */
  readonly onSync?: (path: string) => void
  /** What an earlier process left in the machine's memory: see `cache`. */
  readonly cache?: Buffer | undefined
}

/** A file or a directory, whatever names it has. */
interface Inode {
  readonly number: number
  readonly kind: DiskEntry['kind']
  sizeBytes: number
  mtimeMs: number
  /** Where its durable part is; undefined if it has none, or its last durable name is gone. */
  home: string | undefined
  /** Of the durable part, while somebody has the file open: it is read on after its name is gone. */
  descriptor: number | undefined
  openCount: number
  /** What was written and not synced, in order, and how many pieces came before. */
  pieces: Piece[]
  piecesDurable: number
}

/** Bytes at an offset, or a new size. */
type Piece = { readonly offsetBytes: number; readonly bytes: Buffer } | { readonly sizeBytes: number }

/** A name is given (`to`), taken away (`from`), or both. Directories are never renamed, so their paths name them. */
interface Change {
  readonly inode: Inode
  readonly from?: string
  readonly to?: string
}

/** What `cache` keeps. */
interface Cache {
  readonly numbers: number
  readonly inodes: readonly Omit<Inode, 'descriptor' | 'openCount'>[]
  readonly changes: readonly { number: number; from?: string; to?: string }[]
}

export class LazyDisk implements Disk {
  readonly #root: string
  readonly #options: LazyDiskOptions
  /** Entries as the process sees them, of the directories it has looked into. */
  readonly #folders = new Map<string, Map<string, Inode>>()
  /** Who lives at a path of the real disk. */
  readonly #homes = new Map<string, Inode>()
  readonly #locks = new Set<string>()
  /** Files with pieces. */
  readonly #dirty = new Set<Inode>()
  readonly #described = new Set<Inode>()
  #changes: Change[] = []
  #numbers = 0
  #isDead = false

  /** Takes over what is durable below `root`, an absolute path; all paths must lie there. */
  constructor(root: string, options: LazyDiskOptions = {}) {
    this.#root = root
    this.#options = options
    mkdirSync(root, { recursive: true })
    // Nobody will ever find what had no name when the power went.
    if (options.cache === undefined) rmSync(this.#nameless, { recursive: true, force: true })
    mkdirSync(this.#nameless, { recursive: true })
    this.#homes.set(root, this.#newInode('directory', root))
    if (options.cache !== undefined) this.#remember(deserialize(options.cache) as Cache)
  }

  /**
   * Lets a random part of what is not durable through to the disk, as happens while the power goes: sectors of pieces,
   * and changes of entries. To be called right before the end.
   */
  tear(random: SeededRandom, order: EntryOrder): void {
    for (const inode of this.#dirty) {
      const some = random.between(0, 1)
      const chance = random.pick([0, 1, some, some])
      for (const piece of inode.pieces.splice(0).flatMap(sectorsOf)) if (random.chance(chance)) this.#put(inode, piece)
      if (inode.openCount === 0) this.#closeDescriptor(inode)
    }
    const until = random.below(this.#changes.length + 1)
    const chance = random.between(0, 1)
    this.#makeDurable((_, i) => (order === 'in order' ? i < until : random.chance(chance)))
  }

  /**
   * Everything that is not durable, for a disk in the next process to go on with: as after a `kill -9`, when the process
   * is gone and the machine lives on.
   */
  cache(): Buffer {
    const inodes = new Set([...this.#dirty, ...this.#changes.map(({ inode }) => inode)])
    const kept: Cache = {
      numbers: this.#numbers,
      inodes: [...inodes].map(({ descriptor, openCount, ...rest }) => rest),
      changes: this.#changes.map(({ inode, ...names }) => ({ number: inode.number, ...names })),
    }
    return serialize(kept)
  }

  /**
   * Ends it for a test that lives on: what is under way does not come back, and nothing more happens. The next disk takes
   * over.
   */
  die(): void {
    this.#isDead = true
    for (const inode of this.#described) this.#closeDescriptor(inode)
  }

  async open(path: string, mode: 'read' | 'create' | 'update'): Promise<DiskFile> {
    await this.#wait(CALL_MS_MAX)
    let inode = this.#find('open', path)
    if (mode === 'create') {
      if (inode !== undefined) throw new DiskError('open', path, 'EEXIST')
      inode = this.#newInode('file')
      this.#change({ inode, to: path })
    }
    if (inode === undefined) throw new DiskError('open', path, 'ENOENT')
    if (inode.kind !== 'file') throw new DiskError('open', path, 'EISDIR')
    inode.openCount++
    if (inode.home !== undefined) this.#descriptorOf(inode)
    return this.#fileOf(inode, path, mode !== 'read')
  }

  async rename(from: string, to: string): Promise<void> {
    await this.#wait(CALL_MS_MAX)
    const inode = this.#find('rename', from)
    if (inode === undefined) throw new DiskError('rename', from, 'ENOENT')
    if (inode.kind === 'directory') throw new DiskError('rename', from, 'ENOTSUP')
    if (this.#find('rename', to)?.kind === 'directory') throw new DiskError('rename', from, 'EISDIR')
    if (from !== to) this.#change({ inode, from, to })
  }

  async remove(path: string): Promise<void> {
    await this.#wait(CALL_MS_MAX)
    const inode = this.#find('remove', path)
    if (inode === undefined) throw new DiskError('remove', path, 'ENOENT')
    if (inode.kind === 'directory') throw new DiskError('remove', path, 'ERR_FS_EISDIR')
    this.#change({ inode, from: path })
  }

  async makeDirectory(path: string): Promise<void> {
    await this.#wait(CALL_MS_MAX)
    const missing: string[] = []
    let above = path
    while (this.#statOf(above) === undefined) {
      missing.unshift(above)
      above = dirname(above)
    }
    if (this.#find('make directory', above)!.kind !== 'directory') {
      throw new DiskError('make directory', path, above === path ? 'EEXIST' : 'ENOTDIR')
    }
    for (const directory of missing) this.#change({ inode: this.#newInode('directory'), to: directory })
  }

  async list(path: string): Promise<string[]> {
    await this.#wait(CALL_MS_MAX)
    return [...this.#folder('list', path).keys()]
  }

  async stat(path: string): Promise<DiskEntry | undefined> {
    await this.#wait(CALL_MS_MAX)
    const inode = this.#statOf(path)
    if (inode === undefined) return undefined
    const { kind, sizeBytes, mtimeMs, number } = inode
    return { kind, sizeBytes, mtimeMs, inode: BigInt(number) }
  }

  async syncDirectory(path: string): Promise<void> {
    this.#folder('sync directory', path)
    // What changes while the sync is under way is not promised.
    // A rename is promised by the directory it goes to; the one it comes from may take it along, as a journal does.
    const withAway = this.#options.random?.chance(0.5) === true
    const asked = new Set(
      this.#changes.filter(({ from, to }) => isIn(to ?? from, path) || (withAway && isIn(from, path))),
    )
    await this.#wait(SYNC_MS_MAX)
    if (this.#options.lies?.test(path)) return
    this.#options.onSync?.(path)
    if (this.#isDead) await NEVER
    this.#makeDurable(change => asked.has(change))
  }

  space(): Promise<{ totalBytes: number; freeBytes: number }> {
    return realDisk.space(this.#root)
  }

  /** The lock of this process only: nobody else uses its disk, and nothing is left of it when it dies. */
  async lock(directory: string): Promise<DiskLock> {
    if (this.#locks.has(directory)) throw new DiskError('lock', directory, 'EEXIST')
    this.#locks.add(directory)
    return {
      held: async () => this.#locks.has(directory),
      release: async () => void this.#locks.delete(directory),
    }
  }

  get #nameless(): string {
    return `${this.#root}.nameless`
  }

  #fileOf(inode: Inode, path: string, writable: boolean): DiskFile {
    const add = (action: string, errno: string, piece: Piece) => {
      if (!writable) throw new DiskError(action, path, errno)
      inode.pieces.push(piece)
      inode.mtimeMs = Date.now()
      this.#dirty.add(inode)
    }
    let isOpen = true
    const file: DiskFile = {
      read: async (target, offsetBytes) => {
        await this.#wait(CALL_MS_MAX)
        return this.#read(inode, target, offsetBytes)
      },
      write: async (parts, offsetBytes) => {
        // The parts may be reused when we return, but not before.
        await this.#wait(CALL_MS_MAX)
        const bytes = Buffer.concat(parts)
        if (bytes.length === 0) return
        add('write', 'EBADF', { offsetBytes, bytes })
        inode.sizeBytes = Math.max(inode.sizeBytes, offsetBytes + bytes.length)
      },
      writeDurably: async (parts, offsetBytes) => {
        await file.write(parts, offsetBytes)
        await file.sync()
      },
      truncate: async sizeBytes => {
        await this.#wait(CALL_MS_MAX)
        add('truncate', 'EINVAL', { sizeBytes })
        inode.sizeBytes = sizeBytes
      },
      sync: () => this.#sync(inode, path),
      sizeBytes: async () => inode.sizeBytes,
      close: async () => {
        if (!isOpen) throw new DiskError('close', path, 'EBADF')
        isOpen = false
        if (--inode.openCount === 0) this.#closeDescriptor(inode)
      },
    }
    return file
  }

  #read(inode: Inode, target: Uint8Array, offsetBytes: number): number {
    const count = Math.max(0, Math.min(target.length, inode.sizeBytes - offsetBytes))
    const view = target.subarray(0, count)
    view.fill(0)
    for (let at = 0; inode.descriptor !== undefined && at < count; ) {
      const read = readSync(inode.descriptor, view, at, count - at, offsetBytes + at)
      if (read === 0) break
      at += read
    }
    for (const piece of inode.pieces) {
      if ('sizeBytes' in piece) view.fill(0, Math.max(0, Math.min(count, piece.sizeBytes - offsetBytes)))
      else overlay(view, offsetBytes, piece)
    }
    return count
  }

  async #sync(inode: Inode, path: string): Promise<void> {
    // What is written while the sync is under way is not promised.
    const until = inode.piecesDurable + inode.pieces.length
    await this.#wait(SYNC_MS_MAX)
    if (this.#options.lies?.test(path)) return
    this.#options.onSync?.(path)
    if (this.#isDead) await NEVER
    for (; inode.piecesDurable < until; inode.piecesDurable++) this.#put(inode, inode.pieces.shift()!)
    if (inode.pieces.length === 0) this.#dirty.delete(inode)
  }

  /** Brings a piece to the real disk. */
  #put(inode: Inode, piece: Piece): void {
    const descriptor = this.#descriptorOf(inode)
    if ('sizeBytes' in piece) ftruncateSync(descriptor, piece.sizeBytes)
    else {
      const { bytes, offsetBytes } = piece
      for (let at = 0; at < bytes.length; ) at += writeSync(descriptor, bytes, at, bytes.length - at, offsetBytes + at)
    }
  }

  /** Enacts some of the pending changes, and those they could not be without. */
  #makeDurable(isChosen: (change: Change, index: number) => boolean): void {
    const chosen = new Set<Change>()
    const inodes = new Set<Inode>()
    const paths = new Set<string>()
    // What a change needs came before it.
    for (let index = this.#changes.length - 1; index >= 0; index--) {
      const change = this.#changes[index]!
      const names = [change.from, change.to].filter(name => name !== undefined)
      const isNeeded = inodes.has(change.inode) || names.some(name => paths.has(name))
      if (!isNeeded && !isChosen(change, index)) continue
      chosen.add(change)
      inodes.add(change.inode)
      for (const name of names) paths.add(name).add(dirname(name))
    }
    for (const change of this.#changes) if (chosen.has(change)) this.#enact(change)
    this.#changes = this.#changes.filter(change => !chosen.has(change))
  }

  #enact({ inode, from, to }: Change): void {
    if (from !== undefined) this.#homes.delete(from)
    if (to === undefined) {
      unlinkSync(from!)
      inode.home = undefined
      return
    }
    const replaced = this.#homes.get(to)
    if (replaced !== undefined) replaced.home = undefined
    if (inode.home !== undefined) renameSync(inode.home, to)
    else if (inode.kind === 'directory') mkdirSync(to)
    else closeSync(openSync(to, 'wx', 0o600))
    inode.home = to
    this.#homes.set(to, inode)
    if (inode.openCount > 0) this.#descriptorOf(inode)
  }

  /** Opens the durable part, making it if there is none. */
  #descriptorOf(inode: Inode): number {
    const isNew = inode.home === undefined && inode.descriptor === undefined
    if (isNew) inode.home = join(this.#nameless, String(inode.number))
    inode.descriptor ??= openSync(inode.home!, isNew ? 'wx+' : 'r+', 0o600)
    this.#described.add(inode)
    return inode.descriptor
  }

  #closeDescriptor(inode: Inode): void {
    if (inode.descriptor !== undefined) closeSync(inode.descriptor)
    inode.descriptor = undefined
    this.#described.delete(inode)
  }

  #change(change: Change): void {
    this.#changes.push(change)
    this.#show(change)
  }

  #show({ inode, from, to }: Change): void {
    if (from !== undefined) this.#folder('change', dirname(from)).delete(basename(from))
    if (to === undefined) return
    this.#folder('change', dirname(to)).set(basename(to), inode)
    if (inode.kind === 'directory') this.#folders.set(to, new Map())
  }

  /** Goes on where the process before left off. */
  #remember({ numbers, inodes, changes }: Cache): void {
    this.#numbers = numbers
    const known = new Map<number, Inode>()
    for (const kept of inodes) {
      const inode: Inode = { ...kept, descriptor: undefined, openCount: 0 }
      known.set(inode.number, inode)
      if (inode.home !== undefined) this.#homes.set(inode.home, inode)
      if (inode.pieces.length > 0) this.#dirty.add(inode)
    }
    for (const { number, ...names } of changes) this.#change({ inode: known.get(number)!, ...names })
  }

  #statOf(path: string): Inode | undefined {
    try {
      return this.#find('stat', path)
    } catch (error) {
      if ((error as DiskError).errno === 'ENOENT') return undefined
      throw error
    }
  }

  /** Who has a name. Throws if there is no directory that it could be in. */
  #find(action: string, path: string): Inode | undefined {
    if (path === this.#root) return this.#homes.get(path)
    if (!path.startsWith(`${this.#root}/`)) throw new Error(`${path} does not lie below ${this.#root}`)
    return this.#folder(action, dirname(path)).get(basename(path))
  }

  /** The entries of a directory. */
  #folder(action: string, path: string): Map<string, Inode> {
    const known = this.#folders.get(path)
    if (known !== undefined) return known
    const inode = this.#find(action, path)
    if (inode?.kind !== 'directory') throw new DiskError(action, path, inode === undefined ? 'ENOENT' : 'ENOTDIR')
    const entries = readdirSync(path).map(name => {
      const home = join(path, name)
      return [name, this.#homes.get(home) ?? this.#load(home)] as const
    })
    const folder = new Map(entries)
    this.#folders.set(path, folder)
    return folder
  }

  #load(home: string): Inode {
    const entry = statSync(home)
    const inode = this.#newInode(entry.isDirectory() ? 'directory' : 'file', home)
    inode.sizeBytes = entry.size
    inode.mtimeMs = entry.mtimeMs
    this.#homes.set(home, inode)
    return inode
  }

  #newInode(kind: DiskEntry['kind'], home?: string): Inode {
    const inode = { number: ++this.#numbers, kind, sizeBytes: 0, mtimeMs: Date.now(), home }
    return { ...inode, descriptor: undefined, openCount: 0, pieces: [], piecesDurable: 0 }
  }

  async #wait(msMax: number): Promise<void> {
    const { random } = this.#options
    if (random !== undefined) {
      // Half of the calls find what they need in the cache, but even they let others go first.
      const ms = random.chance(0.5) ? 0 : random.between(0, msMax)
      await new Promise(resolve => (ms === 0 ? setImmediate(resolve) : setTimeout(resolve, ms)))
    }
    if (this.#isDead) await NEVER
  }
}

const NEVER = new Promise<never>(() => {})

function isIn(path: string | undefined, directory: string): boolean {
  return path !== undefined && dirname(path) === directory
}

/** Cuts a piece where the disk's sectors end. */
function sectorsOf(piece: Piece): Piece[] {
  if ('sizeBytes' in piece) return [piece]
  const sectors: Piece[] = []
  for (let at = 0; at < piece.bytes.length; ) {
    const offsetBytes = piece.offsetBytes + at
    const end = at + SECTOR_BYTES - (offsetBytes % SECTOR_BYTES)
    sectors.push({ offsetBytes, bytes: piece.bytes.subarray(at, end) })
    at = end
  }
  return sectors
}

/** Copies what a piece has of a view that begins at an offset. */
function overlay(view: Uint8Array, offsetBytes: number, piece: { offsetBytes: number; bytes: Buffer }): void {
  const from = Math.max(0, offsetBytes - piece.offsetBytes)
  const at = Math.max(0, piece.offsetBytes - offsetBytes)
  if (at < view.length) view.set(piece.bytes.subarray(from, from + view.length - at), at)
}
