/** A disk that lies: what it says it has written and synced comes later, and never if the process dies first. */
import { sep } from 'node:path'
import type { Disk, DiskFile } from '../../runtime/world.ts'

/** Longer than any request takes, shorter than a test: whoever dies right after an acknowledgement has not written it. */
const LATE_MS = 1_000

/** Lies about the files of every directory of this name, and of those in it, and is honest about all others. */
export function lyingDisk(disk: Disk, directory: string): Disk {
  const isConcerned = (path: string) => path.split(sep).slice(-3, -1).includes(directory)
  return {
    ...disk,
    async open(path, mode) {
      const file = await disk.open(path, mode)
      return isConcerned(path) && mode !== 'read' ? lateFile(file) : file
    },
  }
}

function lateFile(file: DiskFile): DiskFile {
  let written: Promise<unknown> = Promise.resolve()
  const late: DiskFile = {
    read: (target, offsetBytes) => file.read(target, offsetBytes),
    async write(parts, offsetBytes) {
      // The caller takes its buffers back as soon as it believes us.
      const copy = Buffer.concat(parts)
      const wait = new Promise(resolve => setTimeout(resolve, LATE_MS))
      written = Promise.all([written, wait]).then(() => file.write([copy], offsetBytes))
    },
    writeDurably: (parts, offsetBytes) => late.write(parts, offsetBytes),
    async sync() {},
    truncate: sizeBytes => file.truncate(sizeBytes),
    sizeBytes: () => file.sizeBytes(),
    async close() {
      void written.then(() => file.close())
    },
  }
  return late
}
