/** Holds a data directory that was just recovered against its own binlog, through the disk it lives on. */
import { join } from 'node:path'
import { decodeFileName } from '../../protocol/file-id.ts'
import type { Disk } from '../../runtime/world.ts'
import { binlogDirectory } from '../../store/binlog-files.ts'
import { readRecords } from '../../store/binlog-reader.ts'
import { hasSidecar, sidecarPath } from '../../store/sidecar.ts'

/** What should not be: one sentence for each. */
export type AuditProblems = string[]

/**
 * Compares what lies below the store paths with what the records say: every file has a record that is not taken back,
 * every such record has its file, large files have their sidecar, and nothing waits in `tmp`.
 */
export async function audit(
  disk: Disk,
  dataDirectory: string,
  storePaths: readonly string[],
  at: { epoch: number; sequence: number },
): Promise<AuditProblems> {
  const problems: AuditProblems = []
  const expected = new Set<string>()
  const directory = binlogDirectory(dataDirectory)
  const onDamage = (path: string, offsetBytes: number) => problems.push(`${path} is damaged at ${offsetBytes}`)
  const range = { after: 0, until: at.sequence }
  for await (const { record } of readRecords(disk, directory, at.epoch, range, onDamage)) {
    const { op, name, token } = record
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
  for (const path of expected) problems.push(`${path} has a record, and is not there`)
  return problems
}

/** A file and, if it has one, its sidecar. */
function pathsOf(storePaths: readonly string[], name: string): string[] {
  const { storePathIndex, directory, baseName, sizeBytes } = decodeFileName(name)
  const path = join(storePaths[storePathIndex]!, 'data', directory, baseName)
  return hasSidecar(sizeBytes!) ? [path, sidecarPath(path)] : [path]
}

/** All files so many directories below one: nobody is asked what each of them is, which would take long. */
async function* filesBelow(disk: Disk, directory: string, depth = 2): AsyncGenerator<string> {
  for (const name of await disk.list(directory)) {
    const path = join(directory, name)
    if (depth > 0) yield* filesBelow(disk, path, depth - 1)
    else yield path
  }
}
