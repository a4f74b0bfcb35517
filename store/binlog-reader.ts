/** Reads records back: what sync ships. */
import type { BinlogRecord } from '../protocol/binlog-record.ts'
import type { Disk } from '../runtime/world.ts'
import { fileOf, findSequence, listBinlogFiles, readPages } from './binlog-files.ts'

/** A record and the line it was written in, without its line feed. */
export interface ReadRecord {
  readonly record: BinlogRecord
  readonly line: string
}

/** After one sequence, up to and with another. */
export interface SequenceRange {
  readonly after: number
  readonly until: number
}

/** Where a reader stopped, so that it need not search when it goes on from there. Kept in memory only. */
export interface BinlogCursor {
  at?: { readonly path: string; readonly sequence: number; readonly nextBytes: number }
}

/**
 * Reads the records of an epoch after one sequence up to another, in order. Lines that are damaged are left out and
 * told to `onDamage`: one bad line must not keep all that follow from the peers.
 */
export async function* readRecords(...args: Parameters<typeof readRecordPages>): AsyncGenerator<ReadRecord> {
  for await (const page of readRecordPages(...args)) yield* page
}

/** The same, with all records at once that came with one read: some hundred. */
export async function* readRecordPages(
  disk: Disk,
  directory: string,
  epoch: number,
  range: SequenceRange,
  onDamage: (path: string, offsetBytes: number) => void,
  cursor: BinlogCursor = {},
): AsyncGenerator<readonly ReadRecord[]> {
  const files = await listBinlogFiles(disk, directory, epoch)
  const first = fileOf(files, range.after + 1) ?? files[0]
  if (first === undefined) return
  for (const { path, firstSequence } of files.slice(files.indexOf(first))) {
    if (firstSequence > range.until) return
    const file = await disk.open(path, 'read')
    try {
      const { at } = cursor
      const goesOn = at?.path === path && at.sequence === range.after
      const from = goesOn ? at.nextBytes : await findSequence(file, range.after + 1)
      for await (const lines of readPages(file, from)) {
        const page: ReadRecord[] = []
        let isLast = false
        for (const { record, text, offsetBytes } of lines) {
          if (record === undefined) onDamage(path, offsetBytes)
          else if (record.sequence > range.until) isLast = true
          else if (record.sequence > range.after) {
            page.push({ record, line: text })
            cursor.at = { path, sequence: record.sequence, nextBytes: offsetBytes + text.length + 1 }
            isLast = record.sequence === range.until
          }
          if (isLast) break
        }
        if (page.length > 0) yield page
        if (isLast) return
      }
    } finally {
      await file.close()
    }
  }
}
