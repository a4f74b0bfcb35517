/** The cluster from outside: plain `nats`, no SDK; and the roles as a running cluster has them. */
import { readFileSync } from 'node:fs'
import { expect } from 'chai'
import { Packr } from 'msgpackr'
import { connect, Empty, headers, type NatsConnection } from 'nats'
import type { Credentials } from '../runtime/secrets.ts'
import { RunningCluster } from './running-cluster.ts'
import { until } from './until.ts'

const msgpack = new Packr({ useRecords: false })

describe('a cluster, from any NATS client', function () {
  this.timeout(60_000)
  let cluster: RunningCluster
  let client: NatsConnection
  let ops: NatsConnection

  before(async () => {
    cluster = await RunningCluster.start()
    client = await connectAs('client')
    ops = await connectAs('ops')
  })
  after(async () => {
    await client?.close()
    await ops?.close()
    await cluster?.remove()
  })

  it('stores a payload as a file and gives it back, in JSON', async () => {
    const h = headers()
    h.set('Dfs-Ext', 'txt')
    const bytes = Buffer.from('uploaded with nothing but NATS')
    const stored = await client.request('dfs.upload', bytes, { headers: h, timeout: 5000 })
    const { fileId, sizeBytes } = stored.json<{ fileId: string; sizeBytes: number }>()
    expect(fileId).to.match(/^group1\/M00\/.*\.txt$/)
    expect(sizeBytes).to.equal(bytes.length)

    const fetched = await client.request('dfs.download', JSON.stringify({ fileId }), { timeout: 5000 })
    expect(Buffer.from(fetched.data)).to.deep.equal(bytes)
    expect(fetched.headers?.get('Dfs-Size')).to.equal(String(bytes.length))

    const range = await client.request('dfs.file.download', JSON.stringify({ fileId, offset: 9, length: 4 }), {
      timeout: 5000,
    })
    expect(Buffer.from(range.data).toString()).to.equal('with')
  })

  it('does the same in msgpack', async () => {
    const h = headers()
    h.set('Accept', 'application/msgpack')
    const stored = await client.request('dfs.file.upload', Buffer.alloc(100_000, 7), { headers: h, timeout: 5000 })
    const { fileId } = msgpack.unpack(stored.data)
    const info = await client.request('dfs.info', msgpack.pack({ fileId }), { timeout: 5000 })
    expect(info.headers?.get('Content-Type')).to.equal('application/msgpack')
    expect(msgpack.unpack(info.data)).to.include({ fileId, sizeBytes: 100_000 })
    const fetched = await client.request('dfs.download', msgpack.pack({ fileId }), { timeout: 5000 })
    expect(fetched.data.length).to.equal(100_000)
    const gone = await client.request('dfs.delete', msgpack.pack({ fileId }), { timeout: 5000 })
    expect(msgpack.unpack(gone.data)).to.deep.equal({ fileId })
    const missing = await client.request('dfs.info', msgpack.pack({ fileId }), { timeout: 5000 })
    expect(missing.headers?.get('Nats-Service-Error-Code')).to.equal('404')
    expect(msgpack.unpack(missing.data).error).to.include({ code: 'not_found', retryable: false })
  })

  it('answers an empty request with readable JSON', async () => {
    const status = (await ops.request('dfs.tracker.status', Empty, { timeout: 5000 })).json<{
      groups: { group: string; online: number }[]
      jetstream: boolean
    }>()
    expect(status.jetstream).to.equal(true)
    expect(status.groups).to.have.lengthOf(1)
    expect(status.groups[0]).to.include({ group: 'group1', online: 2 })
  })

  it('says what is wrong with a request, and lives on', async () => {
    for (const [payload, code] of [
      ['{"fileId":"group1/../../etc/passwd"}', '400'],
      ['{"fileId":5}', '400'],
      ['not json', '400'],
      ['[1]', '400'],
      ['{"fileId":"group9/M00/00/00/AQAAAGsBENyAAAABAAAAAAAAAAA192.bin"}', '404'],
      [JSON.stringify({ fileId: 'x', padding: 'y'.repeat(70_000) }), '413'],
    ] as const) {
      const reply = await client.request('dfs.info', payload, { timeout: 30_000 })
      expect(reply.headers?.get('Nats-Service-Error-Code'), payload.slice(0, 60)).to.equal(code)
      expect(reply.json<{ error: { message: string } }>().error.message).to.be.a('string').and.not.empty
    }
    const h = headers()
    h.set('Dfs-Group', 'group7')
    const reply = await client.request('dfs.upload', 'x', { headers: h, timeout: 30_000 })
    expect(reply.json<{ error: { code: string } }>().error.code).to.equal('unknown_group')
  })

  it('lists every role as a micro service, as the nats command reads them', async () => {
    const found = new Set<string>()
    const services = ops.services.client()
    for await (const info of await services.info()) {
      found.add(info.name)
      for (const endpoint of info.endpoints) expect(endpoint.name).to.match(/^[A-Za-z0-9_-]+$/)
    }
    expect([...found].sort()).to.deep.equal(['dfs-gateway', 'dfs-storage', 'dfs-sync', 'dfs-tracker'])
    for await (const stats of await services.stats('dfs-gateway')) {
      const upload = stats.endpoints?.find(endpoint => endpoint.name === 'short-upload')
      expect(upload?.num_requests).to.be.greaterThan(0)
      expect(upload?.num_errors).to.equal(1)
    }
  })

  it('shows each storage server and its sync by its own address', async () => {
    const storage = (await ops.request('dfs.actor.storage-1.status', Empty, { timeout: 5000 })).json<{
      storageId: number
    }>()
    expect(storage.storageId).to.equal(1)
    const peersOfSync = async () => {
      const reply = await ops.request('dfs.actor.sync-2.status', Empty, { timeout: 5000 })
      return reply.json<{ peers: { storageId: number; state: string }[] }>().peers
    }
    const [peer] = await until('sync knows its peer', async () => {
      const peers = await peersOfSync()
      return peers.length > 0 && peers
    })
    expect(peer).to.include({ storageId: 1 })
  })

  it('tells each flush of the binlog to followers, and keeps it in a stream', async () => {
    const events = ops.subscribe('dfs.binlog.group1.>', { max: 1 })
    await ops.flush()
    await client.request('dfs.upload', 'followed', { timeout: 5000 })
    for await (const event of events) {
      const flush = msgpack.unpack(event.data)
      expect(flush.records).to.have.lengthOf(flush.sequence - flush.previous)
      expect(flush.records[0]).to.include(' M00/')
    }
    const stream = await (await ops.jetstreamManager()).streams.info('DFS_BINLOG_group1')
    expect(stream.config.subjects).to.deep.equal(['dfs.binlog.group1.>'])
    expect(stream.state.messages).to.be.greaterThan(0)
  })

  for (const [user, subject] of [
    ['client', 'dfs.tracker.join'],
    ['client', 'dfs.binlog.group1.1'],
    ['client', 'dfs.hb.storage.group1.1'],
    ['ops', 'dfs.binlog.group1.1'],
    ['gateway', 'dfs.binlog.group1.1'],
    ['tracker', 'dfs.upload'],
    ['storage_group1', 'dfs.binlog.group2.1'],
    ['sync_group1', 'dfs.binlog.group1.1'],
  ] as const) {
    it(`forbids ${user} to publish ${subject}`, async () => {
      const nc = await connectAs(user)
      const refused = (async () => {
        for await (const status of nc.status()) {
          if (String(status.data).includes('PERMISSIONS')) return status.permissionContext?.subject
        }
        return undefined
      })()
      nc.publish(subject, 'x')
      await nc.flush()
      expect(await refused).to.equal(subject)
      await nc.close()
    })
  }

  function connectAs(user: string): Promise<NatsConnection> {
    const credentials = JSON.parse(readFileSync(`${cluster.data}/credentials/${user}.json`, 'utf8')) as Credentials
    const { servers, password, inboxPrefix } = credentials
    return connect({ servers: [...servers], user, pass: password, inboxPrefix })
  }
})
