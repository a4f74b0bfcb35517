/** Metadata through a cluster: FastDFS's bytes, the wrong door, and peers. */
import { expect } from 'chai'
import type { Client } from '../../../client/client.ts'
import { writeGroupAndName, writeSetMetadata } from '../../../protocol/data-bodies.ts'
import { decodeFileName, parseFileId } from '../../../protocol/file-id.ts'
import { COMMANDS, frame } from '../../../protocol/frame.ts'
import { METADATA_BYTES_MAX, metadataOf, writeMetadata } from '../../../protocol/metadata.ts'
import { RawConnection } from '../../runtime/frame-fixture.ts'
import { until } from '../../until.ts'
import { codeOf, SmallCluster } from '../small-cluster.ts'

const ENOENT = 2
const EINVAL = 22

for (const [kind, segmentFileBytesMax] of [
  ['plain', 0],
  ['small', 1_000],
] as const) {
  describe(`metadata of ${kind} files`, function () {
    this.timeout(30_000)
    let cluster: SmallCluster
    let client: Client
    let fileId: string

    before(async () => {
      cluster = await SmallCluster.start()
      await cluster.addStorage(1, { sync: true, segmentFileBytesMax })
      await cluster.addStorage(2, { sync: true, segmentFileBytesMax })
      client = await cluster.client()
      await until('they know each other', async () => (await client.status()).storages.length === 2)
    })
    after(() => cluster.remove())
    beforeEach(async () => {
      fileId = (await client.upload(Buffer.from('a file with metadata'))).fileId
    })

    it('is set, merged and taken away, and follows its file to the peer', async () => {
      expect(await client.getMetadata(fileId)).to.deep.equal({})
      await client.setMetadata(fileId, { width: '100', author: 'Ada' })
      await client.setMetadata(fileId, { width: '200', größe: 'µ' }, { merge: true })
      const all = { author: 'Ada', größe: 'µ', width: '200' }
      expect(await client.getMetadata(fileId)).to.deep.equal(all)
      const file = decodeFileName(parseFileId(fileId).name)
      const peer = cluster.members.get(2)!.storage.store
      const wanted = writeMetadata(metadataOf(all))
      await until('the peer has it', async () => (await peer.readMetadata(file))?.equals(wanted) === true)
      await client.setMetadata(fileId, { only: 'this' })
      expect(await client.getMetadata(fileId)).to.deep.equal({ only: 'this' })
      await client.setMetadata(fileId, {})
      expect(await client.getMetadata(fileId)).to.deep.equal({})
      await until('the peer has none', async () => (await peer.readMetadata(file))?.length === 0)
      await client.setMetadata(fileId, { last: 'word' })
      await client.delete(fileId)
      expect(await codeOf(client.getMetadata(fileId))).to.equal('not_found')
      expect(await codeOf(client.setMetadata(fileId, {}))).to.equal('not_found')
      await until('the peer has forgotten it', async () => (await peer.readMetadata(file)) === undefined)
    })

    it('is set and read through any member of the group', async () => {
      const { group, name } = parseFileId(fileId)
      const second = await cluster.connect(2)
      const metadata = writeMetadata(metadataOf({ a: '1' }))
      await second.request(COMMANDS.setMetadata, writeSetMetadata({ group, name, metadata, merges: false }))
      expect(await second.request(COMMANDS.getMetadata, writeGroupAndName(group, name))).to.deep.equal(metadata)
      expect(await client.getMetadata(fileId)).to.deep.equal({ a: '1' })
    })

    it('is 256 KiB at most, through any member, pipelined or not', async () => {
      const { group, name } = parseFileId(fileId)
      const entries = Array.from({ length: 960 }, (_, i) => [`name${i}`, String(i).padEnd(256, '.')])
      const metadata = writeMetadata(metadataOf(Object.fromEntries(entries)))
      expect(metadata.length).to.be.within(250_000, METADATA_BYTES_MAX)
      const second = await cluster.connect(2)
      const set = (bytes: Buffer, merges = false) =>
        second.request(COMMANDS.setMetadata, writeSetMetadata({ group, name, metadata: bytes, merges }))
      const other = (await client.upload(Buffer.from('another'))).fileId
      const ofOther = writeSetMetadata({
        ...parseFileId(other),
        metadata: writeMetadata(metadataOf({ b: '2' })),
        merges: false,
      })
      await Promise.all([set(metadata), second.request(COMMANDS.setMetadata, ofOther)])
      expect((await second.request(COMMANDS.getMetadata, writeGroupAndName(group, name))).equals(metadata)).to.equal(
        true,
      )
      expect(Object.keys(await client.getMetadata(fileId))).to.have.lengthOf(960)
      expect(await client.getMetadata(other)).to.deep.equal({ b: '2' })
      const peer = cluster.members.get(2)!.storage.store
      const file = decodeFileName(name)
      await until('the peer has it', async () => (await peer.readMetadata(file))?.equals(metadata) === true)
      const more = Object.fromEntries(Array.from({ length: 60 }, (_, i) => [`more${i}`, 'x'.repeat(256)]))
      expect(await codeOf(set(writeMetadata(metadataOf(more)), true))).to.equal('too_large')
      expect((await peer.readMetadata(file))?.equals(metadata)).to.equal(true)
    })

    it('is read from the peer while its source is away, and not changed there', async () => {
      await client.setMetadata(fileId, { a: '1' })
      const file = decodeFileName(parseFileId(fileId).name)
      const peer = cluster.members.get(2)!.storage.store
      await until('the peer has it', async () => (await peer.readMetadata(file)) !== undefined)
      await cluster.stopStorage(1)
      try {
        const { group, name } = parseFileId(fileId)
        const second = await cluster.connect(2)
        const found = await second.request(COMMANDS.getMetadata, writeGroupAndName(group, name))
        expect(found).to.deep.equal(writeMetadata(metadataOf({ a: '1' })))
        const body = writeSetMetadata({ group, name, metadata: Buffer.alloc(0), merges: false })
        expect(await codeOf(second.request(COMMANDS.setMetadata, body))).to.equal('unavailable')
      } finally {
        await cluster.addStorage(1, { sync: true, segmentFileBytesMax })
      }
    })

    it('answers FastDFS’s clients with FastDFS’s errors, and keeps the connection as FastDFS does', async () => {
      const connection = await RawConnection.connect(cluster.members.get(1)!.storage.endpoint)
      try {
        const { group, name } = parseFileId(fileId)
        const ask = async (command: number, body: Buffer) => {
          connection.send(frame(command, body))
          return connection.reply()
        }
        expect((await ask(COMMANDS.getMetadata, writeGroupAndName(group, name))).status).to.equal(ENOENT)
        const gone = (await client.upload(Buffer.from('soon gone'))).fileId
        await client.delete(gone)
        const missing = parseFileId(gone).name
        expect((await ask(COMMANDS.getMetadata, writeGroupAndName(group, missing))).status).to.equal(ENOENT)
        const lying = writeSetMetadata({ group, name, metadata: writeMetadata(metadataOf({ a: '1' })), merges: false })
        lying[7]!++
        expect((await ask(COMMANDS.setMetadata, lying)).status).to.equal(EINVAL)
        expect(await connection.untilEnded()).to.have.lengthOf(0)
      } finally {
        connection.destroy()
      }
    })
  })
}
