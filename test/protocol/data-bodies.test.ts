import { expect } from 'chai'
import fc from 'fast-check'
import { ACK_TIMEOUT_MS_MAX, type AckLevel } from '../../protocol/ack.ts'
import {
  extensionError,
  readDownload,
  readFileInfo,
  readGroupAndName,
  readLink,
  readUploaded,
  readUploadFields,
  readUploadHead,
  UPLOAD_FIXED_BYTES,
  UPLOAD_STREAM_BYTES,
  writeDownload,
  writeFileInfo,
  writeGroupAndName,
  writeLink,
  writeReceipt,
  writeUploadFields,
  writeUploadHead,
  writeUploadStream,
} from '../../protocol/data-bodies.ts'
import { HEADER_BYTES } from '../../protocol/frame.ts'
import { golden } from '../fastdfs-golden.ts'

const NAME = 'M00/03/AC/CucHC2sAiuGARzrjAAAADcRYHyQ923.txt'
const bodyOf = (hex: string) => Buffer.from(hex, 'hex').subarray(HEADER_BYTES)
const names = fc.stringMatching(/^[!-~]{0,127}$/)
const groups = fc.stringMatching(/^[A-Za-z0-9]{1,16}$/)

describe('body of an upload', () => {
  it('is what FastDFS sends', () => {
    const body = bodyOf(golden('s.upload').request)
    const fields = { storePathIndex: 0, sizeBytes: 13, extension: 'txt' }
    expect(readUploadFields(body)).to.deep.equal(fields)
    expect(writeUploadFields(fields).equals(body.subarray(0, UPLOAD_FIXED_BYTES))).to.equal(true)
    expect(body.toString('latin1', UPLOAD_FIXED_BYTES)).to.equal('hello fastdfs')
    expect(readUploadFields(bodyOf(golden('s.upload_path_FF').request)).storePathIndex).to.equal(0xff)
    expect(readUploadFields(bodyOf(golden('s.upload_noext').request)).extension).to.equal('')
  })

  it('is read back as it was written', () => {
    const fields = fc.record({
      storePathIndex: fc.nat(255),
      sizeBytes: fc.oneof(fc.constantFrom(0, 2 ** 32 - 1, 2 ** 32, Number.MAX_SAFE_INTEGER), fc.maxSafeNat()),
      extension: fc.constantFrom('', 'a', 'tar.gz', '123456'),
    })
    fc.assert(fc.property(fields, made => void expect(readUploadFields(writeUploadFields(made))).to.deep.equal(made)))
  })

  it('has an extension that a name can keep', () => {
    expect(extensionError('tar.gz')).to.equal(undefined)
    for (const wrong of ['../a', 'a/b', '1234567']) expect(extensionError(wrong)?.code, wrong).to.equal('bad_request')
  })
})

describe('head of our own uploads', () => {
  const UPLOAD_ID = '00112233445566778899aabbccddeeff'

  it('is an upload id, a level and a timeout; what is not said is 0', () => {
    const heads: [AckLevel | undefined, number | undefined, string][] = [
      [undefined, undefined, '0000000000'],
      ['one', 1, '0100000001'],
      ['quorum', 5_000, '0200001388'],
      ['all', ACK_TIMEOUT_MS_MAX, '0300002710'],
    ]
    for (const [ack, ackTimeoutMs, hex] of heads) {
      const head = { uploadId: UPLOAD_ID, ack, ackTimeoutMs }
      expect(writeUploadHead(head).toString('hex')).to.equal(UPLOAD_ID + hex)
      expect(readUploadHead(writeUploadHead(head))).to.deep.equal(head)
    }
  })

  it('asks for no more than the longest timeout, and for no level that there is not', () => {
    const head = writeUploadHead({ uploadId: UPLOAD_ID, ack: 'all', ackTimeoutMs: 10 ** 12 })
    expect(readUploadHead(head).ackTimeoutMs).to.equal(ACK_TIMEOUT_MS_MAX)
    head[16] = 4
    expect(() => readUploadHead(head))
      .to.throw()
      .with.property('code', 'bad_request')
  })

  it('is in front of a stream, too', () => {
    const head = { uploadId: UPLOAD_ID, ack: 'all', ackTimeoutMs: 9 } as const
    const body = writeUploadStream({ ...head, storePathIndex: 7, extension: 'tgz' })
    expect(body).to.have.lengthOf(UPLOAD_STREAM_BYTES)
    expect(body.toString('hex')).to.equal(`${UPLOAD_ID}030000000907${Buffer.from('tgz').toString('hex')}000000`)
    expect(readUploadHead(body)).to.deep.equal(head)
  })
})

describe('receipt of our own uploads', () => {
  it('is in front of group and name', () => {
    const receipt = { replicas: 2, durable: true, source: 0x010203, epoch: 4, sequence: 2 ** 40 + 5 }
    expect(writeReceipt(receipt).toString('hex')).to.equal('02010001020300000000000000040000010000000005')
    const reply = Buffer.concat([writeReceipt({ ...receipt, durable: false }), writeGroupAndName('group1', NAME)])
    expect(readUploaded(reply)).to.deep.equal({ receipt: { ...receipt, durable: false }, group: 'group1', name: NAME })
  })
})

describe('body with a group and a name', () => {
  it('is what FastDFS sends and answers', () => {
    const expected = { group: 'group1', name: NAME }
    for (const hex of [
      golden('s.upload').reply,
      golden('s.file_info').request,
      golden('s.delete').request,
      golden('fetch_one').request,
      golden('query_update').request,
    ]) {
      expect(readGroupAndName(bodyOf(hex))).to.deep.equal(expected)
      expect(writeGroupAndName('group1', NAME).equals(bodyOf(hex))).to.equal(true)
    }
  })

  it('is read back as it was written, the longest group and the empty name included', () => {
    fc.assert(
      fc.property(groups, names, (group, name) => {
        expect(readGroupAndName(writeGroupAndName(group, name))).to.deep.equal({ group, name })
      }),
    )
    expect(readGroupAndName(writeGroupAndName('G'.repeat(16), ''))).to.deep.equal({ group: 'G'.repeat(16), name: '' })
  })
})

describe('body of a download', () => {
  it('is what FastDFS sends', () => {
    const whole = { offset: 0, length: 0, group: 'group1', name: NAME }
    const range = { ...whole, offset: 6, length: 4 }
    expect(readDownload(bodyOf(golden('s.download').request))).to.deep.equal(whole)
    expect(readDownload(bodyOf(golden('s.download_range').request))).to.deep.equal(range)
    expect(writeDownload(whole).equals(bodyOf(golden('s.download').request))).to.equal(true)
    expect(writeDownload(range).equals(bodyOf(golden('s.download_range').request))).to.equal(true)
  })

  it('is read back as it was written', () => {
    const downloads = fc.record({ offset: fc.maxSafeNat(), length: fc.maxSafeNat(), group: groups, name: names })
    fc.assert(fc.property(downloads, made => void expect(readDownload(writeDownload(made))).to.deep.equal(made)))
  })
})

describe('body of a link', () => {
  const link = { group: 'group1', master: NAME, name: `${NAME}x`, prefix: '_150x150', extension: 'jpg' }

  it('has the lengths, group, prefix and extension, both names and a signature, in this order', () => {
    const numbers = [NAME.length, NAME.length + 1, 0].map(length => length.toString(16).padStart(16, '0')).join('')
    const fields = ['group1'.padEnd(16, '\0'), '_150x150'.padEnd(16, '\0'), 'jpg'.padEnd(6, '\0'), NAME, `${NAME}x`]
    expect(writeLink(link).toString('hex')).to.equal(numbers + Buffer.from(fields.join(''), 'latin1').toString('hex'))
    expect(readLink(writeLink(link))).to.deep.equal(link)
    const alone = { ...link, master: '', prefix: '' }
    expect(readLink(writeLink(alone))).to.deep.equal(alone)
  })

  it('is refused if its lengths are not those of its parts', () => {
    for (const at of [0, 8, 16]) {
      for (const number of [-1n, -(2n ** 63n), 2n ** 63n - 1n, 2n ** 32n, 1n]) {
        const body = writeLink(link)
        body.writeBigInt64BE(BigInt.asIntN(64, body.readBigInt64BE(at) + number), at)
        expect(() => readLink(body), `${at} ${number}`).to.throw('lengths')
      }
    }
  })
})

describe('reply with file info', () => {
  it('is what FastDFS answers, the sign of the CRC32 drawn out', () => {
    const info = { sizeBytes: 13, mtimeS: 0x6b008ae1, crc32: 0xc4581f24, sourceIp: '10.231.7.11' }
    const body = bodyOf(golden('s.file_info').reply)
    expect(readFileInfo(body)).to.deep.equal(info)
    expect(writeFileInfo(info).equals(body)).to.equal(true)
    expect(readFileInfo(bodyOf(golden('s.appender_info').reply))).to.include({ sizeBytes: 4, crc32: 0xe1d7732e })
  })

  it('is read back as it was written', () => {
    const infos = fc.record({
      sizeBytes: fc.maxSafeNat(),
      mtimeS: fc.nat(2 ** 32 - 1),
      crc32: fc.oneof(fc.constantFrom(0, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1), fc.nat(2 ** 32 - 1)),
      sourceIp: fc.constantFrom('1.2.3.4', '255.255.255.255', '::1', '2001:db8:1111:2222:3333:4444:255.255.255.255'),
    })
    fc.assert(
      fc.property(infos, made => {
        const body = writeFileInfo(made)
        expect(readFileInfo(body)).to.deep.equal(made)
        expect(body.length).to.equal(made.sourceIp.includes(':') ? 70 : 40)
      }),
    )
  })
})
