/**
 * Kills a storage server with -9 while appender files are written, metadata is set and slave files come and go, and holds
 * what it had acknowledged against what its port says afterwards, and against its peer. What was under way may have happened
 * or not; once it was seen, it stays.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import {
  readGroupAndName,
  writeChange,
  writeGroupAndName,
  writeSetMetadata,
  writeSlave,
  writeUploadFields,
} from '../../protocol/data-bodies.ts'
import { toDfsError } from '../../protocol/errors.ts'
import { formatFileId, slaveNameOf } from '../../protocol/file-id.ts'
import { COMMANDS } from '../../protocol/frame.ts'
import { STORE_PATH_ANY } from '../../protocol/storage-messages.ts'
import type { FrameClient } from '../../runtime/frame-client.ts'
import type { Phase } from '../../store/phase.ts'
import { fetchFile } from '../data-port.ts'
import { SeededRandom } from '../simulation/seeded-random.ts'
import { until } from '../until.ts'
import { CrashCluster } from './crash-cluster.ts'

const VICTIM = 1
const PEER = 2
const GROUP = 'group1'
const FILES = 4
const LOAD_MS_MAX = 300
const OCCURRENCES_MAX = 30
const DEATH_MS = 20_000
const SYNC_MS = 30_000
/** Around the end of a block, and small. */
const SIZES = [1, 10, 1_000, 5_000, 262_143, 262_144, 262_145]
const FILE_BYTES_MAX = 2 * 2 ** 20
const PHASES: readonly (Phase | 'moment')[] = ['moment', 'written', 'synced', 'recorded', 'renamed', 'acknowledged']

/** Bytes and metadata under a name; undefined if there is no file. */
interface State {
  readonly content: Buffer | undefined
  readonly metadata: string
}

/** What may be there: what was acknowledged, and what was asked for since. */
interface Changing {
  readonly name: string
  states: State[]
}

export interface ChangingFigures {
  kills: number
  changes: number
  interrupted: number
  readonly problems: string[]
}

/** Runs so many kills on a cluster of their own. */
export async function killChangingFiles({ cycles, seed }: { cycles: number; seed: number }): Promise<ChangingFigures> {
  const cluster = await CrashCluster.start()
  const figures: ChangingFigures = { kills: 0, changes: 0, interrupted: 0, problems: [] }
  const random = new SeededRandom(`changing files ${seed}`)
  const files: Changing[] = []
  try {
    await cluster.startStorage(PEER)
    for (let cycle = 0; cycle <= cycles; cycle++) {
      const victim = await cluster.startStorage(VICTIM)
      await victim.ready()
      await check(cluster, files, figures)
      if (cycle === cycles) return figures
      const connection = await cluster.connect(VICTIM)
      while (files.length < FILES) files.push(...(await create(connection, random)))
      const death = PHASES[cycle % PHASES.length]!
      if (death !== 'moment') victim.dieAt(death, 1 + random.below(OCCURRENCES_MAX))
      const work = Promise.all(
        files.map(async (file, i) => {
          const own = random.fork(`cycle ${cycle} file ${i}`)
          const at = await cluster.connect(VICTIM)
          while (victim.alive && !at.broken) await change(at, file, own, figures)
        }),
      )
      if (death === 'moment') {
        await sleep(random.below(LOAD_MS_MAX))
        victim.kill()
      }
      await until('the victim dies', () => !victim.alive, DEATH_MS)
      await victim.exited
      await work
      figures.kills++
      cluster.disconnect()
    }
    return figures
  } finally {
    await cluster.remove()
  }
}

/** An appender file, and the name of a slave file of it that is not there yet. */
async function create(connection: FrameClient, random: SeededRandom): Promise<Changing[]> {
  const content = random.bytes(random.pick(SIZES))
  const fields = writeUploadFields({ storePathIndex: STORE_PATH_ANY, sizeBytes: content.length, extension: 'log' })
  const { name } = readGroupAndName(await connection.request(COMMANDS.uploadAppender, Buffer.concat([fields, content])))
  return [
    { name, states: [{ content, metadata: '' }] },
    { name: slaveNameOf(name, '_slave', 'txt'), states: [{ content: undefined, metadata: '' }] },
  ]
}

/** Does one thing more to a file. */
async function change(
  connection: FrameClient,
  file: Changing,
  random: SeededRandom,
  figures: ChangingFigures,
): Promise<void> {
  const before = file.states.at(-1)!
  const { after, command, body } = nextOf(file.name, before, random)
  file.states = [before, after]
  try {
    await connection.request(command, body)
    file.states = [after]
    figures.changes++
  } catch (error) {
    if (connection.broken) figures.interrupted++
    else figures.problems.push(`command ${command} on ${file.name} was refused: ${error}`)
  }
}

function nextOf(name: string, { content, metadata }: State, random: SeededRandom) {
  const bytes = random.bytes(random.pick(SIZES))
  if (content === undefined) {
    const master = name.replace('_slave.txt', '.log')
    const head = writeSlave({ sizeBytes: bytes.length, prefix: '_slave', extension: 'txt' }, master)
    return {
      after: { content: bytes, metadata: '' },
      command: COMMANDS.uploadSlave,
      body: Buffer.concat([head, bytes]),
    }
  }
  if (random.chance(0.3)) {
    const text = `n\x02${random.below(1_000_000)}`
    const fields = { group: GROUP, name, metadata: Buffer.from(text), merges: false }
    return { after: { content, metadata: text }, command: COMMANDS.setMetadata, body: writeSetMetadata(fields) }
  }
  if (name.endsWith('_slave.txt')) {
    const body = writeGroupAndName(GROUP, name)
    return { after: { content: undefined, metadata: '' }, command: COMMANDS.deleteFile, body }
  }
  if (content.length > FILE_BYTES_MAX || random.chance(0.2)) {
    const sizeBytes = random.below(content.length + 1)
    const after = { content: content.subarray(0, sizeBytes), metadata }
    return { after, command: COMMANDS.truncate, body: writeChange(name, sizeBytes) }
  }
  if (random.chance(0.5)) {
    const after = { content: Buffer.concat([content, bytes]), metadata }
    return { after, command: COMMANDS.append, body: Buffer.concat([writeChange(name, bytes.length), bytes]) }
  }
  const offset = random.below(content.length + 1)
  const rest = content.subarray(Math.min(content.length, offset + bytes.length))
  const after = { content: Buffer.concat([content.subarray(0, offset), bytes, rest]), metadata }
  return { after, command: COMMANDS.modify, body: Buffer.concat([writeChange(name, offset, bytes.length), bytes]) }
}

/** Holds all files against what the source says, and waits until its peer says the same. */
async function check(cluster: CrashCluster, files: readonly Changing[], figures: ChangingFigures): Promise<void> {
  const source = await cluster.connect(VICTIM, 'client')
  const peer = await cluster.connect(PEER, 'peer')
  for (const file of files) {
    const found = await stateOf(source, file.name)
    if (!file.states.some(state => isSame(state, found)))
      figures.problems.push(
        `${file.name} has ${tell(found)} after kill ${figures.kills}, not ${file.states.map(tell).join(' or ')}`,
      )
    file.states = [found]
    const isAtPeer = async () => isSame(await stateOf(peer, file.name), found)
    await until('the peer has it', isAtPeer, SYNC_MS).catch(async () => {
      const there = tell(await stateOf(peer, file.name))
      figures.problems.push(`the peer has ${there} of ${file.name} after kill ${figures.kills}, not ${tell(found)}`)
    })
  }
}

async function stateOf(connection: FrameClient, name: string): Promise<State> {
  try {
    const content = await fetchFile(connection, formatFileId({ group: GROUP, name }))
    const metadata = await connection.request(COMMANDS.getMetadata, writeGroupAndName(GROUP, name))
    return { content, metadata: metadata.toString('latin1') }
  } catch (error) {
    const { code } = toDfsError(error)
    if (code === 'not_found' || code === 'not_here') return { content: undefined, metadata: '' }
    // While a peer is still being told of changes, a range may lie beyond what it has.
    if (code === 'unavailable' || code === 'bad_range') return { content: Buffer.alloc(0), metadata: code }
    throw error
  }
}

function isSame(a: State, b: State): boolean {
  if (a.content === undefined || b.content === undefined) return a.content === b.content
  return a.metadata === b.metadata && a.content.equals(b.content)
}

function tell({ content, metadata }: State): string {
  return content === undefined ? 'nothing' : `${content.length} bytes with metadata ${JSON.stringify(metadata)}`
}
