/** Reads a data directory as plain files, while nobody writes to it, and says where it contradicts itself. */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join, relative, sep } from 'node:path'
import { type BinlogPosition, decodeRecord } from '../../protocol/binlog-record.ts'
import { decodeFileName } from '../../protocol/file-id.ts'
import { hasSidecar } from '../../store/sidecar.ts'
import {
  contentOf,
  isHeaderOf,
  nameOfSlot,
  readSlotHeader,
  SLOT_ALIGNMENT,
  SLOT_HEADER_BYTES,
} from '../../store/slot.ts'

/**
 * Holds binlog and directories against each other and tells what is wrong: `tmp` is empty, every line can be read,
 * sequences grow, no name and no upload id comes twice, every live record has its file (with its sidecar) or its slot, and
 * every file and every slot has its record.
 */
export function audit(dataDirectory: string): string[] {
  const problems: string[] = []
  const temporaries = temporariesIn(dataDirectory)
  if (temporaries.length > 0) problems.push(`tmp/ is not empty: ${temporaries.join(' ')}`)
  const live = liveFiles(dataDirectory, problems)
  const files = filesBelow(join(dataDirectory, 'store', 'data'))
  const packed = new Set(packedFiles(dataDirectory))
  for (const [name, sizeBytes] of live) {
    if (decodeFileName(name).slot !== undefined) {
      if (!packed.delete(name)) problems.push(`${name} has a record, and is not in its slot`)
      continue
    }
    const path = name.slice('M00/'.length)
    if (files.get(path) !== sizeBytes) problems.push(`${name} has a record, and ${files.get(path) ?? 'no'} bytes`)
    if (hasSidecar(sizeBytes) && !files.delete(`${path}~sum`)) problems.push(`${name} has no sidecar`)
    files.delete(path)
  }
  for (const path of [...files.keys(), ...packed]) problems.push(`${path} has no live record`)
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

/** Where a file lies, or its slot, or would, if there is one store path. */
export function pathOnDisk(dataDirectory: string, name: string): string {
  const { directory, baseName, storageId, slot } = decodeFileName(name)
  if (slot === undefined) return join(dataDirectory, 'store', 'data', directory, baseName)
  return join(segmentsIn(dataDirectory), String(storageId), String(slot.segmentId).padStart(10, '0'))
}

/** The bytes of a file as they are on the disk, right or wrong; undefined if it is not there. */
export function bytesOnDisk(dataDirectory: string, name: string): Buffer | undefined {
  const path = pathOnDisk(dataDirectory, name)
  if (!existsSync(path)) return undefined
  const bytes = readFileSync(path)
  const file = decodeFileName(name)
  if (file.slot === undefined) return bytes
  const slot = bytes.subarray(file.slot.offsetBytes, file.slot.offsetBytes + file.slot.slotBytes)
  const header = readSlotHeader(slot)
  if (header === undefined || header.isFree || !isHeaderOf(header, file)) return undefined
  return slot.subarray(SLOT_HEADER_BYTES, SLOT_HEADER_BYTES + header.sizeBytes)
}

/** Names of the files that are whole in their slots. */
export function packedFiles(dataDirectory: string): string[] {
  const names: string[] = []
  for (const path of filesBelow(segmentsIn(dataDirectory)).keys()) {
    const [storageId = 0, segmentId = 0] = path.split(sep).map(Number)
    const segment = readFileSync(join(segmentsIn(dataDirectory), path))
    for (let offsetBytes = 0; offsetBytes < segment.length; ) {
      const slot = segment.subarray(offsetBytes)
      const header = readSlotHeader(slot)
      const place = { storePathIndex: 0, storageId, segmentId, offsetBytes }
      const isFile = header !== undefined && !header.isFree && contentOf(slot, header) !== undefined
      if (isFile) names.push(nameOfSlot(place, header))
      // A peer has holes where files were deleted before they were shipped.
      offsetBytes += header?.slotBytes ?? SLOT_ALIGNMENT
    }
  }
  return names
}

function segmentsIn(dataDirectory: string): string {
  return join(dataDirectory, 'store', 'segments')
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
    const { epoch, sequence, op, name, token, inSlot, uploadId } = record
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
    // A peer's record without token and slot came without its file, which had been deleted at its source.
    if (op === 'C' || token !== undefined || inSlot) live.set(name, decodeFileName(name).sizeBytes ?? 0)
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
