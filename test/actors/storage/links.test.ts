/** Links through a cluster: of files of every kind, as new files and as slave files, at either door, and without their source. */
import { randomBytes } from 'node:crypto'
import { crc32 } from '@node-rs/crc32'
import { expect } from 'chai'
import type { Client } from '../../../client/client.ts'
import { readFileInfo, readGroupAndName, writeGroupAndName, writeLink } from '../../../protocol/data-bodies.ts'
import { decodeFileName, formatFileId, parseFileId } from '../../../protocol/file-id.ts'
import { COMMANDS, frame } from '../../../protocol/frame.ts'
import { fetchFile } from '../../data-port.ts'
import { RawConnection } from '../../runtime/frame-fixture.ts'
import { until } from '../../until.ts'
import { codeOf, SmallCluster } from '../small-cluster.ts'

const ENOENT = 2
const EEXIST = 17
const EINVAL = 22
const OPTIONS = { sync: true, segmentFileBytesMax: 1_000 }

describe('links', function () {
  this.timeout(30_000)
  let cluster: SmallCluster
  let client: Client

  before(async () => {
    cluster = await SmallCluster.start()
    await cluster.addStorage(1, OPTIONS)
    await cluster.addStorage(2, OPTIONS)
    client = await cluster.client()
    await until('they know each other', async () => (await client.status()).storages.length === 2)
  })
  after(() => cluster.remove())

  const kinds: Record<string, (bytes: Buffer) => Promise<{ fileId: string }>> = {
    plain: bytes => client.upload(bytes, { extension: 'png' }),
    appender: bytes => client.uploadAppender(bytes, { extension: 'png' }),
    slave: async bytes => {
      const master = await client.upload(Buffer.from('master'), { extension: 'jpg' })
      return client.uploadSlave(master.fileId, bytes, { prefix: '_x', extension: 'png' })
    },
  }
  for (const [kind, make] of Object.entries(kinds)) {
    for (const sizeBytes of [0, 500, 300_000]) {
      it(`of ${kind} files of ${sizeBytes} bytes are files of their own, on both members`, async () => {
        const bytes = randomBytes(sizeBytes)
        const { fileId } = await make(bytes)
        const link = await client.createLink(fileId)
        expect(link.fileId).not.to.equal(fileId)
        const { kind: made, ...parts } = decodeFileName(parseFileId(link.fileId).name)
        expect([made, parts.sizeBytes, parts.crc32]).to.deep.equal(['plain', sizeBytes, crc32(bytes)])
        expect(link.fileId).to.match(/\.png$/)
        const { fileId: masterId } = await client.upload(Buffer.from('another master'))
        const slave = await client.createLink(fileId, { masterId, prefix: '_l', extension: 'gif' })
        expect(slave.fileId).to.equal(`${masterId}_l.gif`)
        expect(await codeOf(client.createLink(fileId, { masterId, prefix: '_l', extension: 'gif' }))).to.equal(
          'already_exists',
        )
        await client.delete(fileId)
        const second = await cluster.connect(2, 'peer')
        for (const made of [link.fileId, slave.fileId]) {
          expect((await client.download(made)).equals(bytes)).to.equal(true)
          const isThere = () =>
            fetchFile(second, made)
              .then(found => found.equals(bytes))
              .catch(() => false)
          await until('the peer has it', isThere)
        }
        expect(await codeOf(client.createLink(fileId))).to.equal('not_found')
      })
    }
  }

  it('go through any member, also of a file that another one took', async () => {
    const bytes = randomBytes(5_000)
    const { fileId } = await client.upload(bytes)
    const { name } = parseFileId(fileId)
    const second = await cluster.connect(2)
    const made = async (master: string, prefix: string) => {
      const body = writeLink({ group: 'group1', master, name, prefix, extension: 'bin' })
      return formatFileId(readGroupAndName(await second.request(COMMANDS.createLink, body)))
    }
    expect((await client.download(await made('', ''))).equals(bytes)).to.equal(true)
    // A master of the second one: the link is made there.
    const reply = await second.request(
      COMMANDS.uploadFile,
      Buffer.concat([Buffer.from('ff0000000000000003', 'hex'), Buffer.alloc(6), Buffer.from('abc')]),
    )
    const { name: master } = readGroupAndName(reply)
    expect(decodeFileName(master).storageId).to.equal(2)
    await until('the second one has the file', () => cluster.members.get(2)!.storage.store.has(name))
    expect((await client.download(await made(master, '_of'))).equals(bytes)).to.equal(true)
    const appender = (await client.uploadAppender(bytes)).fileId
    const named = { masterId: `group1/${master}`, prefix: '_no' }
    expect(await codeOf(client.createLink(appender, named))).to.equal('not_supported')
  })

  it('of a slave file under its own name, and crosswise, are refused and wait for nobody', async () => {
    const { fileId: masterId } = await client.upload(Buffer.from('master'), { extension: 'jpg' })
    const slaves: string[] = []
    for (const prefix of ['_a', '_b']) {
      slaves.push((await client.uploadSlave(masterId, randomBytes(9), { prefix, extension: 'jpg' })).fileId)
    }
    const [a, b] = slaves as [string, string]
    const link = (fileId: string, prefix: string) =>
      codeOf(client.createLink(fileId, { masterId, prefix, extension: 'jpg' }))
    expect(await Promise.all([link(a, '_a'), link(a, '_b'), link(b, '_a')])).to.deep.equal(
      Array(3).fill('already_exists'),
    )
  })

  it('of an appender file keep what it was between two changes', async () => {
    const { fileId } = await client.uploadAppender(Buffer.alloc(300_000, 1))
    const changes = Promise.all(
      Array.from({ length: 20 }, (_, i) => client.modify(fileId, 0, Buffer.alloc(300_000, i + 2))),
    )
    for (let i = 0; i < 10; i++) {
      const bytes = await client.download((await client.createLink(fileId)).fileId)
      expect(bytes.equals(Buffer.alloc(300_000, bytes[0]!))).to.equal(true)
    }
    await changes
  })

  it('are answered as FastDFS answers, and keep the connection as it does', async () => {
    const { name } = parseFileId((await client.upload(Buffer.from('linked'))).fileId)
    const gone = parseFileId((await client.upload(Buffer.from('gone'))).fileId)
    await client.delete(formatFileId(gone))
    const connect = () => RawConnection.connect(cluster.members.get(1)!.storage.endpoint)
    let connection = await connect()
    const whole = { group: 'group1', master: '', name, prefix: '', extension: 'lnk' }
    try {
      const ask = async (body: Buffer) => {
        connection.send(frame(COMMANDS.createLink, body))
        return connection.reply()
      }
      // What FastDHT would know a file by is passed over.
      const signed = Buffer.concat([writeLink(whole), Buffer.alloc(24, 7)])
      signed[23] = 24
      const made = await ask(signed)
      expect([made.status, made.body.length]).to.deep.equal([0, 60])
      expect((await ask(writeLink({ ...whole, name: gone.name }))).status).to.equal(ENOENT)
      const slave = writeLink({ ...whole, master: name, prefix: '_l' })
      expect((await ask(slave)).status).to.equal(0)
      expect((await ask(slave)).status).to.equal(EEXIST)
      expect((await ask(writeLink({ ...whole, master: gone.name, prefix: '_l' }))).status).to.equal(ENOENT)
      const huge = writeLink(whole).fill(0x7f, 8, 16)
      for (const wrong of [
        writeLink({ ...whole, group: 'group2' }),
        writeLink({ ...whole, name: '' }),
        writeLink({ ...whole, name: `${name.slice(0, 10)}../../${name.slice(10)}` }),
        writeLink({ ...whole, prefix: '_l' }),
        writeLink({ ...whole, master: name }),
        writeLink({ ...whole, extension: '../a' }),
        signed.subarray(0, -1),
        huge,
        Buffer.alloc(10),
        Buffer.alloc(1_000),
      ]) {
        expect((await ask(wrong)).status, wrong.toString('latin1')).to.equal(EINVAL)
        await connection.untilEnded()
        connection.destroy()
        connection = await connect()
      }
    } finally {
      connection.destroy()
    }
  })

  it('count in the statistics', async () => {
    const { counters } = cluster.members.get(1)!.storage.store
    const { total_create_link_count, success_create_link_count } = counters
    const { fileId } = await client.upload(Buffer.from('counted'))
    await client.createLink(fileId)
    expect(counters).to.include({
      total_create_link_count: total_create_link_count + 1,
      success_create_link_count: success_create_link_count + 1,
    })
  })

  it('leave file info its flags: no CRC32 where the name does not say it', async () => {
    const { fileId } = await client.uploadAppender(Buffer.from('abc'))
    const plain = (await client.createLink(fileId)).fileId
    for (const storageId of [1, 2]) {
      const connection = await cluster.connect(storageId)
      const infoOf = async (id: string, flags: number) => {
        const { group, name } = parseFileId(id)
        return readFileInfo(await connection.request(COMMANDS.queryFileInfo, writeGroupAndName(group, name), flags))
      }
      for (const flags of [0, 2]) expect((await infoOf(fileId, flags)).crc32).to.equal(crc32('abc'))
      for (const flags of [1, 3]) expect(await infoOf(fileId, flags)).to.include({ crc32: 0, sizeBytes: 3 })
      expect((await infoOf(plain, 1)).crc32).to.equal(crc32('abc'))
    }
  })
})
