/** Trying again: with growing, jittered pauses, and only what may succeed the next time. */
import { type DfsError, toDfsError } from '../protocol/errors.ts'
import type { Timers } from '../runtime/timers.ts'
import type { Clock, Random } from '../runtime/world.ts'

/** Pauses double from the first to the last; the jitter keeps many clients from coming back together. */
const PAUSE_MS = 50
const PAUSE_MS_MAX = 2_000

/** After this long no further attempt begins: a cluster restarts whatever died in less. */
const GIVE_UP_MS = 30_000

/** Another server may have room, but space does not come back in a moment. */
const NO_SPACE_ATTEMPTS_MAX = 4

export interface RetryOptions {
  readonly timers: Timers
  readonly clock: Clock
  readonly random: Random
  /** Whether another attempt would do the same: a stream that has been read is empty the second time. */
  readonly isRepeatable?: (() => boolean) | undefined
  readonly signal?: AbortSignal | undefined
  /** Hears why an attempt failed that will be repeated. */
  readonly onRetry?: ((error: DfsError) => void) | undefined
}

/** Runs `attempt` until it succeeds, fails for good, or has been tried for long enough. Attempts count from 0. */
export async function retry<T>(options: RetryOptions, attempt: (count: number) => Promise<T>): Promise<T> {
  const { timers, clock, random, signal, isRepeatable = () => true } = options
  const giveUpMs = clock.monotonicMs() + GIVE_UP_MS
  for (let count = 0; ; count++) {
    signal?.throwIfAborted()
    try {
      return await untilAborted(signal, attempt(count))
    } catch (thrown) {
      signal?.throwIfAborted()
      const error: DfsError = toDfsError(thrown)
      const isFull = error.code === 'no_space' && count + 1 >= NO_SPACE_ATTEMPTS_MAX
      // An `ack_timeout` has waited for as long as the caller said.
      const isOver = clock.monotonicMs() >= giveUpMs || error.code === 'ack_timeout'
      if (!error.retryable || thrown instanceof LocalError || isFull || isOver || !isRepeatable()) throw thrown
      options.onRetry?.(error)
      const pauseMs = Math.min(PAUSE_MS * 2 ** count, PAUSE_MS_MAX)
      await untilAborted(signal, timers.sleep(pauseMs / 2 + random.below(pauseMs)))
    }
  }
}

/** A failure of the caller's own file or stream, which no other server will mend. */
export class LocalError extends Error {
  constructor(message: string, options: { cause: unknown }) {
    super(message, options)
    this.name = 'LocalError'
  }
}

/** Rejects as soon as the signal says so, whatever the work is waiting for. */
function untilAborted<T>(signal: AbortSignal | undefined, work: Promise<T>): Promise<T> {
  if (signal === undefined) return work
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason)
    signal.addEventListener('abort', abort, { once: true })
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort))
  })
}
