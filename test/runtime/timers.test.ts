import { expect } from 'chai'
import fc from 'fast-check'
import { Timers } from '../../runtime/timers.ts'
import { VirtualClock } from '../virtual-clock.ts'

/** One thing done to the timers: set one, cancel one that waits, or let time pass. */
type Action = { set: number } | { cancel: number } | { advance: number }

const action: fc.Arbitrary<Action> = fc.oneof(
  { arbitrary: fc.record({ set: fc.integer({ min: -5, max: 400 }) }), weight: 4 },
  { arbitrary: fc.record({ cancel: fc.nat(100) }), weight: 3 },
  { arbitrary: fc.record({ advance: fc.nat(15) }), weight: 1 },
)

describe('timers', () => {
  let clock: VirtualClock
  let timers: Timers
  let rung: string[]
  const note = (name: string) => () => void rung.push(`${name}@${clock.monotonicMs()}`)

  beforeEach(() => {
    clock = new VirtualClock()
    timers = new Timers(clock)
    rung = []
  })

  it('ring each at its time, in the order of times and then of setting, whatever is set and cancelled', () => {
    fc.assert(
      fc.property(fc.array(action, { maxLength: 200, size: 'max' }), actions => {
        const clock = new VirtualClock()
        const timers = new Timers(clock)
        const rung: { id: number; atMs: number }[] = []
        const expected: { id: number; atMs: number }[] = []
        const cancels: (() => void)[] = []
        let waiting: { id: number; atMs: number }[] = []
        const pass = (ms: number) => {
          const due = waiting.filter(timer => timer.atMs <= clock.monotonicMs() + ms)
          expected.push(...due.sort((a, b) => a.atMs - b.atMs || a.id - b.id))
          waiting = waiting.filter(timer => !due.includes(timer))
          clock.advance(ms)
        }
        for (const one of actions) {
          if ('set' in one) {
            const id = cancels.length
            waiting.push({ id, atMs: clock.monotonicMs() + Math.max(0, one.set) })
            cancels.push(timers.set(one.set, () => rung.push({ id, atMs: clock.monotonicMs() })))
          } else if ('cancel' in one) {
            const timer = waiting[one.cancel % Math.max(1, waiting.length)]
            if (timer !== undefined) cancels[timer.id]!()
            waiting = waiting.filter(other => other !== timer)
          } else pass(one.advance)
          expect(timers.size).equal(waiting.length)
        }
        pass(400)
        expect(rung).deep.equal(expected)
        expect(timers.size).equal(0)
        clock.advance(100)
        expect(clock.alarmCount).equal(0)
      }),
      { numRuns: 300 },
    )
  })

  it('ring in the order set when their times are equal', () => {
    for (let i = 0; i < 20; i++) timers.set(10, note(String(i)))
    clock.advance(10)
    expect(rung).deep.equal(Array.from({ length: 20 }, (_, i) => `${i}@10`))
  })

  it('wait for one alarm of the clock, however many are set', () => {
    for (let i = 100; i > 0; i--) timers.set(i, note(String(i)))
    expect(clock.alarmCount).equal(1)
    clock.advance(100)
    expect(rung).length(100)
    expect(clock.alarmCount).equal(0)
  })

  it('let others ring when one sets itself again without delay', () => {
    const again = () => {
      if (rung.push('again') > 10) throw new Error('it holds the loop')
      timers.set(0, again)
    }
    timers.set(0, again)
    timers.set(0, note('other'))
    clock.ringNext()
    expect(rung).deep.equal(['again', 'other@0'])
    clock.ringNext()
    expect(rung).deep.equal(['again', 'other@0', 'again'])
  })

  it('leave the clock no alarm when the last one is cancelled', () => {
    const cancel = timers.set(10, note('a'))
    cancel()
    expect(clock.alarmCount).equal(0)
    cancel()
    expect(timers.size).equal(0)
  })

  it('ring for one that is set after the clock has been left without an alarm', () => {
    timers.set(10, note('a'))()
    timers.set(5, note('b'))
    clock.advance(5)
    expect(rung).deep.equal(['b@5'])
  })

  it('cancel nothing but their own timer, also after it has rung', () => {
    const cancel = timers.set(1, note('a'))
    timers.set(2, note('b'))
    clock.advance(1)
    cancel()
    clock.advance(1)
    expect(rung).deep.equal(['a@1', 'b@2'])
  })

  it('do not ring one that another, due at the same time, has just cancelled', () => {
    timers.set(1, () => cancel())
    const cancel = timers.set(1, note('cancelled'))
    clock.advance(1)
    expect(rung).deep.equal([])
  })

  it('lose no other when one throws', () => {
    timers.set(1, note('before'))
    timers.set(1, () => {
      throw new Error('a bug')
    })
    timers.set(1, note('after'))
    timers.set(2, note('later'))
    expect(() => clock.advance(1)).throw('a bug')
    clock.advance(2)
    expect(rung).deep.equal(['before@1', 'after@1', 'later@2'])
  })

  const now = {
    wallMs: () => clock.wallMs(),
    monotonicMs: () => clock.monotonicMs(),
    turn: () => clock.turn(),
  }

  it('ring no earlier than due when the clock rings too early', () => {
    const early: typeof clock.alarm = (delayMs, ring) => clock.alarm(delayMs / 2, ring)
    const hasty = new Timers({ ...now, alarm: early })
    hasty.set(8, note('a'))
    clock.advance(7)
    expect(rung).deep.equal([])
    // Half of what is left, each time: never quite there until the rest is too small to count.
    clock.advance(2)
    expect(rung).length(1)
    expect(Number(rung[0]!.slice(2))).within(8, 9)
  })

  it('wait for what lies further off than the timers of a system reach', () => {
    const delays: number[] = []
    const alarm: typeof clock.alarm = (delayMs, ring) => {
      delays.push(delayMs)
      return clock.alarm(delayMs, ring)
    }
    const far = new Timers({ ...now, alarm })
    far.set(2 ** 32, note('far'))
    const cancelNever = far.set(Number.POSITIVE_INFINITY, note('never'))
    clock.advance(2 ** 32 - 1)
    expect(rung).deep.equal([])
    clock.advance(1)
    expect(rung).deep.equal([`far@${2 ** 32}`])
    // Node rings one of 2^31 ms after a millisecond.
    expect(Math.max(...delays)).lessThan(2 ** 31)
    expect(delays.length).lessThan(10)
    cancelNever()
  })

  it('ring again and again until they are stopped, by themselves as well', () => {
    const stop = timers.every(10, note('tick'))
    let rounds = 0
    const stopItself = timers.every(15, () => {
      if (++rounds === 2) stopItself()
    })
    clock.advance(35)
    stop()
    clock.advance(100)
    expect(rung).deep.equal(['tick@10', 'tick@20', 'tick@30'])
    expect(rounds).equal(2)
    expect(timers.size).equal(0)
  })

  it('sleep as long as they are told', async () => {
    let awake = false
    const sleep = timers.sleep(100).then(() => {
      awake = true
    })
    clock.advance(99)
    await Promise.resolve()
    expect(awake).equal(false)
    clock.advance(1)
    await sleep
    expect(awake).equal(true)
  })
})
