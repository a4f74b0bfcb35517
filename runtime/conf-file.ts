/**
 * FastDFS's configuration files.
 *
 *     # a comment, alone on its line
 *     key = value            the value goes to the end of the line; a key may be given more than once
 *     [section]              what follows belongs to it; [] and an included file begin outside of any
 *     #include other.conf    begins its line; relative to the directory of the file that was read first
 *
 * and `storage_ids.conf`, with a storage server on each line:
 *
 *     100001  group1  10.0.0.5,fd00::5      rw=both
 *     100002  group1  host2.example.com:23000
 *
 * Source: libfastcommon, ini_file_reader.c; FastDFS 6.16, storage_ids.conf.
 */
import { dirname, resolve } from 'node:path'
import { readText } from './text-file.ts'
import type { Disk } from './world.ts'

/** A line that means something. */
export interface ConfLine {
  readonly file: string
  /** From 1. */
  readonly line: number
}

/** One `key = value`. */
export interface ConfEntry extends ConfLine {
  /** Empty outside of any. */
  readonly section: string
  readonly key: string
  readonly value: string
}

/** A file with all that it includes, in reading order. */
export interface ConfFile {
  readonly path: string
  readonly entries: readonly ConfEntry[]
  /** Lines that are none of what these files have; FastDFS passes over them without a word. */
  readonly strays: readonly ConfLine[]
}

/** One line of `storage_ids.conf`. */
export interface StorageIdLine extends ConfLine {
  readonly storageId: number
  readonly group: string
  readonly hosts: readonly string[]
  readonly port: number | undefined
  readonly mode: string
}

/** A configuration file cannot be understood. */
export class ConfError extends Error {
  constructor({ file, line }: ConfLine, problem: string, options?: { cause: unknown }) {
    super(`${file}:${line}: ${problem}`, options)
    this.name = 'ConfError'
  }
}

/** Files that include each other in a circle end here. */
const INCLUDE_DEPTH_MAX = 8

const INCLUDE = /^#include[ \t]+(.*)$/i
/** FastDFS can also decide, repeat and run programs in its files; passing over that would misread what is between. */
const DIRECTIVE = /^#@(function|if|else|endif|for|endfor|set)\b/i
const STORAGE_ID_LINE = /^(\d+)\s+(\S+)\s+(\S+)((?:\s+\S+=\S*)*)$/
const PORT = /^(\[[^\]]+\]|[^:]+):(\d{1,5})$/

/** Reads a file and all that it includes. Rejects with a ConfError, or an Error if it is not there. */
export async function readConf(disk: Disk, path: string): Promise<ConfFile> {
  const entries: ConfEntry[] = []
  const strays: ConfLine[] = []
  const read = async (file: string, depth: number): Promise<void> => {
    const text = await textOf(disk, file)
    let section = ''
    for (const [at, raw] of linesOf(text, file)) {
      const included = INCLUDE.exec(raw)?.[1]?.trim()
      if (included !== undefined) {
        if (depth === INCLUDE_DEPTH_MAX) throw new ConfError(at, 'too many files include each other')
        if (/^https?:/i.test(included)) throw new ConfError(at, 'only files are included, nothing from the network')
        await read(resolve(dirname(path), included), depth + 1).catch(cause => {
          throw cause instanceof ConfError ? cause : new ConfError(at, (cause as Error).message, { cause })
        })
        section = ''
        continue
      }
      if (DIRECTIVE.test(raw)) throw new ConfError(at, `natsdfs does not follow ${raw.split(/\s/)[0]}`)
      const trimmed = raw.trim()
      if (trimmed === '' || trimmed.startsWith('#')) continue
      const equals = trimmed.indexOf('=')
      if (trimmed.startsWith('[') && trimmed.endsWith(']')) section = trimmed.slice(1, -1).trim()
      else if (equals < 0) strays.push(at)
      else {
        const [key, value] = [trimmed.slice(0, equals).trim(), trimmed.slice(equals + 1).trim()]
        entries.push({ ...at, section, key, value })
      }
    }
  }
  await read(path, 0)
  return { path, entries, strays }
}

/** Reads what FastDFS takes for true (1, true, yes, on) and false (0, false, no, off). Throws an Error on all else. */
export function parseBoolean(text: string): boolean {
  const word = text.toLowerCase()
  if (['1', 'true', 'yes', 'on'].includes(word)) return true
  if (['0', 'false', 'no', 'off'].includes(word)) return false
  throw new Error('neither true nor false')
}

/** Whether a file is a `storage_ids.conf`, by its first line that says something. Rejects if it is not there. */
export async function holdsStorageIds(disk: Disk, path: string): Promise<boolean> {
  for (const [, raw] of linesOf(await textOf(disk, path), path)) {
    const trimmed = raw.trim()
    if (trimmed !== '' && !trimmed.startsWith('#')) return STORAGE_ID_LINE.test(trimmed)
  }
  return false
}

/** Reads a `storage_ids.conf`. Rejects with a ConfError, or an Error if it is not there. */
export async function readStorageIds(disk: Disk, path: string): Promise<StorageIdLine[]> {
  return linesOf(await textOf(disk, path), path).flatMap(([at, raw]) => {
    const trimmed = raw.trim()
    if (trimmed === '' || trimmed.startsWith('#')) return []
    const [, id, group, place = '', options = ''] = STORAGE_ID_LINE.exec(trimmed) ?? []
    if (id === undefined || group === undefined) throw new ConfError(at, 'not an id, a group and a host')
    const [, before = place, port] = PORT.exec(place) ?? []
    const hosts = before.split(',').map(host => host.replace(/^\[(.*)\]$/, '$1'))
    const mode = /(?:^|\s)rw=(\S*)/.exec(options)?.[1] ?? 'both'
    return [{ ...at, storageId: Number(id), group, hosts, port: port === undefined ? port : Number(port), mode }]
  })
}

async function textOf(disk: Disk, file: string): Promise<string> {
  const text = await readText(disk, file)
  if (text === undefined) throw new Error(`${file}: there is no such file`)
  return text
}

function linesOf(text: string, file: string): [ConfLine, string][] {
  return text.split('\n').map((raw, index) => [{ file, line: index + 1 }, raw])
}
