import {
  readGroupAndName,
  writeChange,
  writeGroupAndName,
  writeSetMetadata,
  writeSlave,
  writeUploadFields,
} from '../../protocol/data-bodies.ts'
import { type ErrorCode, toDfsError } from '../../protocol/errors.ts'
import { formatFileId, slaveNameOf } from '../../protocol/file-id.ts'
import { COMMANDS, REQUEST_STATUS } from '../../protocol/frame.ts'
import { STORE_PATH_ANY } from '../../protocol/storage-messages.ts'
import type { FrameClient } from '../../runtime/frame-client.ts'
import { fetchFile } from '../data-port.ts'
import type { SeededRandom } from '../simulation/seeded-random.ts'
import { until } from '../until.ts'

export const GROUP = 'group1'
/** Around the end of a block, and small. */
const SIZES = [1, 10, 1_000, 5_000, 262_143, 262_144, 262_145]
const FILE_BYTES_MAX = 2 * 2 ** 20
/** A change that is answered with these may have been made, or not. */
const UNCERTAIN: ReadonlySet<ErrorCode> = new Set(['unavailable', 'ack_timeout'])
/** A round, or two that got into each other's way, on a busy machine. */
const ORDERED_MS = 30_000

/** Bytes and metadata under a name; undefined if there is no file. */
export interface State {
  readonly content: Buffer | undefined
  readonly metadata: string
}

/** What may be there: what was acknowledged, and what was asked for since. */
export interface Changing {
  readonly name: string
  states: State[]
}

export interface ChangingFigures {
  kills: number
  changes: number
  interrupted: number
  readonly problems: string[]
}

/** An appender file, and the name of a slave file of it that is not there yet. */
export async function create(connection: FrameClient, random: SeededRandom): Promise<Changing[]> {
  const content = random.bytes(random.pick(SIZES))
  const fields = writeUploadFields({ storePathIndex: STORE_PATH_ANY, sizeBytes: content.length, extension: 'log' })
  const { name } = readGroupAndName(await connection.request(COMMANDS.uploadAppender, Buffer.concat([fields, content])))
  return [
    { name, states: [{ content, metadata: '' }] },
    { name: slaveNameOf(name, '_slave', 'txt'), states: [{ content: undefined, metadata: '' }] },
  ]
}

/** Does one thing more to a file, to its bytes if `isContent`. */
export async function change(
  connection: FrameClient,
  file: Changing,
  random: SeededRandom,
  figures: ChangingFigures,
  { isContent = false } = {},
): Promise<void> {
  const before = file.states.at(-1)!
  const { after, command, body } = nextOf(file.name, before, random, isContent)
  file.states = [before, after]
  try {
    await connection.request(command, body)
    file.states = [after]
    figures.changes++
  } catch (error) {
    if (connection.broken || UNCERTAIN.has(toDfsError(error).code)) figures.interrupted++
    else figures.problems.push(`command ${command} on ${file.name} was refused: ${error}`)
  }
}

function nextOf(name: string, { content, metadata }: State, random: SeededRandom, isContent: boolean) {
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
  if (!isContent && random.chance(0.3)) {
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

/** What is under a name; `strong` is for who orders its changes, and `unavailable` to all others. */
export async function stateOf(connection: FrameClient, name: string, status = 0): Promise<State> {
  try {
    const content = await fetchFile(connection, formatFileId({ group: GROUP, name }), { status })
    const metadata = await connection.request(COMMANDS.getMetadata, writeGroupAndName(GROUP, name), status)
    return { content, metadata: metadata.toString('latin1') }
  } catch (error) {
    const { code } = toDfsError(error)
    if (code === 'not_found' || code === 'not_here') return { content: undefined, metadata: '' }
    // While a peer is still being told of changes, a range may lie beyond what it has.
    if (code === 'unavailable' || code === 'bad_range') return { content: Buffer.alloc(0), metadata: code }
    throw error
  }
}

export function isSame(a: State, b: State): boolean {
  if (a.content === undefined || b.content === undefined) return a.content === b.content
  return a.metadata === b.metadata && a.content.equals(b.content)
}

export function tell({ content, metadata }: State): string {
  return content === undefined ? 'nothing' : `${content.length} bytes with metadata ${JSON.stringify(metadata)}`
}

/** Waits until one of some members orders the changes of a file; resolves with what it has, or undefined if all have gone. */
export async function orderedState(members: readonly FrameClient[], name: string): Promise<State | undefined> {
  let found: State | undefined
  await until(
    'somebody orders the changes',
    async () => {
      const alive = members.filter(member => !member.broken)
      for (const member of alive) {
        found = await stateOf(member, name, REQUEST_STATUS.strong).catch(() => undefined)
        if (found !== undefined && found.metadata !== 'unavailable') return true
      }
      found = undefined
      return alive.length === 0
    },
    ORDERED_MS,
  )
  return found
}

/** Takes what is there for what has come of a file; a problem, if that may not be. */
export function settle(file: Changing, found: State, figures: ChangingFigures): void {
  if (!file.states.some(state => isSame(state, found)))
    figures.problems.push(
      `${file.name} has ${tell(found)} after kill ${figures.kills}, not ${file.states.map(tell).join(' or ')}`,
    )
  file.states = [found]
}
