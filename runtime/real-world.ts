/** The World of a real machine. One of the few files that may touch clocks, randomness and processes. */
import { spawn as nodeSpawn } from 'node:child_process'
import { randomBytes, randomInt } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import { natsBusConnector } from './nats-bus.ts'
import { realDisk } from './real-disk.ts'
import { realSockets } from './real-sockets.ts'
import { Timers } from './timers.ts'
import type { ChildProcess, Clock, Processes, Random, SpawnOptions, World } from './world.ts'

/** Makes the World that the programs in `bin/` and users of the SDK run in. */
export function realWorld(): World {
  return {
    clock,
    random,
    disk: realDisk,
    sockets: realSockets,
    processes,
    connectBus: natsBusConnector(new Timers(clock), random),
  }
}

const clock: Clock = {
  wallMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  alarm(delayMs, ring) {
    const timer = setTimeout(ring, delayMs)
    return () => clearTimeout(timer)
  },
  turn: () => new Promise(resolve => setImmediate(resolve)),
}

const random: Random = {
  bytes: count => randomBytes(count),
  below: limit => randomInt(limit),
}

const processes: Processes = {
  pid: process.pid,
  spawn,
  alive(pid) {
    try {
      process.kill(pid, 0)
      return true
    } catch (error) {
      return (error as NodeJS.ErrnoException).code === 'EPERM'
    }
  },
  commandLine: async pid => {
    // Only Linux has this file; elsewhere a left-over child is not recognised, and so not touched.
    const text = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
    return text.replaceAll('\0', ' ').trim()
  },
  signal(pid, signal) {
    try {
      process.kill(pid, signal)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
    }
  },
}

function spawn(program: string, args: readonly string[], options: SpawnOptions): ChildProcess {
  const child = nodeSpawn(program, args, {
    stdio: ['pipe', 'pipe', 'pipe'],
    // In a group of its own: Ctrl-C on a terminal reaches us alone, and we end our children in order.
    detached: true,
    env: { ...process.env, ...options.environment },
  })
  // The pipe is never written to; a child that ends first must not turn it into an unhandled error.
  child.stdin.on('error', () => child.stdin.destroy())
  for (const stream of ['stdout', 'stderr'] as const) {
    createInterface({ input: child[stream] }).on('line', line => options.onLine?.(line, stream))
  }
  const exited = new Promise<{ code: number | undefined; signal: string | undefined }>(resolve => {
    child.on('error', () => resolve({ code: 127, signal: undefined }))
    child.on('close', (code, signal) => resolve({ code: code ?? undefined, signal: signal ?? undefined }))
  })
  return { pid: child.pid ?? -1, exited, kill: signal => void child.kill(signal) }
}
