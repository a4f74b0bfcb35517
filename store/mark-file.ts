/**
 * How far one peer has been synced.
 *
 *     <data>/marks/<peer's storage id>   { version, peer, peerIncarnation, epoch, sequence, shipped }
 *
 * A mark says: this incarnation of the peer has durably applied our records of `epoch` up to `sequence`; the last one
 * that was ours to ship, and so the one the peer itself names, is `shipped`. It is a copy
 * of what the peer itself says at the start of every sync session; between sessions it feeds the status, and later the
 * trimming of the binlog. A mark of another incarnation of the peer, or of an earlier epoch of ours, counts as none.
 */
import { join } from 'node:path'
import type { Disk } from '../runtime/world.ts'
import { DocumentDamagedError, readDocument, writeDocument } from './durable-document.ts'

const MARK_VERSION = 1

export interface Mark {
  readonly peer: number
  /** 32 hex digits. */
  readonly peerIncarnation: string
  readonly epoch: number
  readonly sequence: number
  readonly shipped: number
}

export class MarkFiles {
  readonly #disk: Disk
  readonly #directory: string

  constructor(disk: Disk, dataDirectory: string) {
    this.#disk = disk
    this.#directory = join(dataDirectory, 'marks')
  }

  /** All marks of this data directory that can be read: a damaged one counts as none, and the peer is asked. */
  async readAll(): Promise<Mark[]> {
    await this.#disk.makeDirectory(this.#directory)
    const names = (await this.#disk.list(this.#directory)).filter(name => /^\d+$/.test(name))
    const read = (name: string) =>
      readDocument(this.#disk, join(this.#directory, name)).catch(error => {
        if (error instanceof DocumentDamagedError) return undefined
        throw error
      })
    const marks = (await Promise.all(names.map(read))) as ((Mark & { version: number }) | undefined)[]
    return marks.filter(mark => mark?.version === MARK_VERSION) as Mark[]
  }

  /** Replaces a peer's mark; durable when it resolves. */
  write(mark: Mark): Promise<void> {
    const { peer, peerIncarnation, epoch, sequence, shipped } = mark
    const document = { version: MARK_VERSION, peer, peerIncarnation, epoch, sequence, shipped }
    return writeDocument(this.#disk, join(this.#directory, String(peer)), document)
  }
}
