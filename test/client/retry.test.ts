import { expect } from 'chai'
import { LocalError, retry } from '../../client/retry.ts'
import { DfsError, type ErrorCode } from '../../protocol/errors.ts'
import { Timers } from '../../runtime/timers.ts'
import { VirtualClock } from '../virtual-clock.ts'

/** Fails every time; counts how often it was tried and for how long, moving the clock through the pauses. */
async function attemptsAt(failure: Error, isRepeatable = () => true) {
  const clock = new VirtualClock()
  const startMs = clock.monotonicMs()
  const told: string[] = []
  let count = 0
  const options = {
    timers: new Timers(clock),
    clock,
    random: { bytes: (bytes: number) => Buffer.alloc(bytes), below: () => 0 },
    isRepeatable,
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
  return { count, told, tookMs: clock.monotonicMs() - startMs }
}

const codes = (code: ErrorCode, count: number) => Array.from({ length: count }, () => code)

describe('trying again', () => {
  it('ends after half a minute, and tells of each attempt that is repeated', async () => {
    const { count, told, tookMs } = await attemptsAt(new DfsError('busy'))
    expect(told).to.deep.equal(codes('busy', count - 1))
    expect(tookMs).to.be.within(30_000, 33_000)
  })

  it('does not repeat what cannot succeed, nor a failure of our own file', async () => {
    expect((await attemptsAt(new DfsError('not_found'))).count).to.equal(1)
    expect((await attemptsAt(new LocalError('cannot read it', { cause: undefined }))).count).to.equal(1)
  })

  it('gives up sooner when there is no space', async () => {
    expect((await attemptsAt(new DfsError('no_space'))).count).to.equal(4)
  })

  it('never repeats what would not be the same: a stream is empty the second time', async () => {
    expect((await attemptsAt(new DfsError('no_space'), () => false)).count).to.equal(1)
  })

  it('leaves it to the caller to wait again for an upload that few members hold', async () => {
    expect((await attemptsAt(new DfsError('ack_timeout'))).count).to.equal(1)
  })

  it('does not wait out a pause after an abort', async () => {
    const controller = new AbortController()
    const clock = new VirtualClock()
    const options = {
      timers: new Timers(clock),
      clock,
      random: { bytes: (bytes: number) => Buffer.alloc(bytes), below: () => 0 },
      signal: controller.signal,
      // The pause begins after this.
      onRetry: () => setImmediate(() => controller.abort(new Error('enough'))),
    }
    const failing = retry(options, () => Promise.reject(new DfsError('busy')))
    expect(await failing.catch((error: Error) => error.message)).to.equal('enough')
  })
})
