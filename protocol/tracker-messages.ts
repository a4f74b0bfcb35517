/** What anybody may ask any tracker. */
import { type Static, Type } from 'typebox'
import { FILE_NAME_BYTES_MAX } from './file-id.ts'
import { defineNotice, defineRequest } from './message.ts'
import { GroupSchema, StorageIdSchema, StorageReport, Welcome } from './storage-messages.ts'
import { IssuedTicket, OPERATIONS, OperationSchema } from './ticket.ts'

const Count = Type.Integer({ minimum: 0 })
const FileIdText = Type.String({ minLength: 1, maxLength: 160 })

/** Where to connect. */
export const ServerAddress = Type.Object({
  storageId: StorageIdSchema,
  host: Type.String(),
  ip: Type.String(),
  port: Type.Integer(),
})
export type ServerAddress = Static<typeof ServerAddress>

/** The beginning of upload ids, as hex: what a ticket for uploads is bound to. Eight bytes are as good as a name. */
const UploadIds = Type.String({ pattern: '^([0-9a-f]{2}){8,16}$' })

/** Candidates in the order in which to try them, and a ticket where they ask for one. */
const Candidates = Type.Object({
  group: GroupSchema,
  servers: Type.Array(ServerAddress),
  /** How far they have applied the records of who orders the file's changes. */
  positions: Type.Optional(Type.Array(Type.Object({ storageId: StorageIdSchema, epoch: Count, sequence: Count }))),
  /** Who orders the file's changes, if it is not the source in its name: the file was taken over, from FastDFS or from who is gone. */
  source: Type.Optional(StorageIdSchema),
  ticket: Type.Optional(IssuedTicket),
})

export const trackerJoin = defineRequest({
  name: 'tracker.join',
  subject: 'tracker.join',
  about: 'The first report of a storage server: only an accepted one takes uploads.',
  request: StorageReport,
  reply: Welcome,
  errors: ['bad_request'],
})

export const queryStore = defineRequest({
  name: 'tracker.queryStore',
  subject: 'tracker.queryStore',
  about:
    'Where to upload to. A `group` names one, a `key` picks one by consistent hash, neither leaves it to the tracker. ' +
    'The answer may be used again for `leaseMs`. Where storage servers ask for tickets, it has one for uploads whose ids begin with `uploadIds`.',
  request: Type.Object({
    group: Type.Optional(GroupSchema),
    key: Type.Optional(Type.String({ minLength: 1, maxLength: 1024 })),
    uploadIds: Type.Optional(UploadIds),
  }),
  reply: Type.Object({
    group: GroupSchema,
    storePathIndex: Type.Integer(),
    servers: Type.Array(ServerAddress),
    leaseMs: Count,
    ticket: Type.Optional(IssuedTicket),
  }),
  errors: ['bad_request', 'unknown_group', 'no_storage', 'no_space'],
})

export const queryFetch = defineRequest({
  name: 'tracker.queryFetch',
  subject: 'tracker.queryFetch',
  about: 'Who can serve a file: those that surely hold it first. A ticket is one to read all files of the group.',
  request: Type.Object({ fileId: FileIdText }),
  reply: Candidates,
  errors: ['bad_request', 'bad_file_id', 'unknown_group', 'no_storage'],
})

export const queryUpdate = defineRequest({
  name: 'tracker.queryUpdate',
  subject: 'tracker.queryUpdate',
  about:
    'Who orders the changes of a file, its source or its successor, first. A ticket is one to change and delete all files of the group.',
  request: Type.Object({ fileId: FileIdText }),
  reply: Candidates,
  errors: ['bad_request', 'bad_file_id', 'unknown_group', 'no_storage'],
})

export const trackerTicket = defineRequest({
  name: 'tracker.ticket',
  subject: 'tracker.ticket',
  about:
    'A ticket for operations of a group: uploads whose ids begin with `uploadIds`, and what is done to files whose names begin with `names`.',
  request: Type.Object({
    group: GroupSchema,
    operations: Type.Array(OperationSchema, { minItems: 1, maxItems: OPERATIONS.length }),
    uploadIds: Type.Optional(UploadIds),
    names: Type.Optional(Type.String({ maxLength: FILE_NAME_BYTES_MAX, pattern: '^[A-Za-z0-9/._-]*$' })),
  }),
  reply: IssuedTicket,
  errors: ['bad_request', 'unknown_group', 'not_supported'],
})

/** A storage server as a tracker sees it. */
export const StorageView = Type.Object({
  report: StorageReport,
  online: Type.Boolean(),
  /** Since the last beat, by the tracker's own clock. */
  beatAgeMs: Count,
})
export type StorageView = Static<typeof StorageView>

/** A group as a tracker sees it. */
export const GroupView = Type.Object({
  group: GroupSchema,
  storages: Count,
  online: Count,
  readable: Count,
  writable: Count,
  /** The least over the members that can take uploads: every file goes to all of them. */
  freeBytes: Count,
  totalBytes: Count,
  /** Of the member with the least room: what its disks have, what of it uploads never take, what free slots have. */
  diskFreeBytes: Count,
  reservedBytes: Count,
  reusableBytes: Count,
  /** Of the first member: those of others may differ. */
  port: Count,
  storePathCount: Count,
})
export type GroupView = Static<typeof GroupView>

export const trackerGroups = defineRequest({
  name: 'tracker.groups',
  subject: 'tracker.groups',
  about: 'All groups.',
  request: Type.Object({}),
  reply: Type.Object({ groups: Type.Array(GroupView) }),
  errors: [],
})

export const trackerStorages = defineRequest({
  name: 'tracker.storages',
  subject: 'tracker.storages',
  about: 'All storage servers, or those of one group.',
  request: Type.Object({ group: Type.Optional(GroupSchema) }),
  reply: Type.Object({ storages: Type.Array(StorageView) }),
  errors: ['unknown_group'],
})

export const deleteStorage = defineRequest({
  name: 'tracker.deleteStorage',
  subject: 'tracker.deleteStorage',
  about:
    'Makes all trackers forget a storage server that is offline, until it comes back. Its files stay where they are.',
  request: Type.Object({ group: GroupSchema, storageId: StorageIdSchema }),
  reply: Type.Object({}),
  errors: ['unknown_group', 'unknown_storage', 'still_in_use'],
})

export const deleteGroup = defineRequest({
  name: 'tracker.deleteGroup',
  subject: 'tracker.deleteGroup',
  about: 'Makes all trackers forget a group that has no storage server any more.',
  request: Type.Object({ group: GroupSchema }),
  reply: Type.Object({}),
  errors: ['unknown_group', 'still_in_use'],
})

export const trackerForget = defineNotice({
  name: 'tracker.forget',
  subject: 'hb.tracker.forget.{group}.{id}',
  about:
    'What a tracker was asked to forget, for the others: a storage server, or a group where `{id}` is `all`. One that still hears of it does not.',
  payload: Type.Object({ group: GroupSchema, storageId: Type.Optional(StorageIdSchema) }),
})

export const trackerLocate = defineRequest({
  name: 'tracker.locate',
  subject: 'tracker.locate',
  about: 'What a file id says, and who could serve it now.',
  request: Type.Object({ fileId: FileIdText }),
  reply: Type.Object({
    group: GroupSchema,
    storePathIndex: Type.Integer(),
    source: Type.Optional(StorageIdSchema),
    sourceAddress: Type.Optional(Type.String()),
    createTimeS: Count,
    kind: Type.String(),
    sizeBytes: Type.Optional(Count),
    crc32: Count,
    servers: Type.Array(ServerAddress),
  }),
  errors: ['bad_request', 'bad_file_id'],
})

/** What a tracker or gateway says of itself. */
const ROLE = {
  role: Type.String(),
  id: Type.String(),
  endpoint: Type.String(),
  version: Type.Optional(Type.String()),
  /** Seconds since 1970. */
  startedS: Type.Optional(Count),
  /** Of its port, now and at most. */
  connections: Type.Optional(Count),
  connectionPeak: Type.Optional(Count),
}

/** A tracker or gateway as the trackers see it. */
export const RoleView = Type.Object({ ...ROLE, beatAgeMs: Count })
export type RoleView = Static<typeof RoleView>

export const trackerStatus = defineRequest({
  name: 'tracker.status',
  subject: 'tracker.status',
  about: 'The cluster in one answer.',
  request: Type.Object({}),
  reply: Type.Object({
    trackerId: Type.String(),
    version: Type.String(),
    /** Everything is silent, so it is this tracker's NATS that is down: what follows is what was known before. */
    stale: Type.Boolean(),
    jetstream: Type.Boolean(),
    natsServer: Type.String(),
    roles: Type.Array(RoleView),
    groups: Type.Array(GroupView),
    storages: Type.Array(StorageView),
  }),
  errors: [],
})

export const roleBeat = defineNotice({
  name: 'role.beat',
  subject: 'hb.{role}.{group}.{id}',
  about:
    'Told by trackers, gateways and sync workers about once a second; the group is `all` for those that have none.',
  payload: Type.Object({ ...ROLE, leaving: Type.Boolean() }),
})
