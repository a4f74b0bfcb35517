/** Appender files through a cluster: FastDFS's bytes, the wrong door, peers, and the SDK. */
import { randomBytes } from 'node:crypto'
import { crc32 } from '@node-rs/crc32'
import { expect } from 'chai'
import type { Client } from '../../../client/client.ts'
import { readGroupAndName, writeChange } from '../../../protocol/data-bodies.ts'
import { decodeFileName, formatFileId, parseFileId } from '../../../protocol/file-id.ts'
import { COMMANDS, frame } from '../../../protocol/frame.ts'
import { fetchFile } from '../../data-port.ts'
import { RawConnection } from '../../runtime/frame-fixture.ts'
import { until } from '../../until.ts'
import { codeOf, SmallCluster } from '../small-cluster.ts'

const ENOENT = 2
const EINVAL = 22

describe('appender files', function () {
  this.timeout(30_000)
  let cluster: SmallCluster
  let client: Client

  before(async () => {
    cluster = await SmallCluster.start()
    await cluster.addStorage(1)
    await cluster.addStorage(2)
    client = await cluster.client()
    await until('they know each other', async () => (await client.status()).storages.length === 2)
  })
  after(() => cluster.remove())

  async function isAtPeer(fileId: string, content: Buffer): Promise<boolean> {
    const peer = await cluster.connect(2, 'peer')
    return fetchFile(peer, fileId).then(
      found => found.equals(content),
      () => false,
    )
  }

  it('are made, written, cut and made plain, here and at the peer', async () => {
    const first = randomBytes(300_000)
    const { fileId } = await client.uploadAppender(first, { extension: 'log' })
    expect(decodeFileName(parseFileId(fileId).name)).to.include({ kind: 'appender', storageId: 1 })
    const second = randomBytes(1_000_000)
    await client.append(fileId, second)
    let content = Buffer.concat([first, second])
    expect((await client.download(fileId)).equals(content)).to.equal(true)
    const change = randomBytes(1_000)
    await client.modify(fileId, 299_500, change)
    change.copy(content, 299_500)
    await client.truncate(fileId, 299_900)
    content = content.subarray(0, 299_900)
    expect((await client.download(fileId)).equals(content)).to.equal(true)
    expect(await client.info(fileId)).to.include({ sizeBytes: content.length, crc32: crc32(content) })
    await until('the peer has it', () => isAtPeer(fileId, content))
    expect(await codeOf(client.truncate(fileId, 300_000))).to.equal('bad_range')
    expect(await codeOf(client.modify(fileId, 300_000, Buffer.from('x')))).to.equal('bad_range')
    const plain = await client.regenerate(fileId)
    expect(decodeFileName(parseFileId(plain.fileId).name)).to.include({ kind: 'plain', sizeBytes: content.length })
    expect((await client.download(plain.fileId)).equals(content)).to.equal(true)
    expect(await codeOf(client.append(fileId, Buffer.from('x')))).to.equal('not_found')
    await until('the peer has the plain one', () => isAtPeer(plain.fileId, content))
    expect(await codeOf(client.append(plain.fileId, Buffer.from('x')))).to.equal('bad_request')
  })

  it('are changed through any member of the group', async () => {
    const { fileId } = await client.uploadAppender(Buffer.from('first'))
    const { name } = parseFileId(fileId)
    const second = await cluster.connect(2)
    const bytes = randomBytes(200_000)
    await second.request(COMMANDS.append, Buffer.concat([writeChange(name, bytes.length), bytes]))
    await second.request(COMMANDS.modify, Buffer.concat([writeChange(name, 0, 5), Buffer.from('FIRST')]))
    await second.request(COMMANDS.truncate, writeChange(name, 100_000))
    const content = Buffer.concat([Buffer.from('FIRST'), bytes]).subarray(0, 100_000)
    expect((await client.download(fileId)).equals(content)).to.equal(true)
    const made = await second.request(COMMANDS.regenerate, Buffer.from(name))
    expect((await client.download(formatFileId(readGroupAndName(made)))).equals(content)).to.equal(true)
  })

  it('reach a peer that was away, however much has changed', async () => {
    await cluster.stopStorage(2)
    const { fileId } = await client.uploadAppender(randomBytes(1_000))
    let content = await client.download(fileId)
    for (let i = 0; i < 30; i++) {
      const bytes = randomBytes(1 + ((i * 7_919) % 90_000))
      const offset = (i * 104_729) % (content.length + 1)
      if (i % 3 === 0) {
        await client.truncate(fileId, offset)
        content = content.subarray(0, offset)
      } else if (i % 3 === 1) {
        await client.append(fileId, bytes)
        content = Buffer.concat([content, bytes])
      } else {
        await client.modify(fileId, offset, bytes)
        const rest = content.subarray(Math.min(content.length, offset + bytes.length))
        content = Buffer.concat([content.subarray(0, offset), bytes, rest])
      }
    }
    expect((await client.download(fileId)).equals(content)).to.equal(true)
    await cluster.addStorage(2)
    await until('the peer has it', () => isAtPeer(fileId, content))
  })

  it('refused by their source before all of a change has come, leave the connection of who asked as it is', async () => {
    const { fileId } = await client.uploadAppender(Buffer.from('soon gone'))
    await client.delete(fileId)
    const connection = await RawConnection.connect(cluster.members.get(2)!.storage.endpoint)
    const { blocks } = cluster.members.get(2)!.storage
    try {
      const bytes = randomBytes(200_000)
      const request = frame(
        COMMANDS.append,
        Buffer.concat([writeChange(parseFileId(fileId).name, bytes.length), bytes]),
      )
      const refused = () => cluster.members.get(1)!.storage.store.counters.total_append_count
      const before = refused()
      connection.send(request.subarray(0, 1_000))
      await until('the source has refused it', () => refused() > before)
      await new Promise(resolve => setTimeout(resolve, 50))
      expect(blocks.takenBytes).greaterThan(0)
      connection.send(request.subarray(1_000))
      expect(await connection.reply()).to.include({ status: ENOENT })
      connection.send(frame(COMMANDS.activeTest, Buffer.alloc(0)))
      expect(await connection.reply()).to.include({ status: 0 })
      expect(blocks.takenBytes).equal(0)
    } finally {
      connection.destroy()
    }
  })

  it('answer FastDFS’s clients with FastDFS’s errors, and keep the connection as FastDFS does', async () => {
    const connect = () => RawConnection.connect(cluster.members.get(1)!.storage.endpoint)
    let connection = await connect()
    try {
      const ask = async (command: number, body: Buffer) => {
        connection.send(frame(command, body))
        return connection.reply()
      }
      const { name } = parseFileId((await client.uploadAppender(Buffer.from('abc'), { extension: 'log' })).fileId)
      const regenerated = await ask(COMMANDS.regenerate, Buffer.from(name))
      const gone = Buffer.concat([writeChange(name, 3), Buffer.from('def')])
      expect(await ask(COMMANDS.append, gone)).to.include({ status: ENOENT })
      const plain = readGroupAndName(regenerated.body).name
      const negative = (body: Buffer) => body.fill(0xff, 8, 16)
      const wrong: [number, Buffer][] = [
        [COMMANDS.append, Buffer.concat([writeChange(plain, 1), Buffer.from('x')])],
        [COMMANDS.append, Buffer.concat([writeChange(name, 2), Buffer.from('x')])],
        [COMMANDS.append, writeChange(name, 0)],
        [COMMANDS.modify, Buffer.concat([negative(writeChange(name, 0, 1)), Buffer.from('x')])],
        [COMMANDS.truncate, negative(writeChange(name, 0))],
        [COMMANDS.truncate, Buffer.alloc(15)],
        [COMMANDS.regenerate, Buffer.alloc(0)],
        [COMMANDS.regenerate, Buffer.from(plain)],
      ]
      for (const [command, body] of wrong) {
        expect((await ask(command, body)).status, `${command} ${body.toString('hex')}`).to.equal(EINVAL)
        expect(await connection.untilEnded()).to.have.lengthOf(0)
        connection = await connect()
      }
    } finally {
      connection.destroy()
    }
  })
})
