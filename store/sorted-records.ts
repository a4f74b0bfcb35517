/** The part of a binlog that has its records by name: a take-over walks directories in their order. */
import type { ReadRecord, SequenceRange } from './binlog-reader.ts'

/** Whether one of the records up to a sequence has a name. A line that is damaged is passed by. */
export async function hasRecordByName(
  read: (range: SequenceRange) => AsyncIterable<ReadRecord>,
  untilSequence: number,
  name: string,
): Promise<boolean> {
  let from = 1
  let until = untilSequence
  while (from <= until) {
    const middle = Math.floor((from + until) / 2)
    const record = await firstOf(read({ after: middle - 1, until }))
    if (record?.name === name) return true
    if (record !== undefined && record.name < name) from = record.sequence + 1
    else until = middle - 1
  }
  return false
}

async function firstOf(records: AsyncIterable<ReadRecord>): Promise<ReadRecord['record'] | undefined> {
  for await (const { record } of records) return record
  return undefined
}
