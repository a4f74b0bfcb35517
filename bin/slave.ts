/** `dfs slave`. */
import { printJson, printLine } from './output.ts'
import { type ClusterFlags, retryNotes, type Session } from './session.ts'

export interface SlaveFlags extends ClusterFlags {
  readonly ext?: string
}

export async function slave(
  { client, signal }: Session,
  { masterId, prefix, path }: { masterId: string; prefix: string; path: string },
  { ext: extension, json }: SlaveFlags,
): Promise<number> {
  const onRetry = retryNotes(line => process.stderr.write(line))(path)
  const stored = await client.uploadSlave(masterId, path, { prefix, extension, signal, onRetry })
  if (json) printJson(stored)
  else printLine(stored.fileId)
  return 0
}
