/** `dfs export`: writes a directory that a FastDFS storage server goes on with. Needs no cluster. */
import { resolve } from 'node:path'
import type { Command } from 'commander'
import { DIRECTORIES, STORAGE_ID_MAX } from '../protocol/file-id.ts'
import { linkFile } from '../runtime/real-disk.ts'
import { realWorld } from '../runtime/real-world.ts'
import { Timers } from '../runtime/timers.ts'
import { exportToFastdfs } from '../store/fastdfs-export.ts'
import { basePathOf } from '../store/take-over.ts'
import { completeFlags } from './conf-flags.ts'
import { printJson, printLine } from './output.ts'
import { type PortFlags, roleLog } from './role.ts'
import { parseNumber } from './sizes.ts'
import { addOfflineFlags, OFFLINE } from './take-over.ts'

interface ExportFlags extends PortFlags {
  readonly fastdfs: string
  readonly data: string
  readonly basePath?: string
  readonly group: string
  readonly id?: number
  readonly storePath: readonly string[]
  readonly address?: string
  readonly subdirCount: number
  readonly json?: boolean
}

export function addExportCommand(program: Command): void {
  const command = program
    .command('export')
    .description('write what a FastDFS storage server needs to go on with the files of a stopped one of ours')
    .requiredOption('--fastdfs <dir>', 'where to: base_path, store_path0, ... are made in it; it must be empty')
    .option('--data <dir>', 'the data directory')
    .option('--base-path <dir>', "FastDFS's base_path, if it was taken over (default: above the data directory)")
    .option('--group <name>', 'the group it belongs to')
    .option('--id <n>', 'its storage id (default: the one it has)', parseNumber(1, STORAGE_ID_MAX))
    .option('--store-path <dir...>', 'store paths, the first is M00 (default: one inside the data directory)', [])
    .option('--address <ip>', 'what FastDFS knows the server by (default: what it did)')
    .option('--subdir-count <n>', 'subdir_count_per_path of FastDFS', parseNumber(1, DIRECTORIES), DIRECTORIES)
    .option('--json', 'print JSON')
  addOfflineFlags(command)
  command.action(async () => {
    const flags = await completeFlags<ExportFlags>(command, 'storage', ['data', 'group'])
    await run(flags)
  })
}

async function run(flags: ExportFlags): Promise<void> {
  const world = realWorld()
  const dataDirectory = resolve(flags.data)
  const to = resolve(flags.fastdfs)
  const counts = await exportToFastdfs(
    { world, timers: new Timers(world.clock), log: roleLog('export') },
    {
      to,
      dataDirectory,
      basePath: flags.basePath === undefined ? basePathOf(dataDirectory) : resolve(flags.basePath),
      group: flags.group,
      ...(flags.id === undefined ? {} : { storageId: flags.id }),
      storePaths: flags.storePath.map(path => resolve(path)),
      address: flags.address,
      port: flags.port,
      subdirCount: flags.subdirCount,
      link: linkFile,
      ...OFFLINE,
    },
  )
  if (flags.json) return printJson({ ...counts, to })
  const { plain, slave, appender, packed, metadata, trunkFiles, linked } = counts
  printLine(`${plain} plain, ${slave} slave, ${appender} appender files, ${packed} in ${trunkFiles} trunk files`)
  printLine(`  ${metadata} with metadata, ${linked} files are links`)
  printLine(`  ${to}: base_path and store_path0, ... are in it`)
}
