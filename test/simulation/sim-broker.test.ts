import { expect } from 'chai'
import { type Bus, BusError, type BusOptions, type BusStatus } from '../../runtime/bus.ts'
import { Timers } from '../../runtime/timers.ts'
import { busContract, bytes, text } from '../runtime/bus-contract.ts'
import { drive } from './drive.ts'
import { EventLoop } from './event-loop.ts'
import { Life } from './life.ts'
import { SeededRandom } from './seeded-random.ts'
import { SimBroker } from './sim-broker.ts'
import { SimClock } from './sim-clock.ts'

const OPTIONS: BusOptions = { servers: ['sim'], name: 'test', inboxPrefix: '_INBOX', waitForServer: true }

/** Enough for whatever can happen once in a few times. */
const SEEDS = Array.from({ length: 40 }, (_, i) => String(i))

busContract('the simulated broker', async () => {
  const site = new Site('contract')
  const { connect } = site.start('contract', 'a')
  const cancel = drive(site.loop)
  return {
    connect,
    stop: async () => site.broker.stop(),
    start: async () => site.broker.start(),
    remove: async () => cancel(),
  }
})

describe('the simulated broker', () => {
  it('does the same again with the same seed', async () => {
    const run = async (seed: string) => {
      const site = new Site(seed)
      Object.assign(site.broker.faults, { loss: 0.1, duplicate: 0.1, reorder: 0.1 })
      const [a, b] = [await site.bus('a'), await site.bus('b')]
      const log = received(b, '>')
      for (let i = 0; i < 100; i++) a.publish('x', bytes(`${i}`))
      await site.pass(5_000)
      return `${site.loop.hash} ${log}`
    }
    expect(await run('1')).equal(await run('1'))
    expect(await run('1')).not.equal(await run('2'))
  })

  it('keeps the order of each publisher, but not that of two', async () => {
    const orders = new Set<string>()
    for (const seed of SEEDS) {
      const site = new Site(seed)
      const [a, b, c] = [await site.bus('a'), await site.bus('b'), await site.bus('c')]
      const log = received(c, 'x')
      await site.pass(10)
      for (let i = 0; i < 5; i++) {
        a.publish('x', bytes(`a${i}`))
        b.publish('x', bytes(`b${i}`))
      }
      await site.pass(10)
      expect(log.filter(one => one.startsWith('a'))).deep.equal(['a0', 'a1', 'a2', 'a3', 'a4'])
      expect(log.filter(one => one.startsWith('b'))).deep.equal(['b0', 'b1', 'b2', 'b3', 'b4'])
      orders.add(log.join())
    }
    expect(orders.size).greaterThan(SEEDS.length / 2)
  })

  it('takes as long as its latency says', async () => {
    const site = new Site('1')
    const [a, b] = [await site.bus('a'), await site.bus('b')]
    site.broker.faults.latencyMs = [300, 300]
    const log = received(b, 'x')
    await site.pass(1_000)
    a.publish('x', bytes('1'))
    await site.pass(299)
    expect(log).empty
    await site.pass(2)
    expect(log).deep.equal(['1'])
  })

  it('loses, repeats and delays deliveries as often as it is told to', async () => {
    const site = new Site('1')
    const [a, b] = [await site.bus('a'), await site.bus('b')]
    const log = received(b, 'x')
    await site.pass(10)
    const send = async (faults: Partial<SimBroker['faults']>) => {
      Object.assign(site.broker.faults, { loss: 0, duplicate: 0, reorder: 0 }, faults)
      for (let i = 0; i < 1_000; i++) a.publish('x', bytes(`${i}`))
      await site.pass(1_000)
      return log.splice(0).map(Number)
    }
    expect((await send({ loss: 0.2 })).length).within(700, 900)
    expect((await send({ duplicate: 0.2 })).length).within(1_100, 1_300)
    const reordered = await send({ reorder: 0.2 })
    expect([...reordered].sort((x, y) => x - y)).deep.equal(Array.from({ length: 1_000 }, (_, i) => i))
    const overtaken = reordered.filter((one, i) => i > 0 && one < Math.max(...reordered.slice(0, i)))
    expect(overtaken.length).within(100, 300)
  })

  it('may miss what others publish before it has heard of a subscription, and nothing after a flush', async () => {
    const missed = { before: 0, after: 0, own: 0 }
    for (const seed of SEEDS) {
      const site = new Site(seed)
      const [a, b] = [await site.bus('a'), await site.bus('b')]
      const early = received(b, 'early')
      a.publish('early', bytes(''))
      const own = received(b, 'own')
      b.publish('own', bytes(''))
      const late = received(b, 'late')
      void b.flush().then(() => a.publish('late', bytes('')))
      await site.pass(100)
      missed.before += 1 - early.length
      missed.own += 1 - own.length
      missed.after += 1 - late.length
    }
    expect(missed).deep.equal({ before: SEEDS.length, after: 0, own: 0 })
  })

  it('sends what a payload holds a little after it was published, as nats.js does', async () => {
    const site = new Site('1')
    const [a, b] = [await site.bus('a'), await site.bus('b')]
    const log = received(b, 'x')
    await site.pass(10)
    const payload = Buffer.from('right')
    a.publish('x', payload)
    payload.write('wrong')
    await site.pass(10)
    payload.write('again')
    expect(log).deep.equal(['wrong'])
  })

  it('gives each receiver a payload of its own', async () => {
    const site = new Site('1')
    const [a, b] = [await site.bus('a'), await site.bus('b')]
    for (const bus of [a, b]) bus.subscribe('x', message => message.payload.fill(0))
    const log = received(b, 'x')
    await site.pass(10)
    a.publish('x', bytes('same'))
    await site.pass(10)
    expect(log).deep.equal(['same'])
  })

  describe('when the server dies', () => {
    it('all links are lost, with what was under way, and come back one by one with their subscriptions', async () => {
      const site = new Site('1')
      const buses = await Promise.all(['a', 'b', 'c', 'd'].map(name => site.bus(name)))
      const backMs: number[] = []
      for (const bus of buses) bus.onStatus(status => status === 'connected' && backMs.push(site.loop.nowMs))
      const log = received(buses[1]!, 'x')
      await site.pass(10)
      buses[0]!.publish('x', bytes('under way'))
      site.broker.stop()
      await site.pass(10)
      expect(buses.map(bus => bus.status)).deep.equal(Array(4).fill('disconnected'))
      expect(site.broker.connectionCount).equal(0)
      await site.pass(100_000)
      site.broker.start()
      const startMs = site.loop.nowMs
      await site.pass(2_000)
      expect(buses.map(bus => bus.status)).deep.equal(Array(4).fill('connected'))
      expect(new Set(backMs).size).equal(4)
      for (const atMs of backMs) expect(atMs - startMs).within(0, 2_000)
      buses[0]!.publish('x', bytes('again'))
      await site.pass(10)
      expect(log).deep.equal(['again'])
      expect(site.broker.connectionCount).equal(4)
    })

    it('everybody hears of it, also if it is back at once', async () => {
      const site = new Site('1')
      const bus = await site.bus('a')
      const statuses = statusesOf(bus)
      site.broker.stop()
      site.broker.start()
      await site.pass(3_000)
      expect(statuses).deep.equal(['disconnected', 'connected'])
    })

    it('a connect fails, or waits until it is back if told to', async () => {
      const site = new Site('1')
      const process = site.start('a', 'a')
      site.broker.stop()
      const failing = codeOf(process.connect({ waitForServer: false }))
      const waiting = process.connect()
      await site.pass(10_000)
      expect(await failing).equal('disconnected')
      expect(await soon(waiting)).equal('pending')
      site.broker.start()
      await site.pass(3_000)
      expect((await waiting).status).equal('connected')
    })
  })

  describe('when a machine cannot reach the server', () => {
    it('its links are disconnected if it is told, and others go on', async () => {
      const site = new Site('1')
      const [a, b, c] = [await site.bus('a'), await site.bus('b'), await site.bus('c')]
      const log = [received(b, 'x'), received(c, 'x')]
      await site.pass(10)
      site.broker.isolate('b', 'told')
      await site.pass(10)
      a.publish('x', bytes('1'))
      const waiting = site.start('new', 'b').connect()
      await site.pass(100_000)
      expect([a.status, b.status, c.status]).deep.equal(['connected', 'disconnected', 'connected'])
      expect(await soon(waiting)).equal('pending')
      site.broker.heal('b')
      await site.pass(3_000)
      expect([b.status, (await waiting).status]).deep.equal(['connected', 'connected'])
      a.publish('x', bytes('2'))
      await site.pass(10)
      expect(log).deep.equal([['2'], ['1', '2']])
    })

    it('it believes itself connected while messages vanish both ways, until its pings fail', async () => {
      for (const seed of SEEDS.slice(0, 10)) {
        const site = new Site(seed)
        const [a, b] = [await site.bus('a'), await site.bus('b')]
        const [atA, atB] = [received(a, 'to.a'), received(b, 'to.b')]
        let lostMs = 0
        b.onStatus(() => {
          lostMs ||= site.loop.nowMs
        })
        await site.pass(10)
        b.publish('to.a', bytes('sent before, received'))
        a.publish('to.b', bytes('sent before, lost'))
        site.broker.isolate('b', 'silent')
        const startMs = site.loop.nowMs
        a.publish('to.b', bytes('lost'))
        b.publish('to.a', bytes('lost'))
        const asked = codeOf(a.request('to.b', bytes('lost'), { timeoutMs: 5_000 }))
        const asks = codeOf(b.request('to.a', bytes('lost'), { timeoutMs: 5_000 }))
        const flushes = codeOf(b.flush())
        await site.pass(19_000)
        expect([b.status, await asked, await asks]).deep.equal(['connected', 'timeout', 'timeout'])
        await site.pass(22_000)
        expect(lostMs - startMs).within(20_000, 40_010)
        expect([b.status, await flushes]).deep.equal(['disconnected', 'disconnected'])
        const nobody = codeOf(a.request('to.b', bytes(''), { timeoutMs: 5_000 }))
        await site.pass(100)
        expect(await nobody).equal('no_responders')
        site.broker.heal()
        await site.pass(3_000)
        expect(b.status).equal('connected')
        expect([atA, atB]).deep.equal([['sent before, received'], []])
      }
    })

    it('it never notices a silence that is over soon', async () => {
      const site = new Site('1')
      const [a, b] = [await site.bus('a'), await site.bus('b')]
      const [log, statuses] = [received(b, 'x'), statusesOf(b)]
      site.broker.isolate('b', 'silent')
      await site.pass(15_000)
      a.publish('x', bytes('lost'))
      await site.pass(10)
      site.broker.heal('b')
      a.publish('x', bytes('arrives'))
      await site.pass(100_000)
      expect(log).deep.equal(['arrives'])
      expect(statuses).empty
    })

    it('its share of a queue group is lost in the silence', async () => {
      const site = new Site('1')
      const [a, b, c] = [await site.bus('a'), await site.bus('b'), await site.bus('c')]
      const logs = [received(b, 'q', 'q'), received(c, 'q', 'q')]
      await site.pass(10)
      site.broker.isolate('b', 'silent')
      for (let i = 0; i < 100; i++) a.publish('q', bytes(`${i}`))
      await site.pass(10)
      expect(logs[0]).empty
      expect(logs[1]!.length).within(30, 70)
      await site.pass(40_000)
      for (let i = 0; i < 100; i++) a.publish('q', bytes(`${i}`))
      await site.pass(10)
      expect(logs[1]!.length).within(130, 170)
    })
  })

  describe('when a life ends', () => {
    it('by being killed, its links are gone at once, and it hears nothing more', async () => {
      const site = new Site('1')
      const a = await site.bus('a')
      const { life, connect } = site.start('b', 'b')
      const connecting = connect()
      await site.pass(10)
      const b = await connecting
      const [log, statuses] = [received(b, 'x'), statusesOf(b)]
      const asked = b.request('nobody', bytes(''), { timeoutMs: 1_000 })
      const late = connect()
      a.publish('x', bytes('under way'))
      life.end('killed')
      await site.pass(1)
      const nobody = codeOf(a.request('x', bytes(''), { timeoutMs: 1_000 }))
      b.publish('x', bytes('from the dead'))
      await site.pass(10)
      site.broker.stop()
      site.broker.start()
      await site.pass(10_000)
      expect([log, statuses]).deep.equal([[], []])
      expect(await Promise.all([soon(asked), soon(late)])).deep.equal(['pending', 'pending'])
      expect(await nobody).equal('no_responders')
      expect(site.broker.connectionCount).equal(1)
    })

    it('by a loss of power, the server keeps its subscriptions for seconds, and messages to them are lost', async () => {
      const outcomes = new Set<unknown>()
      for (const seed of SEEDS) {
        const site = new Site(seed)
        const a = await site.bus('a')
        const { life, connect } = site.start('b', 'b')
        const connecting = connect()
        await site.pass(10)
        const log = received(await connecting, 'x', 'q')
        await site.pass(10)
        life.end('power')
        await site.pass(2_500)
        const asked = codeOf(a.request('x', bytes(''), { timeoutMs: 1_000 }))
        await site.pass(2_500)
        const nobody = codeOf(a.request('x', bytes(''), { timeoutMs: 1_000 }))
        await site.pass(1_000)
        outcomes.add(await asked)
        expect(await nobody).equal('no_responders')
        expect(log).empty
        expect(site.broker.connectionCount).equal(1)
      }
      expect([...outcomes].sort()).deep.equal(['no_responders', 'timeout'])
    })
  })

  it('counts the connections it believes in', async () => {
    const site = new Site('1')
    const [a, b] = [await site.bus('a'), await site.bus('b')]
    expect(site.broker.connectionCount).equal(2)
    const drained = a.drain()
    await site.pass(10)
    await drained
    expect(site.broker.connectionCount).equal(1)
    expect(b.status).equal('connected')
  })
})

/** A broker, and processes that use it. */
class Site {
  readonly loop = new EventLoop()
  readonly broker: SimBroker
  readonly #random: SeededRandom

  constructor(seed: string) {
    this.#random = new SeededRandom(seed)
    this.broker = new SimBroker(this.loop, this.#random.fork('broker'))
  }

  /** Begins the life of a process. */
  start(name: string, machine: string): { life: Life; connect(options?: Partial<BusOptions>): Promise<Bus> } {
    const life = new Life(name, machine)
    const timers = new Timers(new SimClock(this.loop, 1, 0).as(life))
    const connect = this.broker.as(life, timers, this.#random.fork(name))
    return { life, connect: (options = {}) => connect({ ...OPTIONS, ...options }) }
  }

  /** A bus of a new process on a machine of the same name. */
  async bus(name: string): Promise<Bus> {
    const connecting = this.start(name, name).connect()
    await this.pass(10)
    return connecting
  }

  /** Lets time pass. */
  pass(ms: number): Promise<void> {
    return this.loop.run(this.loop.nowMs + ms)
  }
}

/** The payloads that come to a subscription, as text. */
function received(bus: Bus, subject: string, queue?: string): string[] {
  const log: string[] = []
  bus.subscribe(subject, message => log.push(text(message.payload)), queue === undefined ? {} : { queue })
  return log
}

function statusesOf(bus: Bus): BusStatus[] {
  const statuses: BusStatus[] = []
  bus.onStatus(status => statuses.push(status))
  return statuses
}

/** What a promise fails with, or comes to. */
async function codeOf(promise: Promise<unknown>): Promise<unknown> {
  return promise.catch((error: unknown) => (error instanceof BusError ? error.code : error))
}

/** What a promise has come to by now, or `pending`. */
async function soon(promise: Promise<unknown>): Promise<unknown> {
  const later = new Promise(resolve => setImmediate(() => resolve('pending')))
  return Promise.race([codeOf(promise), later])
}
