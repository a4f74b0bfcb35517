/** Every process that the bench starts: servers, which run until they are stopped, and loads, which run to their end. */
import { fileURLToPath } from 'node:url'
import { ChildSupervisor, type ReadyReport } from '../runtime/child-supervisor.ts'
import type { Timers } from '../runtime/timers.ts'
import type { ChildProcess, World } from '../runtime/world.ts'

/** Tells programs of ours to end with us; see parent.ts. */
const ENVIRONMENT = { DFS_BENCH_CHILD: '1' }

export class Programs {
  readonly #world: World
  readonly #supervisor: ChildSupervisor
  readonly #loads = new Set<ChildProcess>()
  readonly #supervised = new Set<string>()
  #stopped = false

  constructor(world: World, timers: Timers) {
    this.#world = world
    this.#supervisor = new ChildSupervisor(world, timers, {
      onLine: (name, line, stream) => {
        const isBad = line.includes('"level":50') || line.includes('"level":60') || line.includes('restarting')
        if (stream === 'stderr' && isBad) process.stderr.write(`${name}: ${line}\n`)
      },
    })
  }

  /** Starts a program of Node's that says when it is ready. */
  async serve(name: string, args: readonly string[]): Promise<ReadyReport> {
    this.#assertRunning()
    this.#supervised.add(name)
    return this.#supervisor.start(name, { program: process.execPath, args, environment: ENVIRONMENT })
  }

  async stop(name: string): Promise<void> {
    this.#supervised.delete(name)
    await this.#supervisor.stop(name)
  }

  /** The pids of what is served, by name. */
  pids(): Record<string, number> {
    const pids = [...this.#supervised].map(name => [name, this.#supervisor.status(name)?.pid ?? 0] as const)
    return Object.fromEntries(pids.filter(([, pid]) => pid > 0))
  }

  /** Runs a program to its end; resolves with what it printed. Rejects if it fails. */
  async run(program: string, args: readonly string[]): Promise<string> {
    this.#assertRunning()
    const lines: string[] = []
    const onLine = (line: string) => void lines.push(line)
    const load = this.#world.processes.spawn(program, args, { environment: ENVIRONMENT, onLine })
    this.#loads.add(load)
    const exit = await load.exited
    this.#loads.delete(load)
    if (exit.code === 0) return lines.join('\n')
    throw new Error(`${[program, ...args].join(' ')} ended with ${exit.signal ?? exit.code}:\n${lines.join('\n')}`)
  }

  /** Ends all of them; nothing can be started afterwards. */
  async stopAll(): Promise<void> {
    this.#stopped = true
    for (const load of this.#loads) load.kill('SIGKILL')
    await this.#supervisor.stop()
  }

  #assertRunning(): void {
    if (this.#stopped) throw new Error('the bench is being stopped')
  }
}

/** The path of a program of the bench, once it is built. */
export function benchProgram(name: string): string {
  return fileURLToPath(new URL(`${name}.js`, import.meta.url))
}
