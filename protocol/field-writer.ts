/** Writes the fields of a FastDFS struct one after another; they are packed, big-endian and padded with NUL. */
import { writeString } from './frame.ts'

export class FieldWriter {
  readonly #buffer: Buffer
  #at = 0

  constructor(bytes: number) {
    this.#buffer = Buffer.alloc(bytes)
  }

  byte(...values: readonly number[]): this {
    for (const value of values) this.#buffer[this.#at++] = value
    return this
  }

  int32(...values: readonly number[]): this {
    for (const value of values) this.#at = this.#buffer.writeInt32BE(value, this.#at)
    return this
  }

  int64(...values: readonly number[]): this {
    for (const value of values) this.#at = this.#buffer.writeBigInt64BE(BigInt(value), this.#at)
    return this
  }

  /** What does not fit is cut off: names of hosts may be longer than FastDFS's fields. */
  text(text: string, widthBytes: number): this {
    writeString(this.#buffer, text.slice(0, widthBytes), this.#at, widthBytes)
    this.#at += widthBytes
    return this
  }

  bytes(bytes: Uint8Array): this {
    this.#buffer.set(bytes, this.#at)
    this.#at += bytes.length
    return this
  }

  /** The struct. Throws if the fields are not as long as it was to be. */
  end(): Buffer {
    if (this.#at !== this.#buffer.length) throw new Error(`${this.#at} of ${this.#buffer.length} bytes are written`)
    return this.#buffer
  }
}
