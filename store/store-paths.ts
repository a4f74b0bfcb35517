/** The store paths of a server: which of them takes a file, and what becomes of one whose disk fails. */
import { join } from 'node:path'
import { DfsError } from '../protocol/errors.ts'
import type { FileNameParts } from '../protocol/file-id.ts'
import { STORE_PATH_ANY, STORE_PATHS_MAX } from '../protocol/storage-messages.ts'
import type { Log } from '../runtime/log.ts'
import { type Disk, DiskError } from '../runtime/world.ts'
import { type Identity, writeIdentity } from './identity.ts'
import type { StoreOptions } from './store-options.ts'
import { StorePath } from './store-path.ts'

/** Errors after which a disk is not written to again; a full one heals by itself. */
const HARMLESS = new Set(['ENOSPC', 'EDQUOT', 'ENOENT', 'EEXIST'])

export class StorePaths {
  readonly byIndex: ReadonlyMap<number, StorePath>
  readonly #choice: StoreOptions['storePathChoice']
  readonly #log: Log
  #turn = 0

  private constructor(byIndex: ReadonlyMap<number, StorePath>, choice: StoreOptions['storePathChoice'], log: Log) {
    this.byIndex = byIndex
    this.#choice = choice
    this.#log = log
  }

  /** Opens all of them; one that was there before and is not has failed. */
  static async open(disk: Disk, log: Log, options: StoreOptions, identity: Identity): Promise<StorePaths> {
    const { dataDirectory, reservedBytes, durability, storePathChoice } = options
    const { incarnation, storePathCount } = identity
    const roots = options.storePaths.length > 0 ? options.storePaths : [join(dataDirectory, 'store')]
    if (roots.length > STORE_PATHS_MAX) throw new RangeError(`at most ${STORE_PATHS_MAX} store paths`)
    const byIndex = new Map<number, StorePath>()
    for (const [index, root] of roots.entries()) {
      const kept = { reservedBytes, incarnation, seen: index < storePathCount, syncs: durability === 'fsync' }
      const path = await StorePath.open(disk, index, root, kept)
      if (path.failure !== undefined) log.error({ err: path.failure, storePath: index }, 'a store path is missing')
      byIndex.set(index, path)
    }
    if (roots.length > storePathCount) {
      await writeIdentity(disk, dataDirectory, { ...identity, storePathCount: roots.length })
    }
    return new StorePaths(byIndex, storePathChoice, log)
  }

  get all(): StorePath[] {
    return [...this.byIndex.values()]
  }

  /** Whether what is to be done on all of them cannot be. */
  get hasFailed(): boolean {
    return this.all.some(path => path.failure !== undefined)
  }

  /** Where a file belongs. Throws `bad_request` if there is no such path here. */
  of({ storePathIndex }: Pick<FileNameParts, 'storePathIndex'>): StorePath {
    const path = this.byIndex.get(storePathIndex)
    if (path === undefined) throw new DfsError('bad_request', `there is no store path ${storePathIndex} here`)
    return path
  }

  /** Chooses a path with room for a file, or one that `hasPlace` without. Throws `no_space`. */
  choose(storePathIndex: number, expectedBytes: number, hasPlace: (path: StorePath) => boolean = never): StorePath {
    const isWritable = (path: StorePath) =>
      path.failure === undefined && (path.availableBytes > expectedBytes || hasPlace(path))
    if (storePathIndex !== STORE_PATH_ANY) {
      const path = this.of({ storePathIndex })
      if (!isWritable(path)) throw new DfsError('no_space')
      return path
    }
    const candidates = this.all.filter(isWritable)
    const first = candidates[0]
    if (first === undefined) throw new DfsError('no_space')
    if (this.#choice === 'round_robin') return candidates[this.#turn++ % candidates.length]!
    return candidates.reduce((best, path) => (path.availableBytes > best.availableBytes ? path : best), first)
  }

  /** Does disk work for a path; an error that means a bad disk turns the path read-only. */
  async guard<T>(path: StorePath, work: () => Promise<T>): Promise<T> {
    try {
      return await work()
    } catch (error) {
      this.noteFailure(path, error)
      throw error
    }
  }

  noteFailure(path: StorePath, error: unknown): void {
    if (!(error instanceof DiskError) || HARMLESS.has(error.errno) || path.failure !== undefined) return
    path.fail(error)
    this.#log.error({ err: error, storePath: path.index }, 'a store path failed and takes no more files')
  }
}

function never(): boolean {
  return false
}
