/** The data port as FastDFS clients see it, byte by byte, and what it does with bytes no client should send. */
import { randomBytes } from 'node:crypto'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { crc32 } from '@node-rs/crc32'
import { expect } from 'chai'
import { readGroupAndName, writeDownload, writeGroupAndName, writeUploadFields } from '../../../protocol/data-bodies.ts'
import { decodeFileName } from '../../../protocol/file-id.ts'
import { COMMANDS, frame, header } from '../../../protocol/frame.ts'
import { writeSyncRecord } from '../../../protocol/sync-bodies.ts'
import { RawConnection } from '../../runtime/frame-fixture.ts'
import { until } from '../../until.ts'
import { SmallCluster } from '../small-cluster.ts'

const ENOENT = 2
const EACCES = 13
const EBUSY = 16
const EINVAL = 22

describe('the data port of a storage server', function () {
  this.timeout(20_000)
  let cluster: SmallCluster
  let connection: RawConnection

  before(async () => {
    cluster = await SmallCluster.start()
    await cluster.addStorage(1)
  })
  after(() => cluster.remove())
  beforeEach(async () => {
    connection = await RawConnection.connect(cluster.members.get(1)!.storage.endpoint)
  })
  afterEach(() => connection.destroy())

  it('answers an active test and ends on quit without a word', async () => {
    connection.send(header(COMMANDS.activeTest, 0))
    expect(await connection.reply()).to.deep.equal({ command: 100, status: 0, body: Buffer.alloc(0) })
    connection.send(header(COMMANDS.quit, 0))
    expect(await connection.untilEnded()).to.have.lengthOf(0)
  })

  it('takes an upload and answers with group and a name that says size, sum and extension', async () => {
    const bytes = Buffer.from('hello fastdfs')
    const { group, name } = await upload(bytes, 'txt')
    expect(group).to.equal('group1')
    expect(name)
      .to.have.lengthOf(44)
      .and.match(/^M00\/00\/00\/.*\.txt$/)
    expect(decodeFileName(name)).to.include({ kind: 'plain', storageId: 1, sizeBytes: 13, crc32: crc32(bytes) })
    expect((await upload(bytes, '')).name).to.have.lengthOf(44)
  })

  it('gives a file back whole, in ranges, and clamped at its end', async () => {
    const bytes = randomBytes(300_000)
    const id = await upload(bytes, 'bin')
    for (const [offset, length, from, until] of [
      [0, 0, 0, 300_000],
      [6, 4, 6, 10],
      [6, 400_000, 6, 300_000],
      [262_100, 100, 262_100, 262_200],
      [299_999, 0, 299_999, 300_000],
    ] as const) {
      connection.send(frame(COMMANDS.downloadFile, writeDownload({ ...id, offset, length })))
      const reply = await connection.reply()
      expect(reply.status).to.equal(0)
      expect(reply.body.equals(bytes.subarray(from, until)), `${offset}+${length}`).to.equal(true)
    }
  })

  it('stores an empty file and, unlike FastDFS, gives it back', async () => {
    const id = await upload(Buffer.alloc(0), '')
    connection.send(frame(COMMANDS.downloadFile, writeDownload({ ...id, offset: 0, length: 0 })))
    expect(await connection.reply()).to.deep.include({ status: 0, body: Buffer.alloc(0) })
  })

  it('says size, time, sum and source of a file, and ENOENT for one that is not there, and goes on', async () => {
    const id = await upload(Buffer.from('hello fastdfs'), 'txt')
    connection.send(frame(COMMANDS.queryFileInfo, writeGroupAndName(id.group, id.name)))
    const { body } = await connection.reply()
    expect(body).to.have.lengthOf(40)
    expect(body.readBigInt64BE(0)).to.equal(13n)
    expect(body.readBigInt64BE(8)).to.equal(BigInt(decodeFileName(id.name).createTimeS))
    // The sum of this text, with its sign drawn out, as a real server was seen to send it.
    expect(body.toString('hex', 16, 24)).to.equal('ffffffffc4581f24')
    expect(body.toString('latin1', 24, 33)).to.equal('127.0.0.1')
    connection.send(frame(COMMANDS.deleteFile, writeGroupAndName(id.group, id.name)))
    expect((await connection.reply()).status).to.equal(0)
    for (const command of [COMMANDS.queryFileInfo, COMMANDS.deleteFile]) {
      connection.send(frame(command, writeGroupAndName(id.group, id.name)))
      expect((await connection.reply()).status).to.equal(ENOENT)
    }
    connection.send(frame(COMMANDS.downloadFile, writeDownload({ ...id, offset: 0, length: 0 })))
    expect((await connection.reply()).status).to.equal(ENOENT)
    connection.send(header(COMMANDS.activeTest, 0))
    expect((await connection.reply()).status).to.equal(0)
  })

  it('answers pipelined requests in their order', async () => {
    const count = 200
    const contents = Array.from({ length: count }, (_, i) => randomBytes(1 + ((i * 37) % 9000)))
    connection.send(Buffer.concat(contents.map(bytes => uploadFrame(bytes, 'bin'))))
    const ids: { group: string; name: string }[] = []
    for (const bytes of contents) {
      const reply = await connection.reply()
      expect(reply.status).to.equal(0)
      const id = readGroupAndName(reply.body)
      expect(decodeFileName(id.name).crc32).to.equal(crc32(bytes))
      ids.push(id)
    }
    expect(new Set(ids.map(({ name }) => name)).size).to.equal(count)
    connection.send(
      Buffer.concat(ids.map(id => frame(COMMANDS.downloadFile, writeDownload({ ...id, offset: 0, length: 0 })))),
    )
    for (const bytes of contents) expect((await connection.reply()).body.equals(bytes)).to.equal(true)
  })

  const wrong: [string, Buffer, number][] = [
    ['an unknown command', header(199, 0), EINVAL],
    ['an upload shorter than its fields', frame(COMMANDS.uploadFile, Buffer.alloc(5)), EINVAL],
    ['an upload whose size is less than its body', lyingUpload(3, 10), EINVAL],
    ['an upload whose size is more than its body', lyingUpload(10, 3), EINVAL],
    ['an upload with a negative size', lyingUpload(-1, 3), EINVAL],
    ['an extension with a slash', uploadFrame(Buffer.from('x'), '../a'), EINVAL],
    ['a store path that does not exist', uploadFrame(Buffer.from('x'), 'txt', 7), EINVAL],
    [
      'a name that climbs',
      frame(COMMANDS.deleteFile, writeGroupAndName('group1', 'M00/00/00/../../../../identity')),
      EINVAL,
    ],
    ['a name that is none', frame(COMMANDS.queryFileInfo, writeGroupAndName('group1', 'M00/00/00/nothing')), EINVAL],
    ['a foreign group', frame(COMMANDS.queryFileInfo, writeGroupAndName('group2', unknownName())), EINVAL],
    ['a name without a file', frame(COMMANDS.queryFileInfo, writeGroupAndName('group1', '')), EINVAL],
    ['a range before the beginning', frame(COMMANDS.downloadFile, download(-1, 0)), EINVAL],
    ['a negative length of a range', frame(COMMANDS.downloadFile, download(0, -1)), EINVAL],
    ['a private command without proof', frame(COMMANDS.uploadOnce, Buffer.alloc(40)), EACCES],
    [
      'a sync record without proof',
      frame(
        COMMANDS.syncRecord,
        writeSyncRecord({ storageId: 2, content: 'none', previous: 0, offset: 0, crc32: 0 }, 'x'),
      ),
      EACCES,
    ],
  ]
  for (const [what, request, errno] of wrong) {
    it(`refuses ${what} with errno ${errno}${errno === EINVAL ? ', and ends the connection' : ''}`, async () => {
      connection.send(request)
      expect(await connection.reply()).to.deep.equal({ command: 100, status: errno, body: Buffer.alloc(0) })
      if (errno === EINVAL) await connection.untilEnded()
    })
  }

  it('refuses a range past the end', async () => {
    const id = await upload(Buffer.from('short'), 'txt')
    connection.send(frame(COMMANDS.downloadFile, writeDownload({ ...id, offset: 5, length: 1 })))
    expect((await connection.reply()).status).to.equal(EINVAL)
  })

  it('says "busy", not "not found", for a file of a source it knows nothing of', async () => {
    connection.send(frame(COMMANDS.queryFileInfo, writeGroupAndName('group1', unknownName())))
    expect((await connection.reply()).status).to.equal(EBUSY)
  })

  it('throws an upload away that breaks off in its middle', async () => {
    const whole = uploadFrame(randomBytes(900_000), 'bin')
    connection.send(whole.subarray(0, 600_000))
    await until('the file has begun', () => temporaries().length > 0)
    connection.destroy()
    await until('it is gone', () => temporaries().length === 0)
  })

  it('lets no client key sync, and no source ship what is not its own', async () => {
    const line = Buffer.from(`1 1 1 1763690000000 C ${nameFrom(1)} t:1n1 - - 00000000`).toString()
    const asClient = await cluster.connect(1, 'client')
    const record = writeSyncRecord({ storageId: 2, content: 'none', previous: 0, offset: 0, crc32: 0 }, line)
    const refused = await asClient.request(COMMANDS.syncRecord, record).catch(error => error)
    expect(refused.code).to.equal('unauthorized')
    const asPeer = await cluster.connect(1, 'peer')
    const damaged = await asPeer.request(COMMANDS.syncRecord, record).catch(error => error)
    expect(damaged.code).to.equal('bad_request')
  })

  async function upload(bytes: Buffer, extension: string): Promise<{ group: string; name: string }> {
    connection.send(uploadFrame(bytes, extension))
    const reply = await connection.reply()
    expect(reply.status).to.equal(0)
    return readGroupAndName(reply.body)
  }

  function temporaries(): string[] {
    return readdirSync(join(cluster.members.get(1)!.dataDirectory, 'store', 'tmp'))
  }
})

function uploadFrame(bytes: Buffer, extension: string, storePathIndex = 0xff): Buffer {
  const fields = writeUploadFields({ storePathIndex, sizeBytes: bytes.length, extension })
  return frame(COMMANDS.uploadFile, Buffer.concat([fields, bytes]))
}

function lyingUpload(saidBytes: number, sentBytes: number): Buffer {
  const fields = writeUploadFields({ storePathIndex: 0, sizeBytes: 0, extension: '' })
  fields.writeBigInt64BE(BigInt(saidBytes), 1)
  return frame(COMMANDS.uploadFile, Buffer.concat([fields, Buffer.alloc(sentBytes)]))
}

/** A download of a file that is at nobody known here, so that it would be passed on. */
function download(offset: number, length: number): Buffer {
  const body = writeDownload({ offset: 0, length: 0, group: 'group1', name: unknownName() })
  body.writeBigInt64BE(BigInt(offset), 0)
  body.writeBigInt64BE(BigInt(length), 8)
  return body
}

/** A well-formed name of a source that nobody knows. */
function unknownName(): string {
  return nameFrom(77)
}

function nameFrom(storageId: number): string {
  const bytes = Buffer.alloc(20)
  bytes.writeUInt32LE(storageId, 0)
  bytes.writeUInt32BE(1_763_690_000, 4)
  bytes.writeBigUInt64BE((1n << 63n) | 5n, 8)
  return `M00/00/00/${bytes.toString('base64url')}123.bin`
}
