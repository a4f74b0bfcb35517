/** A real nats-server in a temporary directory, with our configuration and its own secrets. */
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { homedir, tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ChildEvents } from '../../runtime/child-supervisor.ts'
import { findNatsServer, type NatsServer, startNatsServer } from '../../runtime/nats-server.ts'
import { realWorld } from '../../runtime/real-world.ts'
import { type Credentials, credentialsPath, ensureSecrets, readCredentials } from '../../runtime/secrets.ts'
import { Timers } from '../../runtime/timers.ts'

const world = realWorld()

/** The servers to test with: the one that `dfs up` would take, and an old one if `DFS_NATS_SERVER_OLD` names it. */
export async function natsServerBinaries(): Promise<string[]> {
  const current = await findNatsServer(world.disk, {
    configured: process.env.DFS_NATS_SERVER,
    searchPath: process.env.PATH,
    home: homedir(),
  })
  const old = process.env.DFS_NATS_SERVER_OLD
  return old && (await world.disk.stat(old)) ? [current, old] : [current]
}

/** Makes a directory and the means to remove it. */
export async function temporaryDirectory(): Promise<{ path: string; remove(): Promise<void> }> {
  const path = await mkdtemp(join(tmpdir(), 'natsdfs-'))
  return { path, remove: () => rm(path, { recursive: true, force: true }) }
}

/** How a test wants its server; port 0 unless it says otherwise. */
export interface NatsFixtureOptions {
  readonly binary: string
  readonly directory: string
  readonly groups?: readonly string[]
  readonly port?: number
  readonly template?: string
  readonly events?: ChildEvents
}

/** Starts a server in `directory`, which holds its secrets too. */
export async function startTestServer(options: NatsFixtureOptions): Promise<NatsServer> {
  const { binary, directory, groups = ['group1'], port = 0, events = {} } = options
  const template = options.template ?? (await readFile('nats-server.conf', 'utf8'))
  const { passwords } = await ensureSecrets(world, directory, { groups, servers: [] })
  const settings = { name: 'dfs-test', host: '127.0.0.1', port, monitorPort: 0, passwords }
  return startNatsServer(world, new Timers(world.clock), {
    ...settings,
    binary,
    template,
    groups,
    directory: `${directory}/nats`,
    events,
  })
}

/** The credentials of a user of the server in `directory`. */
export function credentialsOf(directory: string, user: string): Promise<Credentials> {
  return readCredentials(world.disk, credentialsPath(directory, user))
}
