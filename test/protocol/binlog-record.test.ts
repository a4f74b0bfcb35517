import { expect } from 'chai'
import fc from 'fast-check'
import {
  type BinlogOp,
  type BinlogRecord,
  decodeRecord,
  encodeRecord,
  isAfter,
  RECORD_BYTES_MAX,
} from '../../protocol/binlog-record.ts'

const NAME = 'M00/00/0C/AQAAAGkf3nGAAAAqAAAQABcT3q4123.jpg'
const CREATE: BinlogRecord = {
  epoch: 7,
  sequence: 42,
  batch: 40,
  timeMs: 1763690000123,
  op: 'C',
  name: NAME,
  token: '3n17',
  range: undefined,
  origin: undefined,
  inSlot: undefined,
  reused: undefined,
  lacksFile: undefined,
  uploadId: '00112233445566778899aabbccddeeff',
}
const REPLICA: BinlogRecord = {
  ...CREATE,
  op: 'd',
  token: undefined,
  lacksFile: undefined,
  origin: { storageId: 16777215, epoch: 2, sequence: 9 },
  uploadId: undefined,
}
/** Of a file that its source could not read. */
const WITHOUT_FILE: BinlogRecord = { ...REPLICA, op: 'c', lacksFile: true }
/** Of a small file, at its source. */
const IN_SLOT: BinlogRecord = { ...CREATE, token: undefined, inSlot: true }
/** The same where another file was before. */
const REUSED: BinlogRecord = { ...IN_SLOT, reused: true }
/** Of an appender file: bytes that wait in a temporary file, and where it was cut. */
const APPEND: BinlogRecord = { ...CREATE, op: 'A', range: { offset: 4096, bytes: 17 }, uploadId: undefined }
const TRUNCATE: BinlogRecord = { ...REPLICA, op: 't', range: { offset: 2 ** 40, bytes: 0 } }
const START: BinlogRecord = { ...CREATE, op: 'S', name: '-', token: undefined, uploadId: undefined }

/** Written once and kept: lines on disks out there do not change. */
const GOLDEN: readonly (readonly [BinlogRecord, string])[] = [
  [CREATE, `7 42 40 1763690000123 C ${NAME} t:3n17 - 00112233445566778899aabbccddeeff 191f99c6\n`],
  [REPLICA, `7 42 40 1763690000123 d ${NAME} - 16777215:2:9 - 3dc21fcb\n`],
  [WITHOUT_FILE, `7 42 40 1763690000123 c ${NAME} ! 16777215:2:9 - e2a668cf\n`],
  [IN_SLOT, `7 42 40 1763690000123 C ${NAME} s - 00112233445566778899aabbccddeeff b6ce872d\n`],
  [REUSED, `7 42 40 1763690000123 C ${NAME} r - 00112233445566778899aabbccddeeff 85023c91\n`],
  [APPEND, `7 42 40 1763690000123 A ${NAME} t:3n17@4096+17 - - 2ae9aae9\n`],
  [TRUNCATE, `7 42 40 1763690000123 t ${NAME} @1099511627776+0 16777215:2:9 - 6150abf2\n`],
  [START, '7 42 40 1763690000123 S - - - - eee591ee\n'],
]

const numbers = fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER })
const NO_EXTENT = { token: undefined, range: undefined, inSlot: undefined, reused: undefined, lacksFile: undefined }
const tokens = fc.stringMatching(/^[0-9a-z]{1,20}$/)
const ranges = fc.record({ offset: fc.maxSafeNat(), bytes: fc.maxSafeNat() })
/** A token, a range with one or without, a slot, what a member goes without, or none of these. */
const extents = fc.oneof(
  fc.tuple(fc.option(tokens, { nil: undefined }), ranges).map(([token, range]) => ({ ...NO_EXTENT, token, range })),
  tokens.map(token => ({ ...NO_EXTENT, token })),
  fc.constantFrom(true as const, undefined).map(lacksFile => ({ ...NO_EXTENT, lacksFile })),
  fc.constantFrom(true as const, undefined).map(reused => ({ ...NO_EXTENT, inSlot: true as const, reused })),
)
const fields = fc.record({
  epoch: numbers,
  sequence: numbers,
  batch: numbers,
  timeMs: fc.maxSafeNat(),
  op: fc.constantFrom<BinlogOp>('C', 'D', 'A', 'M', 'T', 'c', 'd', 'a', 'm', 't', 'S'),
  name: fc.stringMatching(/^[!-~]{1,127}$/),
  origin: fc.option(fc.record({ storageId: numbers, epoch: numbers, sequence: numbers }), { nil: undefined }),
  uploadId: fc.option(fc.stringMatching(/^[0-9a-f]{32}$/), { nil: undefined }),
})
const records = fc.tuple(fields, extents).map(([field, extent]): BinlogRecord => ({ ...field, ...extent }))

describe('binlog record', () => {
  it('is written as it always was', () => {
    for (const [record, line] of GOLDEN) {
      expect(encodeRecord(record)).to.equal(line)
      expect(decodeRecord(line.slice(0, -1))).to.deep.equal(record)
    }
  })

  it('is read back as it was written, and its line is never too long', () => {
    fc.assert(
      fc.property(records, record => {
        const line = encodeRecord(record)
        expect(Buffer.byteLength(line, 'latin1')).to.be.at.most(RECORD_BYTES_MAX)
        expect(decodeRecord(line.slice(0, -1))).to.deep.equal(record)
      }),
      { numRuns: 1000 },
    )
  })

  it('is refused when any byte of its line is another', () => {
    for (const [, line] of GOLDEN) {
      const bytes = Buffer.from(line.slice(0, -1), 'latin1')
      for (let at = 0; at < bytes.length; at++) {
        const was = bytes[at]!
        for (let value = 0; value < 256; value++) {
          if (value === was) continue
          bytes[at] = value
          if (decodeRecord(bytes.toString('latin1')) !== undefined) expect.fail(`byte ${at} as ${value} is accepted`)
        }
        bytes[at] = was
      }
    }
  })

  it('is refused when its line is cut at either end, or has something added', () => {
    for (const [, line] of GOLDEN) {
      const text = line.slice(0, -1)
      for (let length = 0; length < text.length; length++) {
        expect(decodeRecord(text.slice(0, length)), text.slice(0, length)).to.equal(undefined)
        expect(decodeRecord(text.slice(text.length - length)), text.slice(-length)).to.equal(undefined)
      }
      for (const added of [`${text} `, ` ${text}`, `${text}0`, `${text}\r`, line, text + text]) {
        expect(decodeRecord(added), added).to.equal(undefined)
      }
    }
  })

  it('is refused when its line is longer than any record, whatever its check says', () => {
    const line = encodeRecord({ ...CREATE, name: 'x'.repeat(RECORD_BYTES_MAX) })
    expect(decodeRecord(line.slice(0, -1))).to.equal(undefined)
  })
})

describe('binlog position', () => {
  it('is after another of the same epoch by its sequence, and after any of an earlier epoch', () => {
    const at = (epoch: number, sequence: number) => ({ epoch, sequence })
    expect(isAfter(at(1, 2), at(1, 1))).to.equal(true)
    expect(isAfter(at(1, 1), at(1, 1))).to.equal(false)
    expect(isAfter(at(2, 1), at(1, 9))).to.equal(true)
    expect(isAfter(at(1, 9), at(2, 1))).to.equal(false)
  })
})
