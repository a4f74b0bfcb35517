/**
 * Files of this source that are in place while no record tells of them. A file gets its name after its record is
 * durable, so the record has been lost since: flipped, or cut off with what looked like a torn end. The file may have
 * been acknowledged, and no peer will ever ask for it.
 *
 * Nothing is walked: a name holds the sequence of its record, as salt and in its directory, so it is enough to look
 * where the sequences that are missing would be.
 *
 *     records      ... 41  42  [bad line]  45  46  [torn end]
 *     gaps                     43 .. 44            47 .. 46 + what a flush can hold
 */
import type { BinlogRecord } from '../protocol/binlog-record.ts'
import {
  DIRECTORIES,
  decodeFileName,
  type FileNameParts,
  SALT_BITS,
  SIZE_WITHOUT_SALT_MIN,
} from '../protocol/file-id.ts'
import { BATCH_RECORDS_MAX } from './binlog.ts'
import { directoryIndexOf } from './placing.ts'
import type { StorePath } from './store-path.ts'

/** A gap larger than this covers all of them. */
const DIRECTORIES_MAX = DIRECTORIES * DIRECTORIES

/** Sequences that no record has: from one to another, both included. */
interface Gap {
  readonly from: number
  readonly to: number
}

export class OrphanSearch {
  readonly #storageId: number
  readonly #sinceS: number
  readonly #gaps: Gap[] = []
  /** Those with a record that their names do not tell of: of 4 GiB and more, or found at an earlier start. */
  readonly #recorded = new Set<string>()
  /** The sequence before the next gap, once it is known. */
  #last: number | undefined

  /**
   * Names of 4 GiB and more tell of their sequences only by directory: those from before `sinceMs`, the time of the
   * checkpoint, have their records in front of it.
   */
  constructor(storageId: number, sinceMs: number) {
    this.#storageId = storageId
    this.#sinceS = Math.floor(sinceMs / 1000)
  }

  /** Takes note of a binlog file that is read from its beginning. */
  noteFile(firstSequence: number): void {
    this.#reach(firstSequence - 1)
  }

  /** Takes note of the next record there is; the first may be one whose past is not looked at. */
  note({ sequence, op, name }: BinlogRecord): void {
    if (this.#last !== undefined) this.#reach(sequence - 1)
    this.#last = sequence
    if (op !== 'C') return
    const file = decodeFileName(name)
    // Those have a search of their own.
    if (file.slot !== undefined) return
    if (file.salt === undefined || !mayBeOf(file, { from: sequence, to: sequence })) this.#recorded.add(name)
  }

  /** Looks for files in all gaps, the one behind the last record included. */
  async find(storePaths: ReadonlyMap<number, StorePath>, endSequence: number): Promise<string[]> {
    if (this.#last === undefined) return []
    this.#reach(Math.max(this.#last, endSequence) + BATCH_RECORDS_MAX)
    const directories = new Set(this.#gaps.flatMap(directoriesOf))
    const found: string[] = []
    for (const storePath of storePaths.values()) {
      if (storePath.failure !== undefined) continue
      for await (const name of storePath.namesIn(directories)) if (this.#isOrphan(name)) found.push(name)
    }
    return found
  }

  /** There is no record from the last one up to here. */
  #reach(to: number): void {
    const from = (this.#last ?? to) + 1
    if (from <= to) this.#gaps.push({ from, to })
    this.#last = Math.max(this.#last ?? to, to)
  }

  #isOrphan(name: string): boolean {
    if (this.#recorded.has(name)) return false
    try {
      const file = decodeFileName(name)
      if (file.storageId !== this.#storageId) return false
      if (file.salt === undefined && file.createTimeS < this.#sinceS) return false
      return this.#gaps.some(gap => mayBeOf(file, gap))
    } catch {
      // A sidecar, or whatever people have put there.
      return false
    }
  }
}

/** Where files with the sequences of a gap would be. */
function directoriesOf({ from, to }: Gap): number[] {
  const directories: number[] = []
  for (let sequence = from; sequence <= Math.min(to, from + DIRECTORIES_MAX); sequence++) {
    directories.push(directoryIndexOf(sequence, 0), directoryIndexOf(sequence, SIZE_WITHOUT_SALT_MIN))
  }
  return directories
}

/** Whether a name was made with a sequence of a gap. */
function mayBeOf(file: FileNameParts, { from, to }: Gap): boolean {
  if (file.kind !== 'plain' && file.kind !== 'appender') return false
  const { sizeBytes = 0 } = file
  // The sequence is known but for its high bits: the first one from the gap's beginning is as good as any.
  const [known, modulus] =
    file.salt === undefined ? [file.directoryIndex, DIRECTORIES_MAX] : [file.salt, 2 ** SALT_BITS]
  const sequence = from + ((known - (from % modulus) + modulus) % modulus)
  return sequence <= to && directoryIndexOf(sequence, sizeBytes) === file.directoryIndex
}
