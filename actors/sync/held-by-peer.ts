/** Asks a peer which files it has: two servers that took over the same group's directories need not send each other much. */
import { decodeFileName, type FileNameParts } from '../../protocol/file-id.ts'
import { COMMANDS } from '../../protocol/frame.ts'
import { HELD_FILES_MAX, type HeldFile, writeSyncHeld } from '../../protocol/sync-bodies.ts'
import type { FrameClient } from '../../runtime/frame-client.ts'
import { isShipped } from '../../store/binlog.ts'
import type { ReadRecord } from '../../store/binlog-reader.ts'
import type { Store } from '../../store/store.ts'

/** Sequences of records whose files are older than this directory, and at the peer already. */
export async function heldBy(
  store: Store,
  client: FrameClient,
  page: readonly ReadRecord[],
): Promise<ReadonlySet<number>> {
  const asked: (HeldFile & { sequence: number })[] = []
  for (const { record } of page) {
    if (record.op !== 'C' || !isShipped(record)) continue
    const { name, sequence } = record
    const file = decodeFileName(name)
    const about = store.isOfEarlierLife(file) ? await describe(store, name, file) : undefined
    if (about !== undefined) asked.push({ name, sequence, ...about })
  }
  const held = new Set<number>()
  const asking: Promise<void>[] = []
  for (let at = 0; at < asked.length; at += HELD_FILES_MAX) {
    const files = asked.slice(at, at + HELD_FILES_MAX)
    asking.push(
      client.request(COMMANDS.syncHeld, writeSyncHeld(files)).then(answer => {
        for (const [i, { sequence }] of files.entries()) if (answer[i] === 1) held.add(sequence)
      }),
    )
  }
  await Promise.all(asking)
  return held
}

/** Size and CRC32 of a file; undefined if it is not here, or bad: shipping it says so. */
async function describe(store: Store, name: string, { sizeBytes, crc32 }: FileNameParts) {
  if (sizeBytes !== undefined) return { sizeBytes, crc32 }
  const file = await store.open(name).catch(() => undefined)
  if (file === undefined) return undefined
  await file.close()
  return { sizeBytes: file.sizeBytes, crc32: file.crc32 }
}
