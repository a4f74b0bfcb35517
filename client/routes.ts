/** Where to go: the trackers' answers, kept for as long as they may be, and a little memory of who just failed. */
import { decode, encode } from '../protocol/codec.ts'
import { DfsError, type ErrorBody } from '../protocol/errors.ts'
import { decodeFileName, parseFileId } from '../protocol/file-id.ts'
import { type ReplyOf, type RequestDefinition, type RequestOf, subjectOf } from '../protocol/message.ts'
import {
  queryFetch,
  queryStore,
  queryUpdate,
  type ServerAddress,
  type StorageView,
  trackerStorages,
} from '../protocol/tracker-messages.ts'
import { type Bus, BusError } from '../runtime/bus.ts'
import type { Clock } from '../runtime/world.ts'

/** How long a tracker may take to answer. */
const TRACKER_TIMEOUT_MS = 2_000

/** Candidates for reading may be used this long: any member can serve any file of its group. */
const FETCH_LEASE_MS = 1_000

/** A server that failed goes to the end of the list for this long. */
const AVOIDED_MS = 2_000

/** Groups times sources, or keys, or upload ids: the oldest is forgotten first. */
const ROUTES_MAX = 4096

interface Route<T> {
  readonly answer: T
  readonly untilMs: number
}

/** Where an upload may go, the best first. */
export interface UploadRoute {
  readonly group: string
  readonly servers: readonly ServerAddress[]
}

export class Routes {
  readonly #bus: Bus
  readonly #clock: Clock
  readonly #prefix: string
  readonly #uploads = new Map<string, Route<UploadRoute>>()
  readonly #reads = new Map<string, Route<readonly ServerAddress[]>>()
  readonly #storages = new Map<string, Route<readonly StorageView[]>>()
  /** By upload id. */
  readonly #kept = new Map<string, { group: string; storageId: number }>()
  readonly #avoided = new Map<number, number>()

  constructor(bus: Bus, clock: Clock, prefix: string) {
    this.#bus = bus
    this.#clock = clock
    this.#prefix = prefix
  }

  /** Where to upload to. An upload that one server has already stays with it: nobody else knows its id. */
  async forUpload(request: RequestOf<typeof queryStore>, uploadId: string): Promise<UploadRoute> {
    const kept = this.#kept.get(uploadId)
    const wanted: typeof request = kept === undefined ? request : { group: kept.group }
    const key = JSON.stringify([wanted.group, wanted.key])
    const route = await this.#cached(this.#uploads, key, async () => {
      const { group, servers, leaseMs } = await this.ask(queryStore, wanted)
      return { answer: { group, servers }, leaseMs }
    })
    const isKept = ({ storageId }: ServerAddress) => storageId === kept?.storageId
    return {
      group: route.group,
      servers: kept === undefined ? this.#best(route.servers) : route.servers.filter(isKept),
    }
  }

  /** Notes that the first server of a route has stored an upload, though too few of its peers had. */
  keep(uploadId: string, { group, servers }: UploadRoute): void {
    this.#kept.set(uploadId, { group, storageId: servers[0]!.storageId })
    if (this.#kept.size > ROUTES_MAX) this.#kept.delete(this.#kept.keys().next().value!)
  }

  /** Who may serve a file. */
  async forRead(fileId: string): Promise<readonly ServerAddress[]> {
    const { group, name } = parseFileId(fileId)
    const { storageId, address } = decodeFileName(name)
    const servers = await this.#cached(this.#reads, `${group}/${storageId ?? address}`, async () => {
      const answer = (await this.ask(queryFetch, { fileId })).servers
      return { answer, leaseMs: FETCH_LEASE_MS }
    })
    return this.#best(servers)
  }

  /** All storage servers, as they were up to a second ago. */
  storages(): Promise<readonly StorageView[]> {
    return this.#cached(this.#storages, '', async () => {
      return { answer: (await this.ask(trackerStorages, {})).storages, leaseMs: FETCH_LEASE_MS }
    })
  }

  /** Who orders a file's changes. */
  async forUpdate(fileId: string): Promise<readonly ServerAddress[]> {
    return (await this.ask(queryUpdate, { fileId })).servers
  }

  /** Notes that a server failed: it is not the first choice for a while, and the trackers are asked again. */
  avoid(server: ServerAddress): void {
    this.#avoided.set(server.storageId, this.#clock.monotonicMs() + AVOIDED_MS)
    this.#uploads.clear()
    this.#reads.clear()
    this.#storages.clear()
  }

  /** Asks the trackers. Rejects with a DfsError. */
  async ask<D extends RequestDefinition>(definition: D, request: RequestOf<D>): Promise<ReplyOf<D>> {
    const subject = subjectOf(definition, { prefix: this.#prefix })
    try {
      const reply = await this.#bus.request(subject, encode(request as object, 'msgpack'), {
        timeoutMs: TRACKER_TIMEOUT_MS,
      })
      const { value } = decode(reply.payload)
      if ('error' in value) {
        const { code, message } = (value as unknown as ErrorBody).error
        throw new DfsError(code, message)
      }
      return value as ReplyOf<D>
    } catch (error) {
      if (error instanceof BusError) throw fromBus(error)
      throw error
    }
  }

  /** An answer that is still good, or a new one; when nobody answers, an old one is better than none. */
  async #cached<T>(
    routes: Map<string, Route<T>>,
    key: string,
    ask: () => Promise<{ answer: T; leaseMs: number }>,
  ): Promise<T> {
    const nowMs = this.#clock.monotonicMs()
    const known = routes.get(key)
    if (known !== undefined && known.untilMs > nowMs) return known.answer
    try {
      const { answer, leaseMs } = await ask()
      routes.delete(key)
      routes.set(key, { answer, untilMs: nowMs + leaseMs })
      if (routes.size > ROUTES_MAX) routes.delete(routes.keys().next().value!)
      return answer
    } catch (error) {
      if (known !== undefined && error instanceof DfsError && error.code === 'unavailable') return known.answer
      throw error
    }
  }

  #best(servers: readonly ServerAddress[]): readonly ServerAddress[] {
    const nowMs = this.#clock.monotonicMs()
    const avoided = (server: ServerAddress) => (this.#avoided.get(server.storageId) ?? 0) > nowMs
    if (!servers.some(avoided)) return servers
    return [...servers.filter(server => !avoided(server)), ...servers.filter(avoided)]
  }
}

/** What a failed request on the bus means to a caller. */
function fromBus(error: BusError): DfsError {
  switch (error.code) {
    case 'forbidden':
      return new DfsError('forbidden', undefined, { cause: error })
    case 'too_large':
      return new DfsError('too_large', undefined, { cause: error })
    case 'timeout':
    case 'no_responders':
    case 'disconnected':
    case 'closed':
    case 'busy':
      return new DfsError('unavailable', `no tracker answers: ${error.code}`, { cause: error })
  }
}
