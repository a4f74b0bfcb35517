/** Stores for tests: on the real disk, in a directory that is gone afterwards, with a clock that moves when told to. */
import { cp, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { crc32 } from '@node-rs/crc32'
import { expect } from 'chai'
import { decodeFileName } from '../../protocol/file-id.ts'
import { STORE_PATH_ANY } from '../../protocol/storage-messages.ts'
import { silentLog } from '../../runtime/log.ts'
import { realWorld } from '../../runtime/real-world.ts'
import { Timers } from '../../runtime/timers.ts'
import type { Disk, World } from '../../runtime/world.ts'
import { BATCH_RECORDS_MAX } from '../../store/binlog.ts'
import { BLOCK_BYTES } from '../../store/block-pool.ts'
import { openDirectory } from '../../store/data-directory.ts'
import { FileStore } from '../../store/file-store.ts'
import type { IncomingFile } from '../../store/incoming-file.ts'
import { blockCount } from '../../store/sidecar.ts'
import { SLOT_HEADER_BYTES, slotBytesFor } from '../../store/slot.ts'
import type { PackedUpload, Store } from '../../store/store.ts'
import type { StoreOptions } from '../../store/store-options.ts'
import type { StorePathOptions } from '../../store/store-path.ts'
import type { OpenFile } from '../../store/stored-file.ts'
import { VirtualClock } from '../virtual-clock.ts'
import { FaultyDisk } from './faulty-disk.ts'

/** A start claims the sequences that a lost flush may have had, and one for its own record. */
export const START_SEQUENCES = BATCH_RECORDS_MAX + 1

export const STORAGE_ID = 7
export const GROUP = 'group1'

/** Sizes where something changes: nothing, one byte, and around the ends of blocks. */
export const SIZES = [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES + 17]

/** An open store and everything it was opened with. */
export interface OpenStore {
  readonly store: FileStore
  readonly directory: string
  readonly disk: FaultyDisk
  readonly clock: VirtualClock
  readonly bootCount: number
  readonly incarnation: string
  /** Closes the store in order and lets go of the directory. */
  close(): Promise<void>
}

/** A directory for one test. */
const COPIES_MAX = 5

export class Workshop {
  readonly path: string
  readonly #open = new Set<OpenStore>()
  #copies = 0

  private constructor(path: string) {
    this.path = path
  }

  static async make(): Promise<Workshop> {
    return new Workshop(await mkdtemp(join(tmpdir(), 'natsdfs-store-')))
  }

  /** Closes what is open and removes everything. */
  async remove(): Promise<void> {
    for (const opened of this.#open) await opened.close().catch(() => {})
    // A property that is interrupted on a busy machine leaves its last life under way.
    await rm(this.path, { recursive: true, force: true, maxRetries: 10 })
  }

  /** Opens a data directory of this workshop as a server does at its start; `prepare` has the disk before anybody else. */
  async open(
    name = 'data',
    options: Partial<StoreOptions> = {},
    clock = new VirtualClock(),
    prepare: (disk: FaultyDisk) => void = () => {},
  ): Promise<OpenStore> {
    const directory = join(this.path, name)
    const disk = new FaultyDisk(realWorld().disk)
    prepare(disk)
    const world: World = { ...realWorld(), disk, clock }
    const storeOptions = { ...optionsOf(directory), ...options }
    const { identity, lock } = await openDirectory(world, storeOptions)
    const store = await FileStore.open(world, new Timers(clock), silentLog(), storeOptions, identity).catch(
      async error => {
        await lock.release()
        throw error
      },
    )
    const { bootCount, incarnation } = identity
    const opened: OpenStore = {
      ...{ store, directory, disk, clock, bootCount, incarnation },
      close: async () => {
        if (!this.#open.delete(opened)) return
        disk.heal()
        await store.close()
        await lock.release()
      },
    }
    this.#open.add(opened)
    return opened
  }

  /** Copies a data directory as it is at this moment, as a crash would leave it; returns the copy's name. */
  async crash(name = 'data'): Promise<string> {
    const filter = (source: string) => basename(source) !== 'lock'
    for (let attempt = 1; ; attempt++) {
      const copy = `copy${this.#copies++}`
      try {
        await cp(join(this.path, name), join(this.path, copy), { recursive: true, filter })
        return copy
      } catch (error) {
        // A file got its name while it was copied: that was no moment.
        if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || attempt === COPIES_MAX) throw error
      }
    }
  }
}

export function optionsOf(dataDirectory: string): StoreOptions {
  return {
    dataDirectory,
    group: GROUP,
    storageId: STORAGE_ID,
    storePaths: [],
    storePathChoice: 'round_robin',
    reservedBytes: 0,
    segmentFileBytesMax: 0,
    hotFileBytes: 0,
    durability: 'fsync',
  }
}

/** What a store path of a data directory is opened with. */
export function pathOptions(incarnation: string, options: Partial<StorePathOptions> = {}): StorePathOptions {
  return { reservedBytes: 0, incarnation, seen: false, syncs: true, ...options }
}

/** Bytes that differ for every seed and do not repeat with the blocks. */
export function contentOf(sizeBytes: number, seed = 1): Buffer {
  const content = Buffer.alloc(sizeBytes)
  let state = seed
  for (let i = 0; i < sizeBytes; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    content[i] = state >>> 24
  }
  return content
}

/** Writes content block by block into a file on its way in. */
export async function fill(file: IncomingFile, content: Buffer): Promise<IncomingFile> {
  for (let at = 0; at < content.length; at += BLOCK_BYTES) await file.write(content.subarray(at, at + BLOCK_BYTES))
  return file
}

/** Uploads content as a client would. */
export async function upload(store: Store, content: Buffer, uploadId?: string, extension = 'txt'): Promise<string> {
  if (store.packs(content.length)) return pack(store, content, { uploadId, extension })
  const file = await store.receive(0xff, content.length)
  return (await store.create(await fill(file, content), { extension, uploadId })).name
}

/** Uploads content into a slot, on any store path unless told which. */
export async function pack(store: Store, content: Buffer, upload: Partial<PackedUpload> = {}): Promise<string> {
  const sizeBytes = content.length
  const slot = Buffer.alloc(slotBytesFor(sizeBytes))
  content.copy(slot, SLOT_HEADER_BYTES)
  const fields = { storePathIndex: STORE_PATH_ANY, extension: 'txt', uploadId: undefined }
  return (await store.pack(slot, { ...fields, sizeBytes, crc32: sumOf(content), ...upload })).name
}

/** Reads a whole file through its checks; undefined if it is not there. */
export async function download(store: Store, name: string): Promise<Buffer | undefined> {
  const parts = decodeFileName(name)
  if (parts.slot !== undefined) return store.read(name, parts, Buffer.alloc(parts.slot.slotBytes))
  const file = await store.open(name)
  return file && readAll(file)
}

/** Reads a file whose sum stands in its sidecar alone, and holds it against that. */
export async function readSummed(store: Store, name: string): Promise<Buffer | undefined> {
  const file = await store.open(name)
  if (file === undefined) return undefined
  const content = await readAll(file)
  expect(file.crc32, name).to.equal(sumOf(content))
  return content
}

/** Reads a whole file and closes it. */
export async function readAll(file: OpenFile): Promise<Buffer> {
  try {
    const target = Buffer.alloc(BLOCK_BYTES)
    const blocks: Buffer[] = []
    for (let i = 0; i < blockCount(file.sizeBytes); i++) blocks.push(Buffer.from(await file.readBlocks(i, target)))
    return Buffer.concat(blocks)
  } finally {
    await file.close()
  }
}

/** What a promise rejected with. Fails if it did not. */
export async function rejection(
  work: Promise<unknown>,
): Promise<{ name: string; message: string; code?: string; errno?: string }> {
  const outcome = await work.then(
    () => undefined,
    error => error,
  )
  if (outcome === undefined) throw new Error('this should have been rejected')
  return outcome
}

/** The CRC32 a name would carry. */
export function sumOf(content: Buffer): number {
  return crc32(content)
}

/** Puts bytes where a test wants them, durable or not. */
export async function writeWhole(disk: Disk, path: string, content: Uint8Array): Promise<void> {
  const file = await disk.open(path, 'create')
  await file.write([content], 0)
  await file.close()
}
