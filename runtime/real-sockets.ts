/** The sockets of a real machine: `node:net` streams behind the World's pulled, promise-shaped interface. */
import { lookup } from 'node:dns/promises'
import { connect, createServer, isIP, type Socket as NetSocket } from 'node:net'
import { type Endpoint, type Socket, SocketError, type Sockets } from './world.ts'

/** Received bytes kept for a reader that is busy; past it the connection is not read, and TCP slows the sender. */
const UNREAD_BYTES_MAX = 256 * 1024

export const realSockets: Sockets = {
  listen(at, accept) {
    return new Promise((resolve, reject) => {
      const server = createServer({ noDelay: true, allowHalfOpen: true }, socket => accept(new RealSocket(socket)))
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

  connect(to, timeoutMs) {
    return new Promise((resolve, reject) => {
      const action = `connect to ${to.host}:${to.port}`
      const socket = connect({ host: to.host, port: to.port, noDelay: true, allowHalfOpen: true })
      const timer = setTimeout(() => socket.destroy(new SocketError(action, 'ETIMEDOUT')), timeoutMs)
      const refuse = (cause: Error) => {
        clearTimeout(timer)
        reject(failure(action, cause))
      }
      socket.once('error', refuse)
      socket.once('connect', () => {
        clearTimeout(timer)
        socket.off('error', refuse)
        resolve(new RealSocket(socket))
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

function failure(action: string, cause: unknown): SocketError {
  if (cause instanceof SocketError) return cause
  return new SocketError(action, (cause as NodeJS.ErrnoException).code ?? 'EIO', { cause })
}

class RealSocket implements Socket {
  readonly remote: Endpoint
  readonly #socket: NetSocket
  /** Bytes that came while nobody read, oldest first. */
  readonly #unread: Buffer[] = []
  #unreadBytes = 0
  #ended = false
  #error: Error | undefined
  #reader: { target: Uint8Array; resolve(bytes: number): void; reject(error: Error): void } | undefined

  constructor(socket: NetSocket) {
    this.#socket = socket
    this.remote = { host: socket.remoteAddress ?? '', port: socket.remotePort ?? 0 }
    socket.on('data', chunk => this.#arrived(chunk))
    socket.on('end', () => this.#finished(undefined))
    socket.on('error', cause => this.#finished(failure('socket', cause)))
    socket.on('close', () => this.#finished(this.#ended ? undefined : new SocketError('socket', 'ECONNRESET')))
  }

  get queuedBytes(): number {
    return this.#socket.writableLength
  }

  get closed(): boolean {
    return this.#socket.destroyed
  }

  read(target: Uint8Array): Promise<number> {
    if (this.#reader !== undefined) return Promise.reject(new Error('one read at a time'))
    if (this.#unreadBytes > 0) return Promise.resolve(this.#take(target))
    if (this.#error !== undefined) return Promise.reject(this.#error)
    if (this.#ended) return Promise.resolve(0)
    return new Promise((resolve, reject) => {
      this.#reader = { target, resolve, reject }
      this.#socket.resume()
    })
  }

  write(parts: readonly Uint8Array[]): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#socket.cork()
      const last = parts.length - 1
      for (let i = 0; i < last; i++) this.#socket.write(parts[i]!)
      this.#socket.write(parts[last] ?? new Uint8Array(), cause => {
        if (cause) reject(this.#error ?? failure('write', cause))
        // Node calls what a destroyed socket was about to send a success.
        else if (this.#socket.destroyed) reject(this.#error ?? new SocketError('write', 'ECONNABORTED'))
        else resolve()
      })
      this.#socket.uncork()
    })
  }

  end(): void {
    this.#socket.end()
  }

  destroy(reason?: Error): void {
    this.#finished(reason ?? new SocketError('socket', 'ECONNABORTED'))
    this.#unread.length = 0
    this.#unreadBytes = 0
    this.#socket.destroy()
  }

  #arrived(chunk: Buffer): void {
    const reader = this.#reader
    this.#unread.push(chunk)
    this.#unreadBytes += chunk.length
    if (reader !== undefined) {
      this.#reader = undefined
      reader.resolve(this.#take(reader.target))
    }
    if (this.#unreadBytes >= UNREAD_BYTES_MAX) this.#socket.pause()
  }

  #take(target: Uint8Array): number {
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
    return filled
  }

  #finished(error: Error | undefined): void {
    if (this.#ended || this.#error !== undefined) return
    if (error === undefined) this.#ended = true
    else this.#error = error
    const reader = this.#reader
    this.#reader = undefined
    if (error === undefined) reader?.resolve(0)
    else reader?.reject(error)
  }
}
