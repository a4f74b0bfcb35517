/** A real nats-server for tests: a child on a random port of the loopback, gone with its directory when it ends. */
import { type ChildProcess, spawn } from 'node:child_process'
import { access, constants, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { homedir, tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'

/** Where a test reads a ports file again: a server writes it some 20 ms after its start. */
const PORTS_POLL_MS = 5
const START_MS_MAX = 10_000

/** A running, or for the moment stopped, server. */
export interface NatsServer {
  readonly url: string
  /** Kills the server; connections break. */
  stop(): Promise<void>
  /** Starts it again on the same port, with another configuration if one is given. */
  start(configuration?: string): Promise<void>
  /** Kills the server and removes all it left behind. */
  remove(): Promise<void>
}

/** Starts a server; `configuration` is added to a file that only sets where it listens. */
export async function startNatsServer(configuration = ''): Promise<NatsServer> {
  const program = await findNatsServer()
  const directory = await mkdtemp(join(tmpdir(), 'natsdfs-test-'))
  let port = -1
  let child: ChildProcess | undefined

  async function start(more = configuration): Promise<void> {
    const file = join(directory, 'nats-server.conf')
    await writeFile(file, `listen: "127.0.0.1:${port}"\n${more}\n`)
    const args = ['-c', file, '--ports_file_dir', directory, '--log', join(directory, 'log')]
    child = spawn(program, args, { stdio: 'ignore' })
    port = await readPort(child, directory)
  }

  async function stop(): Promise<void> {
    const ending = child
    child = undefined
    if (ending === undefined || ending.exitCode !== null || ending.signalCode !== null) return
    const exited = new Promise(resolve => ending.once('exit', resolve))
    ending.kill('SIGKILL')
    await exited
  }

  async function remove(): Promise<void> {
    await stop()
    await rm(directory, { recursive: true, force: true })
  }

  try {
    await start()
  } catch (error) {
    await remove()
    throw error
  }
  return { url: `nats://127.0.0.1:${port}`, start, stop, remove }
}

async function readPort(child: ChildProcess, directory: string): Promise<number> {
  const deadlineMs = Date.now() + START_MS_MAX
  while (Date.now() < deadlineMs && child.exitCode === null) {
    // It begins with the name of the binary, which may carry a version.
    const name = (await readdir(directory)).find(file => file.endsWith(`_${child.pid}.ports`))
    const text = name === undefined ? '' : await readFile(join(directory, name), 'utf8')
    // The file is there before its content is.
    if (text.endsWith('}')) return Number(new URL(JSON.parse(text).nats[0]).port)
    await new Promise(resolve => setTimeout(resolve, PORTS_POLL_MS))
  }
  throw new Error(`nats-server did not start:\n${await readFile(join(directory, 'log'), 'utf8').catch(String)}`)
}

async function findNatsServer(): Promise<string> {
  const given = process.env.DFS_NATS_SERVER
  const cache = join(homedir(), '.cache', 'natsdfs', 'bin')
  const cached = await readdir(cache).catch(() => [])
  const candidates = [
    ...(given === undefined ? [] : [given]),
    ...(process.env.PATH ?? '').split(delimiter).map(directory => join(directory, 'nats-server')),
    '/usr/sbin/nats-server',
    ...cached.map(name => join(cache, name)),
  ]
  for (const path of candidates) {
    const isFile = await stat(path).then(
      entry => entry.isFile(),
      () => false,
    )
    if (
      isFile &&
      (await access(path, constants.X_OK).then(
        () => true,
        () => false,
      ))
    )
      return path
  }
  throw new Error('no nats-server found: set DFS_NATS_SERVER or put one on the PATH')
}
