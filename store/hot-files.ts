/**
 * Small files that were read lately, in memory, so that the next reader waits for no disk. The oldest go when there is no
 * room. A name means the same bytes for ever, until the file is deleted.
 */

/** One file takes at most this part of the room: a few large ones must not drive all others out. */
const SHARE_MAX = 1 / 64

export class HotFiles {
  readonly #bytesMax: number
  /** Longest unread first. */
  readonly #files = new Map<string, Buffer>()
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
    const content = this.#files.get(name)
    if (content === undefined) return undefined
    this.#files.delete(name)
    this.#files.set(name, content)
    return content
  }

  /** Keeps a copy of what was read, unless files were deleted meanwhile: it might have been one of them. */
  keep(name: string, content: Buffer, removalsBefore: number): void {
    if (removalsBefore !== this.#removals || this.#files.has(name)) return
    if (content.length > this.#bytesMax * SHARE_MAX) return
    this.#files.set(name, Buffer.from(content))
    this.#bytes += content.length
    for (const [oldest, bytes] of this.#files) {
      if (this.#bytes <= this.#bytesMax) return
      this.#files.delete(oldest)
      this.#bytes -= bytes.length
    }
  }

  /** Forgets a file that is deleted. */
  remove(name: string): void {
    this.#removals++
    const content = this.#files.get(name)
    if (content === undefined) return
    this.#files.delete(name)
    this.#bytes -= content.length
  }
}
