/**
 * Small files that were read lately, in memory, so that the next reader waits for no disk. The oldest go when there is no
 * room, but those that were read since they were the oldest are spared once. A name means the same bytes for ever, until
 * the file is deleted.
 */

import { Oldest } from './oldest.ts'

/** One file takes at most this part of the room: a few large ones must not drive all others out. */
const SHARE_MAX = 1 / 64

interface HotFile {
  readonly content: Buffer
  wasRead: boolean
}

export class HotFiles {
  readonly #bytesMax: number
  /** The next to go first. A file that is read does not move: a map that changes with each read costs more than the rest. */
  readonly #files = new Map<string, HotFile>()
  readonly #oldest = new Oldest(this.#files)
  #bytes = 0
  #removals = 0

  /** Without any room nothing is kept. */
  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax
  }

  get bytes(): number {
    return this.#bytes
  }

  /** Counts what was forgotten because it was deleted: whoever reads a file notes this before, for `keep`. */
  get removals(): number {
    return this.#removals
  }

  get(name: string): Buffer | undefined {
    const file = this.#files.get(name)
    if (file !== undefined) file.wasRead = true
    return file?.content
  }

  /** Keeps a copy of what was read, unless files were deleted meanwhile: it might have been one of them. */
  keep(name: string, content: Buffer, removalsBefore: number): void {
    if (removalsBefore !== this.#removals || this.#files.has(name)) return
    if (content.length > this.#bytesMax * SHARE_MAX) return
    this.#files.set(name, { content: Buffer.from(content), wasRead: false })
    this.#bytes += content.length
    while (this.#bytes > this.#bytesMax) {
      const oldest = this.#oldest.next()!
      const file = this.#files.get(oldest)!
      this.#files.delete(oldest)
      if (file.wasRead) {
        file.wasRead = false
        this.#files.set(oldest, file)
      } else this.#bytes -= file.content.length
    }
  }

  /** Forgets a file that is deleted. */
  remove(name: string): void {
    this.#removals++
    const file = this.#files.get(name)
    if (file === undefined) return
    this.#files.delete(name)
    this.#bytes -= file.content.length
  }
}
