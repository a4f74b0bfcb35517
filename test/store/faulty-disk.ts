/**
 * The real disk with a hand on it: every call is noted, and may be made to fail or to wait. What is not told otherwise
 * goes to the real disk unchanged.
 *
 *     disk.fail({ action: 'sync', path: /binlog/ }, 'EIO')      the next such call rejects
 *     const held = disk.hold({ action: 'rename' })              the next such call waits until held.release()
 *     disk.trace                                                what was called, in order; `end` when it succeeded
 */
import { type Disk, DiskError, type DiskFile } from '../../runtime/world.ts'

export type DiskAction = Exclude<keyof Disk, 'lock'> | 'read' | 'write' | 'sync' | 'truncate'

/** One call: `path` as given, `to` of a rename, `mode` of an open, `bytes` of a write. */
export interface DiskCall {
  readonly action: DiskAction
  readonly path: string
  readonly to?: string
  readonly mode?: string
  readonly bytes?: number
}

export interface TraceEntry extends DiskCall {
  readonly phase: 'begin' | 'end'
}

/** Which calls are meant; what is left out matches all. A path matches either side of a rename. */
export interface CallPattern {
  readonly action?: DiskAction
  readonly path?: RegExp
  readonly mode?: string
}

/** A call that waits. */
export interface HeldCall {
  /** Resolves when the call has come. */
  readonly reached: Promise<DiskCall>
  /** Lets it go on, or makes it fail. */
  release(errno?: string): void
}

interface Fault {
  readonly pattern: CallPattern
  left: number
  /** Rejects to make the call fail. */
  readonly meet: (call: DiskCall) => Promise<void>
  /** Of a write that fails: how many bytes reach the disk all the same. */
  readonly keptBytes: number
}

export class FaultyDisk implements Disk {
  readonly trace: TraceEntry[] = []
  /** How many files were closed. */
  closed = 0
  readonly #disk: Disk
  readonly #faults: Fault[] = []

  constructor(disk: Disk) {
    this.#disk = disk
  }

  /** Makes calls fail, the next one unless told otherwise. Of a write, the first `keptBytes` are written before. */
  fail(pattern: CallPattern, errno: string, options: { times?: number; keptBytes?: number } = {}): void {
    const meet = async (call: DiskCall) => {
      throw new DiskError(call.action, call.path, errno)
    }
    this.#faults.push({ pattern, left: options.times ?? 1, meet, keptBytes: options.keptBytes ?? 0 })
  }

  /** Makes the next such call wait. */
  hold(pattern: CallPattern): HeldCall {
    let reach: (call: DiskCall) => void = () => {}
    let release: (errno?: string) => void = () => {}
    const reached = new Promise<DiskCall>(resolve => {
      reach = resolve
    })
    const released = new Promise<string | undefined>(resolve => {
      release = resolve
    })
    const meet = async (call: DiskCall) => {
      reach(call)
      const errno = await released
      if (errno !== undefined) throw new DiskError(call.action, call.path, errno)
    }
    this.#faults.push({ pattern, left: 1, meet, keptBytes: 0 })
    return { reached, release }
  }

  /** Forgets all faults. */
  heal(): void {
    this.#faults.length = 0
  }

  /** How many such calls succeeded. */
  count(pattern: CallPattern): number {
    return this.trace.filter(entry => entry.phase === 'end' && matches(entry, pattern)).length
  }

  /** Where in the trace the first such entry stands, from an index on; -1 if there is none. */
  find(phase: 'begin' | 'end', pattern: CallPattern, from = 0): number {
    return this.trace.findIndex((entry, i) => i >= from && entry.phase === phase && matches(entry, pattern))
  }

  async open(path: string, mode: 'read' | 'create' | 'update'): Promise<DiskFile> {
    const file = await this.#call({ action: 'open', path, mode }, () => this.#disk.open(path, mode))
    return this.#wrap(file, path)
  }

  rename(from: string, to: string): Promise<void> {
    return this.#call({ action: 'rename', path: from, to }, () => this.#disk.rename(from, to))
  }

  remove = (path: string) => this.#call({ action: 'remove', path }, () => this.#disk.remove(path))
  makeDirectory = (path: string) => this.#call({ action: 'makeDirectory', path }, () => this.#disk.makeDirectory(path))
  list = (path: string) => this.#call({ action: 'list', path }, () => this.#disk.list(path))
  stat = (path: string) => this.#call({ action: 'stat', path }, () => this.#disk.stat(path))
  syncDirectory = (path: string) => this.#call({ action: 'syncDirectory', path }, () => this.#disk.syncDirectory(path))
  space = (path: string) => this.#call({ action: 'space', path }, () => this.#disk.space(path))
  lock = (directory: string) => this.#disk.lock(directory)

  #wrap(file: DiskFile, path: string): DiskFile {
    const wrapped: DiskFile = {
      read: (target, offset) => this.#call({ action: 'read', path }, () => file.read(target, offset)),
      write: async (parts, offset) => {
        const bytes = parts.reduce((sum, part) => sum + part.length, 0)
        const torn = async (keptBytes: number) => {
          if (keptBytes > 0) await file.write([Buffer.concat(parts).subarray(0, keptBytes)], offset)
        }
        await this.#call({ action: 'write', path, bytes }, () => file.write(parts, offset), torn)
      },
      // In two steps, so that each can fail.
      writeDurably: async (parts, offset) => {
        await wrapped.write(parts, offset)
        await wrapped.sync()
      },
      sync: () => this.#call({ action: 'sync', path }, () => file.sync()),
      truncate: size => this.#call({ action: 'truncate', path }, () => file.truncate(size)),
      sizeBytes: () => file.sizeBytes(),
      close: () => {
        this.closed++
        return file.close()
      },
    }
    return wrapped
  }

  async #call<T>(call: DiskCall, work: () => Promise<T>, torn?: (keptBytes: number) => Promise<void>): Promise<T> {
    this.trace.push({ ...call, phase: 'begin' })
    const fault = this.#faults.find(({ pattern, left }) => left > 0 && matches(call, pattern))
    if (fault !== undefined) {
      fault.left--
      await torn?.(fault.keptBytes)
      await fault.meet(call)
    }
    const result = await work()
    this.trace.push({ ...call, phase: 'end' })
    return result
  }
}

function matches(call: DiskCall, { action, path, mode }: CallPattern): boolean {
  if (action !== undefined && call.action !== action) return false
  if (mode !== undefined && call.mode !== mode) return false
  return path === undefined || path.test(call.path) || (call.to !== undefined && path.test(call.to))
}
