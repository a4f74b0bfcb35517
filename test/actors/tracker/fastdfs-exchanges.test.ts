/**
 * What a real FastDFS tracker was asked and answered, asked of ours: a running one with two storage servers that have done
 * the same things. Fields are compared one by one; what must differ (addresses, times, sizes of disks, ids, versions,
 * counters) only in whether it is there at all.
 */
import { expect } from 'chai'
import { COMMANDS, HEADER_BYTES, readHeader } from '../../../protocol/frame.ts'
import { COUNTERS } from '../../../protocol/statistics.ts'
import { TRACKER_EXCHANGES } from '../../protocol/fastdfs-tracker-exchanges.ts'
import { RawConnection } from '../../runtime/frame-fixture.ts'
import { until } from '../../until.ts'
import { fetchFile, SmallCluster, uploadFile } from '../small-cluster.ts'

type Exchange = keyof typeof TRACKER_EXCHANGES

/** A field of a body: compared as it is, only whether it is zero, or not at all. */
type Field = readonly [name: string, bytes: number, compared?: 'masked' | 'ignored']

const SERVER: readonly Field[] = [
  ['ip', 15, 'masked'],
  ['port', 8, 'masked'],
]
const GROUP: Field = ['group', 16]
const STORE: readonly Field[] = [GROUP, ...SERVER, ['store path', 1]]
const FETCH: readonly Field[] = [GROUP, ...SERVER]

const CONNECTIONS: readonly Field[] = ['alloc', 'current', 'max'].map(name => [name, 4, 'masked'])

const GROUP_STAT: readonly Field[] = [
  ['group', 17],
  ['total', 8, 'masked'],
  ['free', 8, 'masked'],
  ['reserved', 8, 'masked'],
  ['trunk free', 8],
  ['storage count', 8],
  ['port', 8, 'masked'],
  ['readable', 8],
  ['writable', 8],
  ['current write server', 8],
  ['store path count', 8],
  ['subdir count', 8],
  ['trunk file id', 8],
]

const STORAGE_STAT: readonly Field[] = [
  ['status', 1],
  ['rw mode', 1],
  ['id', 16, 'masked'],
  ['ip', 16, 'masked'],
  // All members sync with all here: nobody is the one source of another's old data.
  ['source id', 16, 'ignored'],
  ['version', 8, 'masked'],
  ['join time', 8, 'masked'],
  ['up time', 8, 'masked'],
  ['total', 8, 'masked'],
  ['free', 8, 'masked'],
  ['reserved', 8, 'masked'],
  ['upload priority', 8],
  ['store path count', 8],
  ['subdir count', 8],
  ['current write path', 8],
  ['port', 8, 'masked'],
  ...CONNECTIONS,
  // FastDFS left the bytes of sync out at zero in spite of all it had sent; ours are counted.
  ...COUNTERS.map((name): Field => [name, 8, name.endsWith('sync_out_bytes') ? 'ignored' : 'masked']),
  ['is trunk server', 1],
]

const STORAGE_PART: readonly Field[] = [
  ['id', 16, 'masked'],
  ['host', 52, 'masked'],
  ['is trunk server', 1],
  ['status', 1],
  ...CONNECTIONS,
  ['version', 8, 'masked'],
  ['up time', 8, 'masked'],
  ['heart beat', 8, 'masked'],
]

/** The fields of every reply that has a body of fixed length. */
const BODIES: Partial<Record<Exchange, readonly Field[]>> = {
  storeOne: STORE,
  storeOneGroup: STORE,
  storeAll: [GROUP, ...SERVER, ...SERVER, ['store path', 1]],
  listGroups: GROUP_STAT,
  listOneGroup: GROUP_STAT,
  listStorage: [...STORAGE_STAT, ...STORAGE_STAT],
  // The one byte of it that must differ: ids are always on here.
  storageStat: [['uses storage ids', 1, 'ignored'], ['uses trunk', 1], ['count', 4], ...STORAGE_PART, ...STORAGE_PART],
  storageStatus: [
    ['status', 1],
    ['port', 4, 'masked'],
    ['id', 16, 'masked'],
    ['ip', 46, 'masked'],
  ],
  trackerStatus: [
    ['is leader', 1],
    ['running time', 8, 'ignored'],
    ['restart interval', 8],
  ],
  fetchOne: FETCH,
  queryUpdate: FETCH,
  fetchAllOld: [...FETCH, ...SERVER],
}

/** Where ours differ on purpose. */
const DIFFERENT: Partial<Record<Exchange, string>> = {
  ids: 'ids are always on, so they are told',
  idsEmptyOk: 'the same',
  serverId: 'an id is a number, not an address',
  paramReq: 'settings are our own',
}

describe('a tracker, asked as FastDFS was', () => {
  let cluster: SmallCluster
  let connection: RawConnection
  let port: number

  before(async () => {
    cluster = await SmallCluster.start()
    const options = { sync: true, uploadPriority: 10, reservedBytes: 2 ** 20 }
    for (const id of [1, 2]) await cluster.addStorage(id, options)
    for (const id of [1, 2]) {
      const storage = await cluster.connect(id)
      await fetchFile(storage, await uploadFile(storage, Buffer.alloc(5000, id)))
    }
    port = cluster.members.get(1)!.storage.endpoint.port
    const client = await cluster.client()
    await until('the tracker knows what was done', async () => {
      const { storages } = await client.status()
      return storages.every(({ report: { statistics = {} } }) => (statistics.success_sync_in_bytes ?? 0) > 0)
    })
    connection = await RawConnection.connect(cluster.trackerEndpoint)
  })
  after(async () => {
    connection?.destroy()
    await cluster?.remove()
  })

  /** Sends a request as it was sent; where it names an address, one of ours. */
  async function ask(name: Exchange): Promise<Buffer> {
    const request = Buffer.from(TRACKER_EXCHANGES[name].request, 'hex')
    const text = request.toString('latin1').replace('10.231.7.11:23000', `127.0.0.1:${port}`)
    const sent = Buffer.from(text, 'latin1')
    sent.writeUInt32BE(sent.length - HEADER_BYTES, 4)
    connection.send(sent)
    const head = await connection.take(HEADER_BYTES)
    return Buffer.concat([head, await connection.take(readHeader(head, 0).lengthBytes)])
  }

  /** The connection goes on, whatever the answer was. */
  async function expectAlive(): Promise<void> {
    expect((await ask('activeTest')).toString('hex')).equal(TRACKER_EXCHANGES.activeTest.reply)
  }

  for (const name of Object.keys(TRACKER_EXCHANGES) as Exchange[]) {
    if (name in DIFFERENT || name === 'getLeader') continue
    it(`answers ${name} alike, and keeps the connection`, async () => {
      const reply = await ask(name)
      const golden = Buffer.from(TRACKER_EXCHANGES[name].reply, 'hex')
      expect(reply.subarray(0, HEADER_BYTES).toString('hex')).equal(golden.subarray(0, HEADER_BYTES).toString('hex'))
      const fields = BODIES[name] ?? []
      expect(HEADER_BYTES + fields.reduce((sum, [, bytes]) => sum + bytes, 0)).equal(golden.length)
      expect(fieldsOf(reply, fields)).deep.equal(fieldsOf(golden, fields))
      await expectAlive()
    })
  }

  it('answers getLeader with an address and a port, its own', async () => {
    const { host, port } = cluster.trackerEndpoint
    const golden = Buffer.from(TRACKER_EXCHANGES.getLeader.reply, 'hex')
    expect(golden.toString('latin1', HEADER_BYTES)).match(/^[\d.]+:\d+$/)
    const reply = await ask('getLeader')
    expect(reply.toString('latin1', HEADER_BYTES)).equal(`${host}:${port}`)
    expect(reply[9]).equal(golden[9])
  })

  it('takes a length of 2^40 for none, as was measured', async () => {
    connection.send(Buffer.from('00000100000000006f00', 'hex'))
    expect(await connection.reply()).include({ status: 0 })
    await expectAlive()
  })

  describe('answers otherwise, on purpose,', () => {
    it('for ids: it has them, whether none would be allowed or not', async () => {
      const [first, second] = [1, 2].map(id => cluster.members.get(id)!.storage.endpoint.port)
      const lines = `1 group1 127.0.0.1:${first}\n2 group1 127.0.0.1:${second}\n`
      for (const name of ['ids', 'idsEmptyOk'] as const) {
        const reply = await ask(name)
        expect(reply[9]).equal(0)
        expect(reply.subarray(HEADER_BYTES, HEADER_BYTES + 8).toString('hex')).equal('0000000200000002')
        expect(reply.toString('latin1', HEADER_BYTES + 8)).equal(lines)
      }
    })

    it('for serverId: a number', async () => {
      expect((await ask('serverId')).toString('latin1', HEADER_BYTES)).equal('1')
    })

    it("for paramReq: those of FastDFS's settings that mean something here", async () => {
      const linesOf = (bytes: Buffer) => bytes.toString('latin1', HEADER_BYTES).split('\n')
      const keysOf = (lines: readonly string[]) => lines.map(line => line.split('=')[0])
      const golden = linesOf(Buffer.from(TRACKER_EXCHANGES.paramReq.reply, 'hex'))
      const lines = linesOf(await ask('paramReq'))
      expect(lines).deep.equal([
        'use_storage_id=1',
        'id_type_in_filename=id',
        'trust_storage_server_id=1',
        'response_ip_addr_size=16',
        'storage_ip_changed_auto_adjust=1',
        'store_path=0',
        'reserved_storage_space=1MB',
        'use_trunk_file=0',
        'store_slave_file_use_link=0',
        '',
      ])
      expect(keysOf(golden)).include.members(keysOf(lines))
    })

    it('for two requests in one segment: both are answered', async () => {
      const request = Buffer.from(TRACKER_EXCHANGES.storeOne.request, 'hex')
      connection.send(Buffer.concat([request, request]))
      for (const _ of [1, 2]) expect(await connection.reply()).include({ command: COMMANDS.reply, status: 0 })
    })
  })
})

/** The fields of a reply as they are compared; a text is there if it does not begin with NUL. */
function fieldsOf(reply: Buffer, fields: readonly Field[]): string[] {
  let at = HEADER_BYTES
  return fields.map(([name, bytes, compared]) => {
    const field = reply.subarray(at, at + bytes)
    at += bytes
    if (compared === 'ignored') return name
    if (compared === 'masked') return `${name} ${field.every(byte => byte === 0) ? 'zero' : 'set'}`
    return `${name} ${field.toString('hex')}`
  })
}
