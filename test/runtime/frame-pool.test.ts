import { expect } from 'chai'
import { DfsError } from '../../protocol/errors.ts'
import { COMMANDS } from '../../protocol/frame.ts'
import { FramePool, type FramePoolOptions } from '../../runtime/frame-pool.ts'
import type { FrameHandler } from '../../runtime/frame-server.ts'
import { Gatekeeper, roleKey } from '../../runtime/handshake.ts'
import { realWorld } from '../../runtime/real-world.ts'
import { Timers } from '../../runtime/timers.ts'
import { until } from '../until.ts'
import { VirtualClock } from '../virtual-clock.ts'
import { type FrameHarness, LOOPBACK, serveFrames, TIMEOUTS } from './frame-fixture.ts'

const ECHO = 111
const HOLD = 112
const SECRET = 'c'.repeat(64)
const IDLE_MS_MAX = 60_000
const EMPTY = Buffer.alloc(0)
const { random, sockets } = realWorld()

describe('a frame pool', () => {
  let harness: FrameHarness
  let clock: VirtualClock
  let timers: Timers
  let pools: FramePool[]
  let release: () => void

  beforeEach(async () => {
    clock = new VirtualClock()
    timers = new Timers(clock)
    pools = []
    const gatekeeper = new Gatekeeper(SECRET, realWorld())
    const held = new Promise<void>(resolve => {
      release = resolve
    })
    const handler: FrameHandler = async request => {
      if (request.command === COMMANDS.authenticate) return gatekeeper.challenge(request)
      if (request.command === COMMANDS.prove) return gatekeeper.verify(request)
      if (request.command === HOLD) await held
      return { status: 0, parts: [Buffer.from(request.connection.role)] }
    }
    harness = await serveFrames(handler)
  })
  afterEach(async () => {
    for (const pool of pools) pool.close()
    expect(timers.size).equal(0)
    await harness.remove()
  })

  function poolOf(options: Partial<FramePoolOptions> = {}): FramePool {
    const pool = new FramePool({
      sockets,
      clock,
      timers,
      random,
      connectMs: 5_000,
      timeouts: TIMEOUTS,
      connectionsPerServerMax: 2,
      idleMsMax: IDLE_MS_MAX,
      ...options,
    })
    pools.push(pool)
    return pool
  }

  it('gives the same connection again while nothing is under way on it', async () => {
    const pool = poolOf()
    const first = await pool.connection(harness.endpoint)
    await first.request(ECHO, EMPTY)
    expect(await pool.connection(harness.endpoint)).equal(first)
    expect(harness.accepted).length(1)
  })

  it('opens further ones up to its limit, and then shares the least busy', async () => {
    const pool = poolOf()
    const one = await pool.connection(harness.endpoint)
    const answers = [one.request(HOLD, EMPTY), one.request(HOLD, EMPTY)]
    const two = await pool.connection(harness.endpoint)
    expect(two).not.equal(one)
    answers.push(two.request(HOLD, EMPTY))
    expect(await pool.connection(harness.endpoint)).equal(two)
    answers.push(two.request(HOLD, EMPTY), two.request(HOLD, EMPTY))
    expect(await pool.connection(harness.endpoint)).equal(one)
    release()
    await Promise.all(answers)
    expect(harness.accepted).length(2)
  })

  it('opens no more than its limit when many ask at once', async () => {
    const pool = poolOf()
    const clients = await Promise.all(Array.from({ length: 20 }, () => pool.connection(harness.endpoint)))
    expect(new Set(clients).size).equal(2)
    await Promise.all(clients.map(client => client.request(ECHO, EMPTY)))
    expect(harness.accepted).length(2)
  })

  it('keeps the connections of each server apart', async () => {
    const other = await serveFrames(async () => ({ status: 0 }))
    const pool = poolOf()
    const [here, there] = [await pool.connection(harness.endpoint), await pool.connection(other.endpoint)]
    expect(here.remote).deep.equal(harness.endpoint)
    expect(there.remote).deep.equal(other.endpoint)
    await other.remove()
  })

  it('proves who it is before it gives a connection', async () => {
    const pool = poolOf({ proof: { role: 'client', key: roleKey(SECRET, 'client') } })
    const client = await pool.connection(harness.endpoint)
    expect(String(await client.request(ECHO, EMPTY))).equal('client')
  })

  it('gives none that could not prove who it is, and keeps none', async () => {
    const pool = poolOf({ proof: { role: 'client', key: 'f'.repeat(64) } })
    for (let i = 0; i < 3; i++) expect((await errorOf(pool.connection(harness.endpoint))).code).equal('unauthorized')
    await until('the server has none', () => harness.server.connectionCount === 0)
  })

  it('rejects as unavailable when nobody listens, and connects when somebody does again', async () => {
    const pool = poolOf()
    const listener = await sockets.listen(LOOPBACK, () => undefined)
    await listener.close()
    for (let i = 0; i < 3; i++) expect((await errorOf(pool.connection(listener.endpoint))).code).equal('unavailable')
    const again = await serveFrames(async () => ({ status: 0 }), { listenAt: listener.endpoint })
    await (await pool.connection(listener.endpoint)).request(ECHO, EMPTY)
    await again.remove()
  })

  it('gives no connection that the server has ended', async () => {
    const pool = poolOf()
    const first = await pool.connection(harness.endpoint)
    await first.request(ECHO, EMPTY)
    harness.accepted[0]!.end()
    await until('the end is noticed', () => first.broken)
    const second = await pool.connection(harness.endpoint)
    expect(second).not.equal(first)
    await second.request(ECHO, EMPTY)
  })

  it('ends connections that nobody has used for long, and no others', async () => {
    const pool = poolOf()
    const idle = await pool.connection(harness.endpoint)
    const held = idle.request(HOLD, EMPTY)
    const used = await pool.connection(harness.endpoint)
    release()
    await held
    for (let i = 0; i < 3; i++) {
      await used.request(ECHO, EMPTY)
      clock.advance(IDLE_MS_MAX / 2)
    }
    expect([idle.broken, used.broken]).deep.equal([true, false])
    clock.advance(IDLE_MS_MAX)
    expect(used.broken).equal(true)
    expect(timers.size).equal(0)
  })

  it('ends no connection that waits for an answer, however long', async () => {
    const pool = poolOf({ timeouts: { ...TIMEOUTS, idleMs: 10 * IDLE_MS_MAX } })
    const client = await pool.connection(harness.endpoint)
    const held = client.request(HOLD, EMPTY)
    clock.advance(3 * IDLE_MS_MAX)
    expect(client.broken).equal(false)
    release()
    await held
  })

  it('rejects what is under way, and gives nothing more, when it is closed', async () => {
    const pool = poolOf()
    const client = await pool.connection(harness.endpoint)
    const answer = errorOf(client.request(HOLD, EMPTY))
    pool.close()
    expect((await answer).code).equal('unavailable')
    expect((await errorOf(pool.connection(harness.endpoint))).code).equal('unavailable')
    expect(timers.size).equal(0)
  })

  it('keeps nothing of a connection that was being opened when it was closed', async () => {
    const pool = poolOf()
    const opening = errorOf(pool.connection(harness.endpoint))
    pool.close()
    expect((await opening).code).equal('unavailable')
    await until('the server has none', () => harness.server.connectionCount === 0 && harness.accepted.length === 1)
    expect(timers.size).equal(0)
  })
})

async function errorOf(promise: Promise<unknown>): Promise<DfsError> {
  const error = await promise.then(
    () => expect.fail('it resolved'),
    error => error,
  )
  expect(error).instanceOf(DfsError)
  return error as DfsError
}
