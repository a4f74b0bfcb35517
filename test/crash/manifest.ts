/**
 * What a storage server has promised, written down elsewhere the moment that it was promised.
 *
 *     <path>    one line each: {"kept":<file id>,"sizeBytes":…,"sha256":…}  or  {"deleted":<file id>}
 */
import { createHash } from 'node:crypto'
import { closeSync, openSync, writeSync } from 'node:fs'
import { crc32 } from '@node-rs/crc32'
import { decodeFileName, parseFileId } from '../../protocol/file-id.ts'

/** One file that was acknowledged. */
export interface Promised {
  readonly fileId: string
  readonly sizeBytes: number
  readonly sha256: string
  /** Its storage server: what it acknowledged, the others owe later. */
  readonly source: number
  /** `doubtful`: its deletion was asked for, and no answer came. */
  state: 'kept' | 'doubtful' | 'deleted'
}

export class Manifest {
  readonly #descriptor: number
  readonly #files = new Map<string, Promised>()
  #touched = new Set<Promised>()

  constructor(path: string) {
    this.#descriptor = openSync(path, 'ax')
  }

  close(): void {
    closeSync(this.#descriptor)
  }

  get files(): readonly Promised[] {
    return [...this.#files.values()]
  }

  /** Files whose state was changed since the last `checked`. */
  get touched(): readonly Promised[] {
    return [...this.#touched]
  }

  checked(): void {
    this.#touched = new Set()
  }

  /** Notes an acknowledged upload, and what is wrong with its name, if anything. */
  keep(fileId: string, bytes: Buffer): { file: Promised; wrong: string | undefined } {
    const { storageId = 0, sizeBytes, crc32: sum } = decodeFileName(parseFileId(fileId).name)
    const sha256 = digest(bytes)
    this.#write({ kept: fileId, sizeBytes: bytes.length, sha256 })
    const isTwice = this.#files.has(fileId)
    const file: Promised = { fileId, sizeBytes: bytes.length, sha256, source: storageId, state: 'kept' }
    this.#files.set(fileId, file)
    this.#touched.add(file)
    if (isTwice) return { file, wrong: `${fileId} was given to two files` }
    const isTrue = sizeBytes === bytes.length && sum === crc32(bytes)
    return { file, wrong: isTrue ? undefined : `${fileId} names another size or CRC32 than its file has` }
  }

  /** Notes a deletion: asked for, acknowledged, or found not to have happened. */
  note(file: Promised, state: Promised['state']): void {
    if (state === 'deleted') this.#write({ deleted: file.fileId })
    file.state = state
    this.#touched.add(file)
  }

  #write(line: object): void {
    writeSync(this.#descriptor, `${JSON.stringify(line)}\n`)
  }
}

/** SHA-256, in hex. */
export function digest(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}
