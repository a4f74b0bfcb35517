/**
 * The scrub of one storage server: reads everything it keeps again and again, slowly, and says what is bad.
 *
 *     walk ──▶ suspect ──▶ second look ──▶ quarantine ──▶ looked at in each pass, until it is good or gone
 *     reads ──────┘
 *
 * One piece is under way at a time, and none is begun before the bytes of those before it are paid for.
 */
import type { CommonEffect, Step } from '../../runtime/actor.ts'
import { unreachable } from '../../runtime/actor.ts'
import type { Damage } from '../../store/quarantine.ts'
import { beginningOf, type FilePiece, type FileReading, type Verdict } from '../../store/scrub-file.ts'
import { PASS_START, type ScrubMark, type ScrubPosition } from '../../store/scrub-mark.ts'
import type { WalkPiece } from '../../store/scrub-walk.ts'

/** Bytes a second unless told: a terabyte in a day and a half, a small part of what any disk can do. */
export const SCRUB_BYTES_PER_SECOND = 8 * 1024 * 1024

/** A pass through less than fills this is not begun again sooner. */
export const PASS_MS_MIN = 3_600_000

/** A start has other things to do. */
const START_MS = 5_000
/** A piece that comes this much early is no burst: timers are not finer. */
const SLACK_MS = 10
const SAVE_MS = 60_000
/** What was read while it was written is whole by then. */
const SECOND_LOOK_MS = 1_000
/**
 * Looks at a file that its disk does not give, and the pause between them: about a minute, as sync tries. A checksum that
 * does not match needs no third look.
 */
const LOOKS_MAX = 12
const LOOK_PAUSE_MS = 5_000
/** After a bug of ours. */
const FAILED_MS = 10_000
/** More than that are found again, once there is room. */
export const SUSPECTS_MAX = 1000

/** A file that is to be looked at again before anything is said of it, or because it was bad. */
interface Suspect {
  readonly dueMs: number
  readonly looks: number
  /** It is in quarantine. */
  readonly isKnown: boolean
  /** Its slot does not say whether it was deleted: only a record that is still to come. */
  readonly waits: boolean
}

export interface ScrubState {
  /** `rest`: between two passes. */
  readonly position: ScrubPosition | { readonly phase: 'rest' }
  /** The file that is being read. */
  readonly file: FileReading | undefined
  /** It is a suspect. */
  readonly isLook: boolean
  readonly suspects: ReadonlyMap<string, Suspect>
  /** A piece is under way. */
  readonly busy: boolean
  /** Until then, what was read is being paid for. */
  readonly freeMs: number
  readonly passStartedMs: number
  readonly savedMs: number
  /** Since the start. */
  readonly passes: number
  readonly readBytes: number
}

export type ScrubMessage =
  | { type: 'next' }
  | { type: 'walked'; piece: WalkPiece }
  | { type: 'read'; piece: FilePiece }
  /** The names in quarantine. */
  | { type: 'recalled'; names: readonly string[] }
  /** Somebody could not read a file. */
  | { type: 'suspect'; name: string }
  | { type: 'failed' }

export type ScrubEffect =
  | { readonly do: 'walk'; readonly position: ScrubPosition }
  | { readonly do: 'read'; readonly file: FileReading }
  | { readonly do: 'recall' }
  | { readonly do: 'note'; readonly name: string; readonly damage: Damage }
  | { readonly do: 'forget'; readonly names: readonly string[] }
  | { readonly do: 'save'; readonly mark: ScrubMark }

type ScrubStep = Step<ScrubState, ScrubEffect | CommonEffect<ScrubMessage>>

export interface ScrubConfig {
  /** 0: nothing is walked, and only what others could not read is looked at. */
  readonly bytesPerSecond: number
  readonly passMsMin: number
  readonly mark: ScrubMark
}

/** The deciding half of the scrub. */
export function scrubBehaviour(config: ScrubConfig) {
  return {
    init: (nowMs: number): ScrubStep => begin(config, nowMs),
    step: (state: ScrubState, message: ScrubMessage, nowMs: number) => step(config, state, message, nowMs),
  }
}

/** What a next life goes on from. */
export function markOf({ position, file, isLook, suspects }: ScrubState): ScrubMark {
  return {
    position: position.phase === 'rest' ? PASS_START : position,
    file: isLook ? undefined : file,
    suspects: [...suspects].filter(([, { isKnown }]) => !isKnown).map(([name, { waits }]) => ({ name, waits })),
  }
}

function begin({ mark, bytesPerSecond }: ScrubConfig, nowMs: number): ScrubStep {
  const suspects = new Map(mark.suspects.map(({ name, waits }) => [name, newSuspect(nowMs, { waits })]))
  const state: ScrubState = {
    position: mark.position,
    file: bytesPerSecond === 0 ? undefined : mark.file,
    isLook: false,
    suspects: mark.position.phase === 'slots' ? suspects : allDue(suspects, nowMs),
    busy: false,
    freeMs: nowMs + START_MS,
    passStartedMs: nowMs,
    savedMs: nowMs,
    passes: 0,
    readBytes: 0,
  }
  return [state, [wait(START_MS)]]
}

function step(config: ScrubConfig, state: ScrubState, message: ScrubMessage, nowMs: number): ScrubStep {
  switch (message.type) {
    case 'next':
      return drive(config, state, nowMs)
    case 'walked':
      return walked(config, state, message.piece, nowMs)
    case 'read':
      return read(config, state, message.piece, nowMs)
    case 'recalled': {
      const suspects = new Map(state.suspects)
      for (const name of message.names) suspects.set(name, newSuspect(nowMs, { isKnown: true }))
      const done = { ...state, suspects, busy: false, position: { phase: 'rest' }, passes: state.passes + 1 } as const
      return drive(config, done, nowMs, [{ do: 'save', mark: markOf(done) }])
    }
    case 'suspect':
      return drive(config, withSuspect(state, message.name, newSuspect(nowMs + SECOND_LOOK_MS)), nowMs)
    case 'failed': {
      const name = state.isLook ? state.file?.name : undefined
      const failed = { ...withoutSuspects(state, name === undefined ? [] : [name]), file: undefined, busy: false }
      return drive(config, { ...failed, freeMs: nowMs + FAILED_MS }, nowMs)
    }
    default:
      return unreachable(message)
  }
}

/** Begins the next piece, if it is time. */
function drive(config: ScrubConfig, state: ScrubState, nowMs: number, effects: readonly ScrubEffect[] = []): ScrubStep {
  if (state.busy) return [state, effects]
  if (state.freeMs - nowMs > SLACK_MS) return [state, [...effects, wait(state.freeMs - nowMs)]]
  if (state.file !== undefined) return [{ ...state, busy: true }, [...effects, { do: 'read', file: state.file }]]
  const suspect = nextSuspect(state)
  if (suspect !== undefined && suspect.dueMs <= nowMs) {
    const file = beginningOf(suspect.name)
    return [{ ...state, file, isLook: true, busy: true }, [...effects, { do: 'read', file }]]
  }
  const { position } = state
  const passDueMs = state.passStartedMs + config.passMsMin
  const isOff = config.bytesPerSecond === 0
  if (isOff || (position.phase === 'rest' && nowMs < passDueMs)) {
    const dueMs = Math.min(suspect?.dueMs ?? Number.POSITIVE_INFINITY, isOff ? Number.POSITIVE_INFINITY : passDueMs)
    return [state, Number.isFinite(dueMs) ? [...effects, wait(dueMs - nowMs)] : effects]
  }
  switch (position.phase) {
    case 'rest': {
      const started = { ...state, position: PASS_START, passStartedMs: nowMs, busy: true }
      return [started, [...effects, { do: 'walk', position: PASS_START }]]
    }
    case 'known':
      return [{ ...state, busy: true }, [...effects, { do: 'recall' }]]
    default:
      return [{ ...state, busy: true }, [...effects, { do: 'walk', position }]]
  }
}

function walked(config: ScrubConfig, state: ScrubState, piece: WalkPiece, nowMs: number): ScrubStep {
  let next = withoutSuspects(paid(config, state, piece.bytes, nowMs), piece.deleted)
  for (const { name, verdict } of piece.found) next = withFirstLook(next, name, verdict, nowMs)
  const isNewPhase = piece.position.phase !== state.position.phase
  if (isNewPhase && state.position.phase === 'slots') next = { ...next, suspects: allDue(next.suspects, nowMs) }
  next = { ...next, position: piece.position, file: piece.file, isLook: false }
  const effects: ScrubEffect[] = []
  if (piece.deleted.length > 0) effects.push({ do: 'forget', names: piece.deleted })
  if (isNewPhase || nowMs - next.savedMs >= SAVE_MS) {
    next = { ...next, savedMs: nowMs }
    effects.push({ do: 'save', mark: markOf(next) })
  }
  return drive(config, next, nowMs, effects)
}

function read(config: ScrubConfig, state: ScrubState, { bytes, next, verdict }: FilePiece, nowMs: number): ScrubStep {
  const after = { ...paid(config, state, bytes, nowMs), file: next }
  const { file, isLook } = state
  if (next !== undefined || verdict === undefined || file === undefined) {
    // A large file takes hours: where it is read stands in the mark, too.
    if (isLook || nowMs - state.savedMs < SAVE_MS) return drive(config, after, nowMs)
    return drive(config, { ...after, savedMs: nowMs }, nowMs, [{ do: 'save', mark: markOf(after) }])
  }
  if (!isLook) return drive(config, withFirstLook(after, file.name, verdict, nowMs), nowMs)
  const [judged, effects] = withSecondLook(after, file.name, verdict, nowMs)
  return drive(config, { ...judged, isLook: false }, nowMs, effects)
}

/** What the walk has seen is not said before it was seen twice. */
function withFirstLook(state: ScrubState, name: string, verdict: Verdict, nowMs: number): ScrubState {
  switch (verdict.is) {
    case 'good':
    case 'gone':
    case 'away':
      return state
    case 'unclear':
      return withSuspect(state, name, newSuspect(nowMs, { waits: true }))
    case 'bad':
    case 'unreadable':
      return withSuspect(state, name, newSuspect(nowMs + SECOND_LOOK_MS))
    default:
      return unreachable(verdict)
  }
}

function withSecondLook(
  state: ScrubState,
  name: string,
  verdict: Verdict,
  nowMs: number,
): readonly [ScrubState, readonly ScrubEffect[]] {
  const suspect = state.suspects.get(name)
  const settled = withoutSuspects(state, [name])
  // A record has told meanwhile that it was deleted.
  if (suspect === undefined) return [settled, []]
  switch (verdict.is) {
    case 'good':
    case 'gone':
      return [settled, suspect.isKnown ? [{ do: 'forget', names: [name] }] : []]
    case 'away':
      return [settled, []]
    case 'unclear':
      // Whom nobody has waited for is left to the walk.
      return [settled, suspect.waits ? [{ do: 'note', name, damage: { part: 'slot' } }] : []]
    case 'bad': {
      const { is, ...damage } = verdict
      return [settled, [{ do: 'note', name, damage }]]
    }
    case 'unreadable': {
      const looks = suspect.looks + 1
      if (suspect.isKnown) return [settled, []]
      if (looks >= LOOKS_MAX) return [settled, [{ do: 'note', name, damage: { part: 'unreadable' } }]]
      return [withSuspect(settled, name, { ...suspect, looks, dueMs: nowMs + LOOK_PAUSE_MS }), []]
    }
    default:
      return unreachable(verdict)
  }
}

/** A piece is over: as long as its bytes cost, nothing is read. */
function paid(config: ScrubConfig, state: ScrubState, bytes: number, nowMs: number): ScrubState {
  const costMs = (bytes * 1000) / (config.bytesPerSecond || SCRUB_BYTES_PER_SECOND)
  const freeMs = Math.max(nowMs, state.freeMs) + costMs
  return { ...state, busy: false, freeMs, readBytes: state.readBytes + bytes }
}

function newSuspect(dueMs: number, { isKnown = false, waits = false } = {}): Suspect {
  return { dueMs: waits ? Number.POSITIVE_INFINITY : dueMs, looks: 0, isKnown, waits }
}

function withSuspect(state: ScrubState, name: string, suspect: Suspect): ScrubState {
  if (state.suspects.size >= SUSPECTS_MAX || state.suspects.has(name)) return state
  return { ...state, suspects: new Map(state.suspects).set(name, suspect) }
}

function withoutSuspects(state: ScrubState, names: readonly string[]): ScrubState {
  if (!names.some(name => state.suspects.has(name))) return state
  const suspects = new Map(state.suspects)
  for (const name of names) suspects.delete(name)
  return { ...state, suspects }
}

/** No record is to come any more that could say of them that they were deleted. */
function allDue(suspects: ScrubState['suspects'], nowMs: number): ScrubState['suspects'] {
  return new Map([...suspects].map(([name, suspect]) => [name, suspect.waits ? { ...suspect, dueMs: nowMs } : suspect]))
}

function nextSuspect({ suspects }: ScrubState): (Suspect & { name: string }) | undefined {
  let next: (Suspect & { name: string }) | undefined
  for (const [name, suspect] of suspects) {
    if (next === undefined || suspect.dueMs < next.dueMs) next = { ...suspect, name }
  }
  return next
}

function wait(delayMs: number): CommonEffect<ScrubMessage> {
  return { do: 'after', key: 'next', delayMs, message: { type: 'next' } }
}
