import { expect } from 'chai'
import type { BinlogRecord } from '../../protocol/binlog-record.ts'
import type { ReadRecord } from '../../store/binlog-reader.ts'
import { RecentRecords } from '../../store/recent-records.ts'

describe('recent records', () => {
  const read = (sequence: number): ReadRecord => ({ record: { sequence } as BinlogRecord, line: `${sequence}` })
  const between = (recent: RecentRecords, after: number, until: number) =>
    recent.read({ after, until })?.map(({ line }) => Number(line))

  it('are all that follow the sequence they began with', () => {
    const recent = new RecentRecords(10)
    expect(between(recent, 10, 20)).to.deep.equal([])
    recent.add([11, 12, 15].map(read))
    recent.add([read(16)])
    expect(between(recent, 10, 99)).to.deep.equal([11, 12, 15, 16])
    expect(between(recent, 12, 15)).to.deep.equal([15])
    expect(between(recent, 16, 99)).to.deep.equal([])
  })

  it('are not told in part: what was before them, or has been forgotten, is to be read elsewhere', () => {
    const recent = new RecentRecords(10, 4)
    expect(between(recent, 9, 99)).to.equal(undefined)
    for (let sequence = 11; sequence <= 18; sequence++) recent.add([read(sequence)])
    expect(between(recent, 10, 12)).to.equal(undefined)
    expect(between(recent, 13, 99)).to.equal(undefined)
    expect(between(recent, 14, 99)).to.deep.equal([15, 16, 17, 18])
  })
})
