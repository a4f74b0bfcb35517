/**
 * The last flush before a crash. Slots and records of a flush are made durable at the same time, so of one that was not
 * finished, and not acknowledged, any part may be there: a record that has no slot is cut off, with what follows it.
 *
 *     records   ... [earlier flush] [C][C][D][C]
 *     slots                          ok ok    -        cut here
 *
 * A later flush is only begun when the one before is durable, so no other record has to be looked at. A slot whose file was
 * damaged since looks the same: its record is cut, too, and what peers have of it they keep. A header that was is written
 * anew, for the record says the same. A slot that is there may be so in memory only, if it was the process that died: it is
 * put once more.
 */
import type { BinlogRecord } from '../protocol/binlog-record.ts'
import { decodeFileName } from '../protocol/file-id.ts'
import type { DiskFile } from '../runtime/world.ts'
import { readLines } from './binlog-files.ts'
import { placeOf } from './segments.ts'
import { contentOf, stateOf, writeSlotHeader } from './slot.ts'
import type { StorePath } from './store-path.ts'

/** Cuts a binlog's last file in front of the first record without its slot; returns how many bytes. Other slots are durable then. */
export async function cutUnfinished(
  file: DiskFile,
  range: { fromBytes: number; afterSequence: number },
  storePaths: ReadonlyMap<number, StorePath>,
): Promise<number> {
  let last: { offsetBytes: number; record: BinlogRecord }[] = []
  for await (const { record, offsetBytes } of readLines(file, range.fromBytes)) {
    if (record === undefined || record.sequence <= range.afterSequence) continue
    if (last[0]?.record.batch !== record.batch) last = []
    last.push({ offsetBytes, record })
  }
  for (const { record, offsetBytes } of last) {
    if (!record.inSlot || (await keepSlot(record.name, storePaths))) continue
    const cutBytes = (await file.sizeBytes()) - offsetBytes
    await file.truncate(offsetBytes)
    return cutBytes
  }
  return 0
}

/** Makes the slot of a record durable; false if it is not there. */
async function keepSlot(name: string, storePaths: ReadonlyMap<number, StorePath>): Promise<boolean> {
  const parts = decodeFileName(name)
  const path = storePaths.get(parts.storePathIndex)
  // A disk that is not there is not judged.
  if (path === undefined || path.failure !== undefined || parts.slot === undefined) return true
  try {
    const { storePathIndex, slot, createTimeS, tail } = parts
    const bytes = Buffer.alloc(slot.slotBytes)
    await path.segments.readRaw(parts, bytes)
    if (stateOf(bytes, parts) === 'deleted') return true
    const content = { sizeBytes: parts.sizeBytes!, crc32: parts.crc32 }
    if (contentOf(bytes, content) === undefined) return false
    writeSlotHeader(bytes, { slotBytes: slot.slotBytes, createTimeS, tail, ...content })
    await path.segments.put([{ storePathIndex, ...placeOf(parts), bytes }])
    return true
  } catch (error) {
    // The others go on without this path, and its records wait for the day it can be read.
    path.fail(error as Error)
    return true
  }
}
