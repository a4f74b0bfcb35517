/** A disk whose calls for files are counted: what FastDFS calls file open, read and write. */
import type { Counters } from '../protocol/statistics.ts'
import type { Disk, DiskFile } from '../runtime/world.ts'

/** Does as `disk` does, and counts. */
export function countedDisk(disk: Disk, counters: Counters): Disk {
  return {
    open: async (path, mode, way) => {
      counters.total_file_open_count++
      const file = await disk.open(path, mode, way)
      counters.success_file_open_count++
      return new CountedFile(file, counters)
    },
    rename: (from, to) => disk.rename(from, to),
    remove: path => disk.remove(path),
    makeDirectory: path => disk.makeDirectory(path),
    list: path => disk.list(path),
    stat: path => disk.stat(path),
    syncDirectory: path => disk.syncDirectory(path),
    space: path => disk.space(path),
    lock: directory => disk.lock(directory),
  }
}

class CountedFile implements DiskFile {
  readonly #file: DiskFile
  readonly #counters: Counters

  constructor(file: DiskFile, counters: Counters) {
    this.#file = file
    this.#counters = counters
  }

  async read(target: Uint8Array, offsetBytes: number): Promise<number> {
    this.#counters.total_file_read_count++
    const count = await this.#file.read(target, offsetBytes)
    this.#counters.success_file_read_count++
    return count
  }

  write(parts: readonly Uint8Array[], offsetBytes: number): Promise<void> {
    return this.#countWrite(this.#file.write(parts, offsetBytes))
  }

  writeDurably(parts: readonly Uint8Array[], offsetBytes: number): Promise<void> {
    return this.#countWrite(this.#file.writeDurably(parts, offsetBytes))
  }

  sync(): Promise<void> {
    return this.#file.sync()
  }

  truncate(sizeBytes: number): Promise<void> {
    return this.#file.truncate(sizeBytes)
  }

  sizeBytes(): Promise<number> {
    return this.#file.sizeBytes()
  }

  close(): Promise<void> {
    return this.#file.close()
  }

  async #countWrite(written: Promise<void>): Promise<void> {
    this.#counters.total_file_write_count++
    await written
    this.#counters.success_file_write_count++
  }
}
