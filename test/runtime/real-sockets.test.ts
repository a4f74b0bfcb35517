import { expect } from 'chai'
import { realSockets } from '../../runtime/real-sockets.ts'
import { type Listener, type Socket, SocketError } from '../../runtime/world.ts'
import { until } from '../until.ts'
import { LOOPBACK } from './frame-fixture.ts'

const MIB = 1024 * 1024

describe('real sockets', () => {
  let listener: Listener
  let accepted: Socket[]
  let opened: Socket[]

  beforeEach(async () => {
    accepted = []
    opened = []
    listener = await realSockets.listen(LOOPBACK, socket => accepted.push(socket))
  })
  afterEach(async () => {
    for (const socket of [...accepted, ...opened]) socket.destroy()
    await listener.close()
  })

  /** Both ends of a new connection: the caller's and the listener's. */
  async function pair(): Promise<[Socket, Socket]> {
    const count = accepted.length
    const near = await realSockets.connect(listener.endpoint, 5_000)
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
    expect(far.remote.host).equal('127.0.0.1')
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

  it('allow one read at a time', async () => {
    const [, far] = await pair()
    const first = far.read(Buffer.alloc(1)).catch((error: unknown) => error)
    expect(await far.read(Buffer.alloc(1)).catch((error: unknown) => String(error))).contain('one read at a time')
    far.destroy()
    expect(await first).instanceOf(SocketError)
  })

  it('say with 0 that the other side has ended, after all that it sent, and go on sending', async () => {
    const [near, far] = await pair()
    await near.write([Buffer.from('last')])
    near.end()
    expect(await readText(far, 4)).equal('last')
    expect(await far.read(Buffer.alloc(1))).equal(0)
    expect(await far.read(Buffer.alloc(1))).equal(0)
    await far.write([Buffer.from('answer')])
    expect(await readText(near, 6)).equal('answer')
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

  it('reject a read when the other side breaks off', async () => {
    const [near, far] = await pair()
    const reading = outcomeOf(far.read(Buffer.alloc(1)))
    // Closing over unread bytes resets the connection.
    await far.write([Buffer.from('unread')])
    await readText(near, 1)
    await far.write([Buffer.alloc(64 * 1024)])
    near.destroy()
    const outcome = await reading
    if (outcome !== 0) expect(outcome).instanceOf(SocketError)
    await until('writing fails', async () => (await outcomeOf(far.write([Buffer.alloc(1)]))) !== undefined)
  })

  it('refuse to listen where somebody listens', async () => {
    const error = await outcomeOf(realSockets.listen(listener.endpoint, () => undefined))
    expect(error).instanceOf(SocketError).property('errno', 'EADDRINUSE')
  })

  it('refuse to connect where nobody listens', async () => {
    const other = await realSockets.listen(LOOPBACK, () => undefined)
    await other.close()
    const error = await outcomeOf(realSockets.connect(other.endpoint, 5_000))
    expect(error).instanceOf(SocketError).property('errno', 'ECONNREFUSED')
  })

  it('stop listening at once, and leave open connections open', async () => {
    const [near, far] = await pair()
    await listener.close()
    expect(await outcomeOf(realSockets.connect(listener.endpoint, 5_000))).instanceOf(SocketError)
    await near.write([Buffer.from('still there')])
    expect(await readText(far, 11)).equal('still there')
    const again = await realSockets.listen(listener.endpoint, () => undefined)
    await again.close()
  })

  it('resolve a name to an address, and an address to itself', async () => {
    expect(await realSockets.resolve('localhost')).equal('127.0.0.1')
    expect(await realSockets.resolve('10.1.2.3')).equal('10.1.2.3')
    expect(await realSockets.resolve('::1')).equal('::1')
  })
})

/** Reads so many bytes as text. */
async function readText(socket: Socket, count: number): Promise<string> {
  const target = Buffer.alloc(count)
  for (let filled = 0; filled < count; ) {
    const more = await socket.read(target.subarray(filled))
    if (more === 0) throw new Error('ended')
    filled += more
  }
  return target.toString('latin1')
}

/** What a promise comes to, either way. */
function outcomeOf(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    value => value,
    (error: unknown) => error,
  )
}
