import { expect } from 'chai'
import fc from 'fast-check'
import type { BinlogRecord } from '../../protocol/binlog-record.ts'
import { encodeFileName, tailOf } from '../../protocol/file-id.ts'
import { Backlog } from '../../store/backlog.ts'
import type { ReadRecord } from '../../store/binlog-reader.ts'
import { VirtualClock } from '../virtual-clock.ts'

const NAME_OF_10_BYTES = encodeFileName({
  ...{ storePathIndex: 0, directoryIndex: 0, storageId: 1, createTimeS: 1_700_000_000 },
  ...{ sizeBytes: 10, crc32: 1, salt: 1, tail: tailOf('bin', 0) },
})

describe('backlog', () => {
  let clock: VirtualClock
  let totals: { records: number; bytes: number }
  let end: number
  let backlog: Backlog

  function begin(endSequence = 0): void {
    clock = new VirtualClock()
    totals = { records: 0, bytes: 0 }
    end = endSequence
    backlog = new Backlog(clock, end, () => ({ ...totals }))
  }
  beforeEach(() => begin())

  /** Flushes own records of some bytes each, or those of others. */
  function flush(records: number, bytesEach = 0, isOwn = true): void {
    backlog.grow({ previous: end, sequence: end + records })
    end += records
    if (!isOwn) return
    totals.records += records
    totals.bytes += records * bytesEach
  }

  it('is nothing at the end', () => {
    flush(5, 100)
    expect(backlog.after(5)).to.deep.equal({ records: 0, bytes: 0, behindMs: 0 })
  })

  it('is exact where a step begins, with the age of the first record', () => {
    flush(5, 100)
    clock.advance(3_000)
    flush(2, 50)
    clock.advance(4_000)
    expect(backlog.after(0)).to.deep.equal({ records: 7, bytes: 600, behindMs: 7_000 })
    expect(backlog.after(5)).to.deep.equal({ records: 2, bytes: 100, behindMs: 4_000 })
  })

  it('is shared evenly between steps', () => {
    flush(5, 100)
    clock.advance(500)
    flush(5, 300)
    clock.advance(60_000)
    expect(backlog.after(5)).to.deep.equal({ records: 5, bytes: 1_000, behindMs: 60_250 })
  })

  it('does not count the records of others, nor their time', () => {
    flush(3, 10)
    clock.advance(2_000)
    flush(1_000, 0, false)
    clock.advance(60_000)
    expect(backlog.after(3)).to.deep.equal({ records: 0, bytes: 0, behindMs: 0 })
    flush(1, 10)
    clock.advance(1_000)
    expect(backlog.after(3)).to.deep.equal({ records: 1, bytes: 10, behindMs: 1_000 })
  })

  it('is known by the number of sequences only, for what was not read', () => {
    begin(1_000)
    flush(2, 10)
    expect(backlog.after(400)).to.include({ records: 602, bytes: 20 })
    expect(new Backlog(clock, 1_000, () => totals).after(400)).to.include({ records: 600, bytes: 0 })
  })

  it('counts what is read of the time before the start', async () => {
    begin(2_000)
    const records = [
      record(7, 'C', -9_000),
      record(8, 'c', -8_000),
      record(9, 'C', -4_000),
      record(10, 'D', -3_900),
      record(1_999, 'S', 0),
    ]
    await backlog.readBefore(6, read(records))
    expect(backlog.after(6)).to.deep.equal({ records: 3, bytes: 20, behindMs: 9_000 })
    expect(backlog.after(8)).to.deep.equal({ records: 2, bytes: 10, behindMs: 4_000 })
    expect(backlog.after(1_998)).to.deep.equal({ records: 0, bytes: 0, behindMs: 0 })
    flush(4, 5)
    expect(backlog.after(8)).to.deep.equal({ records: 6, bytes: 30, behindMs: 4_000 })
  })

  it('takes the rest for more of the same when there is too much to read', async () => {
    begin(100_000)
    const records = Array.from({ length: 100_000 }, (_, i) => record(i + 1, 'C', i - 100_000))
    await backlog.readBefore(0, read(records))
    expect(backlog.after(0)).to.deep.equal({ records: 100_000, bytes: 1_000_000, behindMs: 100_000 })
  })

  it('is forgotten where no peer needs it, and known by the number of sequences from then on', () => {
    for (let i = 0; i < 10; i++) {
      flush(5, 100)
      clock.advance(1_000)
    }
    backlog.forget(25)
    expect(backlog.after(25)).to.include({ records: 25, bytes: 2_500, behindMs: 5_000 })
    expect(backlog.after(0)).to.include({ records: 50, bytes: 2_500 })
  })

  it('stays near the truth over a long absence, and never grows past it or below nothing', () => {
    const life = fc.array(
      fc.record({ records: fc.integer({ min: 1, max: 50 }), ms: fc.integer({ min: 0, max: 5_000 }) }),
      {
        minLength: 600,
        maxLength: 1_500,
      },
    )
    fc.assert(
      fc.property(life, flushes => {
        begin()
        for (const { records, ms } of flushes) {
          flush(records, 7)
          clock.advance(ms)
        }
        for (let sequence = 0; sequence <= end; sequence += Math.ceil(end / 50)) {
          const { records, bytes } = backlog.after(sequence)
          // Every record is one sequence here, so that sharing evenly is right.
          expect({ records, bytes }).to.deep.equal({ records: end - sequence, bytes: 7 * (end - sequence) })
        }
      }),
      { numRuns: 20 },
    )
  })

  function record(sequence: number, op: BinlogRecord['op'], ms: number): BinlogRecord {
    const origin = op === 'c' ? { storageId: 2, epoch: 1, sequence } : undefined
    const name = op === 'S' ? '-' : NAME_OF_10_BYTES
    const timeMs = clock.wallMs() + ms
    return { epoch: 1, sequence, batch: 1, timeMs, op, name, token: undefined, origin, uploadId: undefined }
  }
})

async function* read(records: readonly BinlogRecord[]): AsyncGenerator<ReadRecord> {
  for (const record of records) yield { record, line: '' }
}
