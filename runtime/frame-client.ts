/**
 * The calling side of a direct socket: requests go out one after another without waiting, replies come back in the
 * same order.
 *
 *     request ──▶ send lock ──▶ socket ──▶ ... ──▶ reply header ──▶ pending[0] ──▶ its `receive`
 */
import { DfsError, ERRORS, type ErrorCode } from '../protocol/errors.ts'
import { type FrameHeader, header } from '../protocol/frame.ts'
import { FrameReader, type ReadTimeouts } from './frame-reader.ts'
import type { Timers } from './timers.ts'
import { type Clock, type Endpoint, type Socket, SocketError, type Sockets } from './world.ts'

/** A reply read whole into memory has at most this many bytes: names, positions, file infos. */
const REPLY_BYTES_MAX = 64 * 1024

/** How often a connection with requests under way is looked at. */
const WATCH_MS = 500

const DONE = Promise.resolve()

/** Sends a body of known length piece by piece. */
export type BodySource = (send: (parts: readonly Uint8Array[]) => Promise<void>) => Promise<void>

/** Takes the body of a reply; what it leaves is thrown away. */
export type Receive<T> = (body: FrameReader, header: FrameHeader) => Promise<T>

export interface FrameClientOptions {
  readonly sockets: Sockets
  readonly clock: Clock
  readonly timers: Timers
  readonly connectMs: number
  readonly timeouts: ReadTimeouts
}

interface Pending {
  receive: Receive<unknown>
  resolve(value: unknown): void
  reject(error: Error): void
}

/** One connection. Any failure of the stream ends it and rejects all that is under way; it never heals. */
export class FrameClient {
  readonly remote: Endpoint
  readonly #socket: Socket
  readonly #options: FrameClientOptions
  readonly #reader: FrameReader
  readonly #pending: Pending[] = []
  #sending: Promise<void> = Promise.resolve()
  #reading = false
  #watching = false
  #broken: Error | undefined
  #usedMs: number

  private constructor(socket: Socket, remote: Endpoint, options: FrameClientOptions) {
    this.remote = remote
    this.#socket = socket
    this.#options = options
    this.#reader = new FrameReader(socket, options.clock, options.timeouts)
    this.#usedMs = options.clock.monotonicMs()
  }

  /** Connects. Rejects with `unavailable`, the cause kept. */
  static async connect(remote: Endpoint, options: FrameClientOptions): Promise<FrameClient> {
    try {
      return new FrameClient(await options.sockets.connect(remote, options.connectMs), remote, options)
    } catch (cause) {
      throw new DfsError('unavailable', `cannot connect to ${remote.host}:${remote.port}`, { cause })
    }
  }

  /** Requests sent or waiting to be sent whose reply has not ended. */
  get outstanding(): number {
    return this.#pending.length
  }

  get broken(): boolean {
    return this.#broken !== undefined || this.#socket.closed
  }

  /** Since the last request began. */
  get idleMs(): number {
    return this.#options.clock.monotonicMs() - this.#usedMs
  }

  /** Sends a request whose body is at hand and reads a short reply whole. Rejects with a DfsError. */
  request(command: number, body: Uint8Array, status = 0): Promise<Buffer> {
    return this.exchange(command, body.length, send => send([body]), receiveWhole, status)
  }

  /** Sends a request of any length and hands the reply's body to `receive`. Rejects with a DfsError. */
  exchange<T>(command: number, bodyBytes: number, source: BodySource, receive: Receive<T>, status = 0): Promise<T> {
    return this.#enqueue(() => this.#sendFrame(command, bodyBytes, source, status), receive)
  }

  /** Sends a request and, after it, frames of `dataCommand` until the source ends, then an empty one. */
  exchangeStream(
    command: number,
    body: Uint8Array,
    dataCommand: number,
    source: (send: (piece: Uint8Array) => Promise<void>) => Promise<void>,
  ): Promise<Buffer> {
    return this.#enqueue(async () => {
      await this.#sendFrame(command, body.length, send => send([body]), 0)
      await source(piece =>
        piece.length === 0 ? DONE : this.#sendFrame(dataCommand, piece.length, send => send([piece]), 0),
      )
      await this.#sendFrame(dataCommand, 0, () => DONE, 0)
    }, receiveWhole)
  }

  /** Takes a place in the order of requests: sends when those before are sent, receives when those before are answered. */
  #enqueue<T>(sendAll: () => Promise<void>, receive: Receive<T>): Promise<T> {
    if (this.#broken !== undefined) return Promise.reject(this.#broken)
    this.#usedMs = this.#options.clock.monotonicMs()
    const sent = this.#sending.then(sendAll)
    // A request that could not be sent whole has spoilt the stream for all that follow.
    this.#sending = sent.catch(error => this.#fail(error))
    this.#watch()
    return new Promise<T>((resolve, reject) => {
      this.#pending.push({ receive, resolve: resolve as (value: unknown) => void, reject })
      if (!this.#reading) void this.#read()
    })
  }

  /** Ends the connection; requests under way reject with `unavailable`. */
  close(reason = new DfsError('unavailable', 'the connection was closed')): void {
    this.#fail(reason)
  }

  async #sendFrame(command: number, bodyBytes: number, source: BodySource, status: number): Promise<void> {
    if (this.#broken !== undefined) throw this.#broken
    let head: Buffer | undefined = header(command, bodyBytes, status)
    let left = bodyBytes
    await source(async parts => {
      for (const part of parts) left -= part.length
      if (left < 0) throw new DfsError('bad_request', 'more bytes than were announced')
      const all = head === undefined ? parts : [head, ...parts]
      head = undefined
      if (this.#broken !== undefined) throw this.#broken
      await this.#socket.write(all)
    })
    if (left > 0) throw new DfsError('bad_request', 'fewer bytes than were announced')
    if (head !== undefined) await this.#socket.write([head])
  }

  async #read(): Promise<void> {
    this.#reading = true
    try {
      for (let next = this.#pending[0]; next !== undefined; next = this.#pending[0]) {
        const head = await this.#reader.header()
        if (head === undefined) throw new SocketError('read', 'ECONNRESET')
        if (head.status !== 0) {
          const text = await receiveWhole(this.#reader, head)
          this.#pending.shift()
          next.reject(errorOf(head.status, text.toString()))
          continue
        }
        const value = await next.receive(this.#reader, head)
        await this.#reader.skipBody()
        this.#pending.shift()
        next.resolve(value)
      }
    } catch (error) {
      this.#fail(error)
    } finally {
      this.#reading = false
    }
  }

  /** Looks for silence while replies are owed to us. */
  #watch(): void {
    if (this.#watching) return
    this.#watching = true
    this.#options.timers.set(WATCH_MS, () => {
      this.#watching = false
      if (this.#pending.length === 0 || this.#broken !== undefined) return
      if (this.#reader.deadlineMs < this.#options.clock.monotonicMs()) {
        this.#fail(new DfsError('timeout', `${this.remote.host}:${this.remote.port} did not answer in time`))
      } else this.#watch()
    })
  }

  #fail(thrown: unknown): void {
    if (this.#broken !== undefined) return
    this.#broken =
      thrown instanceof DfsError ? thrown : new DfsError('unavailable', 'the connection broke', { cause: thrown })
    this.#socket.destroy()
    for (const pending of this.#pending.splice(0)) pending.reject(this.#broken)
  }
}

/** Takes a short reply whole. */
export async function receiveWhole(body: FrameReader, head: FrameHeader): Promise<Buffer> {
  if (head.lengthBytes > REPLY_BYTES_MAX) throw new DfsError('internal', 'the reply is longer than any honest one')
  const whole = Buffer.allocUnsafe(head.lengthBytes)
  await body.readBody(whole)
  return whole
}

/** Our own servers name the code and the reason; a FastDFS server sends a number alone. */
function errorOf(status: number, text: string): DfsError {
  const space = text.indexOf(' ')
  const code = text.slice(0, space)
  if (code in ERRORS) return new DfsError(code as ErrorCode, text.slice(space + 1))
  const likely = LIKELY_CODES.find(known => ERRORS[known].errno === status)
  return new DfsError(
    likely ?? 'internal',
    likely === undefined ? `the server answered with status ${status}` : undefined,
  )
}

/** What a bare errno most likely means, where several codes share one. */
const LIKELY_CODES: readonly ErrorCode[] = ['not_found', 'bad_request', 'unauthorized', 'unavailable', 'no_space']
