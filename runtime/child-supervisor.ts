/**
 * Keeps child processes running: starts them, notices when they are ready, starts them again when they end.
 *
 *     start -> running -> ready -> ended -> back-off -> start ...
 *                  '-> ended: the first start failed, the caller is told and nothing is tried again
 *
 * A child says that it is ready with a line of JSON on stdout, `{"ready":true,...}`.
 */
import type { Timers } from './timers.ts'
import type { Cancel, ChildProcess, World } from './world.ts'

/** The first wait before a restart; doubled with every failure, and jittered so that children do not start in step. */
const BACKOFF_MIN_MS = 100
/** A child that cannot stay up is tried this often for ever: its trouble may end without us being told. */
const BACKOFF_MAX_MS = 10_000
/** A child that was ready for this long has recovered: the next failure is a new one. */
const HEALTHY_MS = 60_000
/** A storage server finishes its flush and closes its connections in this time, or something is wrong with its disk. */
const STOP_MS = 10_000
/** Enough to show a stack trace in an error message. */
const LAST_LINES = 20

/** What to run and how. */
export interface ChildPlan {
  readonly program: string
  readonly args: readonly string[]
  readonly environment?: Readonly<Record<string, string>>
  /** Asks the child to end; SIGTERM if not given. */
  readonly stopSignal?: 'SIGTERM' | 'SIGINT'
  /** Runs before every start; a rejection is a start that failed. */
  readonly beforeStart?: () => Promise<void>
  /**
   * Resolves when the child is ready, for children that print no ready line. A rejection ends the child.
   * `running()` turns false when it ended: waiting on is in vain.
   */
  readonly whenReady?: (pid: number, running: () => boolean) => Promise<ReadyReport>
}

/** What a child said when it was ready. */
export type ReadyReport = Readonly<Record<string, unknown>>

/** What the owner of a supervisor is told. All are optional, none may throw. */
export interface ChildEvents {
  /** The child runs with this pid, or has ended. */
  readonly onChange?: (name: string, pid: number | undefined) => void
  /** The child is ready; again after every restart. */
  readonly onReady?: (name: string, report: ReadyReport) => void
  readonly onLine?: (name: string, line: string, stream: 'stdout' | 'stderr') => void
}

/** What is known of a supervised child. */
export interface ChildStatus {
  readonly pid: number | undefined
  readonly ready: boolean
  readonly restarts: number
}

interface Child {
  readonly name: string
  readonly plan: ChildPlan
  process: ChildProcess | undefined
  ready: boolean
  restarts: number
  /** Failures since the child was last healthy. */
  failures: number
  /** Ends the wait for it to become healthy. */
  unhealthy: Cancel
  /** What it printed last: why it ended, most likely. */
  lastLines: string[]
  stopping: boolean
  /** Ends the wait before the next start. */
  wake: () => void
  /** Resolves when the child has ended for good. */
  done: Promise<void>
  /** Settles the promise of `start`. */
  readonly firstReady: { resolve(report: ReadyReport): void; reject(error: Error): void }
}

export class ChildSupervisor {
  readonly #world: Pick<World, 'processes' | 'random'>
  readonly #timers: Timers
  readonly #events: ChildEvents
  readonly #children = new Map<string, Child>()

  constructor(world: Pick<World, 'processes' | 'random'>, timers: Timers, events: ChildEvents = {}) {
    this.#world = world
    this.#timers = timers
    this.#events = events
  }

  /**
   * Starts a child and keeps it running until `stop`. Resolves with its report when it is ready for the first time.
   * Rejects if it ends before that: it is not tried again, for it is more likely misconfigured than unlucky.
   */
  start(name: string, plan: ChildPlan): Promise<ReadyReport> {
    if (this.#children.has(name)) return Promise.reject(new Error(`${name} is already supervised`))
    return new Promise((resolve, reject) => {
      const child: Child = {
        name,
        plan,
        process: undefined,
        ready: false,
        restarts: 0,
        failures: 0,
        unhealthy: () => {},
        lastLines: [],
        stopping: false,
        wake: () => {},
        done: Promise.resolve(),
        firstReady: { resolve, reject },
      }
      this.#children.set(name, child)
      child.done = this.#keep(child)
    })
  }

  /** Undefined for a child that is not supervised, or no longer. */
  status(name: string): ChildStatus | undefined {
    const child = this.#children.get(name)
    return child && { pid: child.process?.pid, ready: child.ready, restarts: child.restarts }
  }

  /** Ends one child, or all of them, by signal and after a while by SIGKILL. Resolves when they are gone. */
  async stop(name?: string): Promise<void> {
    const children = [...this.#children.values()].filter(child => name === undefined || child.name === name)
    await Promise.all(children.map(child => this.#stop(child)))
  }

  async #stop(child: Child): Promise<void> {
    child.stopping = true
    child.wake()
    child.process?.kill(child.plan.stopSignal ?? 'SIGTERM')
    const cancel = this.#timers.set(STOP_MS, () => child.process?.kill('SIGKILL'))
    await child.done
    cancel()
  }

  async #keep(child: Child): Promise<void> {
    let wasReady = false
    for (;;) {
      const ended = await this.#run(child)
      wasReady ||= child.ready
      child.ready = false
      if (child.stopping || !wasReady) {
        child.firstReady.reject(new Error([`${child.name} ${ended}`, ...child.lastLines].join('\n')))
        break
      }
      this.#say(child, `${child.name} ${ended}; restarting`)
      await this.#backOff(child)
      if (child.stopping) break
      child.restarts += 1
    }
    this.#children.delete(child.name)
  }

  /** Runs the child once; resolves with how it ended. */
  async #run(child: Child): Promise<string> {
    const { plan } = child
    child.lastLines = []
    try {
      await plan.beforeStart?.()
    } catch (error) {
      return `could not be started: ${messageOf(error)}`
    }
    if (child.stopping) return 'was stopped before it was started'
    const process = this.#world.processes.spawn(plan.program, plan.args, {
      environment: plan.environment ?? {},
      onLine: (line, stream) => this.#line(child, line, stream),
    })
    child.process = process
    let reason = ''
    if (process.pid > 0) {
      this.#events.onChange?.(child.name, process.pid)
      plan
        .whenReady?.(process.pid, () => child.process === process)
        .then(
          report => child.process === process && this.#ready(child, report),
          error => {
            reason = `: ${messageOf(error)}`
            process.kill('SIGKILL')
          },
        )
    }
    const exit = await process.exited
    child.unhealthy()
    child.process = undefined
    if (process.pid > 0) this.#events.onChange?.(child.name, undefined)
    return `ended with ${exit.signal ?? `code ${exit.code}`}${reason}`
  }

  #ready(child: Child, report: ReadyReport): void {
    child.ready = true
    child.unhealthy = this.#timers.set(HEALTHY_MS, () => {
      child.failures = 0
    })
    child.firstReady.resolve(report)
    this.#events.onReady?.(child.name, report)
  }

  #line(child: Child, line: string, stream: 'stdout' | 'stderr'): void {
    const report =
      stream === 'stdout' && !child.ready && child.plan.whenReady === undefined ? readyReport(line) : undefined
    if (report !== undefined) {
      this.#ready(child, report)
      return
    }
    child.lastLines.push(line)
    if (child.lastLines.length > LAST_LINES) child.lastLines.shift()
    this.#events.onLine?.(child.name, line, stream)
  }

  #say(child: Child, line: string): void {
    this.#events.onLine?.(child.name, line, 'stderr')
  }

  #backOff(child: Child): Promise<void> {
    const delayMs = Math.min(BACKOFF_MAX_MS, BACKOFF_MIN_MS * 2 ** child.failures)
    child.failures += 1
    return new Promise(resolve => {
      const cancel = this.#timers.set(delayMs / 2 + this.#world.random.below(delayMs / 2), resolve)
      child.wake = () => {
        cancel()
        resolve()
      }
    })
  }
}

function readyReport(line: string): ReadyReport | undefined {
  if (!line.startsWith('{')) return undefined
  try {
    const value = JSON.parse(line) as ReadyReport
    return value.ready === true ? value : undefined
  } catch {
    // A line that only looks like JSON is a line of the log like any other.
    return undefined
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
