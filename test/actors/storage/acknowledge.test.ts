/** Uploads that more members than their source have to hold before they are answered. */
import { expect } from 'chai'
import type { Client } from '../../../client/client.ts'
import type { UploadOptions } from '../../../client/upload.ts'
import type { AckLevel } from '../../../protocol/ack.ts'
import { readGroupAndName, writeUploadFields } from '../../../protocol/data-bodies.ts'
import { parseFileId } from '../../../protocol/file-id.ts'
import { COMMANDS } from '../../../protocol/frame.ts'
import { contentOf } from '../../store/store-fixture.ts'
import { until } from '../../until.ts'
import { codeOf, SmallCluster } from '../small-cluster.ts'

const SOURCE = 1
const UPLOAD_ID = 'ab'.repeat(16)
const BYTES = contentOf(3000)
/** No peer that is away comes back in it. */
const SHORT_MS = 300

for (const [kind, segmentFileBytesMax] of [
  ['small files', 2 ** 20],
  ['plain files', 0],
] as const) {
  describe(`acknowledging ${kind}`, function () {
    this.timeout(30_000)
    let cluster: SmallCluster
    let client: Client

    beforeEach(async () => {
      cluster = await SmallCluster.start()
      client = await cluster.client()
    })
    afterEach(() => cluster.remove())

    const start = (storageId: number, ack: AckLevel = 'one') =>
      cluster.addStorage(storageId, { sync: true, segmentFileBytesMax, ack })
    const source = () => cluster.members.get(SOURCE)!.storage

    /** Starts a group in which everybody knows everybody. */
    async function group(members: number, ack?: AckLevel): Promise<void> {
      for (let id = 1; id <= members; id++) await start(id, ack)
      await until('the source knows its peers', () => source().replicas.members === members)
    }
    const upload = (ack: AckLevel, options: UploadOptions = {}) =>
      client.upload(BYTES, { ack, ackTimeoutMs: SHORT_MS, ...options })
    const failure = (work: Promise<unknown>) =>
      work.then(
        () => undefined,
        error => ({ code: error.code, message: error.message.replace(/group1\/.*/, 'the file') }),
      )
    async function holders(fileId: string): Promise<number[]> {
      const { name } = parseFileId(fileId)
      const held = await Promise.all(
        [...cluster.members].map(async ([id, { storage }]) => ((await storage.store.has(name)) ? [id] : [])),
      )
      return held.flat()
    }
    async function uploadsRecorded(): Promise<number> {
      const { store } = source()
      let count = 0
      for await (const { record } of store.readRecords({ after: 0, until: store.end.sequence })) {
        if (record.op === 'C') count++
      }
      return count
    }

    it('says where a file is, at each level, when it is there', async () => {
      await group(3)
      const one = await upload('one')
      expect(one.receipt).to.deep.include({ durable: true, source: SOURCE, epoch: 1 })
      expect(one.receipt.replicas).to.be.within(1, 3)
      for (const [level, replicas] of [
        ['quorum', 2],
        ['all', 3],
      ] as const) {
        const { fileId, receipt } = await upload(level, { ackTimeoutMs: undefined })
        expect(receipt).to.deep.include({ durable: true, source: SOURCE, epoch: 1 })
        expect(receipt.sequence).to.be.above(one.receipt.sequence)
        expect(receipt.replicas).to.be.within(replicas, 3)
        expect(await holders(fileId)).to.have.lengthOf.at.least(replicas)
      }
    })

    it('says of two members that one holds it when the other is away, and keeps the file', async () => {
      await group(2)
      await cluster.stopStorage(2)
      for (const level of ['quorum', 'all'] as const) {
        expect(await failure(upload(level))).to.deep.equal({
          code: 'ack_timeout',
          message: '1 of 2 members hold the file',
        })
      }
      expect((await upload('one')).receipt.replicas).to.equal(1)
      expect(await uploadsRecorded()).to.equal(3)
      expect(source().store.end.sequence).to.equal(3)
    })

    it('reaches a quorum of three without one of them, and says that all is one more', async () => {
      await group(3)
      await cluster.stopStorage(3)
      const { fileId, receipt } = await upload('quorum', { ackTimeoutMs: 5_000 })
      expect(receipt.replicas).to.equal(2)
      expect(await holders(fileId)).to.deep.equal([1, 2])
      expect(await failure(upload('all', { ackTimeoutMs: 1_000 }))).to.deep.equal({
        code: 'ack_timeout',
        message: '2 of 3 members hold the file',
      })
    })

    it('waits again for the same file when it is uploaded again after its peer has returned', async () => {
      await group(2)
      await cluster.stopStorage(2)
      const again = (ackTimeoutMs: number) => upload('all', { uploadId: UPLOAD_ID, ackTimeoutMs })
      expect(await failure(again(SHORT_MS))).to.include({ code: 'ack_timeout' })
      expect(await failure(again(SHORT_MS))).to.include({ code: 'ack_timeout' })
      await start(2)
      const { fileId, receipt } = await again(10_000)
      expect(receipt).to.deep.equal({ replicas: 2, durable: true, source: SOURCE, epoch: 1, sequence: 1 })
      expect(await holders(fileId)).to.deep.equal([1, 2])
      expect(await uploadsRecorded()).to.equal(1)
    })

    // The rest does not depend on where files lie.
    if (kind !== 'small files') return

    it('gives the first receipt to an upload that is sent again, also after a restart of its source', async () => {
      await group(2)
      const first = await upload('all', { uploadId: UPLOAD_ID, ackTimeoutMs: 5_000 })
      expect(await upload('all', { uploadId: UPLOAD_ID })).to.deep.equal(first)
      await cluster.stopStorage(SOURCE)
      await start(SOURCE)
      expect(source().replicas.members, 'known from its marks').to.equal(2)
      client = await cluster.client()
      expect(await upload('all', { uploadId: UPLOAD_ID, ackTimeoutMs: 5_000 })).to.deep.equal(first)
      expect(await uploadsRecorded()).to.equal(1)
    })

    it('waits for streams of unknown length, too', async () => {
      await group(2)
      async function* pieces() {
        for (const at of [0, 1000, 2000]) yield BYTES.subarray(at, at + 1000)
      }
      const options = { ack: 'all', extension: 'bin', ackTimeoutMs: 5_000 } as const
      expect((await client.upload(pieces(), options)).receipt.replicas).to.equal(2)
      await cluster.stopStorage(2)
      expect(await failure(client.upload(pieces(), { ...options, ackTimeoutMs: SHORT_MS }))).to.deep.equal({
        code: 'ack_timeout',
        message: '1 of 2 members hold the file',
      })
    })

    it("waits for the server's own level where FastDFS's client asks, with FastDFS's answers", async () => {
      await group(2, 'all')
      const fields = writeUploadFields({ storePathIndex: 0xff, sizeBytes: BYTES.length, extension: 'txt' })
      const ask = async () =>
        (await cluster.connect(SOURCE)).request(COMMANDS.uploadFile, Buffer.concat([fields, BYTES]))
      const reply = await ask()
      const { group: named, name } = readGroupAndName(reply)
      expect(named).to.equal('group1')
      expect(reply).to.have.lengthOf(16 + name.length)
      expect(await holders(`${named}/${name}`)).to.deep.equal([1, 2])
      expect((await upload('one')).receipt.replicas, 'a client that says its level is heard').to.be.within(1, 2)
      await cluster.stopStorage(2)
      expect(await codeOf(ask())).to.equal('timeout')
      expect(source().store.end.sequence).to.equal(3)
    })

    it('does not let a server that ends keep an upload waiting', async () => {
      await group(2)
      await cluster.stopStorage(2)
      const waiting = upload('all', { ackTimeoutMs: 10_000 }).catch(error => error.code)
      await until('it waits', () => source().store.end.sequence === 1)
      await cluster.stopStorage(SOURCE)
      await start(2)
      await start(SOURCE)
      await waiting
    })

    it('counts what a peer that is away lacks, and what it still lacked when its source began anew', async () => {
      await group(2)
      await upload('all', { ackTimeoutMs: 5_000 })
      const lack = async (storageId = SOURCE) => {
        const { storages } = await client.status()
        return storages.find(({ report }) => report.storageId === storageId)?.report.peers
      }
      await until('the peer lacks nothing', async () => (await lack())?.[0]?.records === 0)
      expect(await lack()).to.deep.equal([{ storageId: 2, records: 0, bytes: 0, behindMs: 0 }])
      await cluster.stopStorage(2)
      for (let i = 0; i < 3; i++) await upload('one')
      for (const when of ['now', 'after a start']) {
        await until(`it lacks three files ${when}`, async () => (await lack())?.[0]?.records === 3)
        const [behind] = (await lack())!
        expect(behind).to.include({ storageId: 2, records: 3, bytes: 3 * BYTES.length })
        expect(behind!.behindMs).to.be.within(1, 20_000)
        if (when === 'after a start') break
        await cluster.stopStorage(SOURCE)
        await start(SOURCE)
      }
      await start(2)
      await until('it lacks nothing any more', async () => (await lack())?.[0]?.records === 0)
    })
  })
}
