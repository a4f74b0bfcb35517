/** Appender files: made like any file, and changed at their source. */
import {
  APPEND_FIXED_BYTES,
  MODIFY_FIXED_BYTES,
  readUploadFields,
  TRUNCATE_FIXED_BYTES,
  UPLOAD_FIXED_BYTES,
  writeGroupAndName,
} from '../../protocol/data-bodies.ts'
import { DfsError } from '../../protocol/errors.ts'
import { FILE_NAME_BYTES_MAX, type FileNameParts } from '../../protocol/file-id.ts'
import { COMMANDS, isSize, readInt64 } from '../../protocol/frame.ts'
import type { FrameReply, FrameRequest } from '../../runtime/frame-server.ts'
import { askAbout } from './absence.ts'
import { acknowledge, admitAck, answerChange } from './acknowledge.ts'
import { passOn } from './pass-on.ts'
import { admitFile, isForUs, type PortContext } from './port-context.ts'
import { admitUpload, receiveInto } from './upload-file.ts'

/** A name that is changed, and what was read of the request. */
interface Named {
  readonly name: string
  readonly file: FileNameParts
  readonly head: Buffer
}

/** FastDFS's upload of an appender file, 23. */
export async function uploadAppender(context: PortContext, request: FrameRequest): Promise<FrameReply> {
  const { body } = request
  if (body.bodyLeft < UPLOAD_FIXED_BYTES) throw new DfsError('bad_request', 'the upload is cut short')
  const { sizeBytes, extension, storePathIndex } = readUploadFields(await body.bytes(UPLOAD_FIXED_BYTES))
  if (sizeBytes !== body.bodyLeft) throw new DfsError('bad_request', 'the size and the body disagree')
  context.access.admitUpload(request.connection, undefined)
  admitUpload(context, { extension }, undefined)
  context.store.counters.total_upload_bytes += sizeBytes
  const file = await context.store.receive(storePathIndex, sizeBytes, 'appender')
  try {
    await receiveInto(context, file, target => body.readBody(target))
  } catch (error) {
    await file.discard()
    throw error
  }
  request.bodyTaken()
  const stored = await context.store.create(file, { extension, uploadId: undefined, isAppender: true })
  context.counts.uploads++
  context.counts.uploadBytes += sizeBytes
  context.store.counters.success_upload_bytes += sizeBytes
  return acknowledge(context, stored, undefined)
}

/** FastDFS's append, 24. */
export async function append(context: PortContext, request: FrameRequest): Promise<FrameReply> {
  const named = await readName(context, request, APPEND_FIXED_BYTES)
  return write(context, request, named, readInt64(named.head, 8), undefined)
}

/** FastDFS's modify, 34: bytes at an offset, which may lead beyond the end. */
export async function modify(context: PortContext, request: FrameRequest): Promise<FrameReply> {
  const named = await readName(context, request, MODIFY_FIXED_BYTES)
  return write(context, request, named, readInt64(named.head, 16), readInt64(named.head, 8))
}

/** FastDFS's truncate, 36. */
export async function truncate(context: PortContext, request: FrameRequest): Promise<FrameReply> {
  const named = await readName(context, request, TRUNCATE_FIXED_BYTES)
  const { name, file, head } = named
  const sizeBytes = readInt64(head, 8)
  if (request.body.bodyLeft > 0 || !isSize(sizeBytes)) throw new DfsError('bad_request', 'a size and a name are all')
  if (!isForUs(context, file)) return passOn(context, request, file, head)
  admitAck(context, undefined)
  request.bodyTaken()
  const { orderers, store } = context
  const isCut = await orderers.change(file.storageId, () => store.truncateAppender(name, sizeBytes))
  if (!isCut) await refuse(context, request, named)
  return answerChange(context, request, name)
}

/** FastDFS's regeneration of a name, 38: the appender file becomes a plain one. */
export async function regenerate(context: PortContext, request: FrameRequest): Promise<FrameReply> {
  const { store, orderers } = context
  const { lengthBytes, body } = request
  if (lengthBytes === 0 || lengthBytes > FILE_NAME_BYTES_MAX) throw new DfsError('bad_request', 'a name is all')
  const head = await body.bytes(lengthBytes)
  const name = head.toString('latin1')
  const file = admitFile(context, name)
  context.access.admit(request.connection, 'change', name)
  if (!isForUs(context, file)) return passOn(context, request, file, head)
  admitAck(context, undefined)
  request.bodyTaken()
  const stored = await orderers.change(file.storageId, () => store.regenerate(name))
  if (stored === undefined) return refuse(context, request, { name, file })
  return answerChange(context, request, stored.name, [writeGroupAndName(store.group, stored.name)])
}

async function write(
  context: PortContext,
  request: FrameRequest,
  named: Named,
  sizeBytes: number,
  offset: number | undefined,
): Promise<FrameReply> {
  const { store, orderers } = context
  const { body } = request
  const { name, file, head } = named
  const operation = offset === undefined ? 'append' : 'modify'
  const isSound = sizeBytes === body.bodyLeft && sizeBytes > 0 && (offset === undefined || isSize(offset))
  if (!isSound) throw new DfsError('bad_request', 'the size and the body disagree')
  if (file.kind !== 'appender') throw new DfsError('bad_request', 'this is not an appender file')
  if (!isForUs(context, file)) return passOn(context, request, file, head)
  admitAck(context, undefined)
  orderers.expectOrdering(file.storageId)
  if (!(await store.has(name))) return refuse(context, request, named)
  store.counters[`total_${operation}_bytes`] += sizeBytes
  const part = await store.receive(file.storePathIndex, sizeBytes, 'part')
  try {
    await receiveInto(context, part, target => body.readBody(target))
  } catch (error) {
    await part.discard()
    throw error
  }
  request.bodyTaken()
  const work = () => store.writeAppender(name, part, offset)
  const stored = await orderers.change(file.storageId, work, () => part.discard())
  if (stored === undefined) return refuse(context, request, named)
  store.counters[`success_${operation}_bytes`] += sizeBytes
  return answerChange(context, request, name)
}

/** Rejects, because the file is not here: with what is known of it. */
async function refuse(
  context: PortContext,
  request: FrameRequest,
  { name, file }: Pick<Named, 'name' | 'file'>,
): Promise<never> {
  const body = writeGroupAndName(context.store.group, name)
  await askAbout(context, request, { name, file }, client => client.request(COMMANDS.queryFileInfo, body))
  throw new DfsError('unavailable', 'this source has lost the file, which its peers still hold')
}

/** Reads a fixed part that begins with the length of a name, and the name behind it, which may be changed. */
async function readName(context: PortContext, { body, connection }: FrameRequest, fixedBytes: number): Promise<Named> {
  if (body.bodyLeft < fixedBytes) throw new DfsError('bad_request', 'the request is cut short')
  const fixed = await body.bytes(fixedBytes)
  const nameBytes = readInt64(fixed, 0)
  if (nameBytes <= 0 || nameBytes > Math.min(FILE_NAME_BYTES_MAX, body.bodyLeft))
    throw new DfsError('bad_request', 'the length of the name is not one')
  // The bytes are those of the reader until it reads on.
  const copy = Buffer.from(fixed)
  const head = Buffer.concat([copy, await body.bytes(nameBytes)])
  const name = head.toString('latin1', fixedBytes)
  const file = admitFile(context, name)
  context.access.admit(connection, 'change', name)
  return { name, file, head }
}
