/** A storage server's data port as tests use it: one file at a time, whole. */
import { readGroupAndName, writeDownload, writeUploadFields } from '../protocol/data-bodies.ts'
import { formatFileId, parseFileId } from '../protocol/file-id.ts'
import { COMMANDS } from '../protocol/frame.ts'
import { STORE_PATH_ANY } from '../protocol/storage-messages.ts'
import type { FrameClient } from '../runtime/frame-client.ts'

/** The body of an upload; what `uploadOnce` has in front of it is the caller's. */
export function uploadBody(content: Buffer, extension = 'bin'): Buffer {
  return Buffer.concat([
    writeUploadFields({ storePathIndex: STORE_PATH_ANY, sizeBytes: content.length, extension }),
    content,
  ])
}

/** Uploads a file as FastDFS's clients do; its id. */
export async function uploadFile(connection: FrameClient, content: Buffer): Promise<string> {
  return formatFileId(readGroupAndName(await connection.request(COMMANDS.uploadFile, uploadBody(content, 'txt'))))
}

/** Downloads a file, or a range of it. Rejects with the server's DfsError. */
export function fetchFile(
  connection: FrameClient,
  fileId: string,
  { offset = 0, length = 0, status = 0 } = {},
): Promise<Buffer> {
  const { group, name } = parseFileId(fileId)
  const request = writeDownload({ group, name, offset, length })
  return connection.exchange(
    COMMANDS.downloadFile,
    request.length,
    send => send([request]),
    async (body, { lengthBytes }) => {
      const content = Buffer.allocUnsafe(lengthBytes)
      await body.readBody(content)
      return content
    },
    status,
  )
}
