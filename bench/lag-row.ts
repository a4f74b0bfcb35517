/** Replication lag while uploads come at a steady rate. */
import { GROUP, STORAGE_IDS } from './cluster.ts'
import type { FigureRow } from './row.ts'
import { addressOf, type TestBed } from './test-bed.ts'

/** Throws if an upload failed, or the peer has not told of every file. */
export async function lagRow(bed: TestBed, ratePerSecond: number, seconds: number): Promise<FigureRow> {
  const file = bed.idFile()
  const peer = STORAGE_IDS[1]
  const args = [
    addressOf(bed.storage),
    bed.cluster.credentials('ops'),
    GROUP,
    peer,
    bed.sizeBytes,
    ratePerSecond,
    seconds,
  ]
  const figures = JSON.parse(await bed.program('run-lag', [...args, file])) as Record<string, number>
  await bed.level()
  await bed.checkWritten(bed.idsIn(file))
  const { uploads, errors, arrived } = figures
  if (errors !== 0) throw new Error(`${errors} uploads failed while lag was measured`)
  if (arrived !== uploads) throw new Error(`the peer told of ${arrived} of ${uploads} files`)
  const name = `replication lag at ${ratePerSecond.toLocaleString('en')} uploads a second`
  return { topic: 'lag', name, sizeBytes: bed.sizeBytes, durability: bed.durability, figures }
}
