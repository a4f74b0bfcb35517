import { expect } from 'chai'
import { connect, type QueuedIterator } from 'nats'
import type { Bus, BusOptions } from '../../runtime/bus.ts'
import { MemoryBroker } from '../../runtime/memory-bus.ts'
import { type MicroHandler, MicroService } from '../../runtime/micro-service.ts'
import { natsBusConnector } from '../../runtime/nats-bus.ts'
import { realWorld } from '../../runtime/real-world.ts'
import { Timers } from '../../runtime/timers.ts'
import { bytes, Received, text } from './bus-contract.ts'
import { startNatsServer } from './server-child.ts'

const world = realWorld()
const OPTIONS: BusOptions = { servers: [], name: 'test', inboxPrefix: '_INBOX', waitForServer: false }
const IDENTITY = { name: 'dfs-test', id: 's1-abc', version: '1.2.3', description: 'a test', metadata: { group: 'g1' } }
const ANSWER_MS = 5_000

describe('a micro service', () => {
  /** A time that stands still unless a test moves it. */
  let nowMs = 0
  const clock = { ...world.clock, wallMs: () => 1_700_000_000_000, monotonicMs: () => nowMs }
  let bus: Bus
  let service: MicroService

  beforeEach(async () => {
    bus = await new MemoryBroker(new Timers(world.clock), world.random).connector()(OPTIONS)
    service = new MicroService(bus, clock, IDENTITY)
  })
  afterEach(() => bus.drain())

  const ask = (subject: string, payload = '') => bus.request(subject, bytes(payload), { timeoutMs: ANSWER_MS })
  const askJson = async (subject: string) => JSON.parse(text((await ask(subject)).payload))
  const statsOf = async (name: string) => {
    const { endpoints } = await askJson('$SRV.STATS')
    return endpoints.find((endpoint: { name: string }) => endpoint.name === name)
  }
  const serve = (handler: MicroHandler) => service.endpoint({ name: 'echo', subject: 'dfs.test.echo' }, handler)

  it('answers PING, INFO and STATS to all, to its name and to its id', async () => {
    service.endpoint({ name: 'echo', subject: 'dfs.test.echo' }, () => undefined)
    service.endpoint({ name: 'all', subject: 'dfs.all', queue: null, data: () => ({ freeBytes: 7 }) }, () => undefined)
    service.endpoint({ name: 'group', subject: 'dfs.g', queue: 'mine' }, () => undefined)
    const { description, ...who } = IDENTITY
    const stats = {
      num_requests: 0,
      num_errors: 0,
      last_error: '',
      processing_time: 0,
      average_processing_time: 0,
    }
    for (const suffix of ['', '.dfs-test', '.dfs-test.s1-abc']) {
      expect(await askJson(`$SRV.PING${suffix}`)).deep.equal({ type: 'io.nats.micro.v1.ping_response', ...who })
      expect(await askJson(`$SRV.INFO${suffix}`)).deep.equal({
        type: 'io.nats.micro.v1.info_response',
        ...who,
        description,
        endpoints: [
          { name: 'echo', subject: 'dfs.test.echo', queue_group: 'q', metadata: {} },
          { name: 'all', subject: 'dfs.all', queue_group: '', metadata: {} },
          { name: 'group', subject: 'dfs.g', queue_group: 'mine', metadata: {} },
        ],
      })
      expect(await askJson(`$SRV.STATS${suffix}`)).deep.equal({
        type: 'io.nats.micro.v1.stats_response',
        ...who,
        started: '2023-11-14T22:13:20.000Z',
        endpoints: [
          { name: 'echo', subject: 'dfs.test.echo', queue_group: 'q', ...stats, data: { errors: {} } },
          { name: 'all', subject: 'dfs.all', queue_group: '', ...stats, data: { freeBytes: 7, errors: {} } },
          { name: 'group', subject: 'dfs.g', queue_group: 'mine', ...stats, data: { errors: {} } },
        ],
      })
    }
  })

  it('times a request until its promise settles, in whole nanoseconds', async () => {
    const finish: (() => void)[] = []
    serve(async request => {
      await new Promise<void>(resolve => finish.push(resolve))
      request.respond(request.message.payload)
    })
    const replies = [ask('dfs.test.echo', 'a'), ask('dfs.test.echo', 'b')]
    await bus.flush()
    expect(await statsOf('echo')).include({ num_requests: 0, processing_time: 0 })
    nowMs += 1.0000004
    finish[0]!()
    expect(text((await replies[0]!).payload)).equal('a')
    nowMs += 2
    finish[1]!()
    await replies[1]
    expect(await statsOf('echo')).include({
      num_requests: 2,
      num_errors: 0,
      processing_time: 4_000_001,
      average_processing_time: 2_000_000,
    })
  })

  it('answers a failure with both headers and counts it by its code', async () => {
    serve(request =>
      request.fail('no_space', 507, 'no space\r\nleft', bytes('{}'), { 'Content-Type': 'application/json' }),
    )
    for (let i = 0; i < 3; i++) {
      const { payload, headers } = await ask('dfs.test.echo')
      expect(text(payload)).equal('{}')
      expect(headers).deep.equal({
        'Content-Type': 'application/json',
        'Nats-Service-Error': 'no space left',
        'Nats-Service-Error-Code': '507',
      })
    }
    const stats = await statsOf('echo')
    expect(stats).include({ num_requests: 3, num_errors: 3, last_error: 'no_space: no space left' })
    expect(stats.data).deep.equal({ errors: { no_space: 3 } })
  })

  it('answers 500 when a handler throws or rejects, tells of the bug, and goes on', async () => {
    const bugs: unknown[] = []
    const handlers: Record<string, MicroHandler> = {
      throws: () => {
        throw new Error('thrown')
      },
      rejects: () => Promise.reject(new Error('rejected')),
      fails: async request => {
        request.fail('no_space', 507, 'no space', bytes(''))
        throw new Error('after failing')
      },
      works: request => request.respond(bytes('fine')),
    }
    service.endpoint({ name: 'echo', subject: 'dfs.test.echo', onBug: error => bugs.push(error) }, request =>
      handlers[text(request.message.payload)]!(request),
    )
    const codes: (string | undefined)[] = []
    for (const which of Object.keys(handlers)) {
      codes.push((await ask('dfs.test.echo', which)).headers['Nats-Service-Error-Code'])
    }
    expect(codes).deep.equal(['500', '500', '507', undefined])
    expect(bugs.map(String)).deep.equal(['Error: thrown', 'Error: rejected', 'Error: after failing'])
    const stats = await statsOf('echo')
    expect(stats).include({ num_requests: 4, num_errors: 3 })
    expect(stats.data).deep.equal({ errors: { internal: 2, no_space: 1 } })
  })

  it('counts codes past its limit together', async () => {
    serve(request => request.fail(text(request.message.payload), 400, 'bad', bytes('')))
    for (let i = 0; i < 105; i++) await ask('dfs.test.echo', `code${i}`)
    const { errors } = (await statsOf('echo')).data
    expect(Object.keys(errors)).length(101)
    expect(errors.other).equal(5)
  })

  it('answers in parts', async () => {
    serve(request => {
      for (const part of ['a', 'b', '']) request.respond(bytes(part))
    })
    const received = new Received()
    const inbox = bus.newInbox()
    bus.subscribe(inbox, received.handler)
    bus.publish('dfs.test.echo', bytes(''), { replyTo: inbox })
    expect(await received.texts(3)).deep.equal(['a', 'b', ''])
  })

  it('shares requests in a queue group, and not without one', async () => {
    const counts: string[] = []
    const other = new MicroService(bus, clock, { ...IDENTITY, id: 's2' })
    for (const one of [service, other]) {
      one.endpoint({ name: 'shared', subject: 'shared' }, () => void counts.push('shared'))
      one.endpoint({ name: 'all', subject: 'all', queue: null }, () => void counts.push('all'))
    }
    bus.publish('shared', bytes(''))
    bus.publish('all', bytes(''))
    await bus.flush()
    expect(counts.sort()).deep.equal(['all', 'all', 'shared'])
  })

  it('stops: takes nothing more, and waits for what is under way', async () => {
    let finish: (() => void) | undefined
    serve(async request => {
      await new Promise<void>(resolve => {
        finish = resolve
      })
      request.respond(bytes('done'))
    })
    const reply = ask('dfs.test.echo')
    await bus.flush()
    let stopped = false
    const stopping = service.stop().then(() => {
      stopped = true
    })
    const refused = await ask('dfs.test.echo').catch(error => error.code)
    expect(refused).equal('no_responders')
    expect(await ask('$SRV.PING').catch(error => error.code)).equal('no_responders')
    expect(stopped).equal(false)
    finish!()
    await stopping
    expect(text((await reply).payload)).equal('done')
    await service.stop()
  })

  it('refuses names, ids and versions that the nats command refuses', () => {
    for (const bad of [{ name: 'a.b' }, { id: '' }, { id: 'a b' }, { version: '1.0' }, { version: '01.0.0' }]) {
      expect(() => new MicroService(bus, clock, { ...IDENTITY, ...bad }), JSON.stringify(bad)).throws(RangeError)
    }
    for (const version of ['0.1.0', '1.0.0-rc.1+build.5']) new MicroService(bus, clock, { ...IDENTITY, version })
    expect(() => service.endpoint({ name: 'a.b', subject: 'a' }, () => undefined)).throws(RangeError)
    serve(() => undefined)
    expect(() => serve(() => undefined)).throws(RangeError)
  })
})

describe('a micro service on a real server', function () {
  this.timeout(20_000)

  it('is found by the services client of nats.js', async () => {
    const server = await startNatsServer()
    try {
      const connectBus = natsBusConnector(new Timers(world.clock), world.random)
      const bus = await connectBus({ ...OPTIONS, servers: [server.url] })
      const service = new MicroService(bus, world.clock, IDENTITY)
      service.endpoint({ name: 'echo', subject: 'dfs.test.echo' }, request => {
        const { payload } = request.message
        if (payload.length > 0) request.respond(payload)
        else request.fail('bad_request', 400, 'empty', bytes('no'))
      })
      await bus.flush()
      const nc = await connect({ servers: server.url })
      expect((await nc.request('dfs.test.echo', 'hello')).string()).equal('hello')
      const failed = await nc.request('dfs.test.echo')
      expect(failed.headers?.get('Nats-Service-Error-Code')).equal('400')

      const client = nc.services.client()
      const [ping] = await all(client.ping())
      expect(ping).include({ name: 'dfs-test', id: 's1-abc', version: '1.2.3' })
      const [info] = await all(client.info('dfs-test'))
      expect(info?.endpoints).deep.equal([{ name: 'echo', subject: 'dfs.test.echo', queue_group: 'q', metadata: {} }])
      const [stats] = await all(client.stats('dfs-test', 's1-abc'))
      const [echo] = stats?.endpoints ?? []
      expect(echo).include({ num_requests: 2, num_errors: 1, last_error: 'bad_request: empty' })
      expect(echo?.processing_time).satisfies((value: number) => Number.isInteger(value) && value > 0)
      await nc.close()
      await bus.drain()
    } finally {
      await server.remove()
    }
  })
})

async function all<T>(answers: Promise<QueuedIterator<T>>): Promise<T[]> {
  const result: T[] = []
  for await (const answer of await answers) result.push(answer)
  return result
}
