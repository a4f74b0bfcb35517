/**
 * How far the scrub has got, so that it goes on from there after a restart.
 *
 *     <data>/scrub   { version, position, file?, suspects: [{ name, waits }] }
 *
 * Written about once a minute: what was read since is read again. One that is missing or damaged begins a pass anew.
 */
import { join } from 'node:path'
import type { Disk } from '../runtime/world.ts'
import { DocumentDamagedError, readDocument, writeDocument } from './durable-document.ts'
import type { FileReading } from './scrub-file.ts'

const SCRUB_VERSION = 1

/**
 * Where a pass is: behind a record, whose slots are looked at; behind a name in a directory of plain files; or at the files
 * that are known to be bad.
 */
export type ScrubPosition =
  | { readonly phase: 'slots'; readonly epoch: number; readonly sequence: number }
  | {
      readonly phase: 'plain'
      readonly storePathIndex: number
      readonly directoryIndex: number
      /** Empty at the beginning of a directory. */
      readonly after: string
    }
  | { readonly phase: 'known' }

/** Where a pass begins. */
export const PASS_START: ScrubPosition = { phase: 'slots', epoch: 0, sequence: 0 }

export interface ScrubMark {
  readonly position: ScrubPosition
  /** The file that was being read. */
  readonly file?: FileReading | undefined
  /** Files that are to be looked at again; see `Suspect`. */
  readonly suspects: readonly { readonly name: string; readonly waits: boolean }[]
}

export async function readScrubMark(disk: Disk, dataDirectory: string): Promise<ScrubMark> {
  const found = (await readDocument(disk, markPath(dataDirectory)).catch(error => {
    if (error instanceof DocumentDamagedError) return undefined
    throw error
  })) as (ScrubMark & { version: number }) | undefined
  if (found?.version !== SCRUB_VERSION) return { position: PASS_START, suspects: [] }
  const { position, file, suspects } = found
  return { position, file, suspects }
}

/** Replaces the mark; durable when it resolves. One at a time. */
export function writeScrubMark(disk: Disk, dataDirectory: string, mark: ScrubMark): Promise<void> {
  return writeDocument(disk, markPath(dataDirectory), { version: SCRUB_VERSION, ...mark })
}

function markPath(dataDirectory: string): string {
  return join(dataDirectory, 'scrub')
}
