/** A storage server as it is run: its data port and its store, with the sync workers beside them. */
import { type RunningStorage, type StorageOptions, startStorage } from '../actors/storage/start-storage.ts'
import { startSync } from '../actors/sync/start-sync.ts'
import type { RoleContext, RunningRole } from '../runtime/role.ts'
import type { Credentials } from '../runtime/secrets.ts'

export interface StorageServer extends RunningRole {
  readonly storage: RunningStorage
}

/** Starts both; they end together. */
export async function startStorageServer(
  context: RoleContext,
  options: StorageOptions & { readonly syncCredentials: Credentials },
): Promise<StorageServer> {
  const storage = await startStorage(context, options)
  const { store, blocks, pool, replicas } = storage
  const sync = await startSync(
    { ...context, log: context.log.child({ actor: `sync ${storage.storageId}` }) },
    {
      credentials: options.syncCredentials,
      dataDirectory: options.dataDirectory,
      store,
      blocks,
      pool,
      replicas,
      onPeers: listener => storage.onPeers(listener),
      onEpochTooOld: epochMin => storage.epochTooOld(epochMin),
    },
  )
  return {
    storage,
    // Sync reads the store, so it ends first, whoever asked for the end.
    ended: storage.ended.then(async how => {
      await sync.stop()
      return how
    }),
    async stop() {
      await sync.stop()
      await storage.stop()
    },
  }
}
