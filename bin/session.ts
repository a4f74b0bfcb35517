/** What every command that talks to a cluster shares: how it finds the cluster, how Ctrl-C ends it, how it says good-bye. */
import { setMaxListeners } from 'node:events'
import { type Command, Option } from 'commander'
import { type Client, CONSISTENCIES, type Consistency, connect, type DfsError } from '../client/index.ts'
import { SUBJECT_PREFIX } from '../protocol/message.ts'
import { realWorld } from '../runtime/real-world.ts'
import { exitCodeOf, Interrupted, OutputClosed, printError, SIGNALLED, USAGE } from './output.ts'

/** Flags that say which cluster is meant. */
export interface ClusterFlags {
  readonly cluster?: string
  readonly credentials?: string
  readonly nats?: readonly string[]
  readonly prefix: string
  readonly json?: boolean
}

/** The same of a command that reads a file. */
export interface ReadFlags extends ClusterFlags {
  readonly consistency?: Consistency
}

/** A command under way. */
export interface Session {
  readonly client: Client
  /** Aborted by Ctrl-C, and when whoever reads our output has gone. */
  readonly signal: AbortSignal
}

/** What is mended within that, such as a server that restarts, needs no words; then they come now and then. */
const RETRY_NOTE_AFTER_MS = 2_000
const RETRY_NOTE_EVERY_MS = 10_000

const SIGNAL_NUMBERS = { SIGINT: 2, SIGTERM: 15 } as const

/** Makes a command that talks to a cluster; `--prefix` may mean something else to it. */
export function clusterCommand(
  program: Command,
  usage: string,
  about: string,
  examples: string,
  prefixFlag: '--prefix' | '--subject-prefix' = '--prefix',
): Command {
  return program
    .command(usage)
    .description(about)
    .option('--json', 'print JSON, one object a line')
    .addOption(
      inGroup('--cluster <file>', 'cluster file of a `dfs up` (default: $DFS_CLUSTER, or the cluster started last)'),
    )
    .addOption(inGroup('--credentials <file>', 'NATS credentials, instead of those that the cluster file names'))
    .addOption(
      inGroup('--nats <url>', 'NATS server, may be repeated (default: those in the credentials)').argParser(addTo),
    )
    .addOption(inGroup(`${prefixFlag} <token>`, 'first token of every subject').default(SUBJECT_PREFIX))
    .addHelpText('after', `\nExamples:\n${examples.trim().replaceAll(/^ */gm, '  ')}`)
    .exitOverride(error => process.exit(error.exitCode === 0 ? 0 : USAGE))
}

/** Connects as the flags say. */
export function connectAs(flags: ClusterFlags, user?: 'ops'): Promise<Client> {
  const { cluster, credentials, nats, prefix } = flags
  return connect({
    prefix,
    ...(user === undefined ? {} : { user }),
    name: 'dfs',
    ...(cluster === undefined ? {} : { clusterFile: cluster }),
    ...(credentials === undefined ? {} : { credentials }),
    ...(nats === undefined ? {} : { servers: nats }),
  })
}

/** Runs a command with a client; `work` returns the exit code. What it throws is printed as the failure of `what`. */
export async function withClient(
  flags: ClusterFlags,
  what: string,
  work: (session: Session) => Promise<number>,
  user?: 'ops',
): Promise<void> {
  const { signal } = interruptible()
  let client: Client | undefined
  let code: number
  try {
    client = await orAborted(signal, connectAs(flags, user))
    code = await work({ client, signal })
  } catch (error) {
    printError(what, error)
    code = exitCodeOf(error)
  }
  // What an interrupted transfer, or a failed attempt to connect, left under way may wait for ever.
  if (signal.aborted || client === undefined) process.exit(code)
  await client.close()
  process.exitCode = code
}

/** Turns the signals that ask this program to end into one that its work can hear; the second time they end it. */
export function interruptible(): { signal: AbortSignal } {
  const controller = new AbortController()
  // Every transfer under way listens.
  setMaxListeners(0, controller.signal)
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.once(name, () => controller.abort(new Interrupted('interrupted', SIGNALLED + SIGNAL_NUMBERS[name])))
  }
  process.stdout.on('error', error => {
    if ((error as NodeJS.ErrnoException).code !== 'EPIPE') printError('standard output', error)
    controller.abort(new OutputClosed())
  })
  return { signal: controller.signal }
}

/** Makes what tells people that something is tried again, and why. */
export function retryNotes(write: (line: string) => void): (what: string) => (error: DfsError) => void {
  const { clock } = realWorld()
  let nextMs = clock.monotonicMs() + RETRY_NOTE_AFTER_MS
  return what => error => {
    if (clock.monotonicMs() < nextMs) return
    nextMs = clock.monotonicMs() + RETRY_NOTE_EVERY_MS
    write(`dfs: ${what}: ${error.message} (${error.code}); trying again\n`)
  }
}

/** Adds what says how old an answer may be. A command is a session of its own, so it is `any` that `session` comes to here. */
export function readCommand(command: Command): Command {
  return command.addOption(
    new Option('--consistency <level>', "how old it may be; strong: what the file's source has, or nothing")
      .choices(CONSISTENCIES)
      .default('session'),
  )
}

function inGroup(flags: string, about: string): Option {
  return new Option(flags, about).helpGroup('Which cluster:')
}

function orAborted<T>(signal: AbortSignal, work: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason), { once: true })
    work.then(resolve, reject)
  })
}

function addTo(url: string, urls: readonly string[] | undefined): readonly string[] {
  return [...(urls ?? []), ...url.split(',')]
}
