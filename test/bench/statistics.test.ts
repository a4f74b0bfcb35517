import { expect } from 'chai'
import { median, pairRatios, percentile, spread } from '../../bench/statistics.ts'

describe('statistics of the bench', () => {
  it('takes the middle value, or half way between two, in any order', () => {
    expect(median([3, 1, 2])).equal(2)
    expect(median([10, 4, 1, 2])).equal(3)
    expect(median([7])).equal(7)
    expect(median([])).NaN
  })

  it('takes percentiles of sorted values, the last one for all of them', () => {
    const values = Array.from({ length: 100 }, (_, i) => i + 1)
    expect([0, 0.5, 0.99, 1].map(share => percentile(values, share))).deep.equal([1, 51, 100, 100])
    expect(percentile(Float64Array.of(5), 0.99)).equal(5)
    expect(percentile([], 0.5)).NaN
  })

  it('divides within pairs, not between medians', () => {
    const ratios = pairRatios([
      [10, 100],
      [300, 1000],
      [40, 200],
    ])
    expect(ratios.median).equal(0.2)
    expect(ratios.lowest).equal(0.1)
    expect(ratios.highest).equal(0.3)
    expect(spread([]).median).NaN
  })
})
