/** Reads a data directory as plain files, while nobody writes to it, and says where it contradicts itself. */
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join, relative } from 'node:path'
import { type BinlogPosition, decodeRecord } from '../../protocol/binlog-record.ts'
import { decodeFileName } from '../../protocol/file-id.ts'
import { hasSidecar } from '../../store/sidecar.ts'

/**
 * Holds binlog and directories against each other and tells what is wrong: `tmp` is empty, every line can be read,
 * sequences grow, no name and no upload id comes twice, every live record has its file (with its sidecar), and every
 * file has its record.
 */
export function audit(dataDirectory: string): string[] {
  const problems: string[] = []
  const temporaries = temporariesIn(dataDirectory)
  if (temporaries.length > 0) problems.push(`tmp/ is not empty: ${temporaries.join(' ')}`)
  const live = liveFiles(dataDirectory, problems)
  const files = filesBelow(join(dataDirectory, 'store', 'data'))
  for (const [name, sizeBytes] of live) {
    const path = name.slice('M00/'.length)
    if (files.get(path) !== sizeBytes) problems.push(`${name} has a record, and ${files.get(path) ?? 'no'} bytes`)
    if (hasSidecar(sizeBytes) && !files.delete(`${path}~sum`)) problems.push(`${name} has no sidecar`)
    files.delete(path)
  }
  for (const path of files.keys()) problems.push(`${path} has no live record`)
  return problems
}

/** The last record that the directory's own server has to ship. */
export function lastOwnPosition(dataDirectory: string): BinlogPosition {
  for (const line of binlogLines(dataDirectory).reverse()) {
    const record = decodeRecord(line)
    if (record?.op === 'C' || record?.op === 'D') return record
  }
  return { epoch: 0, sequence: 0 }
}

/** Names of what is on its way in, or was. */
export function temporariesIn(dataDirectory: string): string[] {
  return readdirSync(join(dataDirectory, 'store', 'tmp'))
}

/** Where a file lies, or would, if there is one store path. */
export function pathOnDisk(dataDirectory: string, name: string): string {
  const { directory, baseName } = decodeFileName(name)
  return join(dataDirectory, 'store', 'data', directory, baseName)
}

/** Sizes of the files that the records say are here, by name. */
function liveFiles(dataDirectory: string, problems: string[]): Map<string, number> {
  const live = new Map<string, number>()
  const given = new Set<string>()
  let previous: BinlogPosition = { epoch: 0, sequence: 0 }
  for (const line of binlogLines(dataDirectory)) {
    const record = decodeRecord(line)
    if (record === undefined) {
      problems.push(`the binlog has a line that is no record: ${JSON.stringify(line)}`)
      continue
    }
    const { epoch, sequence, op, name, token, uploadId } = record
    if (epoch === previous.epoch && sequence <= previous.sequence) problems.push(`record ${sequence} comes too late`)
    previous = record
    if (op === 'S') continue
    if (op === 'D' || op === 'd') {
      live.delete(name)
      continue
    }
    for (const unique of uploadId === undefined ? [name] : [name, uploadId]) {
      if (given.has(unique)) problems.push(`${unique} is created twice`)
      given.add(unique)
    }
    // A peer's record without a token came without its file, which had been deleted at its source.
    if (op === 'C' || token !== undefined) live.set(name, decodeFileName(name).sizeBytes ?? 0)
  }
  return live
}

/** Oldest first; what follows the last line feed, if anything does, is a line too. */
function binlogLines(dataDirectory: string): string[] {
  const directory = join(dataDirectory, 'binlog')
  const names = readdirSync(directory).sort((a, b) => a.localeCompare(b, 'en', { numeric: true }))
  return names.flatMap(name => {
    const lines = readFileSync(join(directory, name), 'latin1').split('\n')
    return lines.at(-1) === '' ? lines.slice(0, -1) : lines
  })
}

/** Sizes of all files by their paths from a directory. */
function filesBelow(directory: string): Map<string, number> {
  const entries = readdirSync(directory, { recursive: true, withFileTypes: true })
  const paths = entries.filter(entry => entry.isFile()).map(entry => join(entry.parentPath, entry.name))
  return new Map(paths.map(path => [relative(directory, path), statSync(path).size]))
}
