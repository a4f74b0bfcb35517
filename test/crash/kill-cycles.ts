/**
 * Kills a storage server with -9, again and again, in the middle of uploads and deletions, and holds everything it had
 * acknowledged against what is there afterwards: at its port, on its disk and on its peer's. The fault model: the
 * process dies at any moment; the machine and its disks live on. Nothing acknowledged may be lost, wrong or come back.
 *
 *     start ──▶ check what the last kill left ──▶ load ──▶ kill ──▶ start ...
 */
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { isAfter } from '../../protocol/binlog-record.ts'
import { readGroupAndName, readUploaded, writeGroupAndName, writeUploadHead } from '../../protocol/data-bodies.ts'
import { DfsError } from '../../protocol/errors.ts'
import { decodeFileName, type FileId, formatFileId, parseFileId } from '../../protocol/file-id.ts'
import { COMMANDS } from '../../protocol/frame.ts'
import type { FrameClient } from '../../runtime/frame-client.ts'
import type { Phase } from '../../store/phase.ts'
import { fetchFile, uploadBody } from '../data-port.ts'
import { SeededRandom } from '../simulation/seeded-random.ts'
import { until } from '../until.ts'
import { CrashCluster, type StorageProcess } from './crash-cluster.ts'
import { audit, bytesOnDisk, lastOwnPosition, temporariesIn } from './data-audit.ts'
import { digest, Manifest, type Promised } from './manifest.ts'
import type { Problem, ProblemKind } from './problem.ts'
import type { StorageProcessOptions } from './storage-options.ts'

const VICTIM = 1
const PEER = 2

/** From outside at a random moment, from outside as an acknowledgement arrives, or by itself at a phase. */
export const DEATHS = ['moment', 'acknowledgement', 'written', 'synced', 'recorded', 'renamed', 'acknowledged'] as const
export type Death = (typeof DEATHS)[number]

/** Enough that flushes have several records; few enough that the disk is never the only thing waited for. */
const UPLOADERS = 4
/** Its files go the other way: the victim also dies while it applies a peer's records. */
const PEER_UPLOADERS = 1
/** Their uploads carry ids, and are sent again after the kill. */
const SDK_UPLOADERS = 1
const DELETERS = 1
/** Uploads that a deleter leaves alone between two deletions, so that files outnumber them. */
const FILES_PER_DELETION = 4

/** From none to more than is packed; one block and a byte to either side: where a sidecar begins. */
const SIZES = [0, 1, 200, 3_000, 4_096, 20_000, 65_536, 65_537, 70_000]
const LARGE_SIZES = [262_143, 262_144, 262_145, 400_000, 614_400]
const LARGE_SHARE = 1 / 8
const LOAD_MS_MAX = 300
const OCCURRENCES_MAX = 40

/** A victim that was to kill itself does so within this time, or the harness is broken. */
const DEATH_MS = 20_000
const SYNC_MS = 30_000
/** What an interrupted transfer has left in `tmp` of the survivor goes at once, but not in the same turn. */
const TIDY_MS = 2_000
const READERS = 4

export interface KillCyclesOptions {
  readonly cycles: number
  readonly seed: number
  readonly say?: (line: string) => void
  /** In rotation; all of them unless told otherwise. */
  readonly deaths?: readonly Death[]
  /** How the victim is made worse than it is, to see it caught. */
  readonly victim?: Pick<StorageProcessOptions, 'lieAbout' | 'segmentFileBytesMax'>
  /** How long the other server may take to get everything. */
  readonly syncMs?: number
}

export interface KillFigures {
  kills: number
  /** Acknowledged. */
  uploads: number
  deletions: number
  /** Requests that the kills cut off. */
  interrupted: number
  /** Uploads whose acknowledgement a kill cut off, sent again under their ids. */
  repeated: number
  /** Files that were acknowledged and not at the peer when the victim died. */
  owed: number
  /** What recovery had to do: records done again, slots recorded, temporary files swept, bytes cut from the binlog. */
  redone: number
  adopted: number
  swept: number
  tornBytes: number
  readonly recoveryMs: number[]
  /** From the start of the process until it takes uploads. */
  readonly startMs: number[]
  readonly problems: Problem[]
}

/** Runs the cycles on a cluster of their own. */
export async function killCycles(options: KillCyclesOptions): Promise<KillFigures> {
  const cluster = await CrashCluster.start()
  const run = new KillRun(cluster, options)
  try {
    await run.run()
    return run.figures
  } finally {
    run.close()
    await cluster.remove()
  }
}

/** An upload of the SDK's kind. */
interface Upload {
  /** 32 hex digits. */
  readonly id: string
  readonly bytes: Buffer
}

class KillRun {
  readonly figures: KillFigures = {
    ...{ kills: 0, uploads: 0, deletions: 0, interrupted: 0, repeated: 0, owed: 0, redone: 0 },
    ...{ adopted: 0, swept: 0, tornBytes: 0 },
    ...{ recoveryMs: [], startMs: [], problems: [] },
  }
  readonly #cluster: CrashCluster
  readonly #options: KillCyclesOptions
  readonly #random: SeededRandom
  readonly #noise: Buffer
  readonly #manifest: Manifest
  readonly #unanswered = new Set<Upload>()
  readonly #known = new Set<string>()
  #victim: StorageProcess | undefined
  #uploadIds = 0
  /** How many uploads there must be for the next deletion. */
  #deletionAt = 0
  /** Called as each acknowledgement of the victim arrives. */
  #onAcknowledged: () => void = () => {}

  constructor(cluster: CrashCluster, options: KillCyclesOptions) {
    this.#cluster = cluster
    this.#options = options
    this.#random = new SeededRandom(`crash ${options.seed}`)
    this.#noise = this.#random.bytes(2 * LARGE_SIZES.at(-1)!)
    this.#manifest = new Manifest(join(cluster.directory, 'manifest'))
  }

  close(): void {
    this.#manifest.close()
  }

  /** Runs all cycles; what ends them early is a problem too. */
  async run(): Promise<void> {
    try {
      await this.#runCycles()
    } catch (error) {
      this.#problem('down', `the run ended early: ${(error as Error).stack}\n${this.#victim?.log}`)
    }
  }

  async #runCycles(): Promise<void> {
    const { cycles, deaths = DEATHS, say = () => {} } = this.#options
    await this.#cluster.startStorage(PEER)
    for (let cycle = 0; cycle < cycles; cycle++) {
      const death = deaths[cycle % deaths.length]!
      const victim = await this.#start()
      await this.#check(victim, () => this.#manifest.touched)
      const before = this.figures.uploads
      await this.#dieUnderLoad(victim, death)
      const { uploads, problems } = this.figures
      say(`${cycle + 1}: died at ${death}; ${uploads - before} files acknowledged, ${problems.length} problems so far`)
    }
    await this.#check(await this.#start(), () => this.#manifest.files)
  }

  async #start(): Promise<StorageProcess> {
    const { figures } = this
    const victim = await this.#cluster.startStorage(VICTIM, this.#options.victim)
    this.#victim = victim
    const { recoveryMs, recovery } = await victim.ready()
    figures.recoveryMs.push(recoveryMs)
    figures.startMs.push(victim.startMs)
    figures.redone += recovery.redone
    figures.swept += recovery.removedTemporaries
    figures.tornBytes += recovery.tornBytes
    if (recovery.damagedLines > 0) this.#problem('untidy', `recovery met ${recovery.damagedLines} damaged lines`)
    // Records that are durable outlive a process; a file that has its name and no record had its effect before it. A slot
    // comes before its record.
    for (const name of recovery.orphans) {
      if (decodeFileName(name).slot === undefined) this.#problem('untidy', `recovery finds no record of ${name}`)
      else figures.adopted++
    }
    for (const name of recovery.missing) this.#problem('lost', `recovery misses ${name}`)
    return victim
  }

  async #dieUnderLoad(victim: StorageProcess, death: Death): Promise<void> {
    const { figures } = this
    const random = this.#random
    const before = figures.interrupted
    const workers = await this.#workers(victim)
    if (isPhase(death)) victim.dieAt(death, 1 + random.below(OCCURRENCES_MAX))
    else if (death === 'acknowledgement') this.#onAcknowledged = after(1 + random.below(OCCURRENCES_MAX), victim)
    const load = Promise.all(workers.map(work => work()))
    if (death === 'moment') {
      await sleep(random.below(LOAD_MS_MAX))
      victim.kill()
    }
    await until('the victim dies', () => !victim.alive, DEATH_MS).catch(() => {
      this.#problem('harness', `the victim lives on after ${death}`)
      victim.kill()
    })
    const how = await victim.exited
    figures.kills++
    figures.owed += this.#manifest.touched.filter(file => this.#isOwed(file)).length
    await load
    this.#onAcknowledged = () => {}
    this.#cluster.disconnect()
    if (how !== 'SIGKILL') this.#problem('down', `the victim ended with ${how}, not by our hand:\n${victim.log}`)
    // A phase is proof of work by itself.
    if (!isPhase(death) && figures.interrupted === before) {
      this.#problem('harness', `kill ${figures.kills}, at ${death}, hit an idle server`)
    }
  }

  /** Connects those who upload and delete for as long as the victim lives. */
  async #workers(victim: StorageProcess): Promise<(() => Promise<void>)[]> {
    const worker = async (
      storageId: number,
      role: 'anonymous' | 'client',
      work: (at: FrameClient) => Promise<void>,
    ) => {
      const connection = await this.#cluster.connect(storageId, role)
      return async () => {
        while (victim.alive && !connection.broken) await work(connection)
      }
    }
    const some = (count: number, connect: () => Promise<() => Promise<void>>) => Array.from({ length: count }, connect)
    const upload = (at: FrameClient) => this.#upload(at)
    return Promise.all([
      ...some(UPLOADERS, () => worker(VICTIM, 'anonymous', upload)),
      ...some(PEER_UPLOADERS, () => worker(PEER, 'anonymous', upload)),
      ...some(SDK_UPLOADERS, () => worker(VICTIM, 'client', at => this.#uploadOnce(at, this.#newUpload()))),
      ...some(DELETERS, () => worker(VICTIM, 'anonymous', at => this.#delete(at))),
    ])
  }

  /** A FastDFS client's upload. */
  async #upload(connection: FrameClient): Promise<void> {
    const bytes = this.#content()
    const reply = await this.#ask(connection, COMMANDS.uploadFile, uploadBody(bytes))
    if (reply !== undefined) this.#keep(readGroupAndName(reply), bytes)
  }

  /** An upload of our own client, which is sent again until it is answered. */
  async #uploadOnce(connection: FrameClient, upload: Upload): Promise<void> {
    this.#unanswered.add(upload)
    const head = writeUploadHead({ uploadId: upload.id, ack: 'one', ackTimeoutMs: undefined })
    const body = Buffer.concat([head, uploadBody(upload.bytes)])
    const reply = await this.#ask(connection, COMMANDS.uploadOnce, body)
    if (reply === undefined) return
    this.#unanswered.delete(upload)
    this.#keep(readUploaded(reply), upload.bytes)
  }

  async #delete(connection: FrameClient): Promise<void> {
    const { figures } = this
    // Half of them have only just come: their creation and deletion are shipped together, or die together.
    const among = this.#random.chance(0.5) ? this.#manifest.touched : this.#manifest.files
    const kept = among.filter(file => file.state === 'kept' && file.source === VICTIM)
    if (kept.length === 0 || figures.uploads < this.#deletionAt) {
      await sleep(1)
      return
    }
    this.#deletionAt = figures.uploads + FILES_PER_DELETION
    const file = this.#random.pick(kept)
    this.#manifest.note(file, 'doubtful')
    const { group, name } = parseFileId(file.fileId)
    if ((await this.#ask(connection, COMMANDS.deleteFile, writeGroupAndName(group, name))) === undefined) return
    this.#manifest.note(file, 'deleted')
    figures.deletions++
    this.#onAcknowledged()
  }

  /** Sends a request; undefined if a kill cut it off. A server that lives has no reason to refuse any of ours. */
  async #ask(connection: FrameClient, command: number, body: Buffer): Promise<Buffer | undefined> {
    try {
      return await connection.request(command, body)
    } catch (error) {
      if (connection.broken) this.figures.interrupted++
      else this.#problem('harness', `command ${command} was refused: ${error}`)
      return undefined
    }
  }

  #keep({ group, name }: FileId, bytes: Buffer): void {
    const { file, wrong } = this.#manifest.keep(formatFileId({ group, name }), bytes)
    if (wrong !== undefined) this.#problem('wrong', wrong)
    this.figures.uploads++
    if (file.source === VICTIM) this.#onAcknowledged()
  }

  #newUpload(): Upload {
    const id = Buffer.alloc(16)
    id.writeUInt32BE(this.#options.seed >>> 0, 0)
    id.writeUInt32BE(this.#uploadIds++, 12)
    return { id: id.toString('hex'), bytes: this.#content() }
  }

  /** Pieces of one noise: cheap, and different wherever they begin. */
  #content(): Buffer {
    const random = this.#random
    const sizeBytes = random.pick(random.chance(LARGE_SHARE) ? LARGE_SIZES : SIZES)
    const from = random.below(this.#noise.length - sizeBytes)
    return this.#noise.subarray(from, from + sizeBytes)
  }

  /** Sends again what was never answered. */
  async #repeat(): Promise<void> {
    const connection = await this.#cluster.connect(VICTIM, 'client')
    for (const upload of [...this.#unanswered]) {
      await this.#uploadOnce(connection, upload)
      this.figures.repeated++
    }
  }

  /** Holds files against the victim's port, and then, when sync has caught up, against both disks. */
  async #check(victim: StorageProcess, filesToCheck: () => readonly Promised[]): Promise<void> {
    await this.#repeat()
    const files = filesToCheck()
    await this.#readBack(files.filter(file => file.source === VICTIM))
    await this.#catchUp(VICTIM, PEER)
    await this.#catchUp(PEER, VICTIM)
    for (const storageId of [VICTIM, PEER]) {
      for (const file of files) this.#compareOnDisk(storageId, file)
      const directory = this.#cluster.dataDirectory(storageId)
      await until('tmp is empty', () => temporariesIn(directory).length === 0, TIDY_MS).catch(ignore)
      for (const what of audit(directory)) this.#problem('untidy', `on ${storageId}: ${what}`)
    }
    if (!victim.alive) this.#problem('down', `the victim ended while it was checked:\n${victim.log}`)
    this.#manifest.checked()
  }

  /** Reads files through the victim's port; what became of a deletion that was cut off shows here. */
  async #readBack(files: readonly Promised[]): Promise<void> {
    const left = [...files]
    const reader = async () => {
      const connection = await this.#cluster.connect(VICTIM, 'client')
      for (let file = left.pop(); file !== undefined; file = left.pop()) await this.#readOne(connection, file)
    }
    await Promise.all(Array.from({ length: READERS }, reader))
  }

  async #readOne(connection: FrameClient, file: Promised): Promise<void> {
    const { fileId, state } = file
    const found = await fetchFile(connection, fileId).catch(error => error as DfsError)
    if (found instanceof Error) {
      const isGone = found instanceof DfsError && found.code === 'not_found'
      if (state === 'kept' || !isGone) this.#problem('lost', `${fileId} (${state}) cannot be read: ${found}`, fileId)
      else if (state === 'doubtful') this.#manifest.note(file, 'deleted')
      return
    }
    if (state === 'deleted') this.#problem('undeleted', `${fileId} can be read again`, fileId)
    else if (digest(found) !== file.sha256) this.#problem('wrong', `${fileId} reads wrong`, fileId)
    else if (state === 'doubtful') this.#manifest.note(file, 'kept')
  }

  /** Waits until a server has applied everything of another's binlog. */
  async #catchUp(source: number, target: number): Promise<void> {
    const end = lastOwnPosition(this.#cluster.dataDirectory(source))
    const connection = await this.#cluster.connect(target, 'peer')
    const caughtUp = async () => !isAfter(end, await this.#cluster.position(connection, source))
    await until(
      `storage server ${target} has everything of ${source}`,
      caughtUp,
      this.#options.syncMs ?? SYNC_MS,
    ).catch(error => this.#problem('missing', `${error}, up to record ${end.sequence} of epoch ${end.epoch}`))
  }

  #compareOnDisk(storageId: number, file: Promised): void {
    const { fileId } = file
    const bytes = this.#bytesOnDisk(storageId, file)
    const where = `on the disk of storage server ${storageId}`
    if (bytes === undefined) {
      if (file.state !== 'kept') return
      this.#problem(storageId === file.source ? 'lost' : 'missing', `${fileId} is not ${where}`, fileId)
    } else if (file.state === 'deleted') this.#problem('undeleted', `${fileId} is still ${where}`, fileId)
    else if (digest(bytes) !== file.sha256) this.#problem('wrong', `${fileId} is wrong ${where}`, fileId)
  }

  #isOwed(file: Promised): boolean {
    return file.state === 'kept' && file.source === VICTIM && this.#bytesOnDisk(PEER, file) === undefined
  }

  #bytesOnDisk(storageId: number, { fileId }: Promised): Buffer | undefined {
    return bytesOnDisk(this.#cluster.dataDirectory(storageId), parseFileId(fileId).name)
  }

  /** Notes a problem, once for each subject. */
  #problem(kind: ProblemKind, what: string, subject = what): void {
    const known = `${kind} ${subject}`
    if (this.#known.has(known)) return
    this.#known.add(known)
    this.figures.problems.push({ kind, what })
  }
}

function isPhase(death: Death): death is Phase {
  return death !== 'moment' && death !== 'acknowledgement'
}

/** Kills at the n-th call, inside of it. */
function after(calls: number, victim: StorageProcess): () => void {
  let left = calls
  return () => {
    if (--left === 0) victim.kill()
  }
}

/** What is not empty in time is told by the audit. */
function ignore(): void {}
