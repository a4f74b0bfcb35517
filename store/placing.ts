/** The effects of records on plain files: into place, and away. Both may be done again. */
import { decodeFileName } from '../protocol/file-id.ts'
import type { Disk } from '../runtime/world.ts'
import { hasSidecar, sidecarPath } from './sidecar.ts'
import type { StorePath } from './store-path.ts'

/** Moves a sealed temporary file to its name. The sidecar goes first: a file that is seen can be checked. */
export async function placeFile(disk: Disk, storePath: StorePath, token: string, name: string): Promise<void> {
  const parts = decodeFileName(name)
  const from = storePath.temporaryPath(token)
  const to = storePath.pathOf(parts)
  await storePath.makeDirectoryOf(parts)
  storePath.noteChange(parts)
  if (parts.sizeBytes === undefined || hasSidecar(parts.sizeBytes)) {
    await ifThere(disk.rename(sidecarPath(from), sidecarPath(to)))
  }
  await disk.rename(from, to)
}

/** Removes a file and its sidecar, if they are there. */
export async function removeFile(disk: Disk, storePath: StorePath, name: string): Promise<void> {
  const parts = decodeFileName(name)
  storePath.noteChange(parts)
  await ifThere(disk.remove(storePath.pathOf(parts)))
  if (parts.sizeBytes === undefined || hasSidecar(parts.sizeBytes)) {
    await ifThere(disk.remove(sidecarPath(storePath.pathOf(parts))))
  }
}

async function ifThere(work: Promise<void>): Promise<void> {
  try {
    await work
  } catch (error) {
    if ((error as { errno?: string }).errno !== 'ENOENT') throw error
  }
}
