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
  readonly #lives: Map<number, SourceLife>
  /** One writer at a time. */
  #writing: Promise<void> = Promise.resolve()

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
  async settle(asking: SourceLife): Promise<SourceLife> {
    const known = this.#lives.get(asking.storageId)
    if (known === undefined || known.epoch < asking.epoch) {
      this.#lives.set(asking.storageId, asking)
      const document = { version: SOURCES_VERSION, lives: [...this.#lives.values()] }
      this.#writing = this.#writing.catch(ignore).then(() => writeDocument(this.#disk, this.#path, document))
      await this.#writing.catch(error => {
        if (known === undefined) this.#lives.delete(asking.storageId)
        else this.#lives.set(asking.storageId, known)
        throw error
      })
    } else await this.#writing.catch(ignore)
    return this.#lives.get(asking.storageId) ?? asking
  }
}

/** Whose write it was is told. */
function ignore(): void {}
