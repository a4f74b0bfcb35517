/** Uploads, downloads and deletions in FastDFS's protocol, each in pairs with a null server under the same generator. */
import { measurePairs, type Run } from './pairs.ts'
import type { ProcessUse } from './process-use.ts'
import type { PairRow, RowUse, Topic } from './row.ts'
import { addressOf, type Generator, OURS, runOf, type TestBed } from './test-bed.ts'

export interface LoadRowOptions {
  readonly pairs: number
  readonly seconds: number
  /** Files so large that each run does a count of them: this many for each connection. */
  readonly perConnection?: number
  readonly generators: readonly Generator[]
}

type Way = 'storage port' | 'tracker port'

/** Where a hot download finds its files: so few that any cache has them. */
const HOT_FILES = 16

export async function* uploadRows(bed: TestBed, connections: number, way: Way, options: LoadRowOptions) {
  const [mode, limit] = modeOf('up', way, connections, options)
  for (const generator of options.generators) {
    const args = (at: string, file: string) => [mode, at, bed.sizeBytes, connections, limit, file]
    yield row(bed, { topic: 'upload', name: `upload, ${way}`, connections, way, generator }, options, {
      async store(at) {
        const file = bed.idFile()
        const run = await bed.settled(await bed.load(generator, args(at, file)))
        const ids = bed.idsIn(file)
        await bed.checkWritten(ids)
        if (way === 'storage port') bed.ids.push(...ids)
        return run
      },
      yardstick: async at => runOf(await bed.load(generator, args(at, bed.idFile()))),
    })
  }
}

/** Downloads of a few files again and again, or of so many that a server's own cache does not help. */
export async function* downloadRows(
  bed: TestBed,
  connections: number,
  way: Way,
  files: number | 'hot',
  options: LoadRowOptions,
) {
  await bed.prepare(files === 'hot' ? HOT_FILES : files)
  const ids = bed.ids.slice(0, files === 'hot' ? HOT_FILES : files)
  const file = bed.idFile(ids)
  const [mode, limit] = modeOf('down', way, connections, options)
  const name = `download ${files === 'hot' ? 'hot' : `of ${files.toLocaleString('en')}`}, ${way}`
  for (const generator of options.generators) {
    const load = async (at: string) => runOf(await bed.load(generator, [mode, at, file, connections, limit]))
    yield row(bed, { topic: 'download', name, connections, way, generator }, options, {
      async store(at) {
        const run = await load(at)
        await bed.checkWritten(ids)
        return run
      },
      yardstick: load,
    })
  }
}

/** Deletes files; each run takes its own. */
export async function* deleteRows(bed: TestBed, connections: number, way: Way, files: number, options: LoadRowOptions) {
  for (const generator of options.generators) {
    // A generator in C knows the tracker's way only.
    if (way === 'storage port' && generator !== OURS) continue
    const mode = way === 'storage port' ? 'ddel' : 'del'
    await bed.prepare(files * options.pairs)
    const load = (at: string, file: string) => bed.load(generator, [mode, at, file, connections])
    let file = ''
    yield row(bed, { topic: 'delete', name: `delete, ${way}`, connections, way, generator }, options, {
      async store(at) {
        const ids = bed.ids.splice(-files)
        file = bed.idFile(ids)
        const run = await bed.settled(await load(at, file))
        await bed.checkDeleted(ids)
        return run
      },
      yardstick: async at => runOf(await load(at, file)),
    })
  }
}

async function row(
  bed: TestBed,
  about: { topic: Topic; name: string; connections: number; way: Way; generator: Generator },
  { pairs }: LoadRowOptions,
  sides: { store(at: string): Promise<Run>; yardstick(at: string): Promise<Run> },
): Promise<PairRow> {
  const { topic, name, connections, way, generator } = about
  const direct = way === 'storage port'
  const store = addressOf(direct ? bed.storage : bed.cluster.tracker)
  const yardstick = addressOf(direct ? bed.nullStorage : bed.nullTracker)
  const used = new UseOfRuns(bed)
  const measured = await measurePairs(
    pairs,
    () => used.during(() => sides.store(store)),
    () => sides.yardstick(yardstick),
  )
  const head = { topic, name, sizeBytes: bed.sizeBytes, durability: bed.durability, connections }
  return { ...head, generator: generator.name, against: 'null server', pairs: measured, use: used.uses }
}

/** Adds up what the servers use in the runs of one row. */
export class UseOfRuns {
  readonly #bed: TestBed
  readonly #cpuSeconds: Record<string, number> = {}
  #last: Record<string, ProcessUse> = {}
  #wallSeconds = 0

  constructor(bed: TestBed) {
    this.#bed = bed
  }

  async during(measure: () => Promise<Run>): Promise<Run> {
    const before = this.#bed.uses()
    const startMs = performance.now()
    const run = await measure()
    this.#wallSeconds += (performance.now() - startMs) / 1000
    this.#last = this.#bed.uses()
    for (const [name, { cpuSeconds }] of Object.entries(this.#last)) {
      const spent = cpuSeconds - (before[name]?.cpuSeconds ?? 0)
      this.#cpuSeconds[name] = (this.#cpuSeconds[name] ?? 0) + spent
    }
    return run
  }

  get uses(): Record<string, RowUse> {
    const uses = Object.entries(this.#last).map(([name, { rssBytes }]) => {
      const cpuPercent = Math.round((100 * this.#cpuSeconds[name]!) / this.#wallSeconds)
      return [name, { cpuPercent, rssMib: Math.round(rssBytes / 2 ** 20) }] as const
    })
    return Object.fromEntries(uses)
  }
}

/** FastDFS's name for a load, and what ends it: a time, or a count for large files. */
function modeOf(name: string, way: Way, connections: number, options: LoadRowOptions): [string, number] {
  const { seconds, perConnection } = options
  const mode = `${way === 'storage port' ? 'd' : ''}${name}`
  return perConnection === undefined ? [mode, seconds] : [`${mode}n`, perConnection * connections]
}
