/** The environment of this process: one of the few files that may look at it. */
import { homedir } from 'node:os'

/** What programs may know of where they run. */
export interface Environment {
  readonly home: string
  /** Where programs are searched. */
  readonly searchPath: string
  /** Our own directory: `DFS_HOME`, or `.natsdfs` in the user's home. */
  readonly dfsHome: string
  /** A nats-server to use rather than one that is searched for: `DFS_NATS_SERVER`. */
  readonly natsServer: string | undefined
  /** The cluster file of the cluster to talk to: `DFS_CLUSTER`. */
  readonly clusterFile: string | undefined
  readonly logLevel: string | undefined
  /** What anti-leech tokens are made with: `DFS_ANTI_LEECH_SECRET`. */
  readonly antiLeechSecret: string | undefined
}

/** Reads the environment as it is now. */
export function realEnvironment(): Environment {
  const home = homedir()
  return {
    home,
    searchPath: process.env.PATH ?? '',
    dfsHome: process.env.DFS_HOME ?? `${home}/.natsdfs`,
    natsServer: process.env.DFS_NATS_SERVER,
    clusterFile: process.env.DFS_CLUSTER,
    logLevel: process.env.DFS_LOG,
    antiLeechSecret: process.env.DFS_ANTI_LEECH_SECRET,
  }
}
