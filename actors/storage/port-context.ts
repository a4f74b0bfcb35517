/** What the tasks of the data port share: the store, the buffers, the way to the peers, and what may be taken now. */
import type { AckLevel } from '../../protocol/ack.ts'
import { DfsError, toDfsError } from '../../protocol/errors.ts'
import { decodeFileName, type FileNameParts, isMetadataName } from '../../protocol/file-id.ts'
import { REQUEST_STATUS } from '../../protocol/frame.ts'
import type { Peer } from '../../protocol/storage-messages.ts'
import type { FrameClient } from '../../runtime/frame-client.ts'
import type { FramePool } from '../../runtime/frame-pool.ts'
import type { FrameReply, FrameRequest } from '../../runtime/frame-server.ts'
import type { Log } from '../../runtime/log.ts'
import type { BlockPool } from '../../store/block-pool.ts'
import type { PartialFiles } from '../../store/partial-files.ts'
import type { Replicas } from '../../store/replicas.ts'
import { isSlotName } from '../../store/slot.ts'
import type { Store } from '../../store/store.ts'
import type { Access } from './access.ts'
import type { Listers } from './list-files.ts'
import type { Orderers } from './orderers.ts'

/** What is counted, and told in beats and statistics. */
export interface PortCounts {
  uploads: number
  uploadBytes: number
  downloads: number
  downloadBytes: number
  deletes: number
  /** Uploads that were not held by as many members in time as they asked for. */
  ackTimeouts: number
  infos: number
  forwarded: number
  applied: number
  appliedBytes: number
  /** Downloads that needed no disk. */
  cacheHits: number
  corruptBlocks: number
  failed: number
}

export interface PortContext {
  readonly store: Store
  readonly replicas: Replicas
  /** How many members hold an upload before it is answered, unless it says so itself. */
  readonly ack: AckLevel
  /** Whether uploads are synced to the disk before they are answered. */
  readonly isDurable: boolean
  readonly blocks: BlockPool
  /** Files of sources that were cut off. */
  readonly partials: PartialFiles
  readonly pool: FramePool
  readonly access: Access
  readonly orderers: Orderers
  readonly listers: Listers
  readonly log: Log
  readonly counts: PortCounts
  /** The actor's published view: why uploads are refused now, or undefined. */
  readonly uploadsRefused: () => string | undefined
  readonly peers: () => ReadonlyMap<number, Peer>
  /** Storage ids by the address or id that FastDFS named a member by, of files that were taken over. */
  readonly heirs: () => ReadonlyMap<string, number>
  /** Whether a tracker has told who the peers are. */
  readonly joined: () => boolean
  /** The address clients know us by. */
  readonly ownIp: () => string
  /** What is to be done once a change has been answered, if anybody listens to its phases. */
  readonly acknowledged: Pick<FrameReply, 'release'>
  /** Told of a file that could not be read as it should. */
  readonly onCorruption: (name: string) => void
}

/** Checks that a name is one of this group. Throws `bad_file_id`. */
export function admitName(context: PortContext, id: { group: string; name: string }): FileNameParts {
  admitGroup(context, id)
  return admitFile(context, id.name)
}

/** Checks that this is the group that is meant. Throws `bad_file_id`. */
export function admitGroup({ store }: PortContext, { group }: { group: string }): void {
  if (group !== store.group) throw new DfsError('bad_file_id', `this is group ${store.group}, not ${group}`)
}

/** Checks that a name can be that of a file here, and says who is its source now. Throws `bad_file_id`. */
export function admitFile(context: PortContext, name: string): FileNameParts {
  const file = decodeFileName(name)
  if (file.slot !== undefined && !isSlotName(name, file)) throw new DfsError('bad_file_id', 'there is no such slot')
  if (file.kind === 'slave' && isMetadataName(name)) throw new DfsError('bad_file_id', 'this is not the name of a file')
  const heirs = context.heirs()
  if (heirs.size === 0) return file
  const storageId = heirs.get(file.address ?? String(file.storageId)) ?? file.storageId
  return { ...file, storageId }
}

/** Whether a request is to be answered from what is here: a peer's, and a read of who must not get what others have. */
export function isAlone({ connection, status }: FrameRequest): boolean {
  return connection.role === 'peer' || status === REQUEST_STATUS.alone || status === REQUEST_STATUS.strong
}

/** Throws `unavailable` if a read asks for the last change of a file, and another member may order its changes. */
export function admitRead(context: PortContext, { status }: FrameRequest, name: string): void {
  if (status === REQUEST_STATUS.strong && !context.orderers.orders(admitFile(context, name).storageId))
    throw new DfsError('unavailable', 'this member does not order the changes of this file')
}

/** A connection to a peer. Rejects with `unavailable`. */
export function connectPeer(context: PortContext, peer: Peer): Promise<FrameClient> {
  return context.pool.connection({ host: peer.ip, port: peer.port })
}

/** Whether a change of a file is for this member to make, and not to be passed on. */
export function isForUs({ orderers, store }: PortContext, { storageId }: FileNameParts): boolean {
  return storageId !== undefined && orderers.ordererOf(storageId) === store.storageId
}

/**
 * Passes a change on to who orders the changes of a file: its source, unless another member has taken over. Rejects with
 * `unavailable` if that is not known, or cannot be reached.
 */
export async function askSource<T>(
  context: PortContext,
  request: FrameRequest,
  { storageId }: FileNameParts,
  ask: (client: FrameClient) => Promise<T>,
): Promise<T> {
  const source = storageId === undefined ? undefined : context.peers().get(context.orderers.ordererOf(storageId))
  // A peer that asks takes us for the source; sending it on could go round for ever.
  if (source === undefined || request.connection.role === 'peer')
    throw new DfsError('unavailable', 'who orders the changes of this file is not known here')
  try {
    const answer = await ask(await connectPeer(context, source))
    context.counts.forwarded++
    return answer
  } catch (error) {
    if (toDfsError(error).code !== 'not_here') throw error
    throw new DfsError('unavailable', 'who orders the changes of this file does not have it, nor knows that it is gone')
  }
}
