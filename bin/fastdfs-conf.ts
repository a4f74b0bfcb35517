/** Reads FastDFS's `tracker.conf`, `storage.conf` and `storage_ids.conf` as settings of ours, and says what it ignores. */
import { dirname, resolve } from 'node:path'
import { STORAGE_ID_MAX } from '../protocol/file-id.ts'
import {
  type ConfEntry,
  ConfError,
  type ConfFile,
  holdsStorageIds,
  parseBoolean,
  readConf,
  type StorageIdLine,
} from '../runtime/conf-file.ts'
import type { Disk } from '../runtime/world.ts'
import {
  type Outcome,
  type Row,
  type Rows,
  rowOf,
  STORAGE_KEYS,
  TRACKER_KEYS,
  TRACKER_KEYS_FOR_STORAGE,
} from './fastdfs-keys.ts'

export type ConfRole = 'tracker' | 'storage'

/** Something to log: which line, and what becomes of it. */
export interface Note {
  readonly level: 'info' | 'warn'
  /** File, line, key and value, as far as there are any. */
  readonly what: Readonly<Record<string, unknown>>
  readonly why: string
}

/** What the files come to. */
export interface Settings {
  /** Options as commander names them, each with the line that says so. */
  readonly options: ReadonlyMap<string, { readonly value: unknown; readonly entry: ConfEntry }>
  readonly notes: readonly Note[]
  /** The `storage_ids.conf` that counts, if any does. */
  readonly storageIdsPath: string | undefined
}

/** Where a storage server is, to be found in `storage_ids.conf`. */
export interface Place {
  readonly group: string | undefined
  readonly addresses: readonly string[]
  readonly port: number
}

/** Keys that only a `storage.conf` has; one of them is always there. */
const STORAGE_CONF_KEYS = ['tracker_server', 'group_name', 'store_path_count', 'store_path0']
/** Keys that may be given more than once. */
const REPEATED_KEYS = ['allow_hosts', 'tracker_server']
/** Keys that say something without a value; all others are then as if they were not given. */
const EMPTY_KEYS = ['allow_hosts', 'bind_addr']

/** Reads the files that a role is given. Rejects with an Error that names file and line. */
export async function readSettings(role: ConfRole, paths: readonly string[], disk: Disk): Promise<Settings> {
  const options = new Map<string, { value: unknown; entry: ConfEntry }>()
  const notes: Note[] = []
  let given: string | undefined
  let followed: string | undefined
  let usesIds = true
  for (const path of paths) {
    if (await holdsStorageIds(disk, path)) {
      given = path
      continue
    }
    const conf = await readConf(disk, path)
    const isStorageConf = conf.entries.some(({ section, key }) => section === '' && STORAGE_CONF_KEYS.includes(key))
    if (isStorageConf && role === 'tracker') throw new Error(`${path} is for storage servers: \`dfs storage\` takes it`)
    const rows = isStorageConf ? STORAGE_KEYS : role === 'tracker' ? TRACKER_KEYS : TRACKER_KEYS_FOR_STORAGE
    take(conf, rows, isStorageConf ? STORAGE_KEYS : TRACKER_KEYS)
    if (isStorageConf) continue
    usesIds = parseBoolean(valueIn(conf, 'use_storage_id') ?? 'false')
    const name = valueIn(conf, 'storage_ids_filename')
    if (name !== undefined) followed = resolve(dirname(path), name)
  }
  const storageIdsPath = role === 'storage' && usesIds ? (given ?? followed) : undefined
  if (given !== undefined && storageIdsPath === undefined) {
    const why =
      role === 'tracker' ? 'storage servers bring their ids: `dfs storage` takes it' : 'use_storage_id is not true'
    notes.push({ level: 'info', what: { file: given }, why })
  }
  return { options, notes, storageIdsPath }

  /** Does what each key says; those that only `known` has are for others, and those that it has not are mistakes. */
  function take(conf: ConfFile, rows: Rows, known: Rows): void {
    for (const what of conf.strays) notes.push({ level: 'warn', what: { ...what }, why: 'not a key and a value' })
    for (const entries of byName(conf.entries)) {
      const last = entries.at(-1)!
      const { file, line, section, key } = last
      const row = rowOf(rows, section, key)
      if (row !== undefined) takeKey(conf, entries, row)
      else if (rowOf(known, section, key) === undefined) {
        // Not with its value: it may be somebody's secret.
        notes.push({ level: 'warn', what: { file, line, key: nameOf(last) }, why: 'natsdfs does not know this key' })
      }
    }
  }

  function takeKey(conf: ConfFile, entries: readonly ConfEntry[], row: Row): void {
    const last = entries.at(-1)!
    const isRepeated = REPEATED_KEYS.includes(last.key)
    const tell = (level: Note['level'], why: string, entry: ConfEntry) =>
      notes.push({ level, what: whatOf(entry), why })
    if (!isRepeated) {
      for (const entry of entries.slice(0, -1)) tell('warn', 'given again further on: the last one counts', entry)
    }
    if (last.value === '' && !EMPTY_KEYS.includes(last.key)) return
    const { set = {}, info, warn } = outcomeOf(conf, entries, row)
    for (const [option, value] of Object.entries(set)) options.set(option, { value, entry: last })
    for (const entry of isRepeated ? entries : [last]) {
      if (warn !== undefined) tell('warn', warn, entry)
      else if (info !== undefined) tell('info', info, entry)
    }
  }
}

/**
 * Finds the line of a storage server. Throws an Error unless there is exactly one: under another's id it would answer for
 * files that it never had.
 */
export async function findStorageId(
  lines: readonly StorageIdLine[],
  place: Place,
  resolveName: (host: string) => Promise<string>,
): Promise<StorageIdLine> {
  const { group, addresses, port } = place
  const found: StorageIdLine[] = []
  for (const line of lines) {
    if (group !== undefined && line.group !== group) continue
    if (line.port !== undefined && line.port !== port) continue
    const hosts = await Promise.all(line.hosts.map(host => resolveName(host).catch(() => host)))
    if (hosts.some(host => addresses.includes(host))) found.push(line)
  }
  const where = `${group ?? 'any group'} at ${addresses.join(', ')}, port ${port}`
  if (found.length > 1) throw new ConfError(found[1]!, `more than one line fits ${where}: --id says which`)
  const [line] = found
  if (line === undefined) throw new Error(`no line of storage_ids.conf fits ${where}: --id says which is this server`)
  if (line.storageId < 1 || line.storageId > STORAGE_ID_MAX) {
    throw new ConfError(line, `a storage id is a number from 1 to ${STORAGE_ID_MAX}`)
  }
  return line
}

/** What is to be said about the line of a storage server. */
export function noteOfMode({ file, line, storageId, mode }: StorageIdLine): readonly Note[] {
  if (mode === 'both') return []
  return [{ level: 'warn', what: { file, line, storageId, rw: mode }, why: 'storage servers are all read and written' }]
}

/** A key and its value, as they are logged. */
export function whatOf(entry: ConfEntry): Note['what'] {
  const { file, line, value } = entry
  return { file, line, key: nameOf(entry), value }
}

/** The last value of a key outside of any section; undefined if it is not given, or empty. */
function valueIn({ entries }: ConfFile, wanted: string): string | undefined {
  return entries.findLast(({ section, key }) => section === '' && key === wanted)?.value || undefined
}

function outcomeOf(conf: ConfFile, entries: readonly ConfEntry[], row: Row): Outcome {
  const last = entries.at(-1)!
  const values = entries.map(({ value }) => value)
  try {
    return row(last.value, { key: last.key, values, of: key => valueIn(conf, key) })
  } catch (cause) {
    throw new ConfError(last, `${nameOf(last)} = ${last.value}: ${(cause as Error).message}`, { cause })
  }
}

/** The entries of each key, in the order of its first. */
function byName(entries: readonly ConfEntry[]): Iterable<readonly ConfEntry[]> {
  const named = new Map<string, ConfEntry[]>()
  for (const entry of entries) named.set(nameOf(entry), [...(named.get(nameOf(entry)) ?? []), entry])
  return named.values()
}

function nameOf({ section, key }: ConfEntry): string {
  return section === '' ? key : `[${section}] ${key}`
}
