/**
 * The disk as one simulated process sees it.
 *
 *     call ──▶ under way ──(latency)──▶ takes effect, or fails ──▶ settles
 *                  └── the process ends: it happens, or does not; nobody hears of it
 *
 * Calls run side by side, as in a thread pool: one that was made later may take effect earlier.
 */
import { type Disk, type DiskEntry, DiskError, type DiskFile, type DiskLock } from '../../runtime/world.ts'
import type { DiskFaults } from './disk-faults.ts'
import type { EventLoop } from './event-loop.ts'
import type { Life } from './life.ts'
import type { SeededRandom } from './seeded-random.ts'
import { SECTOR_BYTES } from './sim-content.ts'
import { isWithin, type SimDirectory, SimFile, type SimFileSystem } from './sim-file-system.ts'

/** As ext4 says of one. */
const DIRECTORY_BYTES = 4096

/** What all processes of a machine share. */
export interface SharedDisk {
  readonly loop: EventLoop
  readonly random: SeededRandom
  readonly faults: DiskFaults
  readonly capacityBytes: number
  readonly fileSystem: SimFileSystem
  readonly syncIsLie: boolean
  changed(what: string): void
}

type ErrorFault = keyof DiskFaults & `${string}Error`

/** Takes effect; `interrupted` says that the process ended meanwhile, and a write may stop halfway. */
type Effect<T> = (interrupted: boolean) => T

export class ProcessDisk implements Disk {
  readonly life: Life
  readonly shared: SharedDisk
  readonly handles = new Set<OpenFile>()
  readonly #underWay = new Set<Effect<unknown>>()

  constructor(life: Life, shared: SharedDisk) {
    this.life = life
    this.shared = shared
    life.onEnd(() => this.#end())
  }

  open(path: string, mode: 'read' | 'create' | 'update'): Promise<DiskFile> {
    return this.call('open', () => {
      this.draw('openError', 'open', path)
      const { fileSystem } = this.shared
      if (mode === 'create') {
        const exists = fileSystem.find('open', path) !== undefined
        if (!exists && this.shared.faults.full) throw new DiskError('open', path, 'ENOSPC')
        const file = fileSystem.createFile('open', path)
        this.shared.changed(`create ${path}`)
        return new OpenFile(this, file, path, mode)
      }
      const node = fileSystem.get('open', path)
      if (node.kind === 'other') throw new DiskError('open', path, 'ENXIO')
      if (node.kind === 'directory' && mode === 'update') throw new DiskError('open', path, 'EISDIR')
      return new OpenFile(this, node, path, mode)
    })
  }

  rename(from: string, to: string): Promise<void> {
    return this.call('rename', () => {
      this.draw('renameError', 'rename', from, to)
      this.shared.fileSystem.rename('rename', from, to)
      this.shared.changed(`rename ${from} -> ${to}`)
    })
  }

  remove(path: string): Promise<void> {
    return this.call('remove', () => {
      this.draw('removeError', 'remove', path)
      this.shared.fileSystem.remove('remove', path)
      this.shared.changed(`remove ${path}`)
    })
  }

  makeDirectory(path: string): Promise<void> {
    const action = 'make directory'
    return this.call(action, () => {
      const { fileSystem, faults } = this.shared
      if (faults.full && fileSystem.find(action, path) === undefined) throw new DiskError(action, path, 'ENOSPC')
      if (fileSystem.makeDirectory(action, path) > 0) this.shared.changed(`make directory ${path}`)
    })
  }

  list(path: string): Promise<string[]> {
    return this.call('list', () => {
      this.draw('readError', 'list', path)
      const { fileSystem } = this.shared
      return fileSystem.list(fileSystem.getDirectory('list', path))
    })
  }

  stat(path: string): Promise<DiskEntry | undefined> {
    return this.call('stat', () => {
      const node = this.shared.fileSystem.find('stat', path)
      if (node === undefined) return undefined
      const { kind, mtimeMs, inode } = node
      return { kind, mtimeMs, inode, sizeBytes: sizeOf(node) }
    })
  }

  syncDirectory(path: string): Promise<void> {
    const position = this.shared.fileSystem.position
    return this.call('sync directory', () => {
      const node = this.shared.fileSystem.get('open', path)
      this.draw('syncError', 'sync directory', path)
      if (this.shared.syncIsLie) return
      if (node.kind === 'directory') this.shared.fileSystem.syncDirectory(node, position)
      this.shared.changed(`sync directory ${path}`)
    })
  }

  space(path: string): Promise<{ totalBytes: number; freeBytes: number }> {
    return this.call('space', () => {
      this.shared.fileSystem.get('space', path)
      return { totalBytes: this.shared.capacityBytes, freeBytes: this.freeBytes }
    })
  }

  /** As on a real disk, a socket that is left behind when its owner ends, and is then replaced by the next. */
  lock(directory: string): Promise<DiskLock> {
    const path = `${directory}/lock`
    return this.call('lock', () => {
      const { fileSystem } = this.shared
      fileSystem.getDirectory('lock', directory)
      const there = fileSystem.find('lock', path)
      if (there?.kind === 'other' && there.listening && !there.owner.ended) {
        throw new DiskError('lock', directory, 'EEXIST')
      }
      if (there !== undefined) fileSystem.remove('lock', path)
      const socket = fileSystem.createSocket('lock', path, this.life)
      this.shared.changed(`lock ${directory}`)
      const isThere = () => this.shared.fileSystem.find('lock', path)?.inode === socket.inode
      return {
        held: () => this.call('lock held', () => attempt(isThere) ?? false),
        release: () =>
          this.call('lock release', () => {
            if (!socket.listening) return
            socket.listening = false
            // By its name, whoever has that by now: so does a real one.
            attempt(() => this.shared.fileSystem.remove('lock', path))
            this.shared.changed(`unlock ${directory}`)
          }),
      }
    })
  }

  get freeBytes(): number {
    const { faults, capacityBytes, fileSystem } = this.shared
    return faults.full ? 0 : Math.max(0, capacityBytes - fileSystem.usedBytes)
  }

  /** Lets a call take effect after its latency. */
  call<T>(action: string, effect: Effect<T>): Promise<T> {
    const { loop, random, faults } = this.shared
    const [min, max] = action.startsWith('sync') ? faults.syncLatencyMs : faults.latencyMs
    return new Promise((resolve, reject) => {
      this.#underWay.add(effect)
      loop.after(faults.slow * random.between(min, max), this.life, `disk ${action}`, () => {
        this.#underWay.delete(effect)
        try {
          resolve(effect(false))
        } catch (error) {
          reject(error)
        }
      })
    })
  }

  /** Throws `EIO` as often as the faults say. */
  draw(fault: ErrorFault, action: string, ...paths: string[]): void {
    if (this.strikes(fault, ...paths)) throw new DiskError(action, paths[0]!, 'EIO')
  }

  strikes(fault: ErrorFault, ...paths: string[]): boolean {
    const { faults, random } = this.shared
    return faults[fault] > 0 && paths.some(path => faults.faultPath.test(path)) && random.chance(faults[fault])
  }

  /** What was under way happens or does not, in any order; the kernel closes what was open. */
  #end(): void {
    const { random } = this.shared
    const left = [...this.#underWay]
    this.#underWay.clear()
    while (left.length > 0) {
      const [effect] = left.splice(random.below(left.length), 1)
      if (random.chance(0.5)) attempt(() => effect!(true))
    }
    for (const handle of [...this.handles]) handle.letGo()
  }
}

/** One open file of a process. */
export class OpenFile implements DiskFile {
  readonly #disk: ProcessDisk
  readonly #node: SimFile | SimDirectory
  readonly #path: string
  readonly #writable: boolean
  #open = true
  #severed = false
  #released = false
  #closing = false
  #underWay = 0
  #whenIdle: (() => void)[] = []

  constructor(disk: ProcessDisk, node: SimFile | SimDirectory, path: string, mode: 'read' | 'create' | 'update') {
    this.#disk = disk
    this.#node = node
    this.#path = path
    this.#writable = mode !== 'read'
    disk.handles.add(this)
    if (node.kind === 'file') disk.shared.fileSystem.opened(node)
  }

  read(target: Uint8Array, offsetBytes: number): Promise<number> {
    return this.#call('read', interrupted => {
      // Nobody will look at it, and the buffer may have a new owner.
      if (interrupted) return 0
      this.#disk.draw('readError', 'read', this.#path)
      return this.#file('read', 'EISDIR').content.read(target, offsetBytes)
    })
  }

  write(parts: readonly Uint8Array[], offsetBytes: number): Promise<void> {
    return this.#call('write', interrupted => {
      if (!this.#writable) throw this.#error('write', 'EBADF')
      const file = this.#file('write', 'EBADF')
      const bytes = Buffer.concat(parts)
      const { random } = this.#disk.shared
      const fitBytes = this.#fitBytes(file, offsetBytes, bytes.length)
      const failed = this.#disk.strikes('writeError', this.#path)
      const whole = !interrupted && !failed && fitBytes === bytes.length
      // What a write that ends early has put in place may be anything up to all of it.
      this.#put(file, whole ? bytes : bytes.subarray(0, random.below(fitBytes + 1)), offsetBytes)
      if (!whole) throw this.#error('write', failed ? 'EIO' : 'ENOSPC')
    })
  }

  async writeDurably(parts: readonly Uint8Array[], offsetBytes: number): Promise<void> {
    await this.write(parts, offsetBytes)
    await this.sync()
  }

  sync(): Promise<void> {
    const position = this.#node.kind === 'file' ? this.#node.content.position : this.#disk.shared.fileSystem.position
    return this.#call('sync', () => {
      const { shared } = this.#disk
      if (this.#disk.strikes('syncError', this.#path)) {
        if (this.#node.kind === 'file') this.#node.content.failSync()
        shared.changed(`fail to sync ${this.#path}`)
        throw this.#error('sync', 'EIO')
      }
      if (shared.syncIsLie) return
      if (this.#node.kind === 'file') this.#node.content.sync(position)
      else shared.fileSystem.syncDirectory(this.#node, position)
      shared.changed(`sync ${this.#path}`)
    })
  }

  truncate(sizeBytes: number): Promise<void> {
    return this.#call('truncate', () => {
      if (!this.#writable) throw this.#error('truncate', 'EINVAL')
      const file = this.#file('truncate', 'EINVAL')
      if (this.#disk.strikes('writeError', this.#path)) throw this.#error('truncate', 'EIO')
      const { shared } = this.#disk
      const growthBytes = sizeBytes - file.content.sizeBytes
      if (growthBytes > 0 && growthBytes > this.#disk.freeBytes) throw this.#error('truncate', 'ENOSPC')
      file.content.truncate(sizeBytes)
      file.mtimeMs = shared.loop.nowMs
      shared.fileSystem.usedBytes += growthBytes
      shared.changed(`truncate ${this.#path} to ${sizeBytes}`)
    })
  }

  sizeBytes(): Promise<number> {
    return this.#call('stat', () => sizeOf(this.#node))
  }

  /** Waits for the calls under way, as a `FileHandle` does. Closing again does nothing. */
  async close(): Promise<void> {
    if (this.#closing) return
    this.#closing = true
    const idle = new Promise<void>(resolve => {
      if (this.#underWay === 0) resolve()
      else this.#whenIdle.push(resolve)
    })
    await idle
    await this.#disk.call('close', () => this.letGo())
  }

  letGo(): void {
    if (!this.#open) return
    this.#open = false
    this.#disk.handles.delete(this)
    this.#release()
  }

  /** The disk it was on is gone: every call fails, also when the disk is back. */
  sever(): void {
    this.#severed = true
    this.#release()
  }

  isWithin(directory: SimDirectory): boolean {
    return isWithin(this.#node, directory)
  }

  async #call<T>(action: string, effect: Effect<T>): Promise<T> {
    const closed = this.#closing
    this.#underWay++
    try {
      return await this.#disk.call(action, interrupted => {
        if (closed || !this.#open) throw this.#error(action, 'EBADF')
        if (this.#severed) throw this.#error(action, 'EIO')
        return effect(interrupted)
      })
    } finally {
      this.#underWay--
      if (this.#underWay === 0) for (const resolve of this.#whenIdle.splice(0)) resolve()
    }
  }

  #release(): void {
    if (this.#released) return
    this.#released = true
    if (this.#node.kind === 'file') this.#disk.shared.fileSystem.closed(this.#node)
  }

  #file(action: string, errno: string): SimFile {
    if (this.#node.kind !== 'file') throw this.#error(action, errno)
    return this.#node
  }

  /** How many bytes of a write there is room for. */
  #fitBytes(file: SimFile, offsetBytes: number, bytes: number): number {
    const growthBytes = offsetBytes + bytes - file.content.sizeBytes
    const lackBytes = growthBytes > 0 ? growthBytes - this.#disk.freeBytes : 0
    return Math.max(0, bytes - Math.max(0, lackBytes))
  }

  #put(file: SimFile, bytes: Buffer, offsetBytes: number): void {
    if (bytes.length === 0) return
    const { shared } = this.#disk
    const { faults, random } = shared
    const before = file.content.sizeBytes
    const astray =
      faults.misdirected > 0 && faults.misdirectedPath.test(this.#path) && random.chance(faults.misdirected)
    if (!astray || random.chance(0.5)) file.content.write(bytes, offsetBytes)
    if (astray) this.#misdirect(file, bytes, offsetBytes)
    file.mtimeMs = shared.loop.nowMs
    shared.fileSystem.usedBytes += file.content.sizeBytes - before
    shared.changed(`write ${this.#path} ${offsetBytes}+${bytes.length}`)
  }

  /** The file gets its size, but its bytes land in another sector. */
  #misdirect(file: SimFile, bytes: Buffer, offsetBytes: number): void {
    const { shared } = this.#disk
    file.content.truncate(Math.max(file.content.sizeBytes, offsetBytes + bytes.length))
    const sectors = 1 + Math.floor((file.content.sizeBytes - bytes.length) / SECTOR_BYTES)
    const wrongBytes = shared.random.below(sectors) * SECTOR_BYTES
    file.content.write(bytes, wrongBytes)
    shared.changed(`misdirect ${this.#path} ${offsetBytes}+${bytes.length} to ${wrongBytes}`)
  }

  #error(action: string, errno: string): DiskError {
    return new DiskError(action, this.#path, errno)
  }
}

function sizeOf(node: { kind: string }): number {
  if (node instanceof SimFile) return node.content.sizeBytes
  return node.kind === 'directory' ? DIRECTORY_BYTES : 0
}

/** Undefined if it throws: nobody is left to be told, or nobody needs to be. */
export function attempt<T>(work: () => T): T | undefined {
  try {
    return work()
  } catch (error) {
    if (error instanceof DiskError) return undefined
    throw error
  }
}
