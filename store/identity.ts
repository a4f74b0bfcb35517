/**
 * Who a data directory belongs to.
 *
 *     <data>/identity   { version, storageId, group, incarnation, madeS, bootCount, epoch, writer, storePathCount, takeOver? }
 *
 * `incarnation` is made once, with the directory, at `madeS`: another one under the same storage id is another server, and
 * what has an earlier time in its name is another's. `bootCount`
 * grows with every start. `epoch` numbers the lives of the binlog under this storage id: a directory that lost its
 * data begins with a higher one, so that no mark of an earlier life is ever taken for its own. `writer` does the same for
 * segments; it is random at first, so that a directory whose past nobody remembers does not write over it. `storePathCount`
 * is how many store paths there have been: one of them that is empty at a later start is a disk that is missing. `takeOver`
 * is there if the store paths were FastDFS's before; see take-over.ts.
 */
import { join } from 'node:path'
import type { Disk, Random } from '../runtime/world.ts'
import { DocumentDamagedError, readDocument, writeDocument } from './durable-document.ts'
import { WRITER_MAX } from './segments.ts'

const IDENTITY_VERSION = 1

export interface Identity {
  readonly storageId: number
  readonly group: string
  /** 32 hex digits. */
  readonly incarnation: string
  /** Seconds since 1970, by our own clock. */
  readonly madeS: number
  readonly bootCount: number
  readonly epoch: number
  readonly writer: number
  readonly storePathCount: number
  readonly takeOver?: TakenOver | undefined
}

/** What was taken over from FastDFS. */
export interface TakenOver {
  /** Addresses and ids in names of files whose source this server is since then. */
  readonly sources: readonly string[]
  /**
   * Up to this sequence of epoch 1 the binlog has the records of all files of their own, by name. Undefined until the
   * take-over is done.
   */
  readonly plainUntil?: number
}

/** The directory belongs to another storage server than the one that was to be started on it. */
export class WrongIdentityError extends Error {
  constructor(path: string, is: string, wanted: string) {
    super(`${path} belongs to ${is}, not to ${wanted}`)
    this.name = 'WrongIdentityError'
  }
}

/** Opens or makes an identity and counts the start. Without a wanted id, a new directory gets a random one. */
export async function openIdentity(
  disk: Disk,
  random: Random,
  nowMs: number,
  dataDirectory: string,
  wanted: { storageId?: number | undefined; group: string },
  storageIdMax: number,
): Promise<Identity> {
  const path = identityPath(dataDirectory)
  const found = (await readDocument(disk, path)) as (Identity & { version: number }) | undefined
  if (found !== undefined && found.version !== IDENTITY_VERSION) {
    throw new DocumentDamagedError(path, `version ${found.version} is not known here`)
  }
  const identity: Identity = found
    ? {
        ...found,
        madeS: found.madeS ?? 0,
        bootCount: found.bootCount + 1,
        writer: found.writer ?? randomWriter(random),
        storePathCount: found.storePathCount ?? 0,
      }
    : {
        storageId: wanted.storageId ?? 1 + random.below(storageIdMax),
        group: wanted.group,
        incarnation: random.bytes(16).toString('hex'),
        madeS: Math.floor(nowMs / 1000),
        bootCount: 1,
        epoch: 1,
        writer: randomWriter(random),
        storePathCount: 0,
      }
  const expected = { storageId: wanted.storageId ?? identity.storageId, group: wanted.group }
  if (identity.storageId !== expected.storageId || identity.group !== expected.group) {
    throw new WrongIdentityError(path, nameOf(identity), nameOf(expected))
  }
  await writeIdentity(disk, dataDirectory, identity)
  return identity
}

/** Whether a data directory has taken over what is on its store paths. */
export async function isTakenOver(disk: Disk, dataDirectory: string): Promise<boolean> {
  const found = (await readDocument(disk, identityPath(dataDirectory))) as Identity | undefined
  return found?.takeOver !== undefined
}

/** Replaces the identity; durable when it resolves. */
export function writeIdentity(disk: Disk, dataDirectory: string, identity: Identity): Promise<void> {
  const document = { version: IDENTITY_VERSION, ...identity }
  return writeDocument(disk, identityPath(dataDirectory), document)
}

/** The writer that follows one that may have written what is lost. */
export function nextWriter(writer: number): number {
  return (writer % WRITER_MAX) + 1
}

function randomWriter(random: Random): number {
  return 1 + random.below(WRITER_MAX)
}

function identityPath(dataDirectory: string): string {
  return join(dataDirectory, 'identity')
}

function nameOf(server: { storageId: number; group: string }): string {
  return `storage server ${server.storageId} of ${server.group}`
}
