/**
 * Sends mutated frames to the ports of a running cluster: a tracker and two storage servers as processes of their own, with a real
 * nats-server. They have to stay alive and small, go on answering, keep what they have, and have no file at the end that nobody
 * was told of.
 */
import { createHash, randomBytes } from 'node:crypto'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import type { Client } from '../../client/client.ts'
import { decodeFileName, parseFileId } from '../../protocol/file-id.ts'
import { COMMANDS, header } from '../../protocol/frame.ts'
import type { ClusterFile } from '../../runtime/cluster-file.ts'
import type { Endpoint } from '../../runtime/world.ts'
import { packedFiles } from '../crash/data-audit.ts'
import { RunningCluster, residentBytes } from '../running-cluster.ts'
import { RawConnection } from '../runtime/frame-fixture.ts'
import { until } from '../until.ts'
import type { Kind, PickName } from './corpus.ts'
import { MARKER } from './mutate.ts'
import { creationsMax, planSession, playSession } from './session.ts'

export interface FuzzOptions {
  readonly frames: number
  readonly seed: number
  /** Index of the first session, to repeat a part. */
  readonly first?: number
  readonly say: (line: string) => void
}

export interface FuzzResult {
  readonly frames: number
  readonly sessions: number
  readonly framesPerSecond: number
  /** Replies by status. */
  readonly statuses: ReadonlyMap<number, number>
  readonly filesMade: number
  /** Resident bytes of each server: after the warm-up, at most, and at the end. */
  readonly memory: readonly { readonly warm: number; readonly peak: number; readonly end: number }[]
  readonly problems: readonly string[]
}

/** Sessions at a time. */
const JOBS = 48
/** Files that are only looked at: they have to be whole at the end. */
const PRECIOUS = 12
const NAMES_KEPT = 100
const SIZES: Readonly<Record<'plain' | 'segment', number>> = { plain: 9_000, segment: 700 }
const SEGMENT_MAX_FILE = '4K'

/** What a warm process may grow by: its buffers (64 MiB in flight at most) and its heap, which is collected late. */
const GROWTH_BYTES_MAX = 160 * 2 ** 20
/** What is left of it once nobody is connected. */
const REST_GROWTH_BYTES_MAX = 80 * 2 ** 20
/** Frames before memory is looked at, or a third of them. */
const WARM_FRAMES = 20_000
const LOOK_EVERY_MS = 2_000
const ANSWER_MS = 20_000
/** Connections are dropped after ten seconds of silence in a header, half a minute in a body. */
const REST_MS = 90_000
const DESCRIPTORS_MORE_MAX = 16
const PROBLEMS_MAX = 50
/** Connections of so many addresses: each has ports of its own. */
const ADDRESSES = 64

/** What a data directory may hold, besides the files of its store. */
const OWN_FILES =
  /^(lock|(store\/)?identity|checkpoint|catalogue|sources|orderers|quarantine|scrub|marks(\/\d+)?|binlog(\/\d+\.\d+)?|store(\/(tmp|data(\/[0-9A-F]{2}){0,2}|segments(\/\d+(\/\d{10})?)?))?)(\.new)?$/

/** Runs a campaign. */
export async function fuzz(options: FuzzOptions): Promise<FuzzResult> {
  const cluster = await RunningCluster.start('--segment-max-file', SEGMENT_MAX_FILE)
  try {
    return await new Campaign(cluster, options).run()
  } finally {
    await cluster.remove()
  }
}

class Campaign {
  readonly #cluster: RunningCluster
  readonly #options: FuzzOptions
  readonly #problems: string[] = []
  readonly #statuses = new Map<number, number>()
  /** Every name that was acknowledged. */
  readonly #names = new Set<string>()
  /** Some of each kind, for requests to name. */
  readonly #pools: Record<Kind, string[]> = { plain: [], segment: [], appender: [], slave: [] }
  /** What runs where, as it was at the beginning. */
  readonly #ports: ClusterFile
  readonly #pids: readonly number[]
  #hasEnded = false
  /** Files that sessions may have made whose replies nobody read. */
  #unread = 0
  #frames = 0
  #sessions: number
  #picked = 0

  constructor(cluster: RunningCluster, options: FuzzOptions) {
    this.#cluster = cluster
    this.#options = options
    this.#sessions = options.first ?? 0
    this.#ports = cluster.ports
    this.#pids = pidsOf(this.#ports)
  }

  async run(): Promise<FuzzResult> {
    const { frames, say } = this.#options
    const client = await this.#cluster.connect()
    const precious = await this.#fill(client)
    const before = this.#entries()
    const descriptors = this.#pids.map(descriptorsOf)
    let warm: number[] | undefined
    let peak: number[] = this.#pids.map(() => 0)
    const startedMs = performance.now()
    let lookMs = startedMs
    const jobs = Array.from({ length: JOBS }, (_, i) => this.#play(i))
    const all = Promise.all(jobs).then(() => true)
    const warmFrames = Math.min(WARM_FRAMES, frames / 3)
    while (!(await Promise.race([all, sleepUntil(lookMs + LOOK_EVERY_MS)]))) {
      lookMs = performance.now()
      await this.#look(client)
      if (this.#isOver) continue
      const sizes = this.#pids.map(residentBytes)
      if (this.#frames >= warmFrames) warm ??= sizes
      peak = peak.map((size, i) => Math.max(size, sizes[i]!))
      const perSecond = Math.round(this.#frames / ((lookMs - startedMs) / 1000))
      say(`${this.#frames} frames, ${perSecond} a second, ${this.#names.size} files, ${sizes.map(mib).join(' ')}`)
    }
    const seconds = (performance.now() - startedMs) / 1000
    await this.#look(client)
    if (!this.#isOver) {
      await this.#settle(descriptors)
      await this.#checkPrecious(client, precious)
    }
    const end = this.#isOver ? peak : this.#pids.map(residentBytes)
    warm ??= end
    for (const [i, size] of warm.entries()) {
      if (peak[i]! > size + GROWTH_BYTES_MAX) this.#wrong(`process ${i} grew from ${mib(size)} to ${mib(peak[i]!)}`)
      if (end[i]! > size + REST_GROWTH_BYTES_MAX) this.#wrong(`process ${i} kept ${mib(end[i]!)} of ${mib(size)}`)
    }
    await client.close()
    this.#checkLogs()
    this.#checkEntries(before)
    await this.#cluster.stop()
    this.#checkFiles()
    return {
      frames: this.#frames,
      sessions: this.#sessions,
      framesPerSecond: this.#frames / seconds,
      statuses: this.#statuses,
      filesMade: this.#names.size,
      memory: warm.map((size, i) => ({ warm: size, peak: peak[i]!, end: end[i]! })),
      problems: this.#problems,
    }
  }

  get #isOver(): boolean {
    return this.#problems.length >= PROBLEMS_MAX || this.#hasEnded
  }

  /** Plays sessions until there have been enough. */
  async #play(job: number): Promise<void> {
    const { frames, seed, say } = this.#options
    const key = this.#clientKey()
    while (this.#frames < frames && !this.#isOver) {
      const index = this.#sessions++
      const plan = planSession(seed, index, this.#pick)
      this.#frames += plan.requests.length
      if (plan.ending !== 'read') this.#unread += creationsMax(plan)
      const to = this.#endpoint(plan.port, index)
      try {
        const outcome = await playSession(plan, to, `127.0.0.${2 + ((index + job) % ADDRESSES)}`, key)
        if (outcome.problem !== undefined) this.#wrong(`session ${index} (${plan.port}): ${outcome.problem}`)
        for (const status of outcome.statuses) this.#statuses.set(status, (this.#statuses.get(status) ?? 0) + 1)
        for (const name of outcome.names) this.#remember(name)
      } catch (error) {
        say(`session ${index} could not be played: ${error}`)
        this.#wrong(`session ${index} (${plan.port}) could not be played: ${error}`)
      }
    }
  }

  readonly #pick: PickName = kind => {
    const pool = this.#pools[kind]
    return pool[this.#picked++ % pool.length]!
  }

  #remember(name: string): void {
    this.#names.add(name)
    const pool = this.#pools[decodeFileName(name).kind]
    if (pool.length < NAMES_KEPT) pool.push(name)
    else pool[this.#names.size % NAMES_KEPT] = name
  }

  /** Files to begin with; the precious ones are in no pool. */
  async #fill(client: Client): Promise<Map<string, string>> {
    const precious = new Map<string, string>()
    const keep = async (fileId: string, bytes: Buffer) => {
      this.#names.add(parseFileId(fileId).name)
      precious.set(fileId, sha256(bytes))
    }
    for (let i = 0; i < PRECIOUS; i++) {
      for (const sizeBytes of Object.values(SIZES)) {
        const bytes = randomBytes(sizeBytes + i)
        await keep((await client.upload(bytes, { extension: 'bin' })).fileId, bytes)
        const { fileId } = await client.upload(randomBytes(sizeBytes), { extension: 'txt' })
        this.#remember(parseFileId(fileId).name)
        const slave = await client.uploadSlave(fileId, bytes, { prefix: '_first', extension: 'jpg' })
        this.#remember(parseFileId(slave.fileId).name)
      }
      const bytes = randomBytes(2_000)
      await keep((await client.uploadAppender(bytes)).fileId, bytes)
      this.#remember(parseFileId((await client.uploadAppender(bytes, { extension: 'log' })).fileId).name)
    }
    return precious
  }

  /** All processes live, and a stranger is answered. */
  async #look(client: Client): Promise<void> {
    this.#hasEnded = pidsOf(this.#cluster.ports).some((pid, i) => pid !== this.#pids[i])
    if (this.#hasEnded) return this.#wrong('a process has ended')
    const answered = async () => {
      for (const to of this.#endpoints()) {
        const connection = await RawConnection.connect(to)
        connection.send(header(COMMANDS.activeTest, 0))
        const { status } = await connection.reply()
        connection.destroy()
        if (status !== 0) this.#wrong(`an active test got ${status}`)
      }
      const bytes = randomBytes(3_000)
      const { fileId } = await client.upload(bytes)
      this.#remember(parseFileId(fileId).name)
      if (!(await client.download(fileId)).equals(bytes)) this.#wrong(`${fileId} came back changed`)
    }
    const late = sleepUntil(performance.now() + ANSWER_MS).then(() => 'late')
    const how = await Promise.race([answered().catch(error => String(error)), late])
    if (how !== undefined) this.#wrong(`a valid request was not answered: ${how}`)
  }

  /** Waits until nothing of all this is under way any more. */
  async #settle(descriptors: readonly number[]): Promise<void> {
    const more = () => this.#pids.map((pid, i) => descriptorsOf(pid) - descriptors[i]!)
    const isClosed = () => more().every(count => count <= DESCRIPTORS_MORE_MAX)
    await until('connections and files are closed', isClosed, REST_MS).catch(() =>
      this.#wrong(`descriptors stay open: ${more().join(' ')} more than before`),
    )
  }

  async #checkPrecious(client: Client, precious: ReadonlyMap<string, string>): Promise<void> {
    for (const [fileId, digest] of precious) {
      const found = await client.download(fileId).then(sha256, error => String(error))
      if (found !== digest) this.#wrong(`${fileId}, which nobody named, reads ${found}`)
    }
  }

  /** No error in a log, and nothing that is no line of a log. */
  #checkLogs(): void {
    const directory = join(this.#cluster.data, 'logs')
    for (const name of readdirSync(directory).filter(name => !name.startsWith('nats'))) {
      for (const line of readFileSync(join(directory, name), 'latin1').split('\n')) {
        const isWrong = line !== '' && (!line.startsWith('{') || /"level":(50|60)/.test(line))
        if (isWrong) this.#wrong(`${name}: ${line.slice(0, 1_000)}`)
      }
    }
  }

  /** Nothing has been made outside of the stores. */
  #checkEntries(before: ReadonlySet<string>): void {
    for (const path of this.#entries()) if (!before.has(path)) this.#wrong(`${path} was not there before`)
    for (const directory of ['/', tmpdir(), '.', this.#cluster.directory]) {
      for (const name of readdirSync(directory)) if (name.includes(MARKER)) this.#wrong(`${directory} has ${name}`)
    }
  }

  /** What is in the cluster's directory, but for what its processes write as they like. */
  #entries(): Set<string> {
    const { directory, data } = this.#cluster
    const entries = readdirSync(directory, { recursive: true, withFileTypes: true })
    const paths = entries.map(entry => join(entry.parentPath, entry.name))
    const isTheirs = (path: string) => {
      const [top = '', ...rest] = relative(data, path).split('/')
      if (top === 'nats' || top === 'logs') return true
      if (!top.startsWith('storage-')) return false
      const below = rest.join('/')
      return below === '' || OWN_FILES.test(below) || /^store\/(data\/[0-9A-F]{2}\/[0-9A-F]{2}|tmp)\/[^/]+$/.test(below)
    }
    return new Set(paths.filter(path => !isTheirs(path)))
  }

  /** Every file has a name that somebody was told, but for those whose replies nobody read; nothing is on its way in. */
  #checkFiles(): void {
    for (const directory of this.#directories()) {
      const temporaries = readdirSync(join(directory, 'store', 'tmp'))
      if (temporaries.length > 0) this.#wrong(`${directory} has temporary files: ${temporaries.slice(0, 5).join(' ')}`)
      const strangers = strangersIn(directory, this.#names)
      for (const name of strangers) {
        try {
          decodeFileName(name)
        } catch {
          this.#wrong(`${directory} has ${name}, which is no name`)
        }
      }
      if (strangers.length > this.#unread) {
        const some = strangers.slice(0, 5).join(' ')
        this.#wrong(
          `${directory} has ${strangers.length} files nobody asked for, ${this.#unread} at most were: ${some}`,
        )
      }
    }
  }

  #wrong(what: string): void {
    if (this.#problems.length < PROBLEMS_MAX) this.#problems.push(what)
    this.#options.say(`WRONG at frame ${this.#frames}: ${what}`)
  }

  #endpoint(port: 'tracker' | 'storage', index: number): Endpoint {
    const { trackers, storages } = this.#ports
    return port === 'tracker' ? trackers[0]! : storages[index % storages.length]!
  }

  #endpoints(): Endpoint[] {
    const { trackers, storages } = this.#ports
    return [...trackers, ...storages].map(({ host, port }) => ({ host, port }))
  }

  #directories(): string[] {
    return [1, 2].map(id => join(this.#cluster.data, `storage-${id}`))
  }

  #clientKey(): string {
    const credentials = readFileSync(this.#ports.credentials.client!, 'utf8')
    return (JSON.parse(credentials) as { dataSecret: string }).dataSecret
  }
}

/** Names of files in a data directory that are not among those given; sidecars and metadata belong to their files. */
export function strangersIn(dataDirectory: string, names: ReadonlySet<string>): string[] {
  const data = join(dataDirectory, 'store', 'data')
  const paths = existsSync(data) ? readdirSync(data, { recursive: true, withFileTypes: true }) : []
  const plain = paths
    .filter(entry => entry.isFile())
    .map(entry => `M00/${relative(data, join(entry.parentPath, entry.name))}`.replace(/(~sum|-m)$/, ''))
  return [...new Set([...plain, ...packedFiles(dataDirectory)])].filter(name => !names.has(name))
}

function descriptorsOf(pid: number): number {
  return readdirSync(`/proc/${pid}/fd`).length
}

function pidsOf({ trackers, storages }: ClusterFile): number[] {
  return [...trackers, ...storages].map(({ pid }) => pid)
}

function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex')
}

function mib(bytes: number): string {
  return `${Math.round(bytes / 2 ** 20)} MiB`
}

async function sleepUntil(timeMs: number): Promise<undefined> {
  await new Promise(resolve => setTimeout(resolve, Math.max(0, timeMs - performance.now())))
  return undefined
}
