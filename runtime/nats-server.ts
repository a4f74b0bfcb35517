/**
 * The nats-server that `dfs up` runs as its child. Everything of it is in one directory:
 *
 *     lock              held while we live: two servers on one store would corrupt it, and NATS does not notice
 *     nats-server.conf  made from the template for this version and these groups
 *     nats-server.pid   written by nats-server
 *     ports/            written by nats-server when it is ready, after JetStream has recovered
 *     store/            JetStream's; never deleted by us
 */
import { type ChildEvents, type ChildStatus, ChildSupervisor } from './child-supervisor.ts'
import { configureFor, type NatsSettings, natsEnvironment } from './nats-config.ts'
import { readText, writeText } from './text-file.ts'
import type { Timers } from './timers.ts'
import { type Disk, DiskError, type Processes, type Sockets, type World } from './world.ts'

/**
 * Turns into nats-server, so that its pid, its signals and its end are the child's own, and leaves a watcher behind that
 * kills it when stdin closes: when we die, even by kill -9. Our side of stdin also closes when nats-server ends first, so
 * the watcher never stays; it then signals a pid freed a moment ago, which the system will not have given out again.
 * The watcher survives what a terminal sends to everybody, and holds neither stdout nor stderr.
 */
const KEEPER = `
exec 3<&0
(
  trap '' HUP INT QUIT TERM
  while read -r line; do :; done
  kill -KILL $$
) <&3 >/dev/null 2>&1 &
exec "$@" </dev/null 3<&-
`

const NAME = 'nats-server'
/** A left-over server gets this long to close its store before it is killed. */
const LEFT_OVER_STOP_MS = 10_000
const POLL_MIN_MS = 10
/** JetStream's recovery may take minutes; a look at a directory is cheap. */
const POLL_MAX_MS = 250
const CONNECT_TIMEOUT_MS = 2_000

/** How to run a nats-server. */
export interface NatsServerOptions extends Omit<NatsSettings, 'storeDirectory'> {
  readonly binary: string
  /** The text of `nats-server.conf`. */
  readonly template: string
  /** Absolute, and this server's alone. */
  readonly directory: string
  readonly groups: readonly string[]
  /** Port 0 takes a free one, and keeps it over restarts. */
  readonly port: number
  readonly events?: ChildEvents
}

/** A running nats-server, restarted when it ends. */
export interface NatsServer {
  readonly url: string
  readonly version: string
  status(): ChildStatus | undefined
  stop(): Promise<void>
}

/**
 * Starts a nats-server and resolves when it accepts connections, however long its recovery takes. A server that an
 * earlier run left behind in the directory is stopped first. Rejects with the last lines of stderr if it ends before it
 * is ready, and if another process runs the server of this directory.
 */
export async function startNatsServer(
  world: Pick<World, 'processes' | 'disk' | 'sockets' | 'random'>,
  timers: Timers,
  options: NatsServerOptions,
): Promise<NatsServer> {
  const { disk, processes, sockets } = world
  const { directory, binary } = options
  const configPath = `${directory}/nats-server.conf`
  const pidPath = `${directory}/nats-server.pid`
  const portsDirectory = `${directory}/ports`
  const files = ['-c', configPath, '-P', pidPath]

  if (!directory.startsWith('/')) throw new RangeError(`directory: ${directory} is not absolute`)
  const version = await natsServerVersion(processes, binary)
  await disk.makeDirectory(portsDirectory)
  const lock = await disk.lock(directory).catch((cause: unknown) => {
    const held = cause instanceof DiskError && cause.errno === 'EEXIST'
    throw held ? new Error(`${directory}: another process runs this nats-server`, { cause }) : cause
  })
  const supervisor = new ChildSupervisor(world, timers, options.events)
  try {
    await writeText(disk, configPath, configureFor(options.template, version, options.groups))
    const port = options.port === 0 ? await freePort(sockets, options.host) : options.port
    const url = `nats://${hostInUrl(reachable(options.host))}:${port}`
    await supervisor.start(NAME, {
      program: '/bin/sh',
      args: ['-c', KEEPER, NAME, binary, ...files, '--ports_file_dir', portsDirectory],
      environment: natsEnvironment({ ...options, port, storeDirectory: `${directory}/store` }),
      stopSignal: 'SIGINT',
      async beforeStart() {
        await stopLeftOver()
        for (const name of await disk.list(portsDirectory)) await disk.remove(`${portsDirectory}/${name}`)
      },
      async whenReady(pid, running) {
        await poll(timers, async () => !running() || ((await publishedPorts(pid)) && (await accepts(port))))
        return { url }
      },
    })
    return {
      url,
      version,
      status: () => supervisor.status(NAME),
      async stop() {
        await supervisor.stop()
        await lock.release()
      },
    }
  } catch (error) {
    await lock.release()
    throw error
  }

  /** Whoever crashed and left a server behind also left its pid; the number may since be anybody's. */
  async function stopLeftOver(): Promise<void> {
    const pid = Number.parseInt((await readText(disk, pidPath)) ?? '', 10)
    const gone = async () => !(await isOurServer(pid))
    if (await gone()) return
    processes.signal(pid, 'SIGINT')
    if (await poll(timers, gone, LEFT_OVER_STOP_MS)) return
    processes.signal(pid, 'SIGKILL')
    if (await poll(timers, gone, LEFT_OVER_STOP_MS)) return
    throw new Error(`the nats-server with pid ${pid} uses ${directory} and does not end`)
  }

  async function isOurServer(pid: number): Promise<boolean> {
    if (!(pid > 1) || pid === processes.pid || !processes.alive(pid)) return false
    return (await processes.commandLine(pid)).includes(files.join(' '))
  }

  async function publishedPorts(pid: number): Promise<boolean> {
    // The rest of the name is the binary's.
    const name = (await disk.list(portsDirectory)).find(name => name.endsWith(`_${pid}.ports`))
    return name !== undefined && isJson(await readText(disk, `${portsDirectory}/${name}`))
  }

  async function accepts(port: number): Promise<boolean> {
    try {
      const socket = await sockets.connect({ host: reachable(options.host), port }, CONNECT_TIMEOUT_MS)
      socket.destroy()
      return true
    } catch {
      // Not yet; whether it ever will is for the end of the child to tell.
      return false
    }
  }
}

/** Where a nats-server may be. */
export interface NatsServerPlaces {
  /** Named by the user: this one or none. */
  readonly configured?: string | undefined
  /** The `PATH` to search. */
  readonly searchPath?: string | undefined
  /** The user's home directory, where `npm start` may have put one. */
  readonly home?: string | undefined
}

/** Debian's place is not on everybody's PATH. */
const USUAL_DIRECTORIES = ['/usr/sbin', '/usr/local/bin', '/opt/homebrew/bin']

/** Finds a nats-server. Rejects, saying where it looked, if there is none. */
export async function findNatsServer(disk: Disk, places: NatsServerPlaces): Promise<string> {
  const { configured, searchPath, home } = places
  const directories = [...(searchPath ?? '').split(':').filter(part => part !== ''), ...USUAL_DIRECTORIES]
  const paths = configured ? [configured] : directories.map(directory => `${directory}/nats-server`)
  for (const path of paths) {
    if ((await disk.stat(path))?.kind === 'file') return path
  }
  const cache = `${home}/.cache/natsdfs/bin`
  if (!configured && home !== undefined && (await disk.stat(cache))?.kind === 'directory') {
    const newest = (await disk.list(cache))
      .filter(name => name.startsWith('nats-server-v'))
      .sort(byVersion)
      .at(-1)
    if (newest !== undefined) return `${cache}/${newest}`
    paths.push(`${cache}/nats-server-v*`)
  }
  throw new Error(`there is no nats-server; looked for ${[...new Set(paths)].join(', ')}`)
}

/** Asks a nats-server for its version, such as `2.14.9`. */
export async function natsServerVersion(processes: Processes, binary: string): Promise<string> {
  const lines: string[] = []
  const child = processes.spawn(binary, ['--version'], { onLine: line => lines.push(line) })
  const exit = await child.exited
  const version = /^nats-server: v(\S+)$/m.exec(lines.join('\n'))?.[1]
  if (version === undefined) {
    throw new Error([`${binary} --version ended with ${exit.signal ?? `code ${exit.code}`}`, ...lines].join('\n'))
  }
  return version
}

/** Waits until `done`, or until time is up; returns which. */
async function poll(
  timers: Timers,
  done: () => Promise<boolean>,
  limitMs = Number.POSITIVE_INFINITY,
): Promise<boolean> {
  let waitedMs = 0
  for (let delayMs = POLL_MIN_MS; !(await done()); delayMs = Math.min(POLL_MAX_MS, delayMs * 2)) {
    if (waitedMs >= limitMs) return false
    await timers.sleep(delayMs)
    waitedMs += delayMs
  }
  return true
}

async function freePort(sockets: Sockets, host: string): Promise<number> {
  const listener = await sockets.listen({ host, port: 0 }, socket => socket.destroy())
  await listener.close()
  return listener.endpoint.port
}

/** An address that stands for all of a machine's is none to connect to. */
function reachable(host: string): string {
  return host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '::1' : host
}

function hostInUrl(host: string): string {
  return host.includes(':') ? `[${host}]` : host
}

function isJson(text: string | undefined): boolean {
  try {
    return typeof JSON.parse(text ?? '') === 'object'
  } catch {
    // It is still being written.
    return false
  }
}

function byVersion(a: string, b: string): number {
  return a.localeCompare(b, 'en', { numeric: true })
}
