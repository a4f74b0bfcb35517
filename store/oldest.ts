/**
 * The oldest key of a map that is used as a queue. To look for it from the beginning each time passes over all places where
 * keys were taken out, thousands of them before the map is made anew: whoever takes them one after another goes on.
 */
export class Oldest<K> {
  readonly #map: ReadonlyMap<K, unknown>
  #keys: Iterator<K>

  constructor(map: ReadonlyMap<K, unknown>) {
    this.#map = map
    this.#keys = map.keys()
  }

  /** The next one, which is to be taken out, or set again behind all others; undefined if there is none. */
  next(): K | undefined {
    const next = this.#keys.next()
    if (!next.done) return next.value
    this.#keys = this.#map.keys()
    return this.#keys.next().value
  }
}
