/** The disk of a real machine: `node:fs`, with every error turned into a `DiskError` that keeps its cause. */
import { closeSync, open as openDescriptor } from 'node:fs'
import { type FileHandle, mkdir, open, readdir, rename, rm, stat, statfs } from 'node:fs/promises'
import { connect, createServer, type Server } from 'node:net'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { type Disk, type DiskEntry, DiskError, type DiskFile, type DiskLock } from './world.ts'

// Files hold other people's photos and our secrets: nobody but the owner reads them unless they are told to.
const FILE_MODE = 0o600
const DIRECTORY_MODE = 0o700

const OPEN_FLAGS = { read: 'r', create: 'wx+', update: 'r+' } as const

/** Times the holder of a stale lock is removed before giving up: each one is a race lost to another start. */
const LOCK_ATTEMPTS = 3

export const realDisk: Disk = {
  async open(path, mode) {
    const handle = await attempt('open', path, () => open(path, OPEN_FLAGS[mode], FILE_MODE))
    return new RealFile(handle, path)
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

async function attempt<T>(action: string, path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (cause) {
    if (cause instanceof DiskError) throw cause
    throw new DiskError(action, path, (cause as NodeJS.ErrnoException).code ?? 'EIO', { cause })
  }
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

class RealFile implements DiskFile {
  readonly #handle: FileHandle
  readonly #path: string
  constructor(handle: FileHandle, path: string) {
    this.#handle = handle
    this.#path = path
  }

  read(target: Uint8Array, offsetBytes: number): Promise<number> {
    return attempt('read', this.#path, async () => {
      let filled = 0
      while (filled < target.length) {
        const { bytesRead } = await this.#handle.read(target, filled, target.length - filled, offsetBytes + filled)
        if (bytesRead === 0) break
        filled += bytesRead
      }
      return filled
    })
  }

  write(parts: readonly Uint8Array[], offsetBytes: number): Promise<void> {
    return attempt('write', this.#path, async () => {
      let left = parts.filter(part => part.length > 0)
      let at = offsetBytes
      while (left.length > 0) {
        const batch = left.slice(0, WRITE_PARTS_MAX)
        const { bytesWritten } = await this.#handle.writev(batch, at)
        if (bytesWritten === 0) throw new Error('the disk took nothing')
        at += bytesWritten
        left = [...withoutFirst(batch, bytesWritten), ...left.slice(WRITE_PARTS_MAX)]
      }
    })
  }

  sync = (): Promise<void> => attempt('sync', this.#path, () => this.#handle.datasync())
  truncate = (sizeBytes: number): Promise<void> =>
    attempt('truncate', this.#path, () => this.#handle.truncate(sizeBytes))
  sizeBytes = (): Promise<number> => attempt('stat', this.#path, async () => (await this.#handle.stat()).size)
  close = (): Promise<void> => attempt('close', this.#path, () => this.#handle.close())
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
  const descriptor = await promisify(openDescriptor)(directory, 'r')
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
