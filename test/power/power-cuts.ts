/**
 * Cuts the power of a storage server again and again while files come and go, and holds what is left against what was
 * promised. The fault model: whatever was not synced may be gone, whole, in part, or not at all; the process may also
 * die alone, and the power go later. Nothing acknowledged may be lost, wrong, or back again.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { FrameClient } from '../../runtime/frame-client.ts'
import { realWorld } from '../../runtime/real-world.ts'
import { Timers } from '../../runtime/timers.ts'
import { SeededRandom } from '../simulation/seeded-random.ts'
import { Manifest } from './manifest.ts'
import type { PowerPlan, PowerReport } from './power-process.ts'

const WORKERS = 16
/** Around the end of a block, where sidecars begin; small ones more often, so that there are many. */
const SIZES = [0, 1, 500, 500, 4_096, 4_096, 4_096, 30_000, 30_000, 100_000, 262_144, 262_145, 600_000]

/** So that there are files of both kinds. */
const SEGMENT_FILE_BYTES_MAX = 64 * 1024
/** Of what the workers do: the rest are reads. */
const UPLOADS = 0.6
const DELETES = 0.3

/** A life under load is as long as this, if nothing ends it before. */
const LIFE_MS = 700
/** A life that lasts longer than this, start and checks included, hangs. */
const HANGS_MS = 120_000
/** A process that has broken off its connections by dying is gone by then. */
const GONE_MS = 5_000
/** Files looked at again after each cut, of those that were right before. */
const SAMPLE = 60

/** When a life ends: at a moment, with an acknowledgement, or at an event inside. */
const ENDS = ['moment', 'acknowledgement', 'phase', 'sync', 'flush'] as const
type End = (typeof ENDS)[number]

/** How often only the process dies. */
const CRASHES = 0.2

const PHASES = ['written', 'synced', 'recorded', 'renamed', 'acknowledged'] as const
const ORDERS = ['in order', 'in any order'] as const

export interface PowerOptions {
  readonly cuts: number
  readonly seed: number
  /** The source of a regular expression: syncs of these paths do nothing. Ends with the first loss. */
  readonly lies?: string
  /** All files have files of their own; otherwise small ones are in segments. */
  readonly plain?: boolean
  readonly say?: (line: string) => void
}

export interface PowerResult {
  readonly ends: Readonly<Record<End, number>>
  /** In how many of them only the process died. */
  readonly crashes: number
  readonly acknowledged: number
  readonly deleted: number
  readonly lost: readonly string[]
  /** Files that read wrong, are back again, or were given out twice. */
  readonly wrong: readonly string[]
  /** Whatever else is not as it should be. */
  readonly problems: readonly string[]
  /** What the recoveries had to do. */
  readonly recovered: Readonly<Record<'torn' | 'redone' | 'adopted' | 'temporaries', number>>
}

/** Runs the campaign. The seed decides how each life ends; when exactly, and what it does until then, is up to the machine. */
export async function powerCuts({
  cuts,
  seed,
  lies,
  plain = false,
  say = () => {},
}: PowerOptions): Promise<PowerResult> {
  const random = new SeededRandom(`power ${seed}`)
  const directory = mkdtempSync(join(tmpdir(), 'dfs-power-'))
  const segmentFileBytesMax = plain ? 0 : SEGMENT_FILE_BYTES_MAX
  const manifest = new Manifest()
  const ends: Record<End, number> = { moment: 0, acknowledgement: 0, phase: 0, sync: 0, flush: 0 }
  let crashes = 0
  const recovered = { torn: 0, redone: 0, adopted: 0, temporaries: 0 }
  const problems = new Set<string>()
  const hasFailed = () => manifest.lost.size + manifest.wrong.size + problems.size > 0
  let next = new Life()
  try {
    for (let cut = 0; cut <= cuts && !(lies !== undefined && hasFailed()); cut++) {
      const isLast = cut === cuts
      const draw = random.fork(`cut ${cut}`)
      const end = draw.pick(ENDS)
      const plan = isLast ? { directory, segmentFileBytesMax, seed: 'last', isCrash: false, lies } : drawPlan(end, draw)
      const life = next
      try {
        life.begin(plan)
        // Loading the program takes longer than anything it does: the next one begins with it now.
        if (!isLast) next = new Life()
        const report = await life.ready
        if (report !== undefined) {
          note(report)
          const files = isLast ? manifest.all() : manifest.sample(SAMPLE, limit => random.below(limit))
          await inTurn(life, report.port, files, (client, fileId) => manifest.check(client, fileId))
          if (isLast) life.kill()
          else await load(life, report.port, end, draw)
        }
        const { signal, errors } = await life.ended
        if (errors !== '') problems.add(`cut ${cut}: the server complained:\n${errors}`)
        if (signal !== 'SIGKILL') {
          problems.add(`cut ${cut}: the server was ended by ${signal ?? 'itself'}`)
          break
        }
      } finally {
        life.kill()
      }
      if (isLast) break
      ends[end]++
      if (plan.isCrash) crashes++
      const how = plan.isCrash ? 'crash' : `${plan.tear ?? 'nothing'} torn`
      say(`cut ${cut} (${end}, ${how}): ${manifest.acknowledged} acknowledged, ${manifest.lost.size} lost`)
    }
  } finally {
    next.kill()
    rmSync(directory, { recursive: true, force: true })
  }
  const wrong = [...manifest.wrong].map(([fileId, how]) => `${fileId} ${how}`)
  const { acknowledged, deleted, lost } = manifest
  return { ends, crashes, acknowledged, deleted, lost: [...lost], wrong, problems: [...problems], recovered }

  function drawPlan(end: End, draw: SeededRandom): PowerPlan {
    const plan = {
      directory,
      segmentFileBytesMax,
      seed: draw.bytes(8).toString('hex'),
      endAt: drawEvent(end, draw),
      lies,
    }
    // What gets through by chance would only hide a lie.
    if (lies !== undefined) return { ...plan, isCrash: false }
    // No word reaches a server sooner than its own acknowledgement; a flush of which nothing gets through is not torn.
    const tears = end === 'acknowledgement' ? [undefined] : end === 'flush' ? ORDERS : [undefined, ...ORDERS]
    return { ...plan, isCrash: draw.chance(CRASHES), tear: draw.pick(tears) }
  }

  function note({ recovery, problems: found }: PowerReport): void {
    for (const problem of found) problems.add(problem)
    if (recovery.damagedLines > 0) problems.add(`${recovery.damagedLines} lines of the binlog are damaged`)
    for (const name of recovery.missing) problems.add(`${name} is missing`)
    if (recovery.tornBytes > 0) recovered.torn++
    recovered.redone += recovery.redone
    recovered.adopted += recovery.orphans.length
    recovered.temporaries += recovery.removedTemporaries
  }

  /** Lets files come and go until the server is dead. */
  async function load(life: Life, port: number, end: End, draw: SeededRandom): Promise<void> {
    const before = manifest.acknowledged
    const until = end === 'acknowledgement' ? before + 1 + draw.below(80) : Number.POSITIVE_INFINITY
    const timer = setTimeout(() => life.end(), end === 'moment' ? draw.below(LIFE_MS) : LIFE_MS)
    const below = (limit: number) => random.below(limit)
    await inTurn(life, port, endless(), async client => {
      const what = random.between(0, 1)
      try {
        if (what < UPLOADS) {
          await manifest.upload(client, random.pick(SIZES))
          if (manifest.acknowledged >= until) life.endAtOnce()
        } else if (what < UPLOADS + DELETES) await manifest.delete(client, below)
        else await manifest.readOne(client, below)
      } catch (error) {
        if (!client.broken) problems.add(`the server refuses: ${error}`)
        throw error
      }
    })
    clearTimeout(timer)
  }
}

function drawEvent(end: End, draw: SeededRandom): PowerPlan['endAt'] {
  if (end === 'phase') return { event: draw.pick(PHASES), count: 1 + draw.below(60) }
  // A start alone has some ten syncs.
  if (end === 'sync') return { event: end, count: 1 + draw.below(draw.pick([12, 300])) }
  if (end === 'flush') return { event: end, count: 1 + draw.below(60) }
  return undefined
}

function* endless(): Generator<string> {
  for (;;) yield ''
}

/** Does work on items over several connections, until there are no more or the server is gone. */
async function inTurn(
  life: Life,
  port: number,
  items: Iterable<string>,
  work: (client: FrameClient, item: string) => Promise<void>,
): Promise<void> {
  const iterator = items[Symbol.iterator]()
  const worker = async () => {
    const client = await connect(port)
    try {
      for (let item = iterator.next(); !item.done; item = iterator.next()) await work(client, item.value)
    } finally {
      client.close()
    }
  }
  const workers = Array.from({ length: WORKERS }, () =>
    worker().catch(async error => {
      // A server that is gone has left everybody; one that lives on has no reason to.
      if (!(await life.endsWithin(GONE_MS))) throw error
    }),
  )
  await Promise.all(workers)
}

const PROGRAM = fileURLToPath(new URL('./power-process.js', import.meta.url))

/** One process, from its start to its end. */
class Life {
  /** Undefined if it died before it was ready. */
  readonly ready: Promise<PowerReport | undefined>
  readonly ended: Promise<{ signal: NodeJS.Signals | null; errors: string }>
  readonly #child: ChildProcess
  #isCrash = false

  constructor() {
    const child = spawn(process.execPath, [PROGRAM], { stdio: ['pipe', 'pipe', 'pipe'] })
    this.#child = child
    let errors = ''
    child.stderr.on('data', text => {
      errors += text
    })
    // It dies without reading to the end.
    child.stdin.on('error', () => child.stdin.destroy())
    this.ended = new Promise(resolve => child.on('close', (_, signal) => resolve({ signal, errors })))
    this.ready = new Promise(resolve => {
      createInterface({ input: child.stdout }).once('line', line => resolve(JSON.parse(line) as PowerReport))
      void this.ended.then(() => resolve(undefined))
    })
  }

  begin(plan: PowerPlan): void {
    this.#isCrash = plan.isCrash
    this.#child.stdin?.write(`${JSON.stringify(plan)}\n`)
    const hangs = setTimeout(() => this.#child.kill('SIGTERM'), HANGS_MS)
    void this.ended.then(() => clearTimeout(hangs))
  }

  async endsWithin(ms: number): Promise<boolean> {
    const late = new AbortController()
    const tooLate = sleep(ms, false, { signal: late.signal }).catch(() => false)
    const hasEnded = await Promise.race([this.ended.then(() => true), tooLate])
    late.abort()
    return hasEnded
  }

  end(): void {
    this.#child.stdin?.write('end\n')
  }

  /** Sooner than any word could reach it, and so with nothing torn. */
  endAtOnce(): void {
    if (this.#isCrash) this.end()
    else this.kill()
  }

  kill(): void {
    this.#child.kill('SIGKILL')
  }
}

const world = realWorld()
const timers = new Timers(world.clock)

function connect(port: number): Promise<FrameClient> {
  const timeouts = { idleMs: 10_000, headerMs: 10_000, bodyMs: 10_000 }
  const { sockets, clock } = world
  return FrameClient.connect({ host: '127.0.0.1', port }, { sockets, clock, timers, connectMs: 2_000, timeouts })
}
