/** The usual way to a client: find the cluster, connect to its NATS, go. */
import { DfsError } from '../protocol/errors.ts'
import { SUBJECT_PREFIX } from '../protocol/message.ts'
import { BusError } from '../runtime/bus.ts'
import { findCluster } from '../runtime/cluster-file.ts'
import { realEnvironment } from '../runtime/real-environment.ts'
import { realWorld } from '../runtime/real-world.ts'
import { type Credentials, readCredentials } from '../runtime/secrets.ts'
import { Timers } from '../runtime/timers.ts'
import type { World } from '../runtime/world.ts'
import { Client } from './client.ts'

export interface ConnectOptions {
  /** What the role's credentials file holds, or its path. Without it, the cluster that runs on this machine is taken. */
  readonly credentials?: Credentials | string
  /** As whom, where the cluster file says the credentials: `client` if not given. */
  readonly user?: 'client' | 'ops'
  /** NATS servers to use instead of the credentials' own. */
  readonly servers?: readonly string[]
  /** Where a `dfs up` wrote its cluster file, if not the one that was started last. */
  readonly clusterFile?: string
  /** The first token of every subject. */
  readonly prefix?: string
  /** Seen in `nats server report connections`. */
  readonly name?: string
  readonly world?: World
}

/** Connects to a cluster. Rejects with `unavailable` if there is none, or if its NATS does not answer. */
export async function connect(options: ConnectOptions = {}): Promise<Client> {
  const world = options.world ?? realWorld()
  const credentials = await credentialsFrom(world, options)
  const { servers, user, password, inboxPrefix, dataSecret } = credentials
  const name = options.name ?? 'dfs-client'
  try {
    const bus = await world.connectBus({
      servers: options.servers ?? servers,
      user,
      password,
      inboxPrefix,
      name,
      waitForServer: false,
    })
    const prefix = options.prefix ?? SUBJECT_PREFIX
    return new Client({ world, timers: new Timers(world.clock), bus, prefix, dataSecret })
  } catch (cause) {
    if (cause instanceof BusError && cause.code === 'forbidden')
      throw new DfsError('unauthorized', undefined, { cause })
    throw new DfsError('unavailable', `NATS does not answer at ${(options.servers ?? servers).join(', ')}`, { cause })
  }
}

async function credentialsFrom(world: World, options: ConnectOptions): Promise<Credentials> {
  const { credentials } = options
  if (typeof credentials === 'object') return credentials
  if (typeof credentials === 'string') return readCredentials(world.disk, credentials)
  const cluster = await findCluster(world.disk, realEnvironment(), options.clusterFile)
  const path = cluster?.credentials[options.user ?? 'client']
  if (path === undefined) throw new DfsError('unavailable', 'no running cluster is known here; start one with `dfs up`')
  return readCredentials(world.disk, path)
}
