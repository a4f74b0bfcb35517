/**
 * The yardstick: answers FastDFS's commands in the right shape and does nothing else. No disk, no sum, no memory of
 * what came. What a real server costs beyond this, under the same generator, is its own.
 *
 *     101, 102, 103  itself, or the storage servers it is told of, in turn     12  done
 *     11             always the same file id                                    14  `sizeBytes` of content
 */
import { createServer, Socket } from 'node:net'
import { IPV4_BYTES, writeGroupAndName } from '../protocol/data-bodies.ts'
import { encodeFileName, tailOf } from '../protocol/file-id.ts'
import { COMMANDS, frame, header } from '../protocol/frame.ts'
import { writeServers } from '../protocol/tracker-bodies.ts'
import type { Endpoint } from '../runtime/world.ts'
import { makeContent } from './content.ts'
import { FrameScanner } from './frame-scanner.ts'

export interface NullServerOptions {
  /** Of every file that is downloaded. */
  readonly sizeBytes: number
  /** Where its tracker sends clients: to itself if not given. */
  readonly storages?: readonly Endpoint[]
}

export interface NullServer {
  readonly endpoint: Endpoint
  close(): void
}

const HOST = '127.0.0.1'
const GROUP = 'group1'
/** What its one file id says, besides the size. */
const FILE = {
  storePathIndex: 0,
  directoryIndex: 0,
  storageId: 1,
  createTimeS: 0,
  crc32: 0,
  salt: 0,
  tail: tailOf('bin', 0),
}
/** Content is sent in pieces of this size, so that a large file needs no more memory than this. */
const PIECE_BYTES = 2 ** 20
/** Answers to requests that came together go out together. */
const TOGETHER_MAX = 64
/** More of large answers together would only be more memory. */
const TOGETHER_BYTES_MAX = 4 * 2 ** 20

/** One for all connections: a chunk is used up before the next one arrives. */
const received = Buffer.allocUnsafeSlow(256 * 1024)

/** Starts one on a free port. */
export function startNullServer({ sizeBytes, storages }: NullServerOptions): Promise<NullServer> {
  const uploaded = repeated(frame(COMMANDS.reply, writeGroupAndName(GROUP, encodeFileName({ ...FILE, sizeBytes }))))
  const deleted = repeated(header(COMMANDS.reply, 0))
  const content = makeContent(Math.min(sizeBytes, PIECE_BYTES))
  const file = sizeBytes > PIECE_BYTES ? undefined : repeated(frame(COMMANDS.reply, content))
  const sockets = new Set<Socket>()
  let servers: readonly Endpoint[] = []
  let turn = 0

  const server = createServer({ noDelay: true, pauseOnConnect: true }, accepted => {
    let waiting: Repeated | undefined
    let count = 0
    const flush = () => {
      if (waiting !== undefined && count > 0) socket.write(waiting.many.subarray(0, count * waiting.bytes))
      count = 0
    }
    const answer = (reply: Repeated) => {
      if (waiting !== reply || count === reply.most) flush()
      waiting = reply
      count++
    }
    const scanner = new FrameScanner({
      onFrame(command) {
        switch (command) {
          case COMMANDS.uploadFile:
            return answer(uploaded)
          case COMMANDS.deleteFile:
            return answer(deleted)
          case COMMANDS.downloadFile:
            if (file !== undefined) return answer(file)
            flush()
            return sendLarge(socket, content, sizeBytes)
          case COMMANDS.queryStoreWithoutGroup:
          case COMMANDS.queryFetch:
          case COMMANDS.queryUpdate: {
            flush()
            const { host, port } = servers[turn++ % servers.length]!
            const place = { group: GROUP, servers: [{ ip: host, port }] }
            const isStore = command === COMMANDS.queryStoreWithoutGroup
            const body = writeServers(isStore ? { ...place, storePathIndex: 0 } : place, IPV4_BYTES)
            socket.write(frame(COMMANDS.reply, body))
            return
          }
          default:
            socket.destroy()
        }
      },
    })
    const socket = receiving(accepted, chunk => {
      scanner.feed(chunk, chunk.length)
      flush()
    })
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
    // A generator that is done just goes.
    socket.on('error', () => undefined)
  })
  return new Promise((resolve, reject) => {
    server.on('error', reject)
    server.listen(0, HOST, () => {
      const { port } = server.address() as { port: number }
      const endpoint = { host: HOST, port }
      servers = storages ?? [endpoint]
      const close = () => {
        server.close()
        for (const socket of sockets) socket.destroy()
      }
      resolve({ endpoint, close })
    })
  })
}

/**
 * Receives into one buffer that is used again. Node offers that only for connections it opens itself, so an accepted one
 * is wrapped anew, which is not documented: without its handle, `data` events have to do.
 */
function receiving(accepted: Socket, take: (chunk: Buffer) => void): Socket {
  const inside = accepted as Socket & { _handle?: unknown }
  const handle = inside._handle
  if (handle === undefined || handle === null) return accepted.on('data', take).resume()
  inside._handle = null
  const callback = (bytes: number) => {
    take(received.subarray(0, bytes))
    return true
  }
  const options = { handle, onread: { buffer: received, callback } }
  return new Socket(options as ConstructorParameters<typeof Socket>[0]).resume()
}

/** An answer, and many of it back to back. */
interface Repeated {
  readonly many: Buffer
  readonly bytes: number
  readonly most: number
}

function repeated(reply: Buffer): Repeated {
  const most = Math.max(1, Math.min(TOGETHER_MAX, Math.floor(TOGETHER_BYTES_MAX / reply.length)))
  return { many: Buffer.concat(Array(most).fill(reply)), bytes: reply.length, most }
}

function sendLarge(socket: Socket, piece: Buffer, sizeBytes: number): void {
  let sent = 0
  const go = () => {
    while (sent < sizeBytes) {
      const bytes = Math.min(piece.length, sizeBytes - sent)
      sent += bytes
      if (!socket.write(bytes === piece.length ? piece : piece.subarray(0, bytes))) {
        socket.once('drain', go)
        return
      }
    }
  }
  socket.write(header(COMMANDS.reply, sizeBytes))
  go()
}
