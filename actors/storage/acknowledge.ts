/** Answers uploads: at once, or when as many members hold them as were asked for. */
import type { AckLevel } from '../../protocol/ack.ts'
import { type UploadHead, writeChangePlace, writeGroupAndName, writeReceipt } from '../../protocol/data-bodies.ts'
import { DfsError } from '../../protocol/errors.ts'
import { formatFileId } from '../../protocol/file-id.ts'
import { REQUEST_STATUS } from '../../protocol/frame.ts'
import type { FrameReply, FrameRequest } from '../../runtime/frame-server.ts'
import type { Stored } from '../../store/store.ts'
import type { PortContext } from './port-context.ts'

/** Throws `busy` if an upload could not wait for its level: before anything of it is kept. */
export function admitAck({ ack, replicas }: PortContext, head: UploadHead | undefined): void {
  if ((head?.ack ?? ack) !== 'one' && replicas.isFull) throw new DfsError('busy', 'too many uploads wait for peers')
}

/**
 * The reply to an upload whose file is durable here; FastDFS's clients have no head, and get no receipt. Rejects with
 * `ack_timeout` if too few members hold it in time: the file stays.
 */
export function acknowledge(
  context: PortContext,
  stored: Stored,
  head: UploadHead | undefined,
): FrameReply | Promise<FrameReply> {
  const level = head?.ack ?? context.ack
  if (context.replicas.reaches(level, stored)) return replyTo(context, stored, head)
  return held(context, level, stored, head?.ackTimeoutMs).then(() => replyTo(context, stored, head))
}

/**
 * The reply to a change of a file that is done. Who asks for its place gets that of the last record that peers will have, which
 * is this change's or a later one's. Rejects with `ack_timeout` if too few members have that in time: the change stays.
 */
export async function answerChange(
  context: PortContext,
  { status }: FrameRequest,
  name: string,
  parts: readonly Buffer[] = [],
): Promise<FrameReply> {
  const { store, acknowledged } = context
  const { storageId: source, epoch, ownEnd: sequence } = store
  await held(context, context.ack, { name, sequence })
  if (status !== REQUEST_STATUS.tellPlace) return { status: 0, parts, ...acknowledged }
  return { status: 0, parts: [writeChangePlace({ source, epoch, sequence }), ...parts], ...acknowledged }
}

/** Waits until as many members hold something as a level asks for. Rejects with `ack_timeout`. */
async function held(context: PortContext, level: AckLevel, stored: Stored, timeoutMs?: number): Promise<void> {
  const { replicas, counts, store } = context
  if (replicas.reaches(level, stored) || (await replicas.wait(level, stored, timeoutMs))) return
  counts.ackTimeouts++
  const fileId = formatFileId({ group: store.group, name: stored.name })
  throw new DfsError('ack_timeout', `${replicas.holders(stored)} of ${replicas.members} members hold ${fileId}`)
}

function replyTo(context: PortContext, stored: Stored, head: UploadHead | undefined): FrameReply {
  const { store, replicas, isDurable: durable, acknowledged } = context
  const named = writeGroupAndName(store.group, stored.name)
  if (head === undefined) return { status: 0, parts: [named], ...acknowledged }
  const { storageId: source, epoch } = store
  const { sequence } = stored
  const receipt = writeReceipt({ replicas: replicas.holders(stored), durable, source, epoch, sequence })
  return { status: 0, parts: [receipt, named], ...acknowledged }
}
