import { expect } from 'chai'
import { DfsError } from '../../protocol/errors.ts'
import { FrameClient } from '../../runtime/frame-client.ts'
import { FrameServer } from '../../runtime/frame-server.ts'
import { silentLog } from '../../runtime/log.ts'
import { Timers } from '../../runtime/timers.ts'
import type { Socket } from '../../runtime/world.ts'
import { SocketError } from '../../runtime/world.ts'
import { outcomeOf, readText, socketsContract, transfer } from '../runtime/sockets-contract.ts'
import { drive } from './drive.ts'
import { EventLoop } from './event-loop.ts'
import { Life } from './life.ts'
import { SeededRandom } from './seeded-random.ts'
import { SimClock } from './sim-clock.ts'
import { SimNetwork } from './sim-network.ts'

const KIB = 1024
const MIB = 1024 * KIB

/** What the network holds for a reader that does not read. */
const WINDOW_BYTES = 64 * KIB

/** Enough for whatever can happen once in a few times. */
const SEEDS = Array.from({ length: 40 }, (_, i) => String(i))

socketsContract('simulated sockets', () => {
  const { loop, network } = makeNetwork('contract')
  return {
    near: network.as(new Life('client', 'a')),
    far: network.as(new Life('server', 'b')),
    listenAt: { host: 'b', port: 0 },
    remove: drive(loop),
  }
})

describe('the simulated network', function () {
  this.timeout(20_000)

  it('does the same again with the same seed', async () => {
    const run = async (seed: string) => {
      const { loop, near, far } = await makePair(seed)
      const transferred = transfer(near, far, 300_000, new SeededRandom('sizes'))
      await loop.run(60_000)
      const { sent, received } = await transferred
      expect(received).equal(sent)
      return loop.hash
    }
    expect(await run('1')).equal(await run('1'))
    expect(await run('1')).not.equal(await run('2'))
  })

  it('cuts what is written anywhere, also after a single byte', async () => {
    const sizes = new Set<number>()
    for (const seed of SEEDS) {
      const { loop, near, far } = await makePair(seed)
      void near.write([Buffer.alloc(1_000)])
      void far.read(Buffer.alloc(1_000)).then(count => sizes.add(count))
      await loop.run(loop.nowMs + 10)
    }
    expect(sizes).include(1)
    expect(sizes).include(1_000)
    expect(sizes.size).greaterThan(4)
  })

  it('takes as long as its latency and its bandwidth say', async () => {
    const { loop, network, near, far } = await makePair('1')
    network.faults.latencyMs = [2, 2]
    network.faults.slow = 5
    network.faults.bytesPerMs = 10
    const startMs = loop.nowMs
    void near.write([Buffer.alloc(1_000)])
    let tookMs = 0
    void far.read(Buffer.alloc(1_000)).then(() => {
      tookMs = loop.nowMs - startMs
    })
    await loop.run(1_000)
    expect(tookMs).equal(10 + 100)
  })

  it('holds as much as its window for one who does not read, and takes no more', async () => {
    for (const seed of SEEDS) {
      const { loop, near, far } = await makePair(seed)
      void near.write([Buffer.alloc(MIB)])
      await loop.run(loop.nowMs + 1_000)
      expect(near.queuedBytes).equal(MIB - WINDOW_BYTES)
      void far.read(Buffer.alloc(100))
      await loop.run(loop.nowMs + 1_000)
      expect(near.queuedBytes).equal(MIB - WINDOW_BYTES - 100)
    }
  })

  it('catches one who uses a buffer again before its write has settled', async () => {
    let caughtCount = 0
    for (const seed of SEEDS) {
      const { loop, near, far } = await makePair(seed)
      const buffer = Buffer.from('right')
      void near.write([buffer])
      buffer.write('wrong')
      const text = readText(far, 5)
      await loop.run(loop.nowMs + 100)
      if ((await text) !== 'right') caughtCount++
    }
    expect(caughtCount).within(1, SEEDS.length - 1)
  })

  it('knows the names of its machines only, and listens only at its own', async () => {
    const { loop, network } = makeNetwork('1')
    const sockets = network.as(new Life('server', 'b'))
    expect(await sockets.resolve('b')).equal('b')
    expect(await errnoOf(sockets.resolve('nowhere'))).equal('ENOTFOUND')
    const connecting = errnoOf(sockets.connect({ host: 'nowhere', port: 1 }, 1_000))
    await loop.run(1_000)
    expect(await connecting).equal('ENOTFOUND')
    expect((await sockets.listen({ host: '0.0.0.0', port: 80 }, () => undefined)).endpoint.port).equal(80)
    expect(await errnoOf(sockets.listen({ host: 'a', port: 81 }, () => undefined))).equal('EADDRNOTAVAIL')
  })

  it('counts what a process has not closed', async () => {
    const { loop, network, client, server, near, far, listener } = await makePair('1')
    expect([network.openSockets(client), network.openSockets(server)]).deep.equal([1, 2])
    near.end()
    far.end()
    await loop.run(loop.nowMs + 10)
    expect([network.openSockets(client), network.openSockets(server)]).deep.equal([0, 1])
    await listener.close()
    expect(network.openSockets(server)).equal(0)
  })

  it('lets the other side see a reset or, where nothing was unread, perhaps an end, when a socket is destroyed', async () => {
    const outcomes = new Set<unknown>()
    for (const seed of SEEDS) {
      const { loop, near, far } = await makePair(seed)
      const reading = errnoOf(far.read(Buffer.alloc(1)))
      near.destroy()
      await loop.run(loop.nowMs + 10)
      outcomes.add(await reading)
    }
    expect([...outcomes].sort()).deep.equal([0, 'ECONNRESET'])
    for (const seed of SEEDS) {
      const { loop, near, far } = await makePair(seed)
      void far.write([Buffer.alloc(1)])
      await loop.run(loop.nowMs + 10)
      const reading = errnoOf(far.read(Buffer.alloc(1)))
      near.destroy()
      await loop.run(loop.nowMs + 10)
      expect(await reading).equal('ECONNRESET')
    }
  })

  describe('breaks connections', () => {
    it('at any byte, for both sides', async () => {
      const prefixes = new Set<number>()
      for (const seed of SEEDS) {
        const { loop, network, near, far } = await makePair(seed)
        network.faults.resetPerChunk = 1
        const sent = new SeededRandom(seed).bytes(1_000)
        const writing = errnoOf(near.write([sent]))
        const reading = errnoOf(near.read(Buffer.alloc(1)))
        const received = readAll(far)
        await loop.run(loop.nowMs + 100)
        const { bytes, end } = await received
        expect(bytes.equals(sent.subarray(0, bytes.length))).equal(true)
        prefixes.add(bytes.length)
        expect(end).equal('ECONNRESET')
        expect(await reading).equal('ECONNRESET')
        expect(await writing).oneOf([undefined, 'ECONNRESET'])
        expect([near.closed, far.closed]).deep.equal([true, true])
        expect(await errnoOf(near.write([sent]))).equal('ECONNRESET')
      }
      expect(prefixes.size).greaterThan(SEEDS.length / 2)
    })

    it('so that a write that went well may not have arrived, and one that failed may have', async () => {
      const seen = new Set<string>()
      for (const seed of SEEDS) {
        const { loop, network, near, far } = await makePair(seed)
        network.faults.resetPerChunk = 1
        const writing = errnoOf(near.write([Buffer.alloc(1)]))
        const received = readAll(far)
        await loop.run(loop.nowMs + 100)
        seen.add(`${(await writing) ?? 'written'}, ${(await received).bytes.length} arrived`)
      }
      expect([...seen].sort()).deep.equal([
        'ECONNRESET, 0 arrived',
        'ECONNRESET, 1 arrived',
        'written, 0 arrived',
        'written, 1 arrived',
      ])
    })

    it('and may lose what had been received and was not yet read', async () => {
      const counts = new Set<number>()
      for (const seed of SEEDS) {
        const { loop, network, near, far } = await makePair(seed)
        void near.write([Buffer.from('unread')])
        await loop.run(loop.nowMs + 100)
        network.cut('a', 'b', 'reset')
        await loop.run(loop.nowMs + 100)
        counts.add((await readAll(far)).bytes.length)
      }
      expect([...counts].sort()).deep.equal([0, 6])
    })
  })

  it('stalls a connection for ever: nothing goes either way, nobody is told, and the kernel still takes its window', async () => {
    const { loop, network, near, far } = await makePair('1')
    network.faults.stallPerChunk = 1
    const reads = [watch(far.read(Buffer.alloc(1))), watch(near.read(Buffer.alloc(1)))]
    const first = watch(near.write([Buffer.alloc(1)]))
    await loop.run(loop.nowMs + 10)
    network.faults.stallPerChunk = 0
    const back = watch(far.write([Buffer.alloc(MIB)]))
    network.heal()
    await loop.run(loop.nowMs + 1_000_000)
    expect([first.state, back.state]).deep.equal(['fulfilled', 'pending'])
    expect(far.queuedBytes).equal(MIB - WINDOW_BYTES)
    near.destroy()
    await loop.run(loop.nowMs + 1_000_000)
    expect(reads.map(read => read.state)).deep.equal(['pending', 'rejected'])
    expect(far.closed).equal(false)
    far.destroy()
    expect(await errnoOf(reads[0]!.promise)).equal('ECONNABORTED')
  })

  it('refuses a connect, or does not answer it until its time is over', async () => {
    const seen = new Map<unknown, number>()
    for (const seed of SEEDS) {
      const { loop, network, clientSockets, listener } = await makePair(seed)
      network.faults.refuse = 1
      const startMs = loop.nowMs
      const connecting = errnoOf(clientSockets.connect(listener.endpoint, 700)).then(errno =>
        seen.set(errno, Math.ceil(loop.nowMs - startMs)),
      )
      await loop.run(loop.nowMs + 10_000)
      await connecting
    }
    expect([...seen].sort()).deep.equal([
      ['ECONNREFUSED', 1],
      ['ETIMEDOUT', 700],
    ])
  })

  describe('when two machines are cut off from each other in silence', () => {
    it('nothing arrives and nobody is told, until it is healed: then it arrives late', async () => {
      for (const seed of SEEDS.slice(0, 10)) {
        const { loop, network, near, far } = await makePair(seed)
        network.cut('a', 'b', 'silent')
        const transferred = transfer(near, far, 200_000, new SeededRandom(seed))
        const watched = watch(transferred)
        await loop.run(loop.nowMs + 100_000)
        expect(watched.state).equal('pending')
        network.heal('b', 'a')
        await loop.run(loop.nowMs + 10_000)
        const { sent, received } = await transferred
        expect(received).equal(sent)
      }
    })

    it('connects time out, or succeed late if it is healed in time', async () => {
      const { loop, network, clientSockets, listener } = await makePair('1')
      network.cut('*', 'a', 'silent')
      const early = errnoOf(clientSockets.connect(listener.endpoint, 2_000))
      const late = clientSockets.connect(listener.endpoint, 20_000)
      const startMs = loop.nowMs
      await loop.run(startMs + 2_000)
      expect(await early).equal('ETIMEDOUT')
      network.heal()
      await loop.run(startMs + 20_000)
      expect((await late).closed).equal(false)
    })

    it('one direction alone may be cut: the other carries what fits its window, for nobody says that it came', async () => {
      const { loop, network, clientSockets, near, far, listener } = await makePair('1')
      network.cut('a', 'b', 'silent', { oneWay: true })
      const there = watch(far.read(Buffer.alloc(1)))
      void near.write([Buffer.from('x')])
      void far.write([Buffer.alloc(MIB)])
      const target = Buffer.alloc(MIB)
      let received = 0
      const reading = (async () => {
        for (;;) received += await near.read(target)
      })()
      const connecting = errnoOf(clientSockets.connect(listener.endpoint, 1_000))
      await loop.run(loop.nowMs + 10_000)
      expect(there.state).equal('pending')
      expect(received).equal(WINDOW_BYTES)
      expect(await connecting).equal('ETIMEDOUT')
      network.heal()
      await loop.run(loop.nowMs + 10_000)
      expect(there.state).equal('fulfilled')
      expect(received).equal(MIB)
      near.destroy()
      await outcomeOf(reading)
    })

    it('a destroyed connection is told so only after healing, when the other side sends something', async () => {
      const { loop, network, near, far } = await makePair('1')
      network.cut('a', 'b', 'silent')
      near.destroy()
      const reading = watch(far.read(Buffer.alloc(1)))
      await loop.run(loop.nowMs + 10_000)
      void outcomeOf(far.write([Buffer.alloc(1)]))
      network.heal()
      expect(reading.state).equal('pending')
      await loop.run(loop.nowMs + 10_000)
      expect(reading.state).not.equal('pending')
    })

    it('others, and processes on one machine, still reach each other', async () => {
      const { loop, network, listener, server } = await makePair('1')
      network.cut('b', '*', 'silent')
      const beside = network.as(new Life('sync', 'b')).connect(listener.endpoint, 1_000)
      const elsewhere = network.as(new Life('other', 'c'))
      const there = await elsewhere.listen({ host: 'c', port: 1 }, () => undefined)
      const between = network.as(new Life('client-2', 'a')).connect(there.endpoint, 1_000)
      await loop.run(loop.nowMs + 2_000)
      expect((await beside).closed).equal(false)
      expect((await between).closed).equal(false)
      expect(server.ended).equal(false)
    })
  })

  describe('when two machines are cut off from each other by resets', () => {
    it('their connections break and stay dead, and new ones can be made once it is healed', async () => {
      const { loop, network, clientSockets, near, far, listener } = await makePair('1')
      const reads = [errnoOf(near.read(Buffer.alloc(1))), errnoOf(far.read(Buffer.alloc(1)))]
      network.cut('a', 'b', 'reset')
      const connecting = errnoOf(clientSockets.connect(listener.endpoint, 5_000))
      await loop.run(loop.nowMs + 100)
      expect(await Promise.all(reads)).deep.equal(['ECONNRESET', 'ECONNRESET'])
      expect(await connecting).equal('EHOSTUNREACH')
      network.heal('a')
      const again = clientSockets.connect(listener.endpoint, 5_000)
      await loop.run(loop.nowMs + 100)
      expect([near.closed, far.closed, (await again).closed]).deep.equal([true, true, false])
    })

    it('one direction alone breaks for its sender; the other side learns it from what it sends after healing', async () => {
      const { loop, network, near, far } = await makePair('1')
      network.cut('a', 'b', 'reset', { oneWay: true })
      const reading = watch(far.read(Buffer.alloc(1)))
      await loop.run(loop.nowMs + 100)
      expect([near.closed, far.closed]).deep.equal([true, false])
      void outcomeOf(far.write([Buffer.alloc(1)]))
      await loop.run(loop.nowMs + 10_000)
      expect(reading.state).equal('pending')
      network.heal()
      void outcomeOf(far.write([Buffer.alloc(1)]))
      await loop.run(loop.nowMs + 10_000)
      expect(await errnoOf(reading.promise)).equal('ECONNRESET')
    })
  })

  describe('when a process is killed', () => {
    it('the other side is told by a reset or an end, and may have got some of what was being written', async () => {
      const ends = new Set<unknown>()
      const counts = new Set<number>()
      for (const seed of SEEDS) {
        const { loop, server, near, far } = await makePair(seed)
        void far.write([Buffer.alloc(10_000)])
        const received = readAll(near)
        server.end('killed')
        await loop.run(loop.nowMs + 100)
        const { bytes, end } = await received
        ends.add(end)
        counts.add(bytes.length)
      }
      expect([...ends].sort()).deep.equal([0, 'ECONNRESET'])
      expect(counts.size).greaterThan(3)
    })

    it('its own promises never settle, and it can do nothing more', async () => {
      const { loop, network, server, serverSockets, near, far } = await makePair('1')
      const watched: { readonly state: string }[] = [
        watch(far.read(Buffer.alloc(1))),
        watch(far.write([Buffer.alloc(MIB)])),
        watch(serverSockets.connect({ host: 'b', port: 80 }, 1_000)),
      ]
      server.end('killed')
      watched.push(watch(far.read(Buffer.alloc(1))), watch(far.write([Buffer.alloc(1)])))
      watched.push(watch(serverSockets.listen({ host: 'b', port: 81 }, () => undefined)))
      watched.push(watch(serverSockets.resolve('b')))
      far.end()
      far.destroy()
      await loop.run(loop.nowMs + 100_000)
      expect(watched.map(one => one.state)).deep.equal(watched.map(() => 'pending'))
      expect(near.closed).equal(true)
      expect(network.openSockets(server)).equal(0)
    })

    it('connects to it are refused, and its next life can listen at once on the same port', async () => {
      const { loop, network, server, clientSockets, listener } = await makePair('1')
      server.end('killed')
      const refused = errnoOf(clientSockets.connect(listener.endpoint, 5_000))
      await loop.run(loop.nowMs + 100)
      expect(await refused).equal('ECONNREFUSED')
      await network.as(new Life('server', 'b')).listen(listener.endpoint, () => undefined)
      const connecting = clientSockets.connect(listener.endpoint, 5_000)
      await loop.run(loop.nowMs + 100)
      expect((await connecting).closed).equal(false)
    })
  })

  describe('when a machine loses its power', () => {
    it('nobody is told: the other side hangs, and connects time out', async () => {
      const { loop, server, clientSockets, near, listener } = await makePair('1')
      const reading = watch(near.read(Buffer.alloc(1)))
      const small = watch(near.write([Buffer.alloc(1)]))
      server.end('power')
      const large = watch(near.write([Buffer.alloc(MIB)]))
      const connecting = errnoOf(clientSockets.connect(listener.endpoint, 3_000))
      await loop.run(loop.nowMs + 100_000)
      expect([reading.state, small.state, large.state]).deep.equal(['pending', 'fulfilled', 'pending'])
      expect(await connecting).equal('ETIMEDOUT')
    })

    it('what was sent to it is answered by a reset once it lives again; who only reads hangs on', async () => {
      for (const sends of [true, false]) {
        const { loop, network, server, near } = await makePair('1')
        const reading = watch(near.read(Buffer.alloc(1)))
        server.end('power')
        if (sends) void outcomeOf(near.write([Buffer.alloc(1)]))
        await loop.run(loop.nowMs + 10_000)
        expect(reading.state).equal('pending')
        network.as(new Life('server', 'b'))
        await loop.run(loop.nowMs + 10_000)
        expect(reading.state).equal(sends ? 'rejected' : 'pending')
        if (sends) continue
        void outcomeOf(near.write([Buffer.alloc(1)]))
        await loop.run(loop.nowMs + 10_000)
        expect(reading.state).equal('rejected')
      }
    })
  })

  it('carries requests and replies that are whole or fail, however often connections break', async () => {
    let okCount = 0
    let failedCount = 0
    for (const seed of SEEDS.slice(0, 20)) {
      const { loop, network } = makeNetwork(seed)
      const [client, server] = [new Life('client', 'a'), new Life('server', 'b')]
      const timeouts = { idleMs: 5_000, headerMs: 1_000, bodyMs: 2_000 }
      const common = (life: Life) => {
        const clock = new SimClock(loop, 1, 0).as(life)
        return { sockets: network.as(life), clock, timers: new Timers(clock), timeouts }
      }
      const serving = await FrameServer.listen({
        ...common(server),
        log: silentLog(),
        listenAt: { host: 'b', port: 0 },
        connectionsMax: 16,
        bodyBytesMax: MIB,
        // Says what it was told, with every byte one higher.
        handler: async ({ body, lengthBytes }) => {
          const bytes = Buffer.alloc(lengthBytes)
          await body.readBody(bytes)
          return { status: 0, parts: [bytes.map(byte => byte + 1)] }
        },
        closesAfter: () => false,
      })
      Object.assign(network.faults, { resetPerChunk: 0.02, stallPerChunk: 0.002, refuse: 0.05 })
      const random = new SeededRandom(`${seed}/requests`)
      const options = { ...common(client), connectMs: 2_000 }
      const one = async () => {
        const sent = random.bytes(random.below(20_000))
        let connection: FrameClient | undefined
        try {
          connection = await FrameClient.connect(serving.endpoint, options)
          for (let i = 0; i < 5; i++) {
            expect((await connection.request(1, sent)).equals(sent.map(byte => byte + 1))).equal(true)
            okCount++
          }
        } catch (error) {
          if (!(error instanceof DfsError)) throw error
          failedCount++
        }
        connection?.close()
      }
      const all = watch(
        (async () => {
          for (let round = 0; round < 10; round++) await Promise.all([one(), one(), one()])
          await serving.close(0)
        })(),
      )
      await loop.run(1_000_000)
      await Promise.race([all.promise, Promise.resolve()])
      expect(all.state, `seed ${seed}`).equal('fulfilled')
      expect([network.openSockets(client), network.openSockets(server)], `seed ${seed}`).deep.equal([0, 0])
    }
    expect(okCount).greaterThan(500)
    expect(failedCount).greaterThan(100)
  })
})

function makeNetwork(seed: string): { loop: EventLoop; network: SimNetwork } {
  const loop = new EventLoop()
  return { loop, network: new SimNetwork(loop, new SeededRandom(seed)) }
}

/** A server at machine b, and a client at machine a that has connected to it. */
async function makePair(seed: string) {
  const { loop, network } = makeNetwork(seed)
  const [client, server] = [new Life('client', 'a'), new Life('server', 'b')]
  const [clientSockets, serverSockets] = [network.as(client), network.as(server)]
  const accepted: Socket[] = []
  const listener = await serverSockets.listen({ host: 'b', port: 0 }, socket => accepted.push(socket))
  const connecting = clientSockets.connect(listener.endpoint, 1_000)
  await loop.run(10)
  const [near, far] = [await connecting, accepted[0]!]
  return { loop, network, client, server, clientSockets, serverSockets, listener, near, far }
}

/** Reads until the end, or the errno that came instead. */
async function readAll(socket: Socket): Promise<{ bytes: Buffer; end: unknown }> {
  const target = Buffer.alloc(KIB)
  const parts: Buffer[] = []
  for (;;) {
    const count = await errnoOf(socket.read(target))
    if (typeof count !== 'number' || count === 0) return { bytes: Buffer.concat(parts), end: count }
    parts.push(Buffer.from(target.subarray(0, count)))
  }
}

/** What a promise comes to, or the errno it fails with. */
async function errnoOf(promise: Promise<unknown> | undefined): Promise<unknown> {
  const outcome = await outcomeOf(promise)
  return outcome instanceof SocketError ? outcome.errno : outcome
}

/** A promise one can look at. */
function watch<T>(given: Promise<T> | undefined): {
  state: 'pending' | 'fulfilled' | 'rejected'
  readonly promise: Promise<T | undefined>
} {
  const promise = Promise.resolve(given)
  const watched: ReturnType<typeof watch<T>> = { state: 'pending', promise }
  promise.then(
    () => {
      watched.state = 'fulfilled'
    },
    () => {
      watched.state = 'rejected'
    },
  )
  return watched
}
