/** What commands say, and how they end: exit codes, error lines, numbers as people read them. */
import { getSystemErrorMap } from 'node:util'
import { DfsError, ERRORS, LocalError } from '../client/index.ts'
import { realEnvironment } from '../runtime/real-environment.ts'

export const DONE = 0
export const FAILED = 1
export const USAGE = 2
export const NOT_FOUND = 3
export const UNAVAILABLE = 4
export const SOME_FAILED = 5
/** What shells give a program that a signal ended, without the signal's number. */
export const SIGNALLED = 128
const SIGPIPE = 13

/** Shown by `dfs --help`. */
export const EXIT_CODES_HELP = `
Exit codes:
  0  done
  1  failed
  2  the command line is wrong, or a file id is malformed
  3  there is no such file or group
  4  the cluster, or the part of it that is needed, cannot be reached
  5  some of several files failed, others did not
  130  interrupted by Ctrl-C`

/** The command line asks for something that makes no sense. */
export class UsageError extends Error {}

/** A signal, or a reader of our output that went away, ended the command early. */
export class Interrupted extends Error {
  readonly exitCode: number
  constructor(message: string, exitCode: number) {
    super(message)
    this.exitCode = exitCode
  }
}

/** Whoever read our standard output has gone. */
export class OutputClosed extends Interrupted {
  constructor() {
    super('nobody reads the output any more', SIGNALLED + SIGPIPE)
  }
}

/** The exit code for one failure. */
export function exitCodeOf(error: unknown): number {
  if (error instanceof Interrupted) return error.exitCode
  if (error instanceof UsageError) return USAGE
  if (!(error instanceof DfsError)) return FAILED
  switch (ERRORS[error.code].status) {
    case 400:
      return USAGE
    case 404:
      return NOT_FOUND
    case 503:
    case 504:
      return UNAVAILABLE
    default:
      return FAILED
  }
}

/** The exit code for several files, given that of each. */
export function exitCodeOfAll(codes: readonly number[]): number {
  const different = new Set(codes)
  if (different.size === 0) return DONE
  if (different.size === 1) return codes[0]!
  return different.has(DONE) ? SOME_FAILED : FAILED
}

/** `dfs: <what>: <reason> (<code>; trying again may help)`; `what` is left out where the reason names it. */
export function errorLine(what: string, error: unknown): string {
  const reason = reasonOf(error)
  const isNamed = what === '' || (error instanceof LocalError && reason.includes(what))
  const subject = isNamed ? '' : `${what}: `
  const hint = error instanceof DfsError ? ` (${error.code}${error.retryable ? '; trying again may help' : ''})` : ''
  return `dfs: ${subject}${reason}${hint}`
}

/** Says on stderr what failed; with its stack if `DFS_LOG=debug`. */
export function printError(what: string, error: unknown): void {
  process.stderr.write(`${errorLine(what, error)}\n`)
  if (realEnvironment().logLevel === 'debug') console.error(error)
}

/** Ends the program because of an error that nobody expected to handle. */
export function failWith(error: unknown): void {
  printError('', error)
  process.exit(exitCodeOf(error))
}

/** Prints a line of results. */
export function printLine(text: string): void {
  process.stdout.write(`${text}\n`)
}

/** Prints a result as one line of JSON. */
export function printJson(value: object): void {
  printLine(JSON.stringify(value))
}

/** Enough to keep several storage servers busy; more would only hold more buffers. */
const SIDE_BY_SIDE_MAX = 16

/** How several items are worked on. */
export interface EachOptions<T> {
  readonly signal: AbortSignal
  /** What an item is called when it fails. */
  readonly nameOf: (item: T) => string
  /** Wraps whatever is written, for those who share the terminal. */
  readonly aside?: (write: () => void) => void
}

/**
 * Works on items side by side and prints the results in the order of the items; one that fails is reported and stops no
 * other. Resolves with the exit code. After an abort nothing is begun any more, what was done is still printed, and it
 * rejects with the signal's reason.
 */
export async function eachInOrder<T, R>(
  items: readonly T[],
  { signal, nameOf, aside = write => write() }: EachOptions<T>,
  work: (item: T) => Promise<R>,
  print: (result: R) => void,
): Promise<number> {
  const reports: (() => void)[] = []
  const codes: number[] = []
  let begun = 0
  let printed = 0
  const workOn = async (item: T): Promise<() => void> => {
    try {
      const result = await work(item)
      codes.push(DONE)
      return () => print(result)
    } catch (error) {
      if (signal.aborted) return () => undefined
      codes.push(exitCodeOf(error))
      return () => printError(nameOf(item), error)
    }
  }
  const worker = async () => {
    while (begun < items.length && !signal.aborted) {
      const index = begun++
      reports[index] = await workOn(items[index]!)
      for (let report = reports[printed]; report !== undefined; report = reports[++printed]) aside(report)
    }
  }
  await Promise.all(Array.from({ length: SIDE_BY_SIDE_MAX }, worker))
  signal.throwIfAborted()
  return exitCodeOfAll(codes)
}

const BINARY_UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'] as const

/** `1.5 MiB`: three digits at most before the unit changes, one after the point while there are less than three. */
export function formatBytes(bytes: number): string {
  let value = bytes
  let unit = 0
  while (Math.round(value) >= 1000 && unit < BINARY_UNITS.length - 1) {
    value /= 1024
    unit++
  }
  const digits = unit > 0 && value < 99.95 ? 1 : 0
  return `${value.toFixed(digits)} ${BINARY_UNITS[unit]}`
}

/** `0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`. */
export function formatSeconds(seconds: number): string {
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`
  const whole = Math.round(seconds)
  if (whole < 60) return `${whole} s`
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`
  if (whole < 86_400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`
  return `${Math.floor(whole / 86_400)} d ${Math.floor((whole % 86_400) / 3600)} h`
}

/** Columns as wide as their widest cell, two spaces apart. */
export function formatTable(rows: readonly (readonly string[])[]): string {
  const widths: number[] = []
  for (const row of rows) for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, cell.length)
  return rows
    .map(
      row =>
        `${row
          .map((cell, i) => cell.padEnd(widths[i]!))
          .join('  ')
          .trimEnd()}\n`,
    )
    .join('')
}

/** `ENOENT` to `no such file or directory`. */
const SYSTEM_MESSAGES = new Map(getSystemErrorMap().values())

function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  if (error instanceof DfsError)
    return error.message === ERRORS[error.code].about ? asReason(error.message) : error.message
  if (!(error instanceof LocalError)) return error.message
  // What the system said about a file of the caller's is in the cause.
  const { errno, code } = (error.cause ?? {}) as { errno?: unknown; code?: unknown }
  const name = typeof errno === 'string' ? errno : code
  return typeof name === 'string' ? `${error.message}: ${SYSTEM_MESSAGES.get(name) ?? name}` : error.message
}

/** The table's sentence as a part of ours: `There is no such file: said ...` to `there is no such file`. */
function asReason(sentence: string): string {
  return sentence.charAt(0).toLowerCase() + sentence.slice(1).replace(/(:.*|\.)$/, '')
}
