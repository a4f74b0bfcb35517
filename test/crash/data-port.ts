/** The data port as the crash tests use it: one file at a time, whole. */
import { writeDownload, writeUploadFields } from '../../protocol/data-bodies.ts'
import { parseFileId } from '../../protocol/file-id.ts'
import { COMMANDS } from '../../protocol/frame.ts'
import { STORE_PATH_ANY } from '../../protocol/storage-messages.ts'
import type { FrameClient } from '../../runtime/frame-client.ts'

/** The body of an upload; what `uploadOnce` has in front of it is the caller's. */
export function uploadBody(content: Buffer, extension = 'bin'): Buffer {
  return Buffer.concat([
    writeUploadFields({ storePathIndex: STORE_PATH_ANY, sizeBytes: content.length, extension }),
    content,
  ])
}

/** Downloads a file. Rejects with the server's DfsError. */
export function downloadWhole(connection: FrameClient, fileId: string): Promise<Buffer> {
  const request = writeDownload({ ...parseFileId(fileId), offset: 0, length: 0 })
  return connection.exchange(
    COMMANDS.downloadFile,
    request.length,
    send => send([request]),
    async (body, { lengthBytes }) => {
      const content = Buffer.alloc(lengthBytes)
      await body.readBody(content)
      return content
    },
  )
}
