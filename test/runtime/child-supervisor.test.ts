import { expect } from 'chai'
import { type ChildPlan, ChildSupervisor } from '../../runtime/child-supervisor.ts'
import { realWorld } from '../../runtime/real-world.ts'
import { Timers } from '../../runtime/timers.ts'
import type { ChildProcess, Clock, Processes, SpawnOptions } from '../../runtime/world.ts'
import { until } from '../until.ts'

const PLAN: ChildPlan = { program: 'program', args: [] }
const MINUTE_MS = 60_000

describe('the supervisor of child processes', () => {
  it('says that a child is ready when it prints its ready line, and passes on what that says', async () => {
    const { supervisor, children, log } = simulate()
    const ready = supervisor.start('storage', PLAN)
    await children.next()
    children.last.print('starting')
    children.last.print('{"ready":false}')
    children.last.print('{"ready":true', 'stdout')
    children.last.print('{"ready":true,"from":"stderr"}', 'stderr')
    expect(supervisor.status('storage')).to.deep.equal({ pid: 1001, ready: false, restarts: 0 })
    children.last.print('{"ready":true,"port":23000}')
    expect(await ready).to.deep.equal({ ready: true, port: 23000 })
    expect(supervisor.status('storage')).to.deep.equal({ pid: 1001, ready: true, restarts: 0 })
    expect(log).to.deep.equal([
      ...['storage pid 1001', 'storage: starting', 'storage: {"ready":false}', 'storage: {"ready":true'],
      ...['storage: {"ready":true,"from":"stderr"}', 'storage ready {"ready":true,"port":23000}'],
    ])
  })

  it('says why a child never became ready, and does not try again', async () => {
    const { supervisor, children, clock } = simulate()
    const ready = supervisor.start('storage', PLAN)
    await children.next()
    for (let i = 0; i < 100; i++) children.last.print(`line ${i}`, 'stderr')
    children.last.end({ code: 3 })
    const message = await ready.then(String, (error: Error) => error.message)
    expect(message.split('\n')[0]).to.equal('storage ended with code 3')
    expect(message.split('\n').slice(1)).to.deep.equal(Array.from({ length: 20 }, (_, i) => `line ${i + 80}`))
    clock.advance(10 * MINUTE_MS)
    expect(children.all).to.have.length(1)
    expect(supervisor.status('storage')).to.equal(undefined)
  })

  it('says so when a program does not exist', async () => {
    const { supervisor, children, log } = simulate()
    children.nextPid = -1
    const ready = supervisor.start('storage', PLAN)
    await children.next()
    children.last.end({ code: 127 })
    expect(await ready.catch(String)).to.contain('storage ended with code 127')
    expect(log).to.deep.equal([])
  })

  it('starts a child again after a back-off that doubles up to a limit, jittered', async () => {
    const { supervisor, children, clock } = simulate()
    await becomeReady(supervisor.start('storage', PLAN), children)
    for (const backoffMs of [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]) {
      const count = children.all.length
      children.last.end({ signal: 'SIGKILL' })
      await clock.settle()
      clock.advance(backoffMs - 2)
      await clock.settle()
      expect(children.all, `too early after ${backoffMs}`).to.have.length(count)
      clock.advance(1)
      await clock.settle()
      expect(children.all, `too late after ${backoffMs}`).to.have.length(count + 1)
      children.last.print('{"ready":true}')
    }
    expect(supervisor.status('storage')).to.include({ restarts: 9, ready: true, pid: 1010 })
  })

  it('starts from the shortest back-off again after a minute of health, and not before', async () => {
    const { supervisor, children, clock } = simulate()
    await becomeReady(supervisor.start('storage', PLAN), children)
    const failAndRestartWithin = async (limitMs: number): Promise<boolean> => {
      const count = children.all.length
      children.last.end({ code: 1 })
      await clock.settle()
      clock.advance(limitMs)
      await clock.settle()
      const restarted = children.all.length > count
      if (!restarted) clock.advance(MINUTE_MS)
      await clock.settle()
      children.last.print('{"ready":true}')
      return restarted
    }
    for (let i = 0; i < 5; i++) await failAndRestartWithin(0)
    clock.advance(MINUTE_MS - 1)
    expect(await failAndRestartWithin(100)).to.equal(false)
    clock.advance(MINUTE_MS)
    expect(await failAndRestartWithin(100)).to.equal(true)
  })

  it('does not count the time before a child was ready as health', async () => {
    const { supervisor, children, clock } = simulate()
    await becomeReady(supervisor.start('storage', PLAN), children)
    for (let i = 0; i < 3; i++) {
      children.last.end({ code: 1 })
      await clock.settle()
      clock.advance(MINUTE_MS)
      await clock.settle()
      clock.advance(2 * MINUTE_MS)
    }
    children.last.end({ code: 1 })
    await clock.settle()
    clock.advance(399)
    await clock.settle()
    expect(children.all).to.have.length(4)
  })

  it('tells of every change of the pid, and of readiness after every restart', async () => {
    const { supervisor, children, clock, log } = simulate()
    await becomeReady(supervisor.start('storage', PLAN), children)
    children.last.end({ code: 1 })
    await clock.settle()
    clock.advance(100)
    await clock.settle()
    children.last.print('{"ready":true,"again":1}')
    expect(log).to.deep.equal([
      ...['storage pid 1001', 'storage ready {"ready":true}', 'storage pid undefined'],
      ...[
        'storage: storage ended with code 1; restarting',
        'storage pid 1002',
        'storage ready {"ready":true,"again":1}',
      ],
    ])
  })

  it('asks its children to end, and kills those that do not', async () => {
    const { supervisor, children, clock } = simulate()
    await becomeReady(supervisor.start('polite', PLAN), children)
    const polite = children.last
    await becomeReady(supervisor.start('interrupted', { ...PLAN, stopSignal: 'SIGINT' }), children)
    const interrupted = children.last
    await becomeReady(supervisor.start('stuck', PLAN), children)
    const stuck = children.last
    let stopped = false
    const stop = supervisor.stop().then(() => {
      stopped = true
    })
    expect([polite.signals, interrupted.signals, stuck.signals]).to.deep.equal([['SIGTERM'], ['SIGINT'], ['SIGTERM']])
    polite.end({ code: 0 })
    interrupted.end({ code: 0 })
    await clock.settle()
    clock.advance(9_999)
    expect(stuck.signals).to.deep.equal(['SIGTERM'])
    clock.advance(1)
    expect(stuck.signals).to.deep.equal(['SIGTERM', 'SIGKILL'])
    expect(stopped).to.equal(false)
    stuck.end({ signal: 'SIGKILL' })
    await stop
    clock.advance(10 * MINUTE_MS)
    await clock.settle()
    expect(children.all).to.have.length(3)
  })

  it('stops one child and leaves the others', async () => {
    const { supervisor, children } = simulate()
    await becomeReady(supervisor.start('one', PLAN), children)
    const one = children.last
    await becomeReady(supervisor.start('two', PLAN), children)
    const stop = supervisor.stop('one')
    one.end({ code: 0 })
    await stop
    expect(children.last.signals).to.deep.equal([])
    expect(supervisor.status('two')).to.include({ ready: true })
    await supervisor.stop('nobody')
  })

  it('stops a child that waits for its restart, without waiting for it', async () => {
    const { supervisor, children, clock } = simulate()
    await becomeReady(supervisor.start('storage', PLAN), children)
    children.last.end({ code: 1 })
    await clock.settle()
    await supervisor.stop()
    clock.advance(MINUTE_MS)
    await clock.settle()
    expect(children.all).to.have.length(1)
  })

  it('rejects the start of a child that is stopped before it was ready, or has the name of another', async () => {
    const { supervisor, children } = simulate()
    const ready = supervisor.start('storage', PLAN)
    await children.next()
    expect(await supervisor.start('storage', PLAN).catch(String)).to.contain('already supervised')
    const stop = supervisor.stop()
    children.last.end({ signal: 'SIGTERM' })
    await stop
    expect(await ready.catch(String)).to.contain('ended with SIGTERM')
  })

  it('prepares every start, and counts a preparation that fails as a start that failed', async () => {
    const { supervisor, children, clock } = simulate()
    let preparations = 0
    const beforeStart = async () => {
      preparations += 1
      if (preparations === 2) throw new Error('disk full')
    }
    await becomeReady(supervisor.start('storage', { ...PLAN, beforeStart }), children)
    children.last.end({ code: 1 })
    for (let i = 0; i < 2; i++) {
      await clock.settle()
      clock.advance(200)
    }
    await clock.settle()
    expect(preparations).to.equal(3)
    expect(children.all).to.have.length(2)
    expect(supervisor.status('storage')).to.include({ restarts: 2 })
    const error = await supervisor
      .start('other', { ...PLAN, beforeStart: () => Promise.reject(new Error('no')) })
      .catch(String)
    expect(error).to.contain('other could not be started: no')
  })

  it('asks whenReady instead of reading lines, and ends a child for which it gives up', async () => {
    const { supervisor, children } = simulate()
    const first = supervisor.start('nats', { ...PLAN, whenReady: async pid => ({ pid }) })
    await children.next()
    children.last.print('{"ready":true}')
    expect(await first).to.deep.equal({ pid: 1001 })
    const second = supervisor.start('other', { ...PLAN, whenReady: () => Promise.reject(new Error('no port')) })
    await children.next()
    await until('it is killed', () => children.last.signals.includes('SIGKILL'))
    children.last.end({ signal: 'SIGKILL' })
    expect(await second.catch(String)).to.contain('other ended with SIGKILL: no port')
  })

  it('runs real processes', async () => {
    const world = realWorld()
    const lines: string[] = []
    const supervisor = new ChildSupervisor(world, new Timers(world.clock), { onLine: (_, line) => lines.push(line) })
    const script = `
      console.log(JSON.stringify({ ready: true, pid: process.pid, given: process.env.DFS_TEST_GIVEN }))
      console.error('a line')
      process.on('SIGTERM', () => process.exit(0))
      setInterval(() => {}, 1000)`
    const plan = { program: process.execPath, args: ['-e', script], environment: { DFS_TEST_GIVEN: 'yes' } }
    try {
      const { pid, given } = await supervisor.start('real', plan)
      expect(given).to.equal('yes')
      expect(supervisor.status('real')?.pid).to.equal(pid)
      await until('its line arrives', () => lines.includes('a line'))
      world.processes.signal(pid as number, 'SIGKILL')
      await until('it runs again', () => supervisor.status('real')?.ready && supervisor.status('real')?.restarts === 1)
    } finally {
      await supervisor.stop()
    }
    expect(supervisor.status('real')).to.equal(undefined)
  })
})

async function becomeReady(ready: Promise<unknown>, children: FakeChildren): Promise<void> {
  await children.next()
  children.last.print('{"ready":true}')
  await ready
}

function simulate() {
  const clock = new FakeClock()
  const children = new FakeChildren(clock)
  const log: string[] = []
  // The jitter is as large as it gets: less than the whole back-off, by one millisecond.
  const random = { bytes: (count: number) => Buffer.alloc(count), below: (limit: number) => limit - 1 }
  const supervisor = new ChildSupervisor({ processes: children, random }, new Timers(clock), {
    onChange: (name, pid) => log.push(`${name} pid ${pid}`),
    onReady: (name, report) => log.push(`${name} ready ${JSON.stringify(report)}`),
    onLine: (name, line) => log.push(`${name}: ${line}`),
  })
  return { supervisor, children, clock, log }
}

/** A clock that moves when told. */
class FakeClock implements Clock {
  #nowMs = 0
  #alarms: { atMs: number; ring: () => void }[] = []

  wallMs = () => this.#nowMs
  monotonicMs = () => this.#nowMs
  turn = () => Promise.resolve()

  alarm(delayMs: number, ring: () => void) {
    const alarm = { atMs: this.#nowMs + delayMs, ring }
    this.#alarms.push(alarm)
    return () => {
      this.#alarms = this.#alarms.filter(other => other !== alarm)
    }
  }

  advance(delayMs: number): void {
    const untilMs = this.#nowMs + delayMs
    for (;;) {
      const next = this.#alarms.sort((a, b) => a.atMs - b.atMs)[0]
      if (next === undefined || next.atMs > untilMs) break
      this.#alarms.shift()
      this.#nowMs = next.atMs
      next.ring()
    }
    this.#nowMs = untilMs
  }

  /** Lets everything that was resolved run. */
  settle = () => new Promise<void>(resolve => setImmediate(resolve))
}

/** Processes that only pretend. */
class FakeChildren implements Processes {
  readonly pid = 1
  readonly all: FakeChild[] = []
  readonly #clock: FakeClock
  #taken = 0

  constructor(clock: FakeClock) {
    this.#clock = clock
  }

  /** Waits for the start of one more. */
  async next(): Promise<void> {
    await this.#clock.settle()
    this.#taken += 1
    expect(this.all).to.have.length(this.#taken)
  }

  get last(): FakeChild {
    return this.all.at(-1)!
  }

  /** The pid that the next child gets, or -1 if it cannot be started. */
  nextPid = 1001

  spawn(_program: string, _args: readonly string[], options: SpawnOptions): ChildProcess {
    const child = new FakeChild(this.nextPid, options)
    if (this.nextPid > 0) this.nextPid += 1
    this.all.push(child)
    return child
  }

  alive = () => false
  commandLine = async () => ''
  signal = () => {}
}

class FakeChild implements ChildProcess {
  readonly pid: number
  readonly signals: string[] = []
  readonly exited: ChildProcess['exited']
  readonly #options: SpawnOptions
  #exit: (how: { code: number | undefined; signal: string | undefined }) => void = () => {}

  constructor(pid: number, options: SpawnOptions) {
    this.pid = pid
    this.#options = options
    this.exited = new Promise(resolve => {
      this.#exit = resolve
    })
  }

  kill = (signal: string) => void this.signals.push(signal)
  print = (line: string, stream: 'stdout' | 'stderr' = 'stdout') => this.#options.onLine?.(line, stream)
  end = (how: { code?: number; signal?: string }) => this.#exit({ code: how.code, signal: how.signal })
}
