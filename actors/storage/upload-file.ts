/** Takes an upload: a small one from the socket to a slot, others to a temporary file; then to the store, to a name. */
import { crc32 } from '@node-rs/crc32'
import {
  EXTENSION_FIELD_BYTES,
  extensionError,
  readUploadFields,
  readUploadHead,
  UPLOAD_FIXED_BYTES,
  UPLOAD_HEAD_BYTES,
  UPLOAD_STREAM_BYTES,
  type UploadFields,
  type UploadHead,
} from '../../protocol/data-bodies.ts'
import { DfsError } from '../../protocol/errors.ts'
import { COMMANDS, readString } from '../../protocol/frame.ts'
import type { FrameReader } from '../../runtime/frame-reader.ts'
import type { FrameReply, FrameRequest } from '../../runtime/frame-server.ts'
import { isFull } from '../../runtime/world.ts'
import { PIECE_BYTES } from '../../store/block-pool.ts'
import type { IncomingFile } from '../../store/incoming-file.ts'
import { SLOT_HEADER_BYTES, slotBytesFor } from '../../store/slot.ts'
import type { Stored } from '../../store/store.ts'
import { acknowledge, admitAck } from './acknowledge.ts'
import type { PortContext } from './port-context.ts'

/** Fills a buffer with the next bytes of an upload; fewer than it holds only at the end. */
export type UploadBody = (target: Buffer) => Promise<number>

/** Pieces on their way to the disk while the next one is received: more only take memory. */
const WRITES_MAX = 2

/** FastDFS's upload, 11: the size comes first. */
export function uploadFile(context: PortContext, request: FrameRequest, head?: UploadHead): Promise<FrameReply> {
  const { body } = request
  if (body.bodyLeft < UPLOAD_FIXED_BYTES) throw new DfsError('bad_request', 'the upload is cut short')
  const fixed = body.bytesHere(UPLOAD_FIXED_BYTES)
  if (fixed !== undefined) return uploadSized(context, request, readUploadFields(fixed), head)
  const late = body.bytes(UPLOAD_FIXED_BYTES)
  return late.then(bytes => uploadSized(context, request, readUploadFields(bytes), head))
}

async function uploadSized(
  context: PortContext,
  request: FrameRequest,
  fields: UploadFields,
  head: UploadHead | undefined,
): Promise<FrameReply> {
  const { body } = request
  context.access.admitUpload(request.connection, head?.uploadId ?? '')
  if (fields.sizeBytes !== body.bodyLeft) throw new DfsError('bad_request', 'the size and the body disagree')
  admitUpload(context, fields, head)
  const uploadId = head?.uploadId
  const stored = context.store.packs(fields.sizeBytes)
    ? await uploadSmall(context, request, fields, uploadId)
    : await upload(context, request, fields, uploadId, target => body.readBody(target))
  return acknowledge(context, stored, head)
}

/** One that goes into a segment is received as a whole, into the slot that it will have. */
async function uploadSmall(
  context: PortContext,
  request: FrameRequest,
  fields: UploadFields,
  uploadId: string | undefined,
): Promise<Stored> {
  const { store, blocks, counts } = context
  const { sizeBytes, extension, storePathIndex } = fields
  const slotBytes = slotBytesFor(sizeBytes)
  const slot = blocks.tryAcquire(slotBytes) ?? (await blocks.acquire(slotBytes))
  try {
    const content = slot.subarray(SLOT_HEADER_BYTES, SLOT_HEADER_BYTES + sizeBytes)
    const here = request.body.readBodyHere(content)
    if (here < sizeBytes) await request.body.readBody(content.subarray(here))
    request.bodyTaken()
    store.counters.total_upload_bytes += sizeBytes
    const stored = await store.pack(slot, { storePathIndex, sizeBytes, crc32: crc32(content), extension, uploadId })
    counts.uploads++
    counts.uploadBytes += sizeBytes
    store.counters.success_upload_bytes += sizeBytes
    return stored
  } finally {
    blocks.release(slot)
  }
}

/** Our own upload, 202: the same behind a head, so that it may be sent again, and says who has to hold it. */
export async function uploadOnce(context: PortContext, request: FrameRequest): Promise<FrameReply> {
  if (request.lengthBytes < UPLOAD_HEAD_BYTES) throw new DfsError('bad_request', 'the upload is cut short')
  return uploadFile(context, request, readUploadHead(await request.body.bytes(UPLOAD_HEAD_BYTES)))
}

/** An upload whose length nobody knows yet, 203: data frames follow until an empty one. */
export async function uploadStream(context: PortContext, request: FrameRequest): Promise<FrameReply> {
  if (request.lengthBytes !== UPLOAD_STREAM_BYTES) throw new DfsError('bad_request', 'the upload is cut short')
  const fixed = await request.body.bytes(UPLOAD_STREAM_BYTES)
  const extension = readString(fixed, UPLOAD_HEAD_BYTES + 1, EXTENSION_FIELD_BYTES)
  const fields = { storePathIndex: fixed[UPLOAD_HEAD_BYTES]!, sizeBytes: 0, extension }
  try {
    const head = readUploadHead(fixed)
    context.access.admitUpload(request.connection, head.uploadId)
    admitUpload(context, fields, head)
    const stored = await upload(context, request, fields, head.uploadId, dataFrames(request.body))
    return await acknowledge(context, stored, head)
  } catch (error) {
    // Data frames that are still coming belong to nothing any more.
    request.connection.endAfterReplies()
    throw error
  }
}

/** Throws if uploads are not taken now, or not with such an extension. */
export function admitUpload(
  context: PortContext,
  { extension }: Pick<UploadFields, 'extension'>,
  head: UploadHead | undefined,
): void {
  const refused = context.uploadsRefused()
  if (refused !== undefined) throw new DfsError('unavailable', refused)
  const wrong = extensionError(extension)
  if (wrong !== undefined) throw wrong
  admitAck(context, head)
}

async function upload(
  context: PortContext,
  request: FrameRequest,
  fields: UploadFields,
  uploadId: string | undefined,
  body: UploadBody,
): Promise<Stored> {
  const { store, counts } = context
  const { extension } = fields
  const file = await store.receive(fields.storePathIndex, fields.sizeBytes)
  try {
    await receiveInto(context, file, body)
  } catch (error) {
    await file.discard()
    throw error
  }
  request.bodyTaken()
  const { sizeBytes } = file
  store.counters.total_upload_bytes += sizeBytes
  const stored = await store.create(file, { extension, uploadId })
  counts.uploads++
  counts.uploadBytes += sizeBytes
  store.counters.success_upload_bytes += sizeBytes
  return stored
}

/**
 * Moves a body into a temporary file; while the last pieces are written, the next is received. When it rejects, nothing is
 * under way any more; of what broke off, the file has full blocks.
 */
export async function receiveInto({ blocks }: PortContext, file: IncomingFile, body: UploadBody): Promise<void> {
  const writing: Promise<void>[] = []
  const waitUntilLeft = async (count: number) => {
    for (; writing.length > count; writing.shift()) await writing[0]
  }
  try {
    for (let isMore = true; isMore; ) {
      await waitUntilLeft(WRITES_MAX)
      let piece = blocks.trySpare()
      if (piece === undefined) {
        // Whoever holds a buffer must not wait for one.
        await waitUntilLeft(0)
        piece = await blocks.acquirePiece(PIECE_BYTES)
      }
      const count = await body(piece).catch(error => {
        blocks.release(piece)
        throw error
      })
      const written = file.write(piece.subarray(0, count)).finally(() => blocks.release(piece))
      // The rejection is for those who wait; until then nobody else looks.
      written.catch(ignore)
      writing.push(written)
      isMore = count === piece.length
    }
    await waitUntilLeft(0)
  } catch (error) {
    // A write that failed says more than a connection that broke.
    const failed = (await Promise.allSettled(writing)).find(({ status }) => status === 'rejected')
    throw spaceError(failed === undefined ? error : (failed as PromiseRejectedResult).reason)
  }
}

/** Reads the bodies of data frames one after another. */
function dataFrames(reader: FrameReader): UploadBody {
  let ended = false
  return async target => {
    let filled = 0
    while (!ended && filled < target.length) {
      if (reader.bodyLeft === 0) {
        const next = await reader.nextFrame()
        if (next?.command !== COMMANDS.data) throw new DfsError('bad_request', 'a data frame was expected')
        if (next.lengthBytes === 0) ended = true
      }
      filled += await reader.readBody(target.subarray(filled))
    }
    return filled
  }
}

/** A disk that filled up in the middle is no bug. */
function spaceError(error: unknown): unknown {
  return isFull(error) ? new DfsError('no_space', undefined, { cause: error }) : error
}

function ignore(): void {}
