/**
 * An in-memory stand-in for NATS: the same wildcards, queue groups, statuses and limits, and no surprises. Given seeded
 * randomness and a simulated clock, two runs are alike.
 *
 *     send -> who listens? -> deliveries: (link, run) ... -> turn: run, in order, never inside a send
 */
import { BusError, type ConnectBus, type Subscription } from './bus.ts'
import { subjectMatches } from './bus-rules.ts'
import { type Link, type LinkEvents, LinkedBus, type LinkMessage } from './linked-bus.ts'
import { NO_RESPONDERS_STATUS, STATUS_HEADER } from './request-mux.ts'
import type { Timers } from './timers.ts'
import type { Random } from './world.ts'

/** Deliveries before timers and other work get their turn: two handlers that answer each other must not hold the loop. */
const DELIVERIES_PER_TURN = 1_000

/** Deliveries that may wait. Past it messages are lost, as NATS loses those of a slow consumer. */
const DELIVERIES_WAITING_MAX = 65_536

/** What a NATS server takes by default. */
const PAYLOAD_BYTES_MAX = 1024 * 1024

/** What the broker says of itself. */
export interface MemoryBrokerOptions {
  readonly payloadBytesMax?: number
  readonly jetstream?: boolean
  readonly serverVersion?: string
}

/** The server's side: every bus its connector opens reaches every other. */
export class MemoryBroker {
  readonly #timers: Timers
  readonly #random: Random
  readonly #options: Required<MemoryBrokerOptions>
  readonly #links = new Set<MemoryLink>()
  /** A set is a queue here: it keeps the order, and takes no longer to shift when it is long. */
  readonly #deliveries = new Set<Delivery>()
  #deliveriesLeft = DELIVERIES_PER_TURN
  #turnIsSet = false
  #running = true
  #starting: (() => void)[] = []
  #lostCount = 0

  constructor(timers: Timers, random: Random, options: MemoryBrokerOptions = {}) {
    this.#timers = timers
    this.#random = random
    this.#options = { payloadBytesMax: PAYLOAD_BYTES_MAX, jetstream: false, serverVersion: '2.14.0', ...options }
  }

  /** How many messages were lost because too many waited. */
  get lostCount(): number {
    return this.#lostCount
  }

  /** Makes the `connectBus` of a World. Servers, user and password are not looked at. */
  connector(): ConnectBus {
    return async options => {
      while (!this.#running) {
        if (!options.waitForServer) throw new BusError('disconnected', options.servers.join(' '))
        await new Promise<void>(resolve => this.#starting.push(resolve))
      }
      return new LinkedBus(options, this.#timers, this.#random, events => {
        const link = new MemoryLink(this, options.name, this.#options, events)
        this.#links.add(link)
        return link
      })
    }
  }

  /** Ends all connections, as a server that dies; what was under way is lost. */
  stop(): void {
    this.#running = false
    for (const link of this.#links) this.#cut(link)
  }

  /** Takes connections again, and those that were lost come back. */
  start(): void {
    this.#running = true
    for (const link of this.#links) link.setConnected(true)
    for (const resolve of this.#starting.splice(0)) resolve()
  }

  /** Ends the connections with this name only. */
  disconnect(name: string): void {
    for (const link of this.#links) if (link.name === name) this.#cut(link)
  }

  /** Lets the connections with this name come back. */
  reconnect(name: string): void {
    if (!this.#running) return
    for (const link of this.#links) if (link.name === name) link.setConnected(true)
  }

  /** For links: routes a message to those who listen now. */
  route(from: MemoryLink, message: LinkMessage): void {
    const tokens = message.subject.split('.')
    const queues = new Map<string, Listener[]>()
    let receivers = 0
    for (const link of this.#links) {
      if (!link.connected) continue
      for (const listener of link.listeners) {
        if (!subjectMatches(listener.tokens, tokens)) continue
        receivers++
        if (listener.queue === undefined) this.#deliver(listener, message)
        else queues.set(listener.queue, [...(queues.get(listener.queue) ?? []), listener])
      }
    }
    for (const members of queues.values()) this.#deliver(members[this.#random.below(members.length)]!, message)
    if (receivers === 0 && message.replyTo !== undefined) this.#answerNoResponders(from, message.replyTo)
  }

  /** For links: calls `run` after all deliveries set before, unless the link is cut first. */
  enqueue(to: MemoryLink, run: () => void): void {
    this.#deliveries.add({ to, run })
    if (this.#turnIsSet) return
    this.#turnIsSet = true
    queueMicrotask(() => this.#turn())
  }

  /** For links: forgets one that closed. */
  forget(link: MemoryLink): void {
    this.#links.delete(link)
  }

  #deliver(to: Listener, message: LinkMessage): void {
    if (this.#deliveries.size >= DELIVERIES_WAITING_MAX) {
      this.#lostCount++
      return
    }
    // A copy for each: over a network nobody sees what others do to their bytes. NATS trims header values.
    const payload = Buffer.from(message.payload)
    const headers = Object.fromEntries(Object.entries(message.headers).map(([name, value]) => [name, value.trim()]))
    this.enqueue(to.link, () => {
      if (!to.unsubscribed) to.receive({ ...message, payload, headers })
    })
  }

  #answerNoResponders(to: MemoryLink, subject: string): void {
    const tokens = subject.split('.')
    const headers = { [STATUS_HEADER]: NO_RESPONDERS_STATUS }
    for (const listener of to.listeners) {
      if (!subjectMatches(listener.tokens, tokens)) continue
      this.#deliver(listener, { subject, payload: new Uint8Array(), headers, replyTo: undefined })
      return
    }
  }

  #cut(link: MemoryLink): void {
    for (const delivery of this.#deliveries) if (delivery.to === link) this.#deliveries.delete(delivery)
    link.setConnected(false)
  }

  #turn(): void {
    for (const delivery of this.#deliveries) {
      if (this.#deliveriesLeft === 0) break
      this.#deliveriesLeft--
      this.#deliveries.delete(delivery)
      delivery.run()
    }
    this.#turnIsSet = this.#deliveries.size > 0
    if (!this.#turnIsSet) return
    this.#timers.set(0, () => {
      this.#deliveriesLeft = DELIVERIES_PER_TURN
      this.#turn()
    })
  }
}

interface Delivery {
  readonly to: MemoryLink
  readonly run: () => void
}

interface Listener {
  readonly link: MemoryLink
  readonly tokens: readonly string[]
  readonly queue: string | undefined
  readonly receive: (message: LinkMessage) => void
  unsubscribed: boolean
}

class MemoryLink implements Link {
  readonly name: string
  readonly payloadBytesMax: number
  readonly jetstream: boolean
  readonly serverVersion: string
  readonly listeners = new Set<Listener>()
  readonly #broker: MemoryBroker
  readonly #events: LinkEvents
  #connected = true

  constructor(broker: MemoryBroker, name: string, options: Required<MemoryBrokerOptions>, events: LinkEvents) {
    this.name = name
    this.payloadBytesMax = options.payloadBytesMax
    this.jetstream = options.jetstream
    this.serverVersion = options.serverVersion
    this.#broker = broker
    this.#events = events
  }

  get connected(): boolean {
    return this.#connected
  }

  setConnected(connected: boolean): void {
    this.#connected = connected
    this.#events.became(connected ? 'connected' : 'disconnected')
  }

  send(message: LinkMessage): void {
    this.#broker.route(this, message)
  }

  listen(pattern: string, queue: string | undefined, receive: (message: LinkMessage) => void): Subscription {
    const listener = { link: this, tokens: pattern.split('.'), queue, receive, unsubscribed: false }
    this.listeners.add(listener)
    return {
      unsubscribe: () => {
        listener.unsubscribed = true
        this.listeners.delete(listener)
      },
    }
  }

  flush(): Promise<void> {
    return new Promise(resolve => this.#broker.enqueue(this, resolve))
  }

  drain(): Promise<void> {
    this.listeners.clear()
    return this.flush()
  }

  async close(): Promise<void> {
    this.#broker.forget(this)
  }
}
