/**
 * What a real FastDFS was asked and answered, asked of ours in the same order: a running tracker with two storage servers that
 * have done the same things, in the profile of the capture as far as there is one (no segments). Fields are compared one by
 * one; what must differ (addresses, times, sizes of disks, ids, versions, counters) only in whether it is there at all. Where
 * a request names a file that was uploaded before, it names ours.
 */
import { readFileSync } from 'node:fs'
import { expect } from 'chai'
import { COMMANDS, HEADER_BYTES, readHeader } from '../protocol/frame.ts'
import { COUNTERS } from '../protocol/statistics.ts'
import { SmallCluster } from './actors/small-cluster.ts'
import { fetchFile, uploadFile } from './data-port.ts'
import { EXCHANGES, type Exchange, golden, UNANSWERED } from './fastdfs-golden.ts'
import { RawConnection } from './runtime/frame-fixture.ts'
import { until } from './until.ts'

/** A field of a body: compared as it is, only whether it is zero, as what a name says, or not at all. */
type Field = readonly [name: string, bytes: number, compared?: 'masked' | 'name' | 'ignored']

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

/** What an upload is answered with: a name of 44 characters. */
const UPLOADED: readonly Field[] = [GROUP, ['name', 44, 'name']]

const FILE_INFO: readonly Field[] = [
  ['size', 8],
  ['time', 8, 'masked'],
  ['crc32', 8],
  ['source', 16, 'masked'],
]

/** The fields of every reply that is not compared as a whole. */
const BODIES: Readonly<Record<string, readonly Field[]>> = {
  store_one: STORE,
  store_one_group: STORE,
  store_all: [GROUP, ...SERVER, ...SERVER, ['store path', 1]],
  list_groups: GROUP_STAT,
  list_one_group: GROUP_STAT,
  list_storage: [...STORAGE_STAT, ...STORAGE_STAT],
  // The one byte of it that must differ: ids are always on here.
  storage_stat: [['uses storage ids', 1, 'ignored'], ['uses trunk', 1], ['count', 4], ...STORAGE_PART, ...STORAGE_PART],
  storage_status: [
    ['status', 1],
    ['port', 4, 'masked'],
    ['id', 16, 'masked'],
    ['ip', 46, 'masked'],
  ],
  tracker_status: [
    ['is leader', 1],
    ['running time', 8, 'ignored'],
    ['restart interval', 8],
  ],
  fetch_one: FETCH,
  query_update: FETCH,
  fetch_all_old: [...FETCH, ...SERVER],
  's.upload': UPLOADED,
  's.upload_path_FF': UPLOADED,
  's.upload_noext': UPLOADED,
  's.upload_appender': UPLOADED,
  's.regenerate': UPLOADED,
  's.file_info': FILE_INFO,
  's.appender_info': FILE_INFO,
}

/** The random bits in the upper half of a name's size field. */
const SALT_MASK = 2 ** 23 - 1

/** A name but for its last characters: what differs between a file that is there and one that is not. */
const NAME_STEM = 39

describe('a cluster, asked as FastDFS was', () => {
  let cluster: SmallCluster
  let tracker: RawConnection
  let storage: RawConnection
  let port: number
  /** Our names of the files, by those in the capture. */
  const names = new Map<string, string>()

  before(async () => {
    cluster = await SmallCluster.start()
    const options = { sync: true, uploadPriority: 10, reservedBytes: 2 ** 20, segmentFileBytesMax: 0 }
    for (const id of [1, 2]) await cluster.addStorage(id, options)
    for (const id of [1, 2]) {
      const member = await cluster.connect(id)
      await fetchFile(member, await uploadFile(member, Buffer.alloc(5000, id)))
    }
    const { endpoint } = cluster.members.get(1)!.storage
    port = endpoint.port
    const client = await cluster.client()
    await until('the tracker knows what was done', async () => {
      const { storages } = await client.status()
      return storages.every(({ report: { statistics = {} } }) => (statistics.success_sync_in_bytes ?? 0) > 0)
    })
    tracker = await RawConnection.connect(cluster.trackerEndpoint)
    storage = await RawConnection.connect(endpoint)
  })
  after(async () => {
    tracker?.destroy()
    storage?.destroy()
    await cluster?.remove()
  })

  const connectionOf = (name: string) => (name.startsWith('s.') ? storage : tracker)

  /** Sends a request as it was sent; where it names an address or a file, one of ours. */
  async function ask({ name, request }: Exchange): Promise<Buffer> {
    let text = Buffer.from(request, 'hex').toString('latin1').replace('10.231.7.11:23000', `127.0.0.1:${port}`)
    for (const [theirs, ours] of names) {
      text = text.replace(theirs, ours).replace(theirs.slice(0, NAME_STEM), ours.slice(0, NAME_STEM))
    }
    const sent = Buffer.from(text, 'latin1')
    sent.writeUInt32BE(sent.length - HEADER_BYTES, 4)
    connectionOf(name).send(sent)
    return replyOf(name)
  }

  async function replyOf(name: string): Promise<Buffer> {
    const connection = connectionOf(name)
    const head = await connection.take(HEADER_BYTES)
    return Buffer.concat([head, await connection.take(readHeader(head, 0).lengthBytes)])
  }

  /** The connection goes on, whatever the answer was. */
  async function expectAlive(name: string): Promise<void> {
    const test = golden(name.startsWith('s.') ? 's.active_test' : 'active_test')
    expect((await ask(test)).toString('hex')).equal(test.reply)
  }

  async function expectAlike(exchange: Exchange): Promise<void> {
    const theirs = Buffer.from(exchange.reply, 'hex')
    const fields = BODIES[exchange.name] ?? [['body', theirs.length - HEADER_BYTES]]
    expect(HEADER_BYTES + fields.reduce((sum, [, bytes]) => sum + bytes, 0)).equal(theirs.length)
    const ours = await ask(exchange)
    expect(ours.toString('hex', 0, HEADER_BYTES)).equal(theirs.toString('hex', 0, HEADER_BYTES))
    if (fields === UPLOADED) names.set(nameIn(theirs), nameIn(ours))
    // A slave file is named after a file that has another name here.
    let text = ours.toString('latin1')
    for (const [name, our] of names) text = text.replace(our.slice(0, NAME_STEM + 1), name.slice(0, NAME_STEM + 1))
    expect(fieldsOf(fields === UPLOADED ? ours : Buffer.from(text, 'latin1'), fields)).deep.equal(
      fieldsOf(theirs, fields),
    )
  }

  /** Where ours differ on purpose, as docs/migrate-from-fastdfs.md tells: what is so here instead. */
  const different: Readonly<Record<string, () => Promise<void>>> = {
    ids: () => expectIds('ids'),
    ids_empty_ok: () => expectIds('ids_empty_ok'),
    async server_id() {
      expect((await ask(golden('server_id'))).toString('latin1', HEADER_BYTES)).equal('1')
    },
    async param_req() {
      const linesOf = (bytes: Buffer) => bytes.toString('latin1', HEADER_BYTES).split('\n')
      const keysOf = (lines: readonly string[]) => lines.map(line => line.split('=')[0])
      const lines = linesOf(await ask(golden('param_req')))
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
      expect(keysOf(linesOf(Buffer.from(golden('param_req').reply, 'hex')))).include.members(keysOf(lines))
    },
    async get_leader() {
      const { host, port } = cluster.trackerEndpoint
      const theirs = Buffer.from(golden('get_leader').reply, 'hex')
      expect(theirs.toString('latin1', HEADER_BYTES)).match(/^[\d.]+:\d+$/)
      const ours = await ask(golden('get_leader'))
      expect(ours.toString('latin1', HEADER_BYTES)).equal(`${host}:${port}`)
      expect(ours[9]).equal(theirs[9])
    },
    async pipelining() {
      for (const name of ['store_one', 's.active_test']) {
        const { request, reply } = golden(name)
        connectionOf(name).send(Buffer.from(request + request, 'hex'))
        for (const _ of [1, 2]) expect((await replyOf(name)).toString('hex', 0, HEADER_BYTES)).equal(reply.slice(0, 20))
      }
    },
  }

  /** They are always on, so they are told, whether none would be allowed or not. */
  async function expectIds(name: string): Promise<void> {
    const [first, second] = [1, 2].map(id => cluster.members.get(id)!.storage.endpoint.port)
    const reply = await ask(golden(name))
    expect(reply[9]).equal(0)
    expect(reply.subarray(HEADER_BYTES, HEADER_BYTES + 8).toString('hex')).equal('0000000200000002')
    const lines = `1 group1 127.0.0.1:${first}\n2 group1 127.0.0.1:${second}\n`
    expect(reply.toString('latin1', HEADER_BYTES + 8)).equal(lines)
  }

  for (const exchange of EXCHANGES) {
    const { name } = exchange
    const instead = different[name]
    it(`answers ${name} ${instead === undefined ? 'alike' : 'otherwise, on purpose'}, and keeps the connection`, async () => {
      await (instead?.() ?? expectAlike(exchange))
      await expectAlive(name)
    })
  }

  for (const name of UNANSWERED) {
    it(`answers ${name}, to which FastDFS gave no answer`, () => different[name]!())
  }

  it('differs where the documentation says so, and nowhere else', () => {
    const page = readFileSync(new URL('../../docs/migrate-from-fastdfs.md', import.meta.url), 'utf8')
    expect([...page.matchAll(/^\| `(\w+)`, command/gm)].map(([, name]) => name)).members(Object.keys(different))
  })

  it('takes a length of 2^40 for none at the tracker, as was measured', async () => {
    tracker.send(Buffer.from('00000100000000006f00', 'hex'))
    expect(await tracker.reply()).include({ command: COMMANDS.reply, status: 0 })
    await expectAlive('active_test')
  })
})

/** The name in the reply to an upload. */
function nameIn(reply: Buffer): string {
  return reply.toString('latin1', HEADER_BYTES + 16)
}

/** The fields of a reply as they are compared; a text is there if it does not begin with NUL. */
function fieldsOf(reply: Buffer, fields: readonly Field[]): string[] {
  let at = HEADER_BYTES
  return fields.map(([name, bytes, compared]) => {
    const field = reply.subarray(at, at + bytes)
    at += bytes
    if (compared === 'ignored') return name
    if (compared === 'masked') return `${name} ${field.every(byte => byte === 0) ? 'zero' : 'set'}`
    if (compared === 'name') return `${name} ${maskedName(field.toString('latin1'))}`
    return `${name} ${field.toString('hex')}`
  })
}

/** A name without what differs from file to file: directories, source, time, salt, and the digits before the extension. */
function maskedName(name: string): string {
  const bytes = Buffer.from(name.slice(10, 37), 'base64url')
  bytes.fill(0, 0, 8)
  bytes.writeUInt32BE((bytes.readUInt32BE(8) & ~SALT_MASK) >>> 0, 8)
  const path = name.slice(0, 10).replace(/[0-9A-F]{2}\/[0-9A-F]{2}\/$/, 'HH/HH/')
  return `${path} ${bytes.toString('hex')} ${name.slice(37).replace(/^\d+/, digits => '0'.repeat(digits.length))}`
}
