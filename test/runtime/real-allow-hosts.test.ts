import { expect } from 'chai'
import fc from 'fast-check'
import type { FrameReply } from '../../runtime/frame-server.ts'
import { type Log, silentLog } from '../../runtime/log.ts'
import { allowHosts, readHostPattern } from '../../runtime/real-allow-hosts.ts'
import { realSockets } from '../../runtime/real-sockets.ts'
import { SocketError } from '../../runtime/world.ts'
import { until } from '../until.ts'
import { type FrameHarness, RawConnection, requestOf, serveFrames } from './frame-fixture.ts'

const ECHO = 111
const NAMES: Record<string, string> = { 'host01.example.com': '10.9.0.1', 'host02.example.com': '2001:db8::2' }
const names = {
  resolve: async (name: string) => {
    const address = NAMES[name]
    if (address === undefined) throw new SocketError(`resolve ${name}`, 'ENOTFOUND')
    return address
  },
}

describe('allowed hosts', () => {
  const admits = async (...patterns: string[]) => (await allowHosts(patterns, names, silentLog()))!

  it('are all of them without a pattern, and with an asterisk among others', async () => {
    for (const patterns of [[], ['*'], ['10.0.0.[1-9]', '*']]) {
      expect(await allowHosts(patterns, names, silentLog()), patterns.join()).equal(undefined)
    }
  })

  it('are addresses, also where an IPv4 address comes in the clothes of an IPv6 one', async () => {
    const isAllowed = await admits('10.0.1.5', '2001:DB8:0::7')
    for (const address of ['10.0.1.5', '::ffff:10.0.1.5', '2001:db8::7']) expect(isAllowed(address)).equal(true)
    for (const address of ['10.0.1.6', '::ffff:10.0.1.6', '2001:db8::8', '127.0.0.1', '::1', '']) {
      expect(isAllowed(address), address).equal(false)
    }
  })

  it('are link-local addresses of whatever interface', async () => {
    const isAllowed = await admits('fe80::1')
    expect([isAllowed('fe80::1%eth0'), isAllowed('fe80::2%eth0')]).deep.equal([true, false])
  })

  it('are those with a number in brackets', async () => {
    const isAllowed = await admits('10.0.1.[1-15,20]')
    const allowed = Array.from({ length: 256 }, (_, i) => i).filter(i => isAllowed(`10.0.1.${i}`))
    expect(allowed).deep.equal([...Array.from({ length: 15 }, (_, i) => i + 1), 20])
  })

  it('are padded as the first number of a range is', () => {
    const hosts = (pattern: string) => readHostPattern(pattern).flatMap(Object.values)
    expect(hosts('host[08-11, 3].a.com')).deep.equal(['08', '09', '10', '11', '3'].map(number => `host${number}.a.com`))
  })

  it('are what names stand for at start, and none of those that stand for nothing', async () => {
    const warnings: unknown[] = []
    const log = { warn: (what: unknown) => warnings.push(what) } as unknown as Log
    const isAllowed = (await allowHosts(['host[01-03].example.com'], names, log))!
    expect(['10.9.0.1', '2001:db8::2', '10.9.0.2'].map(isAllowed)).deep.equal([true, true, false])
    expect(warnings).deep.equal([{ name: 'host03.example.com' }])
  })

  it('are in the network of any prefix', async () => {
    const text = (n: number) => [24, 16, 8, 0].map(shift => (n >>> shift) & 0xff).join('.')
    const number = fc.integer({ min: 0, max: 2 ** 32 - 1 })
    await fc.assert(
      fc.asyncProperty(number, number, fc.nat(32), fc.nat(32), async (network, other, bits, same) => {
        // Addresses that share their first bits with the network.
        const address = same === 32 ? network : (network ^ (other >>> same)) >>> 0
        const isIn = bits === 0 || network >>> (32 - bits) === address >>> (32 - bits)
        expect((await admits(`${text(network)}/${bits}`))(text(address))).equal(isIn)
      }),
    )
    const isAllowed = await admits('2001:db8::/33')
    expect(['2001:db8:7fff::1', '2001:db8:8000::1'].map(isAllowed)).deep.equal([true, false])
  })

  for (const pattern of [
    ...['', ' ', '10.0.0', '10.0.0.300', '10.0.1.[250-256]', '1', '10.0.0.1:80', '1.2.3.4/33', '::/129', '::/', 'a/8'],
    ...['10.0.0.0/8/8', '10.0.1.[', '10.0.1.]', '10.0.1.[]', '10.0.1.[a]', '10.0.1.[5-2]', '10.[0-1].0.[0-1]'],
    ...['h[0-999999999].a.com', 'h[0-9999999999].a.com', '[::1]', '**', 'a b', '2001:db8::g'],
  ]) {
    it(`are not "${pattern}"`, () => expect(() => readHostPattern(pattern)).throw(Error, `"${pattern}"`))
  }

  it('are no more than a limit', async () => {
    const networks = Array.from({ length: 16 }, (_, i) => `10.0.${i}.[0-255]`)
    const isAllowed = await admits(...networks)
    expect([isAllowed('10.0.15.255'), isAllowed('10.0.16.0')]).deep.equal([true, false])
    const failure = await admits(...networks, '10.1.0.0').catch(error => error)
    expect(failure).instanceOf(Error).property('message').match(/4096/)
  })
})

describe('a frame server that allows some hosts', () => {
  let harness: FrameHarness
  afterEach(() => harness.remove())

  const reply: FrameReply = { status: 0, parts: [] }
  const start = async (patterns: string[], host: string, log: Log = silentLog()) => {
    const requests: number[] = []
    harness = await serveFrames(
      request => {
        requests.push(request.command)
        return reply
      },
      { admits: await allowHosts(patterns, realSockets, log), listenAt: { host, port: 0 }, log },
    )
    return requests
  }

  it('answers them, and closes at once what comes from others, loopback included', async () => {
    const requests = await start(['127.0.0.[2-3]'], '127.0.0.1')
    const friend = await harness.connect('127.0.0.3')
    friend.send(requestOf(ECHO))
    expect((await friend.reply()).status).equal(0)
    for (const address of ['127.0.0.1', '127.0.0.4']) {
      const stranger = await harness.connect(address)
      stranger.send(requestOf(ECHO))
      expect(await stranger.untilEnded()).deep.equal(Buffer.alloc(0))
    }
    expect(requests).deep.equal([ECHO])
    expect([harness.server.refusedCount, harness.server.connectionCount]).deep.equal([2, 1])
  })

  it('knows IPv4 hosts on a port that takes both kinds, and IPv6 hosts', async () => {
    await start(['127.0.0.2', '::1'], '::')
    const { port } = harness.endpoint
    for (const [to, from, isAllowed] of [
      ['127.0.0.1', '127.0.0.2', true],
      ['127.0.0.1', '127.0.0.3', false],
      ['::1', '::1', true],
    ] as const) {
      const connection = await RawConnection.connect({ host: to, port }, from)
      connection.send(requestOf(ECHO))
      if (isAllowed) expect((await connection.reply()).status).equal(0)
      else expect(await connection.untilEnded()).deep.equal(Buffer.alloc(0))
      connection.destroy()
    }
  })

  it('counts every stranger, and tells of them once in ten seconds', async () => {
    const told: { refused: number }[] = []
    const quiet = silentLog()
    const log = Object.assign(Object.create(quiet), { warn: (what: { refused: number }) => told.push(what) }) as Log
    await start(['10.0.0.1'], '127.0.0.1', log)
    const knock = async (total: number) => {
      await (await harness.connect()).untilEnded()
      await until('it is counted', () => harness.server.refusedCount === total)
    }
    for (let i = 1; i <= 20; i++) await knock(i)
    expect(told.map(({ refused }) => refused)).deep.equal([1])
    harness.clock.advance(10_000)
    await knock(21)
    expect(told.map(({ refused }) => refused)).deep.equal([1, 21])
  })
})
