/** Randomness that a seed repeats: sfc32, 128 bits of state, a period no run comes near. */
import type { Random } from '../../runtime/world.ts'

export class SeededRandom implements Random {
  readonly #label: string
  readonly #state: Uint32Array

  /** Streams with different labels have nothing to do with each other. */
  constructor(label: string) {
    this.#label = label
    this.#state = new Uint32Array([hashText(label, 1), hashText(label, 2), hashText(label, 3), 1])
    for (let i = 0; i < 12; i++) this.#next()
  }

  /** A stream of its own: what one part of a simulation draws does not shift what another gets. */
  fork(name: string): SeededRandom {
    return new SeededRandom(`${this.#label}/${name}`)
  }

  below(limit: number): number {
    return Math.floor((this.#next() / 2 ** 32) * limit)
  }

  bytes(count: number): Buffer {
    const bytes = Buffer.alloc(count)
    for (let i = 0; i < count; i++) bytes[i] = this.#next() >>> 24
    return bytes
  }

  /** A real number in `[from, to)`. */
  between(from: number, to: number): number {
    return from + (this.#next() / 2 ** 32) * (to - from)
  }

  /** True once in `1 / probability` times. */
  chance(probability: number): boolean {
    return this.#next() / 2 ** 32 < probability
  }

  /** One of a list that is not empty. */
  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!
  }

  #next(): number {
    const state = this.#state
    const sum = (state[0]! + state[1]! + state[3]!) >>> 0
    state[3]! += 1
    state[0] = state[1]! ^ (state[1]! >>> 9)
    state[1] = (state[2]! + (state[2]! << 3)) >>> 0
    state[2] = ((state[2]! << 21) | (state[2]! >>> 11)) + sum
    return sum
  }
}

/** FNV-1a, 32 bits: quick, and good enough to tell two runs apart. */
export function hashText(text: string, hash = 0x811c9dc5): number {
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
  return hash >>> 0
}
