/**
 * What a storage server counts since its start, under FastDFS's own names and in the order of its StatBuff, so that the
 * same name stands in the code, in beats, in `dfs monitor` and, by its place, on the wire.
 *
 * `total_` is what was asked for, `success_` what was done. Times are seconds since 1970, 0 for never.
 */

/** What clients ask for. */
export const OPERATIONS = [
  'upload',
  'append',
  'modify',
  'truncate',
  'set_meta',
  'delete',
  'download',
  'get_meta',
  'create_link',
  'delete_link',
] as const
export type Operation = (typeof OPERATIONS)[number]

/** What moves bytes. */
const STREAMS = ['upload', 'append', 'modify', 'download', 'sync_in', 'sync_out'] as const

/** Calls to the disks of store paths. */
const FILE_CALLS = ['file_open', 'file_read', 'file_write'] as const

/** Connections of the data port; `alloc` are as many as there ever were at once. */
export const CONNECTION_STATISTICS = [
  'connection_alloc_count',
  'connection_current_count',
  'connection_max_count',
] as const

const TIMES = ['last_source_update', 'last_sync_update', 'last_synced_timestamp', 'last_heart_beat_time'] as const

type Tally<Of extends string, Unit extends string> = `${'total' | 'success'}_${Of}_${Unit}`
type CounterName =
  | Tally<Operation, 'count'>
  | Tally<(typeof STREAMS)[number], 'bytes'>
  | Tally<(typeof FILE_CALLS)[number], 'count'>
  | (typeof TIMES)[number]
export type StatisticName = (typeof CONNECTION_STATISTICS)[number] | CounterName

/** The 42 numbers of 8 bytes. */
export const COUNTERS: readonly CounterName[] = [
  ...talliesOf(OPERATIONS, 'count'),
  ...talliesOf(STREAMS, 'bytes'),
  ...talliesOf(FILE_CALLS, 'count'),
  ...TIMES,
]

/** All of them as they are told; what is 0, or what an older server does not count, is left out. */
export type Statistics = { [Name in StatisticName]?: number }

/** The same while it is counted. */
export type Counters = Record<CounterName, number>

export function zeroCounters(): Counters {
  return Object.fromEntries(COUNTERS.map(name => [name, 0])) as Counters
}

/** Without what is 0: a beat says nothing of what never happened. */
export function withoutZeros(statistics: Statistics): Statistics {
  return Object.fromEntries(Object.entries(statistics).filter(([, value]) => value !== 0))
}

function talliesOf<Of extends string, Unit extends string>(names: readonly Of[], unit: Unit): Tally<Of, Unit>[] {
  return names.flatMap(name => [`total_${name}_${unit}`, `success_${name}_${unit}`] as const)
}
