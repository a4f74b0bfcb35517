import { expect } from 'chai'
import { LocalError, retry } from '../../client/retry.ts'
import { DfsError, type ErrorCode } from '../../protocol/errors.ts'
import { Timers } from '../../runtime/timers.ts'
import { VirtualClock } from '../virtual-clock.ts'

/** Fails every time; counts how often it was tried, moving the clock through the pauses. */
async function attemptsAt(failure: Error, attemptsMax: number): Promise<{ count: number; told: string[] }> {
  const clock = new VirtualClock()
  const told: string[] = []
  let count = 0
  const options = {
    timers: new Timers(clock),
    random: { bytes: (bytes: number) => Buffer.alloc(bytes), below: () => 0 },
    attemptsMax,
    onRetry: (error: DfsError) => told.push(error.code),
  }
  const thrown = retry(options, async () => {
    count++
    throw failure
  }).catch((error: unknown) => error)
  let isOver = false
  void thrown.then(() => {
    isOver = true
  })
  while (!isOver) {
    await new Promise(setImmediate)
    clock.ringNext()
  }
  expect(await thrown).to.equal(failure)
  return { count, told }
}

const codes = (code: ErrorCode, count: number) => Array.from({ length: count }, () => code)

describe('trying again', () => {
  it('ends after as many attempts as allowed, and tells of each that is repeated', async () => {
    expect(await attemptsAt(new DfsError('busy'), 6)).to.deep.equal({ count: 6, told: codes('busy', 5) })
  })

  it('does not repeat what cannot succeed, nor a failure of our own file', async () => {
    expect((await attemptsAt(new DfsError('not_found'), 6)).count).to.equal(1)
    expect((await attemptsAt(new LocalError('cannot read it', { cause: undefined }), 6)).count).to.equal(1)
  })

  it('gives up sooner when there is no space', async () => {
    expect((await attemptsAt(new DfsError('no_space'), 20)).count).to.equal(4)
  })

  it('never repeats for lack of space what may be tried but once: a stream is empty the second time', async () => {
    expect((await attemptsAt(new DfsError('no_space'), 1)).count).to.equal(1)
  })

  it('does not wait out a pause after an abort', async () => {
    const controller = new AbortController()
    const options = {
      timers: new Timers(new VirtualClock()),
      random: { bytes: (bytes: number) => Buffer.alloc(bytes), below: () => 0 },
      attemptsMax: 5,
      signal: controller.signal,
      // The pause begins after this.
      onRetry: () => setImmediate(() => controller.abort(new Error('enough'))),
    }
    const failing = retry(options, () => Promise.reject(new DfsError('busy')))
    expect(await failing.catch((error: Error) => error.message)).to.equal('enough')
  })
})
