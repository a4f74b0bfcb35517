/** The output of a child process in a file: lines, appended, one old file kept. */
import type { Disk, DiskFile } from './world.ts'

/** The current file and one old one take twice this. */
const LOG_BYTES_MAX = 16 * 1024 * 1024

/** Lines waiting for the disk; a child that floods us loses some rather than filling our memory. */
const LINES_WAITING_MAX = 10_000

export class LineLog {
  readonly #disk: Disk
  readonly #path: string
  readonly #waiting: string[] = []
  #file: DiskFile | undefined
  #bytes = 0
  #writing: Promise<void> | undefined

  constructor(disk: Disk, path: string) {
    this.#disk = disk
    this.#path = path
  }

  /** Adds a line. A disk that does not take it loses it: a log must not end what it watches. */
  add(line: string): void {
    if (this.#waiting.length >= LINES_WAITING_MAX) return
    this.#waiting.push(line)
    this.#writing ??= this.#write()
      .catch(() => void this.#waiting.splice(0))
      .finally(() => {
        this.#writing = undefined
      })
  }

  async close(): Promise<void> {
    await this.#writing
    await this.#file?.close()
  }

  async #write(): Promise<void> {
    while (this.#waiting.length > 0) {
      const bytes = Buffer.from(`${this.#waiting.splice(0).join('\n')}\n`)
      if (this.#bytes >= LOG_BYTES_MAX) await this.#rotate()
      this.#file ??= await this.#open()
      await this.#file.write([bytes], this.#bytes)
      this.#bytes += bytes.length
    }
  }

  async #open(): Promise<DiskFile> {
    const exists = (await this.#disk.stat(this.#path)) !== undefined
    const file = await this.#disk.open(this.#path, exists ? 'update' : 'create')
    this.#bytes = await file.sizeBytes()
    return file
  }

  async #rotate(): Promise<void> {
    await this.#file?.close()
    this.#file = undefined
    await this.#disk.rename(this.#path, `${this.#path}.1`)
    this.#bytes = 0
  }
}
