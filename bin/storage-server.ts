/** A storage server as it is run: its data port and its store, with the sync workers and the scrub beside them. */
import { type RunningScrub, type ScrubOptions, startScrub } from '../actors/scrub/start-scrub.ts'
import { type RunningStorage, type StorageOptions, startStorage } from '../actors/storage/start-storage.ts'
import { startSync } from '../actors/sync/start-sync.ts'
import type { RoleContext, RunningRole } from '../runtime/role.ts'
import type { Credentials } from '../runtime/secrets.ts'

export interface StorageServer extends RunningRole {
  readonly storage: RunningStorage
  readonly scrub: RunningScrub
}

export type StorageServerOptions = StorageOptions & {
  readonly syncCredentials: Credentials
  readonly scrub: Pick<ScrubOptions, 'bytesPerSecond' | 'passMsMin'>
}

/** Starts all of them; they end together. */
export async function startStorageServer(context: RoleContext, options: StorageServerOptions): Promise<StorageServer> {
  const storage = await startStorage(context, options)
  const { dataDirectory } = options
  const { store, ordering, blocks, pool, quarantine, replicas } = storage
  const scrub = await startScrub(
    { ...context, log: context.log.child({ actor: `scrub ${storage.storageId}` }) },
    {
      ...{ ...options.scrub, dataDirectory, store, quarantine },
      onDamage: (name, problem) => storage.tellCorruption(name, problem),
    },
  )
  storage.onCorruption(name => scrub.suspect(name))
  storage.addCounts(() => scrub.counts())
  const sync = await startSync(
    { ...context, log: context.log.child({ actor: `sync ${storage.storageId}` }) },
    {
      credentials: options.syncCredentials,
      dataDirectory,
      store,
      ordering,
      blocks,
      pool,
      replicas,
      onPeers: listener => storage.onPeers(listener),
      onEpochTooOld: epochMin => storage.epochTooOld(epochMin),
      onCorruption: name => scrub.suspect(name),
    },
  )
  return {
    storage,
    scrub,
    // They read the store, so they end first, whoever asked for the end.
    ended: storage.ended.then(async how => {
      await sync.stop()
      await scrub.stop()
      return how
    }),
    async stop() {
      await sync.stop()
      await scrub.stop()
      await storage.stop()
    },
  }
}
