/** Whose a data directory is, and that nobody else has it. */
import { STORAGE_ID_MAX } from '../protocol/file-id.ts'
import type { DiskLock, World } from '../runtime/world.ts'
import { makeDurableDirectory } from './durable-directory.ts'
import { type Identity, nextWriter, openIdentity, writeIdentity } from './identity.ts'
import type { StoreOptions } from './store-options.ts'

/** What a data directory is opened with: identity and lock come first, because an epoch may have to be raised before the rest. */
export interface OpenDirectory {
  readonly identity: Identity
  readonly lock: DiskLock
}

/**
 * Locks a data directory and reads whose it is. Rejects with a DiskError (`EEXIST`) if another process has it. One that was
 * being taken over is for whoever `takesOver`.
 */
export async function openDirectory(
  world: World,
  options: StoreOptions,
  { takesOver = false } = {},
): Promise<OpenDirectory> {
  await makeDurableDirectory(world.disk, options.dataDirectory)
  const lock = await world.disk.lock(options.dataDirectory)
  try {
    const wanted = { storageId: options.storageId, group: options.group }
    const identity = await openIdentity(
      world.disk,
      world.random,
      world.clock.wallMs(),
      options.dataDirectory,
      wanted,
      STORAGE_ID_MAX,
    )
    const { takeOver } = identity
    if (takeOver !== undefined && takeOver.plainUntil === undefined && !takesOver)
      throw new Error(`${options.dataDirectory}: taking over from FastDFS was not finished; do it again`)
    return { identity, lock }
  } catch (error) {
    await lock.release()
    throw error
  }
}

/** Takes a higher epoch: this id has lived before, in a directory that is gone. */
export async function raiseEpoch(world: World, options: StoreOptions, identity: Identity, epoch: number) {
  const raised = { ...identity, epoch, writer: nextWriter(identity.writer) }
  await writeIdentity(world.disk, options.dataDirectory, raised)
  return raised
}
