/**
 * One life of a process. When it ends, whatever it was waiting for never comes: the code of that process does not run
 * again, as after a `kill -9`. Disks, sockets and buses listen, to let go of what belonged to it.
 */

/** `killed`: the machine goes on, and its kernel closes what was open. `power`: the machine is dark, and says nothing. */
export type Death = 'killed' | 'power'

export class Life {
  /** `storage-3`. */
  readonly name: string
  /** The machine it runs on, which is also the host name and the address it is reached by. */
  readonly machine: string
  readonly #listeners = new Set<(how: Death) => void>()
  #ended = false

  constructor(name: string, machine: string) {
    this.name = name
    this.machine = machine
  }

  get ended(): boolean {
    return this.#ended
  }

  /** Calls back once, at the end. */
  onEnd(listener: (how: Death) => void): void {
    this.#listeners.add(listener)
  }

  end(how: Death): void {
    if (this.#ended) return
    this.#ended = true
    for (const listener of this.#listeners) listener(how)
    this.#listeners.clear()
  }
}
