/** Prints docs/protocol.md from the definitions: `node dist/bin/protocol-doc.js > docs/protocol.md`. */
import { realpathSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { ERRORS, type ErrorCode } from '../protocol/errors.ts'
import * as fileMessages from '../protocol/file-messages.ts'
import { COMMANDS } from '../protocol/frame.ts'
import {
  MESSAGE_BYTES_MAX,
  type NoticeDefinition,
  PROTOCOL_VERSION,
  type RequestDefinition,
  SUBJECT_PREFIX,
} from '../protocol/message.ts'
import * as storageMessages from '../protocol/storage-messages.ts'
import * as trackerMessages from '../protocol/tracker-messages.ts'

/** The part of JSON Schema that our definitions use. */
interface Schema {
  readonly type?: string
  readonly properties?: Readonly<Record<string, Schema>>
  readonly required?: readonly string[]
  readonly items?: Schema
  readonly maxItems?: number
  readonly anyOf?: readonly Schema[]
  readonly const?: unknown
  readonly minimum?: number
  readonly maximum?: number
  readonly minLength?: number
  readonly maxLength?: number
  readonly pattern?: string
  readonly patternProperties?: Readonly<Record<string, Schema>>
}

type Definition = RequestDefinition | NoticeDefinition

/** Where messages are defined, by what they are about. */
const CHAPTERS: Readonly<Record<string, object>> = {
  'Asking a tracker': trackerMessages,
  'Storage servers and sync': storageMessages,
  'Files by message': fileMessages,
}

/** What a frame carries; the numbers are widths in bytes, and what has none goes to the end of the body. */
interface FrameBodies {
  readonly to: 'both' | 'tracker' | 'storage' | 'caller'
  readonly about: string
  readonly request: string
  readonly reply: string
}

const ADDRESS = 'address 15, or 45 where any storage server has an IPv6 address, port 8'
const SERVER = `group 16, ${ADDRESS}`
const SERVERS = `${SERVER}, then ${ADDRESS} of each further one`
const GROUP_STAT = 'GroupStat 113'
const HOST = 'group 16, address and port'
const FILE = 'group 16, name'
const UPLOAD_HEAD =
  "upload id 16, ack level 1 (0 the server's, 1 one, 2 quorum, 3 all), ack timeout in ms 4 (0: the server's)"
const RECEIPT = 'replicas 1, durable 1, storage id of the source 4, epoch 8, sequence 8'

const FRAMES: Readonly<Record<keyof typeof COMMANDS, FrameBodies>> = {
  uploadFile: {
    to: 'storage',
    about: 'Stores a file.',
    request: 'store path 1 (255: choose), size 8, extension 6, content',
    reply: FILE,
  },
  deleteFile: { to: 'storage', about: 'Deletes a file.', request: FILE, reply: 'empty' },
  uploadAppender: {
    to: 'storage',
    about: 'Stores an appender file, which may be changed.',
    request: 'store path 1 (255: choose), size 8, extension 6, content',
    reply: FILE,
  },
  append: {
    to: 'storage',
    about: 'Writes bytes at the end of an appender file.',
    request: 'length of the name 8, size 8, name, bytes',
    reply: 'empty',
  },
  modify: {
    to: 'storage',
    about: 'Writes bytes into an appender file, from an offset on that is not behind its end.',
    request: 'length of the name 8, offset 8, size 8, name, bytes',
    reply: 'empty',
  },
  truncate: {
    to: 'storage',
    about: 'Cuts an appender file.',
    request: 'length of the name 8, new size 8, name',
    reply: 'empty',
  },
  regenerate: {
    to: 'storage',
    about: 'Makes a plain file of an appender file, under a new name.',
    request: 'name',
    reply: FILE,
  },
  createLink: {
    to: 'storage',
    about:
      'Makes a file with the content of another one, or a slave file of a master with that content; EEXIST if it is there.',
    request:
      "length of the master's name 8 (0: none), of the file's name 8, of the signature 8, group 16, prefix 16, extension 6, both names, the signature, which means nothing here",
    reply: FILE,
  },
  setMetadata: {
    to: 'storage',
    about: 'Sets the metadata of a file, in place of what it had or merged into it.',
    request: `length of the name 8, of the metadata 8, \`O\` or \`M\` 1, ${FILE}, metadata`,
    reply: 'empty',
  },
  getMetadata: {
    to: 'storage',
    about: 'The metadata of a file; ENOENT to a FastDFS client if it has none.',
    request: FILE,
    reply: 'name, 2, value, 1, name, 2, value ..., sorted by name',
  },
  downloadFile: {
    to: 'storage',
    about: 'Reads a file or a range of it.',
    request: `offset 8, bytes 8 (0: to the end), ${FILE}`,
    reply: 'content',
  },
  uploadSlave: {
    to: 'storage',
    about:
      'Stores a file under the name of its master, with a prefix and an extension of its own; EEXIST if it is there.',
    request: "length of the master's name 8, size 8, prefix 16, extension 6, the master's name, content",
    reply: FILE,
  },
  queryFileInfo: {
    to: 'storage',
    about:
      'What is known of a file. Bits of the status of the request: 1, no CRC32 where the name does not say it; 2, nothing here.',
    request: FILE,
    reply: 'size 8, time in seconds 8, CRC32 8, source address 15 or 45, NUL 1',
  },
  quit: { to: 'both', about: 'Ends the connection.', request: 'empty', reply: 'none' },
  reply: { to: 'caller', about: 'Every reply.', request: 'see the request', reply: 'none' },
  queryStoreWithoutGroup: {
    to: 'tracker',
    about: 'Where to upload to.',
    request: 'empty',
    reply: `${SERVER}, store path 1`,
  },
  queryFetch: { to: 'tracker', about: 'Who can serve a file.', request: FILE, reply: SERVER },
  queryUpdate: { to: 'tracker', about: 'Who orders the changes of a file.', request: FILE, reply: SERVER },
  queryStoreWithGroup: {
    to: 'tracker',
    about: 'Where to upload to in a group.',
    request: 'group 16',
    reply: `${SERVER}, store path 1`,
  },
  queryFetchAll: { to: 'tracker', about: 'All who can serve a file.', request: FILE, reply: SERVERS },
  queryStoreWithoutGroupAll: {
    to: 'tracker',
    about: 'Where to upload to, with the alternatives.',
    request: 'empty',
    reply: `${SERVERS}, store path 1`,
  },
  queryStoreWithGroupAll: {
    to: 'tracker',
    about: 'The same in a group.',
    request: 'group 16',
    reply: `${SERVERS}, store path 1`,
  },
  listOneGroup: { to: 'tracker', about: 'Statistics of a group.', request: 'group 16', reply: GROUP_STAT },
  listAllGroups: { to: 'tracker', about: 'Statistics of all groups.', request: 'empty', reply: `${GROUP_STAT} each` },
  listStorage: {
    to: 'tracker',
    about: 'Statistics of the storage servers of a group, or of those with an id or address.',
    request: 'group 16, storage id or address, up to 15',
    reply: 'StorageStat 487 each, or 517 where any has an IPv6 address',
  },
  deleteStorage: {
    to: 'tracker',
    about: 'Makes the trackers forget a storage server that is offline, until it comes back.',
    request: 'group 16, storage id up to 15',
    reply: 'empty',
  },
  deleteGroup: {
    to: 'tracker',
    about: 'Makes the trackers forget a group without storage servers.',
    request: 'group 16',
    reply: 'empty',
  },
  setTrunkServer: {
    to: 'tracker',
    about: 'Refused with 95: there are no trunk servers.',
    request: 'group 16, storage id up to 15',
    reply: 'none',
  },
  getLeader: {
    to: 'tracker',
    about: 'The leader of the trackers: whoever is asked.',
    request: 'empty',
    reply: '`address:port`',
  },
  trackerClusterStat: {
    to: 'tracker',
    about: 'The trackers. What is filtered by is a sum of 1 active, 2 leader.',
    request: 'filter by 1, is active 1, is leader 1',
    reply: 'count 1, trackers 90 each',
  },
  storageClusterStat: {
    to: 'tracker',
    about: 'The storage servers of all groups. What is filtered by: 2 status.',
    request: 'filter by 1, `=` or `!` 1, status 1, is trunk server 1',
    reply: 'uses storage ids 1, uses trunk files 1, count 4, storage servers 106 each',
  },
  storageVolumeStat: {
    to: 'tracker',
    about: 'The room in all groups. What is filtered by is a sum of 1 disk, 4 any.',
    request: 'filter by 1, has room on disk 1, in trunk files 1, anywhere 1',
    reply: 'uses trunk files 1, count 4, groups 59 each',
  },
  getStorageStatus: { to: 'tracker', about: 'The state of a storage server.', request: HOST, reply: 'StorageBrief 67' },
  getStorageId: { to: 'tracker', about: 'The id of a storage server.', request: HOST, reply: 'storage id' },
  fetchStorageIds: {
    to: 'tracker',
    about: 'The ids of all storage servers, some at a time.',
    request: 'start index 4, allow empty 1',
    reply: 'how many there are 4, how many follow 4, a line `id group address:port` for each',
  },
  getParameters: {
    to: 'tracker',
    about: "FastDFS's settings, as far as they mean something here.",
    request: 'empty',
    reply: 'a line `key=value` for each',
  },
  trackerStatus: {
    to: 'tracker',
    about: 'How long this tracker has been there.',
    request: 'empty',
    reply: 'is leader 1, running time in seconds 8, time away before 8',
  },
  activeTest: { to: 'both', about: 'Whether the connection works.', request: 'empty', reply: 'empty' },
  authenticate: {
    to: 'storage',
    about: 'Opens the mutual proof of a shared secret.',
    request: 'role 1 (1 client, 2 peer), nonce 32',
    reply: 'nonce 32, HMAC-SHA256 32',
  },
  prove: {
    to: 'storage',
    about: "The caller's half of the proof. A wrong one ends the connection.",
    request: 'HMAC-SHA256 32',
    reply: 'empty',
  },
  uploadOnce: {
    to: 'storage',
    about:
      'An upload that may be repeated: the same upload id is the same file. Answered when as many members hold it as the ack level says.',
    request: `${UPLOAD_HEAD}, then as \`uploadFile\``,
    reply: `${RECEIPT}, ${FILE}`,
  },
  uploadStream: {
    to: 'storage',
    about: 'An upload of unknown length: `data` frames follow until an empty one.',
    request: `${UPLOAD_HEAD}, store path 1, extension 6`,
    reply: `${RECEIPT}, ${FILE}`,
  },
  data: { to: 'storage', about: 'Bytes of an `uploadStream`.', request: 'content', reply: 'none' },
  syncPosition: {
    to: 'storage',
    about: "Peers only: how far a source's records have been applied.",
    request:
      'storage id of the source 4, group 16, epoch of the source 8, incarnation of the source 16, the term that it has settled 8, storage id of another member 4, or 0',
    reply:
      "incarnation 16, epoch 8, sequence 8, then the source's life whose records are taken: epoch 8, incarnation 16, then what is here of a file that was cut off: sequence 8, bytes 8, CRC32 4, then how far that other member's records are applied: epoch 8, sequence 8",
  },
  syncRecord: {
    to: 'storage',
    about: "Peers only: one record of the source's binlog, and its file.",
    request:
      'storage id of the source 4, content 1 (0 none, 1 follows, 2 cannot be read), previous sequence 8, offset 8, line length 2, line, content from the offset on',
    reply: 'empty',
  },
  syncRun: {
    to: 'storage',
    about: "Peers only: records that follow each other in the source's binlog, and the slots of their small files.",
    request:
      'storage id of the source 4, previous sequence 8, number of records 4, length of the lines 4, a content 1 for each record, lines with a line feed each, slots',
    reply: 'empty',
  },
  listFiles: {
    to: 'storage',
    about:
      'Some of the files that this member has, in the order that all members of a group share: for clients that have proven the secret.',
    request:
      'group 16, since 4 (seconds), then fields of length 1 and bytes: place, prefix of names, storage ids 4 of the members that are asked (none: not all are)',
    reply:
      'fields of length 1 and bytes: the place to go on from (empty behind the last file), then for each file its name, followed by size 8 (-1: not known), flags 1 (1: CRC32 is known), CRC32 4',
  },
  syncHeld: {
    to: 'storage',
    about: 'Peers only: asks which files are here already, of those that were taken over.',
    request: 'for each file (64 at most): size 8, CRC32 4, length of its name 1, name',
    reply: 'a byte for each: 1 if it is here and good',
  },
  orderers: {
    to: 'storage',
    about:
      'Peers only: asks who orders the changes of whose files, or begins to change that; see protocol/orderers.ts.',
    request: 'msgpack: kind `ask`, `prepare` or `accept`, by, term, source, table',
    reply: 'msgpack: storageId, granted, reason, promised, table, end, positions',
  },
}

/** Makes the whole document. */
export function protocolDoc(): string {
  const chapters = Object.entries(CHAPTERS).map(([title, module]) => {
    const definitions = Object.values(module)
      .filter(isDefinition)
      .sort((a, b) => (a.name < b.name ? -1 : 1))
    return [`## ${title}`, ...definitions.map(messageText)].join('\n\n')
  })
  return `${[INTRODUCTION, ...chapters, typesText(), errorsText(), framesText()].join('\n\n')}\n`
}

const INTRODUCTION = `# Protocol

<!-- Made by \`node dist/bin/protocol-doc.js > docs/protocol.md\` from the definitions in protocol/. Do not edit. -->

Version ${PROTOCOL_VERSION}. What parties say to each other by NATS message, and in frames on a direct socket.

Every message is a map, in JSON or msgpack: the first byte tells. An empty payload means all defaults, in JSON. A reply
has the encoding of its request. A request or a beat has at most ${MESSAGE_BYTES_MAX} bytes; fields nobody knows are ignored. Subjects
begin with \`${SUBJECT_PREFIX}\`, or with another prefix that the operator chose; \`{group}\`, \`{id}\` and \`{role}\` stand for one token.

An error comes with the headers \`Nats-Service-Error\` and \`Nats-Service-Error-Code\` and the body
\`{"error": {"code": "no_space", "status": 507, "message": "…", "retryable": true}}\`. Besides the codes that a message
names, any request may be answered with \`bad_request\`, \`too_large\`, \`busy\`, \`unavailable\`, \`timeout\` or \`internal\`.`

function messageText(definition: Definition): string {
  const head = `### ${definition.name}\n\n\`${SUBJECT_PREFIX}.${definition.subject}\` — ${definition.about}`
  if ('payload' in definition) return [head, bodyText('Payload', definition.payload as Schema)].join('\n\n')
  const errors =
    definition.errors.length === 0 ? 'none of its own' : definition.errors.map(code => `\`${code}\``).join(', ')
  return [
    head,
    bodyText('Request', definition.request as Schema),
    bodyText('Reply', definition.reply as Schema),
    `Errors: ${errors}.`,
  ].join('\n\n')
}

function bodyText(title: string, schema: Schema): string {
  const name = nameOf(schema)
  if (name !== undefined) return `${title}: a ${name}.`
  const rows = fieldRows(schema)
  return rows.length === 0 ? `${title}: an empty map.` : `${title}:\n\n${fieldTable(rows)}`
}

function typesText(): string {
  const parts = [...TYPE_NAMES].map(([schema, name]) => {
    const { properties } = schema as Schema
    return `### ${name}\n\n${properties === undefined ? `${typeOf(schema as Schema, true)}.` : fieldTable(fieldRows(schema as Schema))}`
  })
  return ['## Types', ...parts].join('\n\n')
}

function errorsText(): string {
  const rows = (Object.keys(ERRORS) as ErrorCode[]).map(code => {
    const { status, errno, retryable, about } = ERRORS[code]
    return `| \`${code}\` | ${status} | ${errno} | ${retryable ? 'yes' : 'no'} | ${cell(about)} |`
  })
  return `## Error codes

\`status\` is like HTTP's; \`errno\` is what FastDFS clients are told. "Again" says whether the same request may succeed later.

| code | status | errno | again | meaning |
|---|---|---|---|---|
${rows.join('\n')}`
}

function framesText(): string {
  const rows = (Object.entries(COMMANDS) as [keyof typeof COMMANDS, number][])
    .sort(([, a], [, b]) => a - b)
    .map(([name, number]) => {
      const { to, about, request, reply } = FRAMES[name]
      return `| ${number} | \`${name}\` | ${to} | ${cell(about)} | ${cell(request)} | ${cell(reply)} |`
    })
  return `## Frames

A frame is a header of 10 bytes and a body: length of the body 8, command 1, status 1. All integers are big-endian;
fields of fixed width are padded with NUL. The status of a reply is 0 or an errno; an error has no body, except that
those who have proven a secret are told code and reason as text. Commands from 200 on are ours, the others FastDFS's.
The structs are drawn in \`protocol/statistics-structs.ts\`.

| number | name | to | about | request | reply |
|---|---|---|---|---|---|
${rows.join('\n')}

A tracker answers as FastDFS's does with trunk files off, byte for byte, and keeps the connection after an error. What storage servers and
trackers of FastDFS say to it is refused with 13. On purpose different:

- Storage ids are always on, and are numbers: 69 and 70 tell them, 97 says that they are used.
- 75 has those of FastDFS's settings that mean something here.
- Requests may be pipelined: each is answered, in order.
- All trackers are equal: whoever is asked calls itself the leader (95, 96, 64).
- A storage server that was deleted (93) is forgotten, and not listed as deleted.
- "Current" servers, paths and the source of a server's old data have no meaning here: 0, 0 and nothing. The trunk space of a group is the room in
  free slots. \`sync_out_bytes\` is counted.`
}

/** Schemas that have a name of their own, by what they are exported as. */
const TYPE_NAMES = new Map(
  Object.values(CHAPTERS).flatMap(module =>
    Object.entries(module).flatMap(([name, value]) =>
      isSchema(value) ? [[value, name.replace(/Schema$/, '')] as const] : [],
    ),
  ),
)

type Row = readonly [field: string, type: string]

function fieldTable(rows: readonly Row[]): string {
  return ['| field | type |', '|---|---|', ...rows.map(([field, type]) => `| \`${field}\` | ${cell(type)} |`)].join(
    '\n',
  )
}

/** One row for each field; those of a map without a name follow it, with dots. */
function fieldRows(schema: Schema, prefix = ''): Row[] {
  return Object.entries(schema.properties ?? {}).flatMap(([name, field]): Row[] => {
    const optional = schema.required?.includes(name) ? '' : ', optional'
    const path = prefix + name
    const inner = nameOf(field) === undefined ? field : {}
    const nested =
      inner.properties !== undefined ? inner : nameOf(inner.items ?? {}) === undefined ? (inner.items ?? {}) : {}
    const suffix = inner.properties !== undefined ? '.' : '[].'
    return [[path, typeOf(field) + optional], ...fieldRows(nested, path + suffix)]
  })
}

function typeOf(schema: Schema, spelledOut = false): string {
  const name = spelledOut ? undefined : nameOf(schema)
  if (name !== undefined) return name
  if (schema.anyOf !== undefined) return schema.anyOf.map(one => `\`${JSON.stringify(one.const)}\``).join(' or ')
  const { minimum: least, maximum: most, minLength, maxLength, pattern, items, maxItems } = schema
  switch (schema.type) {
    case 'integer':
    case 'number': {
      if (least !== undefined && most !== undefined) return `${schema.type}, ${least} to ${most}`
      return least === undefined ? schema.type : `${schema.type}, at least ${least}`
    }
    case 'string': {
      if (pattern !== undefined) return `string, \`${pattern}\``
      if (maxLength === undefined) return 'string'
      return `string, ${minLength === undefined ? 'at most' : `${minLength} to`} ${maxLength} characters`
    }
    case 'array':
      return `list of ${typeOf(items ?? {})}${maxItems === undefined ? '' : `, at most ${maxItems}`}`
    case 'object': {
      const value = Object.values(schema.patternProperties ?? {})[0]
      return value === undefined ? 'map' : `map of names to ${typeOf(value)}`
    }
    default:
      return schema.type ?? 'anything'
  }
}

function nameOf(schema: Schema): string | undefined {
  const name = TYPE_NAMES.get(schema)
  return name === undefined ? undefined : `[${name}](#${name.toLowerCase()})`
}

function isDefinition(value: unknown): value is Definition {
  return typeof value === 'object' && value !== null && 'subject' in value && 'about' in value
}

function isSchema(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !isDefinition(value) && ('type' in value || 'anyOf' in value)
}

function cell(text: string): string {
  return text.replaceAll('|', '\\|')
}

const program = process.argv[1]
if (program !== undefined && realpathSync(program) === fileURLToPath(import.meta.url))
  process.stdout.write(protocolDoc())
