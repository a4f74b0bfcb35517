/**
 * The files of this server that are known to be bad. They stay where they are, for people to look at; whoever reads one
 * finds out by itself. This is what is counted and told.
 *
 *     <data>/quarantine   { version, files: [{ name, part, block?, foundMs }] }
 *
 * `part` is what is bad of a file; `foundMs` is the wall clock's. A list that is missing or damaged is empty: whatever is
 * bad is found again.
 */
import { join } from 'node:path'
import type { Disk } from '../runtime/world.ts'
import { DocumentDamagedError, readDocument, writeDocument } from './durable-document.ts'

const QUARANTINE_VERSION = 1

/** What a document has room for, and more than people look through one by one: a disk with more is to be replaced. */
export const QUARANTINE_FILES_MAX = 1000

/**
 * `slot` header or file of a slot; `block` the first bad one of a file of its own; `sidecar` its checksums, while its bytes
 * are good or nothing else says what they are; `file` all blocks are what the sidecar says, and not what the name says;
 * `metadata` the name is that of metadata, which fails its check; `unreadable` the disk does not give it.
 */
export type DamagedPart = 'slot' | 'block' | 'sidecar' | 'file' | 'metadata' | 'unreadable'

export interface Damage {
  readonly part: DamagedPart
  /** Of a part `block`. */
  readonly block?: number
}

export interface BadFile extends Damage {
  readonly name: string
  readonly foundMs: number
}

export class Quarantine {
  readonly #disk: Disk
  readonly #path: string
  readonly #files: Map<string, BadFile>
  /** Files that had no room in the list, in this pass of the scrub and in the one before. */
  #overflow = { now: 0, before: 0 }
  #changed = false
  #saving: Promise<void> | undefined

  private constructor(disk: Disk, path: string, files: readonly BadFile[]) {
    this.#disk = disk
    this.#path = path
    this.#files = new Map(files.map(file => [file.name, file]))
  }

  static async read(disk: Disk, dataDirectory: string): Promise<Quarantine> {
    const path = join(dataDirectory, 'quarantine')
    const found = (await readDocument(disk, path).catch(error => {
      if (error instanceof DocumentDamagedError) return undefined
      throw error
    })) as { version: number; files: BadFile[] } | undefined
    return new Quarantine(disk, path, found?.version === QUARANTINE_VERSION ? found.files : [])
  }

  get files(): readonly BadFile[] {
    return [...this.#files.values()]
  }

  /** How many files are known to be bad, those without room in the list included. */
  get count(): number {
    return this.#files.size + Math.max(this.#overflow.now, this.#overflow.before)
  }

  has(name: string): boolean {
    return this.#files.has(name)
  }

  /** Takes note of a bad file; true if it was not known, and has room. */
  note(file: BadFile): boolean {
    if (this.#files.has(file.name)) return false
    if (this.#files.size >= QUARANTINE_FILES_MAX) {
      this.#overflow.now++
      return false
    }
    this.#files.set(file.name, file)
    this.#changed = true
    return true
  }

  /** Strikes out a file that is good or gone. */
  forget(name: string): void {
    if (this.#files.delete(name)) this.#changed = true
  }

  /** Begins to count anew what has no room. */
  endPass(): void {
    this.#overflow = { now: 0, before: this.#overflow.now }
  }

  /** Makes the list durable. Rejects with a DiskError; then the next one tries again. */
  save(): Promise<void> {
    this.#saving ??= this.#save().finally(() => {
      this.#saving = undefined
    })
    return this.#saving
  }

  async #save(): Promise<void> {
    while (this.#changed) {
      this.#changed = false
      await writeDocument(this.#disk, this.#path, { version: QUARANTINE_VERSION, files: this.files }).catch(error => {
        this.#changed = true
        throw error
      })
    }
  }
}
