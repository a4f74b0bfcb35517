/** How a storage server keeps its files. */
import type { OnPhase } from './phase.ts'
import type { ReuseOptions } from './slot-space.ts'

export interface StoreOptions {
  readonly dataDirectory: string
  readonly group: string
  /** Given, or kept from the first start, or chosen at random then. */
  readonly storageId?: number
  /** Empty for one store path inside the data directory. */
  readonly storePaths: readonly string[]
  readonly storePathChoice: 'round_robin' | 'most_free'
  readonly reservedBytes: number
  /** Larger files get a file of their own; 0 for all of them. */
  readonly segmentFileBytesMax: number
  /** Memory for small files that were read lately. */
  readonly hotFileBytes: number
  /** `os` acknowledges what the system has taken: a power cut may lose it. */
  readonly durability: Durability
  /** How slots of deleted files are used again; tests are in a hurry. */
  readonly reuse?: ReuseOptions | undefined
  readonly onPhase?: OnPhase | undefined
}

export type Durability = 'fsync' | 'os'
