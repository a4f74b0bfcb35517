/** What the World's sockets promise, as one suite that each kind of them runs. */
import { createHash } from 'node:crypto'
import { expect } from 'chai'
import { type Endpoint, type Listener, type Socket, SocketError, type Sockets } from '../../runtime/world.ts'
import { SeededRandom } from '../simulation/seeded-random.ts'
import { until } from '../until.ts'

const KIB = 1024
const MIB = 1024 * KIB

/** Sockets to try: one side listens, the other connects. */
export interface SocketsHarness {
  readonly near: Sockets
  readonly far: Sockets
  readonly listenAt: Endpoint
  remove(): void
}

/** What all sockets promise, as one suite that each kind of them runs. */
export function socketsContract(name: string, makeHarness: () => SocketsHarness): void {
  describe(`${name} keep the contract of sockets`, function () {
    this.timeout(20_000)
    let harness: SocketsHarness
    let listener: Listener
    let accepted: Socket[]
    let opened: Socket[]

    beforeEach(async () => {
      harness = makeHarness()
      accepted = []
      opened = []
      listener = await harness.far.listen(harness.listenAt, socket => accepted.push(socket))
    })
    afterEach(async () => {
      for (const socket of [...accepted, ...opened]) socket.destroy()
      await listener.close()
      harness.remove()
    })

    /** Both ends of a new connection: the caller's and the listener's. */
    async function pair(): Promise<[Socket, Socket]> {
      const count = accepted.length
      const near = await harness.near.connect(listener.endpoint, 5_000)
      opened.push(near)
      return [near, await until('the other end', () => accepted[count])]
    }

    it('carry bytes both ways, in order', async () => {
      const [near, far] = await pair()
      await near.write([Buffer.from('a'), Buffer.alloc(0), Buffer.from('bc')])
      await near.write([])
      await near.write([Buffer.from('d')])
      expect(await readText(far, 4)).equal('abcd')
      await far.write([Buffer.from('back')])
      expect(await readText(near, 4)).equal('back')
      expect(near.remote).deep.equal(listener.endpoint)
      expect(far.remote.host).a('string')
    })

    it('carry much both ways at once, whatever the sizes of writes and reads', async () => {
      const [near, far] = await pair()
      const random = new SeededRandom('sizes')
      const results = await Promise.all([
        transfer(near, far, 4 * MIB, random.fork('there')),
        transfer(far, near, 4 * MIB, random.fork('back')),
      ])
      for (const { sent, received } of results) expect(received).equal(sent)
    })

    it('keep the order of writes that do not wait for each other', async () => {
      const [near, far] = await pair()
      const texts = Array.from({ length: 300 }, (_, i) => `${i}.`)
      const writes = texts.map(text => near.write([Buffer.from(text)]))
      expect(await readText(far, texts.join('').length)).equal(texts.join(''))
      await Promise.all(writes)
      expect(near.queuedBytes).equal(0)
    })

    it('need the bytes of a write no more when it has settled', async () => {
      const [near, far] = await pair()
      const piece = Buffer.alloc(10 * KIB)
      const sending = (async () => {
        for (let i = 1; i <= 100; i++) {
          await near.write([piece.fill(i)])
          piece.fill(0)
        }
      })()
      const all = Buffer.from(await readText(far, 100 * piece.length), 'latin1')
      for (let i = 1; i <= 100; i++) expect(all.subarray((i - 1) * piece.length, i * piece.length)).satisfy(filledBy(i))
      await sending
    })

    it('give at least one byte, and no more than there is room for', async () => {
      const [near, far] = await pair()
      await near.write([Buffer.from('abcdef')])
      const target = Buffer.alloc(2)
      let text = ''
      while (text.length < 6) {
        const count = await far.read(target)
        expect(count).within(1, 2)
        text += target.toString('latin1', 0, count)
      }
      expect(text).equal('abcdef')
    })

    it('give as many bytes as are wanted at least, and fewer only when the other side ends', async () => {
      const [near, far] = await pair()
      const sent = new SeededRandom('bytes').bytes(3 * MIB + 5)
      const sending = (async () => {
        await near.write([sent.subarray(0, 3)])
        await near.write([sent.subarray(3)])
        near.end()
      })()
      const received = Buffer.alloc(sent.length)
      let filled = 0
      for (const least of [2, 100_000, 300_000, MIB]) {
        const count = await far.read(received.subarray(filled, filled + 2 * least), least)
        expect(count).within(least, 2 * least)
        filled += count
      }
      const missing = sent.length - filled
      expect(await far.read(received.subarray(filled), missing)).equal(missing)
      expect(received.equals(sent)).equal(true)
      expect(await far.read(Buffer.alloc(10), 10)).equal(0)
      await sending
    })

    it('count what has come and what has gone', async () => {
      const [near, far] = await pair()
      const sending = near.write([Buffer.alloc(100), Buffer.alloc(MIB)])
      await far.read(Buffer.alloc(100 + MIB), 100 + MIB)
      await sending
      expect([near.sentBytes, near.receivedBytes]).deep.equal([100 + MIB, 0])
      expect([far.sentBytes, far.receivedBytes]).deep.equal([0, 100 + MIB])
    })

    it('allow one read at a time', async () => {
      const [, far] = await pair()
      const first = outcomeOf(far.read(Buffer.alloc(1)))
      expect(String(await outcomeOf(far.read(Buffer.alloc(1))))).contain('one read at a time')
      far.destroy()
      expect(await first).instanceOf(SocketError)
    })

    it('say with 0 that the other side has ended, after all that it sent, and go on sending', async () => {
      const [near, far] = await pair()
      void near.write([Buffer.from('last')])
      near.end()
      expect(await readText(far, 4)).equal('last')
      expect(await far.read(Buffer.alloc(1))).equal(0)
      expect(await far.read(Buffer.alloc(1))).equal(0)
      await far.write([Buffer.from('answer')])
      expect(await readText(near, 6)).equal('answer')
      expect([near.closed, far.closed]).deep.equal([false, false])
    })

    it('tell when all that was written before the end has gone, or never will', async () => {
      const [near, far] = await pair()
      let gone = false
      void near.write([Buffer.alloc(64 * MIB)])
      const ending = near.end().then(() => {
        gone = true
      })
      const target = Buffer.alloc(MIB)
      await far.read(target)
      expect(gone).equal(false)
      while ((await far.read(target)) > 0);
      await ending
      void outcomeOf(far.write([Buffer.alloc(64 * MIB)]))
      const broken = far.end()
      far.destroy()
      await broken
    })

    it('are closed when both sides have ended', async () => {
      const [near, far] = await pair()
      near.end()
      expect(await far.read(Buffer.alloc(1))).equal(0)
      far.end()
      expect(await near.read(Buffer.alloc(1))).equal(0)
      await until('both are closed', () => near.closed && far.closed)
      expect(await near.read(Buffer.alloc(1))).equal(0)
      expect(await outcomeOf(near.write([Buffer.alloc(1)]))).instanceOf(SocketError)
    })

    it('receive little that nobody reads, and hold the sender back', async () => {
      const [near, far] = await pair()
      const piece = Buffer.alloc(MIB, 'x')
      let sent = 0
      const sending = (async () => {
        for (; sent < 64; sent++) await near.write([piece])
      })()
      let last = -1
      let same = 0
      await until('the sender is held back', () => {
        same = sent === last ? same + 1 : 0
        last = sent
        return same >= 10
      })
      expect(sent).lessThan(64)
      expect(near.queuedBytes).within(1, MIB)
      const target = Buffer.alloc(MIB)
      let received = 0
      while (received < 64 * MIB) received += await far.read(target)
      await sending
      expect(near.queuedBytes).equal(0)
    })

    it('reject a read and a write under way with the reason when destroyed, and all that come later', async () => {
      const [near, far] = await pair()
      await far.write([Buffer.from('unread')])
      await readText(near, 1)
      const reason = new SocketError('test', 'ETIMEDOUT')
      const outcomes = [far.read(Buffer.alloc(1)), far.write([Buffer.alloc(64 * MIB)])].map(outcomeOf)
      far.destroy(reason)
      expect(await Promise.all(outcomes)).deep.equal([reason, reason])
      expect(far.closed).equal(true)
      expect(await outcomeOf(far.read(Buffer.alloc(1)))).instanceOf(Error)
      expect(await outcomeOf(far.write([Buffer.alloc(1)]))).instanceOf(Error)
    })

    it('give nothing more of what came before they were destroyed', async () => {
      const [near, far] = await pair()
      await near.write([Buffer.from('abcdef')])
      await readText(far, 1)
      far.destroy()
      expect(await outcomeOf(far.read(Buffer.alloc(5)))).instanceOf(SocketError)
    })

    it('reject a write under way when destroyed after the other side has ended', async () => {
      const [near, far] = await pair()
      near.end()
      expect(await far.read(Buffer.alloc(1))).equal(0)
      const writing = outcomeOf(far.write([Buffer.alloc(64 * MIB)]))
      far.destroy()
      expect(await writing).instanceOf(Error)
    })

    it('tell the reader when the other side breaks off, and then the writer', async () => {
      const [near, far] = await pair()
      const reading = outcomeOf(far.read(Buffer.alloc(1)))
      await far.write([Buffer.from('unread')])
      await readText(near, 1)
      near.destroy()
      const outcome = await reading
      if (outcome !== 0) expect(outcome).instanceOf(SocketError)
      await until('writing fails', async () => (await outcomeOf(far.write([Buffer.alloc(1)]))) !== undefined)
      expect(await outcomeOf(far.write([Buffer.alloc(1)]))).instanceOf(SocketError)
      expect(far.closed).equal(true)
    })

    it('refuse to listen where somebody listens', async () => {
      const error = await outcomeOf(harness.far.listen(listener.endpoint, () => undefined))
      expect(error).instanceOf(SocketError).property('errno', 'EADDRINUSE')
    })

    it('refuse to connect where nobody listens', async () => {
      const other = await harness.far.listen(harness.listenAt, () => undefined)
      await other.close()
      const error = await outcomeOf(harness.near.connect(other.endpoint, 5_000))
      expect(error).instanceOf(SocketError).property('errno', 'ECONNREFUSED')
    })

    it('stop listening at once, and leave open connections open', async () => {
      const [near, far] = await pair()
      await listener.close()
      expect(await outcomeOf(harness.near.connect(listener.endpoint, 5_000))).instanceOf(SocketError)
      await near.write([Buffer.from('still there')])
      expect(await readText(far, 11)).equal('still there')
      const again = await harness.far.listen(listener.endpoint, () => undefined)
      await again.close()
    })

    it('resolve an address to itself', async () => {
      expect(await harness.near.resolve(harness.listenAt.host)).equal(harness.listenAt.host)
    })
  })
}

/** Sends random bytes in pieces of all sizes, reads them in others; returns what they add up to on both sides. */
export async function transfer(from: Socket, to: Socket, sizeBytes: number, random: SeededRandom) {
  const [sent, received] = [createHash('md5'), createHash('md5')]
  const size = () => 1 + random.below(random.chance(0.2) ? 100_000 : 1_000)
  const sending = (async () => {
    for (let left = sizeBytes; left > 0; ) {
      const parts = [random.bytes(Math.min(left, size()))]
      left -= parts[0]!.length
      sent.update(parts[0]!)
      await from.write(parts)
    }
  })()
  for (let left = sizeBytes; left > 0; ) {
    const target = Buffer.alloc(Math.min(left, size()))
    const count = await to.read(target)
    if (count === 0) throw new Error('ended')
    received.update(target.subarray(0, count))
    left -= count
  }
  await sending
  return { sent: sent.digest('hex'), received: received.digest('hex') }
}

/** Reads so many bytes as text. */
export async function readText(socket: Socket, count: number): Promise<string> {
  const target = Buffer.alloc(count)
  for (let filled = 0; filled < count; ) {
    const more = await socket.read(target.subarray(filled))
    if (more === 0) throw new Error('ended')
    filled += more
  }
  return target.toString('latin1')
}

const filledBy = (byte: number) => (bytes: Buffer) => bytes.every(one => one === byte)

/** What a promise comes to, either way. */
export function outcomeOf(promise: Promise<unknown> | undefined): Promise<unknown> {
  return Promise.resolve(promise).then(
    value => value,
    (error: unknown) => error,
  )
}
