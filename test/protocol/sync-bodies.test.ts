import { expect } from 'chai'
import fc from 'fast-check'
import {
  readPeerPosition,
  readSyncHeld,
  readSyncPosition,
  readSyncRecord,
  readSyncRun,
  SYNC_POSITION_BYTES,
  SYNC_POSITION_REPLY_BYTES,
  SYNC_RECORD_FIXED_BYTES,
  writePeerPosition,
  writeSyncHeld,
  writeSyncPosition,
  writeSyncRecord,
  writeSyncRun,
} from '../../protocol/sync-bodies.ts'

const storageIds = fc.integer({ min: 1, max: 2 ** 24 - 1 })

const LIFE = 'ffeeddccbbaa99887766554433221100'
const lives = fc.record({ epoch: fc.maxSafeNat(), incarnation: fc.stringMatching(/^[0-9a-f]{32}$/) })

describe('body of syncPosition', () => {
  it('is a storage id, a group and the life of the source', () => {
    const asking = { storageId: 0x010203, group: 'group1', epoch: 3, incarnation: LIFE, term: 2 ** 24 + 1, other: 7 }
    const body = writeSyncPosition(asking)
    const group = `${Buffer.from('group1').toString('hex')}${'00'.repeat(10)}`
    expect(body.toString('hex')).to.equal(`00010203${group}0000000000000003${LIFE}000000000100000100000007`)
    expect(body).to.have.length(SYNC_POSITION_BYTES)
  })

  it('is read back as it was written', () => {
    fc.assert(
      fc.property(storageIds, fc.stringMatching(/^[A-Za-z0-9]{1,16}$/), lives, (storageId, group, life) => {
        const fields = { storageId, group, ...life, term: life.epoch, other: storageId }
        expect(readSyncPosition(writeSyncPosition(fields))).to.deep.equal(fields)
      }),
    )
  })

  it('is answered with an incarnation, a position, the life of the source, and what there is of a file', () => {
    const incarnation = '00112233445566778899aabbccddeeff'
    const source = { epoch: 3, incarnation: LIFE }
    const other = { epoch: 4, sequence: 9 }
    const partial = { sequence: 7, bytes: 2 ** 33, crc32: 0xcbf43926 }
    const body = writePeerPosition({ incarnation, epoch: 2, sequence: 2 ** 32 + 5, source, partial, other })
    const rest = '00000000000000070000000200000000cbf4392600000000000000040000000000000009'
    expect(body.toString('hex')).to.equal(
      `${incarnation}000000000000000200000001000000050000000000000003${LIFE}${rest}`,
    )
    expect(body).to.have.length(SYNC_POSITION_REPLY_BYTES)
    const positions = fc.record({
      incarnation: fc.stringMatching(/^[0-9a-f]{32}$/),
      epoch: fc.maxSafeNat(),
      sequence: fc.maxSafeNat(),
      source: lives,
      partial: fc.record({ sequence: fc.maxSafeNat(), bytes: fc.maxSafeNat(), crc32: fc.nat(0xffffffff) }),
      other: fc.record({ epoch: fc.maxSafeNat(), sequence: fc.maxSafeNat() }),
    })
    fc.assert(
      fc.property(positions, made => void expect(readPeerPosition(writePeerPosition(made))).to.deep.equal(made)),
    )
  })
})

describe('body of syncRecord', () => {
  it('is a storage id, a flag, the sequence before it, an offset, a sum and a line', () => {
    const body = writeSyncRecord(
      { storageId: 7, content: 'file', previous: 41, offset: 2 ** 32, crc32: 0xfedcba98 },
      '1 42',
    )
    const fields = ['00000007', '01', '0000000000000029', '0000000100000000', 'fedcba98', '0004', '31203432']
    expect(body.toString('hex')).to.equal(fields.join(''))
  })

  it('is read back as it was written', () => {
    const fields = fc.record({
      storageId: storageIds,
      content: fc.constantFrom('none' as const, 'file' as const, 'unreadable' as const),
      previous: fc.maxSafeNat(),
      offset: fc.maxSafeNat(),
      crc32: fc.nat(0xffffffff),
    })
    fc.assert(
      fc.property(fields, fc.stringMatching(/^[ -~]{0,511}$/), (made, line) => {
        const body = writeSyncRecord(made, line)
        expect(readSyncRecord(body)).to.deep.equal({ ...made, lineBytes: line.length })
        expect(body.toString('latin1', SYNC_RECORD_FIXED_BYTES)).to.equal(line)
      }),
    )
  })
})

describe('body of syncRun', () => {
  const contents = fc.constantFrom('none' as const, 'file' as const, 'unreadable' as const)
  const runs = fc.record({
    storageId: storageIds,
    previous: fc.maxSafeNat(),
    records: fc.array(fc.record({ line: fc.stringMatching(/^[ -~]{1,511}$/), content: contents }), { maxLength: 20 }),
  })
  /** A run of two records, with five bytes of slots. */
  const sample = () => {
    const records = [
      { line: 'first', content: 'file' as const },
      { line: '2nd', content: 'none' as const },
    ]
    return Buffer.concat([writeSyncRun({ storageId: 7, previous: 41, records }), Buffer.from('slots')])
  }
  const COUNT_OFFSET = 12
  const LINES_OFFSET = 16

  it('is a storage id, the sequence before it, how many records and bytes of lines, contents, lines and slots', () => {
    const hex = [
      ...['00000007', '0000000000000029', '00000002', '0000000a', '0100'],
      ...[Buffer.from('first\n2nd\n').toString('hex'), Buffer.from('slots').toString('hex')],
    ]
    expect(sample().toString('hex')).to.equal(hex.join(''))
  })

  it('is read back as it was written, with the slots behind it', () => {
    fc.assert(
      fc.property(runs, fc.uint8Array({ maxLength: 100 }), (run, slots) => {
        const read = readSyncRun(Buffer.concat([writeSyncRun(run), slots]))
        expect(read).to.deep.equal({ ...run, slots: Buffer.from(slots) })
      }),
    )
  })

  it('of no records is one', () => {
    const nothing = { storageId: 7, previous: 41, records: [] }
    expect(readSyncRun(writeSyncRun(nothing))).to.deep.equal({ ...nothing, slots: Buffer.alloc(0) })
  })

  it('is none when it is cut off anywhere before its slots', () => {
    const whole = sample()
    for (let length = 0; length < whole.length - 'slots'.length; length++) {
      expect(readSyncRun(whole.subarray(0, length)), `${length} bytes`).to.equal(undefined)
    }
  })

  it('is none when its lengths contradict each other', () => {
    for (const [offset, what] of [
      [COUNT_OFFSET, 'records'],
      [LINES_OFFSET, 'bytes of lines'],
    ] as const) {
      const right = sample().readUInt32BE(offset)
      for (const wrong of [0, right - 1, right + 1, 2 ** 31, 2 ** 32 - 1]) {
        const body = sample()
        body.writeUInt32BE(wrong, offset)
        expect(readSyncRun(body), `${wrong} ${what}`).to.equal(undefined)
      }
    }
  })

  it('is none when a line does not end where the lines do', () => {
    const body = sample()
    body[body.indexOf('\n')] = 'x'.charCodeAt(0)
    expect(readSyncRun(body)).to.equal(undefined)
  })
})

describe('body of syncHeld', () => {
  const files = [
    { name: 'M00/00/00/a', sizeBytes: 2 ** 40, crc32: 0xffffffff },
    { name: 'M00/00/00/bc', sizeBytes: 0, crc32: 0 },
  ]

  it('is a size, a sum and a name for each file, and is read back as it was written', () => {
    const body = writeSyncHeld(files)
    expect(body.toString('hex', 0, 13)).to.equal('0000010000000000ffffffff0b')
    expect(readSyncHeld(body)).to.deep.equal(files)
    expect(readSyncHeld(Buffer.alloc(0))).to.deep.equal([])
  })

  it('is none when it is cut off in the middle of a file', () => {
    const body = writeSyncHeld(files)
    const first = writeSyncHeld(files.slice(0, 1)).length
    for (let length = 1; length < body.length; length++) {
      if (length !== first) expect(readSyncHeld(body.subarray(0, length)), `${length} bytes`).to.equal(undefined)
    }
  })
})
