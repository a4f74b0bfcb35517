/** Tells a source which of its files are here already: those that both have taken over need not be sent. */
import { DfsError } from '../../protocol/errors.ts'
import { type HeldFile, readSyncHeld, SYNC_HELD_BYTES_MAX } from '../../protocol/sync-bodies.ts'
import type { FrameReply, FrameRequest } from '../../runtime/frame-server.ts'
import { BLOCK_BYTES } from '../../store/block-pool.ts'
import type { OpenFile } from '../../store/stored-file.ts'
import { admitFile, type PortContext } from './port-context.ts'

/** Says of each file whether it is here, 209. */
export async function syncHeld(context: PortContext, request: FrameRequest): Promise<FrameReply> {
  if (request.connection.role !== 'peer') throw new DfsError('unauthorized', 'only storage servers of the cluster sync')
  if (request.lengthBytes > SYNC_HELD_BYTES_MAX) throw new DfsError('too_large', 'these are too many files')
  const files = readSyncHeld(await request.body.bytes(request.lengthBytes))
  if (files === undefined) throw new DfsError('bad_request', 'the request contradicts itself')
  const held = Buffer.alloc(files.length)
  for (const [i, file] of files.entries()) held[i] = Number(await isHeld(context, file))
  return { status: 0, parts: [held] }
}

/** A copy that is bad or cannot be read is none. */
async function isHeld(context: PortContext, wanted: HeldFile): Promise<boolean> {
  const { store, blocks } = context
  const file = admitFile(context, wanted.name)
  const buffer = await blocks.acquire(file.slot?.slotBytes ?? BLOCK_BYTES)
  try {
    if (file.slot !== undefined) return (await store.read(wanted.name, file, buffer)) !== undefined
    const opened = await store.open(wanted.name)
    if (opened === undefined) return false
    return await isSame(opened, wanted, buffer).finally(() => opened.close())
  } catch {
    return false
  } finally {
    blocks.release(buffer)
  }
}

/** Of a file of several blocks the first one is read, and of the others what its sidecar says. */
async function isSame(file: OpenFile, { sizeBytes, crc32 }: HeldFile, buffer: Buffer): Promise<boolean> {
  if (file.sizeBytes !== sizeBytes || file.crc32 !== crc32) return false
  await file.readBlocks(0, buffer.subarray(0, BLOCK_BYTES))
  if (sizeBytes <= BLOCK_BYTES) return true
  return (await file.crc32Of(sizeBytes - (sizeBytes % BLOCK_BYTES))) !== undefined
}
