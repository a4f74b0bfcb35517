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
 *
 * That the file comes into other hands is such an operation, too: whoever takes it over may not know of the last changes, as far
 * as nobody was told that a majority holds them. What its source had then is kept, and is there again when the source has
 * the file back, unless somebody has changed it in between.
 *
 *     source      a   ab   abc                      abc     or  abx
 *     another               └─▶ ab ──▶ abx?  ──────┘
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
  /** It was acknowledged as held by a majority of the group. */
  isHeld?: boolean
  /** Its source has told: which counts as long as nobody else ever had the file. */
  isOfSource?: boolean
  /** A change that was refused: which may have told of what its source kept, too. */
  isRefused?: boolean
  /** The file comes into other hands. */
  readonly reign?: Reign
}

/** Somebody orders the changes of a file from a moment on that lies between the two. */
export interface Reign {
  readonly orderer: number
  readonly begunMs: number
  readonly chosenMs: number
  /** So many of the last changes it may not have known of. */
  readonly lossMax: number
}

type Step = { readonly atMs: number } & ({ readonly begins: Operation } | { readonly ends: Operation })

/** What is there, and in whose hands it is. */
interface Standing {
  readonly state: FileState
  readonly orderer: number
  /** What the source has beside it. */
  readonly kept: FileState | undefined
}

/** What there was, and what has led to it. */
interface Past {
  readonly standing: Standing
  readonly by: Operation | undefined
}

/** Before an answer: what may be there, and which of the open operations have led to it. */
interface Possibility {
  readonly standing: Standing
  readonly done: ReadonlySet<Operation>
  /** What whoever comes next may still take for the last, the oldest first. */
  readonly trail: readonly Past[]
  /** Operations that have happened, and that whoever came next did not know of. */
  readonly lost: ReadonlySet<Operation>
}

export class History {
  readonly fileId: string
  readonly group: string
  readonly name: string
  readonly source: number
  readonly kind: 'appender' | 'slave' | 'plain'
  readonly #first: readonly FileState[]
  readonly #now: () => number
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
    /** What there was, the last of it for sure: what was before, another member may go back to. */
    first: readonly FileState[],
    now: () => number = () => 0,
  ) {
    this.fileId = id.fileId
    this.group = id.group
    this.name = id.name
    this.source = id.source
    this.kind = id.kind
    this.#first = first
    this.#now = now
    this.sizeBytes = first.at(-1)!.content?.length ?? 0
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
    this.#steps.push({ atMs: this.#now(), begins: operation })
    return operation
  }

  /** It was acknowledged. */
  end(operation: Operation, apply = operation.apply): void {
    operation.apply = apply
    this.#open.delete(operation)
    this.#steps.push({ atMs: this.#now(), ends: operation })
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

  /**
   * Looks for an order that explains all answers. Returns the first answer that none explains, or what may be there now.
   * `reigns` are in order, and end before now.
   */
  check(reigns: readonly Reign[] = []): { readonly wrong: string } | { readonly states: readonly FileState[] } {
    const open = new Set<Operation>()
    const past = this.#first.map(state => ({
      standing: { state, orderer: this.source, kept: undefined },
      by: undefined,
    }))
    const rules = { history: this, trailMax: 1 + Math.max(0, ...reigns.map(({ lossMax }) => lossMax)) }
    const trail = past.slice(-rules.trailMax)
    let possible: Possibility[] = [{ standing: trail.at(-1)!.standing, done: new Set(), trail, lost: new Set() }]
    for (const step of this.#stepsWith(reigns)) {
      if ('begins' in step) {
        open.add(step.begins)
        continue
      }
      const { ends } = step
      const next = reach(rules, possible, open, ends)
      if (next.length === 0) {
        const before = possible.slice(0, 8).map(({ standing }) => tellStanding(standing, this.source))
        return { wrong: `${ends.what}: nothing explains that after ${before.join(', or ')}` }
      }
      open.delete(ends)
      possible = next.map(one => ({
        ...one,
        done: without(one.done, ends),
        lost: without(one.lost, ends),
        trail: ends.isHeld === true ? since(one.trail, ends) : one.trail,
      }))
    }
    const states = reach(rules, possible, open, undefined).map(({ standing }) => standing.state)
    return { states: [...new Map(states.map(state => [keyOf(state), state])).values()] }
  }

  #stepsWith(reigns: readonly Reign[]): readonly Step[] {
    if (reigns.length === 0) return this.#steps
    const steps = this.#steps.filter(step => operationOf(step).isOfSource !== true)
    for (const reign of reigns) {
      const what = `${reign.orderer} orders from ${reign.begunMs.toFixed(1)} to ${reign.chosenMs.toFixed(1)} ms on`
      const operation: Operation = { what, apply: () => undefined, isLost: false, reign }
      insert(steps, { atMs: reign.begunMs, begins: operation })
      insert(steps, { atMs: reign.chosenMs, ends: operation })
    }
    return steps
  }
}

interface Rules {
  readonly history: Pick<History, 'source' | 'kind'>
  readonly trailMax: number
}

/** All that open operations make of what is possible: those where `wanted` has happened, or all. */
function reach(
  rules: Rules,
  from: readonly Possibility[],
  open: ReadonlySet<Operation>,
  wanted: Operation | undefined,
): Possibility[] {
  const numbers = new Map([...open].map((operation, i) => [operation, i]))
  const listOf = (some: ReadonlySet<Operation>) => [...some].map(operation => numbers.get(operation)).sort()
  const keyOfAll = ({ standing, done, trail, lost }: Possibility) =>
    [
      keyOfStanding(standing),
      listOf(done),
      listOf(lost),
      ...trail.map(({ standing, by }) => `${keyOfStanding(standing)} ${by && numbers.get(by)}`),
    ].join('|')
  const seen = new Map(from.map(one => [keyOfAll(one), one]))
  const found: Possibility[] = []
  // What is added is looked at in its turn.
  for (const one of seen.values()) {
    if (wanted === undefined || one.done.has(wanted)) {
      // What a majority holds is lost to nobody.
      if (wanted?.isHeld !== true || !one.lost.has(wanted)) found.push(one)
      if (wanted !== undefined) continue
    }
    for (const operation of open) {
      if (one.done.has(operation)) continue
      for (const after of outcomes(rules, one, operation, open)) {
        const next = { ...after, done: new Set(one.done).add(operation) }
        const key = keyOfAll(next)
        if (!seen.has(key)) seen.set(key, next)
      }
    }
    if (seen.size > STATES_MAX) throw new Error(`${open.size} open operations have more than ${STATES_MAX} outcomes`)
  }
  return found
}

/** What may be there after an operation. */
function outcomes(rules: Rules, one: Possibility, operation: Operation, open: ReadonlySet<Operation>): Possibility[] {
  const { standing } = one
  const { history, trailMax } = rules
  if (operation.reign !== undefined) return successions(rules, one, operation.reign, open)
  const { state, orderer, kept } = standing
  const next = operation.apply(state)
  const found: Possibility[] = []
  // Nothing has changed.
  if (next === state) found.push(one)
  else if (next !== undefined) {
    const after = { state: next, orderer, kept: history.kind === 'plain' && kept === NOTHING ? kept : undefined }
    const trail = [...one.trail, { standing: after, by: operation }].slice(-trailMax)
    found.push({ ...one, standing: after, trail })
  }
  if (operation.isRefused === true && kept !== undefined && operation.apply(kept) !== undefined) found.push(one)
  // Its source deletes a file that never changes, whoever orders what else becomes of it.
  if (history.kind === 'plain' && orderer !== history.source && next === NOTHING) {
    const after = { state, orderer, kept: NOTHING }
    const trail = one.trail.map(past => ({ ...past, standing: { ...past.standing, kept: NOTHING } }))
    found.push({ ...one, standing: after, trail })
  }
  return found
}

/** What may be there when somebody has taken a file over. */
function successions(
  { history }: Rules,
  one: Possibility,
  { orderer, lossMax }: Reign,
  open: ReadonlySet<Operation>,
): Possibility[] {
  const { trail } = one
  if (one.standing.orderer === orderer) return [one]
  const isBack = orderer === history.source
  const found: Possibility[] = []
  for (let losses = 0; losses <= Math.min(lossMax, trail.length - 1); losses++) {
    const at = trail.length - 1 - losses
    const { standing } = trail[at]!
    const mayKeep = one.standing.orderer === history.source && losses > 0
    const after = {
      state: isBack ? (standing.kept ?? standing.state) : standing.state,
      orderer,
      kept: isBack ? undefined : mayKeep ? one.standing.state : standing.kept,
    }
    const lost = new Set(one.lost)
    for (const { by } of trail.slice(at + 1)) if (by !== undefined && open.has(by)) lost.add(by)
    found.push({ ...one, standing: after, trail: [{ standing: after, by: undefined }], lost })
  }
  return found
}

/** From an operation on, if it is there. */
function since(trail: readonly Past[], operation: Operation): readonly Past[] {
  const at = trail.findIndex(({ by }) => by === operation)
  return at < 0 ? trail : trail.slice(at)
}

/** Puts a step in its place; what begins comes first, what ends last. */
function insert(steps: Step[], step: Step): void {
  const at = steps.findIndex(({ atMs }) => ('begins' in step ? atMs >= step.atMs : atMs > step.atMs))
  steps.splice(at < 0 ? steps.length : at, 0, step)
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

function keyOfStanding({ state, orderer, kept }: Standing): string {
  return `${keyOf(state)} ${orderer} ${kept === undefined ? '' : keyOf(kept)}`
}

function tellStanding({ state, orderer, kept }: Standing, source: number): string {
  const by = orderer === source ? '' : ` ordered by ${orderer}`
  return `${tell(state)}${by}${kept === undefined ? '' : `, its source has kept ${tell(kept)}`}`
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
