import { expect } from 'chai'
import type { Bus, BusOptions } from '../../runtime/bus.ts'
import { natsBusConnector } from '../../runtime/nats-bus.ts'
import { realWorld } from '../../runtime/real-world.ts'
import { Timers } from '../../runtime/timers.ts'
import { busContract, bytes, Received, rejection, text, untilStatus } from './bus-contract.ts'
import { type NatsServer, startNatsServer } from './server-child.ts'

const world = realWorld()
const connectBus = natsBusConnector(new Timers(world.clock), world.random)

const OPTIONS = { name: 'test', inboxPrefix: '_INBOX_test', waitForServer: false }

busContract('the NATS bus', async () => {
  const server = await startNatsServer()
  return {
    connect: options => connectBus({ ...OPTIONS, servers: [server.url], ...options }),
    stop: server.stop,
    start: () => server.start(),
    remove: server.remove,
  }
})

/** One user that may do less than `all` says. */
function authorization(publishDeny: string, subscribeDeny: string): string {
  return `authorization { users: [
    { user: all, password: secret }
    { user: some, password: secret, permissions: { publish: { deny: "${publishDeny}" }, subscribe: { deny: "${subscribeDeny}" } } }
  ] }`
}

describe('the NATS bus under permissions', function () {
  this.timeout(20_000)
  let server: NatsServer
  let opened: Bus[] = []

  beforeEach(async () => {
    server = await startNatsServer(authorization('secret.>', 'private.>'))
  })
  afterEach(async () => {
    await Promise.all(opened.map(bus => bus.drain()))
    opened = []
    await server?.remove()
  })

  async function connect(user: string, options: Partial<BusOptions> = {}): Promise<Bus> {
    const bus = await connectBus({ ...OPTIONS, servers: [server.url], user, password: 'secret', ...options })
    opened.push(bus)
    return bus
  }

  it('rejects a wrong password as forbidden, even when told to wait for a server', async () => {
    for (const waitForServer of [false, true]) {
      const error = await rejection(connect('all', { password: 'wrong', waitForServer }))
      expect(error.code).equal('forbidden')
      expect(error.cause).instanceOf(Error)
    }
  })

  it('rejects forbidden requests at once, all on that subject and no other', async () => {
    const [some, all] = await Promise.all([connect('some'), connect('all')])
    all.subscribe('secret.x', message => message.respond(bytes('never')))
    const received = new Received()
    all.subscribe('open.x', received.handler)
    await all.flush()
    const open = some.request('open.x', bytes(''), { timeoutMs: 10_000 })
    const forbidden = [1, 2].map(() => rejection(some.request('secret.x', bytes(''), { timeoutMs: 60_000 })))
    for (const error of await Promise.all(forbidden)) expect(error.code).equal('forbidden')
    await received.texts(1)
    received.messages[0]!.respond(bytes('answer'))
    expect(text((await open).payload)).equal('answer')
  })

  it('tells of a forbidden publish and keeps connection and subscriptions', async () => {
    let tell: (what: string) => void
    const heard = new Promise<string>(resolve => {
      tell = resolve
    })
    const some = await connect('some', { onForbidden: (operation, subject) => tell(`${operation} ${subject}`) })
    const statuses: string[] = []
    some.onStatus(status => statuses.push(status))
    const received = new Received()
    some.subscribe('mine', received.handler)
    some.publish('secret.x', bytes(''))
    some.publish('mine', bytes('1'))
    await some.flush()
    some.publish('mine', bytes('2'))
    expect(await received.texts(2)).deep.equal(['1', '2'])
    expect(await heard).equal('publish secret.x')
    expect(statuses).empty
  })

  it('tells of a forbidden subscription, keeps the others, and tries again after a reconnect', async () => {
    let tell: (what: string) => void
    const heard = new Promise<string>(resolve => {
      tell = resolve
    })
    const some = await connect('some', { onForbidden: (operation, subject) => tell(`${operation} ${subject}`) })
    const [refused, allowed] = [new Received(), new Received()]
    some.subscribe('private.x', refused.handler)
    some.subscribe('private.q', refused.handler, { queue: 'q' }).unsubscribe()
    some.subscribe('public.x', allowed.handler)
    some.publish('private.x', bytes('unheard'))
    some.publish('public.x', bytes('heard'))
    await some.flush()
    expect(await allowed.texts(1)).deep.equal(['heard'])
    expect(await heard).equal('subscribe private.x')
    expect(refused.messages).empty

    await server.stop()
    await untilStatus(some, 'disconnected')
    await server.start(authorization('secret.>', 'other.>'))
    await untilStatus(some, 'connected')
    some.publish('private.x', bytes('allowed now'))
    expect(await refused.texts(1)).deep.equal(['allowed now'])
  })

  it('rejects requests as forbidden when it may not listen to its inbox, until a reconnect finds that it may', async () => {
    const some = await connect('some', { inboxPrefix: 'private' })
    some.subscribe('svc', message => message.respond(bytes('answer')))
    for (let i = 0; i < 2; i++) {
      const error = await rejection(some.request('svc', bytes(''), { timeoutMs: 60_000 }))
      expect(error.code).equal('forbidden')
    }
    await server.stop()
    await untilStatus(some, 'disconnected')
    await server.start(authorization('secret.>', 'other.>'))
    await untilStatus(some, 'connected')
    expect(text((await some.request('svc', bytes(''), { timeoutMs: 10_000 })).payload)).equal('answer')
  })

  it('goes on trying when a server that came back does not know it any more', async () => {
    // Each attempt to connect draws a delay, and so does each look at whether it is over: eight make two refusals.
    let drawsLeft = Number.POSITIVE_INFINITY
    let refused: () => void
    const twiceRefused = new Promise<void>(resolve => {
      refused = resolve
    })
    const below = (limit: number) => {
      if (--drawsLeft === 0) refused()
      return world.random.below(limit)
    }
    const some = await natsBusConnector(new Timers(world.clock), { ...world.random, below })({
      ...OPTIONS,
      servers: [server.url],
      user: 'some',
      password: 'secret',
    })
    opened.push(some)
    await server.stop()
    await untilStatus(some, 'disconnected')
    await server.start('authorization { user: nobody, password: else }')
    drawsLeft = 8
    await twiceRefused
    await server.stop()
    await server.start(authorization('secret.>', 'private.>'))
    await untilStatus(some, 'connected')
  })

  it('lives on when a handler throws, which is a bug that is seen', async () => {
    const bus = await connect('all')
    const received = new Received()
    const listeners = process.listeners('uncaughtException')
    process.removeAllListeners('uncaughtException')
    const uncaught = new Promise(resolve => process.once('uncaughtException', resolve))
    try {
      bus.subscribe('bug', () => {
        throw new Error('a bug')
      })
      bus.subscribe('bug', received.handler)
      bus.publish('bug', bytes('1'))
      expect(await uncaught).property('message', 'a bug')
      bus.publish('bug.not', bytes(''))
      await received.texts(1)
      await bus.flush()
    } finally {
      for (const listener of listeners) process.on('uncaughtException', listener)
    }
  })
})
