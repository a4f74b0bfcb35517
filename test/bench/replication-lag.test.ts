import { expect } from 'chai'
import { lagMs, type Member } from '../../bench/replication-lag.ts'

describe('replication lag', () => {
  const member = (storageId: number, timeMs: number, peerTimeMs: number, markSequence = 0): Member => ({
    report: {
      ...{ storageId, epoch: 1, binlogEnd: { sequence: 10, timeMs } },
      positions: [{ storageId: 3 - storageId, epoch: 1, sequence: 1, timeMs: peerTimeMs }],
    },
    served: [{ storageId: 3 - storageId, mark: { epoch: 1, sequence: markSequence } }],
  })

  it('is that of the member that is further behind', () => {
    expect(lagMs([member(1, 5000, 700), member(2, 700, 2000)])).equal(3000)
    expect(lagMs([member(1, 5000, 0), member(2, 900, 5000)])).equal(900)
  })

  it('is none once the peer has everything, or there is nothing', () => {
    expect(lagMs([member(1, 5000, 700), member(2, 700, 5000)])).equal(0)
    expect(lagMs([member(1, 0, 0), member(2, 0, 0)])).equal(0)
  })

  it('is none if what is left is not for peers', () => {
    expect(lagMs([member(1, 9000, 700, 10), member(2, 700, 5000)])).equal(0)
  })
})
