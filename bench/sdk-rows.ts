/** The SDK, pipelined over its four sockets, beside a null server under the same sockets, and beside NATS's Object Store. */

import { parseLoadLine } from './load-result.ts'
import { type LoadRowOptions, UseOfRuns } from './load-rows.ts'
import { measurePairs, type Run } from './pairs.ts'
import { LARGE_BYTES, type PairRow } from './row.ts'
import { addressOf, checked, runOf, type TestBed } from './test-bed.ts'

const SOCKETS = 4
const OUTSTANDING = 32
/** Large files at a time, and in a run. */
const LARGE_OUTSTANDING = 2
/** Each get of the Object Store leaves a consumer behind for some minutes, and a NATS account has 4,096 of them. */
const OBJECT_GETS = 500
const LARGE_COUNT = 4
const HOT_FILES = 16

export interface SdkRowOptions extends Pick<LoadRowOptions, 'pairs' | 'seconds'> {
  readonly quick: boolean
}

/** Beside the null server only small files of a full run: it says what the SDK costs, not how fast files are stored. */
export async function* sdkRows(bed: TestBed, { pairs, seconds, quick }: SdkRowOptions) {
  const { sizeBytes } = bed
  const isLarge = sizeBytes >= LARGE_BYTES
  const besideNull = !isLarge && !quick
  const outstanding = isLarge ? LARGE_OUTSTANDING : SOCKETS * OUTSTANDING
  const [fixed, limit] = isLarge ? ['n', LARGE_COUNT] : ['', seconds]
  const run = async (program: string, args: readonly (string | number)[]) =>
    checked(parseLoadLine(await bed.program(program, args)), String(args[0]), sizeBytes)
  const client = bed.cluster.credentials('client')
  const ops = bed.cluster.credentials('ops')
  const nothing = addressOf(bed.nullStorage)

  const upload = async () => {
    const file = bed.idFile()
    const settled = await bed.settled(
      await run('run-sdk-load', [`up${fixed}`, client, sizeBytes, outstanding, limit, file]),
    )
    await bed.checkWritten(bed.idsIn(file))
    return settled
  }
  const nullUpload = async () =>
    runOf(await run('run-sdk-load', [`dup${fixed}`, nothing, sizeBytes, outstanding, limit]))
  const put = async () => runOf(await run('run-object-store', [`up${fixed}`, ops, sizeBytes, outstanding, limit]))
  if (besideNull) yield row('upload by SDK', upload, 'null server', nullUpload)
  yield row('upload by SDK', upload, 'Object Store', put)

  await bed.prepare(HOT_FILES)
  const file = bed.idFile(bed.ids.slice(0, HOT_FILES))
  const down = async (mode: string, where: string) => {
    const result = await run('run-sdk-load', [`${mode}${fixed}`, where, file, outstanding, limit])
    await bed.checkWritten(bed.ids.slice(0, 1))
    return runOf(result)
  }
  const gets = isLarge ? LARGE_COUNT : OBJECT_GETS
  const get = async () => runOf(await run('run-object-store', ['downn', ops, sizeBytes, outstanding, gets]))
  if (besideNull)
    yield row(
      'download by SDK',
      () => down('down', client),
      'null server',
      () => down('ddown', nothing),
    )
  yield row('download by SDK', () => down('down', client), 'Object Store', get)

  async function row(name: string, measured: () => Promise<Run>, against: string, other: () => Promise<Run>) {
    const used = new UseOfRuns(bed)
    const measuredPairs = await measurePairs(pairs, () => used.during(measured), other)
    const { durability } = bed
    const head = { topic: 'sdk', name, sizeBytes, durability, connections: outstanding, generator: 'sdk' } as const
    return { ...head, against, pairs: measuredPairs, use: used.uses } satisfies PairRow
  }
}
