/** Slave files through a cluster: FastDFS's bytes, the wrong door, and peers. */
import { randomBytes } from 'node:crypto'
import { crc32 } from '@node-rs/crc32'
import { expect } from 'chai'
import type { Client } from '../../../client/client.ts'
import { readGroupAndName, writeSlave } from '../../../protocol/data-bodies.ts'
import { formatFileId, parseFileId } from '../../../protocol/file-id.ts'
import { COMMANDS, frame } from '../../../protocol/frame.ts'
import { fetchFile } from '../../data-port.ts'
import { RawConnection } from '../../runtime/frame-fixture.ts'
import { until } from '../../until.ts'
import { codeOf, SmallCluster } from '../small-cluster.ts'

const ENOENT = 2
const EEXIST = 17
const EINVAL = 22
const SMALL = { prefix: '_150x150', extension: 'jpg' }

describe('slave files', function () {
  this.timeout(30_000)
  let cluster: SmallCluster
  let client: Client
  let masterId: string

  before(async () => {
    cluster = await SmallCluster.start()
    await cluster.addStorage(1, { sync: true, segmentFileBytesMax: 1_000 })
    await cluster.addStorage(2, { sync: true, segmentFileBytesMax: 1_000 })
    client = await cluster.client()
    await until('they know each other', async () => (await client.status()).storages.length === 2)
  })
  after(() => cluster.remove())
  beforeEach(async () => {
    masterId = (await client.upload(randomBytes(100), { extension: 'png' })).fileId
  })

  for (const sizeBytes of [0, 777, 300_000, 2 ** 21 + 5])
    it(`of ${sizeBytes} bytes are stored, told of, replicated, deleted, and come again`, async () => {
      const bytes = randomBytes(sizeBytes)
      const { fileId } = await client.uploadSlave(masterId, bytes, SMALL)
      expect(fileId).to.equal(masterId.replace('.png', '_150x150.jpg'))
      expect(await client.info(fileId)).to.include({ sizeBytes, crc32: crc32(bytes), source: 1 })
      expect((await client.download(fileId)).equals(bytes)).to.equal(true)
      expect(await codeOf(client.uploadSlave(masterId, bytes, SMALL))).to.equal('already_exists')
      const second = await cluster.connect(2)
      expect((await fetchFile(second, fileId)).equals(bytes)).to.equal(true)
      const peer = cluster.members.get(2)!.storage.store
      const { name } = parseFileId(fileId)
      await until('the peer has it', () => peer.has(name))
      await client.delete(fileId)
      expect(await codeOf(client.download(fileId))).to.equal('not_found')
      await until('the peer has it no more', async () => !(await peer.has(name)))
      const other = randomBytes(50)
      await client.uploadSlave(masterId, other, SMALL)
      expect((await client.download(fileId)).equals(other)).to.equal(true)
      await until('the peer has the new one', async () => (await peer.open(name))?.sizeBytes === 50)
    })

  it('come in through any member of the group', async () => {
    const { name } = parseFileId(masterId)
    const bytes = randomBytes(200_000)
    const second = await cluster.connect(2)
    const head = writeSlave({ sizeBytes: bytes.length, prefix: '_b', extension: 'webp' }, name)
    const reply = await second.request(COMMANDS.uploadSlave, Buffer.concat([head, bytes]))
    const fileId = formatFileId(readGroupAndName(reply))
    expect(fileId).to.equal(masterId.replace('.png', '_b.webp'))
    expect((await client.download(fileId)).equals(bytes)).to.equal(true)
  })

  it('answer FastDFS’s clients with FastDFS’s errors, and keep the connection as FastDFS does', async () => {
    const connection = await RawConnection.connect(cluster.members.get(1)!.storage.endpoint)
    try {
      const { name } = parseFileId(masterId)
      const ask = async (master: string, prefix: string, bytes = Buffer.from('SLAV')) => {
        const head = writeSlave({ sizeBytes: bytes.length, prefix, extension: 'jpg' }, master)
        connection.send(frame(COMMANDS.uploadSlave, Buffer.concat([head, bytes])))
        return (await connection.reply()).status
      }
      expect(await ask(name, '_one')).to.equal(0)
      expect(await ask(name, '_one')).to.equal(EEXIST)
      expect(await ask(name, '_two')).to.equal(0)
      await client.delete(masterId)
      expect(await ask(name, '_three')).to.equal(ENOENT)
      expect(await ask(name, '')).to.equal(EINVAL)
      expect(await connection.untilEnded()).to.have.lengthOf(0)
    } finally {
      connection.destroy()
    }
  })
})
