/** Things with the same key are done one after another, in the order they were asked for; all others at the same time. */
export class Turns {
  /** The last one of each key. */
  readonly #last = new Map<string, Promise<unknown>>()

  /** Does something when everything before it under its key is over, however that ended. */
  take<T>(key: string, work: () => Promise<T>): Promise<T> {
    const done = this.#last.get(key)?.then(work) ?? work()
    const over = done.then(ignore, ignore).then(() => {
      if (this.#last.get(key) === over) this.#last.delete(key)
    })
    this.#last.set(key, over)
    return done
  }
}

function ignore(): void {}
