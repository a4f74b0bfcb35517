/**
 * `npm run bench -- [--quick] [--only upload,download,…]`: measures the servers of this repository beside yardsticks that
 * do nothing but answer. How to read what it says: docs/performance.md.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Command, InvalidArgumentError } from 'commander'
import { parseNumber, parseSize } from '../bin/sizes.ts'
import { realWorld } from '../runtime/real-world.ts'
import { Timers } from '../runtime/timers.ts'
import { type Durability, knowsDurability } from './cluster.ts'
import { describeMachine } from './machine.ts'
import { type Matrix, rowsOf } from './matrix.ts'
import { plot } from './plot.ts'
import { Programs } from './programs.ts'
import { headLines, type Report, rowLines, size } from './report.ts'
import { type Row, TOPICS, type Topic } from './row.ts'
import { OURS, TestBed } from './test-bed.ts'

interface Flags {
  readonly quick?: boolean
  readonly only?: readonly Topic[]
  readonly sizes?: readonly number[]
  readonly connections?: readonly number[]
  readonly durability?: readonly Durability[]
  readonly seconds?: number
  readonly pairs: number
  readonly generator?: string
  readonly directory: string
  readonly results: string
}

const FULL = { sizes: [4096, 16_384, 65_536, 2 ** 28], connections: [1, 8, 32], seconds: 3 }
const QUICK = { sizes: [4096, 2 ** 26], connections: [1, 32], seconds: 1 }
const FULL_FILES = { coldFiles: 20_000, deletedFiles: 2_000, awayFiles: 100_000 }
const QUICK_FILES = { coldFiles: 2_000, deletedFiles: 500, awayFiles: 1_000 }
/** A run is stopped by these; the shell's word for it is 128 more than the signal. */
const SIGNALS = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const
/** From `dist/bench/` it is two floors up. */
const RESULTS = fileURLToPath(new URL('../../bench/results', import.meta.url))

const flags = new Command('bench')
  .description('measures the servers beside yardsticks; see docs/performance.md')
  .option('--quick', 'the main rows in three minutes')
  .option('--only <topics>', `some of ${TOPICS.join(',')} (default: all)`, listOf(oneOf(TOPICS)))
  .option('--sizes <sizes>', 'of the files, such as 4K,256M', listOf(parseSize))
  .option('--connections <counts>', 'such as 1,8,32', listOf(parseNumber(1, 1000)))
  .option('--durability <kinds>', 'fsync, os, or both', listOf(oneOf(['fsync', 'os'] as const)))
  .option('--seconds <n>', 'of each run', Number)
  .option('--pairs <n>', 'of runs for each row', parseNumber(1, 100), 3)
  .option('--generator <path>', 'a load generator that is called as fdfs_load is, to measure with as well')
  .option('--directory <path>', 'where the servers write, and so which disk is measured', tmpdir())
  .option('--results <path>', 'where the results go', RESULTS)
  .parse()
  .opts<Flags>()
const defaults = flags.quick ? QUICK : FULL
const { pairs, seconds = defaults.seconds } = flags
const external =
  flags.generator === undefined
    ? []
    : [{ name: basename(flags.generator), program: resolve(flags.generator), args: [] }]

const world = realWorld()
const timers = new Timers(world.clock)
const programs = new Programs(world, timers)
const directory = mkdtempSync(join(resolve(flags.directory), 'dfs-bench-'))
/** Set from the beginning of its start: what is half started has to be ended as well. */
let bed: Promise<TestBed> | undefined
let ending = false
for (const [signal, code] of Object.entries(SIGNALS)) {
  process.on(signal, () => void end().then(() => process.exit(code)))
}

try {
  await bench()
} catch (error) {
  // What is cut off by a signal has nothing to say.
  if (!ending) {
    console.error(error)
    process.exitCode = 1
  }
} finally {
  if (!ending) await end()
}

async function bench(): Promise<void> {
  const durabilities: Durability[] = []
  const skipped: string[] = []
  for (const durability of flags.durability ?? (flags.quick ? ['fsync'] : ['fsync', 'os'])) {
    if (durability === 'fsync' || (await knowsDurability(programs))) durabilities.push(durability)
    else skipped.push(`durability ${durability}: this storage server cannot be told how durable an upload should be`)
  }
  const matrix: Matrix = {
    ...{ topics: flags.only ?? TOPICS, pairs, seconds, durabilities, quick: flags.quick === true },
    ...{ sizes: flags.sizes ?? defaults.sizes, connections: flags.connections ?? defaults.connections },
    ...(flags.quick ? QUICK_FILES : FULL_FILES),
    generators: [OURS, ...external],
  }
  const date = new Date(world.clock.wallMs()).toISOString()
  const machine = await describeMachine(world, directory)
  const rows: Row[] = []
  const report: Report = { date, machine, options: { quick: matrix.quick, seconds, pairs }, rows, skipped }
  for (const line of [...skipped.map(what => `skipped: ${what}`), ...headLines(report)]) console.log(line)
  for (const durability of durabilities) {
    for (const sizeBytes of matrix.sizes) {
      const own = join(directory, `${durability}-${size(sizeBytes).replace(' ', '-')}`)
      mkdirSync(own)
      bed = TestBed.start({ world, timers, programs, directory: own, durability, sizeBytes })
      const started = await bed
      for await (const row of rowsOf(started, matrix)) {
        rows.push(row)
        for (const line of rowLines(row)) console.log(line)
        // After each row: a long run that breaks off was not in vain.
        save(report)
      }
      await started.stop()
      bed = undefined
    }
  }
}

function save(report: Report): void {
  mkdirSync(flags.results, { recursive: true })
  const path = join(flags.results, report.date.replaceAll(/[:.]/g, '-'))
  writeFileSync(`${path}.json`, `${JSON.stringify(report, undefined, 2)}\n`)
  writeFileSync(`${path}.svg`, plot(report))
}

/** Ends every process that was started and removes what it wrote. */
async function end(): Promise<void> {
  ending = true
  await programs.stopAll()
  // A bed whose start has failed has ended itself.
  const started = await bed?.catch(() => undefined)
  await started?.stop()
  rmSync(directory, { recursive: true, force: true })
}

function listOf<T>(parse: (text: string) => T): (text: string) => T[] {
  return text => text.split(',').map(parse)
}

function oneOf<T extends string>(allowed: readonly T[]): (text: string) => T {
  return text => {
    if (allowed.includes(text as T)) return text as T
    throw new InvalidArgumentError(`one of ${allowed.join(', ')}`)
  }
}
