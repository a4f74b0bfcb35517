/** The receiving end of sync: takes the records of a source, with their files, and applies them in order. */
import { type BinlogRecord, decodeRecord, RECORD_BYTES_MAX } from '../../protocol/binlog-record.ts'
import { DfsError } from '../../protocol/errors.ts'
import { type FileNameParts, mayChange } from '../../protocol/file-id.ts'
import {
  readSyncPosition,
  readSyncRecord,
  readSyncRun,
  SYNC_POSITION_BYTES,
  SYNC_RECORD_FIXED_BYTES,
  type SyncContent,
  type SyncRecordFields,
  type SyncRunFields,
  writePeerPosition,
} from '../../protocol/sync-bodies.ts'
import { FrameCutError } from '../../runtime/frame-reader.ts'
import type { FrameReply, FrameRequest } from '../../runtime/frame-server.ts'
import { SocketError } from '../../runtime/world.ts'
import { checkContent, type FileKind, type IncomingFile } from '../../store/incoming-file.ts'
import { decodeMetadata, METADATA_FILE_BYTES_MAX } from '../../store/metadata-file.ts'
import { SLOT_BYTES_MAX, stateOf } from '../../store/slot.ts'
import type { Shipment, ShippedRecord } from '../../store/store.ts'
import { admitFile, type PortContext } from './port-context.ts'
import { receiveInto } from './upload-file.ts'

/** The largest slot, and the lines of more records than a run has. */
const RUN_BYTES_MAX = SLOT_BYTES_MAX + 1024 * 1024

/** Tells a source how far its records have been applied here, 205. */
export async function syncPosition(
  context: PortContext,
  request: FrameRequest,
  incarnation: string,
): Promise<FrameReply> {
  expectPeer(request)
  if (request.lengthBytes !== SYNC_POSITION_BYTES)
    throw new DfsError('bad_request', 'a source gives its id, group and life')
  const asking = readSyncPosition(await request.body.bytes(SYNC_POSITION_BYTES))
  const { storageId, group } = asking
  if (group !== context.store.group) throw new DfsError('forbidden', `this is group ${context.store.group}`)
  // In no epoch somebody only asks.
  if (asking.epoch > 0) await context.orderers.beginSession(storageId, asking.term)
  const source = await context.store.settleSource({ storageId, epoch: asking.epoch, incarnation: asking.incarnation })
  const { epoch, sequence } = context.store.position(storageId) ?? { epoch: 0, sequence: 0 }
  const partial = await context.partials.offer(storageId, asking.epoch, { epoch, sequence })
  const other = context.store.position(asking.other) ?? { epoch: 0, sequence: 0 }
  return { status: 0, parts: [writePeerPosition({ incarnation, epoch, sequence, source, partial, other })] }
}

/** Applies one record, 206; answers when it is durable. The next one may be read as soon as this one's bytes are here. */
export async function syncRecord(context: PortContext, request: FrameRequest): Promise<FrameReply> {
  expectPeer(request)
  const { store, counts, partials } = context
  if (request.lengthBytes < SYNC_RECORD_FIXED_BYTES) throw new DfsError('bad_request', 'the record is cut short')
  const fields = readSyncRecord(await request.body.bytes(SYNC_RECORD_FIXED_BYTES))
  if (fields.lineBytes > RECORD_BYTES_MAX) throw new DfsError('bad_request', 'the line is too long')
  const line = (await request.body.bytes(fields.lineBytes)).toString('latin1')
  const shipped = admitRecord(context, line, fields)
  const parts = shipped.file

  if (shipped.isOverruled) return skipRecord(context, request, shipped)
  if (fields.content === 'whole') return syncWhole(context, request, shipped, fields)
  if (fields.content !== 'file' || shipped.record.op === 'U') {
    await partials.take(shipped, 0)
    const { bodyLeft } = request.body
    const metadata = fields.content === 'file' ? await receiveMetadata(context, request, shipped, bodyLeft) : undefined
    // The order of records is the order of these calls: the next request is read only after this one.
    const applied = store.apply([{ shipped, content: metadata }])
    request.bodyTaken()
    await applied
    counts.applied++
    return { status: 0 }
  }
  const begun = await partials.take(shipped, fields.offset)
  if (begun === undefined && fields.offset > 0) throw new DfsError('unavailable', 'the file does not begin here')
  const file = begun ?? (await store.receive(parts.storePathIndex, request.body.bodyLeft, kindOf(shipped)))
  const receive = () => receiveFile(context, request, shipped, file, fields.crc32)
  await partials.receive(fields.storageId, receive, () => request.connection.drop())
  return applyFile(context, request, { shipped, content: file }, file.sizeBytes)
}

/** Takes note of a record that has no say any more; what comes with it is thrown away. */
async function skipRecord({ store, counts }: PortContext, request: FrameRequest, shipped: ShippedRecord) {
  await request.body.skipBody()
  const applied = store.apply([{ shipped, content: undefined }])
  request.bodyTaken()
  await applied
  counts.applied++
  return { status: 0 }
}

/** Applies all that a file is now, its metadata in front of it. */
async function syncWhole(
  context: PortContext,
  request: FrameRequest,
  shipped: ShippedRecord,
  { offset: metadataBytes, crc32 }: SyncRecordFields,
): Promise<FrameReply> {
  const { store, partials } = context
  const { body } = request
  if (metadataBytes > Math.min(METADATA_FILE_BYTES_MAX, body.bodyLeft))
    throw new DfsError('too_large', 'no file has so much metadata')
  await partials.take(shipped, 0)
  const metadata = metadataBytes === 0 ? undefined : await receiveMetadata(context, request, shipped, metadataBytes)
  const file = await store.receive(shipped.file.storePathIndex, body.bodyLeft, kindOf(shipped))
  await receiveFile(context, request, shipped, file, crc32).catch(async error => {
    await metadata?.discard()
    throw error
  })
  return applyFile(context, request, { shipped, content: file, metadata }, file.sizeBytes)
}

/** Gives what has come to the store; answers when it is durable. */
async function applyFile(
  { store, counts }: PortContext,
  request: FrameRequest,
  shipment: Shipment,
  sizeBytes: number,
): Promise<FrameReply> {
  store.counters.total_sync_in_bytes += sizeBytes
  // The order of records is the order of these calls: the next request is read only after this one.
  const applied = store.apply([shipment])
  request.bodyTaken()
  await applied
  counts.applied++
  counts.appliedBytes += sizeBytes
  store.counters.success_sync_in_bytes += sizeBytes
  return { status: 0 }
}

function kindOf({ file: { kind }, record }: ShippedRecord): FileKind {
  if (record.range !== undefined) return 'part'
  return kind === 'slave' || kind === 'appender' ? kind : 'plain'
}

async function receiveMetadata(
  { store }: PortContext,
  { body }: FrameRequest,
  { file, record }: ShippedRecord,
  bytes: number,
) {
  if (bytes > METADATA_FILE_BYTES_MAX) throw new DfsError('too_large', 'no file has so much metadata')
  const metadata = decodeMetadata(await body.copy(bytes))
  if (metadata === undefined) throw new DfsError('digest_mismatch', `the metadata of ${record.name} is damaged`)
  return store.receiveMetadata(file, metadata)
}

/** Receives and checks a file, or the rest of it. What a connection that breaks off leaves is kept for the next one. */
async function receiveFile(
  context: PortContext,
  { body }: FrameRequest,
  shipped: ShippedRecord,
  file: IncomingFile,
  sum: number,
) {
  try {
    await receiveInto(context, file, target => body.readBody(target))
    const { kind, sizeBytes, crc32 } = shipped.file
    if (kind === 'slave') checkContent(file, file.sizeBytes, sum)
    // An appender file may change while it is sent: what comes later makes it whole.
    else if (kind !== 'appender') checkContent(file, sizeBytes, crc32)
  } catch (error) {
    const isCutOff = error instanceof FrameCutError || error instanceof SocketError
    if (isCutOff && file.sizeBytes > 0) await context.partials.keep(shipped, file)
    else await file.discard()
    throw error
  }
}

/** Applies records that follow each other, 207; answers when all of them are durable. */
export async function syncRun(context: PortContext, request: FrameRequest): Promise<FrameReply> {
  expectPeer(request)
  const { store, counts, blocks } = context
  if (request.lengthBytes > RUN_BYTES_MAX) throw new DfsError('too_large', `a run has at most ${RUN_BYTES_MAX} bytes`)
  const buffer = await blocks.acquire(request.lengthBytes)
  try {
    const run = readSyncRun(buffer.subarray(0, await request.body.readBody(buffer)))
    if (run === undefined) throw new DfsError('bad_request', 'the run contradicts itself')
    const admitted = admitRun(context, run)
    await expectHeld(context, run)
    store.counters.total_sync_in_bytes += run.slots.length
    // The order of records is the order of these calls: the next request is read only after this one.
    const applied = store.apply(admitted)
    request.bodyTaken()
    await applied
    counts.applied += admitted.length
    counts.appliedBytes += run.slots.length
    store.counters.success_sync_in_bytes += run.slots.length
    return { status: 0 }
  } finally {
    blocks.release(buffer)
  }
}

/** What a peer has said that it has must still be here: it is not sent. */
async function expectHeld({ store }: PortContext, { records }: SyncRunFields): Promise<void> {
  for (const { line, content } of records) {
    if (content === 'held' && !(await store.has(decodeRecord(line)!.name)))
      throw new DfsError('unavailable', 'a file that was here is not any more')
  }
}

/** Checks everything about a run before anything of it is done. */
function admitRun(
  context: PortContext,
  { storageId, previous, records, slots }: SyncRunFields & { slots: Buffer },
): Shipment[] {
  let last = previous
  let at = 0
  const admitted = records.map(({ line, content }) => {
    const shipped = admitRecord(context, line, { storageId, content, previous: last })
    const { file } = shipped
    last = shipped.origin.sequence
    if (content !== 'file') return { shipped, content: undefined }
    const slot = slots.subarray(at, at + (file.slot?.slotBytes ?? 0))
    at += slot.length
    if (stateOf(slot, file) !== 'present')
      throw new DfsError('digest_mismatch', `${shipped.record.name} is not in its slot`)
    return { shipped, content: slot }
  })
  if (at !== slots.length) throw new DfsError('bad_request', 'the run has more bytes than its records')
  return admitted
}

/** Checks that a line is a record of the source that ships it. */
function admitRecord(
  context: PortContext,
  line: string,
  { storageId, content, previous }: { storageId: number; content: SyncContent; previous: number },
): ShippedRecord {
  const record = decodeRecord(line)
  if (record === undefined || record.origin !== undefined)
    throw new DfsError('bad_request', 'this is no record of a source')
  context.orderers.admitSession(storageId)
  const file = admitFile(context, record.name)
  // Of other sources' files it ships what it has ordered.
  if (file.storageId !== storageId && record.inSlot) throw new DfsError('forbidden', 'only its source may ship a file')
  const origin = { storageId, epoch: record.epoch, sequence: record.sequence }
  const isOverruled = hasNoSay(context, storageId, file, record)
  const shipped = { origin, previous, record, file, lacksFile: content === 'unreadable', isOverruled }
  if (!isOverruled && content !== 'whole' && content !== 'past' && content !== 'unreadable') return shipped
  return { ...shipped, record: { ...record, op: 'C', range: undefined } }
}

/**
 * Whether a record of a member is about what is ordered here: it ordered that once, and this member has taken over, or taken
 * back, with all that a majority had of it. Deletions of files that never change are for ever.
 */
function hasNoSay(
  { orderers, store }: PortContext,
  storageId: number,
  file: FileNameParts,
  { op }: BinlogRecord,
): boolean {
  if (file.storageId === storageId || (!mayChange(file) && op !== 'U')) return false
  return file.storageId !== undefined && orderers.ordererOf(file.storageId) === store.storageId
}

function expectPeer(request: FrameRequest): void {
  if (request.connection.role !== 'peer') throw new DfsError('unauthorized', 'only storage servers of the cluster sync')
}
