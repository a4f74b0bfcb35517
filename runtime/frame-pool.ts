/** Connections to data ports, kept and shared: a few per server, each with many requests under way. */
import { DfsError } from '../protocol/errors.ts'
import { FrameClient, type FrameClientOptions } from './frame-client.ts'
import { authenticate, type Proof } from './handshake.ts'
import type { Cancel, Endpoint, Random } from './world.ts'

export interface FramePoolOptions extends FrameClientOptions {
  readonly random: Random
  /** Who we are to the servers; without it we are any FastDFS client. */
  readonly proof?: Proof | undefined
  /** More sockets carry large files side by side; small requests share one happily. */
  readonly connectionsPerServerMax: number
  readonly idleMsMax: number
}

/** How often idle connections are looked for. */
const SWEEP_MS = 5_000

export class FramePool {
  readonly #options: FramePoolOptions
  readonly #servers = new Map<string, { open: FrameClient[]; opening: Promise<FrameClient>[] }>()
  #cancelSweep: Cancel | undefined
  #closed = false

  constructor(options: FramePoolOptions) {
    this.#options = options
  }

  /** A connection to a server: an idle one, or a new one while there may be more, or the least busy. */
  async connection(remote: Endpoint): Promise<FrameClient> {
    if (this.#closed) throw new DfsError('unavailable', 'the pool is closed')
    const key = `${remote.host}:${remote.port}`
    const server = this.#servers.get(key) ?? { open: [], opening: [] }
    this.#servers.set(key, server)
    if (server.open.some(client => client.broken)) server.open = server.open.filter(client => !client.broken)
    const least = leastBusy(server.open)
    if (least?.outstanding === 0) return least
    if (server.open.length + server.opening.length < this.#options.connectionsPerServerMax) {
      const opening = this.#open(remote)
      server.opening.push(opening)
      try {
        const client = await opening
        server.open.push(client)
        return client
      } finally {
        server.opening.splice(server.opening.indexOf(opening), 1)
        if (server.open.length === 0 && server.opening.length === 0) this.#servers.delete(key)
      }
    }
    return least ?? server.opening[0]!
  }

  /** Ends all connections; requests under way reject. */
  close(): void {
    this.#closed = true
    this.#cancelSweep?.()
    for (const { open } of this.#servers.values()) for (const client of open) client.close()
    this.#servers.clear()
  }

  async #open(remote: Endpoint): Promise<FrameClient> {
    const client = await FrameClient.connect(remote, this.#options)
    try {
      if (this.#options.proof !== undefined) await authenticate(client, this.#options.proof, this.#options.random)
    } catch (error) {
      client.close()
      throw error
    }
    if (this.#closed) {
      client.close()
      throw new DfsError('unavailable', 'the pool is closed')
    }
    this.#cancelSweep ??= this.#options.timers.set(SWEEP_MS, () => this.#sweep())
    return client
  }

  #sweep(): void {
    this.#cancelSweep = undefined
    for (const [key, server] of this.#servers) {
      for (const client of server.open) {
        if (client.outstanding === 0 && client.idleMs > this.#options.idleMsMax) client.close()
      }
      server.open = server.open.filter(client => !client.broken)
      if (server.open.length === 0 && server.opening.length === 0) this.#servers.delete(key)
    }
    if (this.#servers.size > 0) this.#cancelSweep = this.#options.timers.set(SWEEP_MS, () => this.#sweep())
  }
}

function leastBusy(clients: readonly FrameClient[]): FrameClient | undefined {
  let least = clients[0]
  for (const client of clients) if (client.outstanding < least!.outstanding) least = client
  return least
}
