/**
 * What becomes of each key of FastDFS's `tracker.conf` and `storage.conf`: the option of ours that it sets, or why it is
 * ignored. A key that is not given leaves our own default.
 */
import { join } from 'node:path'
import { STORAGE_ID_MAX } from '../protocol/file-id.ts'
import { parseBoolean } from '../runtime/conf-file.ts'
import { readHostPattern } from '../runtime/real-allow-hosts.ts'
import { PACKED_BYTES_MAX, SEGMENT_BYTES, SLOT_HEADER_BYTES } from '../store/slot.ts'
import { parseNumber, parseReserve, parseSize } from './sizes.ts'

/** What a key does. It may set options and still have something to say. */
export interface Outcome {
  /** Options as commander names them. */
  readonly set?: Readonly<Record<string, unknown>>
  /** Why it is ignored, where nobody needs to care. */
  readonly info?: string
  /** What is lacking, where somebody may rely on it. */
  readonly warn?: string
}

/** The rest of the file. */
export interface Given {
  readonly key: string
  /** All values of this key, in their order. */
  readonly values: readonly string[]
  /** The last value of another key; undefined if it is not given, or empty. */
  of(key: string): string | undefined
}

/** Reads the last value of a key that is given. Throws an Error that says what is wrong with it. */
export type Row = (value: string, given: Given) => Outcome
export type Rows = Readonly<Record<string, Row>>

/** Ours below `base_path`, which is often a store path as well. */
const DATA_BELOW_BASE_PATH = 'natsdfs'
const STORE_PATHS_MAX = 256

const PORT = parseNumber(0, 65_535)
const PRIORITY = parseNumber(0, 1000)
const isFalse = (value: string) => !parseBoolean(value)
const is =
  (...texts: string[]) =>
  (value: string) =>
    texts.includes(value)

const sets =
  (option: string, read: (value: string) => unknown = value => value): Row =>
  value => ({ set: { [option]: read(value) } })

/** We have nothing of the kind, and nobody needs it. */
const ignored =
  (info: string): Row =>
  () => ({ info })

/** We cannot do this, unless the value is one `asHere`. */
const lacks =
  (asHere: (value: string) => boolean, warn: string): Row =>
  value =>
    asHere(value) ? { info: 'this is how it is here' } : { warn }

/** A number that stands for one of our words. */
const oneOf =
  (option: string, words: Readonly<Record<string, string>>): Row =>
  value => {
    if (words[value] === undefined) throw new Error(`one of ${Object.keys(words).join(', ')}`)
    return { set: { [option]: words[value] } }
  }

const LOGS = ignored('logs go to stderr, as JSON: whoever starts the process keeps and turns them over')
const NETWORK = ignored('each process has one thread for its network, and buffers from one pool')
const TIMEOUTS = ignored('these times are fixed: silence on a connection ends it')
const SEGMENTS = ignored('segments are made, filled, and removed when they are empty, without any care')
const BEATS = ignored('storage servers beat once a second, and one that is silent for four counts as offline')
const BY_STORAGE = ignored('storage servers decide this themselves: give this file to `dfs storage`, too')
const ROUTING = ignored('readers are sent to members that have the file, which is known and not guessed from its age')
const SYNC = ignored('sync is driven by what each peer lacks, and ships many files at once')
const DEDUPLICATION = lacks(isFalse, 'files of the same content are each kept')
const FLUSHES = ignored('what is acknowledged is on disk')
const USER: Row = () => ({ warn: 'the process keeps the user and group that started it' })

/** Both files have these. */
const COMMON: Rows = {
  disabled: value => {
    if (parseBoolean(value)) throw new Error('this file says that nothing is to be started with it')
    return {}
  },
  bind_addr: value => {
    const [first, ...others] = value.split(',').map(address => address.trim())
    // FastDFS listens on every address unless it is told one.
    const set = { bind: first === '' ? '0.0.0.0' : first }
    return others.length === 0
      ? { set }
      : { set, warn: 'only the first address is listened on; :: is all of both kinds' }
  },
  port: sets('port', PORT),
  address_family: lacks(is('auto', 'IPv4'), 'the address that is listened on decides: --bind :: takes both families'),
  connect_timeout: TIMEOUTS,
  network_timeout: TIMEOUTS,
  use_io_uring: NETWORK,
  use_send_zc: NETWORK,
  max_connections: ignored('a tracker takes 4096 connections, a storage server 1024'),
  accept_threads: NETWORK,
  work_threads: NETWORK,
  tcp_quick_ack: NETWORK,
  log_level: ignored('DFS_LOG in the environment sets it'),
  run_by_group: USER,
  run_by_user: USER,
  allow_hosts: (_, { values }) => {
    const patterns = values.filter(pattern => pattern !== '')
    if (patterns.length === 0) throw new Error('nobody could connect; * is everybody')
    for (const pattern of patterns) if (pattern !== '*') readHostPattern(pattern)
    return { set: { allowHosts: patterns } }
  },
  thread_stack_size: NETWORK,
  use_connection_pool: ignored('connections are always kept and shared'),
  connection_pool_max_idle_time: ignored('connections are always kept and shared'),
  sync_log_buff_interval: LOGS,
  log_file_rotate_everyday: LOGS,
  log_file_rotate_time: LOGS,
  log_file_compress_old: LOGS,
  log_file_compress_days_before: LOGS,
  log_file_rotate_on_size: LOGS,
  log_file_keep_days: LOGS,
  log_file_delete_old_time: LOGS,
  '[error-log]': LOGS,
}

/** `tracker.conf` for a tracker. */
export const TRACKER_KEYS: Rows = {
  ...COMMON,
  base_path: ignored('a tracker keeps nothing on disk'),
  response_ip_addr_size: ignored('replies have the width that their addresses need'),
  min_buff_size: NETWORK,
  max_buff_size: NETWORK,
  store_lookup: (value, given) => {
    if (value !== '1') return oneOf('storeLookup', { 0: 'round_robin', 2: 'most_free' })(value, given)
    const group = given.of('store_group')
    if (group === undefined) throw new Error('1 takes a store_group')
    return { set: { storeLookup: group } }
  },
  store_group: (_, given) => (given.of('store_lookup') === '1' ? {} : { info: 'store_lookup is not 1' }),
  store_server: oneOf('storeServer', { 0: 'round_robin', 1: 'by_address', 2: 'by_priority' }),
  store_path: oneOf('storePath', { 0: 'round_robin', 2: 'most_free' }),
  download_server: lacks(is('0'), 'reads go round among all members that have the file'),
  reserved_storage_space: BY_STORAGE,
  check_active_interval: BEATS,
  storage_ip_changed_auto_adjust: ignored(
    'a storage server is known by its id, and may change its address at any time',
  ),
  storage_sync_file_max_delay: ROUTING,
  storage_sync_file_max_time: ROUTING,
  use_trunk_file: BY_STORAGE,
  slot_min_size: SEGMENTS,
  slot_max_size: BY_STORAGE,
  trunk_alloc_alignment_size: SEGMENTS,
  trunk_free_space_merge: SEGMENTS,
  delete_unused_trunk_files: SEGMENTS,
  trunk_file_size: BY_STORAGE,
  trunk_create_file_advance: SEGMENTS,
  trunk_create_file_time_base: SEGMENTS,
  trunk_create_file_interval: SEGMENTS,
  trunk_create_file_space_threshold: SEGMENTS,
  trunk_init_check_occupying: SEGMENTS,
  trunk_init_reload_from_binlog: SEGMENTS,
  trunk_compress_binlog_min_interval: SEGMENTS,
  trunk_compress_binlog_interval: SEGMENTS,
  trunk_compress_binlog_time_base: SEGMENTS,
  trunk_binlog_max_backups: SEGMENTS,
  use_storage_id: lacks(parseBoolean, 'new file ids carry the id of their storage server, not its address'),
  storage_ids_filename: BY_STORAGE,
  id_type_in_filename: lacks(is('id'), 'new file ids carry the id of their storage server, not its address'),
  trust_storage_server_id: ignored('two servers under one id are told apart, and the second is refused'),
  store_slave_file_use_link: ignored('slave files are files of their own'),
}

/** `tracker.conf` for a storage server: what FastDFS has its trackers tell them. All other keys are the trackers'. */
export const TRACKER_KEYS_FOR_STORAGE: Rows = {
  store_path: oneOf('storePathChoice', { 0: 'round_robin', 2: 'most_free' }),
  reserved_storage_space: sets('reserved', parseReserve),
  use_trunk_file: value =>
    parseBoolean(value)
      ? {}
      : {
          set: { segmentMaxFile: 0 },
          info: 'each file gets one of its own; --segment-max-file 1M is faster with small ones',
        },
  slot_max_size: (value, given) => {
    if (isFalse(given.of('use_trunk_file') ?? 'false')) return { info: 'use_trunk_file is not true' }
    const bytes = Math.max(0, parseSize(value) - SLOT_HEADER_BYTES)
    const set = { segmentMaxFile: Math.min(bytes, PACKED_BYTES_MAX) }
    return bytes <= PACKED_BYTES_MAX
      ? { set }
      : { set, warn: `the largest file in a segment has ${PACKED_BYTES_MAX} bytes` }
  },
  trunk_file_size: lacks(value => parseSize(value) === SEGMENT_BYTES, 'segments have 64 MiB'),
  use_storage_id: TRACKER_KEYS.use_storage_id!,
  storage_ids_filename: (_, given) =>
    parseBoolean(given.of('use_storage_id') ?? 'false') ? {} : { info: 'use_storage_id is not true' },
  id_type_in_filename: TRACKER_KEYS.id_type_in_filename!,
}

/** `storage.conf` for a storage server. */
export const STORAGE_KEYS: Rows = {
  ...COMMON,
  base_path: (value, given) => ({
    set: { data: join(value, DATA_BELOW_BASE_PATH), storePath: storePathsOf(given) },
  }),
  group_name: sets('group'),
  client_bind: ignored('outgoing connections take the address that the system chooses'),
  server_id: value => {
    const isId = /^\d+$/.test(value) && Number(value) >= 1 && Number(value) <= STORAGE_ID_MAX
    return isId ? { set: { id: Number(value) } } : { warn: `a storage id is a number from 1 to ${STORAGE_ID_MAX}` }
  },
  heart_beat_interval: BEATS,
  stat_report_interval: BEATS,
  buff_size: NETWORK,
  disk_rw_separated: NETWORK,
  disk_reader_threads: NETWORK,
  disk_writer_threads: NETWORK,
  sync_min_threads: SYNC,
  sync_max_threads: SYNC,
  sync_wait_msec: SYNC,
  sync_interval: SYNC,
  sync_start_time: lacks(is('00:00', '0:00'), 'peers are synced at all times of the day'),
  sync_end_time: lacks(is('23:59'), 'peers are synced at all times of the day'),
  write_mark_file_freq: ignored('marks are written once a second'),
  disk_recovery_threads: SYNC,
  store_path_count: (value, given) => {
    parseNumber(1, STORE_PATHS_MAX)(value)
    return { set: { storePath: storePathsOf(given) } }
  },
  store_pathN: (_, given) =>
    Number(given.key.slice('store_path'.length)) < storePathsOf(given).length
      ? { set: { storePath: storePathsOf(given) } }
      : { warn: 'store_path_count says that there are fewer: its files are not served' },
  store_pathN_readonly: lacks(isFalse, 'a store path cannot be closed to uploads: they go there while it has room'),
  subdir_count_per_path: lacks(is('256'), 'store paths have 256 x 256 directories'),
  tracker_server: ignored('trackers are found over NATS, whose servers stand in --credentials'),
  file_distribute_path_mode: ignored('the name of a file spreads it over the directories'),
  file_distribute_rotate_count: ignored('the name of a file spreads it over the directories'),
  fsync_after_written_bytes: ignored('what is acknowledged is synced, whatever this says, unless --durability os'),
  sync_binlog_buff_interval: FLUSHES,
  sync_stat_file_interval: FLUSHES,
  upload_priority: sets('uploadPriority', PRIORITY),
  if_alias_prefix: ignored('--advertise says what others are told to connect to'),
  check_file_duplicate: DEDUPLICATION,
  file_signature_method: ignored('files of the same content are each kept'),
  key_namespace: ignored('files of the same content are each kept'),
  keep_alive: ignored('files of the same content are each kept'),
  file_sync_skip_invalid_record: ignored('records have checksums, and a bad one is told of'),
  compress_binlog: ignored('binlogs are not compressed'),
  compress_binlog_time: ignored('binlogs are not compressed'),
  check_store_path_mark: lacks(parseBoolean, 'a store path is always checked to be the one it was'),
  '[access-log] enabled': lacks(isFalse, 'there is no log of each access'),
  '[access-log] time_precision': LOGS,
  '[access-log]': LOGS,
}

/** The row for a key, as it stands in a file: keys with a number in them share one, and so do keys of a section. */
export function rowOf(rows: Rows, section: string, key: string): Row | undefined {
  if (section !== '') return rowNamed(rows, `[${section}] ${key}`) ?? rowNamed(rows, `[${section}]`)
  return rowNamed(rows, key.replace(/^store_path\d+(?=$|_readonly$)/, 'store_pathN'))
}

function rowNamed(rows: Rows, name: string): Row | undefined {
  return Object.hasOwn(rows, name) ? rows[name] : undefined
}

/** The paths of M00 and on. The first is `base_path` unless it is given. */
function storePathsOf(given: Given): string[] {
  const count = Number(given.of('store_path_count') ?? 1)
  return Array.from({ length: Math.min(count, STORE_PATHS_MAX) }, (_, i) => {
    const path = given.of(`store_path${i}`) ?? (i === 0 ? given.of('base_path') : undefined)
    if (path === undefined) throw new Error(`there is no store_path${i}`)
    return path
  })
}
