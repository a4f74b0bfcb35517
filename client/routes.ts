/** Where to go: the trackers' answers, kept for as long as they may be, and a little memory of who just failed. */

import { isAfter } from '../protocol/binlog-record.ts'
import { decode, encode } from '../protocol/codec.ts'
import { type ChangePlace, UPLOAD_ID_BYTES } from '../protocol/data-bodies.ts'
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
  trackerTicket,
} from '../protocol/tracker-messages.ts'
import { type Bus, BusError } from '../runtime/bus.ts'
import type { Clock, Random } from '../runtime/world.ts'
import type { Tickets } from './tickets.ts'

/** How long a tracker may take to answer. */
const TRACKER_TIMEOUT_MS = 2_000

/** Candidates for reading may be used this long: any member can serve any file of its group. */
const FETCH_LEASE_MS = 1_000

/** A server that failed goes to the end of the list for this long. */
const AVOIDED_MS = 2_000

/** Groups times sources, or keys, or upload ids: the oldest is forgotten first. */
const ROUTES_MAX = 4096

/** How many bytes of an upload id are those of the client: nobody else has them by chance, nor an upload the others. */
const OWN_BYTES = 8

interface Route<T> {
  readonly answer: T
  readonly untilMs: number
}

/** Where a new file is to go. */
export interface PlacementOptions {
  /** A group by name. */
  readonly group?: string | undefined
  /** Files with the same key go to the same group. */
  readonly key?: string | undefined
}

/** Where an upload may go, the best first. */
export interface UploadRoute {
  readonly group: string
  readonly servers: readonly ServerAddress[]
  readonly needsTicket: boolean
}

/** Who may serve files of a source, which of them that is, and how far the others have applied its records. */
interface ReadRoute extends Required<Pick<ReplyOf<typeof queryFetch>, 'servers' | 'positions'>> {
  readonly source: number | undefined
}

/** What the tickets of a client are for. */
export const uploadPurpose = (group: string, uploadId = '') => `upload ${group} ${uploadId}`
export const readPurpose = (group: string) => `read ${group}`
export const updatePurpose = (group: string) => `update ${group}`

export class Routes {
  readonly #bus: Bus
  readonly #clock: Clock
  readonly #random: Random
  readonly #prefix: string
  readonly #tickets: Tickets
  /** What the ids of this client's uploads begin with: a ticket is bound to it, whoever else gets hold of it. */
  #uploadIds: string | undefined
  readonly #uploads = new Map<string, Route<UploadRoute>>()
  readonly #reads = new Map<string, Route<ReadRoute>>()
  readonly #storages = new Map<string, Route<readonly StorageView[]>>()
  /** By upload id. */
  readonly #kept = new Map<string, { group: string; storageId: number }>()
  readonly #avoided = new Map<number, number>()

  constructor(bus: Bus, { clock, random }: { clock: Clock; random: Random }, prefix: string, tickets: Tickets) {
    this.#bus = bus
    this.#clock = clock
    this.#random = random
    this.#prefix = prefix
    this.#tickets = tickets
  }

  /** Where to upload to. An upload that one server has already stays with it: nobody else knows its id. */
  async forUpload(options: PlacementOptions, uploadId: string): Promise<UploadRoute> {
    const kept = this.#kept.get(uploadId)
    const wanted: PlacementOptions = kept ?? options
    const route = await this.#cached(this.#uploads, JSON.stringify([wanted.group, wanted.key]), async () => {
      const request: RequestOf<typeof queryStore> = { uploadIds: this.#ownIds() }
      if (wanted.group !== undefined) request.group = wanted.group
      if (wanted.key !== undefined) request.key = wanted.key
      const { group, servers, leaseMs, ticket } = await this.ask(queryStore, request)
      this.#tickets.keep(uploadPurpose(group), ticket)
      return { answer: { group, servers, needsTicket: ticket !== undefined }, leaseMs }
    })
    if (route.needsTicket && !this.isOwn(uploadId)) await this.#getTicket(route.group, uploadId)
    const isKept = ({ storageId }: ServerAddress) => storageId === kept?.storageId
    return {
      group: route.group,
      needsTicket: route.needsTicket,
      servers: kept === undefined ? this.#best(route.servers) : route.servers.filter(isKept),
    }
  }

  /** Notes that the first server of a route has stored an upload, though too few of its peers had. */
  keep(uploadId: string, { group, servers }: Pick<UploadRoute, 'group' | 'servers'>): void {
    this.#kept.set(uploadId, { group, storageId: servers[0]!.storageId })
    if (this.#kept.size > ROUTES_MAX) this.#kept.delete(this.#kept.keys().next().value!)
  }

  /** Who may serve a file, and has what is needed of its source's changes. Rejects with `unavailable` if nobody does. */
  async forRead(fileId: string, needed?: ChangePlace | 'source'): Promise<readonly ServerAddress[]> {
    const { group, name } = parseFileId(fileId)
    const { storageId, address } = decodeFileName(name)
    const key = `${group}/${storageId ?? address}`
    const { servers, positions, source } = await this.#cached(this.#reads, key, async () => {
      const { servers, positions = [], source = storageId, ticket } = await this.ask(queryFetch, { fileId })
      this.#tickets.keep(readPurpose(group), ticket)
      return { answer: { servers, positions, source }, leaseMs: FETCH_LEASE_MS }
    })
    if (needed === undefined) return this.#best(servers)
    // Positions are those in the binlog of who orders the changes: of a change that another one has ordered, that one tells.
    const has = (id: number) =>
      needed !== 'source' &&
      needed.source === source &&
      positions.some(at => at.storageId === id && !isAfter(needed, at))
    const able = servers.filter(server => server.storageId === source || has(server.storageId))
    if (able.length === 0) throw new DfsError('unavailable', 'nobody can be asked who surely has the last change')
    return this.#best(able)
  }

  /** All storage servers, as they were up to a second ago. */
  storages(): Promise<readonly StorageView[]> {
    return this.#cached(this.#storages, '', async () => {
      return { answer: (await this.ask(trackerStorages, {})).storages, leaseMs: FETCH_LEASE_MS }
    })
  }

  /** Who orders a file's changes. */
  async forUpdate(fileId: string): Promise<readonly ServerAddress[]> {
    const { group, servers, ticket } = await this.ask(queryUpdate, { fileId })
    this.#tickets.keep(updatePurpose(group), ticket)
    return servers
  }

  /** A ticket to read all of a group, for who asks without a file; none if its servers ask for none. */
  async forList(group: string, storages: readonly StorageView[]): Promise<void> {
    const isAsked = storages.some(({ report }) => report.group === group && report.auth === 'ticket')
    if (!isAsked || this.#tickets.has(readPurpose(group))) return
    this.#tickets.keep(readPurpose(group), await this.ask(trackerTicket, { group, operations: ['read'] }))
  }

  /** A new upload id, which the client's tickets are good for. */
  newUploadId(): string {
    const made = this.#random.bytes(UPLOAD_ID_BYTES)
    return this.#ownIds(made) + made.toString('hex', OWN_BYTES)
  }

  /** Whether an upload id is one of `newUploadId`. */
  isOwn(uploadId: string): boolean {
    return uploadId.startsWith(this.#ownIds())
  }

  #ownIds(made?: Buffer): string {
    this.#uploadIds ??= (made ?? this.#random.bytes(OWN_BYTES)).toString('hex', 0, OWN_BYTES)
    return this.#uploadIds
  }

  /** A ticket for an upload whose id somebody else has made. */
  async #getTicket(group: string, uploadId: string): Promise<void> {
    const purpose = uploadPurpose(group, uploadId)
    if (this.#tickets.has(purpose)) return
    this.#tickets.keep(purpose, await this.ask(trackerTicket, { group, operations: ['upload'], uploadIds: uploadId }))
  }

  /** Notes that a server failed: it is not the first choice for a while, and the trackers are asked again. */
  avoid(server: ServerAddress): void {
    this.#avoided.set(server.storageId, this.#clock.monotonicMs() + AVOIDED_MS)
    this.forget()
  }

  /** The trackers are to be asked again. */
  forget(): void {
    this.#uploads.clear()
    this.#reads.clear()
    this.#storages.clear()
  }

  /** Asks the trackers, or the actor with an id. Rejects with a DfsError. */
  async ask<D extends RequestDefinition>(
    definition: D,
    request: RequestOf<D>,
    { id, timeoutMs = TRACKER_TIMEOUT_MS }: { id?: string; timeoutMs?: number } = {},
  ): Promise<ReplyOf<D>> {
    const tokens = id === undefined ? {} : { id }
    const subject = subjectOf(definition, { prefix: this.#prefix, ...tokens })
    try {
      const reply = await this.#bus.request(subject, encode(request as object, 'msgpack'), { timeoutMs })
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
