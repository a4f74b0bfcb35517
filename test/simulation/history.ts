/**
 * What happened to one name that may change, and whether it can have happened: its operations in the order in which they
 * were asked for and answered, of which some order has to explain all answers.
 *
 *     |--- append 7 ---|                                  acknowledged: has happened, at some moment in between
 *            |------- modify 8 ----------- - - - - - -    nobody knows: happens at any moment since, or never
 *                        |-- read --|                     is what some moment in between has shown
 *
 * The search goes from answer to answer, with all states that there may be: before an answer counts, any of the operations
 * that are open may happen, in any order. Source: Wing and Gong, "Testing and verifying concurrent objects".
 */
import { crc32 } from '@node-rs/crc32'

/** What is under a name. */
export interface FileState {
  /** Undefined if there is no file. */
  readonly content: Buffer | undefined
  /** As `metadataText` gives it. */
  readonly metadata: string
}

/** What an operation makes of a state; undefined where it cannot have been acknowledged. */
export type Apply = (state: FileState) => FileState | undefined

/** Whether a state explains an answer. */
export type Explains = (state: FileState) => boolean

export const NOTHING: FileState = { content: undefined, metadata: '' }

/** Operations whose outcome nobody knows: with more of them a name is left alone, for all their orders have to be tried. */
const UNKNOWN_MAX = 4
/** More states at once than any history has: a search that does not end says nothing. */
const STATES_MAX = 20_000

export interface Operation {
  what: string
  apply: Apply
  /** Whoever asked has gone, or was told nothing. */
  isLost: boolean
}

type Step = { readonly begins: Operation } | { readonly ends: Operation }

/** Before an answer: what may be there, and which of the open operations have led to it. */
interface Possibility {
  readonly state: FileState
  readonly done: ReadonlySet<Operation>
}

export class History {
  readonly fileId: string
  readonly group: string
  readonly name: string
  readonly source: number
  readonly kind: 'appender' | 'slave' | 'plain'
  readonly #first: FileState
  readonly #steps: Step[] = []
  readonly #open = new Set<Operation>()
  /** What was last acknowledged as its size, as somebody who writes it may guess. */
  sizeBytes: number
  /** The numbers of all operations that have written. */
  readonly writers = new Set<number>()
  /** Nobody uses it any more. */
  isOver = false

  constructor(
    id: { fileId: string; group: string; name: string; source: number; kind: History['kind'] },
    first: FileState,
  ) {
    this.fileId = id.fileId
    this.group = id.group
    this.name = id.name
    this.source = id.source
    this.kind = id.kind
    this.#first = first
    this.sizeBytes = first.content?.length ?? 0
  }

  /** Operations that have been asked for and not answered, or never will be. */
  get open(): number {
    return this.#open.size
  }

  get isUsable(): boolean {
    return !this.isOver && [...this.#open].filter(({ isLost }) => isLost).length < UNKNOWN_MAX
  }

  /** An operation is asked for. From now on it may happen. */
  begin(what: string, apply: Apply): Operation {
    const operation: Operation = { what, apply, isLost: false }
    this.#open.add(operation)
    this.#steps.push({ begins: operation })
    return operation
  }

  /** It was acknowledged. */
  end(operation: Operation, apply = operation.apply): void {
    operation.apply = apply
    this.#open.delete(operation)
    this.#steps.push({ ends: operation })
  }

  /** It was answered, and surely has not happened; if it was refused for what was there, that has been seen. */
  refuse(operation: Operation, explains: Explains | undefined): void {
    this.#open.delete(operation)
    if (explains !== undefined) this.end(operation, state => (explains(state) ? state : undefined))
    else this.#steps.splice(0, this.#steps.length, ...this.#steps.filter(step => operationOf(step) !== operation))
  }

  /** Nobody will ever be told whether it has happened. */
  lose(operation: Operation): void {
    operation.isLost = true
  }

  /** Somebody who only looks has gone. */
  forget(operation: Operation): void {
    if (this.#open.has(operation)) this.refuse(operation, undefined)
  }

  /** Looks for an order that explains all answers. Returns the first answer that none explains, or what may be there now. */
  check(): { readonly wrong: string } | { readonly states: readonly FileState[] } {
    const open = new Set<Operation>()
    let possible: Possibility[] = [{ state: this.#first, done: new Set() }]
    for (const step of this.#steps) {
      if ('begins' in step) {
        open.add(step.begins)
        continue
      }
      const { ends } = step
      const next = reach(possible, open, ends)
      if (next.length === 0) {
        const before = possible.slice(0, 8).map(({ state }) => tell(state))
        return { wrong: `${ends.what}: nothing explains that after ${before.join(', or ')}` }
      }
      open.delete(ends)
      possible = next.map(({ state, done }) => ({ state, done: without(done, ends) }))
    }
    const states = reach(possible, open, undefined).map(({ state }) => state)
    return { states: [...new Map(states.map(state => [keyOf(state), state])).values()] }
  }
}

/** All that open operations make of what is possible: those where `wanted` has happened, or all. */
function reach(from: readonly Possibility[], open: ReadonlySet<Operation>, wanted: Operation | undefined) {
  const numbers = new Map([...open].map((operation, i) => [operation, i]))
  const keyOfAll = ({ state, done }: Possibility) =>
    `${keyOf(state)} ${[...done].map(operation => numbers.get(operation)).sort()}`
  const seen = new Map(from.map(one => [keyOfAll(one), one]))
  const found: Possibility[] = []
  // What is added is looked at in its turn.
  for (const one of seen.values()) {
    if (wanted === undefined || one.done.has(wanted)) found.push(one)
    if (wanted !== undefined && one.done.has(wanted)) continue
    for (const operation of open) {
      if (one.done.has(operation)) continue
      const state = operation.apply(one.state)
      if (state === undefined) continue
      const next = { state, done: new Set(one.done).add(operation) }
      const key = keyOfAll(next)
      if (!seen.has(key)) seen.set(key, next)
    }
    if (seen.size > STATES_MAX) throw new Error(`${open.size} open operations have more than ${STATES_MAX} outcomes`)
  }
  return found
}

function operationOf(step: Step): Operation {
  return 'begins' in step ? step.begins : step.ends
}

function without(done: ReadonlySet<Operation>, gone: Operation): ReadonlySet<Operation> {
  const left = new Set(done)
  left.delete(gone)
  return left
}

const keys = new WeakMap<Buffer, string>()

function keyOf({ content, metadata }: FileState): string {
  if (content === undefined) return 'nothing'
  let key = keys.get(content)
  if (key === undefined) {
    key = `${content.length} ${crc32(content)}`
    keys.set(content, key)
  }
  return `${key} ${metadata}`
}

export function isSame(a: FileState, b: FileState): boolean {
  return keyOf(a) === keyOf(b)
}

/** Metadata as a text that is equal if it is. */
export function metadataText(metadata: Readonly<Record<string, string>>): string {
  return Object.entries(metadata)
    .map(entry => entry.join('='))
    .sort()
    .join(' ')
}

/** Each line of a content says who wrote it, and where it stands in what he wrote. */
const LINE_BYTES = 16

/** The bytes that an operation writes: lines with its number, the low digit first, so that a byte says most of it. */
export function stampedBytes(number: number, sizeBytes: number): Buffer {
  const who = number.toString(36).padStart(7, '0').split('').reverse().join('')
  const lines = Array.from(
    { length: Math.ceil(sizeBytes / LINE_BYTES) },
    (_, i) => `${who}:${String(i).padStart(7, '0')}\n`,
  )
  return Buffer.from(lines.join('')).subarray(0, sizeBytes)
}

/** Says for people what a state is. */
export function tell({ content, metadata }: FileState): string {
  if (content === undefined) return 'no file'
  const runs = runsOf(content).map(({ writer, lines }) => `#${writer} ${lines * LINE_BYTES}`)
  return `${content.length} bytes (${runs.join(' ')}) with {${metadata}}`
}

/** Who wrote the lines of a content, in runs of lines that follow each other; one between two runs may be of both. */
function runsOf(content: Buffer): { writer: number; lines: number }[] {
  const runs: { writer: number; lines: number; next: number }[] = []
  for (const [, who = '', line] of content.toString('latin1').matchAll(/([0-9a-z]{7}):(\d{7})\n/g)) {
    const writer = Number.parseInt(who.split('').reverse().join(''), 36)
    const last = runs.at(-1)
    if (last?.writer === writer && last.next === Number(line)) {
      last.lines++
      last.next++
    } else runs.push({ writer, lines: 1, next: Number(line) + 1 })
  }
  return runs
}

/** The first writer of more than a line who is none of a history's; undefined if all are. */
export function strangerIn(content: Buffer, { writers }: History): number | undefined {
  return runsOf(content).find(({ writer, lines }) => lines > 1 && !writers.has(writer))?.writer
}
