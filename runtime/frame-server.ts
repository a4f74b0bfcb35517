/**
 * Serves frames on a port. A connection is one long-lived task: it reads a request, hands its body to the handler and,
 * as soon as the body has been taken, reads the next; replies go out in the order of the requests.
 *
 *     socket ──▶ read header ──▶ handler(request) ──▶ body taken? next header ...
 *                                     └──▶ reply, when it is ready ──▶ queue, in order ──▶ socket
 */

import { DfsError, ERRORS, toDfsError } from '../protocol/errors.ts'
import { COMMANDS, type FrameHeader, header } from '../protocol/frame.ts'
import { FrameCutError, FrameReader, type ReadTimeouts } from './frame-reader.ts'
import type { Log } from './log.ts'
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

/** Answers a request; undefined ends the connection without a word. Rejections become error replies. */
export type FrameHandler = (request: FrameRequest) => Promise<FrameReply | undefined>

export interface FrameServerOptions {
  readonly sockets: Sockets
  readonly clock: Clock
  readonly timers: Timers
  readonly log: Log
  readonly listenAt: Endpoint
  readonly connectionsMax: number
  readonly bodyBytesMax: number
  readonly timeouts: ReadTimeouts
  readonly handler: FrameHandler
  /** Whether a connection ends after an error reply with this errno, as FastDFS does after some. */
  readonly closesAfter: (errno: number) => boolean
}

/** Requests of one connection that may be under way at once; further ones wait in the socket. */
const PIPELINE_MAX = 64

/** Rather than read this much of a body nobody wants, end the connection. */
const SKIPPED_BYTES_MAX = 1024 * 1024

/** How often silent connections are looked for: timeouts are this exact, and cost nothing per request. */
const SWEEP_MS = 500

const SILENT = new SocketError('read', 'ETIMEDOUT')

/** A listening port and its connections. */
export class FrameServer {
  readonly #options: FrameServerOptions
  readonly #listener: Listener
  readonly #connections: Set<Connection>
  #cancelSweep: Cancel | undefined

  private constructor(options: FrameServerOptions, listener: Listener, connections: Set<Connection>) {
    this.#options = options
    this.#listener = listener
    this.#connections = connections
    this.#sweep()
  }

  /** Binds the port. Rejects with a SocketError. */
  static async listen(options: FrameServerOptions): Promise<FrameServer> {
    const connections = new Set<Connection>()
    const listener = await options.sockets.listen(options.listenAt, socket => {
      if (connections.size >= options.connectionsMax) {
        socket.destroy()
        options.log.warn({ connectionsMax: options.connectionsMax }, 'a connection over the limit was refused')
        return
      }
      const connection = new Connection(socket, options)
      connections.add(connection)
      void connection.serve().finally(() => connections.delete(connection))
    })
    return new FrameServer(options, listener, connections)
  }

  get endpoint(): Endpoint {
    return this.#listener.endpoint
  }

  get connectionCount(): number {
    return this.#connections.size
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
    for (const connection of this.#connections) {
      if (connection.deadlineMs < nowMs) connection.drop(SILENT)
    }
    this.#cancelSweep = this.#options.timers.set(SWEEP_MS, () => this.#sweep())
  }
}

/** A reply that is owed. */
interface Pending {
  readonly reply: Promise<FrameReply | undefined>
  readonly turn: Turn
}

/** The moment when a reply is the next to be sent; hardly any request waits for it, so a promise is made on demand. */
class Turn {
  #begun = false
  #wake: (() => void) | undefined

  begin(): void {
    this.#begun = true
    this.#wake?.()
  }

  come(): Promise<void> {
    if (this.#begun) return Promise.resolve()
    return new Promise(resolve => {
      this.#wake = resolve
    })
  }
}

/** One accepted connection. */
export class Connection {
  /** Set by the handshake. */
  role: ConnectionRole = 'anonymous'
  readonly #socket: Socket
  readonly #options: FrameServerOptions
  readonly #reader: FrameReader
  readonly #replies: Pending[] = []
  #answering: Promise<void> | undefined
  /** Nothing more is read. */
  #closing = false
  /** Nothing more is written. */
  #ended = false
  #wake: (() => void) | undefined
  #sendDeadlineMs = Number.POSITIVE_INFINITY
  #endDeadlineMs = Number.POSITIVE_INFINITY

  constructor(socket: Socket, options: FrameServerOptions) {
    this.#socket = socket
    this.#options = options
    this.#reader = new FrameReader(socket, options.clock, options.timeouts)
  }

  get remote(): Endpoint {
    return this.#socket.remote
  }

  /** No request under way. */
  get idle(): boolean {
    return this.#replies.length === 0 && this.#reader.bodyLeft === 0
  }

  /** When the other side will have been silent, or not reading, for too long. */
  get deadlineMs(): number {
    // While we owe replies and have the whole request, silence is ours.
    const waiting = this.#replies.length === 0 || this.#reader.isWithinRequest
    return Math.min(waiting ? this.#reader.deadlineMs : this.#sendDeadlineMs, this.#sendDeadlineMs, this.#endDeadlineMs)
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
    try {
      while (!this.#closing) {
        const next = await this.#reader.header()
        if (next === undefined || this.#closing) break
        // FastDFS ends such a connection without a word.
        if (!Number.isSafeInteger(next.lengthBytes) || next.lengthBytes < 0) break
        await this.#admit(next)
      }
      await this.#answering
      this.#endSoon()
      // A socket closed over unread bytes resets the connection, and the last reply with it.
      await this.#reader.discard()
    } catch (error) {
      // A peer that goes away is no error of ours; what it was doing has been rolled back by its handler.
      this.#options.log.debug({ err: error, remote: this.#socket.remote }, 'a connection broke off')
    }
    this.#socket.destroy()
    await this.#answering
  }

  async #admit(next: FrameHeader): Promise<void> {
    let taken = next.lengthBytes === 0
    const bodyTaken = () => {
      taken = true
      this.#wake?.()
    }
    const turn = new Turn()
    const request = { ...next, body: this.#reader, connection: this, turn: () => turn.come(), bodyTaken }
    const reply =
      next.lengthBytes > this.#options.bodyBytesMax
        ? Promise.reject(new DfsError('too_large', `a body has at most ${this.#options.bodyBytesMax} bytes`))
        : this.#options.handler(request)
    reply.then(bodyTaken, bodyTaken)
    this.#replies.push({ reply, turn })
    this.#answering ??= this.#answer()
    while (!taken || this.#replies.length >= PIPELINE_MAX) {
      await new Promise<void>(resolve => {
        this.#wake = resolve
      })
    }
    if (this.#reader.bodyLeft > SKIPPED_BYTES_MAX) this.#closing = true
    else await this.#reader.skipBody()
  }

  /** Sends replies in order until none is left. Never rejects. */
  async #answer(): Promise<void> {
    for (let next = this.#replies[0]; next !== undefined; next = this.#replies[0]) {
      try {
        next.turn.begin()
        const reply = await next.reply.catch(error => this.#errorReply(error))
        const last = reply === undefined || reply.close === true
        if (last) this.#closing = true
        if (this.#ended) await reply?.release?.()
        else if (reply !== undefined) await this.#send(reply)
        if (last) this.#endSoon()
      } catch (error) {
        // Either side may go away meanwhile: the reader of a reply, or the server it is passed on from.
        const level = error instanceof SocketError || error instanceof FrameCutError ? 'debug' : 'error'
        this.#options.log[level]({ err: error, remote: this.#socket.remote }, 'a reply could not be sent')
        this.#socket.destroy()
      }
      this.#replies.shift()
      this.#wake?.()
      // Until now the other side was waiting for us.
      if (this.#replies.length === 0) this.#reader.renewDeadline()
    }
    this.#answering = undefined
  }

  async #send(reply: FrameReply): Promise<void> {
    try {
      const { parts = [] } = reply
      const lengthBytes = reply.lengthBytes ?? parts.reduce((sum, part) => sum + part.length, 0)
      const head = header(COMMANDS.reply, lengthBytes, reply.status)
      this.#sendDeadlineMs = this.#options.clock.monotonicMs() + this.#options.timeouts.bodyMs
      const sent = this.#socket.write([head, ...parts])
      if (reply.stream !== undefined) {
        await sent
        await this.#sendPieces(reply.stream, lengthBytes)
      } else if (this.#socket.queuedBytes > 0) await sent
      else sent.catch(noop)
    } finally {
      this.#sendDeadlineMs = Number.POSITIVE_INFINITY
      await reply.release?.()
    }
  }

  /**
   * A long body has no deadline as a whole: each piece that the other side takes renews it. One that is not as long as
   * announced must not go on: what follows would be taken for its end, or its end for what follows.
   */
  async #sendPieces(stream: (send: Send) => Promise<void>, lengthBytes: number): Promise<void> {
    let left = lengthBytes
    await stream(async parts => {
      for (const part of parts) left -= part.length
      if (left < 0) throw new Error(`a reply has more than the ${lengthBytes} bytes announced`)
      await this.#socket.write(parts)
      this.#sendDeadlineMs = this.#options.clock.monotonicMs() + this.#options.timeouts.bodyMs
    })
    if (left > 0) throw new Error(`a reply lacks ${left} of the ${lengthBytes} bytes announced`)
  }

  /** Ends our side; if the other one does not follow, the sweep does it. */
  #endSoon(): void {
    if (this.#ended) return
    this.#ended = true
    this.#socket.end()
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

function noop(): void {}
