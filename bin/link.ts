/** `dfs link`. */
import { printJson, printLine } from './output.ts'
import { type ClusterFlags, retryNotes, type Session } from './session.ts'

export interface LinkFlags extends ClusterFlags {
  readonly ext?: string
}

export async function link(
  { client, signal }: Session,
  { fileId, masterId, prefix }: { fileId: string; masterId: string | undefined; prefix: string | undefined },
  { ext: extension, json }: LinkFlags,
): Promise<number> {
  const onRetry = retryNotes(line => process.stderr.write(line))(fileId)
  const made = await client.createLink(fileId, { extension, masterId, prefix, signal, onRetry })
  if (json) printJson(made)
  else printLine(made.fileId)
  return 0
}
