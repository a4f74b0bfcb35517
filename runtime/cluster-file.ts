/**
 * The running cluster, as `dfs up` describes it in a file, and the pointer by which other commands on the machine find
 * it without being told.
 *
 *     <data>/cluster.json           what runs where; rewritten whenever a process is started again
 *     <DFS_HOME>/current.json       { clusterFile }: the cluster that was started last
 */
import { join } from 'node:path'
import type { Environment } from './real-environment.ts'
import { readText, writeText } from './text-file.ts'
import type { Disk } from './world.ts'

/** What runs where. */
export interface ClusterFile {
  /** Everything that was asked for runs. */
  readonly ready: boolean
  /** `nats://host:port`. */
  readonly nats: string
  /** Where each role's credentials are, by NATS user. */
  readonly credentials: Readonly<Record<string, string>>
  readonly fastdfs: { readonly tracker: string }
  readonly trackers: readonly { id: string; host: string; port: number; pid: number }[]
  readonly storages: readonly { id: number; group: string; host: string; port: number; dataDir: string; pid: number }[]
  readonly gateway: { readonly pid: number }
  readonly natsServer: { readonly pid: number }
}

/** Replaces a cluster file. */
export function writeClusterFile(disk: Disk, path: string, cluster: ClusterFile): Promise<void> {
  return writeText(disk, path, `${JSON.stringify(cluster, undefined, 2)}\n`)
}

/** Makes a cluster the one that commands on this machine find. */
export async function pointToCluster(disk: Disk, environment: Environment, clusterFile: string): Promise<void> {
  await disk.makeDirectory(environment.dfsHome)
  await writeText(disk, join(environment.dfsHome, 'current.json'), `${JSON.stringify({ clusterFile })}\n`)
}

/** Finds a cluster file: the one given, or the environment's, or the one started last. Undefined if there is none. */
export async function findCluster(
  disk: Disk,
  environment: Environment,
  given?: string,
): Promise<ClusterFile | undefined> {
  const path = given ?? environment.clusterFile ?? (await currentCluster(disk, environment))
  const text = path === undefined ? undefined : await readText(disk, path)
  return text === undefined ? undefined : (JSON.parse(text) as ClusterFile)
}

async function currentCluster(disk: Disk, environment: Environment): Promise<string | undefined> {
  const text = await readText(disk, join(environment.dfsHome, 'current.json'))
  return text === undefined ? undefined : (JSON.parse(text) as { clusterFile: string }).clusterFile
}
