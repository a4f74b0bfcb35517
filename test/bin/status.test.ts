import { expect } from 'chai'
import { formatStatus } from '../../bin/status.ts'
import { syncLags } from '../../client/sync-lag.ts'
import { clusterStatus, storageView } from './cluster-view.ts'

const shown = (status = clusterStatus()) => formatStatus(status, syncLags(status.storages))

describe('dfs status', () => {
  it('shows who is there, the groups and the storage servers', () => {
    const storages = [
      storageView(1, { binlogEnd: { sequence: 42, timeMs: 100_000 } }),
      storageView(
        2,
        { positions: [{ storageId: 1, epoch: 1, sequence: 40, timeMs: 96_600 }] },
        { online: false, beatAgeMs: 34_000 },
      ),
    ]
    expect(shown(clusterStatus({ storages }))).to.equal(`\
natsdfs   0.1.0, as tracker-1 sees it
NATS      2.12.6, JetStream on
trackers  tracker-1 (10.0.0.9:22122)
gateways  gateway-1

GROUP   ONLINE  FREE      TOTAL
group1  2 of 2  49.0 GiB  100 GiB

ID  GROUP   ADDRESS         STATUS                        FREE      IN SLOTS  TOTAL    UPLOADS  DOWNLOADS  DELETES  BINLOG  PEERS BEHIND
1   group1  10.0.0.1:23001  active                        50.0 GiB  0 B       100 GiB  7        1234       0        42      2: 3.4 s behind
2   group1  10.0.0.1:23002  OFFLINE, last heard 34 s ago  50.0 GiB  0 B       100 GiB  7        1234       0        0       1: in sync
`)
  })

  it('shows what the peers lack, as their source says', () => {
    const lacking = { storageId: 2, records: 1200, bytes: 4_915_200, behindMs: 12_000 }
    const level = { storageId: 3, records: 0, bytes: 0, behindMs: 0 }
    const storages = [storageView(1, { peers: [lacking, level] }), storageView(2), storageView(3)]
    expect(shown(clusterStatus({ storages }))).to.contain('2: 1200 records, 4.7 MiB, 12 s behind, 3: in sync')
  })

  it('begins with a warning when the view is stale', () => {
    expect(shown(clusterStatus({ stale: true }))).to.match(/^STALE: tracker-1 has not heard anybody/)
  })

  it('says why a storage server takes no uploads', () => {
    const storages = [storageView(1, { status: 'readonly', reason: 'no store path can be written' })]
    expect(shown(clusterStatus({ storages }))).to.contain('readonly: no store path can be written')
  })

  it('says that roles are missing and JetStream is off', () => {
    const text = shown(clusterStatus({ roles: [], storages: [], groups: [], jetstream: false }))
    expect(text)
      .to.contain('JetStream OFF')
      .and.to.match(/gateways +NONE/)
    expect(text).to.contain('No storage server has ever been heard of.')
  })
})
