/** What a storage server tells the trackers about itself, and what it is asked. */
import { type Static, Type } from 'typebox'
import { GROUP_NAME_BYTES, STORAGE_ID_MAX } from './file-id.ts'
import { defineNotice, defineRequest } from './message.ts'

const Count = Type.Integer({ minimum: 0 })
export const StorageIdSchema = Type.Integer({ minimum: 1, maximum: STORAGE_ID_MAX })
export const GroupSchema = Type.String({ pattern: `^[A-Za-z0-9]{1,${GROUP_NAME_BYTES}}$` })
const PortSchema = Type.Integer({ minimum: 1, maximum: 65535 })

/** FastDFS counts servers per group up to 32; marks, positions and beats grow with this number. */
export const GROUP_MEMBERS_MAX = 32
/** A storage server of FastDFS's has had two addresses and an id; one of ours may stand for a whole group of them. */
export const FORMERLY_MAX = 3 * GROUP_MEMBERS_MAX
/** A store path's index is one byte in every file id, and 255 in an upload means "choose for me". */
export const STORE_PATHS_MAX = 255
export const STORE_PATH_ANY = 0xff

/** One store path, as its server sees it. */
export const StorePathReport = Type.Object({
  index: Type.Integer({ minimum: 0, maximum: STORE_PATHS_MAX }),
  totalBytes: Count,
  freeBytes: Count,
  /** Never given to uploads. */
  reservedBytes: Count,
  /** In free slots of segments: room for small files, whatever else is left. */
  reusableBytes: Type.Optional(Count),
  writable: Type.Boolean(),
})
export type StorePathReport = Static<typeof StorePathReport>

/** All store paths of a server together. */
export function spaceOf({ storePaths }: { readonly storePaths: readonly StorePathReport[] }) {
  const space = { totalBytes: 0, freeBytes: 0, reservedBytes: 0, reusableBytes: 0 }
  for (const { totalBytes, freeBytes, reservedBytes, reusableBytes = 0 } of storePaths) {
    space.totalBytes += totalBytes
    space.freeBytes += freeBytes
    space.reservedBytes += reservedBytes
    space.reusableBytes += reusableBytes
  }
  return space
}

/** How far the records of a source have been applied somewhere; `timeMs` is the source's own clock at that record. */
export const SourcePosition = Type.Object({
  storageId: StorageIdSchema,
  epoch: Count,
  sequence: Count,
  timeMs: Count,
  /** Some file up to here could not be had: what is missing need not have been deleted. */
  incomplete: Type.Optional(Type.Boolean()),
})
export type SourcePosition = Static<typeof SourcePosition>

/**
 * `joining` not yet accepted by a tracker; `active` takes everything; `readonly` serves but takes nothing new, see
 * `reason`; `draining` is about to stop; `offline` has said goodbye.
 */
export const StorageStatus = Type.Union([
  Type.Literal('joining'),
  Type.Literal('active'),
  Type.Literal('readonly'),
  Type.Literal('draining'),
  Type.Literal('offline'),
])
export type StorageStatus = Static<typeof StorageStatus>

/** How much of a source's binlog a peer lacks, to about a second's worth of records; see store/backlog.ts. */
const BACKLOG = {
  /** Records that are the source's own. */
  records: Count,
  /** Of the files that they create. */
  bytes: Count,
  /** The age of the oldest of them, by the source's clock. */
  behindMs: Count,
}
export const PeerBacklog = Type.Object({ storageId: StorageIdSchema, ...BACKLOG })
export type PeerBacklog = Static<typeof PeerBacklog>
export type Backlog = Omit<PeerBacklog, 'storageId'>

/** As many names as a server can have taken over from others. */
const Formerly = Type.Array(Type.String({ maxLength: 45 }), { maxItems: FORMERLY_MAX })

/** Everything a tracker needs to know of a storage server; small enough to be told whole with every beat. */
export const StorageReport = Type.Object({
  protocol: Type.Integer({ minimum: 1 }),
  version: Type.String({ maxLength: 32 }),
  storageId: StorageIdSchema,
  group: GroupSchema,
  /** What clients should connect to: a name or an address, and the address it stands for now. */
  host: Type.String({ minLength: 1, maxLength: 253 }),
  ip: Type.String({ minLength: 1, maxLength: 45 }),
  port: PortSchema,
  /** Names the data directory: another one under the same id is another server. */
  incarnation: Type.String({ pattern: '^[0-9a-f]{32}$' }),
  /** Counts the starts on this data directory; `secret` differs in every process, so two copies of one directory are told apart. */
  boot: Type.Object({ count: Count, secret: Type.String({ pattern: '^[0-9a-f]{16}$' }) }),
  epoch: Count,
  status: StorageStatus,
  reason: Type.Optional(Type.String({ maxLength: 200 })),
  uploadPriority: Type.Integer(),
  /** What its data port asks of clients: trackers answer with tickets where it is `ticket`. */
  auth: Type.Optional(Type.String({ maxLength: 16 })),
  storePaths: Type.Array(StorePathReport, { maxItems: STORE_PATHS_MAX }),
  /** The end of its own binlog that is durable. */
  binlogEnd: Type.Object({ sequence: Count, timeMs: Count }),
  /** How far it has applied its peers' records. */
  positions: Type.Array(SourcePosition, { maxItems: GROUP_MEMBERS_MAX }),
  /** What its peers lack of its own records, as far as it knows. */
  peers: Type.Optional(Type.Array(PeerBacklog, { maxItems: GROUP_MEMBERS_MAX })),
  /** Sources whose changes it orders, itself among them, and since which term; left out if no files were ever in other hands. */
  orders: Type.Optional(Type.Array(StorageIdSchema, { maxItems: GROUP_MEMBERS_MAX })),
  term: Type.Optional(Count),
  counts: Type.Record(Type.String({ maxLength: 40 }), Type.Number()),
  /** What FastDFS calls StatBuff, by its names; see statistics.ts. What is left out is 0. */
  statistics: Type.Optional(Type.Record(Type.String({ maxLength: 40 }), Count)),
  /** Addresses and ids in names of files that it took over from FastDFS: it is their source now. */
  formerly: Type.Optional(Formerly),
  /** When the data directory was made, and when this process began with it; seconds since 1970. */
  madeS: Type.Optional(Count),
  startedS: Type.Optional(Count),
})
export type StorageReport = Static<typeof StorageReport>

/** A member of a group, as the others need to know it. */
export const Peer = Type.Object({
  storageId: StorageIdSchema,
  host: Type.String(),
  ip: Type.String(),
  port: PortSchema,
  epoch: Count,
  status: StorageStatus,
  formerly: Type.Optional(Formerly),
  /** With `formerly`: files that are older may never have been at their source. */
  madeS: Type.Optional(Count),
})
export type Peer = Static<typeof Peer>

/** A tracker's answer to a join or a beat. */
export const Welcome = Type.Object({
  trackerId: Type.String(),
  accepted: Type.Boolean(),
  /** Why not: an error code of `tracker.join`. */
  code: Type.Optional(Type.String()),
  /** With `epoch_too_old`: the least epoch that this id may use. */
  epochMin: Type.Optional(Count),
  peers: Type.Array(Peer, { maxItems: GROUP_MEMBERS_MAX }),
})
export type Welcome = Static<typeof Welcome>

export const storageBeat = defineNotice({
  name: 'storage.beat',
  subject: 'hb.storage.{group}.{id}',
  about: 'Told by every storage server about once a second. Each tracker answers to the reply subject with a Welcome.',
  payload: StorageReport,
})

export const storageStatus = defineRequest({
  name: 'storage.status',
  subject: 'storage.{group}.status',
  about: 'The report of one member of the group, whoever answers first.',
  request: Type.Object({}),
  reply: StorageReport,
  errors: [],
})

export const actorStatus = defineRequest({
  name: 'storage.statusOf',
  subject: 'actor.{id}.status',
  about: 'The report of exactly this storage server; `id` is `storage-<storageId>`.',
  request: Type.Object({}),
  reply: StorageReport,
  errors: [],
})

export const takeOver = defineRequest({
  name: 'storage.takeOver',
  subject: 'actor.{id}.takeOver',
  about:
    'Makes exactly this storage server order the changes of the files of a source that is gone, until that is back; `id` is `storage-<storageId>`. For operators.',
  request: Type.Object({
    source: StorageIdSchema,
    /** Whoever else would have to agree is dead: in a group of two somebody has to say so. */
    alone: Type.Optional(Type.Boolean()),
  }),
  reply: Type.Object({ source: StorageIdSchema, orderer: StorageIdSchema, term: Count }),
  errors: ['unknown_storage', 'still_in_use', 'busy', 'unavailable'],
})

/** How far one peer has been served. */
export const SyncPeerReport = Type.Object({
  storageId: StorageIdSchema,
  state: Type.Union([
    Type.Literal('idle'),
    Type.Literal('replaying'),
    Type.Literal('waiting'),
    Type.Literal('unreachable'),
  ]),
  mark: Type.Object({ epoch: Count, sequence: Count }),
  ...BACKLOG,
  lastError: Type.Optional(Type.String()),
})
export type SyncPeerReport = Static<typeof SyncPeerReport>

export const syncStatus = defineRequest({
  name: 'sync.statusOf',
  subject: 'actor.{id}.status',
  about: 'How far the peers of one storage server have got; `id` is `sync-<storageId>`.',
  request: Type.Object({}),
  reply: Type.Object({ storageId: StorageIdSchema, group: GroupSchema, peers: Type.Array(SyncPeerReport) }),
  errors: [],
})

export const binlogFlushed = defineNotice({
  name: 'storage.binlogFlushed',
  subject: 'binlog.{group}.{id}',
  about:
    'The records of one flush or of a few that follow each other, when they are durable: a doorbell for sync workers and a feed for followers.',
  payload: Type.Object({
    storageId: StorageIdSchema,
    epoch: Count,
    /** The last sequence before these, and the last of them: followers see gaps. */
    previous: Count,
    sequence: Count,
    /** Their lines; left out if they do not fit one message. */
    records: Type.Optional(Type.Array(Type.String())),
  }),
})

export const clusterEvent = defineNotice({
  name: 'cluster.event',
  subject: 'event.{group}.{id}',
  about: 'Something people may want to know; JSON. `{id}` is the kind, such as `storage_online` or `corruption`.',
  payload: Type.Object({
    type: Type.String(),
    group: Type.String(),
    actor: Type.String(),
    timeMs: Count,
    detail: Type.Record(Type.String(), Type.Unknown()),
  }),
})
