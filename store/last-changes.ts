/**
 * What happens to one name more than once: a slave file is deleted and comes again, metadata is replaced, an appender file comes
 * as a whole from who has changed it. At a start only the last of it is done again: of what it replaced, a temporary file may have
 * come back with a power cut. Of an appender file all changes since are done again, each over what the others have left.
 *
 *     records   C x  U x  D x  C x  U x  U x
 *     redone                   C x       U x
 */
import type { BinlogRecord } from '../protocol/binlog-record.ts'
import { decodeFileName, mayChange } from '../protocol/file-id.ts'
import type { Disk } from '../runtime/world.ts'
import { redoAppender } from './appender-files.ts'
import { placeMetadata, removeMetadata } from './metadata-file.ts'
import { placeAgain, removeFile } from './placing.ts'
import type { StorePath } from './store-path.ts'

export class LastChanges {
  /** Of slave and appender files, the last that came, or went, as a whole. */
  readonly #wholes = new Map<string, BinlogRecord>()
  /** The temporary file of a name's metadata; undefined if the file was deleted. */
  readonly #metadata = new Map<string, string | undefined>()

  /** Changes of appender files, in order. */
  readonly #appenders = new Map<string, BinlogRecord[]>()

  /** Takes note of a record; false if its effect on the file itself is for others to do again. */
  note(record: BinlogRecord): boolean {
    const { op, name, token } = record
    if (op === 'S') return false
    if (op === 'U' || op === 'u') {
      if (token !== undefined) this.#metadata.set(name, token)
      return true
    }
    if (isDelete(record)) {
      this.#metadata.set(name, undefined)
      this.#appenders.delete(name)
    }
    // At a peer it may come again as a whole, which has all of its changes.
    if (token !== undefined && record.range === undefined) this.#appenders.delete(name)
    if (record.range !== undefined) {
      const changes = this.#appenders.get(name) ?? []
      changes.push(record)
      this.#appenders.set(name, changes)
      return true
    }
    if (!mayChange(decodeFileName(name))) return false
    // One without a file says that it is there.
    if (token !== undefined || isDelete(record)) this.#wholes.set(name, record)
    return true
  }

  /** Does the last changes again; slave and appender files that are not there any more are added to `missing`. */
  async redo(disk: Disk, storePaths: ReadonlyMap<number, StorePath>, missing: Set<string>): Promise<void> {
    for (const [name, record] of this.#wholes) {
      const storePath = pathOf(name, storePaths)
      if (storePath === undefined) continue
      if (isDelete(record)) await removeFile(disk, storePath, name)
      else if (record.token !== undefined && !(await placeAgain(disk, storePath, record.token, name))) missing.add(name)
    }
    for (const [name, records] of this.#appenders) {
      const storePath = pathOf(name, storePaths)
      if (storePath === undefined) continue
      if (!(await redoAppender(disk, storePath, decodeFileName(name), records))) missing.add(name)
    }
    for (const [name, token] of this.#metadata) {
      const storePath = pathOf(name, storePaths)
      if (storePath === undefined) continue
      const file = decodeFileName(name)
      if (token === undefined) await removeMetadata(disk, storePath, file, { again: true })
      else await placeMetadata(disk, storePath, file, token, { again: true })
    }
  }
}

/** Nothing is done on a disk that is not there. */
function pathOf(name: string, storePaths: ReadonlyMap<number, StorePath>): StorePath | undefined {
  const storePath = storePaths.get(decodeFileName(name).storePathIndex)
  return storePath?.failure === undefined ? storePath : undefined
}

function isDelete({ op }: BinlogRecord): boolean {
  return op === 'D' || op === 'd'
}
