/**
 * A source and a peer made once, in this process, to be copied and damaged many times. Nothing in them is left to
 * chance: time stands still and padding is always the same, so that a sequence that is given twice gives a name twice.
 */
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { decodeRecord } from '../../protocol/binlog-record.ts'
import { decodeFileName } from '../../protocol/file-id.ts'
import { silentLog } from '../../runtime/log.ts'
import { realWorld } from '../../runtime/real-world.ts'
import { Timers } from '../../runtime/timers.ts'
import type { Disk, DiskFile, DiskLock, World } from '../../runtime/world.ts'
import { BLOCK_BYTES } from '../../store/block-pool.ts'
import { openDirectory, raiseEpoch } from '../../store/data-directory.ts'
import { FileStore } from '../../store/file-store.ts'
import type { Identity } from '../../store/identity.ts'
import { stateOf } from '../../store/slot.ts'
import type { ShippedRecord } from '../../store/store.ts'
import type { StoreOptions } from '../../store/store-options.ts'
import { contentOf, fill, readAll, upload } from '../store/store-fixture.ts'
import { VirtualClock } from '../virtual-clock.ts'
import { GROUP } from './crash-cluster.ts'
import { SEGMENT_FILE_BYTES_MAX } from './storage-options.ts'

export const SOURCE = 1
export const PEER = 2

/** Of the last file: small, so that each of its bytes can be damaged in turn. */
const LAST_BYTES = 200
/** Of the other files; the second has a sidecar. */
const EARLIER_BYTES = [3_000, BLOCK_BYTES + 5]

/** Which records share a flush is for the disk to say: try until they do. */
const ATTEMPTS_MAX = 50

export interface PairOptions {
  /** Whether the peer has the last file too. */
  readonly replicated: boolean
  /** Whether a checkpoint covers the last record. */
  readonly checkpointed: boolean
  /** Records in the last flush; one unless told otherwise. */
  readonly lastRecords?: number
  /** All files have files of their own; otherwise small ones are in segments. */
  readonly plain?: boolean
}

/** A flush in a binlog file, `path` from the data directory. */
interface Flush {
  readonly path: string
  readonly start: number
  readonly end: number
  readonly records: number
}

export interface PreparedPair extends PairOptions {
  readonly source: string
  readonly peer: string
  /** Everything that was acknowledged and not deleted, by name; what was uploaded last comes last. */
  readonly files: ReadonlyMap<string, Buffer>
  readonly deleted: readonly string[]
  /** Of the source. */
  readonly lastFlush: Flush
}

/** Makes a pair in a directory. */
export async function preparePair(directory: string, options: PairOptions): Promise<PreparedPair> {
  const { replicated, checkpointed, lastRecords = 1 } = options
  const source = await openPrepared(join(directory, 'source'), SOURCE, options)
  const peer = await openPrepared(join(directory, 'peer'), PEER, options)
  const files = new Map<string, Buffer>()
  const keep = async (content: Buffer) => {
    files.set(await upload(source.store, content), content)
  }
  const deleted = [await upload(source.store, contentOf(100, 100))]
  for (const [seed, sizeBytes] of EARLIER_BYTES.entries()) await keep(contentOf(sizeBytes, seed))
  await source.store.delete(deleted[0]!)
  await ship(source.store, peer.store)
  for (let attempt = 0; lastFlushOf(source.directory).records !== lastRecords || attempt === 0; attempt++) {
    if (attempt === ATTEMPTS_MAX) throw new Error(`no flush of ${lastRecords} records came about`)
    // Records that come together are flushed together, unless the first of them is on its way already.
    const count = lastRecords === 1 ? 1 : lastRecords + (attempt % 2)
    const seed = 1_000 * (attempt + 1)
    await Promise.all(Array.from({ length: count }, (_, i) => keep(contentOf(LAST_BYTES, seed + i))))
  }
  if (replicated) await ship(source.store, peer.store)
  const made = { source: join(directory, 'source made'), peer: join(directory, 'peer made') }
  // An orderly end writes a checkpoint; a copy of what is still open is what a crash leaves.
  if (checkpointed) await source.close()
  copyData(source.directory, made.source)
  copyData(peer.directory, made.peer)
  await source.close()
  await peer.close()
  return { ...options, ...made, files, deleted, lastFlush: lastFlushOf(made.source) }
}

/** Finds the last flush: the records that were durable together. */
function lastFlushOf(dataDirectory: string): Flush {
  const path = join('binlog', readdirSync(join(dataDirectory, 'binlog'))[0]!)
  const text = readFileSync(join(dataDirectory, path), 'latin1')
  const lines = text.split('\n').slice(0, -1)
  const batchOf = (line: string) => decodeRecord(line)!.batch
  const before = lines.filter(line => batchOf(line) < batchOf(lines.at(-1)!))
  const start = before.reduce((bytes, line) => bytes + line.length + 1, 0)
  return { path, start, end: text.length, records: lines.length - before.length }
}

/** Makes a directory a copy of another, but for its lock. What is the same already, most of it, is left alone. */
export function copyData(from: string, to: string): void {
  mkdirSync(to, { recursive: true })
  const strangers = new Set(readdirSync(to))
  for (const entry of readdirSync(from, { withFileTypes: true })) {
    const [source, target] = [join(from, entry.name), join(to, entry.name)]
    strangers.delete(entry.name)
    if (entry.isDirectory()) copyData(source, target)
    else if (entry.isFile() && !isSame(source, target)) copyFileSync(source, target)
  }
  for (const name of strangers) rmSync(join(to, name), { recursive: true })
}

function isSame(source: string, target: string): boolean {
  return existsSync(target) && readFileSync(source).equals(readFileSync(target))
}

/** A store in this process. */
export interface OpenStore {
  readonly store: FileStore
  readonly directory: string
  /** Goes on under a later epoch, as a server does whose peers know more of it than it does itself. */
  raise(epoch: number): Promise<OpenStore>
  close(): Promise<void>
}

/** Opens a store as a server does at its start. */
export async function openPrepared(
  directory: string,
  storageId: number,
  { plain = false }: Pick<PairOptions, 'plain'>,
): Promise<OpenStore> {
  const real = realWorld()
  const clock = new VirtualClock()
  const world: World = { ...real, clock, disk: unsynced(real.disk), random: { ...real.random, below: () => 0 } }
  const options: StoreOptions = {
    ...{ dataDirectory: directory, group: GROUP, storageId, storePaths: [] },
    ...{ storePathChoice: 'round_robin', reservedBytes: 0, hotFileBytes: 0, durability: 'fsync' },
    segmentFileBytesMax: plain ? 0 : SEGMENT_FILE_BYTES_MAX,
  }
  const { identity, lock } = await openDirectory(world, options)
  return openWith(world, options, identity, lock)
}

async function openWith(world: World, options: StoreOptions, identity: Identity, lock: DiskLock): Promise<OpenStore> {
  let store: FileStore
  try {
    store = await FileStore.open(world, new Timers(world.clock), silentLog(), options, identity)
  } catch (error) {
    await lock.release()
    throw error
  }
  const close = async () => {
    await store.close()
    await lock.release()
  }
  return {
    store,
    directory: options.dataDirectory,
    close,
    async raise(epoch) {
      await raiseEpoch(world, options, identity, epoch)
      await close()
      const again = await openDirectory(world, options)
      return openWith(world, options, again.identity, again.lock)
    },
  }
}

/** Ships what a peer lacks, as sync does; both stores are in this process, so no wire is between. */
export async function ship(source: FileStore, peer: FileStore): Promise<void> {
  const { storageId, epoch } = source
  const at = peer.position(storageId)
  let previous = at?.epoch === epoch ? at.sequence : 0
  for await (const { record } of source.readRecords({ after: previous, until: source.end.sequence })) {
    if (record.op !== 'C' && record.op !== 'D') continue
    const shipped = {
      origin: { storageId, epoch, sequence: record.sequence },
      previous,
      record,
      file: decodeFileName(record.name),
    }
    if (record.op === 'D') await peer.apply([{ shipped, content: undefined }])
    else if (decodeFileName(record.name).slot !== undefined) await shipSlot(source, peer, shipped)
    else await shipFile(source, peer, shipped)
    previous = record.sequence
  }
}

async function shipFile(source: FileStore, peer: FileStore, shipped: ShippedRecord): Promise<void> {
  const file = await source.open(shipped.record.name)
  const content = file && (await readAll(file))
  await peer.apply([{ shipped, content: content && (await fill(await peer.receive(0, content.length), content)) }])
}

/** A slot that is damaged is not shipped, and its peer goes without. */
async function shipSlot(source: FileStore, peer: FileStore, shipped: ShippedRecord): Promise<void> {
  const file = decodeFileName(shipped.record.name)
  const slot = Buffer.alloc(file.slot!.slotBytes)
  await source.readSlots(file, slot)
  const state = stateOf(slot, file)
  await peer.apply([
    { shipped: { ...shipped, lacksFile: state === 'corrupt' }, content: state === 'present' ? slot : undefined },
  ])
}

/** A disk that never waits for the platter: copies are made by this machine, which goes on living. */
function unsynced(disk: Disk): Disk {
  return {
    ...disk,
    async syncDirectory() {},
    open: async (path, mode) => withoutSync(await disk.open(path, mode)),
  }
}

function withoutSync(file: DiskFile): DiskFile {
  return {
    read: (target, offsetBytes) => file.read(target, offsetBytes),
    write: (parts, offsetBytes) => file.write(parts, offsetBytes),
    writeDurably: (parts, offsetBytes) => file.write(parts, offsetBytes),
    async sync() {},
    truncate: sizeBytes => file.truncate(sizeBytes),
    sizeBytes: () => file.sizeBytes(),
    close: () => file.close(),
  }
}
