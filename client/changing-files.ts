/** Files that change: what is deleted, and slave and appender files, whose bytes go to who orders their changes. */
import {
  readGroupAndName,
  writeChange,
  writeGroupAndName,
  writeSlave,
  writeUploadFields,
} from '../protocol/data-bodies.ts'
import { toDfsError } from '../protocol/errors.ts'
import { formatFileId, parseFileId, slaveNameOf } from '../protocol/file-id.ts'
import { COMMANDS } from '../protocol/frame.ts'
import { STORE_PATH_ANY } from '../protocol/storage-messages.ts'
import { type BodySource, type FrameClient, receiveWhole } from '../runtime/frame-client.ts'
import { type FileFacts, fileInfo } from './read-file.ts'
import { LocalError } from './retry.ts'
import { type PlacementOptions, uploadPurpose } from './routes.ts'
import type { RequestOptions, Servers, TransferOptions } from './servers.ts'
import { extensionFor, openSource, sendPieces, type UploadInput, type UploadSource } from './upload-source.ts'

export interface SlaveOptions extends TransferOptions {
  readonly prefix: string
  readonly extension?: string | undefined
}

export interface AppenderOptions extends TransferOptions, PlacementOptions {
  readonly extension?: string | undefined
}

/** See `Client.delete`. */
export async function deleteFile(servers: Servers, fileId: string, options: RequestOptions): Promise<void> {
  const { group, name } = parseFileId(fileId)
  const body = writeGroupAndName(group, name)
  await servers.retry(options, async count => {
    try {
      await servers.onOrderer(fileId, (client, status) => client.request(COMMANDS.deleteFile, body, status))
    } catch (error) {
      // The answer to an earlier attempt was lost, not the deletion.
      if (count === 0 || toDfsError(error).code !== 'not_found') throw error
      servers.changes.noteUnplaced(fileId)
    }
  })
}

/** See `Client.uploadSlave`. */
export async function uploadSlave(
  servers: Servers,
  masterId: string,
  input: UploadInput,
  options: SlaveOptions,
): Promise<FileFacts> {
  const { group, name: masterName } = parseFileId(masterId)
  const extension = extensionFor(input, options)
  const fileId = formatFileId({ group, name: slaveNameOf(masterName, options.prefix, extension) })
  return sendAgain(servers, input, options, async (source, sizeBytes, count) => {
    const head = writeSlave({ sizeBytes, prefix: options.prefix, extension }, masterName)
    let sum = 0
    const note = (sent: { crc32: number }) => {
      sum = sent.crc32
    }
    try {
      await servers.onOrderer(masterId, sendBody(COMMANDS.uploadSlave, head, source, sizeBytes, options, note), fileId)
    } catch (error) {
      // The answer to an earlier attempt was lost, not the file.
      const mayBeOurs = count > 0 && toDfsError(error).code === 'already_exists'
      const found = mayBeOurs ? await fileInfo(servers, fileId, options) : undefined
      if (found?.sizeBytes !== sizeBytes || found.crc32 !== sum) throw error
      servers.changes.noteUnplaced(fileId)
    }
    return { fileId, sizeBytes, crc32: sum }
  })
}

/** See `Client.uploadAppender`. */
export async function uploadAppender(
  servers: Servers,
  input: UploadInput,
  options: AppenderOptions,
): Promise<{ fileId: string }> {
  const extension = extensionFor(input, options)
  const answer = await sendAgain(servers, input, options, async (source, sizeBytes) => {
    const { routes } = servers
    const route = await routes.forUpload(options, routes.newUploadId())
    const head = writeUploadFields({ storePathIndex: STORE_PATH_ANY, sizeBytes, extension })
    const send = sendBody(COMMANDS.uploadAppender, head, source, sizeBytes, options)
    return servers.onFirst(route.servers, send, uploadPurpose(route.group))
  })
  return { fileId: formatFileId(readGroupAndName(answer)) }
}

/** See `Client.append`. */
export async function append(
  servers: Servers,
  fileId: string,
  input: UploadInput,
  options: TransferOptions,
): Promise<void> {
  const { name } = parseFileId(fileId)
  const fromSource = { signal: options.signal, onRetry: options.onRetry, consistency: 'strong' } as const
  let before: number | undefined
  await sendAgain(servers, input, options, async (source, sizeBytes, count) => {
    const there = (await fileInfo(servers, fileId, fromSource)).sizeBytes
    if (count > 0 && before !== undefined) {
      if (there === before + sizeBytes) {
        servers.changes.noteUnplaced(fileId)
        return
      }
    } else before = there
    const head = writeChange(name, sizeBytes)
    await servers.onOrderer(fileId, sendBody(COMMANDS.append, head, source, sizeBytes, options))
  })
}

/** See `Client.modify`. */
export async function modify(
  servers: Servers,
  fileId: string,
  offset: number,
  input: UploadInput,
  options: TransferOptions,
): Promise<void> {
  const { name } = parseFileId(fileId)
  await sendAgain(servers, input, options, (source, sizeBytes) => {
    const head = writeChange(name, offset, sizeBytes)
    return servers.onOrderer(fileId, sendBody(COMMANDS.modify, head, source, sizeBytes, options))
  })
}

/** Does something with a source of known size, again if that may help. */
async function sendAgain<T>(
  servers: Servers,
  input: UploadInput,
  options: RequestOptions,
  attempt: (source: UploadSource, sizeBytes: number, count: number) => Promise<T>,
): Promise<T> {
  const source = await openSource(servers.world.disk, input)
  try {
    const { sizeBytes } = source
    if (sizeBytes === undefined) throw new LocalError('the size of the input has to be known', { cause: undefined })
    const isRepeatable = () => source.repeatable
    return await servers.retry(options, count => attempt(source, sizeBytes, count), isRepeatable)
  } finally {
    await source.close()
  }
}

/** Sends a request whose body is a head and all of a source; `onSent` hears what the source was. */
function sendBody(
  command: number,
  head: Buffer,
  source: UploadSource,
  sizeBytes: number,
  options: TransferOptions,
  onSent?: (sent: { crc32: number }) => void,
): (client: FrameClient, status?: number) => Promise<Buffer> {
  const sendAll: BodySource = async send => {
    await send([head])
    const sent = await sendPieces(source, options, piece => send([piece]))
    onSent?.(sent)
  }
  return (client, status) => client.exchange(command, head.length + sizeBytes, sendAll, receiveWhole, status)
}
