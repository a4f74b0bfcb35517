/** Ships one source's records, with their files, to one peer: from where the peer stands to where the binlog ends. */
import { DfsError } from '../../protocol/errors.ts'
import { decodeFileName, metadataNameOf } from '../../protocol/file-id.ts'
import { COMMANDS } from '../../protocol/frame.ts'
import type { Peer } from '../../protocol/storage-messages.ts'
import {
  type PartialFile,
  readPeerPosition,
  SYNC_POSITION_REPLY_BYTES,
  writeSyncPosition,
  writeSyncRecord,
} from '../../protocol/sync-bodies.ts'
import type { BodySource, FrameClient } from '../../runtime/frame-client.ts'
import type { FramePool } from '../../runtime/frame-pool.ts'
import type { Log } from '../../runtime/log.ts'
import { DiskError } from '../../runtime/world.ts'
import { isShipped } from '../../store/binlog.ts'
import type { BinlogCursor, ReadRecord } from '../../store/binlog-reader.ts'
import type { BlockPool } from '../../store/block-pool.ts'
import { encodeMetadata } from '../../store/metadata-file.ts'
import { readPieces } from '../../store/read-pieces.ts'
import type { Replicas } from '../../store/replicas.ts'
import type { Store } from '../../store/store.ts'
import type { OpenFile } from '../../store/stored-file.ts'
import { heldBy } from './held-by-peer.ts'
import { Run } from './ship-run.ts'
import type { PeerMark } from './sync.ts'

/** Frames under way to one peer: enough to keep both disks busy, and open files here are as many at most. */
const WINDOW_FRAMES = 64
/** Records in them: what the peer holds of them until they are durable. */
const WINDOW_RECORDS = 2048

/** Damaged files remembered: more than that is a dying disk, which is noticed otherwise. */
const UNREADABLE_MAX = 1000

/**
 * Sessions that may fail over one file that its disk does not give: about a minute, with their pauses. A bad checksum needs
 * no second look, but a disk may recover, and what is shipped without its file is not shipped again.
 */
const READ_ATTEMPTS_MAX = 12

/** Records gather so long while a peer is behind by fewer than these, and no upload waits for it: each frame costs it a flush. */
const GATHER_MS = 10
const GATHER_RECORDS = 512

/** Progress is told after so many records. */
const PROGRESS_RECORDS = 500

export interface ReplayContext {
  readonly store: Store
  readonly replicas: Replicas
  readonly blocks: BlockPool
  readonly pool: FramePool
  readonly log: Log
  /** Where the last replay to each peer stopped reading, by storage id. */
  readonly cursors: Map<number, BinlogCursor>
  /** How often own files could not be read, by name. */
  readonly unreadable: Map<string, number>
  readonly onProgress: (peer: Peer, mark: PeerMark) => void
  readonly onCorruption: (name: string) => void
  /** The peer knows more of our records than we do. */
  readonly onEpochTooOld: (epochMin: number) => void
}

/** Replays until the peer has everything that was durable when we looked last. Rejects on the first failure. */
export async function replayBinlog(context: ReplayContext, peer: Peer, known: PeerMark | undefined): Promise<PeerMark> {
  const { store, replicas } = context
  const client = await context.pool.connection({ host: peer.ip, port: peer.port })
  const { partial, ...starting } = await startingMark(context, client, known)
  let mark: PeerMark = starting
  replicas.begin(peer.storageId, mark.sequence)
  const underWay: { sequence: number; records: number; done: Promise<unknown> }[] = []
  let recordsUnderWay = 0
  let sinceProgress = 0
  let shipped = mark.shipped
  const run = new Run({
    store,
    isUnreadable: name => isUnreadable(context, name),
    noteUnreadable: (name, error) => noteUnreadable(context, name, error),
  })

  // The mark moves only over what the peer has confirmed, in order.
  const confirm = async () => {
    const oldest = underWay.shift()!
    recordsUnderWay -= oldest.records
    await oldest.done
    mark = { ...mark, sequence: oldest.sequence, shipped: oldest.sequence }
    sinceProgress += oldest.records
    if (sinceProgress < PROGRESS_RECORDS) return
    sinceProgress = 0
    context.onProgress(peer, mark)
  }

  const note = async (sequence: number, records: number, done: Promise<unknown>) => {
    // Whoever waits for this peer is told at once. A failure is met in order, by `confirm`; until then nobody else looks.
    done.then(() => replicas.confirm(peer.storageId, sequence)).catch(ignore)
    shipped = sequence
    underWay.push({ sequence, records, done })
    recordsUnderWay += records
    while (underWay.length >= WINDOW_FRAMES || recordsUnderWay >= WINDOW_RECORDS) await confirm()
  }
  const shipRun = async () => {
    const records = run.length
    if (records === 0) return
    const { sequence, done } = await run.ship(client, shipped)
    await note(sequence, records, done)
  }

  let read = mark.sequence
  const cursor = context.cursors.get(peer.storageId) ?? {}
  context.cursors.set(peer.storageId, cursor)
  try {
    while (read < store.end.sequence) {
      const until = store.end.sequence
      // Each server ships its own records; what it applied for others is theirs to ship.
      const pages = store.ownEnd > read ? store.readRecordPages({ after: read, until }, cursor) : []
      for await (const page of pages) {
        const held = store.formerly.length > 0 ? await heldBy(store, client, page) : undefined
        for (const next of page) {
          const isHeld = held?.has(next.record.sequence)
          if (!isShipped(next.record) || run.add(next, isHeld)) continue
          await shipRun()
          if (run.add(next, isHeld)) continue
          const { done } = await shipOne(context, client, next, shipped, partial)
          await note(next.record.sequence, 1, done)
        }
      }
      await shipRun()
      read = until
      // Those that come meanwhile go together.
      if (store.end.sequence - read < GATHER_RECORDS) await replicas.untilAwaited(GATHER_MS)
    }
    while (underWay.length > 0) await confirm()
    replicas.confirm(peer.storageId, read)
  } catch (error) {
    // The peer may have any part of what was under way: the next session asks it.
    client.close()
    // A file that could not be read broke the connection for those before it, too: it is the reason.
    const reasons = await Promise.all(underWay.map(({ done }) => done.then(ignore, reason => reason)))
    throw reasons.find(isCorrupt) ?? error
  }
  return { ...mark, sequence: read }
}

/** Where to begin: the peer's own word, which our mark only refines. */
async function startingMark(
  context: ReplayContext,
  client: FrameClient,
  known: PeerMark | undefined,
): Promise<PeerMark & { partial: PartialFile }> {
  const { store } = context
  const answer = await client.request(COMMANDS.syncPosition, writeSyncPosition(store))
  if (answer.length !== SYNC_POSITION_REPLY_BYTES) throw new DfsError('bad_request', 'the peer answers in riddles')
  const position = readPeerPosition(answer)
  const { incarnation, source, partial } = position
  if (source.epoch >= store.epoch && source.incarnation !== store.incarnation) {
    context.onEpochTooOld(source.epoch + 1)
    throw new DfsError('epoch_too_old', `the peer takes records of another life, in epoch ${source.epoch}`)
  }
  if (position.epoch > store.epoch || (position.epoch === store.epoch && position.sequence > store.end.sequence)) {
    context.onEpochTooOld(position.epoch + 1)
    throw new DfsError('epoch_too_old', `the peer has record ${position.sequence} of epoch ${position.epoch}`)
  }
  const applied = position.epoch === store.epoch ? position.sequence : 0
  // Behind the last record shipped lie only records of others: they need not be read again.
  const stillTrue = known?.incarnation === incarnation && known.shipped === applied && known.sequence >= applied
  return { incarnation, sequence: stillTrue ? known.sequence : applied, shipped: applied, partial }
}

/** Ships a record that is a frame of its own; `done` resolves when it is durable at the peer. */
function shipOne(
  ...[context, client, next, previous, partial]: Parameters<typeof shipFile>
): Promise<{ done: Promise<unknown> }> {
  const { op, range } = next.record
  if (op === 'U') return shipMetadata(context, client, next, previous)
  if (range !== undefined) return shipRange(context, client, next, previous, range)
  return shipFile(context, client, next, previous, partial)
}

/**
 * Ships a change of an appender file with the bytes that are there now: as many of them as are left, if it was truncated
 * since. Whatever else has changed them is shipped later, so that the peer comes to the same in the end.
 */
async function shipRange(
  context: ReplayContext,
  client: FrameClient,
  { record, line }: ReadRecord,
  previous: number,
  range: { offset: number; bytes: number },
): Promise<{ done: Promise<unknown> }> {
  const { store } = context
  const { name } = record
  // A change that a disk has failed at is done at the next start, and nothing tells that from one that was cut off.
  if (!(await store.isSound(decodeFileName(name))))
    throw new DfsError('unavailable', 'the disk of this file has failed')
  const file = isUnreadable(context, name)
    ? undefined
    : await store.open(name).catch(error => fail(context, name, error))
  const until = Math.min(range.offset + range.bytes, file?.sizeBytes ?? 0)
  const content = until > range.offset ? 'file' : 'none'
  const head = writeSyncRecord({ storageId: store.storageId, content, previous, offset: 0, crc32: 0 }, line)
  if (file === undefined || content === 'none') {
    await file?.close()
    return { done: client.request(COMMANDS.syncRecord, head) }
  }
  const from = range.offset
  const source: BodySource = send => sendFile(context, name, file, { from, until }, head, send)
  return shipBytes(context, client, { head, bytes: until - from, source, file })
}

/** Ships a record with so many bytes of a file, and closes that. */
function shipBytes(
  { store: { counters } }: ReplayContext,
  client: FrameClient,
  { head, bytes, source, file }: { head: Buffer; bytes: number; source: BodySource; file: OpenFile },
): { done: Promise<unknown> } {
  counters.total_sync_out_bytes += bytes
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
  context: ReplayContext,
  client: FrameClient,
  { record, line }: ReadRecord,
  previous: number,
  partial: PartialFile,
): Promise<{ done: Promise<unknown> }> {
  const { store } = context
  // A file that is gone was deleted meanwhile; one that cannot be read must not keep all others from the peer.
  const goesWithout = isUnreadable(context, record.name)
  const file = goesWithout
    ? undefined
    : await store.open(record.name, 'once').catch(error => fail(context, record.name, error))
  const content = file !== undefined ? 'file' : goesWithout ? 'unreadable' : 'none'
  const offset = file !== undefined && partial.sequence === record.sequence ? await sharedBytes(file, partial) : 0
  const about = { storageId: store.storageId, content, previous, offset, crc32: file?.crc32 ?? 0 } as const
  const head = writeSyncRecord(about, line)
  if (file === undefined) return { done: client.request(COMMANDS.syncRecord, head) }
  const range = { from: offset, until: file.sizeBytes }
  const source: BodySource = send => sendFile(context, record.name, file, range, head, send)
  return shipBytes(context, client, { head, bytes: range.until - range.from, source, file })
}

/** Ships the record of metadata with what it is now: nothing if its file is gone, and left out if it is damaged. */
async function shipMetadata(
  { store, onCorruption }: ReplayContext,
  client: FrameClient,
  { record, line }: ReadRecord,
  previous: number,
): Promise<{ done: Promise<unknown> }> {
  const metadata = await store.readMetadata(decodeFileName(record.name), record.token).catch(error => {
    if (!isCorrupt(error)) throw error
    onCorruption(metadataNameOf(record.name))
  })
  const content = metadata === undefined ? 'none' : 'file'
  const head = writeSyncRecord({ storageId: store.storageId, content, previous, offset: 0, crc32: 0 }, line)
  const body = metadata === undefined ? head : Buffer.concat([head, encodeMetadata(metadata)])
  return { done: client.request(COMMANDS.syncRecord, body) }
}

/** How many bytes of a file need not be sent; none if what is there cannot be compared. */
async function sharedBytes(file: OpenFile, { bytes, crc32 }: PartialFile): Promise<number> {
  const sum = await file.crc32Of(bytes).catch(ignore)
  return sum === crc32 ? bytes : 0
}

async function sendFile(
  context: ReplayContext,
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
function noteUnreadable({ unreadable, replicas, onCorruption }: ReplayContext, name: string, error: unknown): void {
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

function isUnreadable({ unreadable }: ReplayContext, name: string): boolean {
  return (unreadable.get(name) ?? 0) >= READ_ATTEMPTS_MAX
}

/** What was begun has to be begun anew, also if it will go without its file. */
function fail(context: ReplayContext, name: string, error: unknown): never {
  noteUnreadable(context, name, error)
  throw error
}

function isCorrupt(error: unknown): error is DfsError {
  return error instanceof DfsError && error.code === 'corrupt'
}

async function skip(): Promise<void> {}
function ignore(): void {}
