/**
 * The World: everything an actor, a store or a client may touch outside its own memory.
 *
 * Nothing else in the product may reach for a clock, a timer, randomness, a disk, a socket, a process or NATS, so the
 * very same code runs against the machine (`real-world.ts`) or inside a seeded simulation.
 */
import type { ConnectBus } from './bus.ts'

/** What a program is given instead of the machine. */
export interface World {
  readonly clock: Clock
  readonly random: Random
  readonly disk: Disk
  readonly sockets: Sockets
  readonly processes: Processes
  /** Opens a connection to NATS, or to what stands in for it. */
  readonly connectBus: ConnectBus
}

/** Undoes something once; calling it again does nothing. */
export type Cancel = () => void

/** Two clocks and one alarm. Everything that waits is built on `alarm` by `timers.ts`. */
export interface Clock {
  /** Milliseconds since 1970; may jump. Only for people, file ids and logs: never for order or expiry. */
  wallMs(): number
  /** Milliseconds from an arbitrary start; never goes back. */
  monotonicMs(): number
  /** Calls `ring` once after `delayMs`. */
  alarm(delayMs: number, ring: () => void): Cancel
  /** Resolves when everything that has arrived by now has been dealt with: at once, where nothing has. */
  turn(): Promise<void>
}

/** Unpredictable bytes in production, seeded ones in a simulation. */
export interface Random {
  bytes(count: number): Buffer
  /** A uniform integer in `[0, limit)`; `limit` is at most 2^32. */
  below(limit: number): number
}

/** What is known of a directory entry. */
export interface DiskEntry {
  readonly kind: 'file' | 'directory' | 'other'
  readonly sizeBytes: number
  readonly mtimeMs: number
  /** Names the inode, so that a path that was swapped can be told from the one that was opened. */
  readonly inode: bigint
}

/** The disk. Every call rejects with a `DiskError` that keeps the cause. What is made is readable by its owner alone. */
export interface Disk {
  /** `read` an existing file, `create` one that must not exist (errno `EEXIST`), `update` an existing one. */
  open(path: string, mode: 'read' | 'create' | 'update'): Promise<DiskFile>
  /** Replaces `to` if it exists. Durable after `syncDirectory` of the directories on both sides. */
  rename(from: string, to: string): Promise<void>
  remove(path: string): Promise<void>
  makeDirectory(path: string): Promise<void>
  list(path: string): Promise<string[]>
  /** Undefined if nothing is there. */
  stat(path: string): Promise<DiskEntry | undefined>
  /** Makes the entries of a directory durable. */
  syncDirectory(path: string): Promise<void>
  space(path: string): Promise<{ totalBytes: number; freeBytes: number }>
  /** Takes the lock of a directory for as long as this process lives. Rejects with errno `EEXIST` if another holds it. */
  lock(directory: string): Promise<DiskLock>
}

/** One open file. Reads and writes name their offset; nothing here has a position. */
export interface DiskFile {
  /** Fills `target` from `offsetBytes`; returns how many bytes were there (fewer only at the end of the file). */
  read(target: Uint8Array, offsetBytes: number): Promise<number>
  /** Writes all parts, one after another, from `offsetBytes`. */
  write(parts: readonly Uint8Array[], offsetBytes: number): Promise<void>
  /**
   * The same, durable when it resolves, and cheaper than `write` and `sync`. After a rejection the handle must not be
   * trusted again, unless the disk is full.
   */
  writeDurably(parts: readonly Uint8Array[], offsetBytes: number): Promise<void>
  /** Makes everything written so far durable (`fdatasync`). After a rejection the handle must not be trusted again. */
  sync(): Promise<void>
  truncate(sizeBytes: number): Promise<void>
  sizeBytes(): Promise<number>
  close(): Promise<void>
}

/** A held lock. `held()` turns false when somebody removed it from under us. */
export interface DiskLock {
  held(): Promise<boolean>
  release(): Promise<void>
}

/** Why a disk call failed: `errno` is the system's own name for it, such as `ENOSPC`. */
export class DiskError extends Error {
  readonly errno: string
  constructor(action: string, path: string, errno: string, options?: { cause: unknown }) {
    super(`${action} ${path}: ${errno}`, options)
    this.name = 'DiskError'
    this.errno = errno
  }
}

/** Whether a disk call failed for want of room, which is no failure of the disk. */
export function isFull(error: unknown): boolean {
  return error instanceof DiskError && (error.errno === 'ENOSPC' || error.errno === 'EDQUOT')
}

/** Where a socket listens or connects to. `host` is a name or an address. */
export interface Endpoint {
  readonly host: string
  readonly port: number
}

/** Byte streams between processes. */
export interface Sockets {
  /** Port 0 takes any free one. Rejects with a `SocketError` (`EADDRINUSE`, ...). */
  listen(at: Endpoint, accept: (socket: Socket) => void): Promise<Listener>
  connect(to: Endpoint, timeoutMs: number): Promise<Socket>
  /** The IPv4 address (or IPv6 where there is no other) a name stands for now. */
  resolve(host: string): Promise<string>
}

/** A listening socket. */
export interface Listener {
  readonly endpoint: Endpoint
  /** Accepts nothing more; connections that are open stay open. */
  close(): Promise<void>
}

/** One connection, pulled by its reader: little is received that nobody asked for, so a slow reader slows the sender. */
export interface Socket {
  readonly remote: Endpoint
  /**
   * Waits for bytes, puts at least `least` (1) into `target` and returns how many: fewer, or 0, mean that the other side
   * ended. One at a time. Whoever wants many at once has them put into `target` without a copy.
   */
  read(target: Uint8Array, least?: number): Promise<number>
  /**
   * Queues all parts in order; resolves when the parts may be reused, which is also when the other side keeps up.
   * Undefined when that is so already, as it mostly is.
   */
  write(parts: readonly Uint8Array[]): Promise<void> | undefined
  /** Bytes written but not yet taken by the network. */
  readonly queuedBytes: number
  /** All bytes that ever came. While these and `sentBytes` stand still, the other side is silent. */
  readonly receivedBytes: number
  /** All bytes that the network ever took. */
  readonly sentBytes: number
  /** Ends our side after what is queued; resolves when the network has taken that, or never will. */
  end(): Promise<void>
  /** Drops the connection at once; reads and writes under way reject with `reason`. */
  destroy(reason?: Error): void
  readonly closed: boolean
}

/** Why a socket call failed: `errno` is the system's own name for it, such as `ECONNREFUSED`. */
export class SocketError extends Error {
  readonly errno: string
  constructor(action: string, errno: string, options?: { cause: unknown }) {
    super(`${action}: ${errno}`, options)
    this.name = 'SocketError'
    this.errno = errno
  }
}

/** Child processes, for the launcher. */
export interface Processes {
  readonly pid: number
  /** Starts a program. Its stdin is a pipe that closes when this process dies, however it dies. */
  spawn(program: string, args: readonly string[], options: SpawnOptions): ChildProcess
  /** Whether a process with this pid exists. */
  alive(pid: number): boolean
  /** The command line of a process, empty if it cannot be known. */
  commandLine(pid: number): Promise<string>
  signal(pid: number, signal: 'SIGTERM' | 'SIGINT' | 'SIGKILL'): void
}

/** How a child is started. */
export interface SpawnOptions {
  /** Added to the environment of this process; secrets go here or into files, never into `args`. */
  readonly environment?: Readonly<Record<string, string>>
  /** Called for each line of stdout and stderr. */
  readonly onLine?: (line: string, stream: 'stdout' | 'stderr') => void
}

/** A started child. */
export interface ChildProcess {
  readonly pid: number
  /** Resolves when the process has ended, with its exit code or the signal that ended it. Never rejects. */
  readonly exited: Promise<{ code: number | undefined; signal: string | undefined }>
  kill(signal: 'SIGTERM' | 'SIGINT' | 'SIGKILL'): void
}
