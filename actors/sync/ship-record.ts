/** Ships records of files of their own to a peer, a frame for each: files, changes of appender files, metadata. */
import type { BinlogRecord } from '../../protocol/binlog-record.ts'
import { DfsError } from '../../protocol/errors.ts'
import { decodeFileName, mayChange, metadataNameOf } from '../../protocol/file-id.ts'
import { COMMANDS } from '../../protocol/frame.ts'
import { type PartialFile, type SyncContent, writeSyncRecord } from '../../protocol/sync-bodies.ts'
import type { BodySource, FrameClient } from '../../runtime/frame-client.ts'
import { DiskError } from '../../runtime/world.ts'
import type { ReadRecord } from '../../store/binlog-reader.ts'
import type { BlockPool } from '../../store/block-pool.ts'
import { encodeMetadata } from '../../store/metadata-file.ts'
import type { Ordering } from '../../store/ordering.ts'
import { readPieces } from '../../store/read-pieces.ts'
import type { Replicas } from '../../store/replicas.ts'
import type { Store } from '../../store/store.ts'
import type { OpenFile } from '../../store/stored-file.ts'

/** Damaged files remembered: more than that is a dying disk, which is noticed otherwise. */
const UNREADABLE_MAX = 1000

/**
 * Sessions that may fail over one file that its disk does not give: about a minute, with their pauses. A bad checksum needs
 * no second look, but a disk may recover, and what is shipped without its file is not shipped again.
 */
const READ_ATTEMPTS_MAX = 12

export interface ShipContext {
  readonly store: Store
  readonly ordering: Ordering
  readonly replicas: Replicas
  readonly blocks: BlockPool
  /** How often own files could not be read, by name. */
  readonly unreadable: Map<string, number>
  readonly onCorruption: (name: string) => void
}

/** One session with a peer. */
export interface ShipSession {
  readonly context: ShipContext
  readonly client: FrameClient
  /** Files that change whose bytes have gone as they are: what was recorded before that is in them. */
  readonly contained: Map<string, Contained>
}

interface Contained {
  /** The last record that is in them. */
  readonly until: number
  /** Nothing else needs to be told of the time before: metadata went with them, and that they were not there for a while. */
  readonly isWhole: boolean
}

/** Names that are remembered: of others, some bytes go twice. */
const CONTAINED_MAX = 10_000

/** Whether a record that could go with others goes by itself: more is to be said of its file, or less. */
export function goesAlone({ context, contained }: ShipSession, record: BinlogRecord): boolean {
  if (context.ordering.goesWhole(record)) return true
  const { op, name, sequence } = record
  const known = contained.get(name)
  if (known === undefined) return false
  if (known.isWhole && sequence <= known.until) return true
  if (op === 'D') contained.delete(name)
  return false
}

/**
 * Ships a record that is a frame of its own; `done` resolves when it is durable at the peer. `partial` is what the peer has of a
 * file that was cut off.
 */
export async function shipRecord(
  session: ShipSession,
  next: ReadRecord,
  previous: number,
  partial: PartialFile,
): Promise<{ done: Promise<unknown> }> {
  const { context, client, contained } = session
  const { record, line } = next
  const { op, name, range, sequence } = record
  const known = contained.get(name)
  if (known !== undefined && sequence <= known.until && (known.isWhole || range !== undefined))
    return { done: client.request(COMMANDS.syncRecord, headOf(context, { content: 'past', previous }, line)) }
  const isWhole = context.ordering.goesWhole(record)
  if (!isWhole && op === 'U') return shipMetadata(session, next, previous)
  const file = decodeFileName(name)
  if (!mayChange(file)) return shipFile(session, next, previous, partial)
  // A change that a disk has failed at is done at the next start, and nothing tells that from one that was cut off.
  if (!(await context.store.isSound(file))) throw new DfsError('unavailable', 'the disk of this file has failed')
  if (!isWhole && range !== undefined) return shipRange(session, next, previous, range)
  // Everything that is recorded up to here is in what is read from now on.
  const until = context.store.end.sequence
  const shipped = await (isWhole ? shipWhole(session, next, previous) : shipFile(session, next, previous, partial))
  if (contained.size >= CONTAINED_MAX) contained.clear()
  if (shipped.isThere) contained.set(name, { until, isWhole })
  return shipped
}

/**
 * Ships a change of an appender file with its own bytes; if they do not wait any more, with those that are there now: as many of
 * them as are left, if it was truncated since. Whatever else has changed them is shipped later, so that the peer comes to the
 * same in the end.
 */
async function shipRange(
  { context, client }: ShipSession,
  { record, line }: ReadRecord,
  previous: number,
  range: { offset: number; bytes: number },
): Promise<{ done: Promise<unknown> }> {
  const { store } = context
  const { name, token } = record
  const part = token === undefined ? undefined : await store.openPart(decodeFileName(name), token)
  if (part !== undefined) {
    const head = headOf(context, { content: 'file', previous }, line)
    return shipBytes(context, client, { name, head, file: part, range: { from: 0, until: part.sizeBytes } })
  }
  const file = await openToShip(context, name)
  const until = Math.min(range.offset + range.bytes, file?.sizeBytes ?? 0)
  const content = until > range.offset ? 'file' : 'none'
  const head = headOf(context, { content, previous }, line)
  if (file !== undefined && content === 'file')
    return shipBytes(context, client, { name, head, file, range: { from: range.offset, until } })
  await file?.close()
  return { done: client.request(COMMANDS.syncRecord, head) }
}

/**
 * Ships a record with all that its file is now, whatever it says itself. Of a file that is not there any more, a later record
 * tells.
 */
async function shipWhole(
  { context, client }: ShipSession,
  { record, line }: ReadRecord,
  previous: number,
): Promise<{ done: Promise<unknown>; isThere: boolean }> {
  const { name, op } = record
  // Where metadata is damaged, that of the peer stays; where there is none, empty metadata says so.
  const metadata = await context.store.readMetadata(decodeFileName(name)).then(
    found => encodeMetadata(found ?? Buffer.alloc(0)),
    error => {
      if (!isCorrupt(error)) throw error
      context.onCorruption(metadataNameOf(name))
      return Buffer.alloc(0)
    },
  )
  const file = await openToShip(context, name)
  if (file === undefined) {
    const content = isUnreadable(context, name) ? 'unreadable' : op === 'D' ? 'none' : 'past'
    const head = headOf(context, { content, previous }, line)
    return { done: client.request(COMMANDS.syncRecord, head), isThere: false }
  }
  const about = { content: 'whole', previous, offset: metadata.length, crc32: file.crc32 } as const
  const head = Buffer.concat([headOf(context, about, line), metadata])
  const { done } = shipBytes(context, client, { name, head, file, range: { from: 0, until: file.sizeBytes } })
  return { done, isThere: true }
}

/** Opens a file that is to be shipped; undefined if it is not here, or goes without its bytes. */
async function openToShip(context: ShipContext, name: string): Promise<OpenFile | undefined> {
  if (isUnreadable(context, name)) return undefined
  return context.store.open(name, 'once').catch(error => fail(context, name, error))
}

function headOf(
  { store }: ShipContext,
  about: { content: SyncContent; previous: number; offset?: number; crc32?: number | undefined },
  line: string,
): Buffer {
  const { content, previous, offset = 0, crc32 = 0 } = about
  return writeSyncRecord({ storageId: store.storageId, content, previous, offset, crc32 }, line)
}

/** Ships a record with a range of a file, and closes that. */
function shipBytes(
  context: ShipContext,
  client: FrameClient,
  { name, head, file, range }: { name: string; head: Buffer; file: OpenFile; range: { from: number; until: number } },
): { done: Promise<unknown> } {
  const { counters } = context.store
  const bytes = range.until - range.from
  counters.total_sync_out_bytes += bytes
  const source: BodySource = send => sendFile(context, name, file, range, head, send)
  const shipped = client.exchange(COMMANDS.syncRecord, head.length + bytes, source, skip).then(() => {
    counters.success_sync_out_bytes += bytes
  })
  return { done: shipped.finally(() => file.close()) }
}

/**
 * Ships the record of a file that is a frame of its own; `done` resolves when it is durable at the peer. Of the file that
 * was cut off last time the rest, if what the peer has of it is what we have.
 */
async function shipFile(
  { context, client }: ShipSession,
  { record, line }: ReadRecord,
  previous: number,
  partial: PartialFile,
): Promise<{ done: Promise<unknown>; isThere: boolean }> {
  const { name, sequence } = record
  // A file that is gone was deleted meanwhile; one that cannot be read must not keep all others from the peer.
  const goesWithout = isUnreadable(context, name)
  const file = await openToShip(context, name)
  const content = file !== undefined ? 'file' : goesWithout ? 'unreadable' : 'none'
  const offset = file !== undefined && partial.sequence === sequence ? await sharedBytes(file, partial) : 0
  const head = headOf(context, { content, previous, offset, crc32: file?.crc32 }, line)
  if (file === undefined) return { done: client.request(COMMANDS.syncRecord, head), isThere: false }
  const { done } = shipBytes(context, client, { name, head, file, range: { from: offset, until: file.sizeBytes } })
  return { done, isThere: true }
}

/** Ships the record of metadata with what it is now: nothing if its file is gone, and left out if it is damaged. */
async function shipMetadata(
  { context, client }: ShipSession,
  { record, line }: ReadRecord,
  previous: number,
): Promise<{ done: Promise<unknown> }> {
  const metadata = await context.store.readMetadata(decodeFileName(record.name), record.token).catch(error => {
    if (!isCorrupt(error)) throw error
    context.onCorruption(metadataNameOf(record.name))
  })
  const content = metadata === undefined ? 'none' : 'file'
  const head = headOf(context, { content, previous }, line)
  const body = metadata === undefined ? head : Buffer.concat([head, encodeMetadata(metadata)])
  return { done: client.request(COMMANDS.syncRecord, body) }
}

/** How many bytes of a file need not be sent; none if what is there cannot be compared. */
async function sharedBytes(file: OpenFile, { bytes, crc32 }: PartialFile): Promise<number> {
  const sum = await file.crc32Of(bytes).catch(ignore)
  return sum === crc32 ? bytes : 0
}

async function sendFile(
  context: ShipContext,
  name: string,
  file: OpenFile,
  range: { readonly from: number; readonly until: number },
  head: Buffer,
  send: (parts: readonly Uint8Array[]) => Promise<void>,
): Promise<void> {
  try {
    let prefix: readonly Uint8Array[] = [head]
    for await (const piece of readPieces(file, context.blocks, range)) {
      await send([...prefix, piece])
      prefix = []
    }
    if (prefix.length > 0) await send(prefix)
  } catch (error) {
    fail(context, name, error)
  }
}

/** Counts what keeps a file from being read, and throws as long as that may pass; then people are told. */
export function noteUnreadable(
  { unreadable, replicas, onCorruption }: ShipContext,
  name: string,
  error: unknown,
): void {
  // A disk that is missing as a whole is waited for: nothing is wrong with its files.
  const isFailing = error instanceof DiskError && error.errno !== 'ENODEV'
  if (isCorrupt(error) || isFailing) {
    if (unreadable.size >= UNREADABLE_MAX) unreadable.clear()
    const attempts = isCorrupt(error) ? READ_ATTEMPTS_MAX : (unreadable.get(name) ?? 0) + 1
    unreadable.set(name, attempts)
    if (attempts >= READ_ATTEMPTS_MAX) {
      replicas.lacks(name)
      onCorruption(name)
      return
    }
  }
  throw error
}

export function isUnreadable({ unreadable }: ShipContext, name: string): boolean {
  return (unreadable.get(name) ?? 0) >= READ_ATTEMPTS_MAX
}

/** What was begun has to be begun anew, also if it will go without its file. */
function fail(context: ShipContext, name: string, error: unknown): never {
  noteUnreadable(context, name, error)
  throw error
}

export function isCorrupt(error: unknown): error is DfsError {
  return error instanceof DfsError && error.code === 'corrupt'
}

async function skip(): Promise<void> {}
function ignore(): void {}
