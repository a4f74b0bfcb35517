/**
 * How far transfers have come, on stderr: on a terminal one bar for all of them, in a pipe a line now and then, and
 * nothing for what is over quickly.
 */
import cliProgress from 'cli-progress'
import type { Progress } from '../client/index.ts'
import { realWorld } from '../runtime/real-world.ts'
import { Timers } from '../runtime/timers.ts'
import type { Cancel, Clock } from '../runtime/world.ts'
import { formatBytes, formatSeconds } from './output.ts'

/** What is over before that needs no bar, and no line. */
const BAR_AFTER_MS = 300
const LINE_AFTER_MS = 2_000
const LINE_EVERY_MS = 10_000

const TICK_MS = 250
/** The rate is that of the last five seconds. */
const SAMPLES_MAX = 21
const BAR_CHARACTERS = 24

/** Where progress goes. */
export interface ProgressOutput {
  readonly isTTY?: boolean
  write(text: string): unknown
}

export interface ProgressOptions {
  readonly clock: Clock
  readonly timers: Timers
  readonly output: ProgressOutput
  readonly quiet: boolean
  /** Of all transfers together; without it, what they say themselves is added up. */
  readonly totalBytes?: number | undefined
}

interface Sample {
  readonly atMs: number
  readonly bytes: number
}

/** Of a command, on its stderr. */
export function commandProgress(quiet = false, totalBytes?: number): TransferProgress {
  const { clock } = realWorld()
  return new TransferProgress({ clock, timers: new Timers(clock), output: process.stderr, quiet, totalBytes })
}

export class TransferProgress {
  readonly #options: ProgressOptions
  readonly #transfers: Progress[] = []
  readonly #startMs: number
  #samples: readonly Sample[]
  #nextLineMs: number
  #bar: cliProgress.SingleBar | undefined
  #cancelTick: Cancel | undefined

  constructor(options: ProgressOptions) {
    this.#options = options
    this.#startMs = options.clock.monotonicMs()
    this.#samples = [{ atMs: this.#startMs, bytes: 0 }]
    this.#nextLineMs = this.#startMs + LINE_AFTER_MS
    if (!options.quiet) this.#tick()
  }

  /** Takes in one more transfer; call the result with how far it has come, also when it has begun again. */
  transfer(): (progress: Progress) => void {
    const index = this.#transfers.push({ bytes: 0, totalBytes: undefined }) - 1
    return progress => {
      this.#transfers[index] = progress
    }
  }

  /** Writes something else to the terminal that the bar may be on; the bar comes again below it. */
  aside(write: () => void): void {
    this.#clearBar()
    write()
  }

  /** Ends it; a bar vanishes. */
  stop(): void {
    this.#cancelTick?.()
    this.#clearBar()
  }

  #tick(): void {
    const { timers, clock, output } = this.#options
    this.#cancelTick = timers.set(TICK_MS, () => this.#tick())
    const nowMs = clock.monotonicMs()
    const bytes = this.#transfers.reduce((sum, transfer) => sum + transfer.bytes, 0)
    this.#samples = [...this.#samples, { atMs: nowMs, bytes }].slice(-SAMPLES_MAX)
    if (output.isTTY === true) {
      if (nowMs - this.#startMs >= BAR_AFTER_MS) this.#drawBar(bytes)
    } else if (nowMs >= this.#nextLineMs) {
      output.write(`dfs: ${this.#text(bytes)}\n`)
      this.#nextLineMs = nowMs + LINE_EVERY_MS
    }
  }

  #drawBar(bytes: number): void {
    const totalBytes = this.#totalBytes()
    const payload = { text: this.#text(bytes), hasTotal: totalBytes !== undefined }
    if (this.#bar === undefined) {
      this.#bar = new cliProgress.SingleBar({
        stream: this.#options.output as NodeJS.WritableStream,
        format: (options, { progress }, { text, hasTotal }: typeof payload) =>
          hasTotal ? `[${cliProgress.Format.BarFormat(progress, options)}] ${text}` : text,
        barsize: BAR_CHARACTERS,
        clearOnComplete: true,
        // Trims to the terminal's width, and changes no setting of the terminal that a crash would leave behind.
        linewrap: true,
      })
      this.#bar.start(totalBytes ?? 0, bytes, payload)
    }
    this.#bar.setTotal(totalBytes ?? 0)
    this.#bar.update(bytes, payload)
  }

  /** A bar ends by going back to where it began, so it must have ended before anything moves the cursor. */
  #clearBar(): void {
    this.#bar?.stop()
    this.#bar = undefined
  }

  #text(bytes: number): string {
    return progressText(bytes, this.#totalBytes(), rateOf(this.#samples))
  }

  #totalBytes(): number | undefined {
    if (this.#options.totalBytes !== undefined) return this.#options.totalBytes
    let sum = 0
    for (const { totalBytes } of this.#transfers) {
      if (totalBytes === undefined) return undefined
      sum += totalBytes
    }
    return this.#transfers.length === 0 ? undefined : sum
  }
}

/** `12.0 MiB of 40.0 MiB, 4.0 MiB/s, 7.0 s left`, or as much of it as is known. */
export function progressText(bytes: number, totalBytes: number | undefined, bytesPerSecond: number): string {
  const amount = totalBytes === undefined ? formatBytes(bytes) : `${formatBytes(bytes)} of ${formatBytes(totalBytes)}`
  const rate = `${formatBytes(bytesPerSecond)}/s`
  if (totalBytes === undefined || bytesPerSecond === 0) return `${amount}, ${rate}`
  return `${amount}, ${rate}, ${formatSeconds(Math.max(0, totalBytes - bytes) / bytesPerSecond)} left`
}

/** Bytes per second over some samples; a transfer that begins again goes back, which is no rate. */
function rateOf(samples: readonly Sample[]): number {
  const first = samples[0]!
  const last = samples.at(-1)!
  if (last.atMs === first.atMs) return 0
  return Math.max(0, ((last.bytes - first.bytes) * 1000) / (last.atMs - first.atMs))
}
