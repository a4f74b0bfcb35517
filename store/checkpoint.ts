/**
 * How far the binlog's effects are durable in the directories, so that recovery need not begin at the beginning.
 *
 *     <data>/checkpoint   { version, epoch, sequence, ownEnd, timeMs, positions: [{ storageId, epoch, sequence, timeMs, incomplete? }],
 *                           slots: [{ storePathIndex, segmentId, endBytes }], reopened: [{ storePathIndex, segmentId }] }
 *
 * Everything up to `sequence` is where it belongs; `slots` says where the own slots end that have records up to there, and
 * `reopened` in which segments before that free slots may be used again. A checkpoint that is missing, damaged or of another
 * epoch costs time only: recovery then starts at the first record.
 */
import { join } from 'node:path'
import type { SourcePosition } from '../protocol/storage-messages.ts'
import type { Disk } from '../runtime/world.ts'
import { DocumentDamagedError, readDocument, writeDocument } from './durable-document.ts'

const CHECKPOINT_VERSION = 1

export interface Checkpoint {
  readonly epoch: number
  readonly sequence: number
  /** The last record of our own up to `sequence`, 0 for none; `sequence` if an earlier version did not say it. */
  readonly ownEnd: number
  /** Of the last record of our own up to `sequence`. */
  readonly timeMs: number
  /** How far the records of each peer have been applied. */
  readonly positions: readonly SourcePosition[]
  readonly slots: readonly SlotEnd[]
  readonly reopened: readonly ReopenedSegment[]
}

/** A segment of this source whose free slots may be used again. */
export interface ReopenedSegment {
  readonly storePathIndex: number
  readonly segmentId: number
}

/** Where the slots of a store path end that this source has filled and recorded. */
export interface SlotEnd {
  readonly storePathIndex: number
  readonly segmentId: number
  readonly endBytes: number
}

/** What was found in place of a checkpoint: `current` is false if it is missing, damaged or of an earlier epoch. */
export interface FoundCheckpoint extends Checkpoint {
  readonly current: boolean
  readonly damaged: boolean
}

/** Reads the checkpoint of an epoch; one of an earlier epoch still tells the positions. */
export async function readCheckpoint(disk: Disk, dataDirectory: string, epoch: number): Promise<FoundCheckpoint> {
  const none = {
    epoch,
    sequence: 0,
    ownEnd: 0,
    timeMs: 0,
    positions: [],
    slots: [],
    reopened: [],
    current: false,
    damaged: false,
  }
  let found: (Checkpoint & { version: number }) | undefined
  try {
    found = (await readDocument(disk, join(dataDirectory, 'checkpoint'))) as typeof found
  } catch (error) {
    if (error instanceof DocumentDamagedError) return { ...none, damaged: true }
    throw error
  }
  if (found?.version !== CHECKPOINT_VERSION) return none
  const { sequence, ownEnd = sequence, timeMs, positions, slots = [], reopened = [] } = found
  if (found.epoch !== epoch) return { ...none, timeMs, positions }
  return { ...none, sequence, ownEnd, timeMs, positions, slots, reopened, current: true }
}

/** Replaces the checkpoint; durable when it resolves. */
export function writeCheckpoint(disk: Disk, dataDirectory: string, checkpoint: Checkpoint): Promise<void> {
  return writeDocument(disk, join(dataDirectory, 'checkpoint'), { version: CHECKPOINT_VERSION, ...checkpoint })
}
