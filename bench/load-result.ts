/**
 * What a load generator says when it is done, as one line. The line is that of `fdfs_load`, so that ours and one in C
 * can stand in for each other:
 *
 *     dup size=4096 conc=8 ops=12000 errs=0 secs=3.00 ops_s=4000.0 MiB_s=15.62 p50=1.900ms p95=… p99=4.100ms max=9.0ms len=4096..4096
 */
import { percentile } from './statistics.ts'

export interface LoadResult {
  readonly operations: number
  readonly errors: number
  readonly seconds: number
  readonly p50Ms: number
  readonly p99Ms: number
  /** The smallest and the largest file that was sent or received. */
  readonly leastBytes: number
  readonly mostBytes: number
}

const LINE =
  /^(.*) conc=(\d+) ops=(\d+) errs=(\d+) secs=([\d.]+) ops_s=[\d.]+ MiB_s=[\d.]+ p50=([\d.]+)ms p95=[\d.]+ms p99=([\d.]+)ms max=[\d.]+ms len=(\d+)\.\.(\d+)$/m

/** Finds the line in what a generator has printed. Throws if it is not there: the generator has failed. */
export function parseLoadLine(text: string): LoadResult {
  const match = LINE.exec(text)
  if (match === null) throw new Error(`the generator gave no result: ${text.trim().slice(0, 500)}`)
  const [operations, errors, seconds, p50Ms, p99Ms, leastBytes, mostBytes] = match.slice(3).map(Number)
  return {
    operations: operations!,
    errors: errors!,
    seconds: seconds!,
    p50Ms: p50Ms!,
    p99Ms: p99Ms!,
    leastBytes: leastBytes!,
    mostBytes: mostBytes!,
  }
}

/** Counts one run's operations, and sums them up. Times are in milliseconds. */
export class LoadTally {
  operations = 0
  errors = 0
  #latencies = new Float64Array(1 << 16)
  #bytes = 0
  #leastBytes = Number.POSITIVE_INFINITY
  #mostBytes = 0

  add(latencyMs: number, bytes: number): void {
    if (this.operations === this.#latencies.length) {
      const wider = new Float64Array(this.#latencies.length * 2)
      wider.set(this.#latencies)
      this.#latencies = wider
    }
    this.#latencies[this.operations++] = latencyMs
    this.#bytes += bytes
    if (bytes < this.#leastBytes) this.#leastBytes = bytes
    if (bytes > this.#mostBytes) this.#mostBytes = bytes
  }

  /** The line of a run that took `seconds`. */
  line(label: string, connections: number, seconds: number): string {
    const sorted = this.#latencies.subarray(0, this.operations).sort()
    const at = (share: number) => (this.operations === 0 ? 0 : percentile(sorted, share)).toFixed(3)
    const least = this.operations === 0 ? 0 : this.#leastBytes
    return [
      `${label} conc=${connections} ops=${this.operations} errs=${this.errors} secs=${seconds.toFixed(3)}`,
      `ops_s=${(this.operations / seconds).toFixed(1)} MiB_s=${(this.#bytes / seconds / 2 ** 20).toFixed(2)}`,
      `p50=${at(0.5)}ms p95=${at(0.95)}ms p99=${at(0.99)}ms max=${at(1)}ms len=${least}..${this.#mostBytes}`,
    ].join(' ')
  }
}
