/**
 * Lists the files of a cluster, group after group. All members of a group are asked for what comes next in the order that
 * they share, and the answers are merged: nobody keeps more than a page.
 *
 *     member 1    a  b     d  e │
 *     member 2    a  b  c     │            listed: up to where all of them have looked
 *                             └── the next page begins here
 *
 * A source's word goes: what it has is listed; what it was asked for, and only others have, it is asked about by name,
 * for it was deleted there, or lost.
 */
import { writeGroupAndName } from '../protocol/data-bodies.ts'
import { DfsError, toDfsError } from '../protocol/errors.ts'
import { decodeFileName, type FileNameParts, formatFileId, isGroupName } from '../protocol/file-id.ts'
import { COMMANDS } from '../protocol/frame.ts'
import {
  comparePlaces,
  formatPlace,
  LIST_START,
  type ListedName,
  type ListPage,
  type ListPlace,
  parsePlace,
  placeBehind,
  readListPage,
  writeList,
} from '../protocol/list-bodies.ts'
import type { ServerAddress, StorageView } from '../protocol/tracker-messages.ts'
import type { FrameClient } from '../runtime/frame-client.ts'
import type { Routes } from './routes.ts'

export interface ListOptions {
  /** Of this group only. */
  readonly group?: string | undefined
  /** The beginning of the ids wanted, such as `group1/M00/0A`. */
  readonly prefix?: string | undefined
  /** Files made in or after this second (since 1970); a slave file counts with its master. */
  readonly sinceS?: number | undefined
  /** From a page before, listed with the same options: goes on behind it. */
  readonly cursor?: string | undefined
  /** Do without members that cannot be asked: what only they have is not listed. */
  readonly partial?: boolean | undefined
}

/** A file in a listing. */
export interface ListedFile {
  readonly fileId: string
  readonly kind: FileNameParts['kind']
  /** Of a slave file, its master's. */
  readonly createTimeS: number
  /** Undefined of a damaged appender or slave file. */
  readonly sizeBytes: number | undefined
  /** Undefined of an appender file, whose content may change. */
  readonly crc32: number | undefined
}

/** Some files; an empty page is not the last one. Without a cursor there are no more. */
export interface FilePage {
  readonly files: readonly ListedFile[]
  readonly cursor: string | undefined
}

/** Asks one storage server of a group. */
export type AskServer = <T>(
  group: string,
  server: ServerAddress,
  ask: (client: FrameClient) => Promise<T>,
) => Promise<T>

/** Where a listing is. */
interface Cursor {
  readonly group: string
  readonly place: ListPlace
}

/** A member's page, and who it is. */
interface MemberPage extends ListPage {
  readonly storageId: number
}

/** The next page of a listing. Rejects with `unavailable` if a member cannot be asked, unless that is `partial`. */
export async function listPage(routes: Routes, ask: AskServer, options: ListOptions): Promise<FilePage> {
  const storages = await routes.storages()
  const groups = wantedGroups(storages, options)
  if (options.group !== undefined && !storages.some(({ report }) => report.group === options.group))
    throw new DfsError('unknown_group')
  const { group, place } =
    options.cursor === undefined ? { group: groups[0], place: LIST_START } : parseCursor(options.cursor)
  if (group === undefined) return { files: [], cursor: undefined }
  await routes.forList(group, storages)
  const page = await groupPage(storages, ask, { group, place }, options)
  const files = page.files.map(file => listed(group, file))
  if (page.place !== undefined) return { files, cursor: `${group} ${formatPlace(page.place)}` }
  const next = groups.find(other => other > group)
  return { files, cursor: next === undefined ? undefined : `${next} ${formatPlace(LIST_START)}` }
}

/** Groups in order, as far as the options name them. */
function wantedGroups(storages: readonly StorageView[], { group, prefix = '' }: ListOptions): string[] {
  const all = new Set(storages.map(({ report }) => report.group))
  const isWanted = (name: string) =>
    (group === undefined || name === group) && (prefix.startsWith(`${name}/`) || `${name}/`.startsWith(prefix))
  return [...all].filter(isWanted).sort()
}

async function groupPage(
  storages: readonly StorageView[],
  ask: AskServer,
  { group, place }: Cursor,
  { prefix = '', sinceS = 0, partial = false }: ListOptions,
): Promise<ListPage> {
  const members = storages.filter(({ report }) => report.group === group)
  const ids = members.map(({ report }) => report.storageId)
  const asked = members.filter(({ online }) => online || !partial).map(({ report }) => report)
  if (asked.length === 0) throw new DfsError('no_storage')
  const names = prefix.slice(group.length + 1)
  const body = writeList({ group, sinceS, place, prefix: names, members: partial ? [] : ids })
  const answers = await Promise.all(
    asked.map(async member => {
      const answer = ask(group, member, client => client.request(COMMANDS.listFiles, body))
      const page = partial ? await answer.catch(ignoreUnavailable) : await answer
      return page && { ...readListPage(page), storageId: member.storageId }
    }),
  )
  const pages = answers.filter(page => page !== undefined)
  if (pages.length === 0) throw new DfsError('unavailable', `no member of ${group} can be asked`)
  const { files, until } = merge(pages)
  const isSure = (name: string, holders: readonly number[]) => {
    const { storageId } = decodeFileName(name)
    return storageId === undefined || holders.includes(storageId) || !pages.some(page => page.storageId === storageId)
  }
  const there = await Promise.all(
    files.map(async ({ file, holders }) => {
      if (isSure(file.name, holders)) return true
      const source = asked.find(({ storageId }) => storageId === decodeFileName(file.name).storageId)!
      return isThere(ask, source, { group, name: file.name })
    }),
  )
  return { place: until, files: files.filter((_, i) => there[i]).map(({ file }) => file) }
}

/** Each file once, in order, as far as all members have looked; and who has it. */
function merge(pages: readonly MemberPage[]): {
  files: { file: ListedName; holders: number[] }[]
  until: ListPlace | undefined
} {
  const ends = pages.map(({ place }) => place).filter(place => place !== undefined)
  const until = ends.sort(comparePlaces)[0]
  const byName = new Map<string, { file: ListedName; holders: number[]; at: ListPlace }>()
  for (const { files, storageId } of pages) {
    for (const file of files) {
      const at = placeBehind(file.name)
      if (until !== undefined && comparePlaces(at, until) > 0) break
      const known = byName.get(file.name)
      const isSource = decodeFileName(file.name).storageId === storageId
      if (known === undefined || isSource)
        byName.set(file.name, { file, holders: [...(known?.holders ?? []), storageId], at })
      else known.holders.push(storageId)
    }
  }
  return { files: [...byName.values()].sort((a, b) => comparePlaces(a.at, b.at)), until }
}

/** Whether a file is there that its source did not list. */
async function isThere(ask: AskServer, source: ServerAddress, id: { group: string; name: string }): Promise<boolean> {
  const body = writeGroupAndName(id.group, id.name)
  try {
    await ask(id.group, source, client => client.request(COMMANDS.queryFileInfo, body))
    return true
  } catch (error) {
    if (toDfsError(error).code === 'not_found') return false
    throw error
  }
}

function listed(group: string, { name, sizeBytes, crc32 }: ListedName): ListedFile {
  const { kind, createTimeS } = decodeFileName(name)
  return { fileId: formatFileId({ group, name }), kind, createTimeS, sizeBytes, crc32 }
}

/** Throws `bad_request`. */
function parseCursor(text: string): Cursor {
  const [group = '', place = ''] = text.split(' ')
  if (!isGroupName(group)) throw new DfsError('bad_request', 'this is no cursor of a listing')
  return { group, place: parsePlace(place) }
}

function ignoreUnavailable(error: unknown): undefined {
  if (!toDfsError(error).retryable) throw error
}
