/** The storage server's data port: every command it answers, and who does the work. */
import { encode } from '../../protocol/codec.ts'
import { DfsError } from '../../protocol/errors.ts'
import { COMMANDS } from '../../protocol/frame.ts'
import { admit, MESSAGE_BYTES_MAX } from '../../protocol/message.ts'
import { OrdererQuestion } from '../../protocol/orderers.ts'
import type { Operation } from '../../protocol/statistics.ts'
import type { FrameHandler, FrameReply, FrameRequest } from '../../runtime/frame-server.ts'
import type { Gatekeeper } from '../../runtime/handshake.ts'
import { DiskError, isFull } from '../../runtime/world.ts'
import { syncPosition, syncRecord, syncRun } from './apply-record.ts'
import { append, modify, regenerate, truncate, uploadAppender } from './change-appender.ts'
import { createLink } from './create-link.ts'
import { deleteFile } from './delete-file.ts'
import { downloadFile } from './download-file.ts'
import { listFiles } from './list-files.ts'
import { getMetadata, setMetadata } from './metadata.ts'
import type { PortContext } from './port-context.ts'
import { queryFileInfo } from './query-file-info.ts'
import { syncHeld } from './sync-held.ts'
import { uploadFile, uploadOnce, uploadStream } from './upload-file.ts'
import { uploadSlave } from './upload-slave.ts'

/** Linux's EINVAL: FastDFS's storage server ends the connection after it, and after no other. */
const EINVAL = 22

/** Which commands are counted, and where. */
const COUNTED = new Map([
  [COMMANDS.uploadFile, tallyOf('upload')],
  [COMMANDS.uploadOnce, tallyOf('upload')],
  [COMMANDS.uploadStream, tallyOf('upload')],
  [COMMANDS.uploadSlave, tallyOf('upload')],
  [COMMANDS.uploadAppender, tallyOf('upload')],
  [COMMANDS.createLink, tallyOf('create_link')],
  [COMMANDS.append, tallyOf('append')],
  [COMMANDS.modify, tallyOf('modify')],
  [COMMANDS.truncate, tallyOf('truncate')],
  [COMMANDS.setMetadata, tallyOf('set_meta')],
  [COMMANDS.getMetadata, tallyOf('get_meta')],
  [COMMANDS.downloadFile, tallyOf('download')],
  [COMMANDS.deleteFile, tallyOf('delete')],
] as [number, Tally][])

type Tally = ReturnType<typeof tallyOf>

/** Whether a connection ends after this error. */
export function closesAfter(errno: number): boolean {
  return errno === EINVAL
}

/** Answers all commands of the data port. */
export function storagePort(context: PortContext, gatekeeper: Gatekeeper, incarnation: string): FrameHandler {
  const answer = (request: FrameRequest): ReturnType<FrameHandler> => {
    context.access.admitRequest(request)
    switch (request.command) {
      case COMMANDS.uploadFile:
        return uploadFile(context, request)
      case COMMANDS.downloadFile:
        return downloadFile(context, request)
      case COMMANDS.deleteFile:
        return deleteFile(context, request)
      case COMMANDS.queryFileInfo:
        return queryFileInfo(context, request)
      case COMMANDS.uploadSlave:
        return uploadSlave(context, request)
      case COMMANDS.createLink:
        return createLink(context, request)
      case COMMANDS.uploadAppender:
        return uploadAppender(context, request)
      case COMMANDS.append:
        return append(context, request)
      case COMMANDS.modify:
        return modify(context, request)
      case COMMANDS.truncate:
        return truncate(context, request)
      case COMMANDS.regenerate:
        return regenerate(context, request)
      case COMMANDS.setMetadata:
        return setMetadata(context, request)
      case COMMANDS.getMetadata:
        return getMetadata(context, request)
      case COMMANDS.activeTest:
        return { status: 0 }
      case COMMANDS.quit:
        return undefined
      case COMMANDS.authenticate:
        return gatekeeper.challenge(request)
      case COMMANDS.prove:
        return gatekeeper.verify(request)
      case COMMANDS.uploadOnce:
        return proven(request, () => uploadOnce(context, request))
      case COMMANDS.uploadStream:
        return proven(request, () => uploadStream(context, request))
      case COMMANDS.listFiles:
        return proven(request, () => listFiles(context, request))
      case COMMANDS.syncPosition:
        return syncPosition(context, request, incarnation)
      case COMMANDS.syncRecord:
        return syncRecord(context, request)
      case COMMANDS.syncRun:
        return syncRun(context, request)
      case COMMANDS.syncHeld:
        return syncHeld(context, request)
      case COMMANDS.orderers:
        return answerMember(context, request)
      default:
        throw new DfsError('bad_request', `command ${request.command} is not known here`)
    }
  }
  const { counters } = context.store
  const succeed = (tally: Tally | undefined, reply: FrameReply | undefined) => {
    if (tally !== undefined) counters[tally.success]++
    return reply
  }
  return request => {
    const tally = COUNTED.get(request.command)
    if (tally !== undefined) counters[tally.total]++
    try {
      const reply = answer(request)
      if (!(reply instanceof Promise)) return succeed(tally, reply)
      return reply.then(
        late => succeed(tally, late),
        error => fail(context, error),
      )
    } catch (error) {
      return fail(context, error)
    }
  }
}

/** The names of an operation's two counters, made once. */
function tallyOf(operation: Operation) {
  return { total: `total_${operation}_count`, success: `success_${operation}_count` } as const
}

/** Counts a failure, and says what it is for whoever asked. */
function fail({ counts, log }: PortContext, error: unknown): never {
  counts.failed++
  if (!(error instanceof DiskError)) throw error
  if (isFull(error)) throw new DfsError('no_space', undefined, { cause: error })
  log.error({ err: error }, 'a disk failed under a request')
  throw new DfsError('unavailable', 'a disk of this server failed', { cause: error })
}

/** Answers another member that asks who orders whose changes, or begins to change that, 210. */
async function answerMember(
  { orderers }: PortContext,
  { connection, body, lengthBytes }: FrameRequest,
): Promise<FrameReply> {
  if (connection.role !== 'peer') throw new DfsError('unauthorized', 'only storage servers of the cluster agree')
  if (lengthBytes > MESSAGE_BYTES_MAX) throw new DfsError('too_large', 'the question is too long')
  const { value } = admit(OrdererQuestion, await body.copy(lengthBytes))
  return { status: 0, parts: [Buffer.from(encode(await orderers.answer(value), 'msgpack'))] }
}

/** Private commands are for those who have proven the secret. */
function proven(request: FrameRequest, answer: () => Promise<FrameReply>): Promise<FrameReply> {
  if (request.connection.role === 'anonymous') return Promise.reject(new DfsError('unauthorized'))
  return answer()
}
