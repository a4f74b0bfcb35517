/**
 * Buffers for bytes in flight, reused. The pool is the budget: when it is used up, whoever needs a buffer waits, its
 * socket is not read, and TCP slows the sender.
 */

/** One block of a file: the unit of checksums. */
export const BLOCK_BYTES = 256 * 1024

/** What large files are received, written, read and sent by: larger pieces cost fewer calls, smaller ones less memory. */
export const PIECE_BYTES = 4 * BLOCK_BYTES

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

  /**
   * Takes a piece for a transfer of so many bytes, waiting like `acquire`; a block if that is enough, or if the pool runs
   * short: there are people behind slow lines, and each holds what he was given.
   */
  acquirePiece(bytes: number): Promise<Buffer> {
    return this.acquire(bytes <= BLOCK_BYTES || !this.#isPlenty ? BLOCK_BYTES : PIECE_BYTES)
  }

  /** Takes a further piece for one who has some, unless the pool runs short. */
  trySpare(): Buffer | undefined {
    return this.#isPlenty ? this.tryAcquire(PIECE_BYTES) : undefined
  }

  get #isPlenty(): boolean {
    return this.#takenBytes < this.#bytesMax / 2
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
    return this.#free.get(bytes)?.pop() ?? newBuffer(bytes)
  }
}

/** Pieces begin at a page, as direct transfers want it: so does what may be resized, and nothing else. */
function newBuffer(bytes: number): Buffer {
  if (bytes < PIECE_BYTES) return Buffer.allocUnsafeSlow(bytes)
  return Buffer.from(new ArrayBuffer(bytes, { maxByteLength: bytes }), 0, bytes)
}

function sizeFor(bytes: number): number {
  return bytes <= SMALLEST_BYTES ? SMALLEST_BYTES : 2 ** (32 - Math.clz32(bytes - 1))
}
