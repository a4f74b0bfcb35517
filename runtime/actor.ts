/**
 * An actor: a state, a bounded mailbox, and a pure step that turns one message into a new state and effects.
 *
 *     post ──▶ mailbox ──▶ step(state, message, now) ──▶ new state
 *                                    └──▶ effects: reply, refuse, after, cancel ── done here
 *                                                  anything else ── done by the actor's `perform` (its tasks)
 *
 * Steps run to completion, one at a time, in the order of the mailbox. Supervision knows three outcomes: an expected
 * failure is an error reply, or the message a task answers with; a task that rejects is a bug, logged and counted; a
 * step that throws is a bug: the state is dropped and rebuilt by `init`, after a pause that grows.
 */
import { DfsError, type ErrorCode } from '../protocol/errors.ts'
import type { Log } from './log.ts'
import type { Timers } from './timers.ts'
import type { Cancel, Clock } from './world.ts'

/** Where an answer goes: opaque to steps. */
export interface ReplyTo<Reply> {
  resolve(reply: Reply): void
  reject(error: Error): void
}

/** What every actor can ask of the runtime. `key` names a timer: setting it again moves it. */
export type CommonEffect<Message> =
  | { readonly do: 'reply'; readonly to: ReplyTo<never>; readonly body: object }
  | { readonly do: 'refuse'; readonly to: ReplyTo<never>; readonly code: ErrorCode; readonly message?: string }
  | { readonly do: 'after'; readonly key: string; readonly delayMs: number; readonly message: Message }
  | { readonly do: 'cancel'; readonly key: string }

/** A new state and what to do about it. */
export type Step<State, Effect> = readonly [State, readonly Effect[]]

/** The deciding half of an actor: no I/O, no `await`, no clock, no randomness. */
export interface Behaviour<State, Message, Effect> {
  init(nowMs: number): Step<State, Effect | CommonEffect<Message>>
  step(state: State, message: Message, nowMs: number): Step<State, Effect | CommonEffect<Message>>
}

/**
 * The doing half: carries out one effect, and may answer with a message when it is done. It deals with its own
 * expected failures; a rejection or a throw is a bug of the task and is logged and counted.
 */
export type Perform<Message, Effect> = (
  effect: Effect,
) => Message | undefined | void | Promise<Message | undefined | void>

export interface ActorOptions {
  readonly name: string
  readonly clock: Clock
  readonly timers: Timers
  readonly log: Log
  /** Told when a step threw and the state was dropped. */
  readonly onRestart?: (error: unknown, restarts: number) => void
}

/** Messages waiting for one actor. Steps take microseconds: this many waiting means that something floods us. */
export const MAILBOX_MESSAGES_MAX = 4096

/** Pause before the first rebuild after a bug, doubled for each that follows soon, up to the last. */
const RESTART_PAUSE_MS = 100
const RESTART_PAUSE_MS_MAX = 10_000
/** A life this long is a success: the next bug starts at the first pause again. */
const RESTART_FORGIVEN_MS = 60_000

interface TypedMessage {
  readonly type: string
}

interface TypedEffect {
  readonly do: string
}

export class Actor<State, Message extends TypedMessage, Effect extends TypedEffect> {
  readonly #behaviour: Behaviour<State, Message, Effect>
  readonly #perform: Perform<Message, Effect>
  readonly #options: ActorOptions
  readonly #mailbox: Message[] = []
  readonly #alarms = new Map<string, Cancel>()
  #state: State | undefined
  #rebirth: Cancel | undefined
  #draining = false
  #stopped = false
  /** Counts the lives; a task of an earlier life must not speak into a later one. */
  #life = 0
  #bornMs = 0
  #restarts = 0
  #pauseMs = RESTART_PAUSE_MS
  #dropped = 0
  #failedTasks = 0

  constructor(behaviour: Behaviour<State, Message, Effect>, perform: Perform<Message, Effect>, options: ActorOptions) {
    this.#behaviour = behaviour
    this.#perform = perform
    this.#options = options
  }

  /** Begins the first life. Messages posted before wait in the mailbox. */
  start(): void {
    this.#live()
  }

  /** Ends it: timers are cancelled, what is in the mailbox is refused, tasks under way end unheard. */
  stop(): void {
    this.#stopped = true
    this.#state = undefined
    this.#life++
    this.#rebirth?.()
    this.#cancelAlarms()
    for (const message of this.#mailbox.splice(0)) refuse(message, hasStopped())
  }

  /** A view for those who decide nothing: statistics and connection tasks. Undefined while the actor is being rebuilt. */
  get state(): State | undefined {
    return this.#state
  }

  get stats(): { mailbox: number; dropped: number; restarts: number; failedTasks: number } {
    return {
      mailbox: this.#mailbox.length,
      dropped: this.#dropped,
      restarts: this.#restarts,
      failedTasks: this.#failedTasks,
    }
  }

  /** Puts an event into the mailbox; false, and counted, if the mailbox is full or the actor has stopped. */
  post(message: Message): boolean {
    if (this.#stopped || this.#mailbox.length >= MAILBOX_MESSAGES_MAX) {
      this.#dropped++
      return false
    }
    this.#mailbox.push(message)
    this.#drain()
    return true
  }

  /** Sends a request and waits for its reply. Rejects with a DfsError: `busy` if the mailbox is full, `unavailable` after a stop. */
  ask<Reply extends object>(make: (replyTo: ReplyTo<Reply>) => Message): Promise<Reply> {
    return new Promise((resolve, reject) => {
      if (this.post(make({ resolve, reject }))) return
      reject(this.#stopped ? hasStopped() : new DfsError('busy', 'the mailbox is full'))
    })
  }

  #live(): void {
    const { clock } = this.#options
    this.#life++
    this.#bornMs = clock.monotonicMs()
    // What an effect of the birth posts waits until all of them are carried out, as after a step.
    this.#draining = true
    try {
      this.#take(this.#behaviour.init(this.#bornMs))
    } catch (error) {
      this.#restart(error)
    } finally {
      this.#draining = false
    }
    this.#drain()
  }

  #drain(): void {
    // A step that posts to its own actor, or an effect that answers at once, finds us here and just queues.
    if (this.#draining) return
    this.#draining = true
    try {
      while (this.#state !== undefined) {
        const message = this.#mailbox.shift()
        if (message === undefined) break
        try {
          this.#take(this.#behaviour.step(this.#state, message, this.#options.clock.monotonicMs()))
        } catch (error) {
          refuse(message, new DfsError('internal', 'the actor failed on this request', { cause: error }))
          this.#restart(error)
        }
      }
    } finally {
      this.#draining = false
    }
  }

  #take([state, effects]: Step<State, Effect | CommonEffect<Message>>): void {
    this.#state = state
    for (const effect of effects) {
      try {
        this.#carryOut(effect)
      } catch (error) {
        this.#noteFailure(effect, error)
      }
    }
  }

  #carryOut(effect: Effect | CommonEffect<Message>): void {
    if (isCommon<Message>(effect)) {
      switch (effect.do) {
        case 'reply':
          ;(effect.to as ReplyTo<object>).resolve(effect.body)
          return
        case 'refuse':
          effect.to.reject(new DfsError(effect.code, effect.message))
          return
        case 'after':
          if (this.#stopped) return
          this.#alarms.get(effect.key)?.()
          this.#alarms.set(
            effect.key,
            this.#options.timers.set(effect.delayMs, () => {
              this.#alarms.delete(effect.key)
              this.post(effect.message)
            }),
          )
          return
        case 'cancel':
          this.#alarms.get(effect.key)?.()
          this.#alarms.delete(effect.key)
          return
      }
    }
    const life = this.#life
    const tell = (message: Message | undefined | void) => {
      if (message && life === this.#life) this.post(message)
    }
    const done = this.#perform(effect as Effect)
    if (done instanceof Promise) {
      done.then(tell, error => this.#noteFailure(effect, error))
    } else tell(done)
  }

  #noteFailure(effect: TypedEffect, error: unknown): void {
    this.#failedTasks++
    this.#options.log.error({ err: error, effect: effect.do }, 'a task failed')
  }

  #restart(error: unknown): void {
    const { clock, timers, log, name, onRestart } = this.#options
    this.#state = undefined
    this.#life++
    this.#restarts++
    this.#cancelAlarms()
    if (clock.monotonicMs() - this.#bornMs >= RESTART_FORGIVEN_MS) this.#pauseMs = RESTART_PAUSE_MS
    log.error({ err: error, restarts: this.#restarts, pauseMs: this.#pauseMs }, `actor ${name} failed and starts anew`)
    this.#rebirth = timers.set(this.#pauseMs, () => this.#live())
    this.#pauseMs = Math.min(this.#pauseMs * 2, RESTART_PAUSE_MS_MAX)
    onRestart?.(error, this.#restarts)
  }

  #cancelAlarms(): void {
    for (const cancel of this.#alarms.values()) cancel()
    this.#alarms.clear()
  }
}

function isCommon<Message>(effect: TypedEffect): effect is CommonEffect<Message> {
  return effect.do === 'reply' || effect.do === 'refuse' || effect.do === 'after' || effect.do === 'cancel'
}

function hasStopped(): DfsError {
  return new DfsError('unavailable', 'the actor has stopped')
}

function refuse(message: TypedMessage, error: DfsError): void {
  if ('replyTo' in message) (message.replyTo as ReplyTo<never>).reject(error)
}

/** For the end of a `switch` over all messages: forgetting one does not compile. */
export function unreachable(value: never): never {
  throw new Error(`unreachable: ${JSON.stringify(value)}`)
}
