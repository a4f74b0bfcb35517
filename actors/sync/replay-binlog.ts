/** Ships one source's records, with their files, to one peer: from where the peer stands to where the binlog ends. */
import { isAfter } from '../../protocol/binlog-record.ts'
import { DfsError } from '../../protocol/errors.ts'
import { COMMANDS } from '../../protocol/frame.ts'
import type { Peer } from '../../protocol/storage-messages.ts'
import {
  type PartialFile,
  readPeerPosition,
  SYNC_POSITION_REPLY_BYTES,
  writeSyncPosition,
} from '../../protocol/sync-bodies.ts'
import type { FrameClient } from '../../runtime/frame-client.ts'
import type { FramePool } from '../../runtime/frame-pool.ts'
import type { Log } from '../../runtime/log.ts'
import { isShipped } from '../../store/binlog.ts'
import type { BinlogCursor } from '../../store/binlog-reader.ts'
import { heldBy } from './held-by-peer.ts'
import {
  goesAlone,
  isCorrupt,
  isUnreadable,
  noteUnreadable,
  type ShipContext,
  type ShipSession,
  shipRecord,
} from './ship-record.ts'
import { Run } from './ship-run.ts'
import type { PeerMark } from './sync.ts'

/** Frames under way to one peer: enough to keep both disks busy, and open files here are as many at most. */
const WINDOW_FRAMES = 64
/** Records in them: what the peer holds of them until they are durable. */
const WINDOW_RECORDS = 2048

/** Records gather so long while a peer is behind by fewer than these, and no upload waits for it: each frame costs it a flush. */
const GATHER_MS = 10
const GATHER_RECORDS = 512

/** Progress is told after so many records. */
const PROGRESS_RECORDS = 500

export interface ReplayContext extends ShipContext {
  readonly pool: FramePool
  readonly log: Log
  /** Where the last replay to each peer stopped reading, by storage id. */
  readonly cursors: Map<number, BinlogCursor>
  readonly onProgress: (peer: Peer, mark: PeerMark) => void
  /** The peer knows more of our records than we do. */
  readonly onEpochTooOld: (epochMin: number) => void
}

/** Replays until the peer has everything that was durable when we looked last. Rejects on the first failure. */
export async function replayBinlog(context: ReplayContext, peer: Peer, known: PeerMark | undefined): Promise<PeerMark> {
  const { store, replicas, ordering } = context
  const term = ordering.term()
  const client = await context.pool.connection({ host: peer.ip, port: peer.port })
  const { partial, shippedMax, ...starting } = await startingMark(context, client, peer, known, term)
  let mark: PeerMark = starting
  replicas.begin(peer.storageId, mark.sequence)
  const session: ShipSession = { context, client, contained: new Map() }
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
    while (read < Math.min(store.end.sequence, shippedMax)) {
      const until = Math.min(store.end.sequence, shippedMax)
      // Each server ships its own records; what it applied for others is theirs to ship.
      const pages = store.ownEnd > read ? store.readRecordPages({ after: read, until }, cursor) : []
      for await (const page of pages) {
        const held = store.formerly.length > 0 ? await heldBy(store, client, page) : undefined
        for (const next of page) {
          const isHeld = held?.has(next.record.sequence)
          if (!isShipped(next.record)) continue
          const isAlone = goesAlone(session, next.record)
          if (!isAlone && run.add(next, isHeld)) continue
          await shipRun()
          if (!isAlone && run.add(next, isHeld)) continue
          const { done } = await shipRecord(session, next, shipped, partial)
          await note(next.record.sequence, 1, done)
        }
      }
      await shipRun()
      read = until
      // Those that come meanwhile go together.
      if (store.end.sequence - read < GATHER_RECORDS) await replicas.untilAwaited(GATHER_MS)
    }
    while (underWay.length > 0) await confirm()
    if (shippedMax < store.end.sequence)
      throw new DfsError('unavailable', 'the peer needs first what others have ordered of our files meanwhile')
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
  peer: Peer,
  known: PeerMark | undefined,
  term: number,
): Promise<PeerMark & { partial: PartialFile; shippedMax: number }> {
  const { store, ordering } = context
  const { storageId, group, epoch, incarnation: ownIncarnation } = store
  const { after, since } = ordering.takenBack ?? {}
  const asking = { storageId, group, epoch, incarnation: ownIncarnation, term, other: after?.storageId ?? 0 }
  const answer = await client.request(COMMANDS.syncPosition, writeSyncPosition(asking))
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
  // What others ordered of our files comes to everybody before what we did with them afterwards.
  const lacks = after !== undefined && peer.storageId !== after.storageId && isAfter(after, position.other)
  const waits = lacks && !ordering.isLost(after.storageId) && since!.epoch === store.epoch
  const shippedMax = waits ? since!.sequence : Number.POSITIVE_INFINITY
  return { incarnation, sequence: stillTrue ? known.sequence : applied, shipped: applied, partial, shippedMax }
}

function ignore(): void {}
