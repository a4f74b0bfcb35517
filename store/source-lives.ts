/**
 * From which life of each source this member takes records. A source that lost its disk begins its binlog anew, and if
 * nobody tells it of its past, in the same epoch: its sequences would mean two things. Whoever has taken records of the
 * earlier life remembers whose they were.
 *
 *     <data>/sources   { version, lives: [{ storageId, epoch, incarnation }] }
 *
 * The last epoch of each source. One that is missing or damaged remembers nothing, and the next life heard of counts.
 */
import { join } from 'node:path'
import type { Disk } from '../runtime/world.ts'
import { DocumentDamagedError, readDocument, writeDocument } from './durable-document.ts'

const SOURCES_VERSION = 1

export interface SourceLife {
  readonly storageId: number
  readonly epoch: number
  /** 32 hex digits. */
  readonly incarnation: string
}

export class SourceLives {
  readonly #disk: Disk
  readonly #path: string
  #lives: ReadonlyMap<number, SourceLife>
  /** One at a time: whoever comes second has to see what the first has settled. */
  #turn: Promise<unknown> = Promise.resolve()

  private constructor(disk: Disk, path: string, lives: readonly SourceLife[]) {
    this.#disk = disk
    this.#path = path
    this.#lives = new Map(lives.map(life => [life.storageId, life]))
  }

  static async read(disk: Disk, dataDirectory: string): Promise<SourceLives> {
    const path = join(dataDirectory, 'sources')
    try {
      const found = (await readDocument(disk, path)) as { version: number; lives: SourceLife[] } | undefined
      return new SourceLives(disk, path, found?.version === SOURCES_VERSION ? found.lives : [])
    } catch (error) {
      if (error instanceof DocumentDamagedError) return new SourceLives(disk, path, [])
      throw error
    }
  }

  /** The life whose records are taken: the one that asks, if it is the first of its epoch. Durable when it resolves. */
  settle(asking: SourceLife): Promise<SourceLife> {
    const settled = this.#turn.then(() => this.#settle(asking))
    this.#turn = settled.catch(ignore)
    return settled
  }

  async #settle(asking: SourceLife): Promise<SourceLife> {
    const known = this.#lives.get(asking.storageId)
    if (known !== undefined && known.epoch >= asking.epoch) return known
    const lives = new Map(this.#lives).set(asking.storageId, asking)
    await writeDocument(this.#disk, this.#path, { version: SOURCES_VERSION, lives: [...lives.values()] })
    this.#lives = lives
    return asking
  }
}

/** Whoever asked is told; the next one tries anew. */
function ignore(): void {}
