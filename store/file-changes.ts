/** What happens to files of this source after they were made: one change of a name at a time, in the order they came. */
import { DfsError } from '../protocol/errors.ts'
import { decodeFileName, extensionOf, type FileNameParts } from '../protocol/file-id.ts'
import { STORE_PATH_ANY } from '../protocol/storage-messages.ts'
import { edgesOf } from './appender-files.ts'
import { type Binlog, NotRecordedError, type RecordDraft } from './binlog.ts'
import { BLOCK_BYTES } from './block-pool.ts'
import type { Effects } from './effects.ts'
import type { IncomingFile } from './incoming-file.ts'
import type { ChangeMetadata, CopyName, Store, Stored } from './store.ts'
import type { StorePaths } from './store-paths.ts'
import type { OpenFile } from './stored-file.ts'
import { Turns } from './turns.ts'

export interface ChangeParts {
  readonly store: Pick<Store, 'has' | 'open' | 'read' | 'create' | 'receive' | 'readMetadata' | 'receiveMetadata'>
  readonly paths: StorePaths
  readonly binlog: Binlog
  readonly effects: Effects
  /** Whether this is the source of a file. */
  readonly isOwn: (file: FileNameParts) => boolean
  /** Makes the bytes of a file durable. */
  readonly seal: (file: IncomingFile) => Promise<void>
  /** Records a sealed file under a name, and gives it that. */
  readonly record: (file: IncomingFile, name: string) => Promise<Stored>
}

/** Names that are remembered: one that is not is recorded as a whole once more, which costs its bytes on the way to the peers. */
const RESTATED_MAX = 10_000

export class FileChanges {
  readonly #parts: ChangeParts
  /** Other sources' appender files that were recorded as they are since we order their changes. */
  readonly #restated = new Set<string>()
  /** What is set on a file comes before it is deleted, or not at all. */
  readonly #turns = new Turns()
  readonly #deleting = new Map<string, Promise<boolean>>()

  constructor(parts: ChangeParts) {
    this.#parts = parts
  }

  async delete(name: string): Promise<boolean> {
    // Two at once are one: a file is deleted only once.
    const deleted = this.#deleting.get(name) ?? this.#turns.take(name, () => this.#delete(name))
    this.#deleting.set(name, deleted)
    try {
      return await deleted
    } finally {
      this.#deleting.delete(name)
    }
  }

  changeMetadata(name: string, change: ChangeMetadata): Promise<boolean> {
    const { store, binlog, effects } = this.#parts
    return this.#turns.take(name, async () => {
      if (!(await store.has(name))) return false
      const file = decodeFileName(name)
      const metadata = await store.receiveMetadata(file, await change(() => store.readMetadata(file)))
      const { storePath, token } = metadata
      const effect = () => effects.placeMetadata(storePath, file, token)
      await binlog
        .append(() => ({ op: 'U', name, token, effect }))
        .catch(async error => {
          if (error instanceof NotRecordedError) await metadata.discard()
          throw error
        })
      return true
    })
  }

  async createSlave(file: IncomingFile, name: string): Promise<Stored> {
    const { store, seal, record } = this.#parts
    await seal(file)
    return this.#turns.take(name, async () => {
      const isThere = await store.has(name).catch(async error => {
        await file.discard()
        throw error
      })
      if (!isThere) return record(file, name)
      await file.discard()
      throw new DfsError('already_exists')
    })
  }

  async writeAppender(name: string, part: IncomingFile, offset?: number): Promise<Stored | undefined> {
    await this.#parts.seal(part)
    const { token, sizeBytes: bytes } = part
    let isKept = false
    try {
      return await this.#changeAppender(
        name,
        sizeBytes => {
          const at = offset ?? sizeBytes
          if (at > sizeBytes) throw new DfsError('bad_range', `the file has ${sizeBytes} bytes`)
          return { op: offset === undefined ? 'A' : 'M', token, range: { offset: at, bytes } }
        },
        () => {
          isKept = true
        },
      )
    } catch (error) {
      if (error instanceof NotRecordedError) isKept = false
      throw error
    } finally {
      if (!isKept) await part.discard()
    }
  }

  async truncateAppender(name: string, sizeBytes: number): Promise<boolean> {
    const changed = await this.#changeAppender(name, before => {
      if (sizeBytes > before) throw new DfsError('bad_range', `the file has ${before} bytes`)
      return { op: 'T', token: undefined, range: { offset: sizeBytes, bytes: 0 } }
    })
    return changed !== undefined
  }

  /** Of an appender file, what it is between two changes. The others do not change where they lie, and need no turn. */
  copy(name: string, as: CopyName, buffer: Buffer): Promise<Stored | undefined> {
    const copied = () => this.#copy(name, as, buffer)
    return decodeFileName(name).kind === 'appender' ? this.#turns.take(name, copied) : copied()
  }

  /** Other members order these files now, or anew. */
  forgetRestated(): void {
    this.#restated.clear()
  }

  /** Copies the file, with its metadata, and then deletes it: in between both are there. */
  regenerate(name: string): Promise<Stored | undefined> {
    const file = admitAppender(name)
    return this.#turns.take(name, async () => {
      const as = { slaveName: undefined, extension: extensionOf(file.tail) }
      const stored = await this.#copy(name, as, Buffer.allocUnsafe(BLOCK_BYTES))
      if (stored === undefined) return undefined
      const metadata = await this.#parts.store.readMetadata(file)
      if (metadata !== undefined) await this.changeMetadata(stored.name, async () => metadata)
      await this.#delete(name)
      return stored
    })
  }

  async #copy(name: string, { slaveName, extension }: CopyName, buffer: Buffer): Promise<Stored | undefined> {
    const { store } = this.#parts
    const content = await contentOf(store, name, buffer)
    if (content === undefined) return undefined
    try {
      const storePathIndex = slaveName === undefined ? STORE_PATH_ANY : decodeFileName(slaveName).storePathIndex
      const kind = slaveName === undefined ? 'plain' : 'slave'
      const copy = await store.receive(storePathIndex, content.sizeBytes, kind)
      try {
        for await (const piece of content.pieces()) await copy.write(piece)
      } catch (error) {
        await copy.discard()
        throw error
      }
      if (slaveName !== undefined) return await this.createSlave(copy, slaveName)
      return await store.create(copy, { extension, uploadId: undefined })
    } finally {
      await content.close()
    }
  }

  async #delete(name: string): Promise<boolean> {
    const { store, paths, binlog, effects } = this.#parts
    if (!(await store.has(name))) return false
    const path = paths.of(decodeFileName(name))
    await binlog.append(() => ({ op: 'D', name, effect: () => effects.remove(path, name) }))
    return true
  }

  /** Records what is to become of an appender file of so many bytes, and does it. `onRecord` is called when it may be recorded. */
  #changeAppender(
    name: string,
    change: (sizeBytes: number) => Pick<RecordDraft, 'op' | 'token'> & { range: { offset: number; bytes: number } },
    onRecord: () => void = ignore,
  ): Promise<Stored | undefined> {
    const { store, paths, binlog, effects, isOwn } = this.#parts
    const file = admitAppender(name)
    const path = paths.of(file)
    return this.#turns.take(name, async () => {
      const opened = await store.open(name)
      if (opened === undefined) return undefined
      const draft = await prepared(opened, change).finally(() => opened.close())
      if (!isOwn(file)) await this.#restate(name)
      const at = { offset: draft.range.offset, token: draft.token }
      let sequence = 0
      await binlog.append(place => {
        onRecord()
        sequence = place.sequence
        return { name, ...draft, effect: () => effects.change(path, file, sequence, at) }
      })
      return { name, sequence }
    })
  }

  /**
   * Records another source's file as it is, before its first change here: members may have had more of its source's
   * records than we, or less.
   */
  async #restate(name: string): Promise<void> {
    if (this.#restated.has(name)) return
    await this.#parts.binlog.append(() => ({ op: 'C', name }))
    if (this.#restated.size >= RESTATED_MAX) this.#restated.clear()
    this.#restated.add(name)
  }
}

/** What a change of an open file is, if it can be done: what it would build on is good. */
async function prepared<T extends { range: { offset: number; bytes: number } }>(
  file: OpenFile,
  change: (sizeBytes: number) => T,
): Promise<T> {
  const draft = change(file.sizeBytes)
  const buffer = Buffer.allocUnsafe(BLOCK_BYTES)
  for (const block of edgesOf(draft.range, file.sizeBytes)) await file.readBlocks(block, buffer)
  return draft
}

/** Throws `bad_request` unless a name is that of an appender file. */
function admitAppender(name: string): FileNameParts {
  const file = decodeFileName(name)
  if (file.kind !== 'appender') throw new DfsError('bad_request', 'this is not an appender file')
  return file
}

/** What a file holds, checked, by pieces that are good until the next one; undefined if it is not here. */
async function contentOf(store: ChangeParts['store'], name: string, buffer: Buffer): Promise<Content | undefined> {
  const file = decodeFileName(name)
  if (file.slot === undefined) {
    const opened = await store.open(name)
    return (
      opened && { sizeBytes: opened.sizeBytes, pieces: () => blocksOf(opened, buffer), close: () => opened.close() }
    )
  }
  const packed = await store.read(name, file, buffer)
  return packed && { sizeBytes: packed.length, pieces: () => [packed], close: async () => {} }
}

interface Content {
  readonly sizeBytes: number
  readonly pieces: () => AsyncIterable<Buffer> | Iterable<Buffer>
  readonly close: () => Promise<void>
}

async function* blocksOf(file: OpenFile, buffer: Buffer): AsyncGenerator<Buffer, void, void> {
  for (let block = 0; block * BLOCK_BYTES < file.sizeBytes; block++)
    yield await file.readBlocks(block, buffer.subarray(0, BLOCK_BYTES))
}

function ignore(): void {}
