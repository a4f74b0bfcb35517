/**
 * Reads frames from a socket without copying what it can show in place.
 *
 *     receive buffer:  |...used...|start ── received, not yet read ── end|...free...|
 *
 * Headers and the fixed fields of a body are views of the receive buffer. The rest of a long body goes from the socket
 * straight into the buffer the caller gives.
 */
import { type FrameHeader, HEADER_BYTES, readHeader } from '../protocol/frame.ts'
import type { Clock, Socket } from './world.ts'

/** Holds the fixed fields of any frame and a few pipelined small ones; a thousand connections keep it in memory each. */
const RECEIVE_BYTES = 32 * 1024

/** How long the other side may say nothing, by what we wait for. */
export interface ReadTimeouts {
  /** Between two frames. */
  readonly idleMs: number
  /** Inside a header. */
  readonly headerMs: number
  /** Inside a body. */
  readonly bodyMs: number
}

/** The other side ended, or broke off, inside a frame. */
export class FrameCutError extends Error {
  constructor() {
    super('the connection ended inside a frame')
    this.name = 'FrameCutError'
  }
}

export class FrameReader {
  readonly #socket: Socket
  readonly #clock: Clock
  readonly #timeouts: ReadTimeouts
  readonly #buffer = Buffer.allocUnsafeSlow(RECEIVE_BYTES)
  #start = 0
  #end = 0
  #bodyLeft = 0
  /** A request in several frames waits for the next one. */
  #continues = false
  #silentMsMax = 0
  /** Past this moment the other side has been silent for too long: whoever owns the connection should drop it. */
  deadlineMs = Number.POSITIVE_INFINITY

  constructor(socket: Socket, clock: Clock, timeouts: ReadTimeouts) {
    this.#socket = socket
    this.#clock = clock
    this.#timeouts = timeouts
  }

  /** Bytes of the current body that have not been read. */
  get bodyLeft(): number {
    return this.#bodyLeft
  }

  /** Begins to count the silence anew: the other side was waiting for us. */
  renewDeadline(): void {
    if (this.deadlineMs !== Number.POSITIVE_INFINITY) this.deadlineMs = this.#clock.monotonicMs() + this.#silentMsMax
  }

  /** Whether the request under way is not all here: what is silent then is the other side. */
  get isWithinRequest(): boolean {
    return this.#bodyLeft > 0 || this.#continues
  }

  /** Reads the header of a further frame of the same request. */
  async nextFrame(): Promise<FrameHeader | undefined> {
    this.#continues = true
    try {
      return await this.header(this.#timeouts.bodyMs)
    } finally {
      this.#continues = false
    }
  }

  /** Reads the next header; undefined if the other side ended between frames. The body before must have been read. */
  async header(idleMs = this.#timeouts.idleMs): Promise<FrameHeader | undefined> {
    while (this.#end - this.#start < HEADER_BYTES) {
      const empty = this.#end === this.#start
      if (!(await this.#receive(empty ? idleMs : this.#timeouts.headerMs))) {
        if (empty) return undefined
        throw new FrameCutError()
      }
    }
    const header = readHeader(this.#buffer, this.#start)
    this.#start += HEADER_BYTES
    this.#bodyLeft = Math.max(0, header.lengthBytes)
    return header
  }

  /** A view of the next `count` bytes of the body, good until the next call. Throws RangeError if the body is shorter. */
  async bytes(count: number): Promise<Buffer> {
    if (count > this.#bodyLeft || count > RECEIVE_BYTES) throw new RangeError(`${count} bytes are not in the body`)
    while (this.#end - this.#start < count) {
      if (!(await this.#receive(this.#timeouts.bodyMs))) throw new FrameCutError()
    }
    const view = this.#buffer.subarray(this.#start, this.#start + count)
    this.#start += count
    this.#bodyLeft -= count
    return view
  }

  /** Fills `target` from the body; returns how many bytes, fewer only at the body's end. */
  async readBody(target: Uint8Array): Promise<number> {
    const wanted = Math.min(target.length, this.#bodyLeft)
    let filled = Math.min(wanted, this.#end - this.#start)
    target.set(this.#buffer.subarray(this.#start, this.#start + filled))
    this.#start += filled
    while (filled < wanted) {
      this.#silentMsMax = this.#timeouts.bodyMs
      this.deadlineMs = this.#clock.monotonicMs() + this.#silentMsMax
      const count = await this.#socket.read(target.subarray(filled, wanted))
      if (count === 0) throw new FrameCutError()
      filled += count
    }
    this.deadlineMs = Number.POSITIVE_INFINITY
    this.#bodyLeft -= filled
    return filled
  }

  /** Throws the rest of the body away. */
  async skipBody(): Promise<void> {
    while (this.#bodyLeft > 0) await this.bytes(Math.min(this.#bodyLeft, RECEIVE_BYTES))
  }

  /** Throws away whatever comes until the other side ends. */
  async discard(): Promise<void> {
    while ((await this.#socket.read(this.#buffer)) > 0);
  }

  /** Waits for more bytes; false if the other side ended. */
  async #receive(silentMsMax: number): Promise<boolean> {
    if (this.#start === this.#end) {
      this.#start = 0
      this.#end = 0
    } else if (this.#end === RECEIVE_BYTES || this.#start > RECEIVE_BYTES / 2) {
      this.#buffer.copyWithin(0, this.#start, this.#end)
      this.#end -= this.#start
      this.#start = 0
    }
    this.#silentMsMax = silentMsMax
    this.deadlineMs = this.#clock.monotonicMs() + silentMsMax
    const count = await this.#socket.read(this.#buffer.subarray(this.#end))
    this.deadlineMs = Number.POSITIVE_INFINITY
    this.#end += count
    return count > 0
  }
}
