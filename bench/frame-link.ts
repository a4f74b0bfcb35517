/**
 * One connection of the generator: a request out, its reply in, nothing of ours in between. It is not the product's own
 * connection on purpose: what is measured must not measure itself.
 */
import { connect, type Socket } from 'node:net'
import type { Endpoint } from '../runtime/world.ts'
import { FrameScanner } from './frame-scanner.ts'

/** Longer than any answer that is not a file: of files, these first bytes are kept. */
const KEPT_BYTES = 256

/** One for all links: a chunk is used up before the next one arrives. */
const received = Buffer.allocUnsafeSlow(256 * 1024)

export interface LinkEvents {
  onReply(link: FrameLink, status: number, lengthBytes: number): void
  /** The connection is gone. */
  onEnd(link: FrameLink): void
  /** A piece of a reply's body, valid during the call. */
  onBody?(piece: Buffer): void
}

export class FrameLink {
  /** The beginning of the last reply's body. */
  readonly body = Buffer.allocUnsafeSlow(KEPT_BYTES)
  readonly #socket: Socket
  #keptBytes = 0

  constructor(remote: Endpoint, events: LinkEvents) {
    const scanner = new FrameScanner({
      onFrame: (_, status, lengthBytes) => {
        this.#keptBytes = 0
        events.onReply(this, status, lengthBytes)
      },
      onBody: (chunk, start, end) => {
        if (this.#keptBytes < KEPT_BYTES) this.#keptBytes += chunk.copy(this.body, this.#keptBytes, start, end)
        events.onBody?.(chunk.subarray(start, end))
      },
    })
    const callback = (bytes: number) => {
      scanner.feed(received, bytes)
      return true
    }
    this.#socket = connect({ ...remote, noDelay: true, onread: { buffer: received, callback } })
    this.#socket.on('close', () => events.onEnd(this))
    // Told by the close that follows.
    this.#socket.on('error', () => undefined)
  }

  /** Sends a request, in one write; the buffers must not change before its reply. */
  send(frame: Buffer, content?: Buffer): void {
    if (content === undefined) {
      this.#socket.write(frame)
      return
    }
    this.#socket.cork()
    this.#socket.write(frame)
    this.#socket.write(content)
    this.#socket.uncork()
  }

  close(): void {
    this.#socket.destroy()
  }
}
