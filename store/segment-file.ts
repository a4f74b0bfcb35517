/**
 * One open segment. Slots that are put while a flush is under way are written together with the next one: one vectored
 * write for those that lie side by side, one fdatasync for all.
 *
 *     put ─▶ queue ─▶ flush: write, fdatasync ─▶ promises
 */
import type { Disk, DiskFile } from '../runtime/world.ts'
import { FREE_MARK } from './slot.ts'

interface Waiting {
  readonly offsetBytes: number
  readonly slots: Uint8Array
  resolve(): void
  reject(error: Error): void
}

export class SegmentFile {
  readonly #disk: Disk
  readonly #directory: string
  readonly #file: DiskFile
  readonly #syncs: boolean
  #queue: Waiting[] = []
  #flushing: Promise<void> | undefined
  /** Nothing has been put from here on. */
  #endBytes: number
  /** Its entry is durable. */
  #entered = false
  #failure: Error | undefined

  /** A file of `sizeBytes`. `syncs` is false where a file is as durable as the system makes it by itself. */
  constructor(disk: Disk, directory: string, file: DiskFile, options: { sizeBytes: number; syncs: boolean }) {
    this.#disk = disk
    this.#directory = directory
    this.#file = file
    this.#endBytes = options.sizeBytes
    this.#syncs = options.syncs
  }

  /** Writes one or more slots; durable when it resolves, and until then the bytes must not change. */
  put(offsetBytes: number, slots: Uint8Array): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure)
    this.#endBytes = Math.max(this.#endBytes, offsetBytes + slots.length)
    return new Promise((resolve, reject) => {
      this.#queue.push({ offsetBytes, slots, resolve, reject })
      this.#flushing ??= this.#flush()
    })
  }

  /** Where it ends: further on, no slot has been put. */
  get endBytes(): number {
    return this.#endBytes
  }

  /** Fills `target`; returns how many bytes were there. */
  read(target: Uint8Array, offsetBytes: number): Promise<number> {
    return this.#file.read(target, offsetBytes)
  }

  /** Marks a slot free; durable after `sync`. */
  markFree(offsetBytes: number): Promise<void> {
    return this.#file.write([FREE_MARK], offsetBytes)
  }

  async sync(): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure
    await this.#file.sync().catch(error => this.#fail(error))
  }

  async close(): Promise<void> {
    await this.#flushing
    await this.#file.close()
  }

  /** Never rejects. */
  async #flush(): Promise<void> {
    // What is put in the same turn goes together.
    await undefined
    while (this.#queue.length > 0) {
      const batch = this.#queue
      this.#queue = []
      try {
        await allDone(runsOf(batch).map(({ offsetBytes, parts }) => this.#file.write(parts, offsetBytes)))
        if (this.#syncs) await allDone([this.#enter(), this.sync()])
        for (const { resolve } of batch) resolve()
      } catch (error) {
        for (const { reject } of batch) reject(error as Error)
      }
    }
    this.#flushing = undefined
  }

  /** Also of a segment that was there: whoever made it may not have come to this. */
  async #enter(): Promise<void> {
    if (this.#entered) return
    await this.#disk.syncDirectory(this.#directory).catch(error => this.#fail(error))
    this.#entered = true
  }

  /** After a sync that failed nobody knows what is on the disk: this file is not written to again. */
  #fail(error: Error): never {
    this.#failure ??= error
    for (const { reject } of this.#queue.splice(0)) reject(error)
    throw error
  }
}

/** Fails with the first failure, but not before the last is over: until then somebody still reads from the buffers. */
async function allDone(works: readonly Promise<void>[]): Promise<void> {
  await Promise.allSettled(works)
  await Promise.all(works)
}

/** What lies side by side is written at once. */
function runsOf(batch: readonly Waiting[]): { offsetBytes: number; parts: Uint8Array[] }[] {
  const runs: { offsetBytes: number; parts: Uint8Array[]; endBytes: number }[] = []
  for (const { offsetBytes, slots } of batch) {
    const last = runs.at(-1)
    if (last?.endBytes === offsetBytes) {
      last.parts.push(slots)
      last.endBytes += slots.length
    } else runs.push({ offsetBytes, parts: [slots], endBytes: offsetBytes + slots.length })
  }
  return runs
}
