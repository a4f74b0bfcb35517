/** `dfs up`: a whole cluster on this machine, every part a supervised process of its own. */
import { basename, join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Command } from 'commander'
import { connect } from '../client/connect.ts'
import { ChildSupervisor } from '../runtime/child-supervisor.ts'
import { type ClusterFile, pointToCluster, writeClusterFile } from '../runtime/cluster-file.ts'
import { isFree, pickPort } from '../runtime/free-ports.ts'
import { LineLog } from '../runtime/line-log.ts'
import { findNatsServer, type NatsServer, startNatsServer } from '../runtime/nats-server.ts'
import { realEnvironment } from '../runtime/real-environment.ts'
import { realWorld } from '../runtime/real-world.ts'
import { credentialsPath, ensureSecrets } from '../runtime/secrets.ts'
import { readText } from '../runtime/text-file.ts'
import { Timers } from '../runtime/timers.ts'
import type { DiskError, DiskLock } from '../runtime/world.ts'
import { addAllowHosts, isEverywhere } from './role.ts'
import { parseNumber } from './sizes.ts'
import { addStoreFlags, type StoreFlags, storeArguments } from './store-flags.ts'

interface UpFlags extends StoreFlags {
  readonly data?: string
  readonly groups: number
  readonly storages: number
  readonly trackers: number
  readonly portsFile?: string
  readonly portBase?: number
  readonly bind: string
  readonly advertise?: string
  readonly allowHosts: readonly string[]
}

/** FastDFS's ports, and NATS's. */
const NATS_PORT = 4222
const TRACKER_PORT = 22122
const STORAGE_PORT = 23000
/** Where they stand above a `--port-base`. */
const TRACKER_OFFSET = 10
const STORAGE_OFFSET = 50
const MONITOR_OFFSET = 1

/**
 * Node sizes its heaps for machines that run one program. A young generation of 2 MiB instead of 16, and an old one that
 * may not grow past half a gigabyte, and so is collected sooner: some 40 MiB of each process are given back, and no
 * throughput that could be measured. A storage server is the exception: with 2 MiB its peers' records, a few objects each,
 * cost it a fifth of its uploads. What is alive in a busy one has 25 MiB.
 */
const OLD_SPACE = '--max-old-space-size=512'
export const NODE_FLAGS = ['--enable-source-maps', '--max-semi-space-size=2', OLD_SPACE]
export const STORAGE_NODE_FLAGS = ['--enable-source-maps', '--max-semi-space-size=16', OLD_SPACE]

/** How long servers may take to join after their processes are ready. */
const JOIN_MS_MAX = 60_000
const JOIN_POLL_MS = 100

export function addUpCommand(program: Command): void {
  const command = program
    .command('up')
    .description('run a whole cluster on this machine: nats-server, trackers, storage servers, a gateway')
    .option('--data <dir>', 'where everything is kept (default: ~/.natsdfs/cluster)')
    .option('--groups <n>', 'groups', parseNumber(1, 64), 1)
    .option('--storages <n>', 'storage servers in each group', parseNumber(1, 32), 2)
    .option('--trackers <n>', 'trackers', parseNumber(1, 16), 1)
    .option('--ports-file <file>', 'also write what runs where to this file, as JSON')
    .option('--port-base <n>', 'first of the ports to use; 0: any free ones', parseNumber(0, 65000))
    .option('--bind <host>', 'address to listen on', '127.0.0.1')
    .option('--advertise <host>', 'name or address that clients are told (default: the one bound)')
  addStoreFlags(addAllowHosts(command)).action(up)
}

async function up(flags: UpFlags): Promise<void> {
  const world = realWorld()
  const { disk, sockets, random } = world
  const timers = new Timers(world.clock)
  const environment = realEnvironment()
  const data = resolve(flags.data ?? join(environment.dfsHome, 'cluster'))
  const advertise = flags.advertise ?? (isEverywhere(flags.bind) ? undefined : flags.bind)
  if (advertise === undefined) throw new Error('--bind listens on every address: --advertise has to name one')
  await disk.makeDirectory(join(data, 'logs'))
  const lock = await lockData(data)
  const logs = new Map<string, LineLog>()
  let stopping: Promise<void> | undefined
  let nats: NatsServer | undefined
  const supervisor = new ChildSupervisor(world, timers, {
    onLine: (name, line, stream) => note(name, line, stream),
    onReady: () => void describe(),
  })
  process.on('SIGINT', () => void stop())
  process.on('SIGTERM', () => void stop())
  // A terminal that goes away takes the cluster with it; a pipe for our output that goes away does not.
  process.on('SIGHUP', () => void stop())
  process.stdout.on('error', () => undefined)

  const groups = Array.from({ length: flags.groups }, (_, i) => `group${i + 1}`)
  const members = groups.flatMap((group, g) =>
    Array.from({ length: flags.storages }, (_, s) => ({ group, id: g * flags.storages + s + 1 })),
  )
  const ports = await choosePorts()
  const trackers = ports.trackers.map((port, i) => ({ id: `tracker-${i + 1}`, host: advertise, port }))
  const storages = members.map((member, i) => ({
    ...member,
    host: advertise,
    port: ports.storages[i]!,
    dataDir: join(data, `storage-${member.id}`),
  }))
  const natsUrl = `nats://${advertise}:${ports.nats}`
  const natsUrls = [
    ...new Set([`nats://${isEverywhere(flags.bind) ? '127.0.0.1' : flags.bind}:${ports.nats}`, natsUrl]),
  ]
  let ready = false
  /** The last write of the cluster file: restarts may come close together, and one writes at a time. */
  let describing: Promise<void> = Promise.resolve()

  try {
    await startAll()
  } catch (error) {
    await stop()
    throw error
  }
  if (stopping !== undefined) return

  ready = true
  await describe()
  await pointToCluster(disk, environment, join(data, 'cluster.json'))
  const dfs = commandName()
  process.stdout.write(`natsdfs is ready.

  NATS       ${natsUrl}   (credentials in ${join(data, 'credentials')})
  FastDFS    tracker_server = ${trackers[0]!.host}:${trackers[0]!.port}
  data       ${data}

Try:
  ${dfs} upload README.md
  ${dfs} status
  ${dfs} doctor

Ctrl-C ends it.
`)

  async function startAll(): Promise<void> {
    const secrets = await ensureSecrets(world, data, { groups, servers: natsUrls })
    const binary = await findNatsServer(disk, {
      configured: environment.natsServer,
      searchPath: environment.searchPath,
      home: environment.home,
    })
    const template = await readText(disk, fileURLToPath(new URL('../../nats-server.conf', import.meta.url)))
    if (template === undefined) throw new Error('nats-server.conf is missing beside the program')
    nats = await startNatsServer(world, timers, {
      binary,
      template,
      directory: join(data, 'nats'),
      name: 'dfs',
      host: flags.bind,
      port: ports.nats,
      monitorPort: ports.monitor,
      groups,
      passwords: secrets.passwords,
      events: {
        onLine: (_, line, stream) => note('nats-server', line, stream),
        onReady: () => void describe(),
      },
    })
    const credentials = (user: string) => ['--credentials', credentialsPath(data, user)]
    const address = (port: number) => [
      ...['--bind', flags.bind, '--advertise', advertise!, '--port', String(port)],
      ...flags.allowHosts.flatMap(pattern => ['--allow-hosts', pattern]),
    ]
    await Promise.all([
      ...trackers.map(({ id, port }) =>
        start(id, ['tracker', '--id', id, ...credentials('tracker'), ...address(port)]),
      ),
      ...storages.map(({ id, group, port, dataDir }) =>
        start(`storage-${id}`, [
          ...['storage', '--id', String(id), '--group', group, '--data', dataDir],
          ...credentials(`storage_${group}`),
          ...['--sync-credentials', credentialsPath(data, `sync_${group}`)],
          ...storeArguments(flags),
          ...address(port),
        ]),
      ),
      start('gateway-1', ['gateway', '--id', 'gateway-1', ...credentials('gateway')]),
    ])
    await untilJoined()
  }

  function start(name: string, args: readonly string[]): Promise<unknown> {
    const program = fileURLToPath(new URL('./dfs.js', import.meta.url))
    return supervisor.start(name, {
      program: process.execPath,
      args: [...(args[0] === 'storage' ? STORAGE_NODE_FLAGS : NODE_FLAGS), program, ...args, '--supervised'],
    })
  }

  /** Ready means that an upload would work: every storage server has been accepted and is active. */
  async function untilJoined(): Promise<void> {
    const client = await connect({ credentials: credentialsPath(data, 'client'), name: 'dfs-up', world })
    try {
      const endMs = world.clock.monotonicMs() + JOIN_MS_MAX
      for (;;) {
        const status = await client.status().catch(() => undefined)
        const active = status?.storages.filter(({ online, report }) => online && report.status === 'active') ?? []
        const gateways = status?.roles.filter(({ role }) => role === 'gateway') ?? []
        if (active.length === storages.length && gateways.length > 0) return
        if (stopping !== undefined) return
        if (world.clock.monotonicMs() > endMs) {
          const reasons = status?.storages.map(({ report }) => `${report.storageId}: ${report.reason ?? report.status}`)
          throw new Error(
            `the storage servers did not all become active (${reasons?.join('; ') ?? 'no tracker answers'})`,
          )
        }
        await timers.sleep(JOIN_POLL_MS)
      }
    } finally {
      await client.close()
    }
  }

  async function describe(): Promise<void> {
    if (!ready || stopping !== undefined) return
    const pidOf = (name: string) => supervisor.status(name)?.pid ?? 0
    const cluster: ClusterFile = {
      ready,
      nats: natsUrl,
      credentials: Object.fromEntries(
        ['client', 'ops', 'gateway', 'tracker'].map(user => [user, credentialsPath(data, user)]),
      ),
      fastdfs: { tracker: `${trackers[0]!.host}:${trackers[0]!.port}` },
      trackers: trackers.map(tracker => ({ ...tracker, pid: pidOf(tracker.id) })),
      storages: storages.map(storage => ({ ...storage, pid: pidOf(`storage-${storage.id}`) })),
      gateway: { pid: pidOf('gateway-1') },
      natsServer: { pid: nats?.status()?.pid ?? 0 },
    }
    describing = describing
      .then(async () => {
        await writeClusterFile(disk, join(data, 'cluster.json'), cluster)
        if (flags.portsFile !== undefined) await writeClusterFile(disk, resolve(flags.portsFile), cluster)
      })
      .catch(error => void process.stderr.write(`dfs up: the cluster file cannot be written: ${error}\n`))
    await describing
  }

  function stop(): Promise<void> {
    stopping ??= (async () => {
      await supervisor.stop('gateway-1')
      await Promise.all(storages.map(({ id }) => supervisor.stop(`storage-${id}`)))
      await supervisor.stop()
      await nats?.stop()
      for (const log of logs.values()) await log.close()
      await lock.release()
      process.stdout.write('natsdfs has ended.\n')
    })()
    return stopping
  }

  function note(name: string, line: string, stream: 'stdout' | 'stderr'): void {
    const log = logs.get(name) ?? new LineLog(disk, join(data, 'logs', `${name}.log`))
    logs.set(name, log)
    log.add(line)
    if (stream === 'stderr' && (line.includes('"level":50') || line.includes('"level":60'))) {
      process.stderr.write(`${name}: ${line}\n`)
    }
  }

  async function choosePorts() {
    const { portBase } = flags
    const taken = new Set<number>()
    const any = () => pickPort(sockets, random, flags.bind, taken)
    const fixed = async (port: number, what: string) => {
      if (await isFree(sockets, flags.bind, port)) return port
      await lock.release()
      throw new Error(
        `port ${port} for ${what} is taken: choose others with --port-base, or any free ones with --port-base 0`,
      )
    }
    const row = async (count: number, first: number, what: string) => {
      const row: number[] = []
      for (let i = 0; i < count; i++)
        row.push(portBase === 0 ? await any() : await fixed(first + i, `${what} ${i + 1}`))
      return row
    }
    // A system's own nats-server often has the usual port; ours then takes another, and clients read which.
    const usual = portBase === undefined && (await isFree(sockets, flags.bind, NATS_PORT)) ? NATS_PORT : undefined
    const base = portBase ?? 0
    return {
      nats: base === 0 ? (usual ?? (await any())) : await fixed(base, 'nats-server'),
      monitor: base === 0 ? await any() : await fixed(base + MONITOR_OFFSET, "nats-server's monitoring"),
      trackers: await row(flags.trackers, portBase === undefined ? TRACKER_PORT : base + TRACKER_OFFSET, 'tracker'),
      storages: await row(
        members.length,
        portBase === undefined ? STORAGE_PORT : base + STORAGE_OFFSET,
        'storage server',
      ),
    }
  }

  async function lockData(directory: string): Promise<DiskLock> {
    try {
      return await disk.lock(directory)
    } catch (error) {
      if ((error as DiskError).errno !== 'EEXIST') throw error
      throw new Error(`${directory} is in use by another \`dfs up\``, { cause: error })
    }
  }
}

/** How the user can call us again. */
function commandName(): string {
  const script = process.argv[1] ?? 'dfs'
  return basename(script) === 'dfs' ? 'dfs' : `node ${relative(process.cwd(), script)}`
}
