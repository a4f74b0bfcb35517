/** The bus over a NATS server, through npm `nats` 2.29. The only file that knows that library. */
import { connect, ErrorCode, Events, type Msg, type NatsConnection, NatsError, headers as natsHeaders } from 'nats'
import { BusError, type BusHeaders, type BusOptions, type ConnectBus, type Subscription } from './bus.ts'
import { type Link, type LinkEvents, LinkedBus, type LinkMessage } from './linked-bus.ts'
import { STATUS_HEADER } from './request-mux.ts'
import type { Timers } from './timers.ts'
import type { Random } from './world.ts'

/** The library's two minutes leave us up to six with a dead connection: it gives up after two pings without an answer. */
const PING_INTERVAL_MS = 20_000

/** Long enough for a slow name server, short enough to get to the next server of the list. */
const CONNECT_TIMEOUT_MS = 5_000

/** Attempts to reconnect are spread over this range, so that a server that is back is not met by all clients at once. */
const RECONNECT_DELAY_MS_MIN = 100
const RECONNECT_DELAY_MS_MAX = 600

/**
 * Makes the `connectBus` of a World. All connections share the timers. It rejects with `forbidden` if the server does
 * not take our credentials, even if told to wait for a server, and with `disconnected` if there is none.
 */
export function natsBusConnector(timers: Timers, random: Random): ConnectBus {
  return async options => {
    const nc = await connectFirst(options, timers, random)
    return new LinkedBus(options, timers, random, events => new NatsLink(nc, events))
  }
}

/**
 * Connects for the first time. nats.js can wait for a server too, but has one switch for both cases: either a wrong
 * password waits for ever here, or being refused twice while reconnecting closes the connection for good.
 */
async function connectFirst(options: BusOptions, timers: Timers, random: Random): Promise<NatsConnection> {
  const { servers, name, user, password, waitForServer } = options
  const delayMs = () => RECONNECT_DELAY_MS_MIN + random.below(RECONNECT_DELAY_MS_MAX - RECONNECT_DELAY_MS_MIN)
  for (;;) {
    try {
      return await connect({
        servers: [...servers],
        name,
        ...(user === undefined ? {} : { user }),
        ...(password === undefined ? {} : { pass: password }),
        pingInterval: PING_INTERVAL_MS,
        timeout: CONNECT_TIMEOUT_MS,
        maxReconnectAttempts: -1,
        reconnectDelayHandler: delayMs,
        ignoreAuthErrorAbort: true,
        // Its own resolver skips /etc/hosts and waits for a name server that may not be there; the system's does not.
        resolve: false,
      })
    } catch (cause) {
      const refused = cause instanceof NatsError && cause.isAuthError()
      if (refused) throw new BusError('forbidden', servers.join(' '), { cause })
      if (!waitForServer) throw new BusError('disconnected', servers.join(' '), { cause })
    }
    await timers.sleep(delayMs())
  }
}

class NatsLink implements Link {
  readonly #nc: NatsConnection
  readonly #events: LinkEvents
  /** Subscriptions the server refused, and nats.js has dropped; a reconnect may find them allowed. */
  readonly #refused = new Set<() => void>()
  #info: NonNullable<NatsConnection['info']>

  constructor(nc: NatsConnection, events: LinkEvents) {
    this.#nc = nc
    this.#events = events
    this.#info = nc.info!
    void this.#watch()
    void nc.closed().then(() => events.became('closed'))
  }

  get payloadBytesMax(): number {
    return this.#info.max_payload
  }

  get jetstream(): boolean {
    return this.#info.jetstream === true
  }

  get serverVersion(): string {
    return this.#info.version
  }

  /** The payload must not change before the next microtask: nats.js copies it only then. */
  send({ subject, payload, headers, replyTo }: LinkMessage): void {
    try {
      this.#nc.publish(subject, payload, {
        ...(replyTo === undefined ? {} : { reply: replyTo }),
        ...(Object.keys(headers).length === 0 ? {} : { headers: toNatsHeaders(headers) }),
      })
    } catch (cause) {
      const tooLarge = cause instanceof NatsError && cause.code === ErrorCode.MaxPayloadExceeded
      throw new BusError(tooLarge ? 'too_large' : 'closed', subject, { cause })
    }
  }

  listen(pattern: string, queue: string | undefined, receive: (message: LinkMessage) => void): Subscription {
    const open = () =>
      this.#nc.subscribe(pattern, {
        ...(queue === undefined ? {} : { queue }),
        callback: (error, msg) => {
          if (error === null) receive(fromNats(msg))
          else this.#refused.add(reopen)
        },
      })
    const reopen = () => {
      subscription = open()
    }
    let subscription = open()
    return {
      unsubscribe: () => {
        this.#refused.delete(reopen)
        subscription.unsubscribe()
      },
    }
  }

  flush(): Promise<void> {
    return this.#nc.flush()
  }

  drain(): Promise<void> {
    return this.#nc.drain()
  }

  close(): Promise<void> {
    return this.#nc.close()
  }

  async #watch(): Promise<void> {
    for await (const event of this.#nc.status()) {
      if (event.type === Events.Disconnect) this.#events.became('disconnected')
      if (event.type === Events.Reconnect) this.#reconnected()
      if (event.type === Events.Error && event.permissionContext !== undefined) {
        const { operation, subject } = event.permissionContext
        this.#events.forbade(operation === 'publish' ? 'publish' : 'subscribe', subject)
      }
    }
  }

  #reconnected(): void {
    this.#info = this.#nc.info ?? this.#info
    const refused = [...this.#refused]
    this.#refused.clear()
    for (const reopen of refused) reopen()
    this.#events.became('connected')
  }
}

function toNatsHeaders(headers: BusHeaders) {
  const result = natsHeaders()
  for (const [name, value] of Object.entries(headers)) result.set(name, value)
  return result
}

function fromNats(msg: Msg): LinkMessage {
  const headers: Record<string, string> = {}
  for (const [name, values] of msg.headers ?? []) headers[name] = values[0] ?? ''
  if (msg.headers !== undefined && msg.headers.code > 0) headers[STATUS_HEADER] = String(msg.headers.code)
  return { subject: msg.subject, payload: msg.data, headers, replyTo: msg.reply === '' ? undefined : msg.reply }
}
