import { expect } from 'chai'
import fc from 'fast-check'
import {
  decodeFileName,
  encodeFileName,
  extensionOf,
  FILE_NAME_BYTES_MAX,
  formatFileId,
  isExtension,
  isGroupName,
  type NewFileName,
  parseFileId,
  SALT_BITS,
  SIZE_WITHOUT_SALT_MIN,
  STORAGE_ID_MAX,
  tailOf,
} from '../../protocol/file-id.ts'
import { golden } from '../fastdfs-golden.ts'
import { GOLDEN_ADDRESS, GOLDEN_NAMES, GOLDEN_TIME_S } from './fastdfs-names.ts'

const GOOD = 'M00/0A/3F/CucJC2sAo2mAWVuwAAAQAFbd8iY833.jpg'

const file: NewFileName = {
  storePathIndex: 0,
  directoryIndex: 0x0a3f,
  storageId: 1,
  createTimeS: GOLDEN_TIME_S,
  sizeBytes: 4096,
  crc32: 0x56ddf226,
  salt: 1,
  tail: tailOf('jpg', 833),
}

const newFileNames = fc.record({
  storePathIndex: fc.nat(255),
  directoryIndex: fc.nat(65535),
  storageId: fc.oneof(
    fc.constantFrom(1, 2, 255, 256, 65536, STORAGE_ID_MAX),
    fc.integer({ min: 1, max: STORAGE_ID_MAX }),
  ),
  createTimeS: fc.oneof(fc.constantFrom(0, 2 ** 31, 2 ** 32 - 1), fc.nat(2 ** 32 - 1)),
  sizeBytes: fc.oneof(
    fc.constantFrom(0, 1, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 32 + 1, Number.MAX_SAFE_INTEGER),
    fc.maxSafeNat(),
    fc.nat(2 ** 20),
  ),
  crc32: fc.oneof(fc.constantFrom(0, 2 ** 31, 2 ** 32 - 1), fc.nat(2 ** 32 - 1)),
  salt: fc.maxSafeNat(),
  tail: fc
    .tuple(
      fc.oneof(
        fc.constantFrom('', 'a', 'gz', 'jpg', 'tar.gz', 'a.', '-_.-_', '123456'),
        fc.stringMatching(/^[A-Za-z0-9]{0,6}$/),
      ),
      fc.nat(9_999_999),
    )
    .map(([extension, padding]) => tailOf(extension, padding)),
})

const kindOf = (name: string) => {
  try {
    return decodeFileName(name).kind
  } catch (error) {
    return (error as { code?: string }).code
  }
}

describe('file name', () => {
  it('of FastDFS says kind, size, CRC32, time and address', () => {
    for (const [name, sizeBytes, crc32, kind] of GOLDEN_NAMES) {
      const parts = decodeFileName(name)
      expect(parts, name).to.include({ kind, storePathIndex: 0, directory: '00/00', baseName: name.slice(10) })
      expect(parts, name).to.include({ createTimeS: GOLDEN_TIME_S, address: GOLDEN_ADDRESS, storageId: undefined })
      if (kind === 'plain') expect(parts, name).to.include({ sizeBytes, crc32 })
      else expect(parts.sizeBytes, name).to.equal(undefined)
    }
  })

  it('in the replies of FastDFS says the same as its file info', () => {
    const nameIn = (hex: string) => Buffer.from(hex, 'hex').toString('latin1', 26)
    for (const frame of ['s.upload', 's.upload_path_FF', 's.upload_noext']) {
      const parts = decodeFileName(nameIn(golden(frame).reply))
      expect(parts, frame).to.include({ kind: 'plain', sizeBytes: 13, crc32: 0xc4581f24, address: '10.231.7.11' })
    }
    expect(decodeFileName(nameIn(golden('s.upload_appender').reply))).to.include({
      kind: 'appender',
      crc32: 0x352441c2,
    })
    expect(decodeFileName(nameIn(golden('s.upload_slave').reply))).to.include({ kind: 'slave', sizeBytes: undefined })
  })

  it('says after encoding what was encoded', () => {
    fc.assert(
      fc.property(newFileNames, made => {
        const name = encodeFileName(made)
        const parts = decodeFileName(name)
        expect(name).to.have.length(44)
        expect(parts).to.deep.equal({
          storePathIndex: made.storePathIndex,
          directory: parts.directory,
          directoryIndex: made.directoryIndex,
          baseName: name.slice(10),
          storageId: made.storageId,
          address: undefined,
          createTimeS: made.createTimeS,
          kind: 'plain',
          sizeBytes: made.sizeBytes,
          crc32: made.crc32,
          salt: made.sizeBytes < SIZE_WITHOUT_SALT_MIN ? made.salt % 2 ** SALT_BITS : undefined,
          slot: undefined,
          tail: made.tail,
        })
        expect(Number.parseInt(parts.directory.replace('/', ''), 16)).to.equal(made.directoryIndex)
        expect(name.endsWith(made.tail)).to.equal(true)
      }),
      { numRuns: 2000 },
    )
  })

  it('differs for every sequence of one second', () => {
    const names = new Set<string>()
    for (let salt = 2 ** 23 - 5000; salt < 2 ** 23 + 5000; salt++) names.add(encodeFileName({ ...file, salt }))
    expect(names.size).to.equal(10_000)
  })

  it('is laid out as FastDFS lays it out', () => {
    const salted = encodeFileName({ ...file, storageId: 0x030201, salt: 0x7fffff })
    expect(Buffer.from(salted.slice(10, 37), 'base64url').toString('hex')).to.equal(
      '01020300' + '6b00a369' + '807fffff' + '00001000' + '56ddf226',
    )
    const large = encodeFileName({ ...file, sizeBytes: 2 ** 32 })
    expect(Buffer.from(large.slice(10, 37), 'base64url').toString('hex', 8, 16)).to.equal('0000000100000000')
  })

  it('of a file in a segment says its size, and that of its slave does not', () => {
    const bytes = Buffer.from('010000006b00a36908000000000010005ddf2267', 'hex')
    const inSegment = `M00/0A/3F/${bytes.toString('base64url')}AAAAAQAAAAAAAAEA`
    expect(decodeFileName(`${inSegment}833.jpg`)).to.include({ kind: 'segment', sizeBytes: 4096, storageId: 1 })
    expect(decodeFileName(`${inSegment}833_150x150.jpg`)).to.include({ kind: 'slave', sizeBytes: undefined })
    expect(kindOf(`M00/0A/3F/${bytes.toString('base64url')}833.jpg`)).to.equal('bad_file_id')
  })

  it('of a slave with a long prefix is not taken for a file in a segment', () => {
    for (const prefix of ['_', '_150x150', '_0123456789abcde', '-0123456789abcdef']) {
      expect(kindOf(GOOD.replace('.jpg', `${prefix}.jpg`)), prefix).to.equal('slave')
      expect(kindOf(GOOD.replace('833.jpg', `8331234${prefix}`)), prefix).to.equal('slave')
    }
  })

  it('is refused with a foreign character anywhere', () => {
    for (const foreign of ['/', '\\', '~', '+', '=', '%', ' ', '\n', '\r', '\0', '\x7f', 'é', '\u2028']) {
      for (let at = 0; at < GOOD.length; at++) {
        if (GOOD[at] === foreign) continue
        const name = GOOD.slice(0, at) + foreign + GOOD.slice(at + 1)
        expect(kindOf(name), JSON.stringify(name)).to.equal('bad_file_id')
      }
      expect(kindOf(GOOD + foreign), JSON.stringify(foreign)).to.equal('bad_file_id')
    }
  })

  it('is refused if it could climb out of its store path', () => {
    for (const name of [
      '..',
      '../../etc/passwd',
      'M00/../../etc/passwd',
      'M00/0A/3F/../../../etc/passwd',
      'M00/0A/3F/CucJC2sAo2mAWVuwAAAQAFbd8iY..3.jpg',
      'M00/0A/3F/CucJC2sAo2mAWVuwAAAQAFbd8iY833..jpg',
      'M00/0A/3F/CucJC2sAo2mAWVuwAAAQAFbd8iY833/../x.jpg',
      `/${GOOD}`,
    ]) {
      expect(kindOf(name), name).to.equal('bad_file_id')
    }
  })

  it('is refused in lower-case hex', () => {
    for (const name of [
      GOOD.replace('0A', '0a'),
      GOOD.replace('3F', '3f'),
      GOOD.replace('M00', 'Mff'),
      GOOD.replace('M', 'm'),
    ]) {
      expect(kindOf(name), name).to.equal('bad_file_id')
    }
  })

  it('is refused when it is cut anywhere or too long', () => {
    for (let length = 0; length < GOOD.length; length++) expect(kindOf(GOOD.slice(0, length))).to.equal('bad_file_id')
    const longest = GOOD.replace('.jpg', '_'.padEnd(FILE_NAME_BYTES_MAX - GOOD.length + 1, 'x').concat('.jpg')).slice(
      0,
      -1,
    )
    expect(longest).to.have.length(FILE_NAME_BYTES_MAX)
    expect(kindOf(longest)).to.equal('slave')
    expect(kindOf(`${longest}g`)).to.equal('bad_file_id')
  })

  it('has one spelling: bits that mean nothing must be zero', () => {
    const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
    const accepted = [...alphabet].filter(last => kindOf(GOOD.slice(0, 36) + last + GOOD.slice(37)) === 'plain')
    expect(accepted).to.have.length(16)
  })

  it('of a file in a segment says where its slot is, and is 60 characters long', () => {
    const slot = { segmentId: 0x0010_0001, offsetBytes: 4352, slotBytes: 4352 }
    const name = encodeFileName({ ...file, slot })
    expect(name).to.have.length(60)
    expect(Buffer.from(name.slice(10, 37), 'base64url').toString('hex', 8, 16)).to.equal('0800000000001000')
    const { createTimeS, sizeBytes, crc32, tail } = file
    const parts = { kind: 'segment', createTimeS, sizeBytes, crc32, tail, slot, salt: undefined }
    expect(decodeFileName(name)).to.deep.include(parts)
  })

  it('is not made of what does not fit', () => {
    const wrong: Partial<NewFileName>[] = [
      { storageId: 0 },
      { storageId: STORAGE_ID_MAX + 1 },
      { sizeBytes: -1 },
      { sizeBytes: 2 ** 53 },
      { sizeBytes: 1.5 },
      { createTimeS: 2 ** 32 },
      { tail: '' },
      { tail: '12345678' },
    ]
    for (const part of wrong) {
      expect(() => encodeFileName({ ...file, ...part }), JSON.stringify(part)).to.throw(RangeError)
    }
    for (const extension of ['toolong', '../x', '.x'])
      expect(() => tailOf(extension, 1), extension).to.throw(RangeError)
  })
})

describe('file id', () => {
  it('is a group, a slash and a name', () => {
    const id = parseFileId(`group1/${GOOD}`)
    expect(id).to.deep.equal({ group: 'group1', name: GOOD })
    expect(formatFileId(id)).to.equal(`group1/${GOOD}`)
  })

  it('is refused without a group, with a strange one, or with a bad name', () => {
    for (const text of [
      '',
      '/',
      GOOD,
      `/${GOOD}`,
      `a-b/${GOOD}`,
      `group1//${GOOD}`,
      `${'g'.repeat(17)}/${GOOD}`,
      'group1/x',
    ]) {
      expect(() => parseFileId(text), text)
        .to.throw()
        .with.property('code', 'bad_file_id')
    }
  })

  it('has a group of one to sixteen letters and digits', () => {
    for (const good of ['a', 'group1', 'G'.repeat(16)]) expect(isGroupName(good), good).to.equal(true)
    for (const bad of ['', 'g'.repeat(17), 'a.b', 'a*', 'a b', 'a\n', 'ä', '>'])
      expect(isGroupName(bad), bad).to.equal(false)
  })
})

describe('extension', () => {
  it('is what follows the last dot of a path, and nothing if it cannot be kept', () => {
    expect(['a.jpg', 'a.tar.gz', '/x.d/a', 'a', 'a.', 'a.toolong', '.hidden', 'a.b/c'].map(extensionOf)).to.deep.equal([
      'jpg',
      'gz',
      '',
      '',
      '',
      '',
      'hidden',
      '',
    ])
  })

  it('has at most six characters and nothing a path could climb with', () => {
    for (const good of ['', 'a', 'tar.gz', '123456', 'a-b_c']) expect(isExtension(good), good).to.equal(true)
    for (const bad of ['1234567', '.a', '..', 'a..b', 'a/b', 'a\0', 'é', 'a b', 'a\n'])
      expect(isExtension(bad), bad).to.equal(false)
  })
})
