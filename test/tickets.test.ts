/** `--data-auth` with real processes: what tickets allow, what they do not, and what is told to those who have none. */
import { randomBytes } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'chai'
import type { Client } from '../client/client.ts'
import { connect } from '../client/connect.ts'
import {
  readUploaded,
  writeChange,
  writeDownload,
  writeGroupAndName,
  writeSetMetadata,
  writeSlave,
  writeUploadFields,
  writeUploadHead,
} from '../protocol/data-bodies.ts'
import { formatFileId, parseFileId } from '../protocol/file-id.ts'
import { COMMANDS, frame } from '../protocol/frame.ts'
import { LIST_START, writeList } from '../protocol/list-bodies.ts'
import { encodeTicket, groupKey, keyIdOf, type Ticket, ticketSecretOf } from '../protocol/ticket.ts'
import { FrameClient } from '../runtime/frame-client.ts'
import { authenticate } from '../runtime/handshake.ts'
import { realWorld } from '../runtime/real-world.ts'
import { readCredentials } from '../runtime/secrets.ts'
import { Timers } from '../runtime/timers.ts'
import { codeOf } from './actors/small-cluster.ts'
import { RunningCluster } from './running-cluster.ts'
import { RawConnection } from './runtime/frame-fixture.ts'

const EACCES = 13
const TIMEOUTS = { idleMs: 5_000, headerMs: 5_000, bodyMs: 5_000 }
const world = realWorld()
const timers = new Timers(world.clock)

describe('a data port that asks for tickets', function () {
  this.timeout(90_000)
  let cluster: RunningCluster
  let client: Client
  let fileId: string
  const opened: { close(): unknown }[] = []

  before(async () => {
    cluster = await RunningCluster.start('--data-auth', 'ticket', '--groups', '2', '--storages', '1')
    client = await clientOf()
  })
  after(async () => {
    for (const one of opened) await one.close()
    await cluster?.remove()
  })
  beforeEach(async () => {
    fileId = (await client.upload(Buffer.from('for those who may'), { group: 'group1' })).fileId
  })

  /** A client that has nothing but its NATS user. */
  async function clientOf(): Promise<Client> {
    const path = cluster.ports.credentials.client!
    const { dataSecret, ...credentials } = await readCredentials(world.disk, path)
    expect(dataSecret).to.be.a('string')
    const made = await connect({ credentials })
    opened.push(made)
    return made
  }
  const secretsPath = () => join(cluster.data, 'secrets.json')
  const secrets = () => JSON.parse(readFileSync(secretsPath(), 'utf8')) as { ticketSecrets: string[] }
  const nowS = () => Math.floor(Date.now() / 1000)
  function ticketOf(changes: Partial<Ticket> = {}, key = groupKey(secrets().ticketSecrets[0]!, 'group1')) {
    const all = ['upload', 'read', 'change', 'delete'] as const
    const whole = { operations: all, expiresS: nowS() + 60, group: 'group1', uploadIds: '', names: '' }
    const ticket = encodeTicket({ keyId: keyIdOf(key), ...whole, ...changes })
    return { role: 'ticket', ticket, key: ticketSecretOf(key, ticket) } as const
  }
  function endpoint(group = 'group1') {
    const { host, port } = cluster.ports.storages.find(storage => storage.group === group)!
    return { host, port }
  }
  async function open(...tickets: readonly ReturnType<typeof ticketOf>[]): Promise<FrameClient> {
    const options = { sockets: world.sockets, clock: world.clock, timers, connectMs: 5_000, timeouts: TIMEOUTS }
    const connection = await FrameClient.connect(endpoint(), options)
    opened.push(connection)
    for (const ticket of tickets) await authenticate(connection, ticket, world.random)
    return connection
  }
  const bodyOf = (id: string) => writeGroupAndName(parseFileId(id).group, parseFileId(id).name)
  const downloadOf = (id: string) => writeDownload({ ...parseFileId(id), offset: 0, length: 0 })
  function uploadOf(uploadId: string, content = Buffer.from('once')): Buffer {
    const head = writeUploadHead({ uploadId, ack: undefined, ackTimeoutMs: undefined })
    return Buffer.concat([
      head,
      writeUploadFields({ storePathIndex: 0xff, sizeBytes: content.length, extension: '' }),
      content,
    ])
  }
  async function count(): Promise<number> {
    let files = 0
    for await (const _ of client.list({ group: 'group1' })) files++
    return files
  }

  it('does everything for a client that has nothing but its NATS user', async () => {
    const bytes = randomBytes(300_000)
    const { fileId: plain } = await client.upload(bytes)
    expect((await client.download(plain)).equals(bytes)).to.equal(true)
    async function* stream() {
      for (let i = 0; i < 20; i++) yield randomBytes(100_000)
    }
    expect((await client.info((await client.upload(stream())).fileId)).sizeBytes).to.equal(2_000_000)
    await client.setMetadata(plain, { a: 'b' })
    expect(await client.getMetadata(plain)).to.deep.equal({ a: 'b' })
    const slave = await client.uploadSlave(plain, Buffer.from('small'), { prefix: '_s' })
    expect(String(await client.download(slave.fileId))).to.equal('small')
    const { fileId: appender } = await client.uploadAppender(Buffer.from('one'))
    await client.append(appender, Buffer.from(' two'))
    await client.modify(appender, 0, Buffer.from('ONE'))
    await client.truncate(appender, 5)
    expect(String(await client.download(appender))).to.equal('ONE t')
    const regenerated = await client.regenerate(appender)
    for (const id of [slave.fileId, regenerated.fileId, plain]) await client.delete(id)
    expect(await codeOf(client.info(plain))).to.equal('not_found')
    const listed: string[] = []
    for await (const file of client.list()) listed.push(file.fileId)
    expect(listed).to.include(fileId).and.not.to.include(plain)
  })

  it('takes an upload under a caller’s own id for one upload, from whichever client it comes', async () => {
    const uploadId = randomBytes(16).toString('hex')
    const options = { uploadId, group: 'group1' }
    const first = await client.upload(Buffer.from('same'), options)
    const again = await (await clientOf()).upload(Buffer.from('same'), options)
    expect(again.fileId).to.equal(first.fileId)
  })

  it('tells those without a ticket nothing, whatever they ask: FastDFS’s clients are shut out', async () => {
    const files = await count()
    const unknown = fileId.replace('group1/M00', 'group1/M01')
    const { name } = parseFileId(fileId)
    const content = Buffer.from('mine')
    const upload = Buffer.concat([writeUploadFields({ storePathIndex: 0xff, sizeBytes: 4, extension: '' }), content])
    const requests = [
      frame(COMMANDS.uploadFile, upload),
      frame(COMMANDS.uploadAppender, upload),
      frame(COMMANDS.uploadOnce, uploadOf('0'.repeat(32))),
      frame(
        COMMANDS.uploadSlave,
        Buffer.concat([writeSlave({ sizeBytes: 4, prefix: '_x', extension: '' }, name), content]),
      ),
      ...[fileId, unknown].flatMap(id => [
        frame(COMMANDS.downloadFile, downloadOf(id)),
        frame(COMMANDS.queryFileInfo, bodyOf(id)),
        frame(COMMANDS.getMetadata, bodyOf(id)),
        frame(COMMANDS.deleteFile, bodyOf(id)),
      ]),
      frame(COMMANDS.setMetadata, writeSetMetadata({ ...parseFileId(fileId), metadata: content, merges: false })),
      frame(COMMANDS.append, Buffer.concat([writeChange(name, 4), content])),
      frame(COMMANDS.modify, Buffer.concat([writeChange(name, 0, 4), content])),
      frame(COMMANDS.truncate, writeChange(name, 0)),
      frame(COMMANDS.regenerate, Buffer.from(name)),
      frame(COMMANDS.listFiles, writeList({ group: 'group1', sinceS: 0, place: LIST_START, prefix: '', members: [] })),
      frame(COMMANDS.syncPosition, Buffer.alloc(44)),
      frame(250, Buffer.alloc(3)),
    ]
    const raw = await RawConnection.connect(endpoint())
    opened.push({ close: () => raw.socket.destroy() })
    raw.send(frame(COMMANDS.activeTest, Buffer.alloc(0)))
    expect((await raw.reply()).status).to.equal(0)
    for (const request of requests) {
      raw.send(request)
      const { status, body } = await raw.reply()
      expect({ command: request[8], status, body: String(body) }).to.deep.equal({
        command: request[8],
        status: EACCES,
        body: '',
      })
    }
    expect(await count()).to.equal(files)
    expect(String(await client.download(fileId))).to.equal('for those who may')
  })

  it('lets a ticket do what it is for, and nothing else', async () => {
    const other = (await client.upload(Buffer.from('another'), { group: 'group1' })).fileId
    const read = await open(ticketOf({ operations: ['read'], names: parseFileId(fileId).name }))
    expect(String(await read.request(COMMANDS.downloadFile, downloadOf(fileId)))).to.equal('for those who may')
    for (const [command, body] of [
      [COMMANDS.downloadFile, downloadOf(other)],
      [COMMANDS.queryFileInfo, bodyOf(other)],
      [COMMANDS.getMetadata, bodyOf(other)],
      [COMMANDS.deleteFile, bodyOf(fileId)],
      [COMMANDS.truncate, writeChange(parseFileId(fileId).name, 0)],
      [COMMANDS.uploadOnce, uploadOf('0'.repeat(32))],
      [COMMANDS.listFiles, writeList({ group: 'group1', sinceS: 0, place: LIST_START, prefix: '', members: [] })],
    ] as const)
      expect(await codeOf(read.request(command, body)), `command ${command}`).to.equal('forbidden')
    const prefix = parseFileId(fileId).name.slice(0, 10)
    const list = writeList({ group: 'group1', sinceS: 0, place: LIST_START, prefix, members: [] })
    const both = await open(ticketOf({ operations: ['read'], names: prefix }), ticketOf({ operations: ['delete'] }))
    expect(await codeOf(both.request(COMMANDS.listFiles, list))).to.equal('none')
    expect(await codeOf(both.request(COMMANDS.deleteFile, bodyOf(other)))).to.equal('none')
    // Signed with the key of another group: this server does not even know it.
    const group2 = groupKey(secrets().ticketSecrets[0]!, 'group2')
    expect(await codeOf(open(ticketOf({ group: 'group2' }, group2)))).to.equal('unauthorized')
    const misplaced = await open(ticketOf({ group: 'group2' }))
    expect(await codeOf(misplaced.request(COMMANDS.downloadFile, downloadOf(fileId)))).to.equal('forbidden')
  })

  it('believes no ticket that was changed, made up, or is held by somebody without its secret', async () => {
    const honest = ticketOf({ operations: ['read'] })
    const forged = Buffer.from(honest.ticket)
    forged[5] = 0b1111
    for (const [what, ticket] of [
      ['changed', { ...honest, ticket: forged }],
      ['made up', ticketOf({}, 'ab'.repeat(32))],
      [
        'made up under the name of a key',
        ticketOf({ keyId: keyIdOf(groupKey(secrets().ticketSecrets[0]!, 'group1')) }, 'ab'.repeat(32)),
      ],
      ['without its secret', { ...honest, key: Buffer.alloc(32) }],
      ['cut', { ...honest, ticket: honest.ticket.subarray(0, 20) }],
    ] as const)
      expect(await codeOf(open(ticket)), what).to.equal('unauthorized')
  })

  it('believes a ticket for its minute, by its own clock, and five seconds of error on both sides', async () => {
    const code = async (expiresS: number) => {
      const work = open(ticketOf({ expiresS })).then(made => made.request(COMMANDS.downloadFile, downloadOf(fileId)))
      return codeOf(work)
    }
    expect(await code(nowS() + 60 + 4), 'the tracker’s clock is ahead').to.equal('none')
    expect(await code(nowS() - 3), 'the tracker’s clock is behind').to.equal('none')
    expect(await code(nowS() + 60 + 8), 'too far ahead: it would be good for too long').to.equal('unauthorized')
    expect(await code(nowS() - 8), 'over').to.equal('unauthorized')
    const connection = await open(ticketOf({ expiresS: nowS() - 3 }))
    const codes = new Set<string>()
    for (const endMs = Date.now() + 6_000; Date.now() < endMs && !codes.has('ticket_expired'); ) {
      codes.add(await codeOf(connection.request(COMMANDS.downloadFile, downloadOf(fileId))))
      await timers.sleep(100)
    }
    expect([...codes], 'it ends while the connection lives').to.deep.equal(['none', 'ticket_expired'])
  })

  it('takes uploads under the ids of the ticket alone, and each once, however often it is sent', async () => {
    const files = await count()
    const uploadIds = '0123456789abcdef'
    const ticket = ticketOf({ operations: ['upload'], uploadIds })
    const body = uploadOf(`${uploadIds}${'0'.repeat(16)}`)
    const connections = [await open(ticket), await open(ticket)]
    const names = new Set<string>()
    for (const connection of [...connections, ...connections])
      names.add(formatFileId(readUploaded(await connection.request(COMMANDS.uploadOnce, body))))
    expect(names.size).to.equal(1)
    expect(await codeOf(connections[0]!.request(COMMANDS.uploadOnce, uploadOf('f'.repeat(32))))).to.equal('forbidden')
    const plain = writeUploadFields({ storePathIndex: 0xff, sizeBytes: 0, extension: '' })
    expect(await codeOf(connections[0]!.request(COMMANDS.uploadFile, plain)), 'without an id').to.equal('forbidden')
    expect(await count()).to.equal(files + 1)
  })

  it('is not fooled by a conversation that was overheard and is said again', async () => {
    const files = await count()
    const { ticket, key } = ticketOf({ operations: ['upload'], uploadIds: '00' })
    const sent: Buffer[] = []
    const overheard = new Proxy(await open(), {
      get: (target, name) => {
        if (name !== 'request') return Reflect.get(target, name)
        return (command: number, body: Buffer) => {
          sent.push(frame(command, body))
          return target.request(command, body)
        }
      },
    })
    await authenticate(overheard, { role: 'ticket', ticket, key }, world.random)
    await overheard.request(COMMANDS.uploadOnce, uploadOf('0'.repeat(32)))
    const raw = await RawConnection.connect(endpoint())
    opened.push({ close: () => raw.socket.destroy() })
    raw.send(Buffer.concat(sent))
    expect((await raw.reply()).status, 'the hello').to.equal(0)
    expect((await raw.reply()).status, 'the proof').to.equal(EACCES)
    expect(await count()).to.equal(files + 1)
    for (const bytes of sent) expect(bytes.includes(key), 'the secret').to.equal(false)
  })

  it('believes old keys for as long as they are listed, and signs with the first', async () => {
    const before = secrets()
    const [old = ''] = before.ticketSecrets
    const next = randomBytes(32).toString('hex')
    const oldKey = groupKey(old, 'group1')
    const restartWith = async (ticketSecrets: string[]) => {
      await cluster.stop()
      writeFileSync(secretsPath(), JSON.stringify({ ...before, ticketSecrets }))
      await cluster.up()
      client = await clientOf()
    }
    await restartWith([next, old])
    expect(await codeOf(open(ticketOf({}, oldKey)))).to.equal('none')
    expect(await codeOf(open(ticketOf()))).to.equal('none')
    expect(String(await client.download(fileId))).to.equal('for those who may')
    await restartWith([next])
    expect(await codeOf(open(ticketOf({}, oldKey)))).to.equal('unauthorized')
    expect(String(await client.download(fileId))).to.equal('for those who may')
  })

  it('says no secret in any log', () => {
    const { ticketSecrets } = secrets()
    const keys = ['group1', 'group2'].map(group => groupKey(ticketSecrets[0]!, group))
    const logs = ['tracker-1', 'storage-1', 'storage-2', 'gateway-1'].map(name =>
      readFileSync(join(cluster.data, 'logs', `${name}.log`), 'utf8'),
    )
    for (const log of [...logs, cluster.output])
      for (const secret of [...ticketSecrets, ...keys]) expect(log.includes(secret)).to.equal(false)
  })
})

describe('a data port that asks for the secret', function () {
  this.timeout(60_000)
  let cluster: RunningCluster
  before(async () => {
    cluster = await RunningCluster.start('--data-auth', 'secret', '--storages', '1')
  })
  after(() => cluster?.remove())

  it('is open to our clients, and closed to FastDFS’s', async () => {
    const client = await cluster.connect()
    const { fileId } = await client.upload(Buffer.from('secret'))
    expect(String(await client.download(fileId))).to.equal('secret')
    await client.close()
    const { host, port } = cluster.ports.storages[0]!
    const raw = await RawConnection.connect({ host, port })
    raw.send(frame(COMMANDS.downloadFile, writeDownload({ ...parseFileId(fileId), offset: 0, length: 0 })))
    expect((await raw.reply()).status).to.equal(EACCES)
    raw.socket.destroy()
  })
})
