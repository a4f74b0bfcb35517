import { expect } from 'chai'
import { DfsError } from '../../protocol/errors.ts'
import { COMMANDS, header, writeInt64 } from '../../protocol/frame.ts'
import type { FrameHandler, FrameReply, FrameRequest, FrameServerOptions } from '../../runtime/frame-server.ts'
import { until } from '../until.ts'
import {
  echo,
  echoNoting,
  type FrameHarness,
  LATE_MS_MAX,
  RawConnection,
  requestOf,
  serveFrames,
  TIMEOUTS,
  timePassesUntil,
  wholeBody,
} from './frame-fixture.ts'

const ECHO = 111
const FIRST = 201
const SECOND = 202
const MIB = 1024 * 1024

const EINVAL = 22
const ENOENT = 2
const EFBIG = 27
const EIO = 5

describe('a frame server', function () {
  this.timeout(20_000)
  let harness: FrameHarness

  afterEach(() => harness.remove())

  async function start(handler: FrameHandler, options: Partial<FrameServerOptions> = {}): Promise<RawConnection> {
    harness = await serveFrames(handler, options)
    return harness.connect()
  }

  describe('answers', () => {
    it('a request with the status and the body of its handler', async () => {
      const client = await start(async request => ({ status: 7, parts: [await wholeBody(request), Buffer.from('!')] }))
      client.send(requestOf(ECHO, 'hello'))
      expect(await client.reply()).deep.equal({ command: COMMANDS.reply, status: 7, body: Buffer.from('hello!') })
    })

    it('pipelined requests in their order, also when a later reply is ready first', async () => {
      const [first, second] = [gate<FrameReply>(), gate<FrameReply>()]
      const client = await start(request => {
        if (request.command === ECHO) return echo(request)
        return request.command === FIRST ? first.promise : second.promise
      })
      client.send(requestOf(FIRST), requestOf(SECOND))
      second.open({ status: 0, parts: [Buffer.from('second')] })
      // When a third has been answered, the server has had its turn.
      const other = await harness.connect()
      other.send(requestOf(ECHO))
      await other.reply()
      expect(client.receivedBytes).equal(0)
      first.open({ status: 0, parts: [Buffer.from('first')] })
      expect((await client.reply()).body.toString()).equal('first')
      expect((await client.reply()).body.toString()).equal('second')
    })

    it('what its handler answers at once, behind what it answers later', async () => {
      const held = gate<FrameReply>()
      const client = await start(request => {
        if (request.command === FIRST) return held.promise
        return { status: 0, parts: [Buffer.from(request.body.bytesHere(request.lengthBytes)!)] }
      })
      client.send(Buffer.concat([requestOf(ECHO, 'a'), requestOf(FIRST), requestOf(ECHO, 'b'), requestOf(ECHO, 'c')]))
      expect((await client.reply()).body.toString()).equal('a')
      held.open({ status: 0, parts: [Buffer.from('held')] })
      for (const text of ['held', 'b', 'c']) expect((await client.reply()).body.toString()).equal(text)
    })

    it('at once to a slow reader no faster than it reads', async () => {
      const block = pattern(256 * 1024)
      let answered = 0
      const client = await start(() => {
        answered++
        return { status: 0, parts: [block] }
      })
      client.socket.pause()
      for (let i = 0; i < 200; i++) client.send(requestOf(ECHO))
      await steady(() => answered)
      expect(answered).lessThan(200)
      expect(harness.accepted[0]!.queuedBytes).at.most(block.length + 10)
      client.socket.resume()
      for (let i = 0; i < 200; i++) expect((await client.reply()).body.equals(block)).equal(true)
    })

    it('a request that waits for its turn when those before it have been answered', async () => {
      const first = gate<FrameReply>()
      const turns: number[] = []
      const client = await start(async request => {
        if (request.command === FIRST) return first.promise
        await request.turn()
        turns.push(request.command)
        return { status: 0 }
      })
      client.send(requestOf(FIRST), requestOf(SECOND), requestOf(SECOND))
      const other = await harness.connect()
      other.send(requestOf(ECHO))
      await other.reply()
      expect(turns).deep.equal([ECHO])
      first.open({ status: 0 })
      for (let i = 0; i < 3; i++) expect((await client.reply()).status).equal(0)
      expect(turns).deep.equal([ECHO, SECOND, SECOND])
    })

    it('ten thousand small requests sent in one go, in order', async () => {
      const count = 10_000
      const client = await start(echo)
      client.send(Buffer.concat(Array.from({ length: count }, (_, i) => requestOf(ECHO, String(i)))))
      for (let i = 0; i < count; i++) {
        const { body } = await client.reply()
        if (body.toString() !== String(i)) expect(body.toString()).equal(String(i))
      }
    })

    it('no more requests of one connection at once than a limit', async () => {
      let underWay = 0
      let most = 0
      const held = gate<void>()
      const client = await start(async () => {
        most = Math.max(most, ++underWay)
        await held.promise
        underWay--
        return { status: 0 }
      })
      for (let i = 0; i < 200; i++) client.send(requestOf(ECHO))
      await until('the pipeline is full', () => underWay >= 64)
      held.open()
      for (let i = 0; i < 200; i++) expect((await client.reply()).status).equal(0)
      expect(most).equal(64)
    })

    it('requests that come one byte at a time', async () => {
      const client = await start(echo)
      for (const byte of requestOf(ECHO, 'slowly')) {
        client.send(Buffer.of(byte))
        await client.flushed()
      }
      expect((await client.reply()).body.toString()).equal('slowly')
    })

    it('a client that has ended its side', async () => {
      const held = gate<void>()
      const client = await start(async request => {
        const body = await wholeBody(request)
        await held.promise
        return { status: 0, parts: [body] }
      })
      client.send(requestOf(ECHO, 'one'), requestOf(ECHO, 'two'))
      client.end()
      held.open()
      expect((await client.reply()).body.toString()).equal('one')
      expect((await client.reply()).body.toString()).equal('two')
      expect(await client.untilEnded()).length(0)
      expect(client.reset).equal(false)
    })

    it('the next request while the former is worked on, once its body has been taken', async () => {
      const held = gate<void>()
      const seen: number[] = []
      const client = await start(async request => {
        seen.push(request.command)
        await wholeBody(request)
        request.bodyTaken()
        if (request.command === FIRST) await held.promise
        return { status: 0 }
      })
      client.send(requestOf(FIRST, 'body'), requestOf(SECOND, 'body'))
      await until('the second is begun', () => seen.length === 2)
      held.open()
      await client.reply()
      await client.reply()
    })
  })

  describe('moves large bodies', () => {
    it('in, and slows a sender down while its handler does not read', async () => {
      const total = 32 * MIB
      const held = gate<void>()
      const client = await start(async request => {
        await held.promise
        const sum = await sumOfBody(request, total)
        return { status: 0, parts: [Buffer.from(String(sum))] }
      })
      client.send(header(ECHO, total))
      const piece = pattern(MIB)
      for (let i = 0; i < total / MIB; i++) client.send(piece)
      await steady(() => client.socket.writableLength)
      expect(client.socket.writableLength).greaterThan(total / 4)
      held.open()
      const { body } = await client.reply()
      expect(body.toString()).equal(String(sumOf(piece) * (total / MIB)))
    })

    it('out, and waits for a slow reader with no more queued than one piece', async () => {
      const pieces = 512
      const piece = pattern(64 * 1024)
      let sent = 0
      let queuedMost = 0
      let released = false
      const client = await start(async () => ({
        status: 0,
        lengthBytes: pieces * piece.length,
        stream: async send => {
          for (; sent < pieces; sent++) {
            queuedMost = Math.max(queuedMost, harness.accepted[0]!.queuedBytes)
            await send([piece])
          }
        },
        release: async () => {
          released = true
        },
      }))
      client.socket.pause()
      client.send(requestOf(ECHO))
      await steady(() => sent)
      expect(sent).within(1, pieces - 1)
      expect(harness.accepted[0]!.queuedBytes).at.most(piece.length)
      client.socket.resume()
      const { body } = await client.reply()
      expect(body).length(pieces * piece.length)
      expect(sumOf(body)).equal(sumOf(piece) * pieces)
      expect(queuedMost).at.most(piece.length)
      await until('it is released', () => released)
    })

    it('of pipelined replies to a slow reader without queueing them in the socket', async () => {
      const block = pattern(256 * 1024)
      const client = await start(async () => ({ status: 0, parts: [block] }))
      client.socket.pause()
      for (let i = 0; i < 200; i++) client.send(requestOf(ECHO))
      await steady(() => client.socket.bytesRead)
      expect(harness.accepted[0]!.queuedBytes).at.most(block.length + 10)
      client.socket.resume()
      for (let i = 0; i < 200; i++) expect((await client.reply()).body).length(block.length)
    })

    it('past a handler that does not want them, up to a limit', async () => {
      const client = await start(async ({ command }) => {
        if (command === FIRST) throw new DfsError('not_found')
        return { status: 0 }
      })
      client.send(requestOf(FIRST, pattern(MIB)), requestOf(SECOND))
      expect((await client.reply()).status).equal(ENOENT)
      expect((await client.reply()).status).equal(0)
      client.send(header(FIRST, 2 * MIB))
      expect((await client.reply()).status).equal(ENOENT)
      client.send(pattern(2 * MIB), requestOf(SECOND))
      expect(await client.untilEnded()).length(0)
      expect(client.reset).equal(false)
    })
  })

  describe('ends a connection', () => {
    it('that is cut inside a header, wherever, without a reply', async () => {
      let calls = 0
      await start(async () => {
        calls++
        return { status: 0 }
      })
      for (let cut = 0; cut < 10; cut++) {
        const client = await harness.connect()
        client.send(requestOf(ECHO).subarray(0, cut))
        client.end()
        expect(await client.untilEnded(), `cut at ${cut}`).length(0)
      }
      expect(calls).equal(0)
    })

    it('that is cut inside a body, without a reply, and tells the handler', async () => {
      const errors: unknown[] = []
      const client = await start(echoNoting(errors))
      client.send(header(ECHO, 100), Buffer.alloc(50))
      client.end()
      expect(await client.untilEnded()).length(0)
      expect(errors).length(1)
      expect(String(errors[0])).contain('ended inside a frame')
    })

    it('that announces a negative length, without a reply', async () => {
      const client = await start(echo)
      client.send(Buffer.from('ffffffffffffffff6f00', 'hex'), requestOf(ECHO))
      expect(await client.untilEnded()).length(0)
    })

    it('that announces a length no number can hold, without a reply', async () => {
      const client = await start(echo)
      client.send(Buffer.from('7fffffffffffffff6f00', 'hex'))
      expect(await client.untilEnded()).length(0)
    })

    it('that announces more than the limit, after saying so', async () => {
      let calls = 0
      const client = await start(
        async request => {
          calls++
          return echo(request)
        },
        { closesAfter: () => false },
      )
      client.send(requestOf(ECHO, 'fine'))
      const absurd = Buffer.alloc(10)
      writeInt64(absurd, 2 ** 50, 0)
      absurd[8] = ECHO
      client.send(absurd, pattern(3 * MIB))
      expect((await client.reply()).body.toString()).equal('fine')
      expect(await client.reply()).deep.equal({ command: COMMANDS.reply, status: EFBIG, body: Buffer.alloc(0) })
      expect(await client.untilEnded()).length(0)
      expect(client.reset).equal(false)
      expect(calls).equal(1)
    })

    it('without a word when the handler has no reply', async () => {
      const client = await start(async () => undefined)
      client.send(requestOf(COMMANDS.quit))
      expect(await client.untilEnded()).length(0)
      expect(client.reset).equal(false)
    })

    it('after a reply that says so, and answers nothing that was sent behind it', async () => {
      const seen: number[] = []
      const released: number[] = []
      const held = gate<void>()
      const client = await start(async ({ command }) => {
        seen.push(command)
        if (command === FIRST) await held.promise
        return {
          status: 0,
          close: command === FIRST,
          release: async () => void released.push(command),
        }
      })
      client.send(requestOf(FIRST), requestOf(SECOND))
      await until('both are under way', () => seen.length === 2)
      held.open()
      expect((await client.reply()).status).equal(0)
      client.send(requestOf(ECHO))
      expect(await client.untilEnded()).length(0)
      expect(client.reset).equal(false)
      // The server goes on taking what comes: ending over unread bytes would reset the connection.
      expect(harness.server.connectionCount).equal(1)
      await until('both are released', () => released.length === 2)
      expect(seen).deep.equal([FIRST, SECOND])
    })

    it('that its handler wants to end, once all requests under way are answered', async () => {
      const held = gate<void>()
      const client = await start(async ({ command, connection }) => {
        if (command === FIRST) await held.promise
        else connection.endAfterReplies()
        return { status: command }
      })
      client.send(requestOf(FIRST), requestOf(SECOND))
      held.open()
      expect((await client.reply()).status).equal(FIRST)
      expect((await client.reply()).status).equal(SECOND)
      expect(await client.untilEnded()).length(0)
    })

    it('whose reply fails midway, so that nobody takes half for the whole', async () => {
      let released = 0
      const client = await start(async () => ({
        status: 0,
        lengthBytes: 100,
        stream: async send => {
          await send([Buffer.alloc(60)])
          throw new Error('the disk is gone')
        },
        release: async () => void released++,
      }))
      client.send(requestOf(ECHO), requestOf(ECHO))
      const received = await client.untilEnded()
      expect(received.length).at.most(10 + 60)
      await until('both are released', () => released === 2)
    })

    for (const [what, bytes] of [
      ['fewer', 99],
      ['more', 101],
    ] as const) {
      it(`whose reply has ${what} bytes than announced`, async () => {
        const client = await start(async () => ({
          status: 0,
          lengthBytes: 100,
          stream: send => send([Buffer.alloc(bytes)]),
        }))
        client.send(requestOf(ECHO), requestOf(ECHO))
        const received = await client.untilEnded()
        expect(received.length).at.most(10 + 100)
      })
    }

    it('over the limit of connections, and takes another when one has gone', async () => {
      const first = await start(echo, { connectionsMax: 1 })
      first.send(requestOf(ECHO, 'a'))
      await first.reply()
      const second = await harness.connect()
      await second.untilEnded()
      first.send(requestOf(ECHO, 'b'))
      expect((await first.reply()).body.toString()).equal('b')
      first.end()
      await until('the first has gone', () => harness.server.connectionCount === 0)
      const third = await harness.connect()
      third.send(requestOf(ECHO, 'c'))
      expect((await third.reply()).body.toString()).equal('c')
    })
  })

  describe('turns a rejection of its handler', () => {
    const fails = (error: unknown) => (): Promise<FrameReply> => Promise.reject(error)

    it('into the errno of its code, without a body for FastDFS clients, and goes on', async () => {
      const client = await start(fails(new DfsError('not_found', 'no such file')))
      for (let i = 0; i < 2; i++) {
        client.send(requestOf(ECHO))
        expect(await client.reply()).deep.equal({ command: COMMANDS.reply, status: ENOENT, body: Buffer.alloc(0) })
      }
    })

    it('likewise where it throws at once', async () => {
      const client = await start(() => {
        throw new DfsError('not_found')
      })
      client.send(requestOf(ECHO), requestOf(ECHO))
      for (let i = 0; i < 2; i++) expect((await client.reply()).status).equal(ENOENT)
    })

    it('into code and reason for those who have proven who they are', async () => {
      const client = await start(async ({ connection }) => {
        connection.role = 'client'
        throw new DfsError('not_found', 'no such file')
      })
      client.send(requestOf(ECHO))
      const { status, body } = await client.reply()
      expect({ status, text: body.toString() }).deep.equal({ status: ENOENT, text: 'not_found no such file' })
    })

    it('into the end of the connection after an errno that does so', async () => {
      const client = await start(fails(new DfsError('bad_request')))
      client.send(requestOf(ECHO))
      expect((await client.reply()).status).equal(EINVAL)
      expect(await client.untilEnded()).length(0)
    })

    it('into EIO where it is a bug', async () => {
      const client = await start(fails(new TypeError('a bug')))
      client.send(requestOf(ECHO))
      expect((await client.reply()).status).equal(EIO)
    })
  })

  describe('loses patience', () => {
    /** Says when the client is told that the connection is gone. */
    const timeToDrop = (client: RawConnection) =>
      timePassesUntil(harness.clock, 'dropped', () => client.closed || client.ended)

    it('with a header that does not go on', async () => {
      const client = await start(echo)
      client.send(requestOf(ECHO, 'a'))
      await client.reply()
      client.send(requestOf(ECHO).subarray(0, 9))
      await client.flushed()
      expect(await timeToDrop(client)).within(TIMEOUTS.headerMs, TIMEOUTS.headerMs + LATE_MS_MAX)
      expect(client.receivedBytes).equal(0)
    })

    it('with a body that does not go on', async () => {
      const errors: unknown[] = []
      const client = await start(echoNoting(errors))
      client.send(header(ECHO, 100), Buffer.alloc(99))
      await client.flushed()
      expect(await timeToDrop(client)).within(TIMEOUTS.bodyMs, TIMEOUTS.bodyMs + LATE_MS_MAX)
      await until('the handler is told', () => errors.length === 1)
      expect(client.receivedBytes).equal(0)
    })

    it('with a body it skips that does not go on', async () => {
      const client = await start(async () => ({ status: 0 }))
      client.send(header(ECHO, 100))
      expect((await client.reply()).status).equal(0)
      expect(await timeToDrop(client)).within(TIMEOUTS.bodyMs, TIMEOUTS.bodyMs + LATE_MS_MAX)
    })

    it('with a request in several frames whose next one does not come', async () => {
      const client = await start(async request => {
        await wholeBody(request)
        await request.body.nextFrame()
        return { status: 0 }
      })
      client.send(requestOf(ECHO, 'a'))
      await client.flushed()
      expect(await timeToDrop(client)).within(TIMEOUTS.bodyMs, TIMEOUTS.bodyMs + LATE_MS_MAX)
    })

    it('with a client that says nothing for long', async () => {
      const client = await start(echo)
      client.send(requestOf(ECHO, 'a'))
      await client.reply()
      expect(await timeToDrop(client)).within(TIMEOUTS.idleMs, TIMEOUTS.idleMs + LATE_MS_MAX)
    })

    it('with a client that does not read its reply', async () => {
      const client = await start(async () => ({
        status: 0,
        lengthBytes: 64 * MIB,
        stream: async send => {
          for (let i = 0; i < 64; i++) await send([pattern(MIB)])
        },
      }))
      client.socket.pause()
      client.send(requestOf(ECHO))
      await until('the server is held back', () => harness.accepted[0]!.queuedBytes > 0)
      const passed = await timePassesUntil(harness.clock, 'dropped', () => harness.server.connectionCount === 0)
      expect(passed).at.least(TIMEOUTS.bodyMs)
    })

    it('with a client that does not end after it was told to', async () => {
      const client = await start(async () => undefined)
      client.send(requestOf(COMMANDS.quit))
      await client.untilEnded()
      expect(harness.server.connectionCount).equal(1)
      const passed = await timePassesUntil(harness.clock, 'dropped', () => harness.server.connectionCount === 0)
      expect(passed).within(TIMEOUTS.headerMs - 100, TIMEOUTS.headerMs + LATE_MS_MAX)
      await until('the client sees it', () => {
        client.send(requestOf(ECHO))
        return client.closed
      })
    })

    it('but not while the answer is its own to give', async () => {
      const held = gate<void>()
      let begun = false
      const client = await start(async request => {
        const body = await wholeBody(request)
        request.bodyTaken()
        begun = true
        await held.promise
        return { status: 0, parts: [body] }
      })
      client.send(requestOf(ECHO, 'a'))
      await until('the request is there', () => begun)
      harness.clock.advance(10 * TIMEOUTS.idleMs)
      held.open()
      expect((await client.reply()).body.toString()).equal('a')
      // Its silence begins when it has its answer.
      harness.clock.advance(TIMEOUTS.idleMs / 2)
      client.send(requestOf(ECHO, 'b'))
      expect((await client.reply()).body.toString()).equal('b')
    })
  })

  describe('closes', () => {
    it('after the requests under way, dropping those who wait for nothing at once', async () => {
      const held = gate<void>()
      let begun = false
      const busy = await start(async request => {
        const body = await wholeBody(request)
        begun = true
        await held.promise
        return { status: 0, parts: [body] }
      })
      const idle = await harness.connect()
      busy.send(requestOf(ECHO, 'last'))
      await until('both are there', () => harness.server.connectionCount === 2 && begun)
      let closed = false
      const closing = harness.server.close(60_000).then(() => {
        closed = true
      })
      await idle.untilEnded()
      expect(closed).equal(false)
      const refused = await RawConnection.connect(harness.endpoint).catch((error: unknown) => error)
      expect(refused).property('code', 'ECONNREFUSED')
      held.open()
      expect((await busy.reply()).body.toString()).equal('last')
      await timePassesUntil(harness.clock, 'closed', () => closed)
      await closing
      expect(harness.clock.monotonicMs()).lessThan(10_000)
    })

    it('when its patience is over, whatever is under way', async () => {
      let begun = false
      const client = await start(() => {
        begun = true
        return new Promise(() => undefined)
      })
      client.send(requestOf(ECHO))
      await until('the request is under way', () => begun)
      let closed = false
      const closing = harness.server.close(1_000).then(() => {
        closed = true
      })
      const passed = await timePassesUntil(harness.clock, 'closed', () => closed)
      expect(passed).within(1_000, 1_200)
      await closing
      await client.untilEnded()
    })

    it('leaving no timer behind', async () => {
      await start(echo)
      await harness.server.close(0)
      expect(harness.timers.size).equal(0)
    })
  })
})

/** Reads a long body through a small buffer. */
async function sumOfBody(request: FrameRequest, total: number): Promise<number> {
  const buffer = Buffer.alloc(64 * 1024)
  let sum = 0
  for (let left = total; left > 0; ) {
    const count = await request.body.readBody(buffer)
    sum += sumOf(buffer.subarray(0, count))
    left -= count
  }
  return sum
}

/** Bytes that differ from their neighbours. */
function pattern(bytes: number): Buffer {
  return Buffer.from(Uint8Array.from({ length: bytes }, (_, i) => (i * 31 + (i >> 8)) & 0xff))
}

function sumOf(bytes: Uint8Array): number {
  let sum = 0
  for (const byte of bytes) sum += byte
  return sum
}

/** Something a test opens when it likes. */
function gate<T>(): { promise: Promise<T>; open(value: T): void } {
  let open: (value: T) => void = () => undefined
  const promise = new Promise<T>(resolve => {
    open = resolve
  })
  return { promise, open }
}

/** Resolves when a number has stopped moving, ten looks in a row. */
async function steady(look: () => number): Promise<void> {
  let last = Number.NaN
  let same = 0
  await until('it has stopped moving', () => {
    const now = look()
    same = now === last ? same + 1 : 0
    last = now
    return same >= 10 && now > 0
  })
}
