/** The commands that look at a cluster: `dfs status`, `dfs monitor`, `dfs doctor`. */
import type { Command } from 'commander'
import { doctor } from './doctor.ts'
import { monitor } from './monitor.ts'
import { type ClusterFlags, clusterCommand, withClient } from './session.ts'
import { type StatusFlags, status } from './status.ts'

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
    'doctor',
    'check this machine and the cluster, and say what to do; exits with 1 if a check fails',
    `dfs doctor
     dfs doctor --json | jq '.checks[] | select(.level != "ok")'`,
  ).action((flags: ClusterFlags) => doctor(flags))
}
