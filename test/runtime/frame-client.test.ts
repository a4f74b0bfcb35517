import { expect } from 'chai'
import { DfsError, type ErrorCode } from '../../protocol/errors.ts'
import { COMMANDS, frame, header } from '../../protocol/frame.ts'
import { FrameClient, receiveWhole } from '../../runtime/frame-client.ts'
import type { FrameHandler } from '../../runtime/frame-server.ts'
import { realSockets } from '../../runtime/real-sockets.ts'
import { Timers } from '../../runtime/timers.ts'
import { until } from '../until.ts'
import { VirtualClock } from '../virtual-clock.ts'
import {
  echo,
  type FrameHarness,
  LATE_MS_MAX,
  LOOPBACK,
  type RawConnection,
  serveFrames,
  serveRaw,
  TIMEOUTS,
  timePassesUntil,
  wholeBody,
} from './frame-fixture.ts'

const ECHO = 111
const MIB = 1024 * 1024

describe('a frame client', function () {
  this.timeout(20_000)
  let clock: VirtualClock
  let timers: Timers
  let clean: (() => void | Promise<void>)[]

  beforeEach(() => {
    clock = new VirtualClock()
    timers = new Timers(clock)
    clean = []
  })
  afterEach(async () => {
    for (const one of clean.reverse()) await one()
  })

  async function connectTo(endpoint: { host: string; port: number }): Promise<FrameClient> {
    const client = await FrameClient.connect(endpoint, {
      sockets: realSockets,
      clock,
      timers,
      connectMs: 5_000,
      timeouts: TIMEOUTS,
    })
    clean.push(() => client.close())
    return client
  }

  /** A client of a server of ours. */
  async function start(handler: FrameHandler): Promise<{ client: FrameClient; harness: FrameHarness }> {
    const harness = await serveFrames(handler)
    clean.push(() => harness.remove())
    return { client: await connectTo(harness.endpoint), harness }
  }

  /** A client of a server that does what the test does. */
  async function startRaw(): Promise<{ client: FrameClient; server: RawConnection }> {
    const raw = await serveRaw(() => undefined)
    clean.push(() => raw.remove())
    const client = await connectTo(raw.endpoint)
    return { client, server: await until('the connection', () => raw.connections[0]) }
  }

  describe('asks', () => {
    it('and is answered', async () => {
      const { client } = await start(echo)
      expect((await client.request(ECHO, Buffer.from('hello'))).toString()).equal('hello')
      expect((await client.request(ECHO, Buffer.alloc(0))).toString()).equal('')
      expect(client.outstanding).equal(0)
    })

    it('many things at once, and gives each answer to who asked', async () => {
      const { client } = await start(echo)
      const answers = Array.from({ length: 1_000 }, (_, i) => client.request(ECHO, Buffer.from(String(i))))
      expect(client.outstanding).equal(1_000)
      expect((await Promise.all(answers)).map(String)).deep.equal(answers.map((_, i) => String(i)))
    })

    it('with a body sent in pieces, and hands the body of the answer out in pieces', async () => {
      const { client } = await start(echo)
      const piece = Buffer.alloc(MIB, 'x')
      let received = 0
      const first = await client.exchange(
        ECHO,
        8 * MIB,
        async send => {
          for (let i = 0; i < 8; i++) await send([piece])
        },
        async (body, { lengthBytes }) => {
          const buffer = Buffer.alloc(100_000)
          while (body.bodyLeft > 0) received += await body.readBody(buffer)
          return lengthBytes
        },
      )
      expect(first).equal(8 * MIB)
      expect(received).equal(8 * MIB)
    })

    it('and throws away what nobody reads of an answer', async () => {
      const { client } = await start(echo)
      const ask = (text: string, take: number) =>
        client.exchange(
          ECHO,
          text.length,
          send => send([Buffer.from(text)]),
          async body => (await body.bytes(take)).toString(),
        )
      expect(await Promise.all([ask('one', 1), ask('two', 2)])).deep.equal(['o', 'tw'])
    })

    it('in frames of data after the request, and then an empty one', async () => {
      const frames: string[] = []
      const { client } = await start(async request => {
        frames.push(String(await wholeBody(request)))
        for (;;) {
          const next = await request.body.header()
          const body = Buffer.alloc(next!.lengthBytes)
          await request.body.readBody(body)
          frames.push(`${next!.command} ${body}`)
          if (next!.lengthBytes === 0) return { status: 0, parts: [Buffer.from('done')] }
        }
      })
      const answer = await client.exchangeStream(ECHO, Buffer.from('go'), COMMANDS.data, async send => {
        for (const piece of ['a', '', 'b']) await send(Buffer.from(piece))
      })
      expect(answer.toString()).equal('done')
      expect(frames).deep.equal(['go', `${COMMANDS.data} a`, `${COMMANDS.data} b`, `${COMMANDS.data} `])
    })
  })

  describe('rejects', () => {
    it('as unavailable, with the cause, when nobody listens', async () => {
      const listener = await realSockets.listen(LOOPBACK, () => undefined)
      await listener.close()
      const error = await errorOf(connectTo(listener.endpoint))
      expect(error.code).equal('unavailable')
      expect(error.cause).property('errno', 'ECONNREFUSED')
    })

    it('all requests under way, and all later ones, when the server dies', async () => {
      const { client, server } = await startRaw()
      const answers = [1, 2, 3].map(i => client.request(ECHO, Buffer.from(String(i))))
      await server.take(33)
      server.send(frame(COMMANDS.reply, Buffer.from('one')))
      expect(String(await answers[0])).equal('one')
      server.destroy()
      for (const answer of answers.slice(1)) expect((await errorOf(answer)).code).equal('unavailable')
      expect(client.broken).equal(true)
      expect((await errorOf(client.request(ECHO, Buffer.alloc(0)))).code).equal('unavailable')
      expect(client.outstanding).equal(0)
    })

    it('when the server ends in the middle of an answer', async () => {
      const { client, server } = await startRaw()
      const answer = client.request(ECHO, Buffer.alloc(0))
      await server.take(10)
      server.send(header(COMMANDS.reply, 100), Buffer.alloc(99))
      server.end()
      expect((await errorOf(answer)).code).equal('unavailable')
    })

    it('all requests under way when it is closed', async () => {
      const { client } = await startRaw()
      const answer = errorOf(client.request(ECHO, Buffer.alloc(0)))
      client.close()
      expect((await answer).code).equal('unavailable')
      expect(client.broken).equal(true)
    })

    it('an answer with a negative length, or one longer than any honest one', async () => {
      for (const length of ['ffffffffffffffff', '0000000000100000']) {
        const { client, server } = await startRaw()
        const answer = errorOf(client.request(ECHO, Buffer.alloc(0)))
        server.send(Buffer.from(`${length}6400`, 'hex'))
        expect(await answer).instanceOf(DfsError)
        expect(client.broken).equal(true)
      }
    })

    it('with the code and the reason a server of ours sends', async () => {
      const { client } = await start(async ({ connection }) => {
        connection.role = 'client'
        throw new DfsError('no_space', 'all 3 paths are full')
      })
      expect(await errorOf(client.request(ECHO, Buffer.alloc(0)))).include({
        code: 'no_space',
        message: 'all 3 paths are full',
      })
      expect(client.broken).equal(false)
    })

    it('with the likeliest code for the bare errno of a FastDFS server', async () => {
      const expected: Record<number, ErrorCode> = {
        2: 'not_found',
        13: 'unauthorized',
        16: 'unavailable',
        22: 'bad_request',
        27: 'too_large',
        28: 'no_space',
        110: 'timeout',
        5: 'internal',
        99: 'internal',
      }
      const { client, server } = await startRaw()
      for (const [errno, code] of Object.entries(expected)) {
        const answer = errorOf(client.request(ECHO, Buffer.alloc(0)))
        server.send(header(COMMANDS.reply, 0, Number(errno)))
        expect((await answer).code, errno).equal(code)
      }
    })

    it('with the likeliest code where the text is no code of ours', async () => {
      const { client, server } = await startRaw()
      for (const text of ['constructor of nothing', 'nocode', 'not_a_code really', '__proto__ x']) {
        const answer = errorOf(client.request(ECHO, Buffer.alloc(0)))
        server.send(frame(COMMANDS.reply, Buffer.from(text), 2))
        expect((await answer).code, text).equal('not_found')
      }
    })
  })

  describe('blames the request that', () => {
    const one = Buffer.from('x')
    const wrong = {
      'sends fewer bytes than it announced': [2, send => send([one])],
      'sends more bytes than it announced': [1, send => send([one, one])],
    } satisfies Record<string, [number, Parameters<FrameClient['exchange']>[2]]>

    for (const [what, [bytes, source]] of Object.entries(wrong)) {
      it(`${what}: the others may try again on another connection`, async () => {
        const { client } = await start(() => new Promise(() => undefined))
        const before = errorOf(client.request(ECHO, one))
        const culprit = errorOf(client.exchange(ECHO, bytes, source, receiveWhole))
        const after = errorOf(client.request(ECHO, one))
        expect((await culprit).code).equal('bad_request')
        expect((await before).code).equal('unavailable')
        expect((await after).code).equal('unavailable')
        expect(client.broken).equal(true)
      })
    }

    it('cannot read what it wants to send', async () => {
      const { client } = await start(() => new Promise(() => undefined))
      const before = errorOf(client.request(ECHO, one))
      const culprit = errorOf(
        client.exchange(ECHO, 10, () => Promise.reject(new DfsError('not_found', 'no such file here')), receiveWhole),
      )
      expect(await culprit).include({ code: 'not_found', message: 'no such file here' })
      expect((await before).code).equal('unavailable')
    })

    it('cannot take its answer', async () => {
      const { client } = await start(echo)
      const culprit = errorOf(
        client.exchange(
          ECHO,
          1,
          send => send([one]),
          () => Promise.reject(new DfsError('no_space', 'the disk here is full')),
        ),
      )
      const after = errorOf(client.request(ECHO, one))
      expect(await culprit).include({ code: 'no_space' })
      expect((await after).code).equal('unavailable')
    })
  })

  describe('loses patience', () => {
    it('with a server that does not answer', async () => {
      const { client } = await startRaw()
      let error: DfsError | undefined
      void errorOf(client.request(ECHO, Buffer.alloc(0))).then(thrown => {
        error = thrown
      })
      const passed = await timePassesUntil(clock, 'timeout', () => error !== undefined)
      expect(error!.code).equal('timeout')
      expect(passed).within(TIMEOUTS.idleMs, TIMEOUTS.idleMs + LATE_MS_MAX)
      expect(client.broken).equal(true)
    })

    it('with an answer that does not go on', async () => {
      const { client, server } = await startRaw()
      let error: DfsError | undefined
      void errorOf(client.request(ECHO, Buffer.alloc(0))).then(thrown => {
        error = thrown
      })
      await server.take(10)
      server.send(header(COMMANDS.reply, 100), Buffer.alloc(50))
      const passed = await timePassesUntil(clock, 'timeout', () => error !== undefined)
      expect(error!.code).equal('timeout')
      expect(passed).lessThan(TIMEOUTS.idleMs)
    })

    it('with a server that takes no more of a request', async () => {
      const { client, server } = await startRaw()
      server.socket.pause()
      let error: DfsError | undefined
      const piece = Buffer.alloc(MIB)
      void errorOf(
        client.exchange(
          ECHO,
          64 * MIB,
          async send => {
            for (let i = 0; i < 64; i++) await send([piece])
          },
          receiveWhole,
        ),
      ).then(thrown => {
        error = thrown
      })
      await timePassesUntil(clock, 'timeout', () => error !== undefined)
      expect(error!.code).equal('timeout')
    })

    it('but not while a long request goes out piece by piece', async () => {
      const { client } = await start(echo)
      const answer = await client.exchange(
        ECHO,
        20,
        async send => {
          for (let i = 0; i < 20; i++) {
            await send([Buffer.from('x')])
            clock.advance(TIMEOUTS.idleMs / 2)
          }
        },
        receiveWhole,
      )
      expect(String(answer)).equal('x'.repeat(20))
    })

    it('but not while what everybody waits for is its own source', async () => {
      const { client } = await start(echo)
      const slow = client.exchange(
        ECHO,
        2,
        async send => {
          await send([Buffer.from('a')])
          clock.advance(10 * TIMEOUTS.idleMs)
          await send([Buffer.from('b')])
        },
        receiveWhole,
      )
      const next = client.request(ECHO, Buffer.from('c'))
      expect([String(await slow), String(await next)]).deep.equal(['ab', 'c'])
    })

    it('but not with one that was silent only while nothing was asked', async () => {
      const { client } = await start(echo)
      await client.request(ECHO, Buffer.from('a'))
      clock.advance(100 * TIMEOUTS.idleMs)
      const held = client.request(ECHO, Buffer.from('b'))
      clock.advance(TIMEOUTS.idleMs / 2)
      expect(String(await held)).equal('b')
      expect(client.idleMs).equal(TIMEOUTS.idleMs / 2)
    })

    it('leaving no timer behind when it is closed', async () => {
      const { client } = await startRaw()
      void errorOf(client.request(ECHO, Buffer.alloc(0)))
      client.close()
      expect(timers.size).equal(0)
    })
  })

  describe('with nothing under way', () => {
    it('notices that the server has ended the connection', async () => {
      const { client, server } = await startRaw()
      const answer = client.request(ECHO, Buffer.alloc(0))
      server.send(header(COMMANDS.reply, 0))
      await answer
      expect(client.broken).equal(false)
      server.end()
      await until('it is noticed', () => client.broken)
      await until('our side ends too', () => server.ended)
    })

    it('takes no answer that nobody has asked for', async () => {
      const { client, server } = await startRaw()
      server.send(frame(COMMANDS.reply, Buffer.from('surprise')))
      await until('it is refused', () => client.broken)
    })
  })
})

async function errorOf(promise: Promise<unknown>): Promise<DfsError> {
  const error = await promise.then(
    value => expect.fail(`resolved with ${value}`),
    error => error,
  )
  expect(error).instanceOf(DfsError)
  return error as DfsError
}
