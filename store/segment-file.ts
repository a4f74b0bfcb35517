/** One open segment. */
import { type Disk, type DiskFile, isFull } from '../runtime/world.ts'
import { allDone } from './all-done.ts'
import { FREE_MARK } from './slot.ts'

/** Bytes of a segment and where they go. */
export interface SlotPart {
  readonly offsetBytes: number
  readonly bytes: Uint8Array
}

interface Run {
  readonly offsetBytes: number
  readonly parts: Uint8Array[]
}

export class SegmentFile {
  readonly #disk: Disk
  readonly #directory: string
  readonly #file: DiskFile
  readonly #syncs: boolean
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

  /**
   * Writes slots, those that lie side by side at once; all are durable when it resolves. Nothing is written any more when
   * it rejects.
   */
  async put(slots: readonly SlotPart[]): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure
    for (const { offsetBytes, bytes } of slots) this.#endBytes = Math.max(this.#endBytes, offsetBytes + bytes.length)
    const runs = runsOf(slots)
    if (this.#syncs) await allDone([this.#enter(), ...runs.map(run => this.#writeDurably(run))])
    else await allDone(runs.map(({ offsetBytes, parts }) => this.#file.write(parts, offsetBytes)))
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

  close(): Promise<void> {
    return this.#file.close()
  }

  async #writeDurably({ offsetBytes, parts }: Run): Promise<void> {
    await this.#file.writeDurably(parts, offsetBytes).catch(error => {
      if (isFull(error)) throw error
      this.#fail(error)
    })
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
    throw error
  }
}

/** What lies side by side is written at once. */
function runsOf(slots: readonly SlotPart[]): Run[] {
  const runs: (Run & { endBytes: number })[] = []
  for (const { offsetBytes, bytes } of slots) {
    const last = runs.at(-1)
    if (last?.endBytes === offsetBytes) {
      last.parts.push(bytes)
      last.endBytes += bytes.length
    } else runs.push({ offsetBytes, parts: [bytes], endBytes: offsetBytes + bytes.length })
  }
  return runs
}
