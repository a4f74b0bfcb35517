/** The tracker's FastDFS port: the same questions as on the bus, in the other encoding. */
import { NAME_BODY_BYTES_MAX, readGroupAndName } from '../../protocol/data-bodies.ts'
import { DfsError } from '../../protocol/errors.ts'
import { formatFileId, GROUP_NAME_BYTES, STORAGE_ID_MAX } from '../../protocol/file-id.ts'
import { COMMANDS, readString } from '../../protocol/frame.ts'
import type { ReplyOf } from '../../protocol/message.ts'
import {
  FETCH_IDS_BYTES,
  type GroupAndText,
  HOST_BYTES_MAX,
  readGroupAndText,
  STORAGE_ID_BYTES_MAX,
  writeServers,
} from '../../protocol/tracker-bodies.ts'
import type { queryFetch, queryStore } from '../../protocol/tracker-messages.ts'
import type { FrameHandler, FrameReply, FrameRequest } from '../../runtime/frame-server.ts'
import { type PortContext, reply, widthOf } from './port-context.ts'
import {
  clusterStat,
  fetchStorageIds,
  getLeader,
  getParameters,
  getStorageId,
  getStorageStatus,
  listGroups,
  listStorages,
  setTrunkServer,
  storageStat,
  trackerStatus,
  volumeStat,
} from './statistics-port.ts'

/** The longest body a tracker takes: any query of ours; FastDFS's own are not longer. */
export const TRACKER_BODY_BYTES_MAX = 4096

/** What storage servers and trackers of FastDFS ask its trackers: refused as it is to those who have not joined. */
const FORBIDDEN: ReadonlySet<number> = new Set([
  ...[58, 59, 60, 61, 62, 63, 65, 66, 67, 68, 72, 73, 74, 76, 77, 78, 79],
  ...[81, 83, 84, 85, 86, 87, 88, 89, 109],
])

const OK: FrameReply = { status: 0 }

/** A command that is answered from its body, which has so many bytes. */
interface Question {
  readonly leastBytes: number
  readonly mostBytes: number
  readonly answer: (context: PortContext, body: Buffer) => Promise<FrameReply>
}

const QUESTIONS: ReadonlyMap<number, Question> = new Map([
  [COMMANDS.queryStoreWithoutGroup, plain(context => storeQuery(context, {}, 'one'))],
  [COMMANDS.queryStoreWithGroup, ofGroup((context, group) => storeQuery(context, { group }, 'one'))],
  [COMMANDS.queryStoreWithoutGroupAll, plain(context => storeQuery(context, {}, 'all'))],
  [COMMANDS.queryStoreWithGroupAll, ofGroup((context, group) => storeQuery(context, { group }, 'all'))],
  [COMMANDS.queryFetch, ofFile((context, fileId) => fetchQuery(context, 'queryFetch', fileId, 'one'))],
  [COMMANDS.queryUpdate, ofFile((context, fileId) => fetchQuery(context, 'queryUpdate', fileId, 'one'))],
  [COMMANDS.queryFetchAll, ofFile((context, fileId) => fetchQuery(context, 'queryFetch', fileId, 'all'))],
  [COMMANDS.listOneGroup, ofGroup(listGroups)],
  [COMMANDS.listAllGroups, plain(listGroups)],
  [COMMANDS.listStorage, ofGroupAnd(0, STORAGE_ID_BYTES_MAX, listStorages)],
  [COMMANDS.deleteStorage, ofGroupAnd(1, STORAGE_ID_BYTES_MAX, deleteStorage)],
  [COMMANDS.deleteGroup, ofGroup(deleteGroup)],
  [COMMANDS.setTrunkServer, ofGroupAnd(0, STORAGE_ID_BYTES_MAX, setTrunkServer)],
  [COMMANDS.getStorageStatus, ofGroupAnd(1, HOST_BYTES_MAX, getStorageStatus)],
  [COMMANDS.getStorageId, ofGroupAnd(1, HOST_BYTES_MAX, getStorageId)],
  [COMMANDS.fetchStorageIds, exactly(FETCH_IDS_BYTES, fetchStorageIds)],
  [COMMANDS.getParameters, plain(getParameters)],
  [COMMANDS.getLeader, plain(getLeader)],
  [COMMANDS.trackerStatus, plain(trackerStatus)],
  [COMMANDS.trackerClusterStat, exactly(3, clusterStat)],
  [COMMANDS.storageClusterStat, exactly(4, storageStat)],
  [COMMANDS.storageVolumeStat, exactly(4, volumeStat)],
])

/** Answers FastDFS clients by asking the tracker actor. */
export function trackerPort(context: PortContext): FrameHandler {
  return request => {
    const { command } = request
    const question = QUESTIONS.get(command)
    if (question !== undefined) return withBody(context, request, question)
    if (command === COMMANDS.activeTest) return OK
    if (command === COMMANDS.quit) return undefined
    if (FORBIDDEN.has(command))
      throw new DfsError('forbidden', `command ${command} is for members of a FastDFS cluster`)
    throw new DfsError('bad_request', `command ${command} is not known here`)
  }
}

function exactly(bytes: number, answer: Question['answer']): Question {
  return { leastBytes: bytes, mostBytes: bytes, answer }
}

function plain(answer: (context: PortContext) => Promise<FrameReply>): Question {
  return exactly(0, context => answer(context))
}

function ofGroup(answer: (context: PortContext, group: string) => Promise<FrameReply>): Question {
  return exactly(GROUP_NAME_BYTES, (context, body) => answer(context, readString(body, 0, GROUP_NAME_BYTES)))
}

/** A group, and text of so many bytes. */
function ofGroupAnd(
  leastBytes: number,
  mostBytes: number,
  answer: (context: PortContext, asked: GroupAndText) => Promise<FrameReply>,
): Question {
  return {
    leastBytes: GROUP_NAME_BYTES + leastBytes,
    mostBytes: GROUP_NAME_BYTES + mostBytes,
    answer: (context, body) => answer(context, readGroupAndText(body)),
  }
}

function ofFile(answer: (context: PortContext, fileId: string) => Promise<FrameReply>): Question {
  return {
    leastBytes: GROUP_NAME_BYTES + 1,
    mostBytes: NAME_BODY_BYTES_MAX,
    answer: (context, body) => answer(context, formatFileId(readGroupAndName(body))),
  }
}

/** Answers with the whole body of a request: at once if it is here. */
function withBody(
  context: PortContext,
  request: FrameRequest,
  { leastBytes, mostBytes, answer }: Question,
): Promise<FrameReply> {
  const { body, lengthBytes, command } = request
  if (lengthBytes < leastBytes || lengthBytes > mostBytes) {
    throw new DfsError('bad_request', `command ${command} has ${leastBytes} to ${mostBytes} bytes`)
  }
  const here = body.bytesHere(lengthBytes)
  return here === undefined ? body.bytes(lengthBytes).then(late => answer(context, late)) : answer(context, here)
}

type HowMany = 'one' | 'all'

async function storeQuery(context: PortContext, request: { group?: string }, many: HowMany): Promise<FrameReply> {
  const { tracker } = context
  const placed = await tracker.ask<ReplyOf<typeof queryStore>>(replyTo => ({ type: 'queryStore', request, replyTo }))
  return reply(writeServers({ ...placed, servers: chosen(placed.servers, many) }, widthOf(context)))
}

async function fetchQuery(
  context: PortContext,
  type: 'queryFetch' | 'queryUpdate',
  fileId: string,
  many: HowMany,
): Promise<FrameReply> {
  const found = await context.tracker.ask<ReplyOf<typeof queryFetch>>(replyTo => ({ type, fileId, replyTo }))
  return reply(writeServers({ ...found, servers: chosen(found.servers, many) }, widthOf(context)))
}

function chosen<T>(candidates: readonly T[], many: HowMany): readonly T[] {
  return many === 'all' ? candidates : candidates.slice(0, 1)
}

async function deleteStorage({ tracker }: PortContext, { group, text }: GroupAndText): Promise<FrameReply> {
  const storageId = /^\d{1,8}$/.test(text) ? Number(text) : 0
  if (storageId < 1 || storageId > STORAGE_ID_MAX) throw new DfsError('unknown_storage')
  await tracker.ask(replyTo => ({ type: 'delete', group, storageId, replyTo }))
  return OK
}

async function deleteGroup({ tracker }: PortContext, group: string): Promise<FrameReply> {
  await tracker.ask(replyTo => ({ type: 'delete', group, replyTo }))
  return OK
}
