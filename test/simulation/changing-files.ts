/**
 * What clients do to names that may change: appender files, slave files, metadata. Every operation goes into the history of
 * its name, with what was answered.
 */
import { crc32 } from '@node-rs/crc32'
import { toDfsError } from '../../protocol/errors.ts'
import { decodeFileName, type FileNameParts, formatFileId, parseFileId, slaveNameOf } from '../../protocol/file-id.ts'
import type { Door, Doors } from './doors.ts'
import {
  type Apply,
  type Explains,
  type FileState,
  type History,
  metadataText,
  NOTHING,
  stampedBytes,
  strangerIn,
  tell,
} from './history.ts'
import type { Ledger } from './ledger.ts'
import type { Life } from './life.ts'
import type { SeededRandom } from './seeded-random.ts'
import { STORAGES } from './sim-cluster.ts'
import { ACCEPTABLE, fail, type WorkloadContext } from './workload.ts'

const KIB = 1024
/** Small ones, around one block, and more than one. */
const SIZES: readonly (readonly [min: number, max: number])[] = [
  [1, 40],
  [1, 40],
  [1, 4 * KIB],
  [1, 4 * KIB],
  [1, 4 * KIB],
  [256 * KIB - 1, 256 * KIB + 2],
  [1, 300 * KIB],
]
/** Then it is cut. */
const FILE_BYTES_MAX = 600 * KIB
/** Appender files that a client works on at the same time. */
const APPENDERS_MAX = 2
const PREFIXES = ['_a', '_b']
const METADATA_NAMES = ['color', 'size', 'weight']
/** The share of reads that ask for the last change there is. */
const STRONG = 0.6
/** The share of changes that go to a member that will be gone in a moment. */
const LAST = 0.7
/** Attempts of the SDK that may still be under way; more make no difference that a file of so few operations shows. */
const LATE_ATTEMPTS_MAX = 2

/** A client that works, and what it has. */
export interface Worker {
  readonly context: WorkloadContext
  readonly doors: Doors
  readonly life: Life
  /** The names it has made. */
  readonly own: History[]
}

/** One operation, from its begin to its answer. */
interface Attempt {
  readonly worker: Worker
  readonly history: History
  readonly what: string
  /** Undefined for one that only looks. */
  readonly apply?: Apply
  /** What an expected refusal says of the file. */
  readonly refusals?: Readonly<Record<string, Explains>>
  /** Whether what was seen is surely the last there was; else it may be of the past. */
  readonly isExact?: boolean
  /** Whether it was asked of the source, which surely has the last if nobody else ever had the file. */
  readonly isOfSource?: boolean
}

const isGone: Explains = ({ content }) => content === undefined

/** Does one thing to one name. */
export async function change(worker: Worker, random: SeededRandom): Promise<void> {
  const { ledger } = worker.context
  const own = worker.own.filter(history => history.isUsable && !ledger.isExcused(history.name))
  if (own.filter(({ kind }) => kind === 'appender').length < APPENDERS_MAX) return create(worker, 'appender', random)
  if (!own.some(({ kind }) => kind === 'plain')) return create(worker, 'plain', random)
  const others = ledger.histories.filter(history => history.isUsable && !ledger.isExcused(history.name))
  const { lonely } = ledger
  const last = others.filter(({ source }) => lonely?.sources.includes(source))
  const isLast = random.chance(LAST) && last.length > 0
  const history = random.pick(isLast ? last : random.chance(0.75) ? own : others)
  const kind = random.below(100)
  if (kind < 25) return look(worker, history, random)
  if (kind < 40) return setMetadata(worker, history, random)
  if (history.kind === 'slave' && random.chance(0.5)) return uploadSlave(worker, history, random)
  if (history.kind === 'slave' || (history.kind === 'plain' && kind > 90)) return remove(worker, history, random)
  if (history.kind === 'plain') return setMetadata(worker, history, random)
  if (kind < 50) return followSlave(worker, history, random)
  if (history.sizeBytes > FILE_BYTES_MAX || kind < 62) return truncate(worker, history, random)
  if (kind < 75) return modify(worker, history, random)
  if (kind < 98) return append(worker, history, random)
  return random.chance(0.5) ? regenerate(worker, history, random) : remove(worker, history, random)
}

async function create(worker: Worker, kind: 'appender' | 'plain', random: SeededRandom): Promise<void> {
  const { context, doors, life, own } = worker
  const { loop, ledger } = context
  const { number, bytes: content } = written(worker, undefined, random)
  const begunMs = loop.nowMs
  const options = { extension: 'log' }
  try {
    const { fileId } = await (kind === 'plain'
      ? doors.client.upload(content, options)
      : doors.client.uploadAppender(content, options))
    loop.note(life.name, `uploaded ${fileId} as #${number}, ${content.length} bytes`)
    const there = { content, metadata: '' }
    const isHeld = kind === 'appender' && worker.context.ackOf(parseFileId(fileId).group) !== 'one'
    const now = () => loop.nowMs
    const history = ledger.follow(fileId, kind, isHeld ? [there] : [NOTHING, there], { begunMs, now })
    ledger.noteChange(history, begunMs)
    history.writers.add(number)
    own.push(history)
    ledger.changes++
  } catch (error) {
    fail(context, life, `upload #${number}`, error, ACCEPTABLE)
  }
}

/** From now on a slave file may be there, under a name that is known before. */
async function followSlave(worker: Worker, master: History, random: SeededRandom): Promise<void> {
  const { loop, ledger } = worker.context
  const { group, name } = parseFileId(master.fileId)
  const slave = slaveNameOf(name, random.pick(PREFIXES), 'txt')
  const known = ledger.history(slave)
  const times = { begunMs: loop.nowMs, now: () => loop.nowMs }
  const history = known ?? ledger.follow(formatFileId({ group, name: slave }), 'slave', [NOTHING], times)
  if (known === undefined) worker.own.push(history)
  if (history.isUsable) return uploadSlave(worker, history, random)
}

async function append(worker: Worker, history: History, random: SeededRandom): Promise<void> {
  const { number, bytes } = written(worker, history, random)
  const apply: Apply = ({ content, metadata }) => content && { content: Buffer.concat([content, bytes]), metadata }
  const { door, to } = doorFor(worker, history, random)
  const attempt = { worker, history, what: `append #${number}, ${bytes.length} bytes${to}`, apply }
  const isAlone = history.open === 0
  // Whether a repeated attempt has written the SDK sees by the size, which is of use to somebody who writes alone.
  const isSure = (repeated: boolean) => !repeated || (isAlone && history.open <= 1 + LATE_ATTEMPTS_MAX)
  await tried(attempt, options => door.append(history.fileId, bytes, options), { isSure })
}

async function modify(worker: Worker, history: History, random: SeededRandom): Promise<void> {
  const { number, bytes } = written(worker, history, random)
  const at = random.chance(0.1) ? history.sizeBytes : random.below(history.sizeBytes + 1)
  const apply: Apply = ({ content, metadata }) => {
    if (content === undefined || at > content.length) return undefined
    return { content: Buffer.concat([content.subarray(0, at), bytes, content.subarray(at + bytes.length)]), metadata }
  }
  const { door, to } = doorFor(worker, history, random)
  const refusals = { bad_range: ({ content }: FileState) => content !== undefined && at > content.length }
  const what = `modify #${number}, ${bytes.length} bytes at ${at}${to}`
  const attempt = { worker, history, what, apply, refusals }
  await tried(attempt, options => door.modify(history.fileId, at, bytes, options))
}

async function truncate(worker: Worker, history: History, random: SeededRandom): Promise<void> {
  const isLarge = history.sizeBytes > FILE_BYTES_MAX
  const sizeBytes = random.below(isLarge ? 10 * KIB : history.sizeBytes + 1)
  const apply: Apply = ({ content, metadata }) => {
    if (content === undefined || sizeBytes > content.length) return undefined
    return { content: content.subarray(0, sizeBytes), metadata }
  }
  const { door, to } = doorFor(worker, history, random)
  const refusals = { bad_range: ({ content }: FileState) => content !== undefined && sizeBytes > content.length }
  const attempt = { worker, history, what: `truncate to ${sizeBytes}${to}`, apply, refusals }
  await tried(attempt, options => door.truncate(history.fileId, sizeBytes, options))
}

async function setMetadata(worker: Worker, history: History, random: SeededRandom): Promise<void> {
  const number = worker.context.ledger.nextOperation()
  const merge = random.chance(0.5)
  const names = METADATA_NAMES.filter(() => random.chance(0.5))
  const set = Object.fromEntries(names.map(name => [name, `#${number}`]))
  const apply: Apply = ({ content, metadata }) => {
    if (content === undefined) return undefined
    return { content, metadata: metadataText(merge ? { ...entriesOf(metadata), ...set } : set) }
  }
  const { door, to } = doorFor(worker, history, random)
  const attempt = { worker, history, what: `${merge ? 'merge' : 'set'} {${metadataText(set)}}${to}`, apply }
  await tried(attempt, options => door.setMetadata(history.fileId, set, { merge, ...options }))
}

async function uploadSlave(worker: Worker, history: History, random: SeededRandom): Promise<void> {
  const { number, bytes } = written(worker, history, random)
  const apply: Apply = ({ content }) => (content === undefined ? { content: bytes, metadata: '' } : undefined)
  const { door, to } = doorFor(worker, history, random)
  // That the master is not there says nothing of the slave file.
  const refusals = { already_exists: ({ content }: FileState) => content !== undefined, not_found: () => true }
  const what = `upload slave #${number}, ${bytes.length} bytes${to}`
  const attempt = { worker, history, what, apply, refusals }
  const { master, prefix } = partsOf(history)
  await tried(attempt, options => door.uploadSlave(master, bytes, { prefix, extension: 'txt', ...options }))
}

async function remove(worker: Worker, history: History, random: SeededRandom): Promise<void> {
  const apply: Apply = ({ content }) => content && NOTHING
  const { door, to } = doorFor(worker, history, random)
  // To the SDK a repeated deletion of what is not there was done by an earlier attempt.
  const applyAgain: Apply = () => NOTHING
  const attempt = { worker, history, what: `delete${to}`, apply }
  if (history.kind !== 'slave') history.isOver = true
  await tried(attempt, options => door.delete(history.fileId, options), { applyAgain })
}

async function regenerate(worker: Worker, history: History, random: SeededRandom): Promise<void> {
  const { loop, ledger } = worker.context
  const begunMs = loop.nowMs
  const { door, to } = doorFor(worker, history, random)
  let became: FileNameParts | undefined
  const apply: Apply = ({ content }) => {
    const isSame = became === undefined || (content?.length === became.sizeBytes && crc32(content!) === became.crc32)
    return content && isSame ? NOTHING : undefined
  }
  history.isOver = true
  await tried({ worker, history, what: `regenerate${to}`, apply }, async options => {
    const { fileId } = await door.regenerate(history.fileId, options)
    became = decodeFileName(parseFileId(fileId).name)
    loop.note(worker.life.name, `${history.fileId} is ${fileId} now`)
    ledger.acknowledged(fileId, { sizeBytes: became.sizeBytes!, crc32: became.crc32 }, begunMs)
  })
}

/** Reads a file, its size, or its metadata. */
async function look(worker: Worker, history: History, random: SeededRandom): Promise<void> {
  const isExact = random.chance(STRONG)
  const { door, to: where, isSource: isOfSource } = doorFor(worker, history, random, 0.6)
  const to = isExact ? `${where}, strong` : where
  const { fileId, sizeBytes } = history
  const { ledger, onViolation } = worker.context
  const consistency = isExact ? 'strong' : undefined
  const about = { worker, history, isExact, isOfSource }
  const kind = random.below(10)
  if (kind < 3) {
    const what = `metadata${to}`
    return seen({ ...about, what }, async options => {
      const found = metadataText(await door.getMetadata(fileId, { consistency, ...options }))
      return { tells: `{${found}}`, explains: ({ content, metadata }) => content !== undefined && metadata === found }
    })
  }
  if (kind < 4) {
    return seen({ ...about, what: `info${to}` }, async options => {
      const found = await door.info(fileId, { consistency, ...options })
      return { tells: `${found.sizeBytes} bytes`, explains: ({ content }) => content?.length === found.sizeBytes }
    })
  }
  const offset = kind < 8 ? 0 : random.below(sizeBytes + 1)
  const length = kind < 8 ? undefined : 1 + random.below(sizeBytes + 1)
  const until = length === undefined ? undefined : offset + length
  const bad_range = ({ content }: FileState) =>
    content !== undefined && (offset > content.length || (offset === content.length && offset > 0))
  const what = `read from ${offset} to ${until ?? 'the end'}${to}`
  // A peer that is behind may have less.
  const refusals: Attempt['refusals'] = isExact || isOfSource ? { bad_range } : {}
  return seen({ ...about, what, refusals }, async options => {
    const found = await door.download(fileId, { offset, length, consistency, ...options })
    const stranger = strangerIn(found, history)
    if (stranger !== undefined && isReadable(ledger, history))
      onViolation(`${what} of ${fileId} shows bytes of #${stranger}`)
    if (length === undefined && isExact) history.sizeBytes = found.length
    return {
      tells: tell({ content: found, metadata: '' }),
      explains: ({ content }) => content?.subarray(offset, until).equals(found) === true,
    }
  })
}

/** Looks once more, when nothing changes any more: whoever answers has to show what there is. Returns why that cannot be told. */
export async function lookBack({ client }: Doors, history: History): Promise<string | undefined> {
  const content = history.begin('read in the end', () => undefined)
  const metadata = history.begin('metadata in the end', () => undefined)
  try {
    const bytes = await client.download(history.fileId, { consistency: 'strong' })
    content.what += ` gives ${tell({ content: bytes, metadata: '' })}`
    history.refuse(content, state => state.content?.equals(bytes) === true)
    const found = metadataText(await client.getMetadata(history.fileId, { consistency: 'strong' }))
    metadata.what += ` gives {${found}}`
    history.refuse(metadata, state => state.content !== undefined && state.metadata === found)
  } catch (error) {
    const { code } = toDfsError(error)
    if (code !== 'not_found') return code
    history.refuse(content, isGone)
    history.forget(metadata)
  }
  return undefined
}

/** What was seen, and which states show it. */
interface Seen {
  readonly tells: string
  readonly explains: Explains
}

interface Options {
  readonly onRetry: (error: unknown) => void
}

/** Carries out an operation that only looks. */
function seen(attempt: Attempt, run: (options: Options) => Promise<Seen>): Promise<void> {
  return tried(attempt, run)
}

/** Carries an operation out, and puts into the history what came of it. */
async function tried(
  { worker, history, what, apply, refusals = {}, isExact = true, isOfSource = false }: Attempt,
  run: (options: Options) => Promise<unknown>,
  { isSure = () => true, applyAgain }: { isSure?: (repeated: boolean) => boolean; applyAgain?: Apply } = {},
): Promise<void> {
  const { context, life } = worker
  const { loop, ledger } = context
  const begunMs = loop.nowMs
  const text = `${life.name} at ${(begunMs / 1000).toFixed(4)}: ${what}`
  const operation = history.begin(text, apply ?? (() => undefined))
  if (!isExact) operation.isOfSource = true
  const isHeld = context.ackOf(history.group) !== 'one'
  life.onEnd(() => (apply === undefined ? history.forget(operation) : history.lose(operation)))
  let attempts = 0
  let isRepeated = false
  const onRetry = (error: unknown) => {
    isRepeated = true
    // Whatever was sent may come late.
    if (apply === undefined || isUnsent(error) || ++attempts > LATE_ATTEMPTS_MAX) return
    history.lose(history.begin(`${text}, attempt ${attempts}`, apply))
  }
  const note = (outcome: string) => loop.note(life.name, `${what} of ${history.fileId}: ${outcome}`)
  try {
    const answer = await run({ onRetry })
    if (apply === undefined) {
      const { tells, explains } = answer as Seen
      note(tells)
      operation.what = `${text} gives ${tells}`
      history.refuse(operation, (isExact || isOfSource) && isReadable(ledger, history) ? explains : undefined)
    } else if (isSure(attempts > 0)) {
      note('done')
      operation.isHeld = isHeld && !isRepeated
      history.end(operation, isRepeated ? (applyAgain ?? apply) : apply)
      ledger.changes++
      const after = apply({ content: Buffer.alloc(history.sizeBytes), metadata: '' })
      if (history.kind === 'appender') history.sizeBytes = after?.content?.length ?? 0
    } else {
      note('done, by its size')
      history.lose(operation)
    }
    if (apply !== undefined) ledger.noteChange(history, begunMs)
  } catch (error) {
    const { code } = toDfsError(error)
    const explains = refusals[code] ?? (code === 'not_found' ? isGone : undefined)
    operation.what = `${text} is refused with ${code}`
    // Of a source that has lost its copy others tell, and they may be behind.
    const seen = isReadable(ledger, history) ? explains : undefined
    operation.isRefused = apply !== undefined
    // It is done, and fewer have it than should.
    if (code === 'ack_timeout') history.end(operation)
    else if (explains !== undefined && attempts === 0) history.refuse(operation, seen)
    else if (apply === undefined || (isUnsent(error) && attempts === 0)) history.refuse(operation, undefined)
    else {
      history.lose(operation)
      ledger.noteChange(history, begunMs)
    }
    const acceptable = [...ACCEPTABLE, 'bad_range', 'already_exists', 'not_here']
    fail(
      context,
      life,
      `${what} of ${history.fileId}`,
      error,
      // Who alone can tell may have a disk that is away.
      isReadable(ledger, history) && (apply !== undefined || !isExact) ? acceptable : [...acceptable, 'corrupt'],
    )
  }
}

/** Whether no fault has spoilt any copy. */
export function isReadable(ledger: Ledger, { name }: History): boolean {
  return !ledger.isExcused(name) && ![...STORAGES.keys()].some(machine => ledger.isSpoilt(machine, name))
}

/** Whether nobody was asked to do anything. */
function isUnsent(error: unknown): boolean {
  const { code, message } = toDfsError(error)
  return code === 'no_storage' || /^(cannot connect to|no tracker answers)/.test(message)
}

/** The SDK, or a member of the group: its source or any. */
function doorFor(
  { doors, context: { ledger } }: Worker,
  { group, source }: History,
  random: SeededRandom,
  toSource = 0.2,
): { door: Door; to: string; isSource: boolean } {
  const { lonely } = ledger
  if (lonely?.sources.includes(source) && random.chance(LAST)) {
    const { machine } = lonely
    return { door: doors.of(machine), to: ` at ${machine}`, isSource: STORAGES.get(machine)!.storageId === source }
  }
  if (random.chance(0.3)) return { door: doors.client as Door, to: '', isSource: false }
  const members = [...STORAGES].filter(([, storage]) => storage.group === group)
  const isSource = random.chance(toSource)
  const [machine, { storageId }] = isSource
    ? members.find(([, storage]) => storage.storageId === source)!
    : random.pick(members)
  return { door: doors.of(machine), to: ` at ${machine}`, isSource: storageId === source }
}

function written({ context: { ledger } }: Worker, history: History | undefined, random: SeededRandom) {
  const number = ledger.nextOperation()
  history?.writers.add(number)
  return { number, bytes: stampedBytes(number, sizeOf(random)) }
}

function sizeOf(random: SeededRandom): number {
  const [min, max] = random.pick(SIZES)
  return min + random.below(max - min)
}

function partsOf({ group, name }: History): { master: string; prefix: string } {
  const prefix = PREFIXES.find(known => name.endsWith(`${known}.txt`))!
  return { master: formatFileId({ group, name: name.replace(`${prefix}.txt`, '.log') }), prefix }
}

function entriesOf(metadata: string): Record<string, string> {
  return metadata === ''
    ? {}
    : Object.fromEntries(metadata.split(' ').map(entry => entry.split('=') as [string, string]))
}
