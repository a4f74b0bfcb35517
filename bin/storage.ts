/** `dfs storage`: one storage server with its sync workers. */
import { resolve } from 'node:path'
import type { Command } from 'commander'
import { STORAGE_ID_MAX } from '../protocol/file-id.ts'
import { readCredentials } from '../runtime/secrets.ts'
import { addConfFlag, completeFlags } from './conf-flags.ts'
import { addPortFlags, admitted, advertised, type PortFlags, runRole } from './role.ts'
import { parseNumber } from './sizes.ts'
import { startStorageServer } from './storage-server.ts'
import { addStoreFlags, type StoreFlags, storeOptionsOf } from './store-flags.ts'
import { expectTakenOver } from './take-over.ts'

interface StorageFlags extends PortFlags, StoreFlags {
  readonly syncCredentials: string
  readonly data: string
  readonly group: string
  readonly id?: number
  readonly storePath: readonly string[]
  readonly uploadPriority: number
}

export function addStorageCommand(program: Command): void {
  const command = program
    .command('storage')
    .description('run one storage server')
    .option('--data <dir>', 'its data directory')
    .option('--group <name>', 'the group it belongs to')
    .requiredOption('--sync-credentials <file>', "its sync workers' NATS credentials")
    .option('--id <n>', 'its storage id (default: the one it has, or a random one)', parseNumber(1, STORAGE_ID_MAX))
    .option('--store-path <dir...>', 'store paths, the first is M00 (default: one inside the data directory)', [])
    .option('--upload-priority <n>', 'lower is preferred, where trackers choose by priority', parseNumber(0, 1000), 10)
  addConfFlag(addPortFlags(addStoreFlags(command), 23000), 'storage.conf, and tracker.conf and storage_ids.conf')
  command.action(async () => {
    const flags = await completeFlags<StorageFlags>(command, 'storage', ['data', 'group'])
    return runRole(`storage ${flags.id ?? ''}`.trim(), flags, async context => {
      const { disk } = context.world
      const credentials = await readCredentials(disk, flags.credentials)
      const dataDirectory = resolve(flags.data)
      const storePaths = flags.storePath.map(path => resolve(path))
      await expectTakenOver(disk, dataDirectory, storePaths)
      const role = await startStorageServer(context, {
        dataDirectory,
        group: flags.group,
        ...(flags.id === undefined ? {} : { storageId: flags.id }),
        storePaths,
        ...(await storeOptionsOf(flags, disk, storePaths.length > 0 ? storePaths : [dataDirectory])),
        credentials,
        clusterSecret: credentials.dataSecret ?? '',
        syncCredentials: await readCredentials(disk, flags.syncCredentials),
        bind: { host: flags.bind, port: flags.port },
        admits: await admitted(context, flags),
        advertiseHost: advertised(flags),
        uploadPriority: flags.uploadPriority,
      })
      const { storageId, endpoint } = role.storage
      const { group } = flags
      return {
        role,
        report: { id: storageId, group, host: advertised(flags), port: endpoint.port, dataDir: dataDirectory },
      }
    })
  })
}
