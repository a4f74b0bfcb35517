/**
 * Serves frames on a port. A connection is one long-lived task: it reads a request, hands its body to the handler and,
 * as soon as the body has been taken, reads the next; replies go out in the order of the requests.
 *
 *     socket ──▶ read header ──▶ handler(request) ──▶ body taken? next header ...
 *                                     └──▶ reply, when it is ready ──▶ queue, in order ──▶ socket
 */

import { DfsError, ERRORS, toDfsError } from '../protocol/errors.ts'
import { COMMANDS, type FrameHeader, HEADER_BYTES, writeHeader } from '../protocol/frame.ts'
import type { Ticket } from '../protocol/ticket.ts'
import { FrameCutError, FrameReader, type ReadTimeouts } from './frame-reader.ts'
import type { Log } from './log.ts'
import { Refusals } from './refusals.ts'
import { Silence } from './silence.ts'
import type { Timers } from './timers.ts'
import {
  type Cancel,
  type Clock,
  type Endpoint,
  type Listener,
  type Socket,
  SocketError,
  type Sockets,
} from './world.ts'

/** What a connection may do; `anonymous` is any FastDFS client. */
export type ConnectionRole = 'anonymous' | 'client' | 'peer'

/** One request, as its handler sees it. */
export interface FrameRequest {
  readonly command: number
  readonly status: number
  readonly lengthBytes: number
  readonly body: FrameReader
  readonly connection: Connection
  /**
   * Resolves when all replies before this one have been sent. Whoever streams from somewhere else waits for it: holding
   * a shared connection for a reply that must wait for another, which waits for that connection, would never end.
   */
  turn(): Promise<void>
  /** Says that the handler needs nothing of the body any more, so that the next request may be read meanwhile. */
  bodyTaken(): void
}

/** Sends pieces of a long reply; resolves when the other side keeps up. */
export type Send = (parts: readonly Uint8Array[]) => Promise<void>

/** What goes back. The body is `parts`, or `lengthBytes` that `stream` sends when its turn comes. */
export interface FrameReply {
  readonly status: number
  readonly parts?: readonly Uint8Array[]
  readonly lengthBytes?: number
  readonly stream?: (send: Send) => Promise<void>
  /** Called when the reply needs nothing any more, sent or not. */
  readonly release?: () => Promise<void>
  /** End the connection after this reply. */
  readonly close?: boolean
}

/**
 * Answers a request, at once or later; undefined ends the connection without a word. What is thrown, or rejected with,
 * becomes an error reply.
 */
export type FrameHandler = (request: FrameRequest) => FrameReply | undefined | Promise<FrameReply | undefined>

/** Whether an address may connect. */
export type Admits = (address: string) => boolean

export interface FrameServerOptions {
  readonly sockets: Sockets
  readonly clock: Clock
  readonly timers: Timers
  readonly log: Log
  readonly listenAt: Endpoint
  /** Others are turned away before anything of theirs is read; undefined for everybody. */
  readonly admits?: Admits | undefined
  readonly connectionsMax: number
  readonly bodyBytesMax: number
  readonly timeouts: ReadTimeouts
  /** Look at so many low bits of a length, as FastDFS's tracker does; at all of it unless given. */
  readonly lengthBits?: 32
  readonly handler: FrameHandler
  /** Whether a connection ends after an error reply with this errno, as FastDFS does after some. */
  readonly closesAfter: (errno: number) => boolean
}

/** Requests of one connection that may be under way at once; further ones wait in the socket. */
const PIPELINE_MAX = 64

/** Rather than read this much of a body nobody wants, end the connection. */
const SKIPPED_BYTES_MAX = 1024 * 1024

/** How often silent connections are looked for: timeouts are late by up to twice as much, and cost nothing per request. */
const SWEEP_MS = 500

const SILENT = new SocketError('read', 'ETIMEDOUT')
const NO_PARTS: readonly Uint8Array[] = []
const NO_TICKETS: readonly Ticket[] = []
const DONE = Promise.resolve()

/** A listening port and its connections. */
export class FrameServer {
  readonly #options: FrameServerOptions
  readonly #listener: Listener
  readonly #connections: Connections
  readonly #refusals: readonly Refusals[]
  #cancelSweep: Cancel | undefined

  private constructor(
    options: FrameServerOptions,
    listener: Listener,
    connections: Connections,
    refusals: readonly Refusals[],
  ) {
    this.#options = options
    this.#listener = listener
    this.#connections = connections
    this.#refusals = refusals
    this.#sweep()
  }

  /** Binds the port. Rejects with a SocketError. */
  static async listen(options: FrameServerOptions): Promise<FrameServer> {
    const { admits, connectionsMax } = options
    const connections = new Connections()
    const strangers = new Refusals(options, 'a connection from a host that is not allowed')
    const tooMany = new Refusals(options, `a connection over the limit of ${connectionsMax}`)
    const listener = await options.sockets.listen(options.listenAt, socket => {
      if (admits?.(socket.remote.host) === false) return strangers.refuse(socket)
      if (connections.size >= connectionsMax) return tooMany.refuse(socket)
      const connection = new Connection(socket, options)
      connections.add(connection)
      void connection.serve().finally(() => connections.delete(connection))
    })
    return new FrameServer(options, listener, connections, [strangers, tooMany])
  }

  get endpoint(): Endpoint {
    return this.#listener.endpoint
  }

  get connectionCount(): number {
    return this.#connections.size
  }

  /** Connections that were turned away: from hosts that are not allowed, or over the limit. */
  get refusedCount(): number {
    return this.#refusals.reduce((sum, { count }) => sum + count, 0)
  }

  /** As many as there ever were at once. */
  get connectionPeak(): number {
    return this.#connections.peak
  }

  /** Accepts nothing more, lets requests under way finish for `graceMs`, then drops what is left. */
  async close(graceMs: number): Promise<void> {
    this.#cancelSweep?.()
    void this.#listener.close()
    const endMs = this.#options.clock.monotonicMs() + graceMs
    while (this.#connections.size > 0) {
      const over = this.#options.clock.monotonicMs() >= endMs
      for (const connection of this.#connections) if (over || connection.idle) connection.drop()
      if (over) return
      await this.#options.timers.sleep(10)
    }
  }

  #sweep(): void {
    const nowMs = this.#options.clock.monotonicMs()
    for (const connection of this.#connections) connection.dropIfSilent(nowMs)
    this.#cancelSweep = this.#options.timers.set(SWEEP_MS, () => this.#sweep())
  }
}

/** A request, from its header to the end of its reply. */
class Request implements FrameRequest {
  readonly command: number
  readonly status: number
  readonly lengthBytes: number
  readonly body: FrameReader
  readonly connection: Connection
  /** Nothing more of its body is needed. */
  isTaken: boolean
  /** Its reply, if there is one, is ready. */
  isAnswered = false
  reply: FrameReply | undefined
  readonly #readOn: () => void
  #turnHasCome = false
  #wake: (() => void) | undefined

  constructor(header: FrameHeader, body: FrameReader, connection: Connection, readOn: () => void) {
    this.command = header.command
    this.status = header.status
    this.lengthBytes = header.lengthBytes
    this.body = body
    this.connection = connection
    this.isTaken = header.lengthBytes === 0
    this.#readOn = readOn
  }

  bodyTaken(): void {
    this.isTaken = true
    this.#readOn()
  }

  turn(): Promise<void> {
    if (this.#turnHasCome) return DONE
    return new Promise(resolve => {
      this.#wake = resolve
    })
  }

  /** The next reply to be sent is this one's. */
  beginTurn(): void {
    this.#turnHasCome = true
    this.#wake?.()
  }
}

/** One accepted connection. */
export class Connection {
  /** Set by the handshake. */
  role: ConnectionRole = 'anonymous'
  /** Those whose secret it has proven. */
  tickets: readonly Ticket[] = NO_TICKETS
  readonly #socket: Socket
  readonly #options: FrameServerOptions
  readonly #reader: FrameReader
  /** Requests whose replies are owed, in their order. */
  readonly #owed: Request[] = []
  /** The header of each reply in its turn: the next is not sent before the network has taken the one before. */
  readonly #head = Buffer.allocUnsafeSlow(HEADER_BYTES)
  /** The first of them is being sent. */
  #sending = false
  /** Nothing more is read. */
  #closing = false
  /** Nothing more is written. */
  #ended = false
  #wake: (() => void) | undefined
  readonly #silence = new Silence()
  readonly #standstill = new Silence()
  #endDeadlineMs = Number.POSITIVE_INFINITY
  /** Resolves when all that was written has gone out. */
  #gone: Promise<void> | undefined

  constructor(socket: Socket, options: FrameServerOptions) {
    this.#socket = socket
    this.#options = options
    this.#reader = new FrameReader(socket, options.timeouts, options.lengthBits)
  }

  get remote(): Endpoint {
    return this.#socket.remote
  }

  /** No request under way, and no reply. */
  get idle(): boolean {
    return this.#owed.length === 0 && this.#reader.bodyLeft === 0 && this.#socket.queuedBytes === 0
  }

  /** Drops the other side if it has been silent, or has not read, for too long. */
  dropIfSilent(nowMs: number): void {
    const { receivedBytes, sentBytes, queuedBytes } = this.#socket
    const { timeouts } = this.#options
    // While we owe replies and have the whole request, silence is ours.
    const isTheirs = this.#owed.length === 0 || this.#reader.isWithinRequest
    const readMs = isTheirs ? this.#reader.patienceMs : Number.POSITIVE_INFINITY
    const writeMs = queuedBytes > 0 ? timeouts.bodyMs : Number.POSITIVE_INFINITY
    const silent = this.#silence.isTooLong(nowMs, receivedBytes + sentBytes, readMs)
    const stands = this.#standstill.isTooLong(nowMs, sentBytes, writeMs)
    if (silent || stands || nowMs > this.#endDeadlineMs) this.drop(SILENT)
  }

  /** Ends the connection at once. */
  drop(reason?: Error): void {
    this.#closing = true
    this.#socket.destroy(reason)
  }

  /** Answers nothing that comes after the requests under way, and ends. */
  endAfterReplies(): void {
    this.#closing = true
  }

  /** Serves until either side ends. Never rejects. */
  async serve(): Promise<void> {
    const reader = this.#reader
    try {
      while (!this.#closing) {
        const next = reader.headerHere()
        if (next === undefined) {
          if (await reader.moreOfHeader()) continue
          break
        }
        // FastDFS ends such a connection without a word.
        if (!Number.isSafeInteger(next.lengthBytes) || next.lengthBytes < 0) break
        const request = this.#admit(next)
        while (!request.isTaken || this.#owed.length >= PIPELINE_MAX) await this.#change()
        if (reader.bodyLeft > SKIPPED_BYTES_MAX) this.#closing = true
        else if (reader.bodyLeft > 0) await reader.skipBody()
      }
      while (this.#owed.length > 0) await this.#change()
      this.#endSoon()
      // A socket closed over unread bytes resets the connection, and the last reply with it.
      await reader.discard()
      await this.#gone
    } catch (error) {
      // A peer that goes away is no error of ours; what it was doing has been rolled back by its handler.
      this.#options.log.debug({ err: error, remote: this.#socket.remote }, 'a connection broke off')
    }
    this.#socket.destroy()
    while (this.#owed.length > 0) await this.#change()
  }

  readonly #readOn = (): void => this.#wake?.()

  /** Resolves when a body has been taken, or a reply has been sent. */
  #change(): Promise<void> {
    return new Promise(resolve => {
      this.#wake = resolve
    })
  }

  /** Gives a request to the handler; what is answered at once is sent at once. */
  #admit(next: FrameHeader): Request {
    const request = new Request(next, this.#reader, this, this.#readOn)
    this.#owed.push(request)
    if (this.#owed.length === 1) request.beginTurn()
    const reply = this.#ask(request)
    if (reply instanceof Promise) {
      reply.then(
        ready => this.#answer(request, ready),
        error => this.#answer(request, this.#errorReply(error)),
      )
    } else this.#answer(request, reply)
    return request
  }

  #ask(request: Request): ReturnType<FrameHandler> {
    const { bodyBytesMax, handler } = this.#options
    try {
      if (request.lengthBytes <= bodyBytesMax) return handler(request)
      throw new DfsError('too_large', `a body has at most ${bodyBytesMax} bytes`)
    } catch (error) {
      return this.#errorReply(error)
    }
  }

  #answer(request: Request, reply: FrameReply | undefined): void {
    request.reply = reply
    request.isAnswered = true
    request.isTaken = true
    this.#sendOn()
    this.#readOn()
  }

  /** Sends the replies that are ready, in order, until one has to wait. */
  #sendOn(): void {
    for (let next = this.#owed[0]; next?.isAnswered && !this.#sending; next = this.#owed[0]) {
      const sent = this.#send(next.reply)
      if (sent === undefined) this.#sent(next.reply)
      else {
        const { reply } = next
        this.#sending = true
        void sent.then(() => {
          this.#sending = false
          this.#sent(reply)
          this.#sendOn()
          this.#readOn()
        })
      }
    }
  }

  /** The first reply is done with. */
  #sent(reply: FrameReply | undefined): void {
    if (isLast(reply)) this.#endSoon()
    this.#owed.shift()
    this.#owed[0]?.beginTurn()
  }

  /** Sends a reply; undefined if nothing of it has to be waited for. */
  #send(reply: FrameReply | undefined): Promise<void> | undefined {
    if (isLast(reply)) this.#closing = true
    if (reply === undefined) return undefined
    const { parts = NO_PARTS, stream, release } = reply
    if (this.#ended) return release === undefined ? undefined : this.#finish(reply, undefined)
    const lengthBytes = reply.lengthBytes ?? lengthOf(parts)
    const head = writeHeader(this.#head, COMMANDS.reply, lengthBytes, reply.status)
    const taken = this.#socket.write([head, ...parts])
    if (stream === undefined && release === undefined && taken === undefined) return undefined
    const rest = stream === undefined ? taken : this.#sendPieces(stream, lengthBytes, taken)
    return this.#finish(reply, rest)
  }

  /** Waits until a reply has gone out, and lets go of it. Never rejects. */
  async #finish({ release }: FrameReply, sent: Promise<void> | undefined): Promise<void> {
    try {
      try {
        await sent
      } finally {
        await release?.()
      }
    } catch (error) {
      // Either side may go away meanwhile: the reader of a reply, or the server it is passed on from.
      const level = error instanceof SocketError || error instanceof FrameCutError ? 'debug' : 'error'
      this.#options.log[level]({ err: error, remote: this.#socket.remote }, 'a reply could not be sent')
      this.#socket.destroy()
    }
  }

  /**
   * A long body has no deadline as a whole: each piece that the other side takes renews it. One that is not as long as
   * announced must not go on: what follows would be taken for its end, or its end for what follows.
   */
  async #sendPieces(stream: (send: Send) => Promise<void>, lengthBytes: number, head: Promise<void> | undefined) {
    await head
    let left = lengthBytes
    await stream(async parts => {
      for (const part of parts) left -= part.length
      if (left < 0) throw new Error(`a reply has more than the ${lengthBytes} bytes announced`)
      await this.#socket.write(parts)
    })
    if (left > 0) throw new Error(`a reply lacks ${left} of the ${lengthBytes} bytes announced`)
  }

  /** Ends our side; if the other one does not follow, the sweep does it. */
  #endSoon(): void {
    if (this.#ended) return
    this.#ended = true
    this.#gone = this.#socket.end()
    this.#endDeadlineMs = this.#options.clock.monotonicMs() + this.#options.timeouts.headerMs
  }

  #errorReply(thrown: unknown): FrameReply | undefined {
    // The other side broke off inside its own request: there is nobody to tell, and no error of ours.
    if (thrown instanceof FrameCutError || thrown instanceof SocketError) return undefined
    const error = toDfsError(thrown)
    if (error.code === 'internal') this.#options.log.error({ err: thrown }, 'a request failed')
    const { errno } = ERRORS[error.code]
    const close = this.#options.closesAfter(errno) || error.code === 'too_large'
    // FastDFS clients expect no body with an error; our own are told the code and the reason.
    if (this.role === 'anonymous') return { status: errno, close }
    return { status: errno, close, parts: [Buffer.from(`${error.code} ${error.message}`)] }
  }
}

class Connections extends Set<Connection> {
  peak = 0

  override add(connection: Connection): this {
    super.add(connection)
    this.peak = Math.max(this.peak, this.size)
    return this
  }
}

function lengthOf(parts: readonly Uint8Array[]): number {
  let bytes = 0
  for (const part of parts) bytes += part.length
  return bytes
}

function isLast(reply: FrameReply | undefined): boolean {
  return reply === undefined || reply.close === true
}
