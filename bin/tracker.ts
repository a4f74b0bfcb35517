/** `dfs tracker`: one tracker by itself. */
import { type Command, Option } from 'commander'
import { startTracker } from '../actors/tracker/start-tracker.ts'
import { readCredentials } from '../runtime/secrets.ts'
import { addConfFlag, completeFlags } from './conf-flags.ts'
import { addPortFlags, admitted, advertised, type PortFlags, runRole } from './role.ts'

interface TrackerFlags extends PortFlags {
  readonly id: string
  readonly storeLookup: string
  readonly storeServer: 'round_robin' | 'by_address' | 'by_priority'
  readonly storePath: 'round_robin' | 'most_free'
}

export function addTrackerCommand(program: Command): void {
  const command = program
    .command('tracker')
    .description('run one tracker')
    .option('--id <token>', 'its name among the trackers', 'tracker-1')
    .option(
      '--store-lookup <how>',
      'group for an upload: round_robin, most_free, or the name of a group',
      'round_robin',
    )
    .addOption(
      new Option('--store-server <how>', 'server in the group')
        .choices(['round_robin', 'by_address', 'by_priority'])
        .default('round_robin'),
    )
    .addOption(
      new Option('--store-path <how>', 'store path').choices(['round_robin', 'most_free']).default('round_robin'),
    )
  addConfFlag(addPortFlags(command, 22122), 'tracker.conf').action(async () => {
    const flags = await completeFlags<TrackerFlags>(command, 'tracker')
    const { storeLookup } = flags
    const isPolicy = storeLookup === 'round_robin' || storeLookup === 'most_free'
    return runRole(flags.id, flags, async context => {
      const role = await startTracker(context, {
        trackerId: flags.id,
        credentials: await readCredentials(context.world.disk, flags.credentials),
        bind: { host: flags.bind, port: flags.port },
        admits: await admitted(context, flags),
        advertiseHost: advertised(flags),
        policy: {
          group: isPolicy ? storeLookup : { named: storeLookup },
          server: flags.storeServer,
          path: flags.storePath,
        },
      })
      return { role, report: { id: flags.id, host: advertised(flags), port: role.endpoint.port } }
    })
  })
}
