/** Runs seeds in several processes, for there is no other way to use all cores and to plant a bug in one run only. */
import { type ChildProcess, fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import type { SeedRequest } from './seed-process.ts'
import type { Outcome } from './simulate.ts'

const PROGRAM = fileURLToPath(new URL('./seed-process.js', import.meta.url))

export class SeedPool {
  readonly #idle: ChildProcess[] = []
  readonly #waiting: ((child: ChildProcess) => void)[] = []
  readonly #children: ChildProcess[]

  constructor(processes: number, bug?: string) {
    this.#children = Array.from({ length: processes }, () => {
      const child = fork(PROGRAM, bug === undefined ? [] : [bug], { execArgv: ['--enable-source-maps'] })
      child.once('message', () => this.#release(child))
      return child
    })
  }

  /** Runs one seed, when a process is free. Rejects if the process ends over it. */
  async run(request: Partial<SeedRequest> & { seed: number }): Promise<Outcome> {
    const child = this.#idle.pop() ?? (await new Promise<ChildProcess>(resolve => this.#waiting.push(resolve)))
    return new Promise((resolve, reject) => {
      const ended = (code: number | null) => reject(new Error(`seed ${request.seed} ended its process with ${code}`))
      child.once('exit', ended)
      child.once('message', outcome => {
        child.off('exit', ended)
        this.#release(child)
        resolve(outcome as Outcome)
      })
      child.send({ withoutFaults: [], withoutOperations: [], ...request })
    })
  }

  close(): void {
    for (const child of this.#children) child.disconnect()
  }

  #release(child: ChildProcess): void {
    const next = this.#waiting.shift()
    if (next !== undefined) next(child)
    else this.#idle.push(child)
  }
}
