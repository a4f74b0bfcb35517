/** How the storage servers of a cluster are asked: who comes first, with what ticket, and what happens when one fails. */
import { readChanged, writeGroupAndName } from '../protocol/data-bodies.ts'
import { DfsError, toDfsError } from '../protocol/errors.ts'
import { parseFileId } from '../protocol/file-id.ts'
import { REQUEST_STATUS } from '../protocol/frame.ts'
import type { ServerAddress } from '../protocol/tracker-messages.ts'
import type { Bus } from '../runtime/bus.ts'
import type { FrameClient } from '../runtime/frame-client.ts'
import { FramePool, type FramePoolOptions } from '../runtime/frame-pool.ts'
import type { Timers } from '../runtime/timers.ts'
import type { World } from '../runtime/world.ts'
import { type Consistency, OwnChanges } from './own-changes.ts'
import { retry } from './retry.ts'
import { Routes, readPurpose, updatePurpose } from './routes.ts'
import { Tickets } from './tickets.ts'

const CONNECT_MS = 2_000
/** A reply may wait for a disk; a server that says nothing for so long is given up. */
const TIMEOUTS = { idleMs: 20_000, headerMs: 10_000, bodyMs: 20_000 }
const CONNECTIONS_PER_SERVER_MAX = 4
const IDLE_MS_MAX = 30_000

export interface RequestOptions {
  readonly signal?: AbortSignal | undefined
  /** Hears why an attempt failed that will be repeated: a cluster that is away is waited for, for a while. */
  readonly onRetry?: ((error: DfsError) => void) | undefined
}

export interface ReadOptions extends RequestOptions {
  /** How old the answer may be: `session` if not given. */
  readonly consistency?: Consistency | undefined
}

/** How far a transfer has come. `totalBytes` is undefined while nobody knows. */
export interface Progress {
  readonly bytes: number
  readonly totalBytes: number | undefined
}

export interface TransferOptions extends RequestOptions {
  readonly onProgress?: ((progress: Progress) => void) | undefined
}

export interface ClientParts {
  readonly world: World
  readonly timers: Timers
  readonly bus: Bus
  readonly prefix: string
  /** The clients' data secret, as hex; who has none needs tickets, or does what FastDFS's clients may do. */
  readonly dataSecret: string | undefined
}

/** What is asked on one connection; the status is that of its request. */
export type Ask<T> = (client: FrameClient, status: number) => Promise<T>

/** Connections to storage servers as a client has them: the clients' secret is proven on each. */
export function clientPool({ world, timers, dataSecret }: ClientParts): FramePool {
  const options: FramePoolOptions = {
    sockets: world.sockets,
    clock: world.clock,
    timers,
    random: world.random,
    connectMs: CONNECT_MS,
    timeouts: TIMEOUTS,
    proof: dataSecret === undefined ? undefined : { role: 'client', key: dataSecret },
    connectionsPerServerMax: CONNECTIONS_PER_SERVER_MAX,
    idleMsMax: IDLE_MS_MAX,
  }
  return new FramePool(options)
}

export class Servers {
  readonly world: World
  readonly routes: Routes
  readonly changes = new OwnChanges()
  /** For uploads that wait for peers: their replies would keep back others that come behind them. */
  readonly waitingPool: FramePool
  readonly #pool: FramePool
  readonly #tickets: Tickets
  readonly #timers: Timers

  constructor(parts: ClientParts) {
    const { world, timers, bus, prefix } = parts
    this.world = world
    this.#timers = timers
    this.#tickets = new Tickets(world.clock, world.random)
    this.routes = new Routes(bus, world, prefix, this.#tickets)
    this.#pool = clientPool(parts)
    this.waitingPool = clientPool(parts)
  }

  /** Does something, again if that may help. Attempts count from 0. */
  retry<T>(options: RequestOptions, attempt: (count: number) => Promise<T>, isRepeatable?: () => boolean): Promise<T> {
    const { signal, onRetry } = options
    const { clock, random } = this.world
    return retry({ timers: this.#timers, clock, random, signal, onRetry, isRepeatable }, attempt)
  }

  /** Asks a reader for something about a file. */
  read(command: number, fileId: string, options: ReadOptions): Promise<Buffer> {
    const { group, name } = parseFileId(fileId)
    const body = writeGroupAndName(group, name)
    return this.retry(options, () =>
      this.onReaders(fileId, options, (client, status) => client.request(command, body, status)),
    )
  }

  /** Has a file changed by a request whose body is at hand. */
  change(command: number, fileId: string, body: Buffer, options: RequestOptions): Promise<Buffer> {
    return this.retry(options, () => this.onOrderer(fileId, (client, status) => client.request(command, body, status)))
  }

  /** Asks who may answer a read; one who has to know the last change answers by itself. */
  async onReaders<T>(fileId: string, { consistency = 'session' }: ReadOptions, ask: Ask<T>): Promise<T> {
    const needed =
      consistency === 'strong' ? 'source' : consistency === 'session' ? this.changes.needed(fileId) : undefined
    const servers = await this.routes.forRead(fileId, needed)
    const { strong, alone } = REQUEST_STATUS
    const status = needed === undefined ? 0 : needed === 'source' ? strong : alone
    try {
      return await this.onFirst(servers, client => ask(client, status), readPurpose(parseFileId(fileId).group))
    } catch (error) {
      if (toDfsError(error).code !== 'not_here') throw error
      throw new DfsError('unavailable', 'the member that orders this file cannot say what became of it', {
        cause: error,
      })
    }
  }

  /** Has a file changed, or what is made beside it; notes where the change stands. */
  async onOrderer(fileId: string, ask: Ask<Buffer>, changedId = fileId): Promise<Buffer> {
    const servers = await this.routes.forUpdate(fileId)
    const tell = (client: FrameClient) => ask(client, REQUEST_STATUS.tellPlace)
    const { place, body } = readChanged(await this.onFirst(servers, tell, updatePurpose(parseFileId(fileId).group)))
    this.changes.note(changedId, place)
    return body
  }

  /**
   * Asks the first server of a list, which is shown the ticket for a purpose; one that fails is avoided for a while, so that
   * the next attempt takes another.
   */
  async onFirst<T>(
    servers: readonly ServerAddress[],
    ask: (client: FrameClient) => Promise<T>,
    purpose: string,
    pool = this.#pool,
  ): Promise<T> {
    const server = servers[0]
    if (server === undefined) throw new DfsError('no_storage')
    try {
      const client = await pool.connection({ host: server.ip, port: server.port })
      const shown = this.#tickets.show(client, purpose)
      if (shown !== undefined) await shown
      return await ask(client)
    } catch (error) {
      const { code, retryable } = toDfsError(error)
      if (code === 'ticket_expired') {
        this.#tickets.clear()
        this.routes.forget()
      }
      // Who waited for its peers in vain has the file, and is well, as is who does not believe a ticket.
      const isWell = code === 'ack_timeout' || code === 'ticket_expired'
      if (error instanceof DfsError && retryable && !isWell) this.routes.avoid(server)
      throw error
    }
  }

  /** Ends all connections; what is under way rejects. */
  close(): void {
    this.#pool.close()
    this.waitingPool.close()
  }
}
