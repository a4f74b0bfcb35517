/** One sync for all who wait: whoever asks while a sync is under way shares the next one. */
export class CoalescedSync {
  readonly #sync: () => Promise<void>
  #running: Promise<void> | undefined
  #next: Promise<void> | undefined

  /** `sync` makes durable everything that was written before it was called. */
  constructor(sync: () => Promise<void>) {
    this.#sync = sync
  }

  /** Resolves when a sync that began after this call has ended; rejects if that sync failed. */
  request(): Promise<void> {
    // The one that is under way may have begun before our write: it proves nothing to us.
    if (this.#running === undefined) return this.#begin()
    this.#next ??= this.#running.catch(ignore).then(() => {
      this.#next = undefined
      return this.#begin()
    })
    return this.#next
  }

  #begin(): Promise<void> {
    const run = this.#sync().finally(() => {
      if (this.#running === run) this.#running = undefined
    })
    this.#running = run
    return run
  }
}

/** The failure belongs to those who waited for that sync. */
function ignore(): void {}
