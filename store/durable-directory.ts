/** Directories whose entry is durable, so that what is synced inside them can be found after a power cut. */
import { dirname } from 'node:path'
import type { Disk } from '../runtime/world.ts'

/** Makes a directory if it is not there; durable when it resolves, but for directories above its parent. */
export async function makeDurableDirectory(disk: Disk, path: string): Promise<void> {
  await disk.makeDirectory(path)
  // Also of one that exists: whoever made it may not have come to this. A parent we may not read is not of our making.
  await disk.syncDirectory(dirname(path)).catch(error => {
    if (!NOT_OURS.has(error.errno)) throw error
  })
}

const NOT_OURS = new Set(['EACCES', 'EPERM'])
