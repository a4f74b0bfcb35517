/** What the tasks of the data port share: the store, the buffers, the way to the peers, and what may be taken now. */
import { DfsError } from '../../protocol/errors.ts'
import { decodeFileName, type FileNameParts } from '../../protocol/file-id.ts'
import type { Peer } from '../../protocol/storage-messages.ts'
import type { FrameClient } from '../../runtime/frame-client.ts'
import type { FramePool } from '../../runtime/frame-pool.ts'
import type { Log } from '../../runtime/log.ts'
import type { BlockPool } from '../../store/block-pool.ts'
import type { OnPhase } from '../../store/phase.ts'
import type { Store } from '../../store/store.ts'

/** What is counted, and told in beats and statistics. */
export interface PortCounts {
  uploads: number
  uploadBytes: number
  downloads: number
  downloadBytes: number
  deletes: number
  infos: number
  forwarded: number
  applied: number
  appliedBytes: number
  corruptBlocks: number
  failed: number
}

export interface PortContext {
  readonly store: Store
  readonly blocks: BlockPool
  readonly pool: FramePool
  readonly log: Log
  readonly counts: PortCounts
  /** The actor's published view: why uploads are refused now, or undefined. */
  readonly uploadsRefused: () => string | undefined
  readonly peers: () => ReadonlyMap<number, Peer>
  /** The address clients know us by. */
  readonly ownIp: () => string
  readonly onPhase: OnPhase
  /** Tells the world that a copy is bad. */
  readonly onCorruption: (name: string, error: Error) => void
}

/** Checks that a name is one of this group. Throws `bad_file_id`. */
export function admitName(context: PortContext, id: { group: string; name: string }): FileNameParts {
  if (id.group !== context.store.group) {
    throw new DfsError('bad_file_id', `this is group ${context.store.group}, not ${id.group}`)
  }
  return decodeFileName(id.name)
}

/** A connection to a peer. Rejects with `unavailable`. */
export function connectPeer(context: PortContext, peer: Peer): Promise<FrameClient> {
  return context.pool.connection({ host: peer.ip, port: peer.port })
}

/** Members to ask about a file that is not here: its source first. Never ourselves. */
export function othersFor(context: PortContext, file: FileNameParts): Peer[] {
  const peers = [...context.peers().values()]
  const isSource = (peer: Peer) => peer.storageId === file.storageId
  return [...peers.filter(isSource), ...peers.filter(peer => !isSource(peer) && peer.status !== 'offline')]
}

/**
 * Whether nobody can know more of a file than we do: it is ours, and we never lost data. A server that goes on under a
 * later epoch has lost some, and its peers may hold what it does not.
 */
export function isLastWord(context: PortContext, file: FileNameParts): boolean {
  return file.storageId === context.store.storageId && (context.store.epoch === 1 || context.peers().size === 0)
}

/**
 * What it means that a file is not here. Only its source may say "not found", or a member that has applied the source's
 * records past the second the file was made in; anybody else has to say "ask again".
 */
export function absence(context: PortContext, file: FileNameParts): DfsError {
  if (isLastWord(context, file)) return new DfsError('not_found')
  const position = file.storageId === undefined ? undefined : context.store.position(file.storageId)
  if (position !== undefined && Math.floor(position.timeMs / 1000) > file.createTimeS) return new DfsError('not_found')
  return new DfsError('unavailable', 'the file is not here, and those who may have it cannot be reached')
}

/** Asks the others in turn, until one gives or surely has not what is asked for. */
export async function askOthers<T>(
  context: PortContext,
  file: FileNameParts,
  ask: (client: FrameClient) => Promise<T>,
): Promise<T> {
  for (const peer of othersFor(context, file)) {
    try {
      const answer = await ask(await connectPeer(context, peer))
      context.counts.forwarded++
      return answer
    } catch (error) {
      if (!(error instanceof DfsError)) throw error
      if (error.code === 'not_found' || error.code === 'bad_range') throw error
      context.log.debug({ err: error, peer: peer.storageId }, 'a peer could not help')
    }
  }
  throw absence(context, file)
}
