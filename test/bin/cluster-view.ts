/** A cluster as a tracker might describe it, to be varied by tests. */
import type { ClusterStatus } from '../../bin/status.ts'
import type { StorageReport } from '../../protocol/storage-messages.ts'
import type { GroupView, StorageView } from '../../protocol/tracker-messages.ts'

const GIB = 2 ** 30

export function storageView(
  storageId: number,
  report: Partial<StorageReport> = {},
  view: Partial<StorageView> = {},
): StorageView {
  return {
    online: true,
    beatAgeMs: 300,
    ...view,
    report: {
      protocol: 1,
      version: '0.1.0',
      storageId,
      group: 'group1',
      host: '10.0.0.1',
      ip: '10.0.0.1',
      port: 23000 + storageId,
      incarnation: '0'.repeat(32),
      boot: { count: 1, secret: '0'.repeat(16) },
      epoch: 1,
      status: 'active',
      uploadPriority: 10,
      storePaths: [{ index: 0, totalBytes: 100 * GIB, freeBytes: 50 * GIB, reservedBytes: GIB, writable: true }],
      binlogEnd: { sequence: 0, timeMs: 0 },
      positions: [],
      counts: {},
      statistics: { success_upload_count: 7, success_download_count: 1234 },
      madeS: 1_700_000_000,
      startedS: 1_700_003_600,
      ...report,
    },
  }
}

export function groupView(view: Partial<GroupView> = {}): GroupView {
  return {
    group: 'group1',
    storages: 2,
    online: 2,
    readable: 2,
    writable: 2,
    freeBytes: 49 * GIB,
    totalBytes: 100 * GIB,
    diskFreeBytes: 50 * GIB,
    reservedBytes: GIB,
    reusableBytes: 0,
    port: 23001,
    storePathCount: 1,
    ...view,
  }
}

export function clusterStatus(status: Partial<ClusterStatus> = {}): ClusterStatus {
  const storages = status.storages ?? [storageView(1), storageView(2)]
  return {
    trackerId: 'tracker-1',
    version: '0.1.0',
    stale: false,
    jetstream: true,
    natsServer: '2.12.6',
    roles: [
      { role: 'tracker', id: 'tracker-1', endpoint: '10.0.0.9:22122', beatAgeMs: 500 },
      { role: 'gateway', id: 'gateway-1', endpoint: '', beatAgeMs: 200 },
    ],
    groups: [groupView()],
    ...status,
    storages,
  }
}
