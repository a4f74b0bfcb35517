/** The receiving end of sync: takes the records of a source, with their files, and applies them in order. */
import { decodeRecord, RECORD_BYTES_MAX } from '../../protocol/binlog-record.ts'
import { DfsError } from '../../protocol/errors.ts'
import { decodeFileName } from '../../protocol/file-id.ts'
import {
  readSyncPosition,
  readSyncRecord,
  SYNC_POSITION_BYTES,
  SYNC_RECORD_FIXED_BYTES,
  writePeerPosition,
} from '../../protocol/sync-bodies.ts'
import type { FrameReply, FrameRequest } from '../../runtime/frame-server.ts'
import { checkContent } from '../../store/incoming-file.ts'
import type { PortContext } from './port-context.ts'
import { receiveInto } from './upload-file.ts'

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
  const source = await context.store.settleSource({ storageId, epoch: asking.epoch, incarnation: asking.incarnation })
  const { epoch, sequence } = context.store.position(storageId) ?? { epoch: 0, sequence: 0 }
  return { status: 0, parts: [writePeerPosition({ incarnation, epoch, sequence, source })] }
}

/** Applies one record, 206; answers when it is durable. The next one may be read as soon as this one's bytes are here. */
export async function syncRecord(context: PortContext, request: FrameRequest): Promise<FrameReply> {
  expectPeer(request)
  const { store, counts } = context
  if (request.lengthBytes < SYNC_RECORD_FIXED_BYTES) throw new DfsError('bad_request', 'the record is cut short')
  const fields = readSyncRecord(await request.body.bytes(SYNC_RECORD_FIXED_BYTES))
  if (fields.lineBytes > RECORD_BYTES_MAX) throw new DfsError('bad_request', 'the line is too long')
  const record = decodeRecord((await request.body.bytes(fields.lineBytes)).toString('latin1'))
  if (record === undefined || record.origin !== undefined)
    throw new DfsError('bad_request', 'this is no record of a source')
  const parts = decodeFileName(record.name)
  const { storageId, previous } = fields
  if (parts.storageId !== storageId) throw new DfsError('forbidden', 'only its source may ship a file')
  const origin = { storageId, epoch: record.epoch, sequence: record.sequence }

  if (fields.content !== 'file') {
    request.bodyTaken()
    await store.apply({ origin, previous, record, lacksFile: fields.content === 'unreadable' }, undefined)
    counts.applied++
    return { status: 0 }
  }
  const file = await store.receive(parts.storePathIndex, request.body.bodyLeft)
  await receiveInto(context, file, target => request.body.readBody(target))
  try {
    checkContent(file, parts.sizeBytes, parts.crc32)
  } catch (error) {
    await file.discard()
    throw error
  }
  const { sizeBytes } = file
  // The order of records is the order of these calls: the next request is read only after this one.
  const applied = store.apply({ origin, previous, record }, file)
  request.bodyTaken()
  await applied
  counts.applied++
  counts.appliedBytes += sizeBytes
  return { status: 0 }
}

function expectPeer(request: FrameRequest): void {
  if (request.connection.role !== 'peer') throw new DfsError('unauthorized', 'only storage servers of the cluster sync')
}
