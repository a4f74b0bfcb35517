/** FastDFS's clients as people use them, unchanged: what they store is read by others, on both members, and the other way round. */
import { randomBytes } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable, Writable } from 'node:stream'
import { promisify } from 'node:util'
import { crc32 } from '@node-rs/crc32'
import { expect } from 'chai'
import type { Client } from '../client/client.ts'
import { decodeFileName, parseFileId } from '../protocol/file-id.ts'
import { SmallCluster } from './actors/small-cluster.ts'
import { fetchFile } from './data-port.ts'
import { until } from './until.ts'

const require = createRequire(import.meta.url)

type Options = Readonly<Record<string, unknown>>
interface Info {
  /** A text from the older client. */
  readonly size: number | string
  readonly timestamp: number
  readonly crc32: number | string
  readonly addr: string
}

/** What both clients can do, as promises. */
interface FdfsClient {
  upload(file: string | Buffer | Readable, options?: Options): Promise<string>
  download(fileId: string, options: Options): Promise<unknown>
  del(fileId: string): Promise<unknown>
  setMetaData(fileId: string, metadata: Readonly<Record<string, string>>, flag?: 'O' | 'M'): Promise<unknown>
  getMetaData(fileId: string): Promise<Record<string, string>>
  getFileInfo(fileId: string): Promise<Info>
}

const quiet = { log: () => {}, debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }
/** Around what is packed, and what has several pieces. */
const SIZES = [1, 100, 4_096, 65_536, 300_000, 2_500_000]

describe('FastDFS’s clients', function () {
  this.timeout(60_000)
  let cluster: SmallCluster
  let ours: Client
  let directory: string
  let clients: Record<'fdfs' | 'fdfs-client', FdfsClient>

  before(async () => {
    cluster = await SmallCluster.start()
    for (const storageId of [1, 2]) await cluster.addStorage(storageId, { sync: true, segmentFileBytesMax: 65_536 })
    ours = await cluster.client()
    await until('they know each other', async () => (await ours.status()).storages.length === 2)
    directory = mkdtempSync(join(tmpdir(), 'dfs-clients-'))
    const { host, port } = cluster.trackerEndpoint
    const config = () => ({ trackers: [{ host, port }], timeout: 10_000, defaultExt: 'bin', logger: quiet })
    clients = {
      fdfs: new (require('fdfs'))(config()),
      'fdfs-client': promised(new (require('fdfs-client'))(config())),
    }
  })
  after(async () => {
    await cluster.remove()
    rmSync(directory, { recursive: true, force: true })
  })

  async function downloadWith(client: FdfsClient, fileId: string, range: Options = {}): Promise<Buffer> {
    const pieces: Buffer[] = []
    const target = new Writable({
      write(piece, _, done) {
        pieces.push(piece)
        done()
      },
    })
    await client.download(fileId, { target, ...range })
    await until('all of it is here', () => target.writableLength === 0)
    return Buffer.concat(pieces)
  }
  async function isOnBoth(fileId: string, bytes: Buffer): Promise<void> {
    for (const storageId of [1, 2]) {
      const member = await cluster.connect(storageId, 'peer')
      const isThere = () =>
        fetchFile(member, fileId).then(
          found => found.equals(bytes),
          () => false,
        )
      await until(`member ${storageId} has ${fileId}`, isThere)
    }
  }

  for (const name of ['fdfs', 'fdfs-client'] as const) {
    it(`${name}: upload, download, info, metadata and delete`, async () => {
      const client = clients[name]
      for (const sizeBytes of SIZES) {
        const bytes = randomBytes(sizeBytes)
        const path = join(directory, `${name}-${sizeBytes}.jpg`)
        writeFileSync(path, bytes)
        const inputs = [
          () => client.upload(path),
          () => client.upload(bytes, { ext: 'jpg' }),
          () => client.upload(Readable.from([bytes]), { size: sizeBytes, ext: 'jpg' }),
        ]
        for (const upload of inputs) {
          const fileId = await upload()
          expect(fileId).to.match(/^group1\/M00\/.*\.jpg$/)
          expect(decodeFileName(parseFileId(fileId).name)).to.include({ sizeBytes, crc32: crc32(bytes) })
          expect((await downloadWith(client, fileId)).equals(bytes), `${sizeBytes} bytes`).to.equal(true)
          expect((await ours.download(fileId)).equals(bytes)).to.equal(true)
        }
        const fileId = await client.upload(path)
        await isOnBoth(fileId, bytes)
        if (sizeBytes > 50) {
          const part = await downloadWith(client, fileId, { offset: 17, bytes: 31 })
          expect(part.equals(bytes.subarray(17, 48))).to.equal(true)
        }
        const info = await client.getFileInfo(fileId)
        expect([Number(info.size), info.addr]).to.deep.equal([sizeBytes, '127.0.0.1'])
        // The older client loses the last digits of a number with the sign of 64 bits.
        if (name === 'fdfs') expect(Number(info.crc32) >>> 0).to.equal(crc32(bytes))
        await client.setMetaData(fileId, { width: '100', author: 'me' })
        expect(await client.getMetaData(fileId)).to.deep.equal({ width: '100', author: 'me' })
        await client.setMetaData(fileId, { width: '200' }, 'M')
        expect(await client.getMetaData(fileId)).to.deep.equal({ width: '200', author: 'me' })
        expect(await ours.getMetadata(fileId)).to.deep.equal({ width: '200', author: 'me' })
        await client.del(fileId)
        const error = await client.getFileInfo(fileId).catch((reason: unknown) => reason)
        expect(String(error), 'a file that is gone').to.match(/error|2|ENOENT/i)
      }
    })

    it(`${name}: reads what our own client stores`, async () => {
      const bytes = randomBytes(100_000)
      const { fileId } = await ours.upload(bytes, { extension: 'png' })
      expect((await downloadWith(clients[name], fileId)).equals(bytes)).to.equal(true)
      await ours.setMetadata(fileId, { from: 'us' })
      expect(await clients[name].getMetaData(fileId)).to.deep.equal({ from: 'us' })
      const path = join(directory, `${name}-download`)
      await clients[name].download(fileId, { target: path })
      await until('the file is written', () => readFileSync(path).equals(bytes))
    })
  }

  it('fdfs: the life of an appender file, through whichever member the tracker names', async () => {
    const client = clients.fdfs
    const bytes = randomBytes(1_000)
    const fileId = await client.upload(bytes, { method: 'uploadAppender', ext: 'log' })
    let content = bytes
    for (let i = 0; i < 6; i++) {
      const more = randomBytes(50_000 * (i + 1))
      await client.upload(more, { method: 'append', fileId })
      content = Buffer.concat([content, more])
      const change = randomBytes(300)
      await client.upload(change, { method: 'modify', fileId, offset: 500 * i })
      change.copy(content, 500 * i)
    }
    expect((await downloadWith(client, fileId)).equals(content)).to.equal(true)
    expect(await client.getFileInfo(fileId)).to.include({ size: content.length })
    await isOnBoth(fileId, content)
  })
})

/** The older client calls back. */
function promised(client: object): FdfsClient {
  return new Proxy(client, {
    get: (target, name: string) =>
      promisify((target as Record<string, (...args: unknown[]) => void>)[name]!).bind(target),
  }) as FdfsClient
}
