/**
 * Sockets between simulated machines. A connection has two ends, and each of them sends like this:
 *
 *     write ──▶ borrowed: the caller's buffers ──▶ taken: the kernel's copies ──▶ chunk, cut anywhere ──▶ unread ──▶ read
 *                                                 └─────────────── at most WINDOW_BYTES ───────────────┘
 *
 * A write settles when its last byte has been taken, which is as late as when it arrives or as early as at once. What was
 * taken may never arrive, and nobody is told: so it is with TCP. One chunk is under way in each direction.
 */
import { type Endpoint, type Listener, type Socket, SocketError, type Sockets } from '../../runtime/world.ts'
import type { EventLoop } from './event-loop.ts'
import type { Death, Life } from './life.ts'
import type { SeededRandom } from './seeded-random.ts'

/** What a connection holds in each direction; far less than a real one, so that senders often have to wait. */
const WINDOW_BYTES = 64 * 1024

/** A connect that nobody answers is tried again after this, then after twice as long, as TCP does. */
const CONNECT_AGAIN_MS = 1_000

/** What was stuck goes out again within this after a cut was healed. */
const RETRANSMIT_MS_MAX = 2_000

/** The ports given where any will do, as IANA has it. */
const FREE_PORT_MIN = 49_152
const FREE_PORT_MAX = 65_535

/** How badly the network behaves; may be changed at any time. */
export interface NetworkFaults {
  /** For each chunk, between two bounds; the order within a direction is kept. */
  latencyMs: [number, number]
  /** A factor on all latencies. */
  slow: number
  bytesPerMs: number
  /** The probability that a chunk is cut at any byte and the connection then breaks for both sides. */
  resetPerChunk: number
  /** The probability that from here on a connection carries nothing more in either direction, and tells nobody. */
  stallPerChunk: number
  /** The probability that a connect is refused, or times out. */
  refuse: number
}

/** `silent`: what is sent does not arrive, and nobody is told. `reset`: connections break, and none can be made. */
export type CutHow = 'silent' | 'reset'

/** One direction between two machines that is cut; `*` stands for all others. */
interface Cut {
  readonly from: string
  readonly to: string
  readonly how: CutHow
}

interface Machine {
  readonly name: string
  readonly listeners: Map<number, SimListener>
  freePort: number
  lifeCount: number
  /** Its last life ended with a loss of power, and none has begun since. */
  dark: boolean
}

/** What a life has open. */
interface Process {
  readonly life: Life
  readonly machine: Machine
  readonly sockets: Set<SimSocket>
  readonly listeners: Set<SimListener>
}

/** What both ends of a connection share. */
interface Connection {
  readonly ends: SimSocket[]
  /** Carries nothing any more, for ever. */
  stalled: boolean
}

export class SimNetwork {
  readonly faults: NetworkFaults = {
    latencyMs: [0.05, 1],
    slow: 1,
    bytesPerMs: 100_000,
    resetPerChunk: 0,
    stallPerChunk: 0,
    refuse: 0,
  }
  readonly loop: EventLoop
  readonly random: SeededRandom
  readonly #machines = new Map<string, Machine>()
  readonly #processes = new Map<Life, Process>()
  /** Those that can still carry something. */
  readonly #connections = new Set<Connection>()
  readonly #cuts = new Set<Cut>()

  constructor(loop: EventLoop, random: SeededRandom) {
    this.loop = loop
    this.random = random
  }

  /** The sockets of one process. Its machine's name is its host name and its address; it may listen there and at `0.0.0.0`. */
  as(life: Life): Sockets {
    const process = this.#process(life)
    return {
      listen: (at, accept) => (life.ended ? never() : this.#listen(process, at, accept)),
      connect: (to, timeoutMs) => (life.ended ? never() : this.#connect(process, to, timeoutMs)),
      resolve: async host => {
        if (life.ended) return never()
        if (!this.#machines.has(host)) throw new SocketError(`resolve ${host}`, 'ENOTFOUND')
        return host
      },
    }
  }

  /** Stops all packets between two machines (`*`: all others), or those from the first to the second, until healed. */
  cut(a: string, b: string, how: CutHow, { oneWay = false } = {}): void {
    this.loop.note('network', `cut ${a} ${oneWay ? '>' : '-'} ${b}, ${how}`)
    this.#cuts.add({ from: a, to: b, how })
    if (!oneWay) this.#cuts.add({ from: b, to: a, how })
    if (how === 'silent') return
    for (const { ends } of this.#connections) {
      for (const end of ends) if (this.#cutBetween(end.machine, end.peer.machine) === 'reset') this.breakSoon(end)
    }
  }

  /** Ends the cuts that name both, those that name one, or all; `*` is a name. What was stuck arrives late. */
  heal(a?: string, b?: string): void {
    this.loop.note('network', `heal ${[a ?? 'all', ...(b === undefined ? [] : [b])].join(' - ')}`)
    for (const cut of this.#cuts) {
      const names = [cut.from, cut.to]
      if ((a === undefined || names.includes(a)) && (b === undefined || names.includes(b))) this.#cuts.delete(cut)
    }
    this.#retransmit()
  }

  /** The connections and listeners a process has not closed. */
  openSockets(life: Life): number {
    const process = this.#processes.get(life)
    return process === undefined ? 0 : process.sockets.size + process.listeners.size
  }

  /** For sockets: whether what one end sends would arrive now. */
  carries(from: SimSocket): boolean {
    const { connection, machine, peer } = from
    return !connection.stalled && !peer.machine.dark && this.#cutBetween(machine, peer.machine) === undefined
  }

  /** For sockets: how long something of a size is under way. */
  delayMs(bytes = 0): number {
    const [min, max] = this.faults.latencyMs
    return this.random.between(min, max) * this.faults.slow + bytes / this.faults.bytesPerMs
  }

  /** For sockets: tells the other side that there is no connection. Such a packet is not sent twice. */
  sendReset(from: SimSocket): void {
    this.loop.after(this.delayMs(), undefined, 'reset', () => {
      if (this.carries(from)) from.peer.reset()
    })
  }

  /** For sockets: the network itself tells an end that its connection has broken. */
  breakSoon(end: SimSocket): void {
    this.loop.after(this.delayMs(), undefined, 'break', () => end.reset())
  }

  /** For sockets: forgets a connection that will carry nothing any more. */
  forget(connection: Connection): void {
    this.#connections.delete(connection)
  }

  #process(life: Life): Process {
    const known = this.#processes.get(life)
    if (known !== undefined) return known
    const machine = this.#machine(life.machine)
    const process: Process = { life, machine, sockets: new Set(), listeners: new Set() }
    if (life.ended) return process
    this.#processes.set(life, process)
    machine.lifeCount++
    if (machine.dark) {
      machine.dark = false
      this.#retransmit()
    }
    life.onEnd(how => this.#ended(process, how))
    return process
  }

  #machine(name: string): Machine {
    let machine = this.#machines.get(name)
    if (machine === undefined) {
      machine = { name, listeners: new Map(), freePort: FREE_PORT_MIN, lifeCount: 0, dark: false }
      this.#machines.set(name, machine)
    }
    return machine
  }

  #ended({ life, machine, sockets, listeners }: Process, how: Death): void {
    this.#processes.delete(life)
    machine.lifeCount--
    machine.dark = how === 'power' && machine.lifeCount === 0
    for (const listener of listeners) void listener.close()
    for (const socket of sockets) {
      if (how === 'killed') socket.destroy()
      else socket.vanish()
    }
    if (!machine.dark) return
    // Also those whose process had closed them, with something still to send.
    for (const { ends } of this.#connections) for (const end of ends) if (end.machine === machine) end.vanish()
  }

  async #listen(process: Process, at: Endpoint, accept: (socket: Socket) => void): Promise<Listener> {
    const { machine } = process
    const action = `listen on ${at.host}:${at.port}`
    if (at.host !== '0.0.0.0' && at.host !== machine.name) throw new SocketError(action, 'EADDRNOTAVAIL')
    const port = at.port === 0 ? this.#freePort(machine) : at.port
    if (machine.listeners.has(port)) throw new SocketError(action, 'EADDRINUSE')
    return new SimListener(process, { host: at.host, port }, accept)
  }

  #freePort(machine: Machine): number {
    let port: number
    do {
      port = machine.freePort
      machine.freePort = port === FREE_PORT_MAX ? FREE_PORT_MIN : port + 1
    } while (machine.listeners.has(port))
    return port
  }

  #connect(process: Process, to: Endpoint, timeoutMs: number): Promise<Socket> {
    const { life, machine } = process
    const { loop, random, faults } = this
    const deadlineMs = loop.nowMs + timeoutMs
    return new Promise((resolve, reject) => {
      const fail = (errno: string) => reject(new SocketError(`connect to ${to.host}:${to.port}`, errno))
      const knock = (delayMs: number, againMs: number) => {
        const leftMs = deadlineMs - loop.nowMs
        if (delayMs >= leftMs) loop.after(leftMs, life, 'connect timeout', () => fail('ETIMEDOUT'))
        else loop.after(delayMs, life, 'connect', () => answer(againMs))
      }
      const answer = (againMs: number) => {
        const host = this.#machines.get(to.host)
        if (host === undefined) return fail('ENOTFOUND')
        const there = this.#cutBetween(machine, host)
        if (there === 'reset') return fail('EHOSTUNREACH')
        if (there !== undefined || host.dark || this.#cutBetween(host, machine)) return knock(againMs, 2 * againMs)
        const listener = host.listeners.get(to.port)
        if (listener === undefined) return fail('ECONNREFUSED')
        resolve(this.#open(process, to, listener))
      }
      if (faults.refuse === 0 || !random.chance(faults.refuse)) return knock(this.delayMs(), CONNECT_AGAIN_MS)
      const refused = random.chance(0.5)
      loop.note('network', `${machine.name} > ${to.host} ${refused ? 'refused' : 'not answered'}`)
      if (!refused) return knock(timeoutMs, 0)
      return void loop.after(this.delayMs(), life, 'refuse', () => fail('ECONNREFUSED'))
    })
  }

  #open(process: Process, to: Endpoint, listener: SimListener): Socket {
    const from = { host: process.machine.name, port: this.#freePort(process.machine) }
    const connection: Connection = { ends: [], stalled: false }
    const near = new SimSocket(this, process, to, connection)
    const far = new SimSocket(this, listener.process, from, connection)
    near.peer = far
    far.peer = near
    connection.ends.push(near, far)
    this.#connections.add(connection)
    this.loop.after(this.delayMs(), listener.process.life, 'accept', () => {
      if (listener.closed) far.destroy()
      else listener.accept(far)
    })
    return near
  }

  #cutBetween(from: Machine, to: Machine): CutHow | undefined {
    if (from === to) return undefined
    let how: CutHow | undefined
    // The latest says how.
    for (const cut of this.#cuts) {
      if ((cut.from === from.name || cut.from === '*') && (cut.to === to.name || cut.to === '*')) how = cut.how
    }
    return how
  }

  #retransmit(): void {
    for (const { ends } of this.#connections) {
      for (const end of ends) end.sendMore(this.random.between(0, RETRANSMIT_MS_MAX))
    }
  }
}

class SimListener implements Listener {
  readonly process: Process
  readonly endpoint: Endpoint
  readonly accept: (socket: Socket) => void
  closed = false

  constructor(process: Process, endpoint: Endpoint, accept: (socket: Socket) => void) {
    this.process = process
    this.endpoint = endpoint
    this.accept = accept
    process.machine.listeners.set(endpoint.port, this)
    process.listeners.add(this)
  }

  async close(): Promise<void> {
    if (this.closed) return
    this.closed = true
    this.process.machine.listeners.delete(this.endpoint.port)
    this.process.listeners.delete(this)
  }
}

interface Reader {
  readonly target: Uint8Array
  readonly least: number
  filled: number
  resolve(bytes: number): void
  reject(error: Error): void
}

interface Write {
  /** Where it ends among all that was ever written. */
  readonly endBytes: number
  resolve(): void
  reject(error: Error): void
}

class SimSocket implements Socket {
  readonly remote: Endpoint
  readonly connection: Connection
  readonly machine: Machine
  peer!: SimSocket
  readonly #network: SimNetwork
  readonly #process: Process
  readonly #name: string

  /** What has arrived, oldest first. */
  readonly #unread: Uint8Array[] = []
  #unreadBytes = 0
  #receivedBytes = 0
  #reader: Reader | undefined
  /** The other side's end has arrived. */
  #ended = false
  #error: Error | undefined
  /** What was read, and the other side does not know of yet. */
  #unacknowledgedBytes = 0

  /** What was written: first the caller's own bytes, then the kernel's copies of them. */
  readonly #borrowed: Uint8Array[] = []
  readonly #taken: Uint8Array[] = []
  readonly #writes: Write[] = []
  #writtenBytes = 0
  #takenBytes = 0
  #sentBytes = 0
  /** How much more the kernel may take. */
  #windowBytes = WINDOW_BYTES
  #flying = false
  #ending = false
  #endSent = false

  /** Its process has no use for it any more. */
  #closed = false
  /** Its machine knows nothing of it any more: what comes for it is answered with a reset. */
  #gone = false

  constructor(network: SimNetwork, process: Process, remote: Endpoint, connection: Connection) {
    this.#network = network
    this.#process = process
    this.machine = process.machine
    this.remote = { host: remote.host, port: remote.port }
    this.connection = connection
    this.#name = `${process.life.name} > ${remote.host}`
    process.sockets.add(this)
  }

  get queuedBytes(): number {
    return this.#writtenBytes - this.#takenBytes
  }

  get closed(): boolean {
    return this.#closed
  }

  get receivedBytes(): number {
    return this.#receivedBytes
  }

  get sentBytes(): number {
    return this.#takenBytes
  }

  read(target: Uint8Array, least = 1): Promise<number> {
    if (this.#process.life.ended) return never()
    if (this.#reader !== undefined) return Promise.reject(new Error('one read at a time'))
    if (target.length < least) return Promise.reject(new RangeError('there is no room to read into'))
    const filled = this.#unreadBytes > 0 ? this.#takeUnread(target) : 0
    if (filled >= least) return Promise.resolve(filled)
    if (this.#error !== undefined) return Promise.reject(this.#error)
    if (this.#ended) return Promise.resolve(filled)
    return new Promise((resolve, reject) => {
      this.#reader = { target, least, filled, resolve, reject }
    })
  }

  write(parts: readonly Uint8Array[]): Promise<void> | undefined {
    if (this.#process.life.ended) return never()
    if (this.#closed || this.#ending) return Promise.reject(this.#error ?? new SocketError('write', 'EPIPE'))
    for (const part of parts) {
      if (part.length > 0) this.#borrowed.push(part)
      this.#writtenBytes += part.length
    }
    // A real kernel often takes what is written at once; when it does not, a buffer used again too soon shows.
    if (this.#network.random.chance(0.5)) this.#take(this.#takeableBytes)
    this.#settle()
    const taken = this.queuedBytes === 0
    const written = taken
      ? undefined
      : new Promise<void>((resolve, reject) => {
          this.#writes.push({ endBytes: this.#writtenBytes, resolve, reject })
        })
    this.#sendOn()
    return written
  }

  end(): Promise<void> {
    if (this.#process.life.ended) return never()
    if (this.#closed) return Promise.resolve()
    return new Promise(resolve => {
      this.#writes.push({ endBytes: this.#writtenBytes, resolve, reject: () => resolve() })
      this.#settle()
      this.#ending = true
      this.#sendOn()
    })
  }

  destroy(reason: Error = new SocketError('socket', 'ECONNABORTED')): void {
    const leftUnread = this.#unreadBytes > 0
    clear(this.#unread)
    this.#unreadBytes = 0
    if (this.#closed) return
    // Something of a write under way may have gone out.
    this.#take(this.#network.random.below(this.#takeableBytes + 1))
    this.#close(reason)
    // A kernel resets a connection that is closed over unread bytes. Others end in order, so far as one can tell.
    if (leftUnread || this.#network.random.chance(0.5)) {
      this.#leave()
      this.#network.sendReset(this)
    } else {
      this.#ending = true
      this.#sendOn()
    }
  }

  /** The other side, or the network, says that there is no connection. */
  reset(): void {
    if (this.#gone) return
    // RFC 9293 lets a reset flush what was received and not yet read.
    if (this.#network.random.chance(0.5)) {
      clear(this.#unread)
      this.#unreadBytes = 0
    }
    this.#leave()
    this.#close(new SocketError('socket', 'ECONNRESET'))
  }

  /** The machine has lost its power. */
  vanish(): void {
    this.#closed = true
    this.#process.sockets.delete(this)
    this.#leave()
  }

  /** Goes on with what was stuck: a cut was healed, or a machine lives again. */
  sendMore(delayMs = 0): void {
    if (this.#gone) return
    this.#acknowledge()
    this.#sendOn(delayMs)
  }

  #takeUnread(target: Uint8Array): number {
    const count = move(this.#unread, target)
    this.#unreadBytes -= count
    this.#unacknowledgedBytes += count
    this.#acknowledge()
    return count
  }

  /** Tells the other side that there is room again, if it can be told. */
  #acknowledge(): void {
    if (this.#unacknowledgedBytes === 0 || !this.#network.carries(this)) return
    this.peer.#windowBytes += this.#unacknowledgedBytes
    this.#unacknowledgedBytes = 0
    this.peer.#sendOn()
  }

  /** What the kernel could copy now. */
  get #takeableBytes(): number {
    return Math.min(this.queuedBytes, this.#windowBytes)
  }

  /** What the kernel holds that has not gone out. */
  get #unsentBytes(): number {
    return this.#takenBytes - this.#sentBytes
  }

  /** Lets the kernel copy what comes next. */
  #take(count: number): void {
    if (count <= 0) return
    const copy = Buffer.allocUnsafe(count)
    move(this.#borrowed, copy)
    this.#taken.push(copy)
    this.#takenBytes += count
    this.#windowBytes -= count
  }

  /** Settles the writes that have been copied whole. */
  #settle(): void {
    while (this.#writes.length > 0 && this.#writes[0]!.endBytes <= this.#takenBytes) {
      const write = this.#writes.shift()!
      if (!this.#process.life.ended) write.resolve()
    }
  }

  /** Sets the next chunk on its way, if there is something to send and nothing under way. */
  #sendOn(waitMs = 0): void {
    if (this.#flying || this.#gone || this.#endSent) return
    const takeable = this.#takeableBytes
    const sendable = this.#unsentBytes + takeable
    const ends = this.#ending && this.#writtenBytes === this.#sentBytes
    // Over a dead line nothing goes out, but the kernel takes what it has room for.
    if (this.#network.carries(this) ? sendable === 0 && !ends : takeable === 0) return
    this.#flying = true
    const delayMs = waitMs + this.#network.delayMs(sendable)
    this.#network.loop.after(delayMs, undefined, this.#name, () => this.#arrive(sendable))
  }

  /** What was under way is there, or lost. */
  #arrive(sendable: number): void {
    this.#flying = false
    if (this.#gone) return
    const network = this.#network
    const { random, faults } = network
    if (faults.stallPerChunk > 0 && random.chance(faults.stallPerChunk)) {
      network.loop.note('network', `${this.#name} stalls`)
      this.connection.stalled = true
      network.forget(this.connection)
    }
    // Less than had been sent on its way, if the socket was closed meanwhile.
    const size = Math.min(sendable, this.#unsentBytes + this.#takeableBytes)
    if (!network.carries(this)) {
      this.#take(this.#takeableBytes)
      this.#settle()
    } else if (size === 0) this.#arriveEnd()
    else if (faults.resetPerChunk > 0 && random.chance(faults.resetPerChunk)) this.#breakIn(size)
    else {
      const count = chunkBytes(size, random)
      this.#take(count - this.#unsentBytes)
      this.#settle()
      this.#hand(count)
      this.#sendOn()
    }
  }

  #arriveEnd(): void {
    this.#endSent = true
    const { peer } = this
    if (peer.#gone) peer.#refuse()
    else if (!peer.#ended) peer.#endsHere()
    if (!peer.#endSent) return
    for (const end of this.connection.ends) {
      end.#close(undefined)
      end.#leave()
    }
  }

  /** The connection breaks within a chunk; its writes may have settled before they hear of it, or not. */
  #breakIn(size: number): void {
    const { random, loop } = this.#network
    const count = random.below(size + 1)
    loop.note('network', `${this.#name} breaks after ${count} of ${size} bytes`)
    this.#take(size - this.#unsentBytes)
    if (random.chance(0.5)) this.#settle()
    if (count > 0) this.#hand(count)
    this.connection.stalled = true
    for (const end of this.connection.ends) this.#network.breakSoon(end)
  }

  /** Gives the other side so many of the bytes that were taken. */
  #hand(count: number): void {
    let chunk = this.#taken[0]!
    if (chunk.length === count) this.#taken.shift()
    else {
      chunk = Buffer.allocUnsafe(count)
      move(this.#taken, chunk)
    }
    this.#sentBytes += count
    this.peer.#receive(chunk)
  }

  #receive(chunk: Uint8Array): void {
    if (this.#closed) {
      this.#refuse()
      return
    }
    this.#unread.push(chunk)
    this.#unreadBytes += chunk.length
    this.#receivedBytes += chunk.length
    const reader = this.#reader
    if (reader === undefined) return
    reader.filled += this.#takeUnread(reader.target.subarray(reader.filled))
    if (reader.filled < reader.least) return
    this.#reader = undefined
    reader.resolve(reader.filled)
  }

  /** Something came for a socket that nobody has any more. */
  #refuse(): void {
    this.#leave()
    this.#network.sendReset(this)
  }

  #endsHere(): void {
    this.#ended = true
    const reader = this.#reader
    this.#reader = undefined
    reader?.resolve(reader.filled)
  }

  /** The process is through with it: by its own will, or because the connection is. */
  #close(error: Error | undefined): void {
    this.#closed = true
    this.#process.sockets.delete(this)
    if (!this.#ended) this.#error ??= error
    clear(this.#borrowed)
    this.#writtenBytes = this.#takenBytes
    const waiting = [...(this.#reader === undefined ? [] : [this.#reader]), ...this.#writes]
    this.#reader = undefined
    clear(this.#writes)
    if (!this.#process.life.ended) for (const one of waiting) one.reject(error ?? new SocketError('socket', 'EPIPE'))
    if (this.peer.#closed) this.#network.forget(this.connection)
  }

  /** The kernel is through with it. */
  #leave(): void {
    this.#gone = true
    clear(this.#borrowed)
    clear(this.#taken)
    if (this.peer.#closed) this.#network.forget(this.connection)
  }
}

/** How much of what could be sent makes up the next chunk: often all of it, and now and then a single byte. */
function chunkBytes(sendable: number, random: SeededRandom): number {
  const dice = random.below(10)
  if (dice === 0) return 1
  return dice <= 2 ? 1 + random.below(sendable) : sendable
}

/** Moves as many bytes as there is room for from the front of a queue; returns how many. */
function move(queue: Uint8Array[], target: Uint8Array): number {
  let filled = 0
  while (filled < target.length && queue.length > 0) {
    const first = queue[0]!
    const count = Math.min(first.length, target.length - filled)
    target.set(count === first.length ? first : first.subarray(0, count), filled)
    filled += count
    if (count === first.length) queue.shift()
    else queue[0] = first.subarray(count)
  }
  return filled
}

function clear(list: unknown[]): void {
  list.length = 0
}

/** What somebody waits for whose life has ended. */
function never(): Promise<never> {
  return new Promise(() => undefined)
}
