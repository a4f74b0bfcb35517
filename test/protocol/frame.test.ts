import { expect } from 'chai'
import fc from 'fast-check'
import {
  COMMANDS,
  frame,
  HEADER_BYTES,
  header,
  readHeader,
  readInt64,
  readString,
  writeInt64,
  writeString,
} from '../../protocol/frame.ts'
import { EXCHANGES, golden } from '../fastdfs-golden.ts'

const int64Of = (hex: string) => readInt64(Buffer.from(hex, 'hex'), 0)

describe('frame', () => {
  it('has the header FastDFS gives it', () => {
    expect(header(COMMANDS.activeTest, 0).toString('hex')).to.equal(golden('active_test').request)
    expect(header(COMMANDS.reply, 0).toString('hex')).to.equal(golden('active_test').reply)
    expect(header(COMMANDS.reply, 0, 2).toString('hex')).to.equal(golden('s.file_info_missing').reply)
    expect(header(COMMANDS.queryStoreWithoutGroup, 0).toString('hex')).to.equal(golden('store_one').request)
  })

  it('says in its header how long its body is', () => {
    for (const { request, reply } of EXCHANGES) {
      for (const bytes of [Buffer.from(request, 'hex'), Buffer.from(reply, 'hex')]) {
        const { lengthBytes, command, status } = readHeader(bytes, 0)
        expect(lengthBytes).to.equal(bytes.length - HEADER_BYTES)
        expect(frame(command, bytes.subarray(HEADER_BYTES), status).equals(bytes)).to.equal(true)
      }
    }
  })

  it('is read where it stands', () => {
    const bytes = Buffer.concat([Buffer.alloc(3, 0xff), header(14, 77, 9), Buffer.alloc(3, 0xff)])
    expect(readHeader(bytes, 3)).to.deep.equal({ lengthBytes: 77, command: 14, status: 9 })
  })

  it('with a negative or an absurd length is seen as such', () => {
    expect(int64Of('ffffffffffffffff')).to.equal(-1)
    expect(int64Of('8000000000000000')).to.equal(-(2 ** 63))
    expect(int64Of('ffffffff00000000')).to.equal(-(2 ** 32))
    expect(int64Of('7fffffffffffffff')).to.be.greaterThan(Number.MAX_SAFE_INTEGER)
    expect(int64Of('0020000000000000')).to.equal(2 ** 53)
  })
})

describe('8-byte number', () => {
  it('is read back as it was written, as big-endian', () => {
    const edges = [0, 1, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 32 + 1, Number.MAX_SAFE_INTEGER]
    fc.assert(
      fc.property(fc.oneof(fc.constantFrom(...edges), fc.maxSafeNat()), value => {
        const bytes = Buffer.alloc(10, 0xee)
        writeInt64(bytes, value, 1)
        expect(bytes.readBigInt64BE(1)).to.equal(BigInt(value))
        expect(readInt64(bytes, 1)).to.equal(value)
        expect([bytes[0], bytes[9]]).to.deep.equal([0xee, 0xee])
      }),
    )
  })

  it('is not written if it is negative', () => {
    expect(() => writeInt64(Buffer.alloc(8), -1, 0)).to.throw(RangeError)
  })
})

describe('string of fixed width', () => {
  it('is padded with NUL, ends at the first NUL, and never reads past its width', () => {
    const bytes = Buffer.alloc(6, 0x78)
    writeString(bytes, 'ab', 1, 4)
    expect(bytes.toString('latin1')).to.equal('xab\0\0x')
    expect(readString(bytes, 1, 4)).to.equal('ab')
    writeString(bytes, 'abcd', 1, 4)
    expect(readString(bytes, 1, 4)).to.equal('abcd')
    expect(readString(Buffer.from('abcd\0'), 0, 2)).to.equal('ab')
    expect(readString(Buffer.from('\0abc'), 0, 4)).to.equal('')
  })

  it('is not written if it does not fit', () => {
    expect(() => writeString(Buffer.alloc(8), 'abcde', 0, 4)).to.throw(RangeError)
  })
})
