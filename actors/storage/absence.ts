/**
 * What it means that a file is not here: a member that does not have it asks the others, its source first.
 *
 *     not_found     it was here, or was applied, and has been deleted since: whoever knows that says it, and is believed;
 *                   or nobody has it, and everybody was asked
 *     not_here      what members say to each other: no file, and no knowledge of it
 *     unavailable   somebody who may have it cannot be asked now
 */
import { DfsError } from '../../protocol/errors.ts'
import type { FileNameParts } from '../../protocol/file-id.ts'
import type { Peer } from '../../protocol/storage-messages.ts'
import type { FrameClient } from '../../runtime/frame-client.ts'
import type { FrameRequest } from '../../runtime/frame-server.ts'
import { connectPeer, isAlone, type PortContext } from './port-context.ts'

/** Asks the others for a file that is not here. Rejects with `not_found`, `not_here` or `unavailable`. */
export async function askAbout<T>(
  context: PortContext,
  request: FrameRequest,
  { name, file }: { name: string; file: FileNameParts },
  ask: (client: FrameClient) => Promise<T>,
): Promise<T> {
  if (await knowsOfDeletion(context, name, file)) throw new DfsError('not_found')
  // Whoever is asked by a member does not ask a third.
  if (isAlone(request)) throw new DfsError('not_here')
  return askOthers(context, file, ask)
}

/**
 * Asks the others in turn, until one gives what is asked for or knows that it is gone. Whoever asks because its own copy
 * `isBad` has the file: that nobody else has it does not mean that there is none.
 */
export async function askOthers<T>(
  context: PortContext,
  file: FileNameParts,
  ask: (client: FrameClient) => Promise<T>,
  { isBad = false } = {},
): Promise<T> {
  const peers = context.peers()
  const isOurs = file.storageId === context.store.storageId
  let everybodyAnswered =
    !isBad && knowsAllPeers(context, file) && (isOurs || (file.storageId !== undefined && peers.has(file.storageId)))
  for (const peer of inOrder(peers, file)) {
    try {
      const answer = await ask(await connectPeer(context, peer))
      context.counts.forwarded++
      return answer
    } catch (error) {
      if (!(error instanceof DfsError)) throw error
      if (error.code === 'not_found' || error.code === 'bad_range') throw error
      if (error.code !== 'not_here') everybodyAnswered = false
      context.log.debug({ err: error, peer: peer.storageId }, 'a peer could not help')
    }
  }
  if (everybodyAnswered) throw new DfsError('not_found')
  throw new DfsError('unavailable', 'the file is not here, and those who may have it cannot be reached')
}

/**
 * Whether the peers we know of are all there are. A tracker that has just started tells of few: whoever we have records
 * of must be among them, and somebody, if there is a past that we have lost: we were told of one, or the file is from it.
 */
function knowsAllPeers({ store, peers, joined }: PortContext, file: FileNameParts): boolean {
  const known = peers()
  // What was taken over is all of the past that there is.
  const hasLostPast = store.epoch > 1 || (store.isOfEarlierLife(file) && store.formerly.length === 0)
  return joined() && store.positions.every(at => known.has(at.storageId)) && (known.size > 0 || !hasLostPast)
}

/** The source first, those that are thought to be offline last. */
function inOrder(peers: ReadonlyMap<number, Peer>, file: FileNameParts): Peer[] {
  const rank = (peer: Peer) => (peer.storageId === file.storageId ? 0 : peer.status === 'offline' ? 2 : 1)
  return [...peers.values()].sort((a, b) => rank(a) - rank(b))
}

/** Whether this member has had a file, or would have it: then it has been deleted. */
async function knowsOfDeletion(context: PortContext, name: string, file: FileNameParts): Promise<boolean> {
  const { store, orderers } = context
  if (file.storageId === undefined) return false
  // It may have come long after the time in its name, which is its master's: only who orders its changes has heard of all.
  if (file.kind === 'slave' && !orderers.orders(file.storageId)) return false
  if (file.slot !== undefined || file.storageId === store.storageId) return store.knowsDeletion(name)
  // Of what a source took over it may have lacked something that another member has.
  const source = context.peers().get(file.storageId)
  if (source?.madeS !== undefined && file.createTimeS < source.madeS) return false
  const position = store.position(file.storageId)
  // A source in a later epoch has lost data: being level with it says nothing of what it had before.
  if (position === undefined || position.epoch > 1 || position.incomplete) return false
  return file.kind === 'slave' || Math.floor(position.timeMs / 1000) > file.createTimeS
}
