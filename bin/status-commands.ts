/** The commands that look at a cluster, `dfs status`, `dfs monitor` and `dfs doctor`, and the one that helps it, `dfs succeed`. */
import { type Command, InvalidArgumentError } from 'commander'
import { STORAGE_ID_MAX } from '../protocol/file-id.ts'
import { doctor } from './doctor.ts'
import { monitor } from './monitor.ts'
import { type ClusterFlags, clusterCommand, withClient } from './session.ts'
import { type StatusFlags, status } from './status.ts'
import { type SucceedFlags, succeed } from './succeed.ts'

export function addStatusCommands(program: Command): void {
  clusterCommand(
    program,
    'status',
    'show trackers, gateways, groups and storage servers, and how far they are in sync',
    `dfs status
     dfs status --watch
     dfs status --json | jq '.storages[].report.status'`,
  )
    .option('-w, --watch', 'show it again every two seconds, until Ctrl-C')
    .action((flags: StatusFlags) => withClient(flags, 'status', session => status(session, flags)))

  clusterCommand(
    program,
    'monitor [group]',
    'tell of groups and storage servers what fdfs_monitor tells, under the same names',
    `dfs monitor
     dfs monitor group1 | grep total_upload_count`,
  ).action((group: string | undefined, flags: ClusterFlags) =>
    withClient(flags, group ?? 'monitor', session => monitor(session, group, flags)),
  )

  clusterCommand(
    program,
    'succeed',
    "let a storage server order the changes of another one's files, which is gone; it takes them back when it returns",
    `dfs succeed 1 --by 2 --alone
     dfs succeed 1 --by 1 --alone  # back without the other one of its group, which has not taken over`,
  )
    .argument('<source>', 'storage id of the server that is gone', storageIdOf)
    .requiredOption('--by <id>', 'storage id of the successor, of the same group', storageIdOf)
    .option('--alone', 'whoever else would have to agree is dead: in a group of two somebody has to say so')
    .action((source: number, flags: SucceedFlags) =>
      withClient(flags, 'succeed', session => succeed(session, source, flags), 'ops'),
    )

  clusterCommand(
    program,
    'doctor',
    'check this machine and the cluster, and say what to do; exits with 1 if a check fails',
    `dfs doctor
     dfs doctor --json | jq '.checks[] | select(.level != "ok")'`,
  ).action((flags: ClusterFlags) => doctor(flags))
}

/** Throws commander's InvalidArgumentError. */
function storageIdOf(text: string): number {
  const id = Number(text)
  if (!Number.isInteger(id) || id < 1 || id > STORAGE_ID_MAX) throw new InvalidArgumentError('a storage id is a number')
  return id
}
