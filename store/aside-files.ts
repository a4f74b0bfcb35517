/**
 * What this source had made of its files when another member took them over without knowing of it, and changed them, too. What
 * the other one made counts; this is kept beside it, for people to look at:
 *
 *     <store path>/aside/<name with - for />-<time>         as the file was, and its metadata behind the name that has
 *
 * Nothing reads it, and nothing removes it. Between two changes by the other one a start may keep a file twice.
 */
import { join } from 'node:path'
import type { BinlogRecord } from '../protocol/binlog-record.ts'
import { decodeFileName, mayChange, metadataNameOf } from '../protocol/file-id.ts'
import type { Log } from '../runtime/log.ts'
import type { Clock, Disk } from '../runtime/world.ts'
import { isShipped } from './binlog.ts'
import type { ReadRecord } from './binlog-reader.ts'
import { BLOCK_BYTES } from './block-pool.ts'
import { makeDurableDirectory } from './durable-directory.ts'
import type { StorePaths } from './store-paths.ts'

/** Names that are remembered: with more, whatever the other one has changed is kept. */
const NAMES_MAX = 100_000

export class AsideFiles {
  readonly #disk: Disk
  readonly #clock: Clock
  readonly #log: Log
  readonly #paths: StorePaths
  /** Those that were changed here, and not by the other one yet. */
  #names: Set<string> = new Set()
  #isFull = false
  #count = 0

  constructor(disk: Disk, clock: Clock, log: Log, paths: StorePaths) {
    this.#disk = disk
    this.#clock = clock
    this.#log = log
    this.#paths = paths
  }

  /** How many were kept in this life. */
  get count(): number {
    return this.#count
  }

  get isExpecting(): boolean {
    return this.#isFull || this.#names.size > 0
  }

  /** Looks through the records that another member did not have when it took over. */
  async expect(records: AsyncIterable<ReadRecord>): Promise<void> {
    this.end()
    for await (const { record } of records) {
      if (!changes(record)) continue
      if (isShipped(record)) this.#names.add(record.name)
      // It was changed by the other one already, and is kept.
      else this.#names.delete(record.name)
      if (this.#names.size <= NAMES_MAX) continue
      this.#isFull = true
      return
    }
  }

  /** This source's word counts again. */
  end(): void {
    this.#names = new Set()
    this.#isFull = false
  }

  /** Keeps a file that another member has changed, if it was changed here as well. Durable when it resolves. */
  async keep(name: string): Promise<void> {
    if (!this.#isFull && !this.#names.delete(name)) return
    const file = decodeFileName(name)
    const path = this.#paths.of(file)
    const directory = join(path.root, 'aside')
    const from = path.pathOf(file)
    const to = join(directory, `${name.replaceAll('/', '-')}-${this.#clock.wallMs()}`)
    await makeDurableDirectory(this.#disk, directory)
    const kept = file.slot === undefined && (await this.#copy(from, to))
    const keptMetadata = await this.#copy(metadataNameOf(from), metadataNameOf(to))
    await this.#disk.syncDirectory(directory)
    if (!kept && !keptMetadata) return
    this.#count++
    this.#log.warn(
      { name, aside: to },
      'a file was changed here and by another member, whose word counts: ours is kept aside',
    )
  }

  /** False if there is nothing to copy. */
  async #copy(from: string, to: string): Promise<boolean> {
    if ((await this.#disk.stat(from)) === undefined) return false
    const source = await this.#disk.open(from, 'read')
    const target = await this.#disk.open(to, 'create').catch(async error => {
      await source.close()
      throw error
    })
    const buffer = Buffer.allocUnsafe(BLOCK_BYTES)
    try {
      for (let at = 0; ; ) {
        const count = await source.read(buffer, at)
        if (count === 0) break
        await target.write([buffer.subarray(0, count)], at)
        at += count
      }
      await target.sync()
    } finally {
      await source.close()
      await target.close()
    }
    return true
  }
}

/** Whether a record changes what was under its name, or may have been. */
function changes({ op, name }: BinlogRecord): boolean {
  if (op === 'S') return false
  return op === 'U' || op === 'u' || mayChange(decodeFileName(name))
}
