/**
 * The bus: what actors need of NATS, and no more. `nats-bus.ts` speaks to a server, `memory-bus.ts` stands in for it;
 * both pass one contract suite.
 */

/** Connects with a role's credentials. Rejects if no server answers and `waitForServer` is false. */
export type ConnectBus = (options: BusOptions) => Promise<Bus>

/** How to reach NATS and who we are there. */
export interface BusOptions {
  readonly servers: readonly string[]
  /** Seen in `nats server report connections`: `dfs-<role>-<id>`. */
  readonly name: string
  readonly user?: string
  readonly password?: string
  /** Replies come to `<inboxPrefix>.<token>.<n>`; a role may only listen below its own. */
  readonly inboxPrefix: string
  /** Keep trying to connect for the first time too, instead of rejecting. Reconnects are for ever in any case. */
  readonly waitForServer: boolean
  /** Hears of what the server refused us. NATS tells only after the call, so only a request can fail by it. */
  readonly onForbidden?: (operation: 'publish' | 'subscribe', subject: string) => void
}

/**
 * Header names to one value each; names keep the case they were given, values lose the spaces around them. A status line
 * of the server comes as header `Status`: an empty message with `503` says that nobody listens.
 */
export type BusHeaders = Readonly<Record<string, string>>

/** A message that came in. */
export interface BusMessage {
  readonly subject: string
  readonly payload: Uint8Array
  readonly headers: BusHeaders
  /** Where an answer is wanted, if it is. */
  readonly replyTo: string | undefined
  /** Answers; does nothing if no answer is wanted or the bus is closed. */
  respond(payload: Uint8Array, headers?: BusHeaders): void
}

/** What a request came back with. */
export interface BusReply {
  readonly payload: Uint8Array
  readonly headers: BusHeaders
}

export interface RequestOptions {
  readonly timeoutMs: number
  readonly headers?: BusHeaders
}

export interface SubscribeOptions {
  /** Members of one queue share the messages: each goes to one of them. */
  readonly queue?: string
}

export interface Subscription {
  unsubscribe(): void
}

/** Whether messages go anywhere. */
export type BusStatus = 'connected' | 'disconnected' | 'closed'

/** A connection to NATS. Publishing while disconnected is lost or late, as in NATS: nothing here is durable. */
export interface Bus {
  readonly status: BusStatus
  /** Called on every change of `status`. */
  onStatus(listener: (status: BusStatus) => void): void
  /** The largest payload the server takes. */
  readonly payloadBytesMax: number
  /** Whether the server offers JetStream. */
  readonly jetstream: boolean
  /** The server's version, such as `2.14.9`. */
  readonly serverVersion: string
  /** Throws a `BusError` (`too_large`, `closed`). `replyTo` is where answers should go, if any. Bad subjects are bugs. */
  publish(subject: string, payload: Uint8Array, options?: { headers?: BusHeaders; replyTo?: string }): void
  /** Rejects with a `BusError`. */
  request(subject: string, payload: Uint8Array, options: RequestOptions): Promise<BusReply>
  /** Handlers run one after another, in the order of arrival, and must not throw. `*` and `>` are NATS's wildcards. */
  subscribe(subject: string, handler: (message: BusMessage) => void, options?: SubscribeOptions): Subscription
  /** A subject below our inbox prefix that nobody else uses. */
  newInbox(): string
  /** Resolves when everything published before has reached the server. */
  flush(): Promise<void>
  /** Takes no new messages, finishes what came in, closes. */
  drain(): Promise<void>
}

/** Why a bus call failed. All but `too_large`, `forbidden` and `closed` may go through when tried again. */
export type BusErrorCode = 'timeout' | 'no_responders' | 'disconnected' | 'closed' | 'too_large' | 'forbidden' | 'busy'

/** A failed publish or request; keeps the cause. */
export class BusError extends Error {
  readonly code: BusErrorCode
  constructor(code: BusErrorCode, subject: string, options?: { cause: unknown }) {
    super(`${code}: ${subject}`, options)
    this.name = 'BusError'
    this.code = code
  }
}
