/**
 * Buffers for bytes in flight, reused. The pool is the budget: when it is used up, whoever needs a buffer waits, its
 * socket is not read, and TCP slows the sender.
 */

/** One block of a file: the unit of checksums, and of disk reads and writes. */
export const BLOCK_BYTES = 256 * 1024

/** In flight per process. */
export const IN_FLIGHT_BYTES_MAX = 64 * 1024 * 1024

/** The smallest buffer: room for a slot with 4 KiB, the size that counts. */
const SMALLEST_BYTES = 8 * 1024

/** Free buffers of each size that are kept for the next burst: the rest is given back, so that an idle server is small. */
const KEPT_BYTES = 4 * 1024 * 1024

interface Waiting {
  readonly bytes: number
  take(buffer: Buffer): void
}

export class BlockPool {
  readonly #bytesMax: number
  /** By size, a power of two. */
  readonly #free = new Map<number, Buffer[]>()
  readonly #waiting: Waiting[] = []
  #takenBytes = 0

  constructor(bytesMax = IN_FLIGHT_BYTES_MAX) {
    this.#bytesMax = bytesMax
  }

  get takenBytes(): number {
    return this.#takenBytes
  }

  /**
   * Takes a buffer of at least so many bytes, waiting in turn if there is none. Whoever takes one must release it,
   * whatever happens, and whoever holds one must not wait for another: all holders waiting for each other would never
   * end. That is `tryAcquire`.
   */
  acquire(bytesMin = BLOCK_BYTES): Promise<Buffer> {
    const buffer = this.tryAcquire(bytesMin)
    if (buffer !== undefined) return Promise.resolve(buffer)
    return new Promise(take => this.#waiting.push({ bytes: sizeFor(bytesMin), take }))
  }

  /** Takes a buffer if one is to be had at once. */
  tryAcquire(bytesMin = BLOCK_BYTES): Buffer | undefined {
    const bytes = sizeFor(bytesMin)
    if (this.#waiting.length > 0 || !this.#fits(bytes)) return undefined
    return this.#take(bytes)
  }

  /** Gives a buffer back. It must not be used any more. */
  release(buffer: Buffer): void {
    this.#takenBytes -= buffer.length
    const free = this.#free.get(buffer.length) ?? []
    this.#free.set(buffer.length, free)
    if (free.length * buffer.length < KEPT_BYTES) free.push(buffer)
    for (let next = this.#waiting[0]; next !== undefined && this.#fits(next.bytes); next = this.#waiting[0]) {
      this.#waiting.shift()
      next.take(this.#take(next.bytes))
    }
  }

  /** One that is larger than the whole budget has it all. */
  #fits(bytes: number): boolean {
    return this.#takenBytes + bytes <= this.#bytesMax || this.#takenBytes === 0
  }

  #take(bytes: number): Buffer {
    this.#takenBytes += bytes
    return this.#free.get(bytes)?.pop() ?? Buffer.allocUnsafeSlow(bytes)
  }
}

function sizeFor(bytes: number): number {
  return bytes <= SMALLEST_BYTES ? SMALLEST_BYTES : 2 ** (32 - Math.clz32(bytes - 1))
}
