/**
 * What a FastDFS storage server leaves on its disks.
 *
 *     <base_path>/data/.data_init_flag        key=value: its last address, how far trunk file ids have got, ...
 *     <base_path>/data/sync/binlog.000 ...    <unix seconds> <op> <file name>[ more]
 *     <store_path>/data/0A/3F/<base name>     a plain, slave or appender file
 *     <store_path>/data/0A/3F/<base name>-m   metadata
 *     <store_path>/data/0A/3F/<id, 6 digits>  a trunk file
 *     <store_path>/data/.fastdfs_vars         key=value: whose store path this is
 */
import { join } from 'node:path'
import { readText } from '../runtime/text-file.ts'
import type { Disk } from '../runtime/world.ts'

/** Read at a time of a binlog. */
const READ_BYTES = 256 * 1024

const DIRECTORY_NAME = /^[0-9A-F]{2}$/
const TRUNK_FILE_NAME = /^\d{6,10}$/
const BINLOG_NAME = /^binlog\.(\d{3,})(\.gz)?$/

/** Whether FastDFS has written to a store path. */
export async function isFastdfsStorePath(disk: Disk, root: string): Promise<boolean> {
  const traces = ['.fastdfs_vars', '.data_init_flag'].map(name => disk.stat(join(root, 'data', name)))
  return (await Promise.all(traces)).some(found => found !== undefined)
}

/** What stands in `.data_init_flag`; empty if it is not there. */
export async function readInitFlag(disk: Disk, basePath: string): Promise<ReadonlyMap<string, string>> {
  const text = (await readText(disk, join(basePath, 'data', '.data_init_flag'))) ?? ''
  return new Map(
    text.split('\n').flatMap(line => {
      const at = line.indexOf('=')
      return at < 0 ? [] : [[line.slice(0, at).trim(), line.slice(at + 1).trim()] as const]
    }),
  )
}

/** Goes through the directories of a store path, and what is in each, in the order of names. */
export async function* directoriesOf(
  disk: Disk,
  root: string,
): AsyncGenerator<{ directory: string; names: readonly string[] }> {
  const data = join(root, 'data')
  for (const high of await directoriesIn(disk, data)) {
    for (const low of await directoriesIn(disk, join(data, high))) {
      const directory = `${high}/${low}`
      yield { directory, names: (await disk.list(join(data, directory))).sort() }
    }
  }
}

/** Whether this may be a trunk file. */
export function isTrunkFileName(name: string): boolean {
  return TRUNK_FILE_NAME.test(name)
}

/** Reads all records of FastDFS's binlog. Rejects with an Error if a part of it is compressed. */
export async function* readFastdfsBinlog(
  disk: Disk,
  basePath: string,
): AsyncGenerator<{ readonly op: string; readonly name: string }> {
  const directory = join(basePath, 'data', 'sync')
  const files = (await disk.list(directory)).flatMap(name => {
    const [, number, compressed] = BINLOG_NAME.exec(name) ?? []
    return number === undefined ? [] : [{ path: join(directory, name), number: Number(number), compressed }]
  })
  for (const { path, compressed } of files.sort((a, b) => a.number - b.number)) {
    if (compressed !== undefined) throw new Error(`${path} is compressed: unpack it with gunzip first`)
    for await (const line of linesOf(disk, path)) {
      const [, op = '', name = ''] = line.split(' ')
      yield { op, name }
    }
  }
}

async function directoriesIn(disk: Disk, path: string): Promise<string[]> {
  return (await disk.list(path)).filter(name => DIRECTORY_NAME.test(name)).sort()
}

async function* linesOf(disk: Disk, path: string): AsyncGenerator<string> {
  const file = await disk.open(path, 'read')
  try {
    const buffer = Buffer.allocUnsafe(READ_BYTES)
    let rest = ''
    for (let at = 0; ; ) {
      const count = await file.read(buffer, at)
      const lines = (rest + buffer.toString('latin1', 0, count)).split('\n')
      if (count === 0) break
      rest = lines.pop()!
      yield* lines
      at += count
    }
    if (rest !== '') yield rest
  } finally {
    await file.close()
  }
}
