/**
 * Buffers of one block for bytes in flight, reused. The pool is the budget: when all are taken, whoever needs one
 * waits, its socket is not read, and TCP slows the sender.
 */

/** One block of a file, the unit of checksums and of disk writes. */
export const BLOCK_BYTES = 256 * 1024

/** 64 MiB in flight per process. */
export const BLOCKS_MAX = 256

/** Free buffers kept for the next burst; the rest is given back, so that an idle server is a small one. */
const BLOCKS_KEPT = 16

export class BlockPool {
  readonly #blocksMax: number
  readonly #free: Buffer[] = []
  readonly #waiting: ((block: Buffer) => void)[] = []
  #taken = 0

  constructor(blocksMax = BLOCKS_MAX) {
    this.#blocksMax = blocksMax
  }

  get takenBytes(): number {
    return this.#taken * BLOCK_BYTES
  }

  /**
   * Takes a block, waiting in turn if there is none. Whoever takes one must release it, whatever happens, and whoever
   * holds one must not wait for another: all holders waiting for each other would never end. That is `tryAcquire`.
   */
  acquire(): Promise<Buffer> {
    if (this.#taken >= this.#blocksMax) return new Promise(resolve => this.#waiting.push(resolve))
    this.#taken++
    return Promise.resolve(this.#free.pop() ?? Buffer.allocUnsafeSlow(BLOCK_BYTES))
  }

  /** Takes a second block if one is to be had at once. */
  tryAcquire(): Buffer | undefined {
    if (this.#taken >= this.#blocksMax) return undefined
    this.#taken++
    return this.#free.pop() ?? Buffer.allocUnsafeSlow(BLOCK_BYTES)
  }

  /** Gives a block back. It must not be used any more. */
  release(block: Buffer): void {
    const next = this.#waiting.shift()
    if (next !== undefined) {
      next(block)
      return
    }
    this.#taken--
    if (this.#free.length < BLOCKS_KEPT) this.#free.push(block)
  }
}
