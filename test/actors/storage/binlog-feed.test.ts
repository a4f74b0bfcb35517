import { expect } from 'chai'
import { BinlogFeed } from '../../../actors/storage/binlog-feed.ts'
import { decode } from '../../../protocol/codec.ts'
import type { Bus, BusOptions } from '../../../runtime/bus.ts'
import { silentLog } from '../../../runtime/log.ts'
import { MemoryBroker } from '../../../runtime/memory-bus.ts'
import { realWorld } from '../../../runtime/real-world.ts'
import { Timers } from '../../../runtime/timers.ts'
import { VirtualClock } from '../../virtual-clock.ts'

const GATHER_MS = 10
const OPTIONS: BusOptions = { servers: ['memory'], name: 'feed', inboxPrefix: '_INBOX', waitForServer: true }

describe('the feed of a binlog', () => {
  let clock: VirtualClock
  let bus: Bus | undefined
  let feed: BinlogFeed
  let heard: Record<string, unknown>[]

  async function start(payloadBytesMax?: number): Promise<void> {
    clock = new VirtualClock()
    const timers = new Timers(clock)
    const world = { ...realWorld(), clock }
    const broker = new MemoryBroker(timers, world.random, payloadBytesMax === undefined ? {} : { payloadBytesMax })
    const connected = await broker.connector()(OPTIONS)
    heard = []
    connected.subscribe('dfs.binlog.group1.1', ({ payload }) => void heard.push(decode(payload).value))
    bus = connected
    const context = { world, timers, log: silentLog(), prefix: 'dfs', version: '0.0.0' }
    feed = new BinlogFeed({ context, group: 'group1', storageId: 1, bus: () => bus })
  }
  const flush = (previous: number, lines: readonly string[]) =>
    feed.add({ epoch: 3, previous, sequence: previous + lines.length, lines })
  async function told(): Promise<Record<string, unknown>[]> {
    clock.advance(GATHER_MS)
    await bus?.flush()
    return heard
  }

  it('tells of the flushes of some milliseconds in one message, without a gap', async () => {
    await start()
    flush(4, ['a', 'b'])
    flush(6, ['c'])
    clock.advance(GATHER_MS - 1)
    await bus!.flush()
    expect(heard).to.deep.equal([])
    await told()
    flush(7, ['d'])
    expect(await told()).to.deep.equal([
      { storageId: 1, epoch: 3, previous: 4, sequence: 7, records: ['a', 'b', 'c'] },
      { storageId: 1, epoch: 3, previous: 7, sequence: 8, records: ['d'] },
    ])
    clock.advance(10 * GATHER_MS)
    await bus!.flush()
    expect(heard).to.have.length(2)
  })

  it('begins another message when one is full, at once', async () => {
    await start()
    const line = 'x'.repeat(100 * 1024)
    for (const previous of [0, 1, 2]) flush(previous, [line])
    await bus!.flush()
    expect(heard.map(({ previous, sequence }) => [previous, sequence])).to.deep.equal([[0, 2]])
    expect((await told()).map(({ previous, sequence }) => [previous, sequence])).to.deep.equal([
      [0, 2],
      [2, 3],
    ])
  })

  it('tells of records that a small NATS does not take without their lines', async () => {
    await start(1024)
    flush(0, ['x'.repeat(2000)])
    flush(1, ['y'])
    expect(await told()).to.deep.equal([{ storageId: 1, epoch: 3, previous: 0, sequence: 2 }])
  })

  it('keeps nothing for later while there is no NATS', async () => {
    await start()
    const later = bus
    bus = undefined
    flush(0, ['a'])
    clock.advance(GATHER_MS)
    bus = later
    flush(1, ['b'])
    expect((await told()).map(({ previous, sequence }) => [previous, sequence])).to.deep.equal([[1, 2]])
  })
})
