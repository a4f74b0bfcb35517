/** `dfs append`, `dfs modify`, `dfs truncate`, `dfs regenerate`. */
import type { RequestOptions } from '../client/index.ts'
import { printJson, printLine } from './output.ts'
import { type ClusterFlags, retryNotes, type Session } from './session.ts'

export interface ModifyFlags extends ClusterFlags {
  readonly offset: number
}

export async function append(session: Session, fileId: string, path: string, flags: ClusterFlags): Promise<number> {
  await session.client.append(fileId, path, optionsOf(session, path))
  return done({ fileId }, flags)
}

export async function modify(session: Session, fileId: string, path: string, flags: ModifyFlags): Promise<number> {
  await session.client.modify(fileId, flags.offset, path, optionsOf(session, path))
  return done({ fileId }, flags)
}

export async function truncate(session: Session, fileId: string, sizeBytes: number, flags: ClusterFlags) {
  await session.client.truncate(fileId, sizeBytes, optionsOf(session, fileId))
  return done({ fileId, sizeBytes }, flags)
}

export async function regenerate(session: Session, fileId: string, flags: ClusterFlags): Promise<number> {
  const made = await session.client.regenerate(fileId, optionsOf(session, fileId))
  if (!flags.json) printLine(made.fileId)
  return done(made, flags)
}

function optionsOf({ signal }: Session, name: string): RequestOptions {
  return { signal, onRetry: retryNotes(line => process.stderr.write(line))(name) }
}

function done(result: object, { json }: ClusterFlags): number {
  if (json) printJson(result)
  return 0
}
