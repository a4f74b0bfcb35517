/** The effects of records on plain files: into place, and away. Both may be done again. */
import { DIRECTORIES, decodeFileName, type FileNameParts, SIZE_WITHOUT_SALT_MIN } from '../protocol/file-id.ts'
import type { Disk } from '../runtime/world.ts'
import { hasSidecar, sidecarPath } from './sidecar.ts'
import type { StorePath } from './store-path.ts'

/** As FastDFS: this many files go to one directory before the next one's turn. */
const FILES_PER_DIRECTORY = 100

/**
 * The directory of a new file. Names of large files have no room for a salt: two of one second with the same content
 * are told apart by their directories.
 */
export function directoryIndexOf(sequence: number, sizeBytes: number): number {
  const turn = sizeBytes < SIZE_WITHOUT_SALT_MIN ? Math.floor(sequence / FILES_PER_DIRECTORY) : sequence
  return turn % (DIRECTORIES * DIRECTORIES)
}

/** Moves a sealed temporary file to its name. The sidecar goes first: a file that is seen can be checked. */
export async function placeFile(disk: Disk, storePath: StorePath, token: string, name: string): Promise<void> {
  const parts = decodeFileName(name)
  await storePath.makeDirectoryOf(parts)
  await placeSidecar(disk, storePath, token, parts)
  await disk.rename(storePath.temporaryPath(token), storePath.pathOf(parts))
  // Only now: a checkpoint that is written meanwhile would take the note and sync the directory too early.
  storePath.noteChange(parts)
}

/**
 * The same at recovery, when any part of it may have been done: a power cut keeps renames in any order. What is in place
 * may be so in memory only, so it is noted, too. Returns whether the file is there.
 */
export async function placeAgain(disk: Disk, storePath: StorePath, token: string, name: string): Promise<boolean> {
  const parts = decodeFileName(name)
  await storePath.makeDirectoryOf(parts)
  await placeSidecar(disk, storePath, token, parts)
  const moved = await ifThere(disk.rename(storePath.temporaryPath(token), storePath.pathOf(parts)))
  storePath.noteChange(parts)
  return moved || (await disk.stat(storePath.pathOf(parts))) !== undefined
}

/** Removes a temporary file and its sidecar, if they are there. */
export async function removeTemporary(disk: Disk, storePath: StorePath, token: string): Promise<void> {
  await ifThere(disk.remove(storePath.temporaryPath(token)))
  await ifThere(disk.remove(sidecarPath(storePath.temporaryPath(token))))
}

async function placeSidecar(disk: Disk, storePath: StorePath, token: string, parts: FileNameParts): Promise<void> {
  if (parts.sizeBytes !== undefined && !hasSidecar(parts.sizeBytes)) return
  await ifThere(disk.rename(sidecarPath(storePath.temporaryPath(token)), sidecarPath(storePath.pathOf(parts))))
}

/** Removes a file and its sidecar, if they are there. Rejects if the disk is not there: that file may come back. */
export async function removeFile(disk: Disk, storePath: StorePath, name: string): Promise<void> {
  const parts = decodeFileName(name)
  const removed = await ifThere(disk.remove(storePath.pathOf(parts)))
  if (parts.sizeBytes === undefined || hasSidecar(parts.sizeBytes)) {
    await ifThere(disk.remove(sidecarPath(storePath.pathOf(parts))))
  }
  // A removal that is done again may not be durable yet; one of a file that never came here has nothing to sync.
  if (removed || (await storePath.hasDirectoryOf(parts))) storePath.noteChange(parts)
}

async function ifThere(work: Promise<void>): Promise<boolean> {
  try {
    await work
    return true
  } catch (error) {
    if ((error as { errno?: string }).errno !== 'ENOENT') throw error
    return false
  }
}
