/** Files by NATS message: each request is answered through the same client that everybody uses. */
import type { Client } from '../../client/client.ts'
import type { FileDetails } from '../../client/read-file.ts'
import type { UploadOptions } from '../../client/upload.ts'
import { ACK_LEVELS } from '../../protocol/ack.ts'
import { encode } from '../../protocol/codec.ts'
import { DfsError } from '../../protocol/errors.ts'
import { fileDelete, fileDownload, fileInfo, fileUpload, UPLOAD_HEADERS } from '../../protocol/file-messages.ts'
import { admit, type ReplyOf, type RequestDefinition, subjectOf } from '../../protocol/message.ts'
import type { Bus, BusHeaders } from '../../runtime/bus.ts'
import { contentType, encodingAskedFor, endpointName, failRequest, serve } from '../../runtime/endpoint.ts'
import type { Log } from '../../runtime/log.ts'
import type { MicroRequest, MicroService } from '../../runtime/micro-service.ts'

/** Each holds up to one payload in memory: 64 MiB. */
const REQUESTS_MAX = 64

/** Room left in a payload for our headers. */
const HEADERS_BYTES = 1024

const UPLOAD_ID = /^[0-9a-f]{32}$/
const MILLISECONDS = /^[1-9]\d{0,8}$/

export interface FileServiceContext {
  readonly client: Client
  readonly bus: Bus
  readonly service: MicroService
  readonly prefix: string
  readonly log: Log
}

/** Serves `dfs.file.<op>` and the short `dfs.<op>`. */
export function serveFiles(context: FileServiceContext): void {
  let underWay = 0
  const bounded = async <T>(work: () => Promise<T>): Promise<T> => {
    if (underWay >= REQUESTS_MAX) throw new DfsError('busy', `this gateway has ${REQUESTS_MAX} files in its hands`)
    underWay++
    try {
      return await work()
    } finally {
      underWay--
    }
  }
  const { client, service, log } = context
  for (const { name, subject } of addresses(context, fileUpload)) {
    service.endpoint({ name, subject }, request => upload(context, request, bounded))
  }
  for (const { name, subject } of addresses(context, fileDownload)) {
    service.endpoint({ name, subject }, request => download(context, request, bounded))
  }
  for (const { name, subject } of addresses(context, fileInfo)) {
    serve(service, fileInfo, subject, log, ({ fileId }) => bounded(async () => infoOf(await client.info(fileId))), {
      name,
    })
  }
  for (const { name, subject } of addresses(context, fileDelete)) {
    const remove = async (fileId: string) => {
      await client.delete(fileId)
      return { fileId }
    }
    serve(service, fileDelete, subject, log, ({ fileId }) => bounded(() => remove(fileId)), { name })
  }
}

/** The subject under `dfs.file`, and the short one for people's hands. */
function addresses({ prefix }: FileServiceContext, definition: RequestDefinition) {
  const name = endpointName(definition.name)
  return [
    { name, subject: subjectOf(definition, { prefix }) },
    { name: `short-${name}`, subject: `${prefix}.${name}` },
  ]
}

type Bounded = <T>(work: () => Promise<T>) => Promise<T>

async function upload(context: FileServiceContext, request: MicroRequest, bounded: Bounded): Promise<void> {
  const { headers, payload } = request.message
  const encoding = encodingAskedFor(headers)
  try {
    const group = headers[UPLOAD_HEADERS.group]
    const uploadId = headers[UPLOAD_HEADERS.uploadId]
    if (uploadId !== undefined && !UPLOAD_ID.test(uploadId)) {
      throw new DfsError('bad_request', `${UPLOAD_HEADERS.uploadId} has 32 hex digits`)
    }
    const extension = headers[UPLOAD_HEADERS.extension] ?? ''
    const options = { group, uploadId, extension, ...ackOf(headers) }
    const stored = await bounded(() => context.client.upload(payload, options))
    const info = await context.client.locate(stored.fileId)
    const { createTimeS, source } = info
    const reply: ReplyOf<typeof fileUpload> = { ...stored, createTimeS, ...(source === undefined ? {} : { source }) }
    request.respond(encode(reply, encoding), contentType(encoding))
  } catch (error) {
    failRequest(request, error, encoding, context.log)
  }
}

/** What an upload asks for of its acknowledgement. Throws `bad_request`. */
function ackOf(headers: BusHeaders): Pick<UploadOptions, 'ack' | 'ackTimeoutMs'> {
  const { [UPLOAD_HEADERS.ack]: level, [UPLOAD_HEADERS.ackTimeout]: timeout } = headers
  const ack = ACK_LEVELS.find(known => known === level)
  if (level !== ack) throw new DfsError('bad_request', `${UPLOAD_HEADERS.ack} is one of ${ACK_LEVELS.join(', ')}`)
  if (timeout !== undefined && !MILLISECONDS.test(timeout)) {
    throw new DfsError('bad_request', `${UPLOAD_HEADERS.ackTimeout} is a number of milliseconds`)
  }
  return { ack, ackTimeoutMs: timeout === undefined ? undefined : Number(timeout) }
}

async function download(context: FileServiceContext, request: MicroRequest, bounded: Bounded): Promise<void> {
  const { headers, payload } = request.message
  let encoding = encodingAskedFor(headers, payload)
  try {
    const admitted = admit(fileDownload.request, payload)
    encoding = admitted.encoding
    const { fileId, offset = 0, length } = admitted.value
    await bounded(async () => {
      const { sizeBytes } = await context.client.info(fileId)
      const wanted = Math.max(0, Math.min(length ?? sizeBytes, sizeBytes - offset))
      const limit = context.bus.payloadBytesMax - HEADERS_BYTES
      if (wanted > limit)
        throw new DfsError('too_large', `one message carries ${limit} bytes: ask for ranges with offset and length`)
      const bytes = await context.client.download(fileId, { offset, length: length === undefined ? undefined : wanted })
      request.respond(bytes, {
        'Content-Type': 'application/octet-stream',
        'Dfs-Size': String(sizeBytes),
        'Dfs-Offset': String(offset),
      })
    })
  } catch (error) {
    failRequest(request, error, encoding, context.log)
  }
}

function infoOf({ fileId, sizeBytes, crc32, createTimeS, source }: FileDetails): ReplyOf<typeof fileInfo> {
  return { fileId, sizeBytes, crc32, createTimeS, ...(source === undefined ? {} : { source }) }
}
