/** The disk of a real machine: `node:fs`, with every error turned into a `DiskError` that keeps its cause. */
import { type FileHandle, mkdir, open, readdir, rename, rm, stat, statfs } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { join } from 'node:path'
import { type Disk, type DiskEntry, DiskError, type DiskFile, type DiskLock } from './world.ts'

// Files hold other people's photos and our secrets: nobody but the owner reads them unless they are told to.
const FILE_MODE = 0o600
const DIRECTORY_MODE = 0o700

const OPEN_FLAGS = { read: 'r', create: 'wx+', update: 'r+' } as const

/** Times the holder of a stale lock is removed before giving up: each one is a race lost to another start. */
const LOCK_ATTEMPTS = 3

/** A unix socket's path ends at 104 bytes on some systems and 108 on others. */
const SOCKET_PATH_BYTES_MAX = 100

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
  const handle = await open(directory, 'r')
  const path = join(directory, 'lock')
  // A long path does not fit a socket address; Linux lets us name the directory by its open handle instead.
  const address = Buffer.byteLength(path) > SOCKET_PATH_BYTES_MAX ? `/proc/self/fd/${handle.fd}/lock` : path
  try {
    for (let attempts = 0; attempts < LOCK_ATTEMPTS; attempts++) {
      const server = await listen(address)
      if (server !== undefined) {
        const inode = (await statEntry(path))?.inode
        return {
          held: async () => (await statEntry(path).catch(() => undefined))?.inode === inode,
          release: () => new Promise(resolve => server.close(() => resolve(handle.close()))),
        }
      }
      if (await answers(address)) break
      await rm(path, { force: true })
    }
    throw new DiskError('lock', directory, 'EEXIST')
  } catch (error) {
    await handle.close()
    throw error
  }
}

function listen(address: string) {
  return new Promise<ReturnType<typeof createServer> | undefined>((resolve, reject) => {
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
