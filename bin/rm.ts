/** `dfs rm`. */
import { eachInOrder, printJson } from './output.ts'
import type { ClusterFlags, Session } from './session.ts'

export function rm({ client, signal }: Session, fileIds: readonly string[], flags: ClusterFlags): Promise<number> {
  return eachInOrder(
    fileIds,
    { signal, nameOf: fileId => fileId },
    async fileId => {
      await client.delete(fileId, { signal })
      return { fileId, deleted: true }
    },
    deleted => {
      if (flags.json) printJson(deleted)
    },
  )
}
