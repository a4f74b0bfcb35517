/** `dfs meta get` and `dfs meta set`. */
import { printJson, printLine, UsageError } from './output.ts'
import { type ClusterFlags, type ReadFlags, retryNotes, type Session } from './session.ts'

export interface MetaSetFlags extends ClusterFlags {
  readonly merge?: boolean
}

export async function metaGet({ client, signal }: Session, fileId: string, flags: ReadFlags): Promise<number> {
  const onRetry = retryNotes(line => process.stderr.write(line))(fileId)
  const metadata = await client.getMetadata(fileId, { signal, onRetry, consistency: flags.consistency })
  if (flags.json) printJson(metadata)
  else for (const [name, value] of Object.entries(metadata)) printLine(`${name}=${value}`)
  return 0
}

export async function metaSet(
  { client, signal }: Session,
  fileId: string,
  records: readonly string[],
  flags: MetaSetFlags,
): Promise<number> {
  const metadata = Object.fromEntries(records.map(parseRecord))
  const onRetry = retryNotes(line => process.stderr.write(line))(fileId)
  await client.setMetadata(fileId, metadata, { signal, onRetry, merge: flags.merge })
  if (flags.json) printJson({ fileId, metadata })
  return 0
}

function parseRecord(argument: string): [name: string, value: string] {
  const equals = argument.indexOf('=')
  if (equals < 1) throw new UsageError(`${argument}: metadata is given as name=value`)
  return [argument.slice(0, equals), argument.slice(equals + 1)]
}
