/**
 * The sockets of a real machine: `node:net` streams behind the World's pulled, promise-shaped interface.
 *
 *     kernel ──▶ landing, one buffer for all sockets ──▶ the target of the read that waits, or a copy for the next one
 *        └─────▶ the target itself, while a read waits for more than has come
 */
import { lookup } from 'node:dns/promises'
import { connect, createServer, isIP, Socket as NetSocket, type OnReadOpts, type SocketConstructorOpts } from 'node:net'
import { type Endpoint, type Socket, SocketError, type Sockets } from './world.ts'

/** Received bytes kept for a reader that is busy; past it the connection is not read, and TCP slows the sender. */
const UNREAD_BYTES_MAX = 256 * 1024

/** Where bytes land that nobody has given a place: they are moved on before the next ones come, for whatever socket. */
const landing = Buffer.allocUnsafeSlow(64 * 1024)

/** Parts of up to so many bytes are sent as one: to copy them costs less than to hand them to the kernel one by one. */
const JOINED_BYTES_MAX = 16 * 1024

/** Where parts are joined; free again once the kernel has taken them, which it mostly does at once. */
let joint = Buffer.allocUnsafeSlow(JOINED_BYTES_MAX)

/** Bytes of joined parts that may wait while the other side counts as keeping up. */
const COPIED_BYTES_MAX = 64 * 1024

const EMPTY = Buffer.alloc(0)

/** Sockets of this machine. */
export const realSockets: Sockets = socketsOf(accepted => rewrapped(accepted) ?? plain(accepted))

/** The same by documented means only: whatever comes over an accepted connection comes in a new buffer, which is slower. */
export const plainSockets: Sockets = socketsOf(plain)

function socketsOf(wrap: (accepted: NetSocket) => Socket): Sockets {
  return {
    listen(at, accept) {
      return new Promise((resolve, reject) => {
        const options = { noDelay: true, allowHalfOpen: true, pauseOnConnect: true }
        const server = createServer(options, accepted => accept(wrap(accepted)))
        // Also for later ones: a connection that could not be accepted, for want of descriptors, must not end the process.
        server.on('error', cause => reject(failure(`listen on ${at.host}:${at.port}`, cause)))
        server.listen(at.port, at.host, () => {
          const address = server.address() as { address: string; port: number }
          resolve({
            endpoint: { host: address.address, port: address.port },
            // Node calls back when the last connection has ended; the port is free at once.
            close: async () => void server.close(),
          })
        })
      })
    },

    connect({ host, port }, timeoutMs) {
      return new Promise((resolve, reject) => {
        const action = `connect to ${host}:${port}`
        const socket = new RealSocket({ host, port }, onread => {
          const stream = connect({ host, port, noDelay: true, allowHalfOpen: true, onread })
          const timer = setTimeout(() => stream.destroy(new SocketError(action, 'ETIMEDOUT')), timeoutMs)
          const refuse = (cause: Error) => {
            clearTimeout(timer)
            reject(failure(action, cause))
          }
          stream.once('error', refuse)
          stream.once('connect', () => {
            clearTimeout(timer)
            stream.off('error', refuse)
            resolve(socket)
          })
          return stream
        })
      })
    },

    async resolve(host) {
      if (isIP(host) !== 0) return host
      try {
        return (await lookup(host, { family: 4 })).address
      } catch {
        // Not a failure yet: a name may have nothing but an IPv6 address.
        try {
          return (await lookup(host)).address
        } catch (cause) {
          throw failure(`resolve ${host}`, cause)
        }
      }
    },
  }
}

/**
 * Wraps an accepted connection anew, to say where its bytes go: Node asks only for connections that it opens itself.
 * That takes an option it does not document, so undefined where it does not look as we know it.
 */
function rewrapped(accepted: NetSocket): Socket | undefined {
  const shell = accepted as unknown as { _handle: { useUserBuffer?: unknown } | null }
  const handle = shell._handle
  if (typeof handle?.useUserBuffer !== 'function') return undefined
  const remote = remoteOf(accepted)
  shell._handle = null
  accepted.destroy()
  return new RealSocket(remote, onread => {
    return new NetSocket({ handle, onread, allowHalfOpen: true } as SocketConstructorOpts)
  })
}

function plain(accepted: NetSocket): Socket {
  return new RealSocket(remoteOf(accepted), () => accepted)
}

function remoteOf(accepted: NetSocket): Endpoint {
  return { host: accepted.remoteAddress ?? '', port: accepted.remotePort ?? 0 }
}

function failure(action: string, cause: unknown): SocketError {
  if (cause instanceof SocketError) return cause
  return new SocketError(action, (cause as NodeJS.ErrnoException).code ?? 'EIO', { cause })
}

/** A read that waits. */
interface Reader {
  readonly target: Uint8Array
  readonly least: number
  filled: number
  readonly resolve: (bytes: number) => void
  readonly reject: (error: Error) => void
}

class RealSocket implements Socket {
  readonly remote: Endpoint
  readonly #stream: NetSocket
  /** Bytes that came while nobody read, oldest first. */
  readonly #unread: Uint8Array[] = []
  #unreadBytes = 0
  #paused = false
  /** Nothing has come since something was written. */
  #wroteLast = false
  #ended = false
  #error: Error | undefined
  #reader: Reader | undefined

  constructor(remote: Endpoint, open: (onread: OnReadOpts) => NetSocket) {
    this.remote = remote
    this.#stream = open({
      buffer: () => this.#place(),
      callback: (count, place) => {
        this.#wroteLast = false
        if (place === landing) this.#arrived(landing.subarray(0, count))
        else this.#filled(count)
        return true
      },
    })
    this.#stream.on('data', chunk => {
      this.#wroteLast = false
      this.#arrived(chunk)
    })
    this.#stream.on('end', () => this.#finished(undefined))
    this.#stream.on('error', cause => this.#finished(failure('socket', cause)))
    this.#stream.on('close', () => this.#finished(this.#ended ? undefined : new SocketError('socket', 'ECONNRESET')))
    this.#stream.resume()
  }

  get queuedBytes(): number {
    return this.#stream.writableLength
  }

  get receivedBytes(): number {
    return this.#stream.bytesRead
  }

  get sentBytes(): number {
    return this.#stream.bytesWritten - this.#stream.writableLength
  }

  get closed(): boolean {
    return this.#stream.destroyed
  }

  read(target: Uint8Array, least = 1): Promise<number> {
    if (this.#reader !== undefined) return Promise.reject(new Error('one read at a time'))
    const filled = this.#unreadBytes > 0 ? this.#takeUnread(target) : 0
    if (filled >= least) return Promise.resolve(filled)
    if (this.#error !== undefined) return Promise.reject(this.#error)
    if (this.#ended) return Promise.resolve(filled)
    return new Promise((resolve, reject) => {
      this.#reader = { target, least, filled, resolve, reject }
    })
  }

  write(parts: readonly Uint8Array[]): Promise<void> | undefined {
    const stream = this.#stream
    let bytes = 0
    for (const part of parts) bytes += part.length
    const isCopied = bytes <= JOINED_BYTES_MAX
    if (isCopied) this.#writeJoined(parts, bytes)
    else this.#writeAll(parts)
    const keepsUp = stream.writableLength <= (isCopied ? COPIED_BYTES_MAX : 0)
    if (keepsUp && stream.errored === null && !stream.destroyed) return undefined
    // What is written behind them is called back after them.
    return new Promise((resolve, reject) => {
      stream.write(EMPTY, cause => {
        if (cause) reject(this.#error ?? failure('write', cause))
        // Node calls what a destroyed socket was about to send a success.
        else if (stream.destroyed) reject(this.#error ?? new SocketError('write', 'ECONNABORTED'))
        else resolve()
      })
    })
  }

  end(): Promise<void> {
    return new Promise(resolve => this.#stream.end(resolve))
  }

  destroy(reason?: Error): void {
    this.#finished(reason ?? new SocketError('socket', 'ECONNABORTED'))
    this.#unread.length = 0
    this.#unreadBytes = 0
    this.#stream.destroy()
  }

  /** The first write after something came goes out at once; those that follow it go together at the end of the turn. */
  #writeJoined(parts: readonly Uint8Array[], bytes: number): void {
    const stream = this.#stream
    if (this.#wroteLast || stream.writableLength > 0) {
      this.#waitForTurn()
      stream.write(Buffer.concat(parts, bytes))
      return
    }
    this.#wroteLast = true
    let end = 0
    for (const part of parts) {
      joint.set(part, end)
      end += part.length
    }
    stream.write(joint.subarray(0, end))
    if (stream.writableLength > 0) joint = Buffer.allocUnsafeSlow(JOINED_BYTES_MAX)
  }

  #writeAll(parts: readonly Uint8Array[]): void {
    this.#stream.cork()
    for (const part of parts) this.#stream.write(part)
    this.#stream.uncork()
  }

  #waitForTurn(): void {
    if (this.#stream.writableCorked > 0) return
    this.#stream.cork()
    process.nextTick(() => this.#stream.uncork())
  }

  /** Where the next bytes shall go. */
  #place(): Uint8Array {
    const reader = this.#reader
    return reader === undefined ? landing : reader.target.subarray(reader.filled)
  }

  /** Bytes came that are good only for now. */
  #arrived(bytes: Uint8Array): void {
    const reader = this.#reader
    let taken = 0
    if (reader !== undefined) {
      taken = Math.min(bytes.length, reader.target.length - reader.filled)
      reader.target.set(taken === bytes.length ? bytes : bytes.subarray(0, taken), reader.filled)
      this.#filled(taken)
    }
    if (taken === bytes.length) return
    this.#unread.push(Uint8Array.prototype.slice.call(bytes, taken))
    this.#unreadBytes += bytes.length - taken
    if (this.#unreadBytes >= UNREAD_BYTES_MAX) {
      this.#paused = true
      this.#stream.pause()
    }
  }

  /** Bytes came into the reader's own target. */
  #filled(count: number): void {
    const reader = this.#reader!
    reader.filled += count
    if (reader.filled < reader.least) return
    this.#reader = undefined
    reader.resolve(reader.filled)
  }

  /** Moves what came before into a target; returns how many bytes. */
  #takeUnread(target: Uint8Array): number {
    let filled = 0
    while (filled < target.length) {
      const chunk = this.#unread[0]
      if (chunk === undefined) break
      const count = Math.min(chunk.length, target.length - filled)
      target.set(count === chunk.length ? chunk : chunk.subarray(0, count), filled)
      filled += count
      if (count === chunk.length) this.#unread.shift()
      else this.#unread[0] = chunk.subarray(count)
    }
    this.#unreadBytes -= filled
    if (this.#paused && this.#unreadBytes === 0) {
      this.#paused = false
      this.#stream.resume()
    }
    return filled
  }

  #finished(error: Error | undefined): void {
    if (this.#ended || this.#error !== undefined) return
    if (error === undefined) this.#ended = true
    else this.#error = error
    const reader = this.#reader
    this.#reader = undefined
    if (error === undefined) reader?.resolve(reader.filled)
    else reader?.reject(error)
  }
}
