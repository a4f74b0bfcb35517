/**
 * What is measured and what it is measured against, for files of one size: a cluster on an empty directory, null servers
 * beside it, the generator, and the ids of what was uploaded.
 */
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Timers } from '../runtime/timers.ts'
import type { Endpoint, World } from '../runtime/world.ts'
import { BenchCluster, type Durability } from './cluster.ts'
import { type LoadResult, parseLoadLine } from './load-result.ts'
import type { Run } from './pairs.ts'
import { processUses } from './process-use.ts'
import { benchProgram, type Programs } from './programs.ts'
import { untilReplicated } from './replication-lag.ts'
import { LARGE_BYTES } from './row.ts'
import { checkFile, checkGone, sampleOf } from './sample.ts'

export interface BedOptions {
  readonly world: World
  readonly timers: Timers
  readonly programs: Programs
  /** Empty, and this bed's alone. */
  readonly directory: string
  readonly durability: Durability
  readonly sizeBytes: number
}

/** A program that is called as `fdfs_load` is. */
export interface Generator {
  readonly name: string
  readonly program: string
  readonly args: readonly string[]
}

/** How far the peer may be behind when an upload run is over: more than that, and the wait counts as well. */
const LAG_MS_MAX = 1_000
const SAMPLE_FILES = 16
/** Enough connections for what is only prepared. */
const PREPARING = 32

export const OURS: Generator = { name: 'bench', program: process.execPath, args: [benchProgram('run-generator')] }

export class TestBed {
  readonly cluster: BenchCluster
  readonly sizeBytes: number
  readonly durability: Durability
  readonly nullStorage: Endpoint
  readonly nullTracker: Endpoint
  /** Of files that are on both storage servers, the ones that storage server 1 took. */
  readonly ids: string[] = []
  readonly #options: BedOptions
  #files = 0

  private constructor(options: BedOptions, cluster: BenchCluster, nullStorage: Endpoint, nullTracker: Endpoint) {
    this.#options = options
    this.cluster = cluster
    this.sizeBytes = options.sizeBytes
    this.durability = options.durability
    this.nullStorage = nullStorage
    this.nullTracker = nullTracker
  }

  static async start(options: BedOptions): Promise<TestBed> {
    const cluster = await BenchCluster.start({ ...options, directory: join(options.directory, 'cluster') })
    try {
      const nullStorage = await startNull(options, 'null-storage', [])
      return new TestBed(options, cluster, nullStorage, await startNull(options, 'null-tracker', [nullStorage]))
    } catch (error) {
      await cluster.stop()
      throw error
    }
  }

  async stop(): Promise<void> {
    const { programs, directory } = this.#options
    await Promise.all([programs.stop('null-tracker'), programs.stop('null-storage')])
    await this.cluster.stop()
    rmSync(directory, { recursive: true, force: true })
  }

  /** The first storage server, which takes what goes straight to one. */
  get storage(): Endpoint {
    return this.cluster.storages[0]!
  }

  /** What the servers under test have used so far. */
  uses() {
    const { tracker = 0, 'storage-1': first = 0, 'storage-2': second = 0 } = this.#options.programs.pids()
    const pids = { tracker, 'storage-1': first, 'storage-2': second, 'nats-server': this.cluster.natsPid }
    return processUses(pids)
  }

  /** Runs a generator, and makes sure that nothing failed and every file had the right length. */
  async load(generator: Generator, args: readonly (string | number)[]): Promise<LoadResult> {
    const { program, args: first } = generator
    return checked(
      parseLoadLine(await this.#options.programs.run(program, [...first, ...args.map(String)])),
      String(args[0]),
      this.sizeBytes,
    )
  }

  /** A program of the bench that prints what a generator does. */
  program(name: string, args: readonly (string | number)[]): Promise<string> {
    return this.#options.programs.run(process.execPath, [benchProgram(name), ...args.map(String)])
  }

  /** The path for a new file of ids; with ids, they are in it. */
  idFile(ids?: readonly string[]): string {
    const path = join(this.#options.directory, `ids-${this.#files++}`)
    writeFileSync(path, ids === undefined ? '' : ids.map(id => `${id}\n`).join(''))
    return path
  }

  idsIn(path: string): string[] {
    return readFileSync(path, 'utf8').split('\n').filter(Boolean)
  }

  /**
   * The run of a load: its time is over when the peer is near, unless each file is so large that its own transfer would be
   * all that is waited for. Waits, untimed, until the peers are level.
   */
  async settled(result: LoadResult): Promise<Run> {
    const { timers } = this.#options
    const drainSeconds = await untilReplicated(this.cluster, timers, LAG_MS_MAX)
    await untilReplicated(this.cluster, timers, 0)
    return { ...runOf(result, this.sizeBytes >= LARGE_BYTES ? 0 : drainSeconds), drainSeconds }
  }

  /** Resolves with the seconds until both storage servers have the same. */
  level(): Promise<number> {
    return untilReplicated(this.cluster, this.#options.timers, 0)
  }

  /** Reads a sample back from both storage servers. Throws if a byte is wrong. */
  async checkWritten(ids: readonly string[]): Promise<void> {
    for (const id of sampleOf(ids, this.sizeBytes >= LARGE_BYTES ? 1 : SAMPLE_FILES)) {
      for (const at of this.cluster.storages) await checkFile(at, id, this.sizeBytes)
    }
  }

  async checkDeleted(ids: readonly string[]): Promise<void> {
    for (const id of sampleOf(ids, SAMPLE_FILES)) {
      for (const at of this.cluster.storages) await checkGone(at, id)
    }
  }

  /** Makes sure that so many ids are there. */
  async prepare(count: number): Promise<void> {
    const missing = count - this.ids.length
    if (missing <= 0) return
    const file = this.idFile()
    await this.load(OURS, ['dupn', addressOf(this.storage), this.sizeBytes, PREPARING, missing, file])
    this.ids.push(...this.idsIn(file))
    await this.level()
  }
}

async function startNull(options: BedOptions, name: string, storages: readonly Endpoint[]): Promise<Endpoint> {
  const args = [benchProgram('run-null-server'), String(options.sizeBytes), ...storages.map(addressOf)]
  const { port } = await options.programs.serve(name, args)
  return { host: '127.0.0.1', port: port as number }
}

/** Throws if anything failed or had another length; returns the result. */
export function checked(result: LoadResult, what: string, sizeBytes: number): LoadResult {
  const { operations, errors, leastBytes, mostBytes } = result
  if (errors > 0) throw new Error(`${what}: ${errors} of ${operations + errors} operations failed`)
  if (operations === 0) throw new Error(`${what}: nothing was done`)
  const hasLength = !what.endsWith('del')
  if (hasLength && (leastBytes !== sizeBytes || mostBytes !== sizeBytes)) {
    throw new Error(`${what}: files of ${leastBytes} to ${mostBytes} bytes instead of ${sizeBytes}`)
  }
  return result
}

/** The run of a load; what was waited for afterwards is part of its time. */
export function runOf({ operations, seconds, p50Ms, p99Ms }: LoadResult, drainSeconds = 0): Run {
  const whole = seconds + drainSeconds
  return { rate: operations / whole, seconds: whole, p50Ms, p99Ms }
}

export function addressOf({ host, port }: Endpoint): string {
  return `${host}:${port}`
}
