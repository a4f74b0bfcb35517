/**
 * What a binlog is told before its server serves again, in this order:
 *
 *     S           claims the sequences that a lost flush may have had
 *     C, D ...    the own records of the epoch before, if this one has only begun: peers never ask for those again
 *     C ...       files that lost their records, so that peers get them
 *
 * Their effects are there already. A start that breaks off in the middle does all of it again at the next one, with no
 * harm, as long as no checkpoint says that it is done.
 */
import type { BinlogOp } from '../protocol/binlog-record.ts'
import { BATCH_RECORDS_MAX, type Binlog, isShipped } from './binlog.ts'
import type { ReadRecord } from './binlog-reader.ts'
import type { Recovery } from './recovery.ts'

/** Records a start. `readEpoch` reads all records of an earlier epoch. Rejects with what the binlog rejects with. */
export async function recordStart(
  binlog: Binlog,
  { skipped, previousEpoch, orphans }: Pick<Recovery, 'skipped' | 'previousEpoch' | 'orphans'>,
  readEpoch: (epoch: number) => AsyncGenerator<ReadRecord>,
): Promise<void> {
  const append = (op: BinlogOp, name: string) => {
    const appended = binlog.append(() => ({ op, name }))
    // A failure is met where it is waited for; that may be after it has come.
    appended.catch(ignore)
    return appended
  }
  if (skipped > 0) await append('S', '-')
  const waiting: Promise<unknown>[] = []
  if (previousEpoch !== undefined) {
    for await (const { record } of readEpoch(previousEpoch)) {
      if (!isShipped(record)) continue
      waiting.push(append(record.op, record.name))
      if (waiting.length >= BATCH_RECORDS_MAX) await Promise.all(waiting.splice(0))
    }
  }
  await Promise.all([...waiting, ...orphans.map(name => append('C', name))])
}

function ignore(): void {}
