/** `dfs slave`. */
import { printJson, printLine } from './output.ts'
import { type ClusterFlags, retryNotes, type Session } from './session.ts'

export interface SlaveFlags extends ClusterFlags {
  readonly prefix: string
  readonly ext?: string
}

export async function slave(
  { client, signal }: Session,
  masterId: string,
  path: string,
  { prefix, ext: extension, json }: SlaveFlags,
): Promise<number> {
  const onRetry = retryNotes(line => process.stderr.write(line))(path)
  const stored = await client.uploadSlave(masterId, path, { prefix, extension, signal, onRetry })
  if (json) printJson(stored)
  else printLine(stored.fileId)
  return 0
}
