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
import { type Binlog, isShipped } from './binlog.ts'
import type { ReadRecord } from './binlog-reader.ts'
import type { Recovery } from './recovery.ts'

/** Records a start. `readEpoch` reads all records of an earlier epoch. Rejects with what the binlog rejects with. */
export async function recordStart(
  binlog: Binlog,
  { skipped, previousEpoch, orphans, setBack }: Pick<Recovery, 'skipped' | 'previousEpoch' | 'orphans' | 'setBack'>,
  readEpoch: (epoch: number) => AsyncGenerator<readonly ReadRecord[]>,
): Promise<void> {
  if (skipped > 0) await binlog.append(() => ({ op: 'S', name: '-' }))
  await binlog.appendAll(() => setBack.map(origin => ({ op: 'S', name: '-', origin, timeMs: origin.timeMs })))
  if (previousEpoch !== undefined) {
    for await (const page of readEpoch(previousEpoch)) {
      // The file of an appender's creation is shipped as it is now: its changes tell nothing more.
      const own = page.map(({ record }) => record).filter(record => isShipped(record) && record.range === undefined)
      await binlog.appendAll(() => own.map(({ op, name }) => ({ op, name })))
    }
  }
  await Promise.all(orphans.map(name => binlog.append(() => ({ op: 'C', name }))))
}
