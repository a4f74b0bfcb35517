/** `dfs storage`: one storage server with its sync workers. */
import { resolve } from 'node:path'
import { type Command, Option } from 'commander'
import { STORAGE_ID_MAX } from '../protocol/file-id.ts'
import { readCredentials } from '../runtime/secrets.ts'
import { addPortFlags, advertised, type PortFlags, runRole } from './role.ts'
import { parseNumber, parseSize } from './sizes.ts'
import { startStorageServer } from './storage-server.ts'

interface StorageFlags extends PortFlags {
  readonly syncCredentials: string
  readonly data: string
  readonly group: string
  readonly id?: number
  readonly storePath: readonly string[]
  readonly storePathChoice: 'round_robin' | 'most_free'
  readonly reserved: number
  readonly uploadPriority: number
  readonly segmentMaxFile: number
  readonly durability: 'fsync' | 'os'
}

export function addStorageCommand(program: Command): void {
  const command = program
    .command('storage')
    .description('run one storage server')
    .requiredOption('--data <dir>', 'its data directory')
    .requiredOption('--group <name>', 'the group it belongs to')
    .requiredOption('--sync-credentials <file>', "its sync workers' NATS credentials")
    .option('--id <n>', 'its storage id (default: the one it has, or a random one)', parseNumber(1, STORAGE_ID_MAX))
    .option('--store-path <dir...>', 'store paths, the first is M00 (default: one inside the data directory)', [])
    .addOption(
      new Option('--store-path-choice <how>', 'path for an upload')
        .choices(['round_robin', 'most_free'])
        .default('round_robin'),
    )
    .option('--reserved <size>', 'space on each store path that uploads never take', parseSize, 2 ** 30)
    .option('--segment-max-file <size>', 'larger files get a file of their own; 0 for all', parseSize, 2 ** 20)
    .addOption(
      new Option(
        '--durability <level>',
        'what an acknowledged file has reached: the disk, or the system (a power cut may lose it)',
      )
        .choices(['fsync', 'os'])
        .default('fsync'),
    )
    .option('--upload-priority <n>', 'lower is preferred, where trackers choose by priority', parseNumber(0, 1000), 10)
  addPortFlags(command, 23000).action((flags: StorageFlags) =>
    runRole(`storage ${flags.id ?? ''}`.trim(), flags, async context => {
      const { disk } = context.world
      const credentials = await readCredentials(disk, flags.credentials)
      const dataDirectory = resolve(flags.data)
      const role = await startStorageServer(context, {
        dataDirectory,
        group: flags.group,
        ...(flags.id === undefined ? {} : { storageId: flags.id }),
        storePaths: flags.storePath.map(path => resolve(path)),
        storePathChoice: flags.storePathChoice,
        reservedBytes: flags.reserved,
        segmentFileBytesMax: flags.segmentMaxFile,
        durability: flags.durability,
        credentials,
        clusterSecret: credentials.dataSecret ?? '',
        syncCredentials: await readCredentials(disk, flags.syncCredentials),
        bind: { host: flags.bind, port: flags.port },
        advertiseHost: advertised(flags),
        uploadPriority: flags.uploadPriority,
      })
      const { storageId, endpoint } = role.storage
      return {
        role,
        report: {
          id: storageId,
          group: flags.group,
          host: advertised(flags),
          port: endpoint.port,
          dataDir: dataDirectory,
        },
      }
    }),
  )
}
