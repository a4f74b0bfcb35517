/** Small text files that are read and written whole: configuration, secrets, pid files. */
import type { Disk } from './world.ts'

/** Reads a whole file as UTF-8; undefined if there is none. */
export async function readText(disk: Disk, path: string): Promise<string | undefined> {
  if ((await disk.stat(path)) === undefined) return undefined
  const file = await disk.open(path, 'read')
  try {
    const bytes = Buffer.alloc(await file.sizeBytes())
    return bytes.toString('utf8', 0, await file.read(bytes, 0))
  } finally {
    await file.close()
  }
}

/**
 * Replaces a file so that after a crash there is either the old text or the new one, whole; durable when it resolves.
 * Only one writer of a path at a time.
 */
export function writeText(disk: Disk, path: string, text: string): Promise<void> {
  return replaceFile(disk, path, Buffer.from(text))
}

/** The same with bytes. */
export async function replaceFile(disk: Disk, path: string, bytes: Uint8Array): Promise<void> {
  const temporary = `${path}.new`
  // What a crashed writer left has never been the file.
  if ((await disk.stat(temporary)) !== undefined) await disk.remove(temporary)
  const file = await disk.open(temporary, 'create')
  try {
    await file.write([bytes], 0)
    await file.sync()
  } finally {
    await file.close()
  }
  await disk.rename(temporary, path)
  await disk.syncDirectory(directoryOf(path))
}

function directoryOf(path: string): string {
  const slash = path.lastIndexOf('/')
  return slash < 0 ? '.' : path.slice(0, slash) || '/'
}
