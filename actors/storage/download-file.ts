/** Serves a download: checked blocks from our disk, or passed on from the member that has the file. */
import { DOWNLOAD_FIXED_BYTES, readDownload, writeDownload } from '../../protocol/data-bodies.ts'
import { DfsError, toDfsError } from '../../protocol/errors.ts'
import type { FileNameParts } from '../../protocol/file-id.ts'
import { COMMANDS, isSize } from '../../protocol/frame.ts'
import type { FrameClient } from '../../runtime/frame-client.ts'
import type { FrameReader } from '../../runtime/frame-reader.ts'
import type { FrameReply, FrameRequest, Send } from '../../runtime/frame-server.ts'
import { BLOCK_BYTES } from '../../store/block-pool.ts'
import { readPieces } from '../../store/read-pieces.ts'
import type { OpenFile } from '../../store/stored-file.ts'
import { askAbout, askOthers } from './absence.ts'
import { admitFile, admitGroup, admitRead, isAlone, type PortContext } from './port-context.ts'

/** The longest body of a download request: range, group and the longest name. */
const BODY_BYTES_MAX = DOWNLOAD_FIXED_BYTES + 16 + 127

/** What is passed on at a time when memory is short: as many of these as there are connections. */
const RELAY_BYTES = 16 * 1024

const NOTHING = Buffer.alloc(0)

/** What is asked for; a length of 0 means "to the end". */
interface Wanted {
  readonly group: string
  readonly name: string
  readonly offset: number
  readonly length: number
}

/** FastDFS's download, 14: at once if everything is at hand. A peer that asks is never sent to a third member. */
export function downloadFile(context: PortContext, request: FrameRequest): FrameReply | Promise<FrameReply> {
  const { body, lengthBytes } = request
  if (lengthBytes <= DOWNLOAD_FIXED_BYTES + 16 || lengthBytes > BODY_BYTES_MAX) {
    throw new DfsError('bad_request', 'a download names a range, a group and a file')
  }
  const bytes = body.bytesHere(lengthBytes)
  if (bytes === undefined) return body.bytes(lengthBytes).then(late => download(context, request, late))
  return download(context, request, bytes)
}

function download(context: PortContext, request: FrameRequest, bytes: Buffer): FrameReply | Promise<FrameReply> {
  const wanted = readDownload(bytes)
  request.bodyTaken()
  admitGroup(context, wanted)
  if (!isSize(wanted.offset) || !isSize(wanted.length))
    throw new DfsError('bad_range', 'a range has an offset and a length')
  context.access.admit(request.connection, 'read', wanted.name)
  admitRead(context, request, wanted.name)
  context.counts.downloads++
  const hot = context.store.cached(wanted.name)
  if (hot === undefined) return downloadFromDisk(context, request, wanted)
  context.counts.cacheHits++
  return { status: 0, parts: [cut(context, hot, wanted)] }
}

async function downloadFromDisk(context: PortContext, request: FrameRequest, wanted: Wanted): Promise<FrameReply> {
  const parts = admitFile(context, wanted.name)
  if (parts.slot !== undefined) return downloadSmall(context, request, parts, wanted)
  const file = await readLocal(context, wanted.name, () => context.store.open(wanted.name))
  if (file !== undefined) {
    try {
      return await serveLocal(context, file, parts, wanted, request.status !== 0)
    } catch (error) {
      await file.close()
      // A bad copy here is as good as none: another member may have a good one.
      if (toDfsError(error).code !== 'corrupt' || isAlone(request)) throw error
      await request.turn()
      return askOthersInstead(context, parts, wanted, error)
    }
  }
  await request.turn()
  return askAbout(context, request, { name: wanted.name, file: parts }, passOn(context, wanted))
}

/** A file in a segment is read and checked as a whole. */
async function downloadSmall(
  context: PortContext,
  request: FrameRequest,
  parts: FileNameParts,
  wanted: Wanted,
): Promise<FrameReply> {
  const { store, blocks } = context
  const buffer = await blocks.acquire(parts.slot!.slotBytes)
  const release = async () => blocks.release(buffer)
  try {
    const content = await readLocal(context, wanted.name, () => store.read(wanted.name, parts, buffer))
    if (content !== undefined) {
      return { status: 0, parts: [cut(context, content, wanted)], release }
    }
  } catch (error) {
    await release()
    if (toDfsError(error).code !== 'corrupt') throw error
    noteCorruption(context, wanted.name)
    if (isAlone(request)) throw error
    await request.turn()
    return askOthersInstead(context, parts, wanted, error)
  }
  await release()
  await request.turn()
  return askAbout(context, request, { name: wanted.name, file: parts }, passOn(context, wanted))
}

/** What is wanted of a file that is at hand. */
function cut(context: PortContext, content: Buffer, wanted: Wanted): Buffer {
  const { from, until } = rangeOf(content.length, wanted)
  const { counts, store } = context
  counts.downloadBytes += until - from
  store.counters.total_download_bytes += until - from
  store.counters.success_download_bytes += until - from
  return content.subarray(from, until)
}

/** Reads our copy; one whose disk fails is unavailable, and the next attempt may go to a peer. */
async function readLocal<T>(context: PortContext, name: string, read: () => Promise<T>): Promise<T> {
  try {
    return await read()
  } catch (error) {
    if (error instanceof DfsError) throw error
    context.store.noteFailure(name, error)
    throw new DfsError('unavailable', 'the disk of this file cannot be read', { cause: error })
  }
}

/** What the others have in place of our bad copy; if nobody can say, it is what it is. */
function askOthersInstead(
  context: PortContext,
  parts: FileNameParts,
  wanted: Wanted,
  error: unknown,
): Promise<FrameReply> {
  return askOthers(context, parts, passOn(context, wanted), { isBad: true }).catch(reason => {
    throw toDfsError(reason).code === 'not_found' ? reason : error
  })
}

function noteCorruption(context: PortContext, name: string): void {
  context.counts.corruptBlocks++
  context.onCorruption(name)
}

/** Answers from an open file. The first piece is read and checked before the reply begins, so that its status is true. */
async function serveLocal(
  context: PortContext,
  file: OpenFile,
  parts: FileNameParts,
  wanted: Wanted,
  isStrict: boolean,
): Promise<FrameReply> {
  const { from, until } = rangeOf(file.sizeBytes, wanted)
  const { counts, store } = context
  const bytes = until - from
  counts.downloadBytes += bytes
  store.counters.total_download_bytes += bytes
  const pieces = readPieces(file, context.blocks, { from, until })
  const release = async () => {
    await pieces.return()
    await file.close()
  }
  const first = await nextPiece(context, wanted.name, pieces)
  if (first.length === bytes) {
    store.counters.success_download_bytes += bytes
    return { status: 0, parts: [first], release }
  }
  const stream = async (send: Send) => {
    await send([first])
    await streamRest(context, parts, wanted, { from: from + first.length, until, isStrict }, pieces, send)
    store.counters.success_download_bytes += bytes
  }
  return { status: 0, lengthBytes: bytes, stream, release }
}

/** Streams further pieces. From a bad block on, a peer sends what it has, unless what it has may be older. */
async function streamRest(
  context: PortContext,
  parts: FileNameParts,
  wanted: Wanted,
  rest: { from: number; until: number; isStrict: boolean },
  pieces: AsyncGenerator<Buffer, void, void>,
  send: Send,
): Promise<void> {
  let at = rest.from
  while (at < rest.until) {
    let piece: Buffer
    try {
      piece = await nextPiece(context, wanted.name, pieces)
    } catch (error) {
      if (toDfsError(error).code !== 'corrupt' || rest.isStrict) throw error
      return await streamFromPeer(context, parts, { ...wanted, offset: at, length: rest.until - at }, send)
    }
    await send([piece])
    at += piece.length
  }
}

/** The next piece of a file; none of an empty one. */
async function nextPiece(context: PortContext, name: string, pieces: AsyncGenerator<Buffer, void, void>) {
  try {
    return (await pieces.next()).value ?? NOTHING
  } catch (error) {
    const isBad = !(error instanceof DfsError) || error.code === 'corrupt'
    if (isBad) noteCorruption(context, name)
    // One that was cut or deleted while it was read is not bad.
    if (error instanceof DfsError) throw error
    // A piece that cannot be read at all is treated as one that reads wrong.
    throw new DfsError('corrupt', `${name} cannot be read`, { cause: error })
  }
}

/** Answers with what another member sends. */
function passOn(context: PortContext, wanted: Wanted): (client: FrameClient) => Promise<FrameReply> {
  return async client => {
    const remote = await openRemote(client, wanted)
    const { lengthBytes } = remote
    const { counters } = context.store
    counters.total_download_bytes += lengthBytes
    return {
      status: 0,
      lengthBytes,
      stream: async send => {
        await relay(context, remote.body, send)
        counters.success_download_bytes += lengthBytes
      },
      release: async () => remote.done(),
    }
  }
}

async function streamFromPeer(context: PortContext, parts: FileNameParts, wanted: Wanted, send: Send): Promise<void> {
  const remote = await askOthers(context, parts, client => openRemote(client, wanted), { isBad: true })
  try {
    if (remote.lengthBytes !== wanted.length) throw new DfsError('corrupt', 'the peer has another length')
    await relay(context, remote.body, send)
  } finally {
    remote.done()
  }
}

/** Asks a member for a range and gives its reply's body to be read, until `done`. */
function openRemote(
  client: FrameClient,
  wanted: Wanted,
): Promise<{ lengthBytes: number; body: FrameReader; done: () => void }> {
  const request = writeDownload(wanted)
  return new Promise((resolve, reject) => {
    client
      .exchange(
        COMMANDS.downloadFile,
        request.length,
        send => send([request]),
        (body, { lengthBytes }) =>
          new Promise<void>(consumed => {
            const done = () => {
              // What nobody reads any more is not worth the wire.
              if (body.bodyLeft > BLOCK_BYTES) client.close()
              consumed()
            }
            resolve({ lengthBytes, body, done })
          }),
      )
      .catch(reject)
  })
}

async function relay(context: PortContext, body: FrameReader, send: Send): Promise<void> {
  // Never waits for a block: those may all be held by replies that wait for this one.
  const block = context.blocks.tryAcquire()
  const buffer = block ?? Buffer.allocUnsafe(RELAY_BYTES)
  try {
    while (body.bodyLeft > 0) {
      const count = await body.readBody(buffer)
      await send([buffer.subarray(0, count)])
    }
  } finally {
    if (block !== undefined) context.blocks.release(block)
  }
}

/** The bytes that are meant: what lies past the end is cut off, as FastDFS does. Throws `bad_range`. */
function rangeOf(sizeBytes: number, { offset, length }: Wanted): { from: number; until: number } {
  if (offset > sizeBytes || (offset === sizeBytes && sizeBytes > 0)) {
    throw new DfsError('bad_range', `the file has ${sizeBytes} bytes`)
  }
  return { from: offset, until: length === 0 ? sizeBytes : Math.min(sizeBytes, offset + length) }
}
