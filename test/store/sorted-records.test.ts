import { expect } from 'chai'
import fc from 'fast-check'
import type { ReadRecord, SequenceRange } from '../../store/binlog-reader.ts'
import { hasRecordByName } from '../../store/sorted-records.ts'

describe('records in the order of their names', () => {
  it('are found by name whatever their sequences are, and others are not', () =>
    fc.assert(
      fc.asyncProperty(
        fc.uniqueArray(fc.string({ minLength: 1, maxLength: 4 }), { maxLength: 40 }),
        fc.array(fc.nat(3)),
        fc.string({ minLength: 1, maxLength: 4 }),
        async (names, gaps, other) => {
          let sequence = 0
          const records = names.sort().map((name, i) => {
            sequence += 1 + (gaps[i] ?? 0)
            return { record: { name, sequence } } as unknown as ReadRecord
          })
          const read = async function* ({ after, until }: SequenceRange) {
            for (const one of records) if (one.record.sequence > after && one.record.sequence <= until) yield one
          }
          for (const name of names) expect(await hasRecordByName(read, sequence, name)).to.equal(true)
          expect(await hasRecordByName(read, sequence, other)).to.equal(names.includes(other))
        },
      ),
    ))
})
