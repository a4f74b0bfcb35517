/** What FastDFS's monitoring tools ask a tracker: lists, statistics, states, settings. */
import { DfsError } from '../../protocol/errors.ts'
import { FieldWriter } from '../../protocol/field-writer.ts'
import type { ReplyOf } from '../../protocol/message.ts'
import {
  availableOf,
  STORAGE_STATUS,
  statusNameOf,
  writeGroupStat,
  writeStorageBrief,
  writeStoragePart,
  writeStorageStat,
  writeTrackerPart,
  writeVolumePart,
} from '../../protocol/statistics-structs.ts'
import {
  formatAddress,
  type GroupAndText,
  parseAddress,
  readFetchIds,
  writeParameters,
  writeStorageIds,
} from '../../protocol/tracker-bodies.ts'
import type {
  GroupView,
  StorageView,
  trackerGroups,
  trackerStatus as trackerStatusMessage,
  trackerStorages,
} from '../../protocol/tracker-messages.ts'
import type { FrameReply } from '../../runtime/frame-server.ts'
import { type PortContext, reply, widthOf } from './port-context.ts'
import { OFFLINE_AFTER_MS } from './view.ts'

/** Which of the fields of a filter count, by its first byte. */
const FILTER = {
  tracker: { active: 1, leader: 2 },
  storage: { status: 2 },
  volume: { disk: 1, space: 4 },
} as const

export async function listGroups(context: PortContext, group?: string): Promise<FrameReply> {
  const groups = (await groupsOf(context)).filter(view => group === undefined || view.group === group)
  if (group !== undefined && groups.length === 0) throw new DfsError('unknown_group')
  return reply(...groups.map(writeGroupStat))
}

/** All storage servers of a group, or those with an id or address. */
export async function listStorages(context: PortContext, { group, text }: GroupAndText): Promise<FrameReply> {
  const storages = (await storagesOf(context, group)).filter(
    ({ report }) => text === '' || text === String(report.storageId) || text === report.ip,
  )
  if (text !== '' && storages.length === 0) throw new DfsError('unknown_storage')
  const nowMs = context.clock.wallMs()
  return reply(...storages.map(view => writeStorageStat(view, widthOf(context), nowMs)))
}

export async function getStorageStatus(context: PortContext, asked: GroupAndText): Promise<FrameReply> {
  return reply(writeStorageBrief(await storageAt(context, asked)))
}

export async function getStorageId(context: PortContext, asked: GroupAndText): Promise<FrameReply> {
  const { report } = await storageAt(context, asked)
  return reply(Buffer.from(String(report.storageId)))
}

/** Ids are always on here: whoever asks gets the list. */
export async function fetchStorageIds(context: PortContext, body: Buffer): Promise<FrameReply> {
  const { startIndex, allowEmpty } = readFetchIds(body)
  const storages = (await storagesOf(context)).map(({ report }) => report)
  const isThere = startIndex >= 0 && startIndex < storages.length
  const isEmpty = allowEmpty && storages.length === 0
  if (!isThere && !isEmpty) throw new DfsError('bad_request', `there are ${storages.length} storage servers`)
  return reply(writeStorageIds(storages, startIndex))
}

/** The settings of FastDFS's that mean something here, as they are here. */
export async function getParameters(context: PortContext): Promise<FrameReply> {
  const paths = (await storagesOf(context)).flatMap(({ report }) => report.storePaths)
  const reservedBytes = paths.reduce((most, path) => Math.max(most, path.reservedBytes), 0)
  return reply(
    writeParameters({
      use_storage_id: 1,
      id_type_in_filename: 'id',
      trust_storage_server_id: 1,
      // With the NUL, which replies are without.
      response_ip_addr_size: widthOf(context) + 1,
      storage_ip_changed_auto_adjust: 1,
      store_path: context.policy.path === 'round_robin' ? 0 : 2,
      reserved_storage_space: `${Math.floor(reservedBytes / 2 ** 20)}MB`,
      use_trunk_file: 0,
      store_slave_file_use_link: 0,
    }),
  )
}

/** All trackers are equal: whoever is asked is a leader. */
export async function getLeader({ advertised, resolve }: PortContext): Promise<FrameReply> {
  const { host, port } = advertised()
  return reply(Buffer.from(formatAddress(await resolve(host), port)))
}

/** Is a leader 1, has been there for so many seconds 8, and was away for so many before 8: nobody counts those. */
export async function trackerStatus({ clock, startedS }: PortContext): Promise<FrameReply> {
  const runningS = Math.max(0, Math.floor(clock.wallMs() / 1000) - startedS)
  return reply(new FieldWriter(17).byte(1).int64(runningS, 0).end())
}

/** Count 1, then the trackers. */
export async function clusterStat(context: PortContext, body: Buffer): Promise<FrameReply> {
  const [by, active, leader] = filterIn(body)
  const { trackerId, roles } = await context.tracker.ask<ReplyOf<typeof trackerStatusMessage>>(replyTo => ({
    type: 'status',
    replyTo,
  }))
  const nowMs = context.clock.wallMs()
  const parts: Buffer[] = []
  for (const role of roles.filter(({ role }) => role === 'tracker')) {
    const isLeader = role.id === trackerId
    const isActive = role.beatAgeMs <= OFFLINE_AFTER_MS
    if (by & FILTER.tracker.active && Number(isActive) !== active) continue
    if (by & FILTER.tracker.leader && Number(isLeader) !== leader) continue
    const address = await resolved(context, role.endpoint)
    parts.push(writeTrackerPart(role, { address, isLeader, isActive }, nowMs))
  }
  return reply(new FieldWriter(1).byte(parts.length).end(), ...parts)
}

/** Uses storage ids 1, uses trunk files 1, count 4, then the storage servers of all groups. */
export async function storageStat(context: PortContext, body: Buffer): Promise<FrameReply> {
  const [by, operator, status] = filterIn(body)
  const isWanted = (view: StorageView) => {
    if ((by & FILTER.storage.status) === 0) return true
    const isEqual = STORAGE_STATUS[statusNameOf(view)] === status
    return operator === EQUAL ? isEqual : operator === NOT ? !isEqual : false
  }
  const storages = (await storagesOf(context)).filter(isWanted)
  const nowMs = context.clock.wallMs()
  const head = new FieldWriter(6).byte(1, 0).int32(storages.length).end()
  return reply(head, ...storages.map(view => writeStoragePart(view, nowMs)))
}

const EQUAL = '='.charCodeAt(0)
const NOT = '!'.charCodeAt(0)

/** Uses trunk files 1, count 4, then the groups. */
export async function volumeStat(context: PortContext, body: Buffer): Promise<FrameReply> {
  const [by, disk, , space] = filterIn(body)
  const groups = (await groupsOf(context)).filter(group => {
    const available = Number(availableOf(group) > 0)
    const isWanted = (flag: number, wanted: number) => (by & flag) === 0 || available === wanted
    return isWanted(FILTER.volume.disk, disk) && isWanted(FILTER.volume.space, space)
  })
  return reply(new FieldWriter(5).byte(0).int32(groups.length).end(), ...groups.map(writeVolumePart))
}

/** There is no trunk server, in any group that there is. */
export async function setTrunkServer(context: PortContext, { group }: GroupAndText): Promise<FrameReply> {
  await storagesOf(context, group)
  throw new DfsError('not_supported', 'there are no trunk servers here')
}

async function groupsOf({ tracker }: PortContext): Promise<readonly GroupView[]> {
  return (await tracker.ask<ReplyOf<typeof trackerGroups>>(replyTo => ({ type: 'groups', replyTo }))).groups
}

async function storagesOf({ tracker }: PortContext, group?: string): Promise<readonly StorageView[]> {
  const ask = tracker.ask<ReplyOf<typeof trackerStorages>>(replyTo => ({ type: 'storages', group, replyTo }))
  return (await ask).storages
}

async function storageAt(context: PortContext, { group, text }: GroupAndText): Promise<StorageView> {
  const storages = await storagesOf(context, group)
  const { ip, port } = parseAddress(text)
  const found = storages.find(({ report }) => report.ip === ip && report.port === port)
  if (found === undefined) throw new DfsError('unknown_storage')
  return found
}

/** A tracker's endpoint with the address that its name stands for now. */
async function resolved({ resolve }: PortContext, endpoint: string): Promise<string> {
  const colon = endpoint.lastIndexOf(':')
  const host = endpoint.slice(0, colon).replace(/^\[|\]$/g, '')
  return formatAddress(await resolve(host), Number(endpoint.slice(colon + 1)))
}

/** Which fields count, and the fields. */
function filterIn(body: Buffer): [by: number, first: number, second: number, third: number] {
  return [body[0]!, body[1]!, body[2]!, body[3] ?? 0]
}
