/**
 * What a take-over found.
 *
 *     <data>/take-over     damaged <name>: <why>      read, and not what its name says: asked of peers, and never served
 *                          left <path>: <why>         not taken; it stays where it is
 */
import { join } from 'node:path'
import type { Disk, DiskFile } from '../runtime/world.ts'

/** How many of each kind were taken. */
export interface TakeOverCounts {
  plain: number
  slave: number
  appender: number
  /** In trunk files. */
  packed: number
  metadata: number
  /** Of all files. */
  bytes: number
  trunkFiles: number
  damaged: number
  left: number
}

export class TakeOverReport {
  readonly path: string
  readonly counts: TakeOverCounts = {
    plain: 0,
    slave: 0,
    appender: 0,
    packed: 0,
    metadata: 0,
    bytes: 0,
    trunkFiles: 0,
    damaged: 0,
    left: 0,
  }
  /** How many files are those of other sources, by their storage ids. */
  readonly foreign = new Map<number, number>()
  readonly #file: DiskFile
  #offsetBytes = 0

  private constructor(path: string, file: DiskFile) {
    this.path = path
    this.#file = file
  }

  /** Begins a new one; that of an earlier attempt goes. */
  static async create(disk: Disk, dataDirectory: string): Promise<TakeOverReport> {
    const path = join(dataDirectory, 'take-over')
    if ((await disk.stat(path)) !== undefined) await disk.remove(path)
    return new TakeOverReport(path, await disk.open(path, 'create'))
  }

  get files(): number {
    const { plain, slave, appender, packed, damaged } = this.counts
    return plain + slave + appender + packed + damaged
  }

  /** Lists something. */
  async note(kind: 'damaged' | 'left', what: string, why: string): Promise<void> {
    this.counts[kind]++
    const line = Buffer.from(`${kind} ${what}: ${why}\n`)
    const offsetBytes = this.#offsetBytes
    this.#offsetBytes += line.length
    await this.#file.write([line], offsetBytes)
  }

  /** Counts a file of another source. */
  noteForeign(storageId: number): void {
    this.foreign.set(storageId, (this.foreign.get(storageId) ?? 0) + 1)
  }

  async close(): Promise<void> {
    await this.#file.sync()
    await this.#file.close()
  }
}
