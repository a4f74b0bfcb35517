/**
 * The calling side of a direct socket: requests go out one after another without waiting, replies come back in the
 * same order.
 *
 *     request ──▶ send lock ──▶ socket ──▶ ... ──▶ reply header ──▶ pending[0] ──▶ its `receive`
 */
import { DfsError, ERRORS, type ErrorCode } from '../protocol/errors.ts'
import { type FrameHeader, header } from '../protocol/frame.ts'
import { METADATA_BYTES_MAX } from '../protocol/metadata.ts'
import { FrameReader, type ReadTimeouts } from './frame-reader.ts'
import { Silence } from './silence.ts'
import type { Timers } from './timers.ts'
import { type Cancel, type Clock, type Endpoint, type Socket, SocketError, type Sockets } from './world.ts'

/** A reply read whole into memory has at most this many bytes: names, positions, file infos, and all metadata of a file. */
const REPLY_BYTES_MAX = METADATA_BYTES_MAX

/** How often a connection with requests under way is looked at. */
const WATCH_MS = 500

/** Sends a body of known length piece by piece. */
export type BodySource = (send: (parts: readonly Uint8Array[]) => Promise<void>) => Promise<void>

/** Takes the body of a reply, at once or later; what it leaves is thrown away. */
export type Receive<T> = (body: FrameReader, header: FrameHeader) => T | Promise<T>

export interface FrameClientOptions {
  readonly sockets: Sockets
  readonly clock: Clock
  readonly timers: Timers
  readonly connectMs: number
  readonly timeouts: ReadTimeouts
}

/** Gives a whole request to the network; undefined when it has taken it. */
type SendAll = () => Promise<void> | undefined

interface Pending {
  readonly sendAll: SendAll
  readonly receive: Receive<unknown>
  resolve(value: unknown): void
  reject(error: Error): void
}

/** One connection. Any failure of the stream ends it and rejects all that is under way; it never heals. */
export class FrameClient {
  readonly remote: Endpoint
  readonly #socket: Socket
  readonly #options: FrameClientOptions
  readonly #reader: FrameReader
  /** Those whose replies have not ended, in order. */
  readonly #pending: Pending[] = []
  /** Those of them that wait to be sent. */
  readonly #unsent: Pending[] = []
  /** Whose turn it is to send. */
  #sender: Pending | undefined
  #silence = new Silence()
  #cancelWatch: Cancel | undefined
  #broken: Error | undefined
  #usedMs: number

  private constructor(socket: Socket, remote: Endpoint, options: FrameClientOptions) {
    this.remote = remote
    this.#socket = socket
    this.#options = options
    this.#reader = new FrameReader(socket, options.timeouts)
    this.#usedMs = options.clock.monotonicMs()
    void this.#read()
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
    return this.#enqueue(() => this.#socket.write([header(command, body.length, status), body]), receiveWhole)
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
      await this.#socket.write([header(command, body.length), body])
      await source(async piece => {
        if (piece.length > 0) await this.#write([header(dataCommand, piece.length), piece])
      })
      await this.#write([header(dataCommand, 0)])
    }, receiveWhole)
  }

  /** Takes a place in the order of requests: sends when those before are sent, receives when those before are answered. */
  #enqueue<T>(sendAll: SendAll, receive: Receive<T>): Promise<T> {
    if (this.#broken !== undefined) return Promise.reject(this.#broken)
    this.#usedMs = this.#options.clock.monotonicMs()
    return new Promise<T>((resolve, reject) => {
      const pending: Pending = { sendAll, receive, resolve: resolve as (value: unknown) => void, reject }
      this.#pending.push(pending)
      this.#unsent.push(pending)
      this.#sendOn()
      this.#watch()
    })
  }

  /** Ends the connection; requests under way reject with `unavailable`. */
  close(reason = new DfsError('unavailable', 'the connection was closed')): void {
    this.#fail(reason)
  }

  /** Sends requests in order, until one has to wait. */
  #sendOn(): void {
    while (this.#sender === undefined) {
      const next = this.#unsent.shift()
      if (next === undefined) return
      const sent = next.sendAll()
      if (sent === undefined) continue
      this.#sender = next
      sent.then(
        () => {
          this.#sender = undefined
          this.#sendOn()
        },
        // A request that could not be sent whole has spoilt the stream for all that follow.
        error => this.#fail(error, next),
      )
    }
  }

  async #sendFrame(command: number, bodyBytes: number, source: BodySource, status: number): Promise<void> {
    let head: Buffer | undefined = header(command, bodyBytes, status)
    let left = bodyBytes
    await source(async parts => {
      for (const part of parts) left -= part.length
      if (left < 0) throw new DfsError('bad_request', 'more bytes than were announced')
      const all = head === undefined ? parts : [head, ...parts]
      head = undefined
      await this.#write(all)
    })
    if (left > 0) throw new DfsError('bad_request', 'fewer bytes than were announced')
    if (head !== undefined) await this.#write([head])
  }

  #write(parts: readonly Uint8Array[]): Promise<void> | undefined {
    if (this.#broken !== undefined) throw this.#broken
    return this.#socket.write(parts)
  }

  /** Reads as long as the connection lives: also when nothing is under way, the other side may end it. */
  async #read(): Promise<void> {
    const reader = this.#reader
    let next: Pending | undefined
    try {
      for (;;) {
        const head = reader.headerHere() ?? (await reader.header())
        next = this.#pending[0]
        if (head === undefined) throw new SocketError('read', 'ECONNRESET')
        if (next === undefined) throw new DfsError('unavailable', 'the server answered what nobody asked')
        const receive = head.status === 0 ? next.receive : receiveWhole
        const received = receive(reader, head)
        const value = received instanceof Promise ? await received : received
        if (reader.bodyLeft > 0) await reader.skipBody()
        this.#pending.shift()
        if (head.status === 0) next.resolve(value)
        else next.reject(errorOf(head.status, String(value)))
      }
    } catch (error) {
      this.#fail(error, next)
    }
  }

  /** Looks for silence while replies are owed to us. */
  #watch(): void {
    if (this.#cancelWatch !== undefined) return
    this.#silence = new Silence()
    this.#isSilent()
    this.#lookAgain()
  }

  #lookAgain(): void {
    this.#cancelWatch = this.#options.timers.set(WATCH_MS, () => {
      this.#cancelWatch = undefined
      if (this.#pending.length === 0) return
      if (this.#isSilent()) {
        this.#fail(new DfsError('timeout', `${this.remote.host}:${this.remote.port} did not answer in time`))
      } else this.#lookAgain()
    })
  }

  /** Whether the other side has been silent for too long: a request that is still going out gets no answer yet. */
  #isSilent(): boolean {
    const { receivedBytes, sentBytes, queuedBytes } = this.#socket
    const goesOut = this.#sender !== undefined && this.#sender === this.#pending[0]
    let patienceMs = this.#options.timeouts.idleMs
    if (this.#reader.bodyLeft > 0) patienceMs = this.#reader.patienceMs
    // What everybody waits for is our own source.
    else if (goesOut && queuedBytes === 0) patienceMs = Number.POSITIVE_INFINITY
    // Each piece of it counts when it is written: that is when the one before has been taken.
    const movedBytes = goesOut ? receivedBytes + sentBytes + queuedBytes : receivedBytes
    return this.#silence.isTooLong(this.#options.clock.monotonicMs(), movedBytes, patienceMs)
  }

  /** Ends the connection. A request that broke it is told how; the others are told to try again. */
  #fail(thrown: unknown, culprit?: Pending): void {
    if (this.#broken !== undefined) return
    const isOurs = thrown instanceof DfsError
    this.#broken =
      isOurs && culprit === undefined ? thrown : new DfsError('unavailable', 'the connection broke', { cause: thrown })
    this.#cancelWatch?.()
    this.#socket.destroy()
    this.#unsent.length = 0
    for (const pending of this.#pending.splice(0)) {
      pending.reject(isOurs && pending === culprit ? thrown : this.#broken)
    }
  }
}

/** Takes a short reply whole. */
export function receiveWhole(body: FrameReader, { lengthBytes }: FrameHeader): Buffer | Promise<Buffer> {
  if (lengthBytes > REPLY_BYTES_MAX) throw new DfsError('internal', 'the reply is longer than any honest one')
  const whole = Buffer.allocUnsafe(lengthBytes)
  const here = body.readBodyHere(whole)
  return here === lengthBytes ? whole : body.readBody(whole.subarray(here)).then(() => whole)
}

/** Our own servers name the code and the reason; a FastDFS server sends a number alone. */
function errorOf(status: number, text: string): DfsError {
  const space = text.indexOf(' ')
  const code = text.slice(0, space)
  if (Object.hasOwn(ERRORS, code)) return new DfsError(code as ErrorCode, text.slice(space + 1))
  const likely = LIKELY_CODES.find(known => ERRORS[known].errno === status)
  return new DfsError(
    likely ?? 'internal',
    likely === undefined ? `the server answered with status ${status}` : undefined,
  )
}

/** What a bare errno most likely means, where several codes share one. */
const LIKELY_CODES: readonly ErrorCode[] = [
  'not_found',
  'bad_request',
  'unauthorized',
  'unavailable',
  'too_large',
  'no_space',
  'timeout',
]
