/** What a storage server counts and tells under FastDFS's names. */
import { expect } from 'chai'
import { writeDownload, writeGroupAndName } from '../../../protocol/data-bodies.ts'
import { parseFileId } from '../../../protocol/file-id.ts'
import { COMMANDS } from '../../../protocol/frame.ts'
import { COUNTERS, type Statistics } from '../../../protocol/statistics.ts'
import { fetchFile, uploadFile } from '../../data-port.ts'
import { until } from '../../until.ts'
import { codeOf, SmallCluster } from '../small-cluster.ts'

const KIB = 1024
const SMALL = Buffer.alloc(4 * KIB, 's')
const LARGE = Buffer.alloc(3000 * KIB, 'l')

describe('the statistics of a storage server', () => {
  let cluster: SmallCluster
  beforeEach(async () => {
    cluster = await SmallCluster.start()
  })
  afterEach(() => cluster.remove())

  async function told(storageId: number): Promise<Statistics> {
    const { storages } = await (await cluster.client()).status()
    return storages.find(({ report }) => report.storageId === storageId)!.report.statistics!
  }

  it('are 42 numbers, as in a StatBuff', () => {
    expect(COUNTERS).length(42)
    expect(new Set(COUNTERS).size).equal(42)
  })

  it('say what was asked for and what was done, in operations and bytes, with its peer', async () => {
    const beganS = Math.floor(Date.now() / 1000)
    await cluster.addStorage(1, { sync: true, segmentFileBytesMax: 2 ** 20 })
    await cluster.addStorage(2, { sync: true, segmentFileBytesMax: 2 ** 20 })
    const connection = await cluster.connect(1)
    const small = await uploadFile(connection, SMALL)
    const large = await uploadFile(connection, LARGE)
    await fetchFile(connection, small)
    await fetchFile(connection, large)
    await fetchFile(connection, large, { offset: 100, length: 50 })
    expect(await codeOf(fetchFile(connection, large.replace(/\d{3}\.txt$/, '999.txt')))).not.equal('none')
    const synced = SMALL.length + LARGE.length
    await until('both files are at the peer', async () => ((await told(2)).success_sync_in_bytes ?? 0) >= synced)
    const { group, name } = parseFileId(small)
    await connection.request(COMMANDS.deleteFile, writeGroupAndName(group, name))

    const wanted: Statistics = {
      total_upload_count: 2,
      success_upload_count: 2,
      total_upload_bytes: synced,
      success_upload_bytes: synced,
      total_download_count: 4,
      success_download_count: 3,
      total_download_bytes: synced + 50,
      success_download_bytes: synced + 50,
      total_delete_count: 1,
      success_delete_count: 1,
      connection_current_count: 2,
    }
    const source = await until('the beat tells of the deletion', async () => {
      const statistics = await told(1)
      return statistics.success_delete_count === 1 && statistics
    })
    expect(source).deep.include(wanted)
    expect(source.success_sync_out_bytes).within(synced, synced + KIB)
    expect(source.total_sync_out_bytes).equal(source.success_sync_out_bytes)
    expect(source.connection_max_count).within(2, 8)
    expect(source.last_source_update).within(beganS, beganS + 60)
    expect(source).not.property('last_synced_timestamp')
    expect(source).not.property('total_append_count')
    for (const call of ['open', 'read', 'write'] as const) {
      expect(source[`success_file_${call}_count`], call).greaterThan(0)
      expect(source[`success_file_${call}_count`], call).at.most(source[`total_file_${call}_count`]!)
    }

    const peer = await told(2)
    expect(peer).not.property('total_upload_count')
    expect(peer.last_synced_timestamp).within(beganS, source.last_source_update!)
    expect(peer.last_sync_update).at.least(peer.last_synced_timestamp!)
  })

  it('are in the STATS of its micro service', async () => {
    await cluster.addStorage(1)
    await uploadFile(await cluster.connect(1), SMALL)
    const { world } = cluster.context
    const ops = { servers: [], user: 'ops', password: '', inboxPrefix: '_INBOX' }
    const bus = await world.connectBus({ ...ops, name: 'test', waitForServer: false })
    const reply = await bus.request('$SRV.STATS.dfs-storage.storage-1', Buffer.alloc(0), { timeoutMs: 5_000 })
    const { endpoints } = JSON.parse(Buffer.from(reply.payload).toString())
    const { data } = endpoints.find(({ name }: { name: string }) => name === 'statusOf')
    expect(data).include({ success_upload_count: 1, success_upload_bytes: SMALL.length })
    await bus.drain()
  })

  it('count a download that fails half-way as asked for, and not as done', async () => {
    await cluster.addStorage(1)
    const connection = await cluster.connect(1)
    const large = Buffer.alloc(40 * 2 ** 20, 'x')
    const request = writeDownload({ ...parseFileId(await uploadFile(connection, large)), offset: 0, length: 0 })
    const reader = await cluster.connect(1)
    const broken = reader.exchange(
      COMMANDS.downloadFile,
      request.length,
      send => send([request]),
      async () => reader.close(),
    )
    await codeOf(broken)
    await until('the connection is gone', async () => (await told(1)).connection_current_count === 1)
    const { counters } = cluster.members.get(1)!.storage.store
    expect(counters).include({ total_download_bytes: large.length, success_download_bytes: 0 })
  })
})
