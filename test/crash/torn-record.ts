/**
 * Damages the end of a binlog, a slot, or a file, at each of its bytes and in each way, and looks what becomes of it.
 *
 *     copy a prepared pair ──▶ damage ──▶ start ──▶ read all ──▶ upload ──▶ start again ──▶ read all ──▶ ship to the peer
 *
 * Whatever the damage: the server starts, everything acknowledged is read back right and reaches the peer, and no name
 * is given twice. A damaged file is never shown: the store refuses it, and the port gives what the peer has. A damaged slot
 * costs its own file and no other.
 */
import { rmSync } from 'node:fs'
import { mkdtemp, open, readFile, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { readGroupAndName } from '../../protocol/data-bodies.ts'
import { DfsError } from '../../protocol/errors.ts'
import { decodeFileName, formatFileId } from '../../protocol/file-id.ts'
import { COMMANDS } from '../../protocol/frame.ts'
import type { FrameClient } from '../../runtime/frame-client.ts'
import type { FileStore } from '../../store/file-store.ts'
import { hasSidecar, sidecarPath } from '../../store/sidecar.ts'
import { SLOT_HEADER_BYTES } from '../../store/slot.ts'
import { fetchFile, uploadBody } from '../data-port.ts'
import { SeededRandom } from '../simulation/seeded-random.ts'
import { download, upload } from '../store/store-fixture.ts'
import { until } from '../until.ts'
import { type CrashCluster, GROUP } from './crash-cluster.ts'
import { audit, bytesOnDisk, pathOnDisk } from './data-audit.ts'
import {
  copyData,
  type OpenStore,
  openPrepared,
  type PairOptions,
  PEER,
  type PreparedPair,
  preparePair,
  SOURCE,
  ship,
} from './prepared-pair.ts'
import type { Problem, Say } from './problem.ts'

/** Torn: cut off there. Garbled: anything from there to the end. Flipped: one bit of that byte. */
export const DAMAGES = ['torn', 'garbled', 'flipped'] as const
export type Damage = (typeof DAMAGES)[number]

/** What is done to a file, at a byte of it. */
interface Wound {
  readonly at: number
  readonly damage: Damage
}

export interface DamageFigures {
  readonly runs: number
  readonly problems: readonly Problem[]
}

export interface RecordDamageOptions extends PairOptions {
  readonly seed: number
  /** Of each damage, every how many bytes; all of them at every byte unless told otherwise. */
  readonly steps?: Partial<Record<Damage, number>>
  /** Makes it worse, to see it caught. */
  readonly sabotage?: (source: string, lastName: string) => Promise<void>
}

/** Of a packed file's name: where its slot is, and what comes behind. */
const EXTENT_AND_TAIL_LENGTH = 23
const TAIL_LENGTH = 7

/** While one run waits for its disk, the others calculate. */
const LANES = 4
/** A sample syncs a dozen files; this machine may be shared. */
const SYNC_MS = 20_000

/** What is damaged: bytes of a file below the data directory of the source. */
interface Victim {
  readonly path: string
  readonly start: number
  readonly end: number
  /** The file that these bytes are; it may be lost with them. */
  readonly own?: string
  /** The last flush of the binlog is gone, too. */
  readonly isFlushCut?: boolean
}

/** Damages the last flush of a binlog, with stores in this process. */
export function damageRecords(options: RecordDamageOptions): Promise<DamageFigures> {
  return damageEach(options, pair => pair.lastFlush)
}

/** Damages the slot of the file that came last; with `isFlushCut`, nothing but the slot tells of it any more. */
export function damageSlots(options: RecordDamageOptions & { readonly isFlushCut?: boolean }): Promise<DamageFigures> {
  const { isFlushCut = false } = options
  return damageEach(options, pair => {
    const [own] = lastOf(pair)
    const { start, end } = extentOf(own)
    return { path: relative(pair.source, pathOnDisk(pair.source, own)), start, end, own, isFlushCut }
  })
}

function damageEach(options: RecordDamageOptions, victimOf: (pair: PreparedPair) => Victim): Promise<DamageFigures> {
  return inTemporaryDirectory(async directory => {
    const pair = await preparePair(directory, options)
    const victim = victimOf(pair)
    const { start, end } = victim
    const wounds = woundsOf(start, end, options.steps)
    const problems: Problem[] = []
    const random = new SeededRandom(`records ${options.seed}`)
    const left = wounds.values()
    const lane = async (_: unknown, i: number) => {
      // One directory for all runs of a lane: most of a copy is there already.
      const room = join(directory, `lane ${i}`)
      for (const wound of left) {
        const say = sayer(problems, `${nameOf(pair)}, ${wound.damage} at ${wound.at - start} of ${end - start}`)
        await damageOne(pair, victim, wound, room, random, say, options.sabotage).catch(error =>
          say('down', error.stack),
        )
      }
    }
    await Promise.all(Array.from({ length: LANES }, lane))
    return { runs: wounds.length, problems }
  })
}

/** The same at some bytes, with storage servers that are processes of their own, and with sync between them. */
export function damageRecordsOfServers(
  cluster: CrashCluster,
  options: PairOptions & { readonly seed: number; readonly samples: number },
): Promise<DamageFigures> {
  return inTemporaryDirectory(async directory => {
    const pair = await preparePair(directory, options)
    const { start, end } = pair.lastFlush
    const random = new SeededRandom(`servers ${options.seed}`)
    const problems: Problem[] = []
    for (let i = 0; i < options.samples; i++) {
      const wound = { at: start + random.below(end - start), damage: DAMAGES[i % DAMAGES.length]! }
      const say = sayer(problems, `servers, ${nameOf(pair)}, ${wound.damage} at ${wound.at - start} of ${end - start}`)
      await damageServer(cluster, pair, wound, join(directory, `run ${i}`), random, say).catch(error =>
        say('down', error.stack),
      )
      await cluster.killAll()
    }
    return { runs: options.samples, problems }
  })
}

/**
 * Damages files that the peer has too, and a sidecar: read in this process they have to be right or refused; through a
 * server's port, if there is a cluster, they have to be right.
 */
export function damageFiles(options: {
  readonly seed: number
  readonly step?: number
  readonly plain?: boolean
  readonly cluster?: CrashCluster
}): Promise<DamageFigures> {
  const { seed, step = 1, plain = false, cluster } = options
  return inTemporaryDirectory(async directory => {
    const pair = await preparePair(directory, { replicated: true, checkpointed: true, plain })
    const random = new SeededRandom(`files ${seed}`)
    const problems: Problem[] = []
    const steps = { torn: step, garbled: step, flipped: step }
    const { read, close } = cluster ? await readerOfServer(cluster, pair) : await readerOfStore(pair)
    let runs = 0
    for (const [name, content] of woundable(pair)) {
      const path = pathOnDisk(pair.source, name)
      const victim = hasSidecar(content.length) ? sidecarPath(path) : path
      const sound = await readFile(victim)
      const { start, end } = decodeFileName(name).slot ? extentOf(name) : { start: 0, end: sound.length }
      for (const wound of woundsOf(start, end, steps)) {
        await inflict(victim, end, wound, random)
        const found = await read(name).catch(error => error as Error)
        const say = sayer(problems, `${victim}, ${wound.damage} at ${wound.at}`)
        if (found instanceof Error) say('lost', `${found}`)
        else if (found !== undefined && !found.equals(content)) say('wrong', 'other bytes were given')
        await writeFile(victim, sound)
        runs++
      }
    }
    await close()
    return { runs, problems }
  })
}

async function damageOne(
  pair: PreparedPair,
  victim: Victim,
  wound: Wound,
  directory: string,
  random: SeededRandom,
  say: Say,
  sabotage: RecordDamageOptions['sabotage'],
): Promise<void> {
  const damaged = join(directory, 'source')
  copyData(pair.source, damaged)
  copyData(pair.peer, join(directory, 'peer'))
  await inflict(join(damaged, victim.path), victim.end, wound, random)
  if (victim.isFlushCut) await truncate(join(damaged, pair.lastFlush.path), pair.lastFlush.start)
  await sabotage?.(damaged, lastOf(pair)[0])
  const peer = await openPrepared(join(directory, 'peer'), PEER, pair)
  const source = await admitted(await openPrepared(damaged, SOURCE, pair), peer.store)
  const files = new Map(pair.files)
  if (victim.own !== undefined) files.delete(victim.own)
  const { deleted } = pair
  await expectRightOrRefused(pair, victim, name => download(source.store, name), say)
  await expectAll(files, deleted, name => download(source.store, name), say, 'lost')

  // What has been there before is what a name would be given to again.
  for (const [, content] of [lastOf(pair), firstOf(pair)]) {
    const name = await upload(source.store, content)
    if (files.has(name) || name === victim.own || deleted.includes(name)) say('wrong', `${name} is given again`)
    files.set(name, content)
  }
  const copy = join(directory, 'source again')
  copyData(damaged, copy)
  await source.close()
  const again = await admitted(await openPrepared(copy, SOURCE, pair), peer.store)
  const { tornBytes, damagedLines, missing, orphans } = again.store.recovery
  if (tornBytes + damagedLines + missing.length + orphans.length > 0) {
    say('untidy', `the second start is not clean: ${JSON.stringify(again.store.recovery)}`)
  }
  await expectAll(files, deleted, name => download(again.store, name), say, 'lost')
  await ship(again.store, peer.store)
  await expectAll(files, deleted, name => download(peer.store, name), say, 'missing')
  await expectRightOrRefused(pair, victim, name => download(again.store, name), say)
  await expectRightOrRefused(pair, victim, name => download(peer.store, name), say)
  await again.close()
  await peer.close()
  for (const what of audit(copy)) if (!isAboutSlotOf(victim.own, what)) say('untidy', what)
}

/** Whether something is said of the place of a file, whose name there is another when its header is damaged. */
function isAboutSlotOf(own: string | undefined, what: string): boolean {
  return own !== undefined && what.includes(own.slice(-EXTENT_AND_TAIL_LENGTH, -TAIL_LENGTH))
}

/** What was damaged itself reads right or not at all. */
async function expectRightOrRefused(
  pair: PreparedPair,
  { own }: Victim,
  read: (name: string) => Promise<Buffer | undefined>,
  say: Say,
): Promise<void> {
  if (own === undefined) return
  const found = await read(own).catch(error => error as Error)
  const isRefused = found === undefined || (found instanceof DfsError && found.code === 'corrupt')
  if (!isRefused && !(Buffer.isBuffer(found) && found.equals(pair.files.get(own)!))) say('wrong', `${own} is ${found}`)
}

/** What a tracker makes of a server that has less of its own binlog than a peer has. */
async function admitted(source: OpenStore, peer: FileStore): Promise<OpenStore> {
  const { epoch, end } = source.store
  const known = peer.position(SOURCE)
  const isBehind = known !== undefined && known.epoch === epoch && known.sequence > end.sequence
  return isBehind ? source.raise(epoch + 1) : source
}

async function damageServer(
  cluster: CrashCluster,
  pair: PreparedPair,
  wound: Wound,
  directory: string,
  random: SeededRandom,
  say: Say,
): Promise<void> {
  const damaged = join(directory, 'source')
  const peer = join(directory, 'peer')
  copyData(pair.source, damaged)
  copyData(pair.peer, peer)
  await inflict(join(damaged, pair.lastFlush.path), pair.lastFlush.end, wound, random)
  // The one before has heard of later starts of this server.
  await cluster.renewTracker()
  await cluster.startStorage(PEER, { dataDirectory: peer })
  const first = await cluster.startStorage(SOURCE, { dataDirectory: damaged })
  const connection = await cluster.connect(SOURCE)
  const files = new Map(pair.files)
  const { deleted } = pair
  await expectAll(files, deleted, name => downloadIfThere(connection, name), say, 'lost')
  const [, content] = lastOf(pair)
  const { name } = readGroupAndName(await connection.request(COMMANDS.uploadFile, uploadBody(content, 'txt')))
  if (files.has(name)) say('wrong', `${name} is given again`)
  files.set(name, content)

  first.kill()
  await first.exited
  await cluster.startStorage(SOURCE, { dataDirectory: damaged })
  const again = await cluster.connect(SOURCE)
  await expectAll(files, deleted, name => downloadIfThere(again, name), say, 'lost')
  const readPeer = async (name: string) => bytesOnDisk(peer, name)
  const isThere = async () => (await Promise.all([...files.keys()].map(readPeer))).every(found => found !== undefined)
  await until('the peer has every file', isThere, SYNC_MS).catch(ignore)
  await expectAll(files, deleted, readPeer, say, 'missing')
}

/** Reads every file and says which are not there, or not right. */
async function expectAll(
  files: ReadonlyMap<string, Buffer>,
  deleted: readonly string[],
  read: (name: string) => Promise<Buffer | undefined>,
  say: Say,
  kind: 'lost' | 'missing',
): Promise<void> {
  for (const [name, content] of files) {
    const found = await read(name).catch(error => error as Error)
    if (found === undefined) say(kind, `${name} is not there`)
    else if (found instanceof Error) say(kind, `${name} cannot be read: ${found}`)
    else if (!found.equals(content)) say('wrong', `${name} reads wrong`)
  }
  for (const name of deleted) if ((await read(name)) !== undefined) say('undeleted', `${name} is there`)
}

/** Reads through a server's port, with the pair's own directories under it. */
async function readerOfServer(cluster: CrashCluster, pair: PreparedPair) {
  await cluster.renewTracker()
  await cluster.startStorage(PEER, { dataDirectory: pair.peer })
  await cluster.startStorage(SOURCE, { dataDirectory: pair.source })
  const connection = await cluster.connect(SOURCE)
  const read = (name: string): Promise<Buffer | undefined> => fetchFile(connection, `${GROUP}/${name}`)
  return { read, close: () => cluster.killAll() }
}

/** Reads from a store in this process; undefined for what it finds corrupt. */
async function readerOfStore(pair: PreparedPair) {
  const source = await openPrepared(pair.source, SOURCE, pair)
  const read = async (name: string) => {
    try {
      return await download(source.store, name)
    } catch (error) {
      if (error instanceof DfsError && error.code === 'corrupt') return undefined
      throw error
    }
  }
  return { read, close: () => source.close() }
}

async function downloadIfThere(connection: FrameClient, name: string): Promise<Buffer | undefined> {
  try {
    return await fetchFile(connection, formatFileId({ group: GROUP, name }))
  } catch (error) {
    if (error instanceof DfsError && error.code === 'not_found') return undefined
    throw error
  }
}

/** The small file that came last, and the one that has a sidecar. */
function woundable(pair: PreparedPair): [string, Buffer][] {
  return [...pair.files].filter(([, content], i, all) => i === all.length - 1 || hasSidecar(content.length))
}

/** Where a packed file lies in its segment, with its header and without what is left of its slot. */
function extentOf(name: string): { start: number; end: number } {
  const { slot, sizeBytes } = decodeFileName(name)
  const start = slot!.offsetBytes
  return { start, end: start + SLOT_HEADER_BYTES + sizeBytes! }
}

function firstOf(pair: PreparedPair): [string, Buffer] {
  return [...pair.files][0]!
}

function lastOf(pair: PreparedPair): [string, Buffer] {
  return [...pair.files].at(-1)!
}

/** All wounds from one byte to another. */
function woundsOf(start: number, end: number, steps: Partial<Record<Damage, number>> = ALL): Wound[] {
  return DAMAGES.flatMap(damage => {
    const step = steps[damage]
    const count = step === undefined ? 0 : Math.ceil((end - start) / step)
    return Array.from({ length: count }, (_, i) => ({ at: start + i * step!, damage }))
  })
}

const ALL = { torn: 1, garbled: 1, flipped: 1 }

async function inflict(path: string, end: number, { at, damage }: Wound, random: SeededRandom): Promise<void> {
  if (damage === 'torn') return truncate(path, at)
  const file = await open(path, 'r+')
  try {
    const piece = damage === 'garbled' ? random.bytes(end - at) : Buffer.alloc(1)
    if (damage === 'flipped') {
      await file.read(piece, 0, 1, at)
      piece[0]! ^= 1 << random.below(8)
    }
    await file.write(piece, 0, piece.length, at)
  } finally {
    await file.close()
  }
}

function nameOf({ replicated, checkpointed, plain }: PairOptions): string {
  return `${plain ? 'plain, ' : ''}${replicated ? 'replicated' : 'not replicated'}, ${checkpointed ? 'checkpoint' : 'no checkpoint'}`
}

function sayer(problems: Problem[], where: string): Say {
  return (kind, what) => problems.push({ kind, what: `${where}: ${what}` })
}

async function inTemporaryDirectory<T>(work: (directory: string) => Promise<T>): Promise<T> {
  const directory = await mkdtemp(join(tmpdir(), 'natsdfs-torn-'))
  try {
    return await work(directory)
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

/** What has not come in time is told by the comparison. */
function ignore(): void {}
