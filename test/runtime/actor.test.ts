import { expect } from 'chai'
import { DfsError } from '../../protocol/errors.ts'
import {
  Actor,
  type Behaviour,
  type CommonEffect,
  MAILBOX_MESSAGES_MAX,
  type Perform,
  type ReplyTo,
} from '../../runtime/actor.ts'
import { silentLog } from '../../runtime/log.ts'
import { Timers } from '../../runtime/timers.ts'
import { VirtualClock } from '../virtual-clock.ts'

/** A message that says itself what is to be done about it. */
interface Message {
  readonly type: 'do'
  readonly name: string
  readonly effects?: readonly (Effect | CommonEffect<Message>)[]
  readonly crash?: boolean
  readonly replyTo?: ReplyTo<{ name: string }>
}

/** A task, by its name. */
interface Effect {
  readonly do: 'task'
  readonly name: string
}

/** The names of the messages that were taken in this life. */
type State = readonly string[]

const task = (name: string): Effect => ({ do: 'task', name })
const message = (name: string, ...effects: (Effect | CommonEffect<Message>)[]): Message => ({
  type: 'do',
  name,
  effects,
})
const crash: Message = { type: 'do', name: 'crash', crash: true }

function behaviour(...atBirth: (Effect | CommonEffect<Message>)[]): Behaviour<State, Message, Effect> {
  return {
    init: () => [[], atBirth],
    step(state, { name, crash, effects = [], replyTo }) {
      if (crash) throw new Error(`crash on ${name}`)
      return [[...state, name], replyTo ? [...effects, { do: 'reply', to: replyTo, body: { name } }] : effects]
    },
  }
}

describe('an actor', () => {
  let clock: VirtualClock
  let timers: Timers
  /** What the actor did outside itself, in order. */
  let done: string[]
  let restarts: number[]

  beforeEach(() => {
    clock = new VirtualClock()
    timers = new Timers(clock)
    done = []
    restarts = []
  })

  function make(
    perform: Perform<Message, Effect> = ({ name }) => void done.push(name),
    how = behaviour(),
  ): Actor<State, Message, Effect> {
    const onRestart = (_: unknown, count: number) => void restarts.push(count)
    return new Actor(how, perform, { name: 'test', clock, timers, log: silentLog(), onRestart })
  }

  function started(...args: Parameters<typeof make>): Actor<State, Message, Effect> {
    const actor = make(...args)
    actor.start()
    return actor
  }

  const ask = (actor: Actor<State, Message, Effect>, more: Partial<Message> = {}) =>
    actor.ask<{ name: string }>(replyTo => ({ type: 'do', name: 'asked', ...more, replyTo }))

  describe('takes messages', () => {
    it('in the order of its mailbox, those of the time before its start first', () => {
      const actor = make()
      actor.post(message('a'))
      actor.post(message('b'))
      expect(actor.stats.mailbox).equal(2)
      expect(actor.state).equal(undefined)
      actor.start()
      actor.post(message('c'))
      expect(actor.state).deep.equal(['a', 'b', 'c'])
      expect(actor.stats.mailbox).equal(0)
    })

    it('one at a time: what a task posts in between waits until all effects are carried out', () => {
      const actor: Actor<State, Message, Effect> = started(({ name }) => {
        done.push(name)
        if (name === 'first') actor.post(message('inner', task('third')))
      })
      actor.post(message('outer', task('first'), task('second')))
      expect(done).deep.equal(['first', 'second', 'third'])
      expect(actor.state).deep.equal(['outer', 'inner'])
    })

    it('only after all effects of its birth', () => {
      const tasks = ['first', 'second']
      const actor = make(
        ({ name }) => {
          done.push(name)
          return tasks.includes(name) ? message(`after ${name}`, task(`${name} is done`)) : undefined
        },
        behaviour(task('first'), task('second')),
      )
      actor.post(message('early', task('early')))
      actor.start()
      expect(done).deep.equal(['first', 'second', 'early', 'first is done', 'second is done'])
    })

    it('that a task answers with, at once or later', async () => {
      const actor = started(({ name }) => {
        const answer = message(`after ${name}`)
        return name === 'slow' ? Promise.resolve(answer) : answer
      })
      actor.post(message('a', task('slow'), task('fast')))
      expect(actor.state).deep.equal(['a', 'after fast'])
      await Promise.resolve()
      expect(actor.state).deep.equal(['a', 'after fast', 'after slow'])
    })

    it('a hundred thousand in a chain without a stack that grows', () => {
      let left = 100_000
      const actor: Actor<State, Message, Effect> = started(
        () => (left-- > 0 ? message('again', task('again')) : undefined),
        { init: () => [[], []], step: (_, { effects = [] }) => [[], effects] },
      )
      actor.post(message('go', task('again')))
      expect(left).equal(-1)
    })
  })

  describe('has a bounded mailbox', () => {
    it('that takes no event when full, and counts it', () => {
      const actor = make()
      for (let i = 0; i < MAILBOX_MESSAGES_MAX; i++) expect(actor.post(message(String(i)))).equal(true)
      expect(actor.post(message('too many'))).equal(false)
      expect(actor.stats).deep.include({ mailbox: MAILBOX_MESSAGES_MAX, dropped: 1 })
      actor.start()
      expect(actor.state).length(MAILBOX_MESSAGES_MAX)
      expect(actor.post(message('now there is room'))).equal(true)
    })

    it('that answers requests with busy when full', async () => {
      const actor = make()
      for (let i = 0; i < MAILBOX_MESSAGES_MAX; i++) actor.post(message(String(i)))
      expect(await codeOf(ask(actor))).equal('busy')
    })
  })

  describe('answers', () => {
    it('a request with the body of its reply', async () => {
      expect(await ask(started())).deep.equal({ name: 'asked' })
    })

    it('a refused request with its code and its reason, or the reason of the code', async () => {
      const actor = started()
      const refuse = (reason?: string) =>
        actor.ask(to => message('a', { do: 'refuse', to, code: 'no_space', ...(reason ? { message: reason } : {}) }))
      const told = (await errorOf(refuse('all full'))) as DfsError
      expect(told).instanceOf(DfsError).include({ code: 'no_space', message: 'all full' })
      const untold = (await errorOf(refuse())) as DfsError
      expect(untold.message).equal(new DfsError('no_space').message)
    })

    it('goes on when a listener to its replies throws', () => {
      const actor = started()
      const to: ReplyTo<never> = {
        resolve: () => {
          throw new Error('the bus is gone')
        },
        reject: () => undefined,
      }
      actor.post(message('a', { do: 'reply', to, body: {} }, task('next')))
      expect(done).deep.equal(['next'])
      expect(actor.state).deep.equal(['a'])
      expect(actor.stats).deep.include({ restarts: 0, failedTasks: 1 })
    })
  })

  describe('sets timers', () => {
    const timer = (key: string, delayMs: number, name: string): CommonEffect<Message> => ({
      do: 'after',
      key,
      delayMs,
      message: message(name),
    })

    it('that come back as messages', () => {
      const actor = started()
      actor.post(message('a', timer('tick', 10, 'tick')))
      clock.advance(9)
      expect(actor.state).deep.equal(['a'])
      clock.advance(1)
      expect(actor.state).deep.equal(['a', 'tick'])
    })

    it('of which one with the same key takes the place of the former', () => {
      const actor = started()
      actor.post(message('a', timer('k', 10, 'former'), timer('other', 10, 'other')))
      clock.advance(5)
      actor.post(message('b', timer('k', 10, 'latter')))
      clock.advance(5)
      expect(actor.state).deep.equal(['a', 'b', 'other'])
      clock.advance(5)
      expect(actor.state).deep.equal(['a', 'b', 'other', 'latter'])
    })

    it('that can be cancelled by key, and cancelled again', () => {
      const actor = started()
      actor.post(message('a', timer('k', 10, 'never'), { do: 'cancel', key: 'k' }, { do: 'cancel', key: 'k' }))
      clock.advance(20)
      expect(actor.state).deep.equal(['a'])
      expect(timers.size).equal(0)
    })

    it('that set themselves again under their own key', () => {
      const actor = started(undefined, {
        init: () => [[], [timer('tick', 10, 'tick')]],
        step: (state, { name }) => [[...state, name], [timer('tick', 10, 'tick')]],
      })
      clock.advance(35)
      expect(actor.state).deep.equal(['tick', 'tick', 'tick'])
    })
  })

  describe('that fails in a step', () => {
    it('refuses that request with internal and keeps the cause', async () => {
      const error = (await errorOf(ask(started(), { crash: true }))) as DfsError
      expect(error.code).equal('internal')
      expect(error.cause).instanceOf(Error).property('message', 'crash on asked')
    })

    it('drops its state and is born again after a pause, then takes what waited', async () => {
      const births: number[] = []
      const actor = started(undefined, {
        ...behaviour(),
        init: nowMs => {
          births.push(nowMs)
          return [[], []]
        },
      })
      actor.post(message('a'))
      actor.post(crash)
      expect(actor.state).equal(undefined)
      const answer = ask(actor)
      actor.post(message('b'))
      expect(actor.stats).deep.include({ mailbox: 2, restarts: 1 })
      clock.advance(99)
      expect(actor.state).equal(undefined)
      clock.advance(1)
      expect(actor.state).deep.equal(['asked', 'b'])
      expect(await answer).deep.equal({ name: 'asked' })
      expect(births).deep.equal([0, 100])
      expect(restarts).deep.equal([1])
    })

    it('waits longer each time, up to ten seconds, and forgives after a minute of life', () => {
      const actor = started()
      const pauses = Array.from({ length: 9 }, () => pauseAfterCrash(actor))
      expect(pauses).deep.equal([100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000])
      clock.advance(59_000)
      expect(pauseAfterCrash(actor)).equal(10_000)
      clock.advance(60_000)
      expect(pauseAfterCrash(actor)).equal(100)
      expect(actor.stats.restarts).equal(11)
      expect(restarts).deep.equal([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])
    })

    it('tries again when its birth fails too', () => {
      let births = 0
      const actor = started(undefined, {
        ...behaviour(),
        init: () => {
          births++
          if (births < 3) throw new Error('not yet')
          return [['born'], []]
        },
      })
      actor.post(message('a'))
      clock.advance(100)
      expect(births).equal(2)
      clock.advance(200)
      expect(actor.state).deep.equal(['born', 'a'])
    })

    it('hears no task and no timer of its former life', async () => {
      let finish: (answer: Message) => void = () => undefined
      const actor = started(() => new Promise<Message>(resolve => (finish = resolve)))
      actor.post(message('a', task('slow'), { do: 'after', key: 'k', delayMs: 500, message: message('timer') }))
      actor.post(crash)
      clock.advance(100)
      finish(message('late'))
      await Promise.resolve()
      clock.advance(1_000)
      expect(actor.state).deep.equal([])
    })

    function pauseAfterCrash(actor: Actor<State, Message, Effect>): number {
      actor.post(crash)
      const startMs = clock.monotonicMs()
      while (actor.state === undefined) clock.ringNext()
      return clock.monotonicMs() - startMs
    }
  })

  describe('whose task fails', () => {
    it('goes on and counts it, whether the task rejects or throws', async () => {
      const actor = started(({ name }) => {
        if (name === 'throws') throw new Error('a bug')
        if (name === 'rejects') return Promise.reject(new Error('a bug'))
        done.push(name)
        return undefined
      })
      actor.post(message('a', task('rejects'), task('throws'), task('last')))
      await Promise.resolve()
      expect(done).deep.equal(['last'])
      expect(actor.state).deep.equal(['a'])
      expect(actor.stats).deep.equal({ mailbox: 0, dropped: 0, restarts: 0, failedTasks: 2 })
    })
  })

  describe('that stops', () => {
    it('refuses what waits, and all that comes later, as unavailable', async () => {
      const actor = make()
      const waiting = ask(actor)
      actor.post(message('event'))
      actor.stop()
      expect(await codeOf(waiting)).equal('unavailable')
      expect(await codeOf(ask(actor))).equal('unavailable')
      expect(actor.post(message('late'))).equal(false)
      expect(actor.state).equal(undefined)
    })

    it('leaves no timer behind', () => {
      const actor = started()
      actor.post(message('a', { do: 'after', key: 'k', delayMs: 5, message: message('timer') }))
      actor.stop()
      expect(timers.size).equal(0)
    })

    it('leaves no timer behind while it waits to be born again, and is not', () => {
      const actor = started()
      actor.post(crash)
      actor.stop()
      expect(timers.size).equal(0)
      clock.advance(20_000)
      expect(actor.state).equal(undefined)
    })

    it('leaves no timer behind when one of its own tasks stops it', () => {
      const actor: Actor<State, Message, Effect> = started(() => actor.stop())
      actor.post(message('a', task('stop'), { do: 'after', key: 'k', delayMs: 5, message: message('timer') }))
      expect(timers.size).equal(0)
      expect(actor.state).equal(undefined)
    })

    it('hears no task that was under way', async () => {
      let finish: (answer: Message) => void = () => undefined
      const actor = started(() => new Promise<Message>(resolve => (finish = resolve)))
      actor.post(message('a', task('slow')))
      actor.stop()
      finish(message('late'))
      await Promise.resolve()
      expect(actor.state).equal(undefined)
      expect(actor.stats).deep.include({ mailbox: 0, dropped: 0 })
    })
  })
})

async function errorOf(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    value => expect.fail(`resolved with ${JSON.stringify(value)}`),
    error => error,
  )
}

async function codeOf(promise: Promise<unknown>): Promise<string> {
  return ((await errorOf(promise)) as DfsError).code
}
