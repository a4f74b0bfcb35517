import { expect } from 'chai'
import { Silence } from '../../runtime/silence.ts'

describe('silence', () => {
  it('is too long when nothing has moved for longer than the patience', () => {
    const silence = new Silence()
    expect([0, 500, 1_000, 1_500].map(nowMs => silence.isTooLong(nowMs, 7, 1_000))).deep.equal([
      false,
      false,
      false,
      true,
    ])
  })

  it('begins anew with every byte, and where the patience is another', () => {
    const silence = new Silence()
    expect(silence.isTooLong(0, 7, 1_000)).equal(false)
    expect(silence.isTooLong(1_500, 8, 1_000)).equal(false)
    expect(silence.isTooLong(3_000, 8, 500)).equal(false)
    expect(silence.isTooLong(3_600, 8, 500)).equal(true)
  })

  it('is never too long while nothing is waited for', () => {
    const silence = new Silence()
    for (const nowMs of [0, 1e6, 1e12]) expect(silence.isTooLong(nowMs, 7, Number.POSITIVE_INFINITY)).equal(false)
  })
})
