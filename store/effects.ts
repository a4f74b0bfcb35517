/** What records do to the disk: files get their names, and go. Each is done when its record is durable, and again at a start. */
import { DfsError } from '../protocol/errors.ts'
import { decodeFileName, type FileNameParts } from '../protocol/file-id.ts'
import type { Log } from '../runtime/log.ts'
import type { Disk } from '../runtime/world.ts'
import { allDone } from './all-done.ts'
import type { AppenderChange, AppenderFiles } from './appender-files.ts'
import type { HotFiles } from './hot-files.ts'
import { placeMetadata, removeMetadata } from './metadata-file.ts'
import type { OnPhase } from './phase.ts'
import { placeFile, removeFile } from './placing.ts'
import type { SlotSpace } from './slot-space.ts'
import type { StorePath } from './store-path.ts'
import type { StorePaths } from './store-paths.ts'

export interface EffectParts {
  readonly disk: Disk
  readonly log: Log
  readonly paths: StorePaths
  readonly slotSpace: SlotSpace
  readonly hotFiles: HotFiles
  readonly appenders: AppenderFiles
  readonly onPhase: OnPhase
  /** Called before each: a checkpoint may be due. */
  readonly onChange: () => void
}

export class Effects {
  readonly #parts: EffectParts

  constructor(parts: EffectParts) {
    this.#parts = parts
  }

  /** Gives a sealed file its name. */
  place(path: StorePath, token: string, name: string): Promise<void> {
    const { disk, paths, appenders } = this.#parts
    const file = decodeFileName(name)
    const place = () => placeFile(disk, path, token, name)
    return this.#do(() => paths.guard(path, () => appenders.inTurn(path, file, place)))
  }

  placeMetadata(path: StorePath, file: FileNameParts, token: string): Promise<void> {
    const { disk, paths } = this.#parts
    return this.#do(() => paths.guard(path, () => placeMetadata(disk, path, file, token)))
  }

  /**
   * Changes an appender file; `sequence` is that of its record, or later. A path on which that fails takes no more changes:
   * whatever comes later builds on it, and a start does it again.
   */
  change(path: StorePath, file: FileNameParts, sequence: number, change: AppenderChange): Promise<void> {
    const { appenders, log } = this.#parts
    return this.#do(async () => {
      // What failed before is done again at a start, and this behind it: on what is half done it would find damage.
      if (path.failure !== undefined) throw path.failure
      try {
        await appenders.change(path, file, sequence, change)
      } catch (error) {
        log.error({ err: error, name: file.baseName }, 'an appender file could not be changed')
        if (!(error instanceof DfsError)) path.fail(error as Error)
        throw error
      }
    })
  }

  /** Removes a file, with its metadata. */
  remove(path: StorePath, name: string): Promise<void> {
    const { disk, paths, hotFiles, appenders } = this.#parts
    const file = decodeFileName(name)
    const removeOwn = () => appenders.inTurn(path, file, () => removeFile(disk, path, name))
    const removeContent = () => (file.slot === undefined ? removeOwn() : this.#free(path, name, file))
    const remove = () => allDone([removeContent(), removeMetadata(disk, path, file)])
    // Not before: until it is gone it can be read, and kept again.
    return this.#do(() => paths.guard(path, remove).finally(() => hotFiles.remove(name)))
  }

  async #free(path: StorePath, name: string, file: FileNameParts): Promise<void> {
    if ((await path.segments.free(name, file)) === 'file') this.#parts.slotSpace.freed(file)
  }

  async #do(effect: () => Promise<unknown>): Promise<void> {
    this.#parts.onPhase('recorded')
    this.#parts.onChange()
    await effect()
    this.#parts.onPhase('renamed')
  }
}
