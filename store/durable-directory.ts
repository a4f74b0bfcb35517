/** Directories whose entry is durable, so that what is synced inside them can be found after a power cut. */
import { dirname } from 'node:path'
import type { Disk } from '../runtime/world.ts'

/** Makes a directory if it is not there; durable when it resolves, but for directories above its parent. */
export async function makeDurableDirectory(disk: Disk, path: string): Promise<void> {
  // One that exists may be a mount point below a directory we may not read.
  if ((await disk.stat(path)) !== undefined) return
  await disk.makeDirectory(path)
  await disk.syncDirectory(dirname(path))
}
