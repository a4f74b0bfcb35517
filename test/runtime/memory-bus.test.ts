import { expect } from 'chai'
import type { Bus, BusOptions } from '../../runtime/bus.ts'
import { MemoryBroker } from '../../runtime/memory-bus.ts'
import { realWorld } from '../../runtime/real-world.ts'
import { Timers } from '../../runtime/timers.ts'
import type { Clock, Random } from '../../runtime/world.ts'
import { busContract, bytes, Received, rejection } from './bus-contract.ts'

const OPTIONS: BusOptions = { servers: ['memory'], name: 'test', inboxPrefix: '_INBOX', waitForServer: true }

busContract('the memory bus', async () => {
  const broker = new MemoryBroker(new Timers(realWorld().clock), seededRandom(1))
  return {
    connect: options => broker.connector()({ ...OPTIONS, ...options }),
    stop: async () => broker.stop(),
    start: async () => broker.start(),
    remove: async () => undefined,
  }
})

describe('the memory bus', () => {
  it('does the same again with the same seed', async () => {
    const run = async (seed: number) => {
      const broker = new MemoryBroker(new Timers(handClock()), seededRandom(seed))
      const bus = await broker.connector()(OPTIONS)
      const log: string[] = [bus.newInbox()]
      for (const member of ['a', 'b', 'c']) bus.subscribe('q', () => log.push(member), { queue: 'q' })
      for (let i = 0; i < 50; i++) bus.publish('q', bytes(''))
      await bus.flush()
      return log.join()
    }
    expect(await run(1)).equal(await run(1))
    expect(await run(1)).not.equal(await run(2))
  })

  it('waits by the clock it was given', async () => {
    const clock = handClock()
    const broker = new MemoryBroker(new Timers(clock), seededRandom(1))
    const bus = await broker.connector()(OPTIONS)
    bus.subscribe('never', () => undefined)
    let outcome = 'waiting'
    const request = rejection(bus.request('never', bytes(''), { timeoutMs: 1_000 })).then(error => {
      outcome = error.code
    })
    clock.advance(999)
    await bus.flush()
    expect(outcome).equal('waiting')
    clock.advance(1)
    await request
    expect(outcome).equal('timeout')
  })

  it('lets others have their turn when handlers answer each other without end', async () => {
    const clock = handClock()
    const broker = new MemoryBroker(new Timers(clock), seededRandom(1))
    const bus = await broker.connector()(OPTIONS)
    let count = 0
    bus.subscribe('ping', () => {
      count++
      bus.publish('ping', bytes(''))
    })
    bus.publish('ping', bytes(''))
    await settled()
    const firstCount = count
    expect(firstCount).within(1, 1_000)
    clock.advance(0)
    await settled()
    expect(count).within(firstCount + 1, firstCount + 1_000)
  })

  it('loses messages, and counts them, when too many wait', async () => {
    const broker = new MemoryBroker(new Timers(realWorld().clock), seededRandom(1))
    const bus = await broker.connector()(OPTIONS)
    const received = new Received()
    bus.subscribe('flood', received.handler)
    for (let i = 0; i < 70_000; i++) bus.publish('flood', bytes(''))
    await bus.flush()
    expect(received.messages.length + broker.lostCount).equal(70_000)
    expect(broker.lostCount).greaterThan(0)
  })

  it('cuts off one connection by its name, with what was on its way to it', async () => {
    const broker = new MemoryBroker(new Timers(handClock()), seededRandom(1))
    const connect = (name: string): Promise<Bus> => broker.connector()({ ...OPTIONS, name })
    const [a, b] = await Promise.all([connect('a'), connect('b')])
    const [atA, atB] = [new Received(), new Received()]
    a.subscribe('x', atA.handler)
    b.subscribe('x', atB.handler)
    a.publish('x', bytes('1'))
    broker.disconnect('b')
    a.publish('x', bytes('2'))
    expect(await atA.texts(2)).deep.equal(['1', '2'])
    broker.reconnect('b')
    a.publish('x', bytes('3'))
    expect(await atB.texts(1)).deep.equal(['3'])
  })
})

/** A clock that only moves when told to. */
function handClock(): Clock & { advance(ms: number): void } {
  let nowMs = 0
  let alarms: { atMs: number; ring: () => void }[] = []
  return {
    wallMs: () => nowMs,
    monotonicMs: () => nowMs,
    turn: () => Promise.resolve(),
    alarm(delayMs, ring) {
      const alarm = { atMs: nowMs + delayMs, ring }
      alarms.push(alarm)
      return () => {
        alarms = alarms.filter(other => other !== alarm)
      }
    },
    advance(ms) {
      nowMs += ms
      const due = alarms.filter(alarm => alarm.atMs <= nowMs)
      alarms = alarms.filter(alarm => alarm.atMs > nowMs)
      for (const alarm of due) alarm.ring()
    },
  }
}

/** A generator good enough for tests: mulberry32. */
function seededRandom(seed: number): Random {
  let state = seed
  const below = (limit: number) => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * limit)
  }
  return { below, bytes: count => Buffer.from(Array.from({ length: count }, () => below(256))) }
}

/** Resolves when all that is to happen without timers has happened. */
function settled(): Promise<void> {
  return new Promise(resolve => setImmediate(resolve))
}
