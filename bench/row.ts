/** One line of the result. */
import type { Pairs } from './pairs.ts'

/** From here on a run does a count of files, because a time would hold too few of them. */
export const LARGE_BYTES = 16 * 2 ** 20

export const TOPICS = ['upload', 'download', 'delete', 'sdk', 'lag', 'catch-up'] as const
export type Topic = (typeof TOPICS)[number]

/** What a process used while a row was measured. */
export interface RowUse {
  /** Of one core. */
  readonly cpuPercent: number
  readonly rssMib: number
}

interface RowHead {
  readonly topic: Topic
  /** What was done, such as `upload to the storage port`. */
  readonly name: string
  readonly sizeBytes: number
  readonly durability: string
}

/** Rates of two sides in pairs. */
export interface PairRow extends RowHead {
  readonly connections: number
  readonly generator: string
  readonly against: string
  readonly pairs: Pairs
  readonly use: Readonly<Record<string, RowUse>>
}

/** Numbers that have no yardstick. */
export interface FigureRow extends RowHead {
  readonly figures: Readonly<Record<string, number>>
}

export type Row = PairRow | FigureRow
