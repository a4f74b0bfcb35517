/** What a storage server of the crash tests is started with. */

import type { AckLevel } from '../../protocol/ack.ts'

/** So that there are files of both kinds. */
export const SEGMENT_FILE_BYTES_MAX = 64 * 1024

/** So that slots are used again between two kills. */
export const REUSE = { segmentBytes: 2 ** 20, restMs: 300, freeBytesMin: 64 }

export interface StorageProcessOptions {
  readonly dataDirectory: string
  readonly group: string
  readonly storageId: number
  readonly port: number
  /** Where `ensureSecrets` has left the credentials. */
  readonly secretsDirectory: string
  /** `SEGMENT_FILE_BYTES_MAX` unless told otherwise. */
  readonly segmentFileBytesMax?: number | undefined
  /** `one` unless told otherwise. */
  readonly ack?: AckLevel | undefined
  /** The directory whose files are not written when they are said to be: what the harness must catch. */
  readonly lieAbout?: 'tmp' | 'binlog' | 'segments' | undefined
}
