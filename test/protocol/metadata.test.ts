import { expect } from 'chai'
import fc from 'fast-check'
import {
  METADATA_NAME_BYTES_MAX,
  METADATA_VALUE_BYTES_MAX,
  metadataOf,
  readMetadata,
  textsOf,
  writeMetadata,
} from '../../protocol/metadata.ts'
import { golden } from '../fastdfs-golden.ts'

const bytes = (max: number, min: number) =>
  fc.uint8Array({ minLength: min, maxLength: max }).map(array => {
    const allowed = array.map(byte => (byte === 1 || byte === 2 ? 0 : byte))
    return Buffer.from(allowed).toString('latin1')
  })
const metadata = fc
  .array(fc.tuple(bytes(METADATA_NAME_BYTES_MAX, 1), bytes(METADATA_VALUE_BYTES_MAX, 0)), { maxLength: 20 })
  .map(records => new Map(records))

describe('metadata', () => {
  it('is read back as it was written, sorted by name, whatever its bytes are', () => {
    fc.assert(
      fc.property(metadata, written => {
        const found = readMetadata(writeMetadata(written))
        expect([...found]).to.deep.equal([...written].sort(([a], [b]) => (a < b ? -1 : 1)))
      }),
    )
  })

  it('is what FastDFS makes of the same', () => {
    const body = Buffer.from(golden('s.getmeta').reply, 'hex').subarray(10)
    expect(textsOf(readMetadata(body))).to.deep.equal({ author: 'me', width: '100' })
    expect(writeMetadata(metadataOf({ width: '100', author: 'me' }))).to.deep.equal(body)
  })

  it('keeps texts', () => {
    const texts = { größe: '1 µm', 标题: '图片' }
    expect(textsOf(readMetadata(writeMetadata(metadataOf(texts))))).to.deep.equal(texts)
    expect(readMetadata(Buffer.alloc(0)).size).to.equal(0)
  })

  it('counts the last value of a name', () => {
    expect(textsOf(readMetadata(Buffer.from('a\x02old\x01a\x02new')))).to.deep.equal({ a: 'new' })
  })

  it('is refused where it is none', () => {
    const wrong = [
      'name',
      'a\x02b\x02c',
      '\x02b',
      'a\x02b\x01',
      '\x01',
      `${'n'.repeat(65)}\x02v`,
      `n\x02${'v'.repeat(257)}`,
    ]
    for (const text of wrong)
      expect(() => readMetadata(Buffer.from(text, 'latin1')), JSON.stringify(text))
        .to.throw()
        .with.property('code', 'bad_request')
    for (const texts of [{ 'a\x01': 'b' }, { a: '\x02' }, { '': 'b' }])
      expect(() => metadataOf(texts), JSON.stringify(texts))
        .to.throw()
        .with.property('code', 'bad_request')
  })
})
