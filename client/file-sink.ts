/** A download into a file: it grows beside its name, and takes its name when it is whole and checked. */
import { crc32 } from '@node-rs/crc32'
import { DfsError, toDfsError } from '../protocol/errors.ts'
import { decodeFileName, parseFileId } from '../protocol/file-id.ts'
import type { Disk, DiskFile } from '../runtime/world.ts'
import type { Client } from './client.ts'
import { LocalError } from './retry.ts'
import type { ReadOptions, TransferOptions } from './servers.ts'
import { PIECE_BYTES } from './upload-source.ts'

export async function writeFile(
  client: Client,
  disk: Disk,
  fileId: string,
  path: string,
  options: TransferOptions & ReadOptions & { continue?: boolean },
): Promise<{ bytes: number }> {
  const { sizeBytes, crc32: expected } = decodeFileName(parseFileId(fileId).name)
  const { signal, consistency } = options
  const partial = `${path}.part`
  // A rename would put a file in the place of a device.
  const target = await disk.stat(path)
  if (target !== undefined && target.kind !== 'file') {
    throw new LocalError(`${path} is not a regular file`, { cause: undefined })
  }
  const file = await openPartial(disk, partial, options.continue === true)
  let bytes = 0
  try {
    const there = await sumOf(file, sizeBytes)
    let { sum } = there
    bytes = there.bytes
    if (sizeBytes === undefined || bytes < sizeBytes) {
      const done = bytes
      const onProgress = (progress: { bytes: number; totalBytes: number | undefined }) =>
        options.onProgress?.({
          bytes: done + progress.bytes,
          totalBytes: progress.totalBytes === undefined ? undefined : done + progress.totalBytes,
        })
      await client.downloadTo(fileId, { offset: done, signal, consistency, onProgress }, async piece => {
        sum = crc32(piece, sum)
        await file
          .write([piece], bytes)
          .catch(cause => Promise.reject(new LocalError(`cannot write ${partial}`, { cause })))
        bytes += piece.length
      })
    }
    if (sizeBytes !== undefined && (bytes !== sizeBytes || sum !== expected)) {
      throw new DfsError('digest_mismatch', `${fileId}: got ${bytes} bytes with CRC32 ${sum.toString(16)}`)
    }
    await disk.rename(partial, path)
    return { bytes }
  } catch (error) {
    // There is no going on from nothing, nor from other bytes than the file's.
    if (bytes === 0 || toDfsError(error).code === 'digest_mismatch') await disk.remove(partial)
    throw error
  } finally {
    await file.close()
  }
}

async function openPartial(disk: Disk, path: string, goOn: boolean): Promise<DiskFile> {
  try {
    const exists = (await disk.stat(path)) !== undefined
    if (!exists) return await disk.open(path, 'create')
    const file = await disk.open(path, 'update')
    if (!goOn) await file.truncate(0)
    return file
  } catch (cause) {
    throw new LocalError(`cannot write ${path}`, { cause })
  }
}

/** What is there already; more than the file can have is not part of it. */
async function sumOf(file: DiskFile, sizeBytes: number | undefined): Promise<{ bytes: number; sum: number }> {
  const there = await file.sizeBytes()
  if (sizeBytes === undefined || there > sizeBytes) {
    await file.truncate(0)
    return { bytes: 0, sum: 0 }
  }
  const buffer = Buffer.allocUnsafe(PIECE_BYTES)
  let sum = 0
  for (let at = 0; at < there; at += PIECE_BYTES) {
    sum = crc32(buffer.subarray(0, await file.read(buffer, at)), sum)
  }
  return { bytes: there, sum }
}
