/** `dfs rm`. */
import { eachInOrder, printJson } from './output.ts'
import { type ClusterFlags, retryNotes, type Session } from './session.ts'

export function rm({ client, signal }: Session, fileIds: readonly string[], flags: ClusterFlags): Promise<number> {
  const noteRetry = retryNotes(line => process.stderr.write(line))
  return eachInOrder(
    fileIds,
    { signal, nameOf: fileId => fileId },
    async fileId => {
      await client.delete(fileId, { signal, onRetry: noteRetry(fileId) })
      return { fileId, deleted: true }
    },
    deleted => {
      if (flags.json) printJson(deleted)
    },
  )
}
