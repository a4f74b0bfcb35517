import { expect } from 'chai'
import { CoalescedSync } from '../../store/coalesced-sync.ts'
import { rejection } from './store-fixture.ts'

/** A sync whose runs end when told to. */
function controlled() {
  const runs: { end(): void; fail(error: Error): void }[] = []
  const sync = new CoalescedSync(
    () => new Promise((resolve, reject) => runs.push({ end: () => resolve(), fail: error => reject(error) })),
  )
  const settled = () => new Promise(resolve => setImmediate(resolve))
  return { runs, sync, settled }
}

describe('coalesced sync', () => {
  it('is shared by all who ask while one is under way, and is a later one', async () => {
    const { runs, sync, settled } = controlled()
    const first = sync.request()
    const others = [sync.request(), sync.request(), sync.request()]
    let ended = 0
    for (const other of others) void other.then(() => ended++)
    expect(runs).to.have.length(1)
    runs[0]!.end()
    await first
    await settled()
    expect(runs).to.have.length(2)
    expect(ended).to.equal(0)
    runs[1]!.end()
    await Promise.all(others)
  })

  it('fails those who waited for it, and nobody after them', async () => {
    const { runs, sync, settled } = controlled()
    const first = rejection(sync.request())
    const second = sync.request()
    runs[0]!.fail(new Error('EIO'))
    expect((await first).message).to.equal('EIO')
    await settled()
    runs[1]!.end()
    await second
  })
})
