import { expect } from 'chai'
import { formatMonitor } from '../../bin/monitor.ts'
import { clusterStatus, groupView, storageView } from './cluster-view.ts'

const NOW_MS = Date.parse('2026-11-21T21:46:08')
const NOW_S = NOW_MS / 1000
const MIB = 2 ** 20

/** What is said of a storage server, by name. */
function saidOf(text: string, number: number): Map<string, string> {
  const part = text.split(/ {4}Storage \d+:\n/)[number]!
  return new Map(
    part.split('\n').flatMap(line => [...line.matchAll(/^ {8}(.+?) =(?: (.*))?$/g)].map(([, a, b]) => [a!, b ?? ''])),
  )
}

describe('dfs monitor', () => {
  const statistics = (more: object) => ({ statistics: { success_upload_count: 7, ...more } })

  it('tells of each group, and of each storage server in it', () => {
    const text = formatMonitor(
      clusterStatus({
        groups: [groupView({ reusableBytes: 3 * MIB }), groupView({ group: 'group2', storages: 0, online: 0 })],
        storages: [storageView(1)],
      }),
      NOW_MS,
    )
    expect(text.slice(0, text.indexOf('        connection.'))).to.equal(`\
tracker server count: 1  10.0.0.9:22122
group count: 2

Group 1:
group name = group1
disk total space = 100 GiB
disk free space = 50.0 GiB
disk reserved space = 1.0 GiB
disk available space = 49.0 GiB
trunk free space = 3.0 MiB
storage server count = 2
readable server count = 2
writable server count = 2
storage server port = 23001
store path count = 1
subdir count per path = 256

    Storage 1:
        id = 1
        host = 10.0.0.1:23001  ACTIVE
        read write mode = both
        version = 0.1.0
        join time = ${new Date(1_700_000_000_000).toLocaleString('sv-SE')}
        up time = ${new Date(1_700_003_600_000).toLocaleString('sv-SE')}
        disk total space = 100 GiB
        disk free space = 50.0 GiB
        disk reserved space = 1.0 GiB
        disk available space = 49.0 GiB
        upload priority = 10
        store_path_count = 1
        subdir_count_per_path = 256
`)
    expect(text).to.match(/\nGroup 2:\ngroup name = group2\n/)
  })

  it('names all that is counted as fdfs_monitor does', () => {
    const view = storageView(1, statistics({ connection_current_count: 5, total_sync_out_bytes: 123_456_789 }), {
      beatAgeMs: 2000,
    })
    const said = saidOf(formatMonitor(clusterStatus({ storages: [view] }), NOW_MS), 1)
    expect([...said.keys()].slice(13)).to.have.length(3 + 42)
    expect(Object.fromEntries(said)).to.include({
      'connection.alloc_count': '0',
      'connection.current_count': '5',
      success_upload_count: '7',
      total_upload_count: '0',
      success_delete_link_count: '0',
      total_sync_out_bytes: '123456789',
      success_file_write_count: '0',
      last_heart_beat_time: '2026-11-21 21:46:06',
      last_source_update: '',
      last_synced_timestamp: '',
    })
  })

  it('says how far a storage server is behind the others', () => {
    const synced = (last_synced_timestamp: number) => storageView(2, statistics({ last_synced_timestamp }))
    const said = (lastSynced: number) => {
      const source = storageView(1, statistics({ last_source_update: NOW_S }))
      const text = formatMonitor(clusterStatus({ storages: [source, synced(lastSynced)] }), NOW_MS)
      expect(saidOf(text, 1).get('last_source_update')).to.equal('2026-11-21 21:46:08')
      return saidOf(text, 2).get('last_synced_timestamp')
    }
    expect(said(NOW_S - 12)).to.equal('2026-11-21 21:45:56 (12 s delay)')
    expect(said(NOW_S)).to.equal('2026-11-21 21:46:08 (0.0 s delay)')
    expect(said(0)).to.equal('(never synced)')
  })

  it('says what state each is in', () => {
    const host = (report: object, view: object = {}) => {
      const said = saidOf(formatMonitor(clusterStatus({ storages: [storageView(1, report, view)] }), NOW_MS), 1)
      return [said.get('host')?.split('  ')[1], said.get('read write mode')]
    }
    expect(host({ status: 'readonly' })).to.deep.equal(['ACTIVE', 'read'])
    expect(host({ status: 'joining' })).to.deep.equal(['INIT', 'none'])
    expect(host({}, { online: false })).to.deep.equal(['OFFLINE', 'none'])
    expect(host({ ip: 'fd00::1' })).to.deep.equal(['ACTIVE', 'both'])
  })
})
