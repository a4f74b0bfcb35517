/**
 * Reads frames from a socket without copying what it can show in place.
 *
 *     receive buffer:  |...used...|start ── received, not yet read ── end|...free...|
 *
 * Headers and the fixed fields of a body are views of the receive buffer. The rest of a long body goes from the socket
 * straight into the buffer the caller gives. What is here already is had at once, by the methods that say `Here`; the
 * others wait for what is not.
 */
import { type FrameHeader, HEADER_BYTES, readHeader } from '../protocol/frame.ts'
import type { Socket } from './world.ts'

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
  readonly #timeouts: ReadTimeouts
  readonly #lengthBits: 32 | undefined
  readonly #buffer = Buffer.allocUnsafeSlow(RECEIVE_BYTES)
  #start = 0
  #end = 0
  #bodyLeft = 0
  /** A request in several frames waits for the next one. */
  #continues = false
  /** How long the other side may be silent now; without end while nothing is waited for. */
  patienceMs = Number.POSITIVE_INFINITY

  /** Looks at so many low bits of a length: all unless given. */
  constructor(socket: Socket, timeouts: ReadTimeouts, lengthBits?: 32) {
    this.#socket = socket
    this.#timeouts = timeouts
    this.#lengthBits = lengthBits
  }

  /** Bytes of the current body that have not been read. */
  get bodyLeft(): number {
    return this.#bodyLeft
  }

  /** Whether the request under way is not all here: what is silent then is the other side. */
  get isWithinRequest(): boolean {
    return this.#bodyLeft > 0 || this.#continues
  }

  /** The next header, if it is here. The body before must have been read. */
  headerHere(): FrameHeader | undefined {
    if (this.#end - this.#start < HEADER_BYTES) return undefined
    const whole = readHeader(this.#buffer, this.#start)
    const header = this.#lengthBits === undefined ? whole : { ...whole, lengthBytes: whole.lengthBytes | 0 }
    this.#start += HEADER_BYTES
    this.#bodyLeft = Math.max(0, header.lengthBytes)
    return header
  }

  /** Waits for more of the next header; false if the other side ended between frames. */
  moreOfHeader(idleMs = this.#timeouts.idleMs): Promise<boolean> {
    return this.#receive(this.#end === this.#start ? idleMs : this.#timeouts.headerMs)
  }

  /** Waits for the next header; undefined if the other side ended between frames. The body before must have been read. */
  async header(idleMs?: number): Promise<FrameHeader | undefined> {
    for (;;) {
      const header = this.headerHere()
      if (header !== undefined) return header
      if (!(await this.moreOfHeader(idleMs))) return undefined
    }
  }

  /** Waits for the header of a further frame of the same request. */
  async nextFrame(): Promise<FrameHeader | undefined> {
    this.#continues = true
    try {
      return await this.header(this.#timeouts.bodyMs)
    } finally {
      this.#continues = false
    }
  }

  /** A view of the next `count` bytes of the body, good until the next call; undefined if they are not all here. */
  bytesHere(count: number): Buffer | undefined {
    if (count > this.#bodyLeft || count > RECEIVE_BYTES) throw new RangeError(`${count} bytes are not in the body`)
    if (this.#end - this.#start < count) return undefined
    const view = this.#buffer.subarray(this.#start, this.#start + count)
    this.#start += count
    this.#bodyLeft -= count
    return view
  }

  /** Waits for the next `count` bytes of the body, and shows them likewise. Throws RangeError if the body is shorter. */
  async bytes(count: number): Promise<Buffer> {
    for (;;) {
      const view = this.bytesHere(count)
      if (view !== undefined) return view
      await this.#receive(this.#timeouts.bodyMs)
    }
  }

  /** The next `count` bytes of the body in a buffer of their own: more than are shown in place, or to be kept. */
  async copy(count: number): Promise<Buffer> {
    const bytes = Buffer.allocUnsafe(count)
    if ((await this.readBody(bytes)) < count) throw new RangeError(`${count} bytes are not in the body`)
    return bytes
  }

  /** Moves into `target` what is here of the body; returns how many bytes. */
  readBodyHere(target: Uint8Array): number {
    const count = Math.min(target.length, this.#bodyLeft, this.#end - this.#start)
    target.set(this.#buffer.subarray(this.#start, this.#start + count))
    this.#start += count
    this.#bodyLeft -= count
    return count
  }

  /** Fills `target` from the body; returns how many bytes, fewer only at the body's end. */
  async readBody(target: Uint8Array): Promise<number> {
    const here = this.readBodyHere(target)
    const missing = Math.min(target.length - here, this.#bodyLeft)
    if (missing === 0) return here
    this.patienceMs = this.#timeouts.bodyMs
    const count = await this.#socket.read(target.subarray(here, here + missing), missing)
    this.patienceMs = Number.POSITIVE_INFINITY
    if (count < missing) throw new FrameCutError()
    this.#bodyLeft -= count
    return here + count
  }

  /** Throws the rest of the body away. */
  async skipBody(): Promise<void> {
    while (this.#bodyLeft > 0) await this.bytes(Math.min(this.#bodyLeft, RECEIVE_BYTES))
  }

  /** Throws away whatever comes until the other side ends. */
  async discard(): Promise<void> {
    while ((await this.#socket.read(this.#buffer)) > 0);
  }

  /** Waits for more bytes behind those that are here; false if the other side ended, which it may only between frames. */
  #receive(patienceMs: number): Promise<boolean> {
    if (this.#start === this.#end) {
      this.#start = 0
      this.#end = 0
    } else if (this.#end === RECEIVE_BYTES || this.#start > RECEIVE_BYTES / 2) {
      this.#buffer.copyWithin(0, this.#start, this.#end)
      this.#end -= this.#start
      this.#start = 0
    }
    this.patienceMs = patienceMs
    return this.#socket.read(this.#end === 0 ? this.#buffer : this.#buffer.subarray(this.#end)).then(this.#received)
  }

  readonly #received = (count: number): boolean => {
    this.patienceMs = Number.POSITIVE_INFINITY
    this.#end += count
    if (count === 0 && (this.#end > 0 || this.#bodyLeft > 0)) throw new FrameCutError()
    return count > 0
  }
}
