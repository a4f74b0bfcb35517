/** Trying again: with growing, jittered pauses, and only what may succeed the next time. */
import { type DfsError, toDfsError } from '../protocol/errors.ts'
import type { Timers } from '../runtime/timers.ts'
import type { Random } from '../runtime/world.ts'

/** Pauses double from the first to the last; the jitter keeps many clients from coming back together. */
const PAUSE_MS = 50
const PAUSE_MS_MAX = 2_000

/** Another server may have room, but space does not come back in a moment. */
const NO_SPACE_ATTEMPTS_MAX = 4

export interface RetryOptions {
  readonly timers: Timers
  readonly random: Random
  readonly attemptsMax: number
  readonly signal?: AbortSignal | undefined
  /** Hears why an attempt failed that will be repeated. */
  readonly onRetry?: ((error: DfsError) => void) | undefined
}

/** Runs `attempt` until it succeeds, fails for good, or has been tried often enough. Attempts count from 0. */
export async function retry<T>(options: RetryOptions, attempt: (count: number) => Promise<T>): Promise<T> {
  for (let count = 0; ; count++) {
    options.signal?.throwIfAborted()
    try {
      return await untilAborted(options.signal, attempt(count))
    } catch (thrown) {
      options.signal?.throwIfAborted()
      const error: DfsError = toDfsError(thrown)
      // Never more than the caller allows: a stream that has been sent once is empty the second time.
      const codeMax = error.code === 'no_space' ? NO_SPACE_ATTEMPTS_MAX : Number.POSITIVE_INFINITY
      const attemptsMax = Math.min(options.attemptsMax, codeMax)
      if (!error.retryable || thrown instanceof LocalError || count + 1 >= attemptsMax) throw thrown
      options.onRetry?.(error)
      const pauseMs = Math.min(PAUSE_MS * 2 ** count, PAUSE_MS_MAX)
      await untilAborted(options.signal, options.timers.sleep(pauseMs / 2 + options.random.below(pauseMs)))
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
