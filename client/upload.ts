/** Plain files in: an upload goes to where a tracker says, once under its upload id, however often it is sent. */
import type { AckLevel, Receipt } from '../protocol/ack.ts'
import {
  readUploaded,
  UPLOAD_FIXED_BYTES,
  UPLOAD_HEAD_BYTES,
  type UploadHead,
  writeUploadFields,
  writeUploadHead,
  writeUploadStream,
} from '../protocol/data-bodies.ts'
import { DfsError, toDfsError } from '../protocol/errors.ts'
import { decodeFileName, formatFileId, isExtension } from '../protocol/file-id.ts'
import { COMMANDS } from '../protocol/frame.ts'
import { STORE_PATH_ANY } from '../protocol/storage-messages.ts'
import { type FrameClient, receiveWhole } from '../runtime/frame-client.ts'
import { deleteFile } from './changing-files.ts'
import type { FileFacts } from './read-file.ts'
import { LocalError } from './retry.ts'
import { type PlacementOptions, uploadPurpose } from './routes.ts'
import type { Servers, TransferOptions } from './servers.ts'
import { extensionFor, openSource, sendPieces, type UploadInput, type UploadSource } from './upload-source.ts'

export interface UploadOptions extends TransferOptions, PlacementOptions {
  /** Up to six characters, without the dot; taken from the path if there is one. */
  readonly extension?: string | undefined
  /** 32 hex digits: uploads with the same id are the same upload. Made at random if not given. */
  readonly uploadId?: string | undefined
  /** How many members hold the file before it is acknowledged; the storage server's own level if not given. */
  readonly ack?: AckLevel | undefined
  /** How long that may take once the file is stored, up to 10 s; 5 s if not given. */
  readonly ackTimeoutMs?: number | undefined
}

/** A file that is stored. */
export interface Uploaded extends FileFacts {
  readonly receipt: Receipt
}

/** See `Client.upload`. */
export async function upload(servers: Servers, input: UploadInput, options: UploadOptions): Promise<Uploaded> {
  const extension = extensionFor(input, options)
  if (!isExtension(extension)) throw new DfsError('bad_request', `the extension ${extension} cannot be kept`)
  const source = await openSource(servers.world.disk, input)
  try {
    let uploadId = options.uploadId ?? servers.routes.newUploadId()
    const isRepeatable = () => source.repeatable
    const attempt = async () => {
      try {
        return await uploadOnce(servers, source, options, { extension, uploadId })
      } catch (error) {
        // The name that this upload id stands for is not our file's: the next attempt is another upload.
        if (toDfsError(error).code === 'digest_mismatch') uploadId = servers.routes.newUploadId()
        throw error
      }
    }
    return await servers.retry(options, attempt, isRepeatable)
  } finally {
    await source.close()
  }
}

async function uploadOnce(
  servers: Servers,
  source: UploadSource,
  options: UploadOptions,
  { extension, uploadId }: { extension: string; uploadId: string },
): Promise<Uploaded> {
  const { ack, ackTimeoutMs } = options
  const { routes } = servers
  const route = await routes.forUpload(options, uploadId)
  const pool = ack === undefined || ack === 'one' ? undefined : servers.waitingPool
  let sent: { crc32: number; sizeBytes: number } | undefined
  let ours: unknown
  const sendAll = async (send: (piece: Uint8Array) => Promise<void>) => {
    try {
      sent = await sendPieces(source, options, send)
    } catch (error) {
      if (error instanceof LocalError) ours = error
      throw error
    }
  }
  const send = (client: FrameClient) => sendUpload(client, source, { extension, uploadId, ack, ackTimeoutMs }, sendAll)
  const purpose = uploadPurpose(route.group, routes.isOwn(uploadId) ? undefined : uploadId)
  const answer = await servers.onFirst(route.servers, send, purpose, pool).catch(error => {
    if (toDfsError(error).code === 'ack_timeout') routes.keep(uploadId, route)
    throw ours ?? error
  })
  const { receipt, ...id } = readUploaded(answer)
  const fileId = formatFileId(id)
  const stored = decodeFileName(id.name)
  if (stored.crc32 !== sent?.crc32 || stored.sizeBytes !== sent.sizeBytes) {
    await deleteFile(servers, fileId, {}).catch(ignore)
    throw new DfsError('digest_mismatch', 'the server stored other bytes than were sent')
  }
  return { fileId, sizeBytes: sent.sizeBytes, crc32: sent.crc32, receipt }
}

/** One upload on one connection: with its size in front, or in data frames if nobody knows the size yet. */
async function sendUpload(
  client: FrameClient,
  source: UploadSource,
  { extension, uploadId, ack, ackTimeoutMs }: UploadHead & { extension: string },
  sendAll: (send: (piece: Uint8Array) => Promise<void>) => Promise<void>,
): Promise<Buffer> {
  const head: UploadHead = { uploadId, ack, ackTimeoutMs }
  const { sizeBytes } = source
  if (sizeBytes !== undefined) {
    const fields = writeUploadFields({ storePathIndex: STORE_PATH_ANY, sizeBytes, extension })
    const first: Buffer[] = [writeUploadHead(head), fields]
    return client.exchange(
      COMMANDS.uploadOnce,
      UPLOAD_HEAD_BYTES + UPLOAD_FIXED_BYTES + sizeBytes,
      async send => {
        await sendAll(piece => send([...first.splice(0), piece]))
        if (first.length > 0) await send(first.splice(0))
      },
      receiveWhole,
    )
  }
  return client.exchangeStream(
    COMMANDS.uploadStream,
    writeUploadStream({ uploadId, ack, ackTimeoutMs, storePathIndex: STORE_PATH_ANY, extension }),
    COMMANDS.data,
    sendAll,
  )
}

function ignore(): void {}
