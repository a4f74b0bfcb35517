/** What this client has changed, so that what it reads is not older. */
import { isAfter } from '../protocol/binlog-record.ts'
import type { ChangePlace } from '../protocol/data-bodies.ts'
import { decodeFileName, parseFileId } from '../protocol/file-id.ts'

/**
 * What a read may answer:
 *
 *     any      what any member has that may have the file: of a file that changed, or was deleted, it may be what was before
 *     session  nothing older than the last change by this client that was acknowledged; costs no further trip
 *     strong   what the member has that orders the file's changes, its source or its successor, and `unavailable` if that is away
 *
 * A plain file never changes, so that all three differ only after it was deleted.
 */
export const CONSISTENCIES = ['any', 'session', 'strong'] as const
export type Consistency = (typeof CONSISTENCIES)[number]

/** Files whose last change is known one by one; of those before, only the last of their source. */
const FILES_MAX = 4096

/** Behind all places; of no source, so that it is forgotten with its file. */
const NOWHERE: ChangePlace = { source: 0, epoch: Number.POSITIVE_INFINITY, sequence: Number.POSITIVE_INFINITY }

export class OwnChanges {
  /** Oldest first. */
  readonly #files = new Map<string, ChangePlace>()
  /** By group and source: as many as there are storage servers. */
  readonly #sources = new Map<string, ChangePlace>()

  note(fileId: string, place: ChangePlace): void {
    this.#files.delete(fileId)
    this.#files.set(fileId, place)
    if (this.#files.size <= FILES_MAX) return
    const [oldest, forgotten] = this.#files.entries().next().value!
    this.#files.delete(oldest)
    const key = keyOf(parseFileId(oldest).group, forgotten.source)
    const known = this.#sources.get(key)
    if (known === undefined || isAfter(forgotten, known)) this.#sources.set(key, forgotten)
  }

  /** Notes a change that was acknowledged, but its answer was lost: its source alone surely has it. */
  noteUnplaced(fileId: string): void {
    this.note(fileId, NOWHERE)
  }

  /** What whoever is asked for a file has to have applied; undefined if anybody may be asked. */
  needed(fileId: string): ChangePlace | undefined {
    const known = this.#files.get(fileId)
    if (known !== undefined || this.#sources.size === 0) return known
    const { group, name } = parseFileId(fileId)
    const { storageId } = decodeFileName(name)
    return storageId === undefined ? undefined : this.#sources.get(keyOf(group, storageId))
  }
}

function keyOf(group: string, source: number): string {
  return `${group}/${source}`
}
