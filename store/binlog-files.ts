/**
 * The files of a binlog.
 *
 *     <data>/binlog/<epoch>.<first sequence, 16 digits>     lines, see protocol/binlog-record.ts
 *
 * A file is closed when it is full, and the next is named by the first sequence it holds, so that a sequence is found
 * by its file's name and then by halving: no byte offset is ever kept.
 */
import { join } from 'node:path'
import { type BinlogRecord, decodeRecord, RECORD_BYTES_MAX } from '../protocol/binlog-record.ts'
import type { Disk, DiskFile } from '../runtime/world.ts'

/** Large enough that files are few, small enough that one can be read in a second. */
export const BINLOG_FILE_BYTES = 64 * 1024 * 1024

/** Read at a time. Holds at least a hundred records. */
const READ_BYTES = 64 * 1024

const FILE_NAME = /^(\d+)\.(\d{16})$/
const LINE_FEED = 0x0a

/** One binlog file. */
export interface BinlogFile {
  readonly path: string
  readonly epoch: number
  readonly firstSequence: number
}

/** The directory of a data directory's binlog. */
export function binlogDirectory(dataDirectory: string): string {
  return join(dataDirectory, 'binlog')
}

/** The path of the file that begins with a sequence. */
export function binlogPath(directory: string, epoch: number, firstSequence: number): string {
  return join(directory, `${epoch}.${String(firstSequence).padStart(16, '0')}`)
}

/** All files of an epoch, oldest first. */
export async function listBinlogFiles(disk: Disk, directory: string, epoch: number): Promise<BinlogFile[]> {
  const files: BinlogFile[] = []
  for (const name of await disk.list(directory)) {
    const match = FILE_NAME.exec(name)
    if (match === null || Number(match[1]) !== epoch) continue
    files.push({ path: join(directory, name), epoch, firstSequence: Number(match[2]) })
  }
  return files.sort((a, b) => a.firstSequence - b.firstSequence)
}

/** The last epoch before one that has files. */
export async function epochBefore(disk: Disk, directory: string, epoch: number): Promise<number | undefined> {
  return (await epochsOf(disk, directory)).findLast(other => other < epoch)
}

/** The first epoch after one that has files. */
export async function epochAfter(disk: Disk, directory: string, epoch: number): Promise<number | undefined> {
  return (await epochsOf(disk, directory)).find(other => other > epoch)
}

/** All that have files, in order. */
export async function epochsOf(disk: Disk, directory: string): Promise<number[]> {
  const epochs = (await disk.list(directory)).flatMap(name => FILE_NAME.exec(name)?.[1] ?? [])
  return [...new Set(epochs.map(Number))].sort((a, b) => a - b)
}

/** The file that holds a sequence, or would. */
export function fileOf(files: readonly BinlogFile[], sequence: number): BinlogFile | undefined {
  return files.findLast(file => file.firstSequence <= sequence)
}

/** One line of a file: a record, or what is left of one. */
export interface BinlogLine {
  readonly offsetBytes: number
  /** Undefined if the line is torn or damaged; one without its line feed is torn. */
  readonly record: BinlogRecord | undefined
  readonly text: string
}

/** Reads the lines of a file from an offset up to a limit, as the file is now. What follows the last line feed is a line too. */
export async function* readLines(file: DiskFile, fromBytes: number, untilBytes?: number): AsyncGenerator<BinlogLine> {
  for await (const page of readPages(file, fromBytes, untilBytes)) yield* page
}

/** The same, with all lines at once that came with one read. */
export async function* readPages(
  file: DiskFile,
  fromBytes: number,
  untilBytes: number = Number.POSITIVE_INFINITY,
): AsyncGenerator<readonly BinlogLine[]> {
  const buffer = Buffer.allocUnsafe(READ_BYTES)
  let offset = fromBytes
  for (;;) {
    const wanted = Math.min(READ_BYTES, untilBytes - offset)
    const count = wanted > 0 ? await file.read(buffer.subarray(0, wanted), offset) : 0
    if (count === 0) return
    const page: BinlogLine[] = []
    let start = 0
    for (let feed = buffer.indexOf(LINE_FEED); feed >= 0 && feed < count; feed = buffer.indexOf(LINE_FEED, start)) {
      const text = buffer.toString('latin1', start, feed)
      page.push({ offsetBytes: offset + start, record: decodeRecord(text), text })
      start = feed + 1
    }
    const last = count < wanted || offset + count >= untilBytes
    // A line longer than any record is damage: it is given out in pieces, none of which will pass for one.
    if (start < count && (last || count - start > RECORD_BYTES_MAX)) {
      page.push({ offsetBytes: offset + start, record: undefined, text: buffer.toString('latin1', start, count) })
      start = count
    }
    yield page
    if (last) return
    offset += start
  }
}

/**
 * Where to begin reading for a sequence: at the last record before it, or else at the beginning, so that damage in front
 * of it, or a torn end instead of it, is met on the way.
 */
export async function findSequence(file: DiskFile, sequence: number): Promise<number> {
  let low = 0
  let high = await file.sizeBytes()
  // `low` is the beginning, or a record that comes before; no record at `high` or later is the last one that does.
  while (high - low > READ_BYTES) {
    const middle = Math.floor((low + high) / 2)
    const found = await firstRecordFrom(file, middle)
    if (found === undefined || found.record.sequence >= sequence) high = middle
    else low = found.offsetBytes
  }
  let from = low
  for await (const { record, offsetBytes } of readLines(file, low)) {
    if (record === undefined) continue
    if (record.sequence >= sequence) break
    from = offsetBytes
  }
  return from
}

/** The first whole record that begins after an offset, within what one read can see. */
async function firstRecordFrom(file: DiskFile, offsetBytes: number) {
  for await (const line of readLines(file, offsetBytes, offsetBytes + READ_BYTES)) {
    // The line we fell into is cut in front.
    if (line.offsetBytes === offsetBytes) continue
    if (line.record !== undefined) return { offsetBytes: line.offsetBytes, record: line.record }
  }
  return undefined
}
