/** What is measured, in which order: the rows of one bed, and the beds of a run. */
import { catchUpRow } from './catch-up-row.ts'
import type { Durability } from './cluster.ts'
import { lagRow } from './lag-row.ts'
import { deleteRows, downloadRows, type LoadRowOptions, uploadRows } from './load-rows.ts'
import { LARGE_BYTES, type Row, type Topic } from './row.ts'
import { sdkRows } from './sdk-rows.ts'
import type { Generator, TestBed } from './test-bed.ts'

export interface Matrix {
  readonly topics: readonly Topic[]
  readonly sizes: readonly number[]
  readonly connections: readonly number[]
  readonly durabilities: readonly Durability[]
  readonly pairs: number
  /** Of each run. */
  readonly seconds: number
  readonly coldFiles: number
  /** For each run with many connections; one connection gets a fifth. */
  readonly deletedFiles: number
  readonly awayFiles: number
  readonly generators: readonly Generator[]
  /** Leaves out what is slow to prepare or says little new. */
  readonly quick: boolean
}

const LARGE_CONNECTIONS = [1, 4]
/** Uploads a second while lag is measured. */
const LAG_RATE = 1_000

export async function* rowsOf(bed: TestBed, matrix: Matrix): AsyncGenerator<Row> {
  const rows = bed.sizeBytes >= LARGE_BYTES ? largeRows(bed, matrix) : smallRows(bed, matrix)
  for await (const row of rows) yield row
}

async function* smallRows(bed: TestBed, matrix: Matrix): AsyncGenerator<Row> {
  const { connections, topics, quick, coldFiles, deletedFiles } = matrix
  const most = Math.max(...connections)
  const viaTracker = quick ? [most] : connections
  const isFirst = bed.sizeBytes === matrix.sizes[0]
  if (topics.includes('upload')) {
    for (const each of connections) yield* uploadRows(bed, each, 'storage port', matrix)
    for (const each of viaTracker) yield* uploadRows(bed, each, 'tracker port', matrix)
  }
  if (topics.includes('download')) {
    for (const each of connections) yield* downloadRows(bed, each, 'storage port', 'hot', matrix)
    for (const each of viaTracker) yield* downloadRows(bed, each, 'tracker port', 'hot', matrix)
    for (const each of viaTracker) yield* downloadRows(bed, each, 'storage port', coldFiles, matrix)
  }
  if (topics.includes('delete')) {
    const files = (each: number) => (each === 1 ? Math.ceil(deletedFiles / 5) : deletedFiles)
    for (const each of viaTracker) yield* deleteRows(bed, each, 'storage port', files(each), matrix)
    if (!quick) for (const each of connections) yield* deleteRows(bed, each, 'tracker port', files(each), matrix)
  }
  if (topics.includes('sdk')) yield* sdkRows(bed, matrix)
  if (topics.includes('lag') && isFirst) yield await lagRow(bed, LAG_RATE, matrix.seconds * matrix.pairs)
  if (topics.includes('catch-up') && isFirst) yield await catchUpRow(bed, matrix.awayFiles)
}

async function* largeRows(bed: TestBed, matrix: Matrix): AsyncGenerator<Row> {
  const { topics, quick } = matrix
  const options: LoadRowOptions = { ...matrix, perConnection: 1 }
  for (const each of quick ? [1] : LARGE_CONNECTIONS) {
    if (topics.includes('upload')) yield* uploadRows(bed, each, 'storage port', options)
    if (topics.includes('download')) yield* downloadRows(bed, each, 'storage port', 'hot', options)
  }
  if (topics.includes('sdk') && !quick) yield* sdkRows(bed, matrix)
}
