/** What the commands of all roles share: their flags, their life, their end. */
import { type Command, InvalidArgumentError, Option } from 'commander'
import { SUBJECT_PREFIX } from '../protocol/message.ts'
import type { Admits } from '../runtime/frame-server.ts'
import { type Log, type LogLevel, processLog } from '../runtime/log.ts'
import { allowHosts, readHostPattern } from '../runtime/real-allow-hosts.ts'
import { realEnvironment } from '../runtime/real-environment.ts'
import { realWorld } from '../runtime/real-world.ts'
import type { RoleContext, RunningRole } from '../runtime/role.ts'
import { Timers } from '../runtime/timers.ts'
import { parseNumber } from './sizes.ts'
import { VERSION } from './version.ts'

/** Told to a supervisor when a role is ready to serve. */
export type ReadyReport = Record<string, unknown>

/** Flags that every role has. */
export interface RoleFlags {
  readonly credentials: string
  readonly prefix: string
  readonly supervised?: boolean
}

/** Flags of a role with a port. */
export interface PortFlags extends RoleFlags {
  readonly bind: string
  readonly advertise?: string
  readonly port: number
  readonly allowHosts: readonly string[]
}

export function addRoleFlags(command: Command): Command {
  return command
    .requiredOption(
      '--credentials <file>',
      "this role's NATS credentials, as `dfs up` makes them in <data>/credentials",
    )
    .option('--prefix <token>', 'first token of every subject', SUBJECT_PREFIX)
    .addOption(new Option('--supervised', 'end when stdin closes').hideHelp())
}

export function addPortFlags(command: Command, port: number): Command {
  return addAllowHosts(addRoleFlags(command))
    .option('--bind <host>', 'address to listen on', '127.0.0.1')
    .option('--advertise <host>', 'name or address that others are told (default: the one bound)')
    .option('--port <n>', 'port to listen on, 0 for any free one', parseNumber(0, 65535), port)
}

export function addAllowHosts(command: Command): Command {
  return command.option(
    '--allow-hosts <pattern...>',
    'who may connect: an address, 10.0.1.[1-15,20], host[01-08].example.com, a network such as 10.0.0.0/8, * (default)',
    (pattern: string, before: readonly string[]) => {
      try {
        if (pattern !== '*') readHostPattern(pattern)
      } catch (error) {
        throw new InvalidArgumentError((error as Error).message)
      }
      return [...before, pattern]
    },
    [],
  )
}

/** Whom a port takes; undefined for everybody. */
export async function admitted({ world, log }: RoleContext, flags: PortFlags): Promise<Admits | undefined> {
  const admits = await allowHosts(flags.allowHosts, world.sockets, log)
  const own = await world.sockets.resolve(advertised(flags)).catch(() => undefined)
  if (own !== undefined && admits?.(own) === false) {
    log.warn({ host: own }, '--allow-hosts leaves out this host itself: what runs on it cannot connect')
  }
  return admits
}

/** What others are told to connect to. */
export function advertised(flags: PortFlags): string {
  if (flags.advertise !== undefined) return flags.advertise
  if (isEverywhere(flags.bind)) {
    throw new Error('--bind listens on every address: --advertise has to say which one others should use')
  }
  return flags.bind
}

/** Whether a host to listen on stands for all of a machine's addresses, and so for none to connect to. */
export function isEverywhere(host: string): boolean {
  return host === '0.0.0.0' || host === '::'
}

/** The log of a role. */
export function roleLog(name: string): Log {
  const level = (realEnvironment().logLevel ?? 'info') as LogLevel
  return processLog(level, { actor: name, pid: process.pid })
}

/**
 * Runs a role until a signal, or its supervisor's death, ends it. `start` is called again when the role asks for it.
 */
export async function runRole(
  name: string,
  flags: RoleFlags,
  start: (context: RoleContext) => Promise<{ role: RunningRole; report: ReadyReport }>,
): Promise<void> {
  const world = realWorld()
  const context: RoleContext = {
    world,
    timers: new Timers(world.clock),
    log: roleLog(name),
    prefix: flags.prefix,
    version: VERSION,
  }
  let ending = false
  let stop = async () => {}
  const end = () => {
    if (ending) return
    ending = true
    void stop()
  }
  process.on('SIGTERM', end)
  process.on('SIGINT', end)
  if (flags.supervised) process.stdin.on('end', end).on('error', end).resume()
  process.on('unhandledRejection', error => {
    context.log.fatal({ err: error }, 'a rejection that nobody handled')
    process.exit(70)
  })

  for (;;) {
    const { role, report } = await start(context)
    stop = () => role.stop()
    process.stdout.write(`${JSON.stringify({ ready: true, role: name, pid: world.processes.pid, ...report })}\n`)
    if (ending) void role.stop()
    if ((await role.ended) === 'stopped') break
  }
  // Whatever still waits, for a NATS that never came or a supervisor's pipe, waits for nothing.
  process.exit(0)
}
