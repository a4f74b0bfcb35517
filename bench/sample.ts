/** Reads back a sample of what was written, and compares. No rate counts if the bytes are not there. */
import { crc32 } from '@node-rs/crc32'
import { writeDownload } from '../protocol/data-bodies.ts'
import { decodeFileName, parseFileId } from '../protocol/file-id.ts'
import { COMMANDS, frame } from '../protocol/frame.ts'
import type { Endpoint } from '../runtime/world.ts'
import { isContent } from './content.ts'
import { FrameLink } from './frame-link.ts'

/** FastDFS's word for "no such file": ENOENT. */
const NOT_FOUND = 2

/** Takes so many ids, spread evenly over all of them. */
export function sampleOf(ids: readonly string[], count: number): string[] {
  const step = Math.max(1, ids.length / count)
  return Array.from({ length: Math.min(count, ids.length) }, (_, i) => ids[Math.floor(i * step)]!)
}

/** Throws if a file cannot be read, or is not what was uploaded: by its bytes, its size, and the sum in its id. */
export async function checkFile(at: Endpoint, fileId: string, sizeBytes: number): Promise<void> {
  const { name } = parseFileId(fileId)
  const promised = decodeFileName(name)
  const read = await readFile(at, fileId)
  const { host, port } = at
  const problem =
    read.status !== 0
      ? `status ${read.status}`
      : read.bytes !== sizeBytes || (promised.sizeBytes ?? sizeBytes) !== sizeBytes
        ? `${read.bytes} bytes, and ${promised.sizeBytes} by its id, instead of ${sizeBytes}`
        : read.sum !== promised.crc32
          ? 'its sum is not the one in its id'
          : read.asUploaded
            ? undefined
            : 'its bytes are not those that were uploaded'
  if (problem !== undefined) throw new Error(`${fileId} from ${host}:${port}: ${problem}`)
}

/** Throws if a file that was deleted is still there. */
export async function checkGone(at: Endpoint, fileId: string): Promise<void> {
  const { status } = await readFile(at, fileId)
  if (status !== NOT_FOUND) throw new Error(`${fileId} was deleted, but ${at.host}:${at.port} says ${status}`)
}

/** Downloads one file without keeping it. */
function readFile(at: Endpoint, fileId: string) {
  const slash = fileId.indexOf('/')
  const wanted = { offset: 0, length: 0, group: fileId.slice(0, slash), name: fileId.slice(slash + 1) }
  return new Promise<{ status: number; bytes: number; sum: number; asUploaded: boolean }>((resolve, reject) => {
    let bytes = 0
    let sum = 0
    let asUploaded = true
    const link = new FrameLink(at, {
      onBody(piece) {
        asUploaded &&= isContent(piece, bytes)
        sum = crc32(piece, sum)
        bytes += piece.length
      },
      onReply(_, status) {
        resolve({ status, bytes, sum, asUploaded })
        link.close()
      },
      onEnd: () => reject(new Error(`${fileId}: ${at.host}:${at.port} ended the connection`)),
    })
    link.send(frame(COMMANDS.downloadFile, writeDownload(wanted)))
  })
}
