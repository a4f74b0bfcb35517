/**
 * Answers as a NATS micro service (ADR-32), so that `nats micro ls`, `info`, `stats` and `ping` show who is there.
 *
 *     $SRV.PING   $SRV.PING.<name>   $SRV.PING.<name>.<id>      the same for INFO and STATS, never in a queue group
 *     <endpoint subject>                                        in queue group `q`, or another, or none
 *
 * nats.js's own times only the synchronous part of a handler, counts no error replies, takes no id, and ends as a whole
 * when one subscription fails.
 */
import type { Bus, BusHeaders, BusMessage, Subscription } from './bus.ts'
import type { Clock } from './world.ts'

/** Error replies are counted by code for so many codes of an endpoint; a caller that makes codes up fills no memory. */
const ERROR_CODES_MAX = 100

/** Where the codes past `ERROR_CODES_MAX` are counted. */
const OTHER_CODES = 'other'

/** What a handler that throws is answered with, and counted under. */
const BUG = { code: 'internal', status: 500, message: 'internal error' } as const

/** Who answers. `version` is semver, `name` and `id` are `[A-Za-z0-9_-]+`; the id is this process's own. */
export interface MicroServiceIdentity {
  readonly name: string
  readonly id: string
  readonly version: string
  readonly description: string
  /** Does not change while the service runs: nothing that moves goes here. */
  readonly metadata: Readonly<Record<string, string>>
}

/** What an endpoint is called and where it listens. */
export interface MicroEndpointOptions {
  /** `[A-Za-z0-9_-]+`, no dots: the `nats` command refuses them. */
  readonly name: string
  readonly subject: string
  /** The queue group: `q` unless given; null makes every instance answer. */
  readonly queue?: string | null | undefined
  /** Numbers of its own for STATS, beside the `errors` by code. */
  readonly data?: (() => Record<string, unknown>) | undefined
  /** Hears what a handler threw or rejected with. The request is answered already. */
  readonly onBug?: ((error: unknown, message: BusMessage) => void) | undefined
}

/** A request, and the two ways to answer it. */
export interface MicroRequest {
  readonly message: BusMessage
  /** Answers; may be called again, for an answer in parts. */
  respond(payload: Uint8Array, headers?: BusHeaders): void
  /**
   * Answers with an error and counts it under `code`. `status` is like HTTP's; `message` is for people; `payload` says
   * the same in the encoding of the request.
   */
  fail(code: string, status: number, message: string, payload: Uint8Array, headers?: BusHeaders): void
}

/** Handles a request. It counts as under way until the promise settles. */
export type MicroHandler = (request: MicroRequest) => void | Promise<void>

export class MicroService {
  readonly #bus: Bus
  readonly #clock: Clock
  readonly #identity: MicroServiceIdentity
  readonly #started: string
  readonly #endpoints: Endpoint[] = []
  readonly #subscriptions: Subscription[] = []
  #underWayCount = 0
  #stopped: Promise<void> | undefined
  #allDone: () => void = () => undefined

  /** Throws `RangeError` if the identity is not one the `nats` command takes. */
  constructor(bus: Bus, clock: Clock, identity: MicroServiceIdentity) {
    checkName('service name', identity.name)
    checkName('service id', identity.id)
    if (!SEMVER.test(identity.version)) throw new RangeError(`not a semver version: ${identity.version}`)
    this.#bus = bus
    this.#clock = clock
    this.#identity = identity
    this.#started = new Date(clock.wallMs()).toISOString()
    this.#serveVerb('PING', () => ({}))
    this.#serveVerb('INFO', () => this.#info())
    this.#serveVerb('STATS', () => this.#stats())
  }

  /** Serves one endpoint from now on. Throws `RangeError` if its name is not allowed or taken. */
  endpoint(options: MicroEndpointOptions, handler: MicroHandler): void {
    checkName('endpoint name', options.name)
    if (this.#endpoints.some(other => other.name === options.name)) {
      throw new RangeError(`endpoint name taken: ${options.name}`)
    }
    const endpoint = new Endpoint(options)
    const { queue } = endpoint
    this.#endpoints.push(endpoint)
    this.#subscriptions.push(
      this.#bus.subscribe(
        options.subject,
        message => void this.#serve(endpoint, handler, message),
        queue === null ? {} : { queue },
      ),
    )
  }

  /** Takes no more requests; resolves when those under way are done. */
  stop(): Promise<void> {
    for (const subscription of this.#subscriptions.splice(0)) subscription.unsubscribe()
    this.#stopped ??= new Promise(resolve => {
      if (this.#underWayCount === 0) resolve()
      else this.#allDone = resolve
    })
    return this.#stopped
  }

  async #serve(endpoint: Endpoint, handler: MicroHandler, message: BusMessage): Promise<void> {
    const startMs = this.#clock.monotonicMs()
    const request = new Request(endpoint, message)
    this.#underWayCount++
    try {
      await handler(request)
    } catch (error) {
      request.failWithBug(error)
    } finally {
      endpoint.countRequest(this.#clock.monotonicMs() - startMs)
      this.#underWayCount--
      if (this.#underWayCount === 0) this.#allDone()
    }
  }

  #serveVerb(verb: 'PING' | 'INFO' | 'STATS', answer: () => Record<string, unknown>): void {
    const { name, id, version, metadata } = this.#identity
    const type = `io.nats.micro.v1.${verb.toLowerCase()}_response`
    for (const subject of [`$SRV.${verb}`, `$SRV.${verb}.${name}`, `$SRV.${verb}.${name}.${id}`]) {
      const subscription = this.#bus.subscribe(subject, message =>
        message.respond(Buffer.from(JSON.stringify({ type, name, id, version, metadata, ...answer() }))),
      )
      this.#subscriptions.push(subscription)
    }
  }

  #info(): Record<string, unknown> {
    const { description } = this.#identity
    return { description, endpoints: this.#endpoints.map(endpoint => endpoint.info()) }
  }

  #stats(): Record<string, unknown> {
    return { started: this.#started, endpoints: this.#endpoints.map(endpoint => endpoint.stats()) }
  }
}

class Endpoint {
  readonly name: string
  readonly queue: string | null
  readonly #options: MicroEndpointOptions
  readonly #errors = new Map<string, number>()
  #requestCount = 0
  #errorCount = 0
  #lastError = ''
  #processingMs = 0

  constructor(options: MicroEndpointOptions) {
    this.name = options.name
    this.queue = options.queue === undefined ? 'q' : options.queue
    this.#options = options
  }

  countRequest(processingMs: number): void {
    this.#requestCount++
    this.#processingMs += processingMs
  }

  countError(code: string, message: string): void {
    const key = this.#errors.has(code) || this.#errors.size < ERROR_CODES_MAX ? code : OTHER_CODES
    this.#errors.set(key, (this.#errors.get(key) ?? 0) + 1)
    this.#errorCount++
    this.#lastError = `${code}: ${message}`
  }

  reportBug(error: unknown, message: BusMessage): void {
    this.#options.onBug?.(error, message)
  }

  info(): Record<string, unknown> {
    return { name: this.name, subject: this.#options.subject, queue_group: this.queue ?? '', metadata: {} }
  }

  /** Durations are whole nanoseconds: the `nats` command takes nothing else. */
  stats(): Record<string, unknown> {
    return {
      name: this.name,
      subject: this.#options.subject,
      queue_group: this.queue ?? '',
      num_requests: this.#requestCount,
      num_errors: this.#errorCount,
      last_error: this.#lastError,
      processing_time: nanoseconds(this.#processingMs),
      average_processing_time: nanoseconds(this.#processingMs / Math.max(1, this.#requestCount)),
      data: { ...this.#options.data?.(), errors: Object.fromEntries(this.#errors) },
    }
  }
}

class Request implements MicroRequest {
  readonly message: BusMessage
  readonly #endpoint: Endpoint
  #failed = false

  constructor(endpoint: Endpoint, message: BusMessage) {
    this.#endpoint = endpoint
    this.message = message
  }

  respond(payload: Uint8Array, headers?: BusHeaders): void {
    this.message.respond(payload, headers)
  }

  fail(code: string, status: number, message: string, payload: Uint8Array, headers?: BusHeaders): void {
    // A header is one line, and the text may be anybody's.
    const text = message.replaceAll(/[\r\n]+/g, ' ')
    this.message.respond(payload, {
      ...headers,
      'Nats-Service-Error': text,
      'Nats-Service-Error-Code': String(status),
    })
    this.#failed = true
    this.#endpoint.countError(code, text)
  }

  /** The text of a bug is for us, not for who asked; a request that has failed already is not answered again. */
  failWithBug(error: unknown): void {
    if (!this.#failed) this.fail(BUG.code, BUG.status, BUG.message, new Uint8Array())
    this.#endpoint.reportBug(error, this.message)
  }
}

const NAME = /^[A-Za-z0-9_-]+$/

// As the schemas of the `nats` command have it.
const SEMVER =
  /^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-(0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)(\.(0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*))*)?(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?$/

function checkName(what: string, name: string): void {
  if (!NAME.test(name)) throw new RangeError(`not a ${what}: ${JSON.stringify(name)}`)
}

function nanoseconds(ms: number): number {
  return Math.round(ms * 1_000_000)
}
