/**
 * Finds frames in a stream without copying or joining anything: of a body it keeps only how much of it is missing, of a
 * header that is cut in two at most ten bytes.
 */
import { HEADER_BYTES, readInt64 } from '../protocol/frame.ts'

export interface ScannerEvents {
  /** A frame is complete. */
  onFrame(command: number, status: number, lengthBytes: number): void
  /** A piece of a body: `chunk` from `start` to `end`. */
  onBody?(chunk: Buffer, start: number, end: number): void
}

export class FrameScanner {
  readonly #events: ScannerEvents
  readonly #header = Buffer.allocUnsafeSlow(HEADER_BYTES)
  #headerBytes = 0
  #missingBytes = 0
  #lengthBytes = 0
  #command = 0
  #status = 0

  constructor(events: ScannerEvents) {
    this.#events = events
  }

  /** Takes the first `bytes` of a chunk, which may be reused afterwards. */
  feed(chunk: Buffer, bytes: number): void {
    let at = 0
    while (at < bytes) {
      if (this.#missingBytes > 0) {
        const end = Math.min(bytes, at + this.#missingBytes)
        this.#events.onBody?.(chunk, at, end)
        this.#missingBytes -= end - at
        at = end
        if (this.#missingBytes === 0) this.#complete()
      } else if (this.#headerBytes === 0 && bytes - at >= HEADER_BYTES) {
        this.#begin(chunk, at)
        at += HEADER_BYTES
      } else {
        const end = Math.min(bytes, at + HEADER_BYTES - this.#headerBytes)
        chunk.copy(this.#header, this.#headerBytes, at, end)
        this.#headerBytes += end - at
        at = end
        if (this.#headerBytes === HEADER_BYTES) {
          this.#headerBytes = 0
          this.#begin(this.#header, 0)
        }
      }
    }
  }

  #begin(buffer: Buffer, at: number): void {
    this.#lengthBytes = readInt64(buffer, at)
    this.#missingBytes = this.#lengthBytes
    this.#command = buffer[at + 8]!
    this.#status = buffer[at + 9]!
    if (this.#missingBytes === 0) this.#complete()
  }

  #complete(): void {
    this.#events.onFrame(this.#command, this.#status, this.#lengthBytes)
  }
}
