import { randomBytes } from 'node:crypto'
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'chai'
import type { Client } from '../../../client/client.ts'
import { writeGroupAndName } from '../../../protocol/data-bodies.ts'
import { decodeFileName, parseFileId } from '../../../protocol/file-id.ts'
import { COMMANDS } from '../../../protocol/frame.ts'
import type { FrameClient } from '../../../runtime/frame-client.ts'
import { fetchFile } from '../../data-port.ts'
import { until } from '../../until.ts'
import { codeOf, SmallCluster } from '../small-cluster.ts'

const LARGE_BYTES = 3 * 2 ** 20 + 17

describe('a storage server that is asked for a file it does not have', function () {
  this.timeout(30_000)
  let cluster: SmallCluster
  let client: Client
  let second: FrameClient

  beforeEach(async () => {
    cluster = await SmallCluster.start()
    await cluster.addStorage(1, { sync: false })
    await cluster.addStorage(2, { sync: false })
    client = await cluster.client()
    second = await cluster.connect(2)
    await until('they know each other', async () => {
      const { storages } = await client.status()
      return storages.length === 2
    })
  })
  afterEach(() => cluster.remove())

  it('passes the bytes on from the source, whole and in ranges, so that sync lag is never a miss', async () => {
    const bytes = randomBytes(LARGE_BYTES)
    const { fileId } = await client.upload(bytes, { extension: 'bin' })
    expect(decodeFileName(parseFileId(fileId).name).storageId).to.equal(1)
    expect(await fetchFile(second, fileId)).to.deep.equal(bytes)
    expect(await fetchFile(second, fileId, { offset: 1_000_000, length: 70_000 })).to.deep.equal(
      bytes.subarray(1_000_000, 1_070_000),
    )
  })

  it('passes on what several connections ask for in one go, however their replies have to wait for each other', async () => {
    const files = new Map<string, Buffer>()
    for (let i = 0; i < 64; i++) {
      const bytes = randomBytes(i % 8 === 0 ? 300_000 : 1 + ((i * 977) % 9000))
      files.set((await client.upload(bytes)).fileId, bytes)
    }
    const connections = await Promise.all(Array.from({ length: 5 }, () => cluster.connect(2)))
    const arrived = connections.map(async connection => {
      const found = [...files.keys()].map(fileId => fetchFile(connection, fileId))
      return Promise.all(found)
    })
    for (const found of await Promise.all(arrived)) {
      for (const [i, bytes] of [...files.values()].entries())
        expect(found[i]!.equals(bytes), `file ${i}`).to.equal(true)
    }
  })

  it('asks the source about it', async () => {
    const { fileId } = await client.upload(Buffer.from('info'))
    const id = parseFileId(fileId)
    const info = await second.request(COMMANDS.queryFileInfo, writeGroupAndName(id.group, id.name))
    expect(info.readUInt32BE(4)).to.equal(4)
  })

  it('has the source delete it, and then it is gone for everybody', async () => {
    const { fileId } = await client.upload(Buffer.from('to go'))
    const id = parseFileId(fileId)
    await second.request(COMMANDS.deleteFile, writeGroupAndName(id.group, id.name))
    expect(await codeOf(fetchFile(second, fileId))).to.equal('not_found')
    expect(await codeOf(client.info(fileId))).to.equal('not_found')
  })

  it('says "unavailable", never "not found", while the source cannot be asked', async () => {
    const { fileId } = await client.upload(Buffer.from('only at the source'))
    const own = await cluster.connect(2, 'client')
    await cluster.stopStorage(1)
    expect(await codeOf(fetchFile(own, fileId))).to.equal('unavailable')
    await cluster.addStorage(1, { sync: false })
    const reachable = () =>
      fetchFile(own, fileId).then(
        bytes => bytes.toString(),
        () => undefined,
      )
    expect(await until('the source is back', reachable)).to.equal('only at the source')
  })

  it('gets everything when sync starts, and serves it without the source', async () => {
    const files = new Map<string, Buffer>()
    for (const size of [0, 1, 5000, 262_144, LARGE_BYTES]) {
      const bytes = randomBytes(size)
      files.set((await client.upload(bytes)).fileId, bytes)
    }
    const { fileId: gone } = await client.upload(Buffer.from('deleted before it was shipped'))
    await client.delete(gone)
    await cluster.startSync(1)
    const last = () =>
      cluster.members.get(2)!.storage.store.position(1)?.sequence === cluster.members.get(1)!.storage.store.end.sequence
    await until('everything is applied', last)
    await cluster.stopStorage(1)
    for (const [fileId, bytes] of files) expect(await fetchFile(second, fileId)).to.deep.equal(bytes)
  })

  it('asks its peers for its own files too, once it has lost its data and goes on under a later epoch', async () => {
    const { fileId } = await client.upload(Buffer.from('the peer still has it'))
    await cluster.startSync(1)
    await until('the peer has it', () => cluster.members.get(2)!.storage.store.position(1)?.sequence === 1)
    const { dataDirectory } = cluster.members.get(1)!
    await cluster.stopStorage(1)
    rmSync(dataDirectory, { recursive: true })
    const { storage } = await cluster.addStorage(1, { sync: false })
    expect(storage.store.epoch).to.equal(2)
    const first = await cluster.connect(1, 'client')
    expect((await fetchFile(first, fileId)).toString()).to.equal('the peer still has it')
    const id = parseFileId(fileId)
    expect(await codeOf(first.request(COMMANDS.deleteFile, writeGroupAndName(id.group, id.name)))).to.equal(
      'unavailable',
    )
    await cluster.stopStorage(2)
    expect(await codeOf(fetchFile(first, fileId))).to.equal('unavailable')
  })

  it('goes on from a peer, in the middle of a file, when a block of its own copy is bad', async () => {
    const bytes = randomBytes(LARGE_BYTES)
    const { fileId } = await client.upload(bytes)
    await cluster.startSync(1)
    await until('the peer has it', () => cluster.members.get(2)!.storage.store.position(1)?.sequence === 1)
    const { directory, baseName } = decodeFileName(parseFileId(fileId).name)
    const path = join(cluster.members.get(1)!.dataDirectory, 'store', 'data', directory, baseName)
    const copy = readFileSync(path)
    copy[2 ** 20 + 5]! ^= 1
    writeFileSync(path, copy)
    const first = await cluster.connect(1)
    expect(await fetchFile(first, fileId)).to.deep.equal(bytes)
    rmSync(`${path}~sum`)
    expect(await fetchFile(first, fileId)).to.deep.equal(bytes)
  })
})
