/**
 * The names of a simulated disk: a tree as processes see it, and the part of it that is durable.
 *
 *     create, rename, remove ──▶ tree now, at once
 *                            └─▶ pending operations ──▶ durable tree, when one of their directories is synced
 *                                                   └─▶ kept or lost, at a power cut
 *
 * An operation never becomes durable before an earlier one on the same inode or the same name in the same directory,
 * and a rename not before the directories it leads into: nothing is lost between two places.
 */
import { DiskError } from '../../runtime/world.ts'
import type { Life } from './life.ts'
import { hashText, type SeededRandom } from './seeded-random.ts'
import { type Fate, SimContent } from './sim-content.ts'

export type View = 'now' | 'durable'

export type SimNode = SimFile | SimDirectory | SimSocket

abstract class Inode {
  readonly inode: bigint
  mtimeMs: number
  /** Where it lies, or last lay. */
  parent: SimDirectory | undefined
  lastOperation: Operation | undefined
  constructor(inode: bigint, mtimeMs: number) {
    this.inode = inode
    this.mtimeMs = mtimeMs
  }
}

export class SimFile extends Inode {
  readonly kind = 'file'
  readonly content = new SimContent()
  /** A removed file takes room until it is closed. */
  openCount = 0
  linked = true
}

export class SimDirectory extends Inode {
  readonly kind = 'directory'
  entries = new Map<string, SimNode>()
  durable = new Map<string, SimNode>()
  readonly pending = new Set<Operation>()
  readonly lastOperationOf = new Map<string, Operation>()
}

/** What a lock leaves in its directory; it is stale when nobody listens. */
export class SimSocket extends Inode {
  readonly kind = 'other'
  readonly owner: Life
  listening = true
  constructor(inode: bigint, mtimeMs: number, owner: Life) {
    super(inode, mtimeMs)
    this.owner = owner
  }
}

/** One name gets a node, or loses it. */
interface Slot {
  readonly directory: SimDirectory
  readonly name: string
  readonly node: SimNode | undefined
}

/** All of its slots change at once. */
interface Operation {
  readonly sequence: number
  readonly node: SimNode
  readonly slots: readonly Slot[]
  /** Pending operations that must be durable first. */
  after: readonly Operation[]
  state: 'pending' | 'durable' | 'lost'
}

interface Place {
  readonly directory: SimDirectory
  readonly name: string
}

export class SimFileSystem {
  readonly #nowMs: () => number
  #root: SimDirectory
  /** Makes the order of a listing another one on every disk. */
  readonly #listSalt: number
  readonly #pending = new Set<Operation>()
  /** What lies where an empty directory is seen now, by path. */
  readonly #vanished = new Map<string, { place: Place; directory: SimDirectory }>()
  #inodes = 1n
  #operations = 0
  /** Of all files that have a name or are open. */
  usedBytes = 0

  constructor(nowMs: () => number, listSalt: number) {
    this.#nowMs = nowMs
    this.#listSalt = listSalt
    this.#root = this.#newDirectory()
  }

  /** Names the operations so far, for `syncDirectory`. */
  get position(): number {
    return this.#operations
  }

  /** What is at a path; undefined if nothing is. Throws `ENOTDIR` if the way there leads through a file. */
  find(action: string, path: string, view: View = 'now'): SimNode | undefined {
    let node: SimNode | undefined = this.#root
    for (const name of partsOf(path)) {
      if (node === undefined) return undefined
      if (node.kind !== 'directory') throw new DiskError(action, path, 'ENOTDIR')
      node = (view === 'now' ? node.entries : node.durable).get(name)
    }
    return node
  }

  /** What is at a path; throws `ENOENT` if nothing is. */
  get(action: string, path: string): SimNode {
    const node = this.find(action, path)
    if (node === undefined) throw new DiskError(action, path, 'ENOENT')
    return node
  }

  getDirectory(action: string, path: string): SimDirectory {
    const node = this.get(action, path)
    if (node.kind !== 'directory') throw new DiskError(action, path, 'ENOTDIR')
    return node
  }

  createFile(action: string, path: string): SimFile {
    const file = new SimFile(this.#inodes++, this.#nowMs())
    this.#create(action, path, file)
    return file
  }

  createSocket(action: string, path: string, owner: Life): SimSocket {
    const socket = new SimSocket(this.#inodes++, this.#nowMs(), owner)
    this.#create(action, path, socket)
    return socket
  }

  /** Makes a directory and those above it; returns how many there were to make. */
  makeDirectory(action: string, path: string): number {
    let directory = this.#root
    let made = 0
    const parts = partsOf(path)
    for (const [i, name] of parts.entries()) {
      let next = directory.entries.get(name)
      if (next === undefined) {
        next = this.#newDirectory()
        this.#operate(next, { directory, name, node: next })
        made++
      }
      if (next.kind !== 'directory') throw new DiskError(action, path, i < parts.length - 1 ? 'ENOTDIR' : 'EEXIST')
      directory = next
    }
    return made
  }

  rename(action: string, from: string, to: string): void {
    const source = this.#place(action, from)
    const target = this.#place(action, to)
    const node = source.directory.entries.get(source.name)
    if (node === undefined) throw new DiskError(action, from, 'ENOENT')
    const replaced = target.directory.entries.get(target.name)
    if (node === replaced) return
    if (node.kind === 'directory' && isWithin(target.directory, node)) throw new DiskError(action, from, 'EINVAL')
    if (replaced !== undefined) {
      if (replaced.kind === 'directory') {
        if (isWithin(source.directory, replaced)) throw new DiskError(action, from, 'ENOTEMPTY')
        if (node.kind !== 'directory') throw new DiskError(action, from, 'EISDIR')
        if (replaced.entries.size > 0) throw new DiskError(action, from, 'ENOTEMPTY')
      } else if (node.kind === 'directory') throw new DiskError(action, from, 'ENOTDIR')
    }
    this.#operate(node, { ...source, node: undefined }, { ...target, node })
    if (replaced?.kind === 'file') this.#unlinked(replaced)
  }

  remove(action: string, path: string): void {
    const place = this.#place(action, path)
    const node = place.directory.entries.get(place.name)
    if (node === undefined) throw new DiskError(action, path, 'ENOENT')
    // `node:fs` looks first, and has a name of its own for it.
    if (node.kind === 'directory') throw new DiskError(action, path, 'ERR_FS_EISDIR')
    this.#operate(node, { ...place, node: undefined })
    if (node.kind === 'file') this.#unlinked(node)
  }

  /** The names in a directory, in an order that means nothing. */
  list(directory: SimDirectory): string[] {
    const names = [...directory.entries.keys()].map(name => ({ name, hash: hashText(name, this.#listSalt) }))
    return names.sort((a, b) => a.hash - b.hash || (a.name < b.name ? -1 : 1)).map(({ name }) => name)
  }

  opened(file: SimFile): void {
    file.openCount++
  }

  closed(file: SimFile): void {
    file.openCount--
    this.#release(file)
  }

  /** Makes durable what was done in a directory up to a position, and whatever that builds upon. */
  syncDirectory(directory: SimDirectory, position: number): void {
    this.#settle([...directory.pending].filter(operation => operation.sequence < position))
  }

  /** Makes a path durable, with all directories above it. */
  settle(path: string): void {
    let node: SimNode | undefined = this.#root
    const operations: Operation[] = []
    for (const name of partsOf(path)) {
      if (node?.kind !== 'directory') break
      const last = node.lastOperationOf.get(name)
      if (last !== undefined) operations.push(last)
      node = node.entries.get(name)
    }
    this.#settle(operations)
  }

  /** Each pending operation stays or is undone; files keep or lose what was not synced. */
  powerCut(random: SeededRandom): { kept: number; lost: number } {
    const counts = { kept: 0, lost: 0 }
    const fate = fateOf(random)
    for (const operation of this.#pending) {
      const possible = operation.after.every(({ state }) => state !== 'lost')
      const kept = possible && (fate === 'mixed' ? random.chance(0.5) : fate === 'kept')
      if (kept) this.#makeDurable(operation)
      else this.#forget(operation, 'lost')
      counts[kept ? 'kept' : 'lost']++
    }
    this.usedBytes = 0
    const contentFate = fateOf(random)
    this.#revert(this.#root, random, contentFate)
    for (const { directory } of this.#vanished.values()) this.#revert(directory, random, contentFate)
    return counts
  }

  /** Forgets everything. */
  format(): void {
    this.#root = this.#newDirectory()
    this.#pending.clear()
    this.#vanished.clear()
    this.usedBytes = 0
  }

  /** Puts an empty directory where another is, which is returned; undefined if there is none, or it has vanished already. */
  vanish(path: string): SimDirectory | undefined {
    const key = partsOf(path).join('/')
    const directory = this.find('vanish', path)
    if (directory?.kind !== 'directory' || directory === this.#root || this.#vanished.has(key)) return undefined
    // A disk is mounted on a directory that was there before.
    this.settle(path)
    const place = this.#place('vanish', path)
    this.#vanished.set(key, { place, directory })
    this.#mount(place, this.#newDirectory())
    return directory
  }

  /** Undoes `vanish`; returns whether there was something to undo. */
  reappear(path: string): boolean {
    const key = partsOf(path).join('/')
    const vanished = this.#vanished.get(key)
    if (vanished === undefined) return false
    this.#vanished.delete(key)
    for (const { node } of this.walk(path)) if (node.kind === 'file') this.#unlinked(node)
    this.#mount(vanished.place, vanished.directory)
    return true
  }

  /** Everything in the tree below a path, with its path; in no order. */
  *walk(path: string, view: View = 'now'): Generator<{ path: string; node: SimNode }> {
    const node = this.find('walk', path, view)
    if (node !== undefined) yield* walkFrom(node, `/${partsOf(path).join('/')}`, view)
  }

  #newDirectory(): SimDirectory {
    return new SimDirectory(this.#inodes++, this.#nowMs())
  }

  #create(action: string, path: string, node: SimNode): void {
    const place = this.#place(action, path)
    if (place.directory.entries.has(place.name)) throw new DiskError(action, path, 'EEXIST')
    this.#operate(node, { ...place, node })
  }

  /** The directory a path is in, which must be there, and its name. */
  #place(action: string, path: string): Place {
    const parts = partsOf(path)
    const name = parts.pop()
    if (name === undefined) throw new DiskError(action, path, 'EBUSY')
    const directory = this.find(action, parts.join('/'))
    if (directory === undefined) throw new DiskError(action, path, 'ENOENT')
    if (directory.kind !== 'directory') throw new DiskError(action, path, 'ENOTDIR')
    return { directory, name }
  }

  /** Gives or takes a name now, or takes one and gives another, and notes it as pending. */
  #operate(node: SimNode, slot: Slot, target?: Slot): void {
    const slots = target === undefined ? [slot] : [slot, target]
    const after = new Set<Operation | undefined>()
    // A node has one name at a time, so what happened to the name it had is what happened to it.
    for (const { directory, name } of slots) after.add(directory.lastOperationOf.get(name))
    if (target !== undefined) {
      // What is renamed is at the old place or at the new one, so the new one must be there.
      for (let at: SimDirectory | undefined = target.directory; at && !isWithin(slot.directory, at); at = at.parent) {
        after.add(at.lastOperation)
      }
    }
    const operation: Operation = {
      sequence: this.#operations++,
      node,
      slots,
      after: [...after].filter(before => before !== undefined),
      state: 'pending',
    }
    this.#pending.add(operation)
    node.lastOperation = operation
    for (const { directory, name, node: entry } of slots) {
      directory.pending.add(operation)
      directory.lastOperationOf.set(name, operation)
      directory.mtimeMs = this.#nowMs()
      put(directory.entries, name, entry)
      if (entry !== undefined) entry.parent = directory
    }
  }

  #settle(operations: readonly Operation[]): void {
    const wanted = new Set(operations.filter(({ state }) => state === 'pending'))
    // A set that grows while it is walked: everything they build upon, and what that builds upon.
    for (const operation of wanted) {
      for (const before of operation.after) if (before.state === 'pending') wanted.add(before)
    }
    for (const operation of [...wanted].sort((a, b) => a.sequence - b.sequence)) this.#makeDurable(operation)
  }

  #makeDurable(operation: Operation): void {
    for (const { directory, name, node } of operation.slots) put(directory.durable, name, node)
    this.#forget(operation, 'durable')
  }

  #forget(operation: Operation, state: 'durable' | 'lost'): void {
    operation.state = state
    operation.after = []
    this.#pending.delete(operation)
    if (operation.node.lastOperation === operation) operation.node.lastOperation = undefined
    for (const { directory, name } of operation.slots) {
      directory.pending.delete(operation)
      if (directory.lastOperationOf.get(name) === operation) directory.lastOperationOf.delete(name)
    }
  }

  /** Makes the durable tree the tree. */
  #revert(directory: SimDirectory, random: SeededRandom, fate: Fate): void {
    directory.entries = new Map(directory.durable)
    for (const node of directory.entries.values()) {
      node.parent = directory
      if (node.kind === 'directory') this.#revert(node, random, fate)
      else if (node.kind === 'file') {
        node.content.powerCut(random, fate)
        node.linked = true
        node.openCount = 0
        this.usedBytes += node.content.sizeBytes
      }
    }
  }

  /** What is mounted is not an entry of the directory, so it is nothing a power cut undoes. */
  #mount({ directory, name }: Place, mounted: SimDirectory): void {
    directory.entries.set(name, mounted)
    directory.durable.set(name, mounted)
    mounted.parent = directory
  }

  #unlinked(file: SimFile): void {
    file.linked = false
    this.#release(file)
  }

  #release(file: SimFile): void {
    if (!file.linked && file.openCount === 0) this.usedBytes -= file.content.sizeBytes
  }
}

/** Whether a node is a directory, or below it. */
export function isWithin(node: SimNode, directory: SimDirectory): boolean {
  for (let at: SimNode | undefined = node; at !== undefined; at = at.parent) if (at === directory) return true
  return false
}

function* walkFrom(node: SimNode, path: string, view: View): Generator<{ path: string; node: SimNode }> {
  yield { path, node }
  if (node.kind !== 'directory') return
  const above = path === '/' ? '' : path
  for (const [name, entry] of view === 'now' ? node.entries : node.durable) {
    yield* walkFrom(entry, `${above}/${name}`, view)
  }
}

function partsOf(path: string): string[] {
  return path.split('/').filter(part => part !== '' && part !== '.')
}

function put(entries: Map<string, SimNode>, name: string, node: SimNode | undefined): void {
  if (node === undefined) entries.delete(name)
  else entries.set(name, node)
}

function fateOf(random: SeededRandom): Fate {
  return random.pick(['lost', 'kept', 'mixed', 'mixed'])
}
