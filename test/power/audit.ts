/** Holds a data directory that was just recovered against its own binlog, through the disk it lives on. */
import { join, sep } from 'node:path'
import { decodeFileName } from '../../protocol/file-id.ts'
import type { Disk } from '../../runtime/world.ts'
import { binlogDirectory } from '../../store/binlog-files.ts'
import { readRecords } from '../../store/binlog-reader.ts'
import { hasSidecar, sidecarPath } from '../../store/sidecar.ts'
import { contentOf, nameOfSlot, readSlotHeader, SLOT_ALIGNMENT } from '../../store/slot.ts'

/** What should not be: one sentence for each. */
export type AuditProblems = string[]

/**
 * Compares what lies below the store paths with what the records say: every file has a record that is not taken back,
 * every such record has its file or its slot, large files have their sidecar, no slot has a file that was deleted, those of
 * the source that has the directory have their records, and nothing waits in `tmp`.
 */
export async function audit(
  disk: Disk,
  dataDirectory: string,
  storePaths: readonly string[],
  at: { storageId: number; epoch: number; sequence: number },
): Promise<AuditProblems> {
  const problems: AuditProblems = []
  const expected = new Set<string>()
  const packed = new Set<string>()
  const directory = binlogDirectory(dataDirectory)
  const onDamage = (path: string, offsetBytes: number) => problems.push(`${path} is damaged at ${offsetBytes}`)
  const range = { after: 0, until: at.sequence }
  for await (const { record } of readRecords(disk, directory, at.epoch, range, onDamage)) {
    const { op, name, token, inSlot } = record
    if (op !== 'S' && decodeFileName(name).slot !== undefined) {
      if (op === 'C' || inSlot) packed.add(name)
      else packed.delete(name)
      continue
    }
    // A peer's file that was deleted before it could be shipped came as a record alone.
    const isCreate = op === 'C' || (op === 'c' && token !== undefined)
    if (isCreate) for (const path of pathsOf(storePaths, name)) expected.add(path)
    if (op === 'D' || op === 'd') for (const path of pathsOf(storePaths, name)) expected.delete(path)
  }
  for (const storePath of storePaths) {
    for (const left of await disk.list(join(storePath, 'tmp'))) problems.push(`${left} is left in ${storePath}/tmp`)
    for await (const path of filesBelow(disk, join(storePath, 'data'))) {
      if (!expected.delete(path)) problems.push(`${path} has no record`)
    }
  }
  for (const [index, storePath] of storePaths.entries()) {
    for await (const name of packedFiles(disk, join(storePath, 'segments'), index)) {
      if (packed.delete(name)) continue
      // What another source has put here and not recorded comes again.
      if (decodeFileName(name).storageId === at.storageId) problems.push(`${name} is in its slot and has no record`)
    }
  }
  for (const name of packed) problems.push(`${name} has a record, and is not in its slot`)
  for (const path of expected) problems.push(`${path} has a record, and is not there`)
  return problems
}

/** A file and, if it has one, its sidecar. */
function pathsOf(storePaths: readonly string[], name: string): string[] {
  const { storePathIndex, directory, baseName, sizeBytes } = decodeFileName(name)
  const path = join(storePaths[storePathIndex]!, 'data', directory, baseName)
  return hasSidecar(sizeBytes!) ? [path, sidecarPath(path)] : [path]
}

/** Names of the files that are whole in their slots. */
async function* packedFiles(disk: Disk, directory: string, storePathIndex: number): AsyncGenerator<string> {
  for await (const path of filesBelow(disk, directory, 1)) {
    const [segmentId = 0, storageId = 0] = path.split(sep).reverse().map(Number)
    const segment = await readWhole(disk, path)
    for (let offsetBytes = 0; offsetBytes < segment.length; ) {
      const slot = segment.subarray(offsetBytes)
      const header = readSlotHeader(slot)
      const place = { storePathIndex, storageId, segmentId, offsetBytes }
      const isFile = header !== undefined && !header.isFree && contentOf(slot, header) !== undefined
      if (isFile) yield nameOfSlot(place, header)
      // What was torn leaves a hole.
      offsetBytes += header?.slotBytes ?? SLOT_ALIGNMENT
    }
  }
}

async function readWhole(disk: Disk, path: string): Promise<Buffer> {
  const file = await disk.open(path, 'read')
  try {
    const bytes = Buffer.alloc(await file.sizeBytes())
    await file.read(bytes, 0)
    return bytes
  } finally {
    await file.close()
  }
}

/** All files so many directories below one: nobody is asked what each of them is, which would take long. */
async function* filesBelow(disk: Disk, directory: string, depth = 2): AsyncGenerator<string> {
  for (const name of await disk.list(directory)) {
    const path = join(directory, name)
    if (depth > 0) yield* filesBelow(disk, path, depth - 1)
    else yield path
  }
}
