/** A frame server on a free port with a clock of its own, and a client that sends any bytes it is told to. */
import { createServer, type Socket as NetSocket, connect as netConnect } from 'node:net'
import { HEADER_BYTES, header, readHeader } from '../../protocol/frame.ts'
import {
  type FrameHandler,
  type FrameReply,
  type FrameRequest,
  FrameServer,
  type FrameServerOptions,
} from '../../runtime/frame-server.ts'
import { silentLog } from '../../runtime/log.ts'
import { realSockets } from '../../runtime/real-sockets.ts'
import { Timers } from '../../runtime/timers.ts'
import type { Endpoint, Socket, Sockets } from '../../runtime/world.ts'
import { until } from '../until.ts'
import { VirtualClock } from '../virtual-clock.ts'

export const LOOPBACK: Endpoint = { host: '127.0.0.1', port: 0 }
export const BODY_BYTES_MAX = 64 * 1024 * 1024
export const TIMEOUTS = { idleMs: 5_000, headerMs: 1_000, bodyMs: 2_000 }

/** How much later than due the server may drop a connection: its sweep, and the steps of `timePassesUntil`. */
export const LATE_MS_MAX = 1_500

const STEP_MS = 100

/** A server that is removed after the test. */
export interface FrameHarness {
  readonly server: FrameServer
  readonly endpoint: Endpoint
  readonly clock: VirtualClock
  readonly timers: Timers
  /** The server's ends of the connections, in the order of their coming. */
  readonly accepted: readonly Socket[]
  connect(localAddress?: string): Promise<RawConnection>
  remove(): Promise<void>
}

/** Starts a server whose errors 22 and 27 end the connection. */
export async function serveFrames(
  handler: FrameHandler,
  options: Partial<FrameServerOptions> = {},
): Promise<FrameHarness> {
  const clock = new VirtualClock()
  const timers = new Timers(clock)
  const accepted: Socket[] = []
  const sockets: Sockets = {
    ...realSockets,
    listen: (at, accept) =>
      realSockets.listen(at, socket => {
        accepted.push(socket)
        accept(socket)
      }),
  }
  const server = await FrameServer.listen({
    sockets,
    clock,
    timers,
    log: silentLog(),
    listenAt: LOOPBACK,
    connectionsMax: 16,
    bodyBytesMax: BODY_BYTES_MAX,
    timeouts: TIMEOUTS,
    handler,
    closesAfter: errno => errno === 22 || errno === 27,
    ...options,
  })
  const opened: RawConnection[] = []
  return {
    server,
    endpoint: server.endpoint,
    clock,
    timers,
    accepted,
    async connect(localAddress) {
      const connection = await RawConnection.connect(server.endpoint, localAddress)
      opened.push(connection)
      return connection
    },
    async remove() {
      await server.close(0)
      for (const connection of opened) connection.destroy()
    },
  }
}

/** Answers with the body. */
export async function echo(request: FrameRequest): Promise<FrameReply> {
  return { status: 0, parts: [await wholeBody(request)] }
}

/** Answers with the body, and keeps the error of one that does not come whole. */
export function echoNoting(errors: unknown[]): FrameHandler {
  return async request => {
    try {
      return await echo(request)
    } catch (error) {
      errors.push(error)
      throw error
    }
  }
}

export async function wholeBody(request: FrameRequest): Promise<Buffer> {
  const body = Buffer.alloc(request.lengthBytes)
  await request.body.readBody(body)
  return body
}

/** A reply, taken apart. */
export interface RawReply {
  readonly command: number
  readonly status: number
  readonly body: Buffer
}

/** A client without manners. */
export class RawConnection {
  readonly socket: NetSocket
  /** The other side has ended. */
  ended = false
  /** The connection is gone altogether; `reset` if it broke off. */
  closed = false
  reset = false
  #received: Buffer[] = []
  #receivedBytes = 0
  #wake: () => void = () => undefined

  constructor(socket: NetSocket) {
    this.socket = socket
    const note = (what: () => void) => () => {
      what()
      this.#wake()
    }
    socket.on('data', chunk => {
      this.#received.push(chunk)
      this.#receivedBytes += chunk.length
      this.#wake()
    })
    socket.on(
      'end',
      note(() => (this.ended = true)),
    )
    socket.on(
      'error',
      note(() => (this.reset = true)),
    )
    socket.on(
      'close',
      note(() => (this.closed = true)),
    )
  }

  /** Connects from an address of this machine, if one is given. */
  static connect(to: Endpoint, localAddress?: string): Promise<RawConnection> {
    return new Promise((resolve, reject) => {
      const from = localAddress === undefined ? {} : { localAddress }
      const socket = netConnect({ ...to, ...from, noDelay: true, allowHalfOpen: true })
      socket.once('error', reject)
      socket.once('connect', () => {
        socket.off('error', reject)
        resolve(new RawConnection(socket))
      })
    })
  }

  /** Bytes that have come and were not taken. */
  get receivedBytes(): number {
    return this.#receivedBytes
  }

  send(...parts: Uint8Array[]): void {
    for (const part of parts) this.socket.write(part)
  }

  /** Resolves when everything sent has left this process. */
  flushed(): Promise<void> {
    return new Promise(resolve => this.socket.write('', () => resolve()))
  }

  /** Takes the next bytes; rejects if the other side ends before there are so many. */
  async take(count: number): Promise<Buffer> {
    while (this.#receivedBytes < count) {
      if (this.ended || this.closed) throw new Error(`${this.#receivedBytes} of ${count} bytes came`)
      await this.#changed()
    }
    const all = Buffer.concat(this.#received)
    this.#received = [all.subarray(count)]
    this.#receivedBytes -= count
    return all.subarray(0, count)
  }

  async reply(): Promise<RawReply> {
    const { lengthBytes, command, status } = readHeader(await this.take(HEADER_BYTES), 0)
    return { command, status, body: await this.take(lengthBytes) }
  }

  /** Resolves when the other side has ended or broken off, with the bytes that came and were not taken. */
  async untilEnded(): Promise<Buffer> {
    while (!this.ended && !this.closed) await this.#changed()
    return this.take(this.#receivedBytes)
  }

  /** Ends our side. */
  end(): void {
    this.socket.end()
  }

  destroy(): void {
    this.socket.destroy()
  }

  #changed(): Promise<void> {
    return new Promise(resolve => {
      this.#wake = resolve
    })
  }
}

/** A request with a body of text. */
export function requestOf(command: number, body: string | Uint8Array = ''): Buffer {
  const bytes = Buffer.from(body as string)
  return Buffer.concat([header(command, bytes.length), bytes])
}

/** Lets time pass until something is so; returns how much. */
export async function timePassesUntil(clock: VirtualClock, what: string, look: () => boolean): Promise<number> {
  const startMs = clock.monotonicMs()
  await until(what, () => {
    if (look()) return true
    clock.advance(STEP_MS)
    return false
  })
  return clock.monotonicMs() - startMs
}

/** A server of bytes, for clients: every connection goes to `accept`. */
export async function serveRaw(
  accept: (connection: RawConnection) => void,
): Promise<{ endpoint: Endpoint; connections: RawConnection[]; remove(): Promise<void> }> {
  const connections: RawConnection[] = []
  const server = createServer({ noDelay: true, allowHalfOpen: true }, socket => {
    const connection = new RawConnection(socket)
    connections.push(connection)
    accept(connection)
  })
  await new Promise<void>(resolve => server.listen(LOOPBACK, resolve))
  const { address, port } = server.address() as { address: string; port: number }
  return {
    endpoint: { host: address, port },
    connections,
    async remove() {
      for (const connection of connections) connection.destroy()
      await new Promise(resolve => server.close(resolve))
    },
  }
}
