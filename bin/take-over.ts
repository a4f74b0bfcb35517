/** `dfs take-over`: makes the directory of a stopped FastDFS storage server ours, in place. Needs no cluster. */
import { join, resolve } from 'node:path'
import { type Command, InvalidArgumentError, Option } from 'commander'
import { STORAGE_ID_MAX } from '../protocol/file-id.ts'
import type { StorageIdLine } from '../runtime/conf-file.ts'
import { realWorld } from '../runtime/real-world.ts'
import { readText } from '../runtime/text-file.ts'
import { Timers } from '../runtime/timers.ts'
import type { Disk, Sockets, World } from '../runtime/world.ts'
import { isFastdfsStorePath } from '../store/fastdfs-directory.ts'
import { isTakenOver } from '../store/identity.ts'
import { basePathOf, takeOver } from '../store/take-over.ts'
import type { TakeOverReport } from '../store/take-over-report.ts'
import { addConfFlag, completeFlags } from './conf-flags.ts'
import { DONE, formatBytes, printJson, printLine, SOME_FAILED } from './output.ts'
import { type PortFlags, roleLog } from './role.ts'
import { parseNumber } from './sizes.ts'

interface TakeOverFlags extends PortFlags {
  readonly data: string
  readonly basePath?: string
  readonly group: string
  readonly id: number
  readonly storePath: readonly string[]
  readonly source: ReadonlyMap<string, number>
  /** Of `storage_ids.conf`, if the files that were given have one that counts. */
  readonly storageIds?: readonly StorageIdLine[]
  readonly json?: boolean
}

/** How a store is opened that takes no uploads. */
export const OFFLINE = {
  storePathChoice: 'round_robin',
  reservedBytes: 0,
  segmentFileBytesMax: 0,
  hotFileBytes: 0,
  durability: 'fsync',
} as const

/** A line of progress after so many files. */
const PROGRESS_FILES = 100_000

const SOURCE = /^([^=]+)=(\d+)$/

export function addTakeOverCommand(program: Command): void {
  const command = program
    .command('take-over')
    .description("make a stopped FastDFS storage server's directory one of natsdfs, in place")
    .option('--data <dir>', 'data directory to make (with --fastdfs-conf: natsdfs in base_path)')
    .option('--base-path <dir>', "FastDFS's base_path (default: the directory above the data directory)")
    .option('--group <name>', 'the group it belongs to')
    .option('--id <n>', 'its storage id', parseNumber(1, STORAGE_ID_MAX))
    .option('--store-path <dir...>', "FastDFS's store paths, the first is M00", [])
    .option(
      '--source <name=id...>',
      'the storage id of the server that is to be the source of files with this address, or id, in their names',
      readSource,
      new Map<string, number>(),
    )
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      `
Reads every file once and serves nothing meanwhile; nothing of FastDFS's is changed or removed. If it breaks off, do it again.

Examples:
  dfs take-over --fastdfs-conf storage.conf --id 1 --source 10.0.0.2=2
  dfs take-over --data /data/natsdfs --base-path /opt/fastdfs --group group1 --id 1 --store-path /data/fdfs0 /data/fdfs1`,
    )
  addOfflineFlags(command)
  command.action(async () => {
    const flags = await completeFlags<TakeOverFlags>(command, 'storage', ['data', 'group', 'id', 'storePath'])
    process.exitCode = await run(flags)
  })
}

/** Flags of commands that work on a directory without a server; what a server would listen on tells which one it is. */
export function addOfflineFlags(command: Command): Command {
  command
    .addOption(new Option('--bind <host>').default('127.0.0.1').hideHelp())
    .addOption(new Option('--port <n>').default(23000).hideHelp())
    .addOption(new Option('--advertise <host>').hideHelp())
  return addConfFlag(command, 'storage.conf, and tracker.conf and storage_ids.conf')
}

/** Throws if a store path has FastDFS's files and they were not taken over: a server would not know of them. */
export async function expectTakenOver(disk: Disk, dataDirectory: string, storePaths: readonly string[]): Promise<void> {
  for (const path of storePaths) {
    if (!(await isFastdfsStorePath(disk, path)) || (await isTakenOver(disk, dataDirectory))) continue
    throw new Error(`${path} has files of a FastDFS storage server: \`dfs take-over\` makes them known first`)
  }
}

async function run(flags: TakeOverFlags): Promise<number> {
  const world = realWorld()
  const dataDirectory = resolve(flags.data)
  const basePath = flags.basePath === undefined ? basePathOf(dataDirectory) : resolve(flags.basePath)
  await expectStopped(world, basePath)
  const report = await takeOver(
    { world, timers: new Timers(world.clock), log: roleLog('take-over') },
    {
      dataDirectory,
      basePath,
      group: flags.group,
      storageId: flags.id,
      storePaths: flags.storePath.map(path => resolve(path)),
      sources: new Map([...(await sourcesOf(flags, world.sockets)), ...flags.source]),
      ...OFFLINE,
      onProgress: progress(),
    },
  )
  const { counts, foreign, path } = report
  if (flags.json) printJson({ ...counts, files: report.files, foreign: Object.fromEntries(foreign), report: path })
  else for (const line of formatReport(report)) printLine(line)
  return counts.damaged === 0 ? DONE : SOME_FAILED
}

/** Throws if FastDFS's storage server still runs on its directory: what comes later would be known to nobody. */
async function expectStopped({ disk, processes }: World, basePath: string): Promise<void> {
  const path = join(basePath, 'data/fdfs_storaged.pid')
  const pid = Number((await readText(disk, path))?.trim())
  const isRunning = pid > 0 && processes.alive(pid) && (await processes.commandLine(pid)).includes('fdfs_storaged')
  if (isRunning) throw new Error(`process ${pid} is the FastDFS storage server of ${basePath}: stop it first`)
}

/** What a take-over came to. */
export function formatReport({ counts, files, foreign, path }: TakeOverReport): string[] {
  const { plain, slave, appender, packed, metadata, bytes, damaged, left } = counts
  const others = [...foreign].map(([storageId, count]) => `  ${count} have storage server ${storageId} as their source`)
  const problems = damaged + left === 0 ? [] : [`  see ${path}`]
  return [
    `${files} files, ${formatBytes(bytes)}: ${plain} plain, ${packed} in trunk files, ${slave} slave, ${appender} appender`,
    `  ${metadata} with metadata`,
    ...others,
    `  ${damaged} damaged, ${left} entries left alone`,
    ...problems,
  ]
}

function progress(): (report: TakeOverReport) => void {
  let next = PROGRESS_FILES
  return ({ files, counts }) => {
    if (files < next) return
    next = files + PROGRESS_FILES
    process.stderr.write(`${files} files, ${formatBytes(counts.bytes)}, ${counts.damaged} damaged\n`)
  }
}

/** The addresses of a `storage_ids.conf`. A name that stands for nothing any more is in no file name. */
async function sourcesOf({ storageIds = [], group }: TakeOverFlags, sockets: Sockets): Promise<Map<string, number>> {
  const sources = new Map<string, number>()
  for (const line of storageIds.filter(line => line.group === group)) {
    for (const host of line.hosts) sources.set(await sockets.resolve(host).catch(() => host), line.storageId)
  }
  return sources
}

function readSource(text: string, before: ReadonlyMap<string, number>): ReadonlyMap<string, number> {
  const [, name, id] = SOURCE.exec(text) ?? []
  const storageId = Number(id)
  if (name === undefined || storageId < 1 || storageId > STORAGE_ID_MAX)
    throw new InvalidArgumentError('an address (or id) of FastDFS, =, a storage id: 10.0.0.2=2')
  return new Map([...before, [name, storageId]])
}
