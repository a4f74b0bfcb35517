import { expect } from 'chai'
import { syncLags } from '../../client/sync-lag.ts'
import { storageView } from '../bin/cluster-view.ts'

const at = (storageId: number, timeMs: number) => ({ storageId, epoch: 1, sequence: 1, timeMs })

describe('sync lag', () => {
  it('is the time between the last record of a source and the last one its peer has', () => {
    const lags = syncLags([
      storageView(1, { binlogEnd: { sequence: 9, timeMs: 10_000 }, positions: [at(2, 7_000)] }),
      storageView(2, { binlogEnd: { sequence: 5, timeMs: 7_000 }, positions: [at(1, 7_500)] }),
    ])
    expect(lags).to.deep.equal([
      { group: 'group1', source: 1, peer: 2, behindMs: 2_500 },
      { group: 'group1', source: 2, peer: 1, behindMs: 0 },
    ])
  })

  it('is what the source says of its peer, as long as it is online', () => {
    const said = {
      binlogEnd: { sequence: 9, timeMs: 10_000 },
      peers: [{ storageId: 2, records: 3, bytes: 99, behindMs: 700 }],
    }
    const peer = storageView(2, { positions: [at(1, 7_500)] })
    const pair = { group: 'group1', source: 1, peer: 2 }
    expect(syncLags([storageView(1, said), peer])[0]).to.deep.equal({ ...pair, behindMs: 700, records: 3, bytes: 99 })
    expect(syncLags([storageView(1, said, { online: false }), peer])[0]).to.deep.equal({ ...pair, behindMs: 2_500 })
  })

  it('is never negative, though the peer may have told its position later than the source its end', () => {
    const lags = syncLags([
      storageView(1, { binlogEnd: { sequence: 9, timeMs: 10_000 } }),
      storageView(2, { positions: [at(1, 11_000)] }),
    ])
    expect(lags[0]?.behindMs).to.equal(0)
  })

  it('is unknown for a peer that has nothing yet, and none for a source without files of its own', () => {
    const lags = syncLags([storageView(1, { binlogEnd: { sequence: 9, timeMs: 10_000 } }), storageView(2)])
    expect(lags.map(lag => lag.behindMs)).to.deep.equal([undefined, 0])
  })

  it('does not compare servers of different groups', () => {
    expect(syncLags([storageView(1), storageView(2, { group: 'group2' })])).to.deep.equal([])
  })
})
