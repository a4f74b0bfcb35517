/** How fast a storage server that was away gets what was uploaded meanwhile. */
import { STORAGE_IDS } from './cluster.ts'
import type { FigureRow } from './row.ts'
import { addressOf, OURS, type TestBed } from './test-bed.ts'

const CONNECTIONS = 32

export async function catchUpRow(bed: TestBed, files: number): Promise<FigureRow> {
  const away = STORAGE_IDS[1]
  const file = bed.idFile()
  await bed.cluster.stopStorage(away)
  await bed.load(OURS, ['dupn', addressOf(bed.storage), bed.sizeBytes, CONNECTIONS, files, file])
  const startMs = performance.now()
  await bed.cluster.startStorage(away)
  const startSeconds = (performance.now() - startMs) / 1000
  const levelSeconds = await bed.level()
  await bed.checkWritten(bed.idsIn(file))
  const figures = {
    files,
    'seconds to start': startSeconds,
    'seconds to catch up': levelSeconds,
    'files a second': files / levelSeconds,
  }
  return {
    topic: 'catch-up',
    name: 'catch-up of a peer that was away',
    sizeBytes: bed.sizeBytes,
    durability: bed.durability,
    figures,
  }
}
