/** Files out: what is known of one, and its bytes, from whoever may answer. */
import { crc32 } from '@node-rs/crc32'
import { readFileInfo, writeDownload } from '../protocol/data-bodies.ts'
import { DfsError } from '../protocol/errors.ts'
import { decodeFileName, parseFileId } from '../protocol/file-id.ts'
import { COMMANDS } from '../protocol/frame.ts'
import type { FrameClient } from '../runtime/frame-client.ts'
import type { ReadOptions, Servers, TransferOptions } from './servers.ts'
import { PIECE_BYTES } from './upload-source.ts'

/** What a file id stands for. */
export interface FileFacts {
  readonly fileId: string
  readonly sizeBytes: number
  readonly crc32: number
}

/** What is known of a file that is there. */
export interface FileDetails extends FileFacts {
  readonly createTimeS: number
  /** The storage id of the source, unless the id names an address. */
  readonly source: number | undefined
}

export interface DownloadOptions extends TransferOptions, ReadOptions {
  readonly offset?: number | undefined
  /** To the end if not given. */
  readonly length?: number | undefined
}

/** Takes the pieces of a download, in order; the buffer is reused after the promise resolves. */
export type Sink = (piece: Buffer) => Promise<void>

/** See `Client.info`. */
export async function fileInfo(servers: Servers, fileId: string, options: ReadOptions): Promise<FileDetails> {
  const { sizeBytes, mtimeS, crc32: sum } = readFileInfo(await servers.read(COMMANDS.queryFileInfo, fileId, options))
  const source = decodeFileName(parseFileId(fileId).name).storageId
  return { fileId, sizeBytes, crc32: sum, createTimeS: mtimeS, source }
}

/** See `Client.downloadTo`. */
export async function downloadTo(
  servers: Servers,
  fileId: string,
  options: DownloadOptions,
  sink: Sink,
): Promise<{ bytes: number }> {
  const { group, name } = parseFileId(fileId)
  const parts = decodeFileName(name)
  const { offset = 0, length } = options
  if (length === 0) return { bytes: 0 }
  let bytes = 0
  let sum = 0
  let total = length
  await servers.retry(options, async () => {
    // Nothing is left after the piece in which the last server failed: a range of length 0 would mean "all".
    if (bytes > 0 && bytes === total) return
    const begun = bytes
    const left = length === undefined ? 0 : length - begun
    await servers.onReaders(fileId, options, (client, status) =>
      fetchRange(client, { group, name, offset: offset + begun, length: left, status }, async (piece, lengthBytes) => {
        options.signal?.throwIfAborted()
        total = begun + lengthBytes
        sum = crc32(piece, sum)
        await sink(piece)
        bytes += piece.length
        options.onProgress?.({ bytes, totalBytes: total })
      }),
    )
  })
  const whole = offset === 0 && length === undefined && parts.sizeBytes !== undefined
  if (whole && (sum !== parts.crc32 || bytes !== parts.sizeBytes)) {
    throw new DfsError('digest_mismatch', `${fileId}: got ${bytes} bytes with CRC32 ${sum.toString(16)}`)
  }
  return { bytes }
}

async function fetchRange(
  client: FrameClient,
  wanted: { group: string; name: string; offset: number; length: number; status: number },
  take: (piece: Buffer, lengthBytes: number) => Promise<void>,
): Promise<void> {
  const request = writeDownload(wanted)
  let ours: unknown
  const fetched = client.exchange(
    COMMANDS.downloadFile,
    request.length,
    send => send([request]),
    async (body, { lengthBytes }) => {
      const buffer = Buffer.allocUnsafeSlow(Math.min(lengthBytes, PIECE_BYTES))
      while (body.bodyLeft > 0) {
        const piece = buffer.subarray(0, await body.readBody(buffer))
        try {
          await take(piece, lengthBytes)
        } catch (error) {
          ours = error
          throw error
        }
      }
    },
    wanted.status,
  )
  await fetched.catch(error => Promise.reject(ours ?? error))
}
