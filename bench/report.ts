/** What the bench says: a table on the terminal, row by row as they come, and the result as one object. */
import type { Machine } from './machine.ts'
import { LARGE_BYTES, type PairRow, type Row } from './row.ts'

export interface Report {
  readonly date: string
  readonly machine: Machine
  readonly options: {
    readonly quick: boolean
    /** Of each run. */
    readonly seconds: number
    readonly pairs: number
  }
  readonly rows: readonly Row[]
  /** What was left out, and why. */
  readonly skipped: readonly string[]
}

const COLUMNS = [-38, 8, 5, 6, -9, 11, 8, 8, 7, 11, -24, 8] as const
const TITLES = [
  '',
  'size',
  'conns',
  'disk',
  'by',
  'a second',
  'p50 ms',
  'p99 ms',
  'drain s',
  'yardstick',
  'ratio',
  'cpu, MiB',
]

/** The lines above the table. */
export function headLines({ machine, date, options }: Omit<Report, 'rows' | 'skipped'>): string[] {
  const { cores, model, memoryGib, system, node, natsServer, fileSystem } = machine
  return [
    `${date}: ${cores} cores (${model}), ${memoryGib} GiB, ${system}, node ${node}, nats-server ${natsServer}, ${fileSystem}`,
    `pairs: ${options.pairs}, runs of ${options.seconds} s; ratio: median of the pairs [lowest..highest]`,
    '',
    inColumns(TITLES),
  ]
}

/** The lines of a row. */
export function rowLines(row: Row): string[] {
  if ('figures' in row) {
    const figures = Object.entries(row.figures).map(([name, value]) => `${name} ${number(value)}`)
    return [inColumns([row.name, size(row.sizeBytes), '', row.durability]), `    ${figures.join(', ')}`]
  }
  const { pairs, name, sizeBytes, connections, durability, generator } = row
  const { p50Ms, p99Ms, drainSeconds } = pairs
  const cells = [name, size(sizeBytes), connections, durability, generator]
  const times = [number(p50Ms), number(p99Ms), drainSeconds === undefined ? '' : number(drainSeconds)]
  const rates = [rateText(row, pairs.yardstickRate), ratioText(row), useText(row)]
  return [inColumns([...cells, rateText(row, pairs.rate), ...times, ...rates])]
}

/** Files a second, or of large ones MiB. */
export function rateText({ sizeBytes }: PairRow, rate: number): string {
  return sizeBytes >= LARGE_BYTES ? `${number((rate * sizeBytes) / 2 ** 20)} MiB` : number(rate)
}

/** `0.16 [0.14..0.18]`, and against what, if it is not a null server. */
export function ratioText({ pairs, against }: PairRow): string {
  const { median, lowest, highest } = pairs.ratio
  const text = `${number(median)} [${number(lowest)}..${number(highest)}]`
  return against === 'null server' ? text : `${text} of ${against}`
}

/** `4 KiB`, `256 MiB`. */
export function size(bytes: number): string {
  return bytes >= 2 ** 20 ? `${bytes / 2 ** 20} MiB` : `${bytes / 2 ** 10} KiB`
}

/** Three digits that mean something. */
export function number(value: number): string {
  if (!Number.isFinite(value)) return '-'
  if (value >= 100) return Math.round(value).toLocaleString('en')
  return String(Number(value.toPrecision(3)))
}

/** The busiest of the servers under test: its share of a core, its memory. */
function useText({ use }: PairRow): string {
  const busiest = Object.values(use).toSorted((a, b) => b.cpuPercent - a.cpuPercent)[0]
  return busiest === undefined ? '' : `${busiest.cpuPercent}%, ${busiest.rssMib}`
}

function inColumns(cells: readonly (string | number)[]): string {
  const padded = cells.map((cell, i) => {
    const width = COLUMNS[i]!
    return width < 0 ? String(cell).padEnd(-width) : String(cell).padStart(width)
  })
  return padded.join(' ').trimEnd()
}
