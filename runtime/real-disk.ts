/** The disk of a real machine: `node:fs`, with every error turned into a `DiskError` that keeps its cause. */
import { close, closeSync, constants, fdatasync, fstat, ftruncate, open as openFile, read, writev } from 'node:fs'
import { link, mkdir, open, readdir, rename, rm, stat, statfs } from 'node:fs/promises'
import { connect, createServer, type Server } from 'node:net'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { type Disk, type DiskEntry, DiskError, type DiskFile, type DiskLock } from './world.ts'

// Files hold other people's photos and our secrets: nobody but the owner reads them unless they are told to.
const FILE_MODE = 0o600
const DIRECTORY_MODE = 0o700

const openDescriptor = promisify(openFile)
const closeDescriptor = promisify(close)

/** What direct transfers come in multiples of: no disk wants more. */
const PAGE_BYTES = 4096

const OPEN_FLAGS = { read: 'r', create: 'wx+', update: 'r+' } as const

/** Times the holder of a stale lock is removed before giving up: each one is a race lost to another start. */
const LOCK_ATTEMPTS = 3

export const realDisk: Disk = {
  async open(path, mode, way) {
    const descriptor = await attempt('open', path, () => openDescriptor(path, OPEN_FLAGS[mode], FILE_MODE))
    const access = mode === 'read' ? constants.O_RDONLY : constants.O_RDWR
    const direct = way === 'direct' ? await reopen(descriptor, constants.O_DIRECT, access) : undefined
    return new RealFile(descriptor, path, direct, mode !== 'read')
  },
  rename: (from, to) => attempt('rename', from, () => rename(from, to)),
  remove: path => attempt('remove', path, () => rm(path)),
  makeDirectory: path =>
    attempt('make directory', path, async () => void (await mkdir(path, { recursive: true, mode: DIRECTORY_MODE }))),
  list: path => attempt('list', path, () => readdir(path)),
  stat: path => attempt('stat', path, () => statEntry(path)),
  async syncDirectory(path) {
    const handle = await attempt('open', path, () => open(path, 'r'))
    try {
      await attempt('sync directory', path, () => handle.sync())
    } finally {
      await handle.close()
    }
  },
  space: path =>
    attempt('space', path, async () => {
      const s = await statfs(path)
      return { totalBytes: s.blocks * s.bsize, freeBytes: s.bavail * s.bsize }
    }),
  lock: directory => attempt('lock', directory, () => lock(directory)),
}

/** What a file system says that cannot give a file one more name. */
const CANNOT_LINK = new Set(['EXDEV', 'EPERM', 'EMLINK', 'EOPNOTSUPP', 'ENOTSUP'])

/** Gives a file one more name; false where that cannot be: on another file system, or on one without links. */
export async function linkFile(from: string, to: string): Promise<boolean> {
  try {
    await attempt('link', to, () => link(from, to))
    return true
  } catch (error) {
    if (!CANNOT_LINK.has((error as DiskError).errno)) throw error
    return false
  }
}

async function attempt<T>(action: string, path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (cause) {
    throw errorOf(action, path, cause)
  }
}

function errorOf(action: string, path: string, cause: unknown): DiskError {
  if (cause instanceof DiskError) return cause
  return new DiskError(action, path, (cause as NodeJS.ErrnoException).code ?? 'EIO', { cause })
}

/** Opens an open file once more, in a way that only some systems have; undefined on others. Linux needs no name for it. */
async function reopen(descriptor: number, way: number | undefined, access: number): Promise<number | undefined> {
  if (way === undefined) return undefined
  return openDescriptor(`/proc/self/fd/${descriptor}`, access | way).catch(() => undefined)
}

async function statEntry(path: string): Promise<DiskEntry | undefined> {
  try {
    const s = await stat(path, { bigint: true })
    const kind = s.isFile() ? 'file' : s.isDirectory() ? 'directory' : 'other'
    return { kind, sizeBytes: Number(s.size), mtimeMs: Number(s.mtimeMs), inode: s.ino }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}

/**
 * An open file by its descriptor: the callbacks of `node:fs` cost half of what its file handles do. A descriptor that is
 * closed while it is used may be another file's by then, so closing waits.
 */
class RealFile implements DiskFile {
  readonly #descriptor: number
  readonly #path: string
  /** The same file past the page cache, for whole pages. */
  readonly #direct: number | undefined
  #directWorks = true
  /** The same file, open for writes that are durable when they end, once there is one; undefined where that cannot be. */
  #durable: Promise<number | undefined> | undefined
  #underWay = 0
  #idle: (() => void) | undefined
  #closed: Promise<void> | undefined

  constructor(descriptor: number, path: string, direct: number | undefined, isWritable: boolean) {
    this.#descriptor = descriptor
    this.#path = path
    this.#direct = direct
    if (!isWritable) this.#durable = Promise.resolve(undefined)
  }

  read(target: Uint8Array, offsetBytes: number): Promise<number> {
    return this.#call('read', (done, fail) => {
      const readOn = (filled: number) => {
        const at = offsetBytes + filled
        const descriptor = this.#descriptorFor(target.length - filled, at)
        read(descriptor, target, filled, target.length - filled, at, (error, count) => {
          if (this.#wasRefused(descriptor, error)) readOn(filled)
          else if (error) fail(error)
          else if (count === 0 || filled + count === target.length) done(filled + count)
          else readOn(filled + count)
        })
      }
      readOn(0)
    })
  }

  write(parts: readonly Uint8Array[], offsetBytes: number): Promise<void> {
    return this.#write(parts, offsetBytes)
  }

  async writeDurably(parts: readonly Uint8Array[], offsetBytes: number): Promise<void> {
    this.#durable ??= reopen(this.#descriptor, constants.O_DSYNC, constants.O_WRONLY)
    const durable = await this.#durable
    await this.#write(parts, offsetBytes, durable)
    if (durable === undefined) await this.sync()
  }

  #write(parts: readonly Uint8Array[], offsetBytes: number, durable?: number): Promise<void> {
    return this.#call('write', (done, fail) => {
      const writeOn = (left: readonly Uint8Array[], at: number) => {
        if (left.length === 0) return done()
        const batch = left.slice(0, WRITE_PARTS_MAX)
        const descriptor = durable ?? this.#descriptorFor(batch.length === 1 ? batch[0]!.length : 1, at)
        writev(descriptor, batch, at, (error, count) => {
          if (this.#wasRefused(descriptor, error)) return writeOn(left, at)
          if (error || count === 0) return fail(error ?? new Error('the disk took nothing'))
          writeOn([...withoutFirst(batch, count), ...left.slice(WRITE_PARTS_MAX)], at + count)
        })
      }
      writeOn(
        parts.filter(part => part.length > 0),
        offsetBytes,
      )
    })
  }

  sync(): Promise<void> {
    return this.#call('sync', (done, fail) => fdatasync(this.#descriptor, error => (error ? fail(error) : done())))
  }

  truncate(sizeBytes: number): Promise<void> {
    return this.#call('truncate', (done, fail) =>
      ftruncate(this.#descriptor, sizeBytes, error => (error ? fail(error) : done())),
    )
  }

  sizeBytes(): Promise<number> {
    return this.#call('stat', (done, fail) =>
      fstat(this.#descriptor, (error, found) => (error ? fail(error) : done(found.size))),
    )
  }

  close(): Promise<void> {
    // Once: by then the descriptor may be that of any other file.
    this.#closed ??= this.#close()
    return this.#closed
  }

  async #close(): Promise<void> {
    while (this.#underWay > 0) {
      await new Promise<void>(resolve => {
        this.#idle = resolve
      })
    }
    const durable = await this.#durable
    if (durable !== undefined) await attempt('close', this.#path, () => closeDescriptor(durable))
    if (this.#direct !== undefined) await attempt('close', this.#path, () => closeDescriptor(this.#direct!))
    await attempt('close', this.#path, () => closeDescriptor(this.#descriptor))
  }

  #descriptorFor(bytes: number, offsetBytes: number): number {
    const isPages = bytes % PAGE_BYTES === 0 && offsetBytes % PAGE_BYTES === 0
    return this.#direct !== undefined && this.#directWorks && isPages ? this.#direct : this.#descriptor
  }

  /** A file system may know the flag and not like the call, or its buffer. */
  #wasRefused(descriptor: number, error: NodeJS.ErrnoException | null): boolean {
    if (descriptor !== this.#direct || error?.code !== 'EINVAL') return false
    this.#directWorks = false
    return true
  }

  #call<T>(action: string, work: (done: (value: T) => void, fail: (cause: Error) => void) => void): Promise<T> {
    if (this.#closed !== undefined) return Promise.reject(new DiskError(action, this.#path, 'EBADF'))
    this.#underWay++
    return new Promise<T>((resolve, reject) => {
      const ended = () => {
        if (--this.#underWay === 0) this.#idle?.()
      }
      const done = (value: T) => {
        ended()
        resolve(value)
      }
      work(done, cause => {
        ended()
        reject(errorOf(action, this.#path, cause))
      })
    })
  }
}

/** The system takes at most this many parts in one vectored write (`IOV_MAX`). */
const WRITE_PARTS_MAX = 1024

function withoutFirst(parts: readonly Uint8Array[], bytes: number): Uint8Array[] {
  let skip = bytes
  const left: Uint8Array[] = []
  for (const part of parts) {
    if (skip >= part.length) skip -= part.length
    else {
      left.push(skip > 0 ? part.subarray(skip) : part)
      skip = 0
    }
  }
  return left
}

/**
 * Locks a directory by listening on a unix socket inside it. The system drops the listener with its process, however
 * that ended, so a socket nobody answers on is a left-over and may be replaced.
 */
async function lock(directory: string): Promise<DiskLock> {
  const descriptor = await openDescriptor(directory, 'r')
  const path = join(directory, 'lock')
  try {
    const address = await addressIn(directory, descriptor)
    for (let attempts = 0; attempts < LOCK_ATTEMPTS; attempts++) {
      const server = await listen(address)
      if (server !== undefined) {
        const inode = (await statEntry(path))?.inode
        const held = async () => (await statEntry(path).catch(() => undefined))?.inode === inode
        let released: Promise<void> | undefined
        const letGo = () => held().then(isOurs => release(server, descriptor, isOurs))
        return {
          held,
          release() {
            // Once: by then the handle's number may be that of any other file.
            released ??= letGo()
            return released
          },
        }
      }
      if (await answers(address)) break
      await rm(path, { force: true })
    }
    throw new DiskError('lock', directory, 'EEXIST')
  } catch (error) {
    closeSync(descriptor)
    throw error
  }
}

/**
 * The address of the lock's socket: on Linux by the directory's open handle. A long path does not fit a socket address,
 * and a name that ends with the handle can be taken away from the server, see `release`. Elsewhere by its path.
 */
async function addressIn(directory: string, descriptor: number): Promise<string> {
  const byHandle = `/proc/self/fd/${descriptor}`
  const hasHandles = (await statEntry(byHandle)) !== undefined
  return join(hasHandles ? byHandle : directory, 'lock')
}

/**
 * Stops listening. A server that closes removes its socket by name, whoever's it is by then: if another process has
 * taken the lock over, the handle in that name goes first, so that the name leads nowhere. Nothing comes in between:
 * the handle's number is free for any other directory.
 */
function release(server: Server, descriptor: number, isOurs: boolean): Promise<void> {
  if (!isOurs) closeSync(descriptor)
  const closed = new Promise<void>(resolve => server.close(() => resolve()))
  if (isOurs) closeSync(descriptor)
  return closed
}

function listen(address: string) {
  return new Promise<Server | undefined>((resolve, reject) => {
    const server = createServer(visitor => visitor.destroy())
    server.on('error', (error: NodeJS.ErrnoException) =>
      error.code === 'EADDRINUSE' ? resolve(undefined) : reject(error),
    )
    server.listen(address, () => resolve(server.unref()))
  })
}

function answers(address: string): Promise<boolean> {
  return new Promise(resolve => {
    const visitor = connect(address, () => {
      visitor.destroy()
      resolve(true)
    })
    visitor.on('error', () => resolve(false))
  })
}
