/**
 * NATS for simulated processes: the rules of the real one, and networks that are worse.
 *
 *     publish ──▶ route at once: who listens? ──▶ a delivery for each, after its latency ──▶ handler
 *
 * The server and a client may differ on whether they are connected: `attached` is what the server believes, `status` what
 * the client was told.
 */
import { type Bus, BusError, type BusOptions, type ConnectBus, type Subscription } from '../../runtime/bus.ts'
import { subjectMatches } from '../../runtime/bus-rules.ts'
import { type Link, type LinkEvents, LinkedBus, type LinkMessage } from '../../runtime/linked-bus.ts'
import { NO_RESPONDERS_STATUS, STATUS_HEADER } from '../../runtime/request-mux.ts'
import type { Timers } from '../../runtime/timers.ts'
import type { Random } from '../../runtime/world.ts'
import type { EventLoop } from './event-loop.ts'
import type { Life } from './life.ts'
import type { SeededRandom } from './seeded-random.ts'

/** What a NATS server takes by default. */
const PAYLOAD_BYTES_MAX = 1024 * 1024

/** Clients come back within this after they could. */
const RECONNECT_MS_MAX = 2_000

/** When a client notices that nothing gets through: `nats-bus.ts` pings every 20 s, and misses two. */
const PING_NOTICE_MS: [number, number] = [20_000, 40_000]

/** How long the server keeps the subscriptions of a process that could not say that it ended. */
const ZOMBIE_MS_MAX = 5_000

/** How badly the broker behaves; may be changed at any time. */
export interface BrokerFaults {
  /** For each delivery, between two bounds. */
  latencyMs: [number, number]
  /** The probability that a delivery does not happen. */
  loss: number
  /** The probability that it happens twice. */
  duplicate: number
  /** The probability that it is late by up to `reorderMs`, overtaken by later ones. */
  reorder: number
  reorderMs: number
}

/** The server's side. */
export class SimBroker {
  readonly faults: BrokerFaults = { latencyMs: [0.05, 1], loss: 0, duplicate: 0, reorder: 0, reorderMs: 500 }
  readonly loop: EventLoop
  readonly #random: SeededRandom
  readonly #links = new Set<SimLink>()
  /** Listeners by the part of their pattern that has no wildcard. */
  readonly #listeners = new Map<string, Set<Listener>>()
  /** Machines that cannot reach the server. A new isolation is a new object. */
  readonly #isolated = new Map<string, { readonly how: 'told' | 'silent' }>()
  /** Connects that wait for a server. */
  #waiting: (() => void)[] = []
  #running = true

  constructor(loop: EventLoop, random: SeededRandom) {
    this.loop = loop
    this.#random = random
  }

  /** Connections the server believes in. */
  get connectionCount(): number {
    let count = 0
    for (const link of this.#links) if (link.attached) count++
    return count
  }

  /** The `connectBus` of one process. Servers, user and password are not looked at. */
  as(life: Life, timers: Timers, random: Random): ConnectBus {
    const own = new Set<SimLink>()
    life.onEnd(how => {
      const unheard = how === 'power' || this.#isolated.has(life.machine)
      const keepMs = unheard ? this.#random.between(0, ZOMBIE_MS_MAX) : 0
      this.loop.after(keepMs, undefined, 'broker forgets', () => {
        for (const link of own) this.forget(link)
      })
    })
    const open = (options: BusOptions): Bus =>
      new LinkedBus(options, timers, random, events => {
        const link = new SimLink(this, life, own, events)
        this.#links.add(link)
        return link
      })
    return options =>
      new Promise((resolve, reject) => {
        const dial = (delayMs: number) => this.loop.after(delayMs, life, 'dial', answer)
        const answer = () => {
          if (this.#reachable(life)) resolve(open(options))
          else if (options.waitForServer) this.#waiting.push(() => dial(this.#random.between(0, RECONNECT_MS_MAX)))
          else reject(new BusError('disconnected', options.servers.join(' ')))
        }
        dial(this.delayMs())
      })
  }

  /** The server dies: all links are lost, with all that was under way. */
  stop(): void {
    this.loop.note('broker', 'stops')
    this.#running = false
    for (const link of this.#links) {
      const silent = this.#isolated.get(link.life.machine)?.how === 'silent'
      this.#detach(link, silent ? this.#random.between(...PING_NOTICE_MS) : this.delayMs())
    }
  }

  /** The server runs again. Links come back one by one, with their subscriptions. */
  start(): void {
    this.loop.note('broker', 'starts')
    this.#running = true
    this.#retry()
  }

  /** Keeps a machine from the server. `told`: it knows at once. `silent`: it goes on believing until its pings fail. */
  isolate(machine: string, how: 'told' | 'silent'): void {
    this.loop.note('broker', `isolates ${machine}, ${how}`)
    const isolation = { how }
    this.#isolated.set(machine, isolation)
    for (const link of this.#links) {
      if (link.life.machine !== machine || !link.attached) continue
      if (how === 'told') this.#detach(link)
      else {
        this.loop.after(this.#random.between(...PING_NOTICE_MS), undefined, 'ping fails', () => {
          if (link.attached && this.#isolated.get(machine) === isolation) this.#detach(link)
        })
      }
    }
  }

  /** Lets a machine, or all of them, reach the server again. */
  heal(machine?: string): void {
    this.loop.note('broker', `heals ${machine ?? 'all'}`)
    if (machine === undefined) this.#isolated.clear()
    else this.#isolated.delete(machine)
    this.#retry()
  }

  /** For links: how long something is under way. */
  delayMs(): number {
    return this.#random.between(...this.faults.latencyMs)
  }

  /** For links: whether what they send arrives, and the other way round. */
  hears(link: SimLink): boolean {
    return link.attached && !this.#isolated.has(link.life.machine)
  }

  /** For links: begins to route to a listener, once the server has heard of it. */
  add(listener: Listener): void {
    const key = listener.key
    const known = this.#listeners.get(key)
    if (known === undefined) this.#listeners.set(key, new Set([listener]))
    else known.add(listener)
  }

  /** For links: routes to a listener no more. */
  remove(listener: Listener): void {
    const known = this.#listeners.get(listener.key)
    known?.delete(listener)
    if (known?.size === 0) this.#listeners.delete(listener.key)
  }

  /** For links: routes a message to those who listen now. */
  route(from: SimLink, message: LinkMessage): void {
    const packet = new Packet(message)
    const queues = new Map<string, Listener[]>()
    let heard = false
    for (const listener of this.#listening(message.subject)) {
      heard = true
      if (listener.queue === undefined) this.#deliver(from, listener, packet)
      else {
        const members = queues.get(listener.queue)
        if (members === undefined) queues.set(listener.queue, [listener])
        else members.push(listener)
      }
    }
    for (const members of queues.values()) this.#deliver(from, this.#random.pick(members), packet)
    if (heard || message.replyTo === undefined) return
    const nobody = { subject: message.replyTo, payload: new Uint8Array(), headers: NOBODY, replyTo: undefined }
    for (const listener of this.#listening(message.replyTo)) {
      if (listener.link === from) this.#deliver(from, listener, new Packet(nobody))
    }
  }

  /** For links: removes one that has closed. */
  forget(link: SimLink): void {
    this.#links.delete(link)
    link.attached = false
    for (const listener of link.listeners) this.remove(listener)
    for (const other of this.#links) other.lastFrom.delete(link)
  }

  *#listening(subject: string): Generator<Listener> {
    const tokens = subject.split('.')
    let key = ''
    for (let count = 0; count <= tokens.length; count++) {
      for (const listener of this.#listeners.get(key) ?? []) {
        if (listener.link.attached && subjectMatches(listener.tokens, tokens)) yield listener
      }
      key = count === 0 ? tokens[0]! : `${key}.${tokens[count]}`
    }
  }

  #deliver(from: SimLink, to: Listener, packet: Packet): void {
    const { loss, duplicate, reorder, reorderMs } = this.faults
    if (loss > 0 && this.#random.chance(loss)) {
      this.loop.note('broker', `loses ${packet.message.subject}`)
      return
    }
    if (duplicate > 0 && this.#random.chance(duplicate)) {
      this.loop.note('broker', `repeats ${packet.message.subject}`)
      this.#deliverAt(this.loop.nowMs + this.delayMs() + this.#random.between(0, reorderMs), to, packet)
    }
    if (reorder > 0 && this.#random.chance(reorder)) {
      this.loop.note('broker', `delays ${packet.message.subject}`)
      this.#deliverAt(this.loop.nowMs + this.delayMs() + this.#random.between(0, reorderMs), to, packet)
    } else this.#deliverAt(to.link.arrivalMs(from, this.loop.nowMs + this.delayMs()), to, packet)
  }

  #deliverAt(atMs: number, to: Listener, packet: Packet): void {
    const { link } = to
    const { session } = link
    this.loop.after(atMs - this.loop.nowMs, link.life, `deliver ${packet.message.subject}`, () => {
      if (session === link.session && !to.unsubscribed && this.hears(link)) to.receive(packet.copy())
    })
  }

  #reachable(life: Life): boolean {
    return this.#running && !this.#isolated.has(life.machine)
  }

  /** Ends a connection; the client hears of it later. */
  #detach(link: SimLink, afterMs = this.delayMs()): void {
    if (!link.attached) return
    link.attached = false
    link.session++
    this.loop.after(afterMs, link.life, 'disconnected', () => {
      link.becomes('disconnected')
      this.#seek(link)
    })
  }

  /** Lets a client that knows it is disconnected find the server. */
  #seek(link: SimLink): void {
    if (link.seeking || link.attached || link.status !== 'disconnected' || !this.#reachable(link.life)) return
    link.seeking = true
    this.loop.after(this.#random.between(0, RECONNECT_MS_MAX), link.life, 'reconnect', () => {
      link.seeking = false
      if (!this.#links.has(link) || !this.#reachable(link.life)) return
      link.attached = true
      link.announceAll()
      link.becomes('connected')
    })
  }

  #retry(): void {
    for (const link of this.#links) this.#seek(link)
    const waiting = this.#waiting
    this.#waiting = []
    for (const dial of waiting) dial()
  }
}

const NOBODY = { [STATUS_HEADER]: NO_RESPONDERS_STATUS }

/** A message under way to one or many. */
class Packet {
  readonly message: LinkMessage
  #payload: Uint8Array

  constructor(message: LinkMessage) {
    this.message = message
    this.#payload = message.payload
    // nats.js copies a payload no sooner: whoever changes it before that is caught.
    queueMicrotask(() => {
      this.#payload = Buffer.from(message.payload)
    })
  }

  /** A copy for each: over a network nobody sees what others do to their bytes. NATS trims header values. */
  copy(): LinkMessage {
    const headers: Record<string, string> = {}
    for (const name in this.message.headers) headers[name] = this.message.headers[name]!.trim()
    return { ...this.message, payload: Buffer.from(this.#payload), headers }
  }
}

interface Listener {
  readonly link: SimLink
  readonly tokens: readonly string[]
  /** The tokens before the first wildcard. */
  readonly key: string
  readonly queue: string | undefined
  readonly receive: (message: LinkMessage) => void
  unsubscribed: boolean
}

class SimLink implements Link {
  readonly payloadBytesMax = PAYLOAD_BYTES_MAX
  readonly jetstream = false
  readonly serverVersion = '2.14.0'
  readonly life: Life
  readonly listeners = new Set<Listener>()
  /** When the last message of each publisher arrives here. */
  readonly lastFrom = new Map<SimLink, number>()
  attached = true
  seeking = false
  status: 'connected' | 'disconnected' = 'connected'
  /** Counts the connections it has lost: what was under way in an earlier one does not arrive. */
  session = 0
  readonly #broker: SimBroker
  readonly #siblings: Set<SimLink>
  readonly #events: LinkEvents
  /** Listeners the server has not heard of yet. */
  #unannounced: Listener[] = []
  #lastMs = 0

  constructor(broker: SimBroker, life: Life, siblings: Set<SimLink>, events: LinkEvents) {
    this.#broker = broker
    this.life = life
    this.#siblings = siblings
    this.#events = events
    siblings.add(this)
  }

  /** Keeps the order of one publisher: returns when its next message arrives, which is no earlier than asked. */
  arrivalMs(from: SimLink, earliestMs: number): number {
    const atMs = Math.max(earliestMs, this.lastFrom.get(from) ?? 0)
    this.lastFrom.set(from, atMs)
    this.#lastMs = Math.max(this.#lastMs, atMs)
    return atMs
  }

  becomes(status: 'connected' | 'disconnected'): void {
    this.status = status
    this.#events.became(status)
  }

  /** Tells the server of all new listeners: with whatever is sent after them, and on a new connection. */
  announceAll(): void {
    for (const listener of this.#unannounced) if (!listener.unsubscribed) this.#broker.add(listener)
    this.#unannounced = []
  }

  send(message: LinkMessage): void {
    if (this.life.ended || !this.#broker.hears(this)) return
    this.announceAll()
    this.#broker.route(this, message)
  }

  listen(pattern: string, queue: string | undefined, receive: (message: LinkMessage) => void): Subscription {
    const tokens = pattern.split('.')
    const wild = tokens.findIndex(token => token === '*' || token === '>')
    const key = wild < 0 ? pattern : tokens.slice(0, wild).join('.')
    const listener: Listener = { link: this, tokens, key, queue, receive, unsubscribed: false }
    this.listeners.add(listener)
    this.#unannounced.push(listener)
    this.#broker.loop.after(this.#broker.delayMs(), this.life, 'subscribe', () => this.announceAll())
    return {
      unsubscribe: () => {
        listener.unsubscribed = true
        this.listeners.delete(listener)
        this.#broker.remove(listener)
      },
    }
  }

  flush(): Promise<void> {
    const { loop } = this.#broker
    const { session } = this
    return new Promise(resolve => {
      if (!this.#broker.hears(this)) return
      this.announceAll()
      // The answer comes after all that the server had sent before.
      const atMs = Math.max(this.#lastMs, loop.nowMs + this.#broker.delayMs() + this.#broker.delayMs())
      loop.after(atMs - loop.nowMs, this.life, 'flush', () => {
        if (session === this.session && this.#broker.hears(this)) resolve()
      })
    })
  }

  drain(): Promise<void> {
    for (const listener of this.listeners) this.#broker.remove(listener)
    this.listeners.clear()
    this.#unannounced = []
    return this.flush()
  }

  async close(): Promise<void> {
    this.#siblings.delete(this)
    this.#broker.forget(this)
    this.session++
  }
}
