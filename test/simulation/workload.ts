/** What clients do: they upload, download, look and delete, and hold every answer against the ledger. */
import type { Client } from '../../client/client.ts'
import type { Uploaded, UploadOptions } from '../../client/upload.ts'
import type { AckLevel, Receipt } from '../../protocol/ack.ts'
import { DfsError, toDfsError } from '../../protocol/errors.ts'
import { change, type Worker } from './changing-files.ts'
import type { Doors } from './doors.ts'
import type { EventLoop } from './event-loop.ts'
import { bytesOf, holds, type Ledger, type LedgerFile } from './ledger.ts'
import type { Life } from './life.ts'
import type { SeededRandom } from './seeded-random.ts'

const KIB = 1024
/** Around one block, several blocks, and most of all small ones. */
const SIZES: readonly (readonly [min: number, max: number])[] = [
  [0, 2],
  [1, 4 * KIB],
  [1, 4 * KIB],
  [1, 4 * KIB],
  [1, 40 * KIB],
  [1, 40 * KIB],
  [256 * KIB - 1, 256 * KIB + 2],
  [1, 2500 * KIB],
]
/** Often of one size of slot, so that what one leaves is another's. */
const SMALL: typeof SIZES = [
  [1, 4 * KIB],
  [0, 40],
  [990, 1_000],
]
const BURST_UPLOADS_MAX = 12
const PAUSE_MS_MAX = 250
const ACKS: readonly AckLevel[] = ['one', 'one', 'quorum', 'all']
const ACK_TIMEOUT_MS = 1_000
/** An upload that too few members hold is sent again so often. */
const ACK_ATTEMPTS_MAX = 3

export interface WorkloadContext {
  readonly loop: EventLoop
  readonly ledger: Ledger
  /** The share of operations on names that may change. */
  readonly changes: number
  /** How many members of a group hold what its servers acknowledge. */
  readonly ackOf: (group: string) => AckLevel
  /** Whether an operation is left out, to find the few that matter. */
  readonly isSkipped: (operation: string) => boolean
  readonly onViolation: (what: string) => void
  readonly onAcknowledged: (upload: Acknowledged) => void
}

/** What the answer to an upload promises. */
export interface Acknowledged {
  readonly file: LedgerFile
  readonly receipt: Receipt
  readonly ack: AckLevel
  /** When it was sent first. */
  readonly begunMs: number
}

/** Works until its life ends or `untilMs` is over. Operations of one client come one after another. */
export async function work(
  context: WorkloadContext,
  doors: Doors,
  life: Life,
  random: SeededRandom,
  untilMs: number,
): Promise<void> {
  const { loop } = context
  const worker: Worker = { context, doors, life, own: [] }
  for (let i = 0; loop.nowMs < untilMs; i++) {
    const name = `${life.name} ${i}`
    // A stream of its own for each operation: leaving one out does not change what the others are.
    const own = random.fork(`operation ${i}`)
    await loop.sleep(own.between(0, PAUSE_MS_MAX), life, 'think')
    if (context.isSkipped(name)) continue
    if (context.changes > 0 && own.chance(context.changes)) await change(worker, own)
    else await operate(context, doors.client, life, own)
  }
}

async function operate(context: WorkloadContext, client: Client, life: Life, random: SeededRandom): Promise<void> {
  const { ledger } = context
  const kind = random.below(100)
  const candidates = ledger.files
  if (kind < 35 || candidates.length === 0) return void (await upload(context, client, life, random, SIZES))
  if (kind < 39) return burst(context, client, life, random)
  if (kind < 45) return fleeting(context, client, life, random)
  // Lately stored ones more often: that is where the races are.
  const recent = random.chance(0.5)
  const at = recent
    ? candidates.length - 1 - random.below(Math.min(10, candidates.length))
    : random.below(candidates.length)
  const file = candidates[at]!
  if (kind < 75) return download(context, client, life, file, random)
  if (kind < 85) return info(context, client, life, file)
  return remove(context, client, life, file)
}

/** Many small ones at once, so that they share flushes. */
async function burst(context: WorkloadContext, client: Client, life: Life, random: SeededRandom): Promise<void> {
  const count = 2 + random.below(BURST_UPLOADS_MAX)
  await Promise.all(
    Array.from({ length: count }, (_, i) => upload(context, client, life, random.fork(`upload ${i}`), SMALL)),
  )
}

/** Gone as soon as they are there: creations and deletions reach the peers together. */
async function fleeting(context: WorkloadContext, client: Client, life: Life, random: SeededRandom): Promise<void> {
  const come = async (own: SeededRandom) => {
    const file = await upload(context, client, life, own, SMALL)
    if (file !== undefined) await remove(context, client, life, file)
  }
  const count = 1 + random.below(BURST_UPLOADS_MAX)
  await Promise.all(Array.from({ length: count }, (_, i) => come(random.fork(`file ${i}`))))
}

async function upload(
  context: WorkloadContext,
  client: Client,
  life: Life,
  random: SeededRandom,
  sizes: typeof SIZES,
): Promise<LedgerFile | undefined> {
  const { loop, ledger, onAcknowledged } = context
  const [min, max] = random.pick(sizes)
  const content = { number: random.below(2 ** 31), sizeBytes: min + random.below(max - min) }
  const bytes = bytesOf(content)
  const begunMs = loop.nowMs
  try {
    const asStream = random.chance(0.1)
    const ack = random.pick(ACKS)
    const { fileId, receipt } = await untilHeld(ack, random, options =>
      client.upload(asStream ? inPieces(bytes, random) : bytes, options),
    )
    loop.note(life.name, `uploaded ${fileId}, ${content.sizeBytes} bytes, held by ${receipt.replicas}`)
    const file = ledger.acknowledged(fileId, content, begunMs)
    onAcknowledged({ file, receipt, ack, begunMs })
    return file
  } catch (error) {
    fail(context, life, 'upload', error, ACCEPTABLE)
    return undefined
  }
}

/** Sends an upload again, as the same one, while too few members hold it. */
async function untilHeld(
  ack: AckLevel,
  random: SeededRandom,
  send: (options: UploadOptions) => Promise<Uploaded>,
): Promise<Uploaded> {
  const uploadId = random.bytes(16).toString('hex')
  for (let attempt = 1; ; attempt++) {
    try {
      return await send({ extension: 'bin', ack, ackTimeoutMs: ACK_TIMEOUT_MS, uploadId })
    } catch (error) {
      if (toDfsError(error).code !== 'ack_timeout' || attempt === ACK_ATTEMPTS_MAX) throw error
    }
  }
}

async function* inPieces(bytes: Buffer, random: SeededRandom): AsyncGenerator<Uint8Array> {
  const pieceBytes = 1 + random.below(100 * KIB)
  for (let at = 0; at < bytes.length; at += pieceBytes) yield bytes.subarray(at, at + pieceBytes)
}

async function download(context: WorkloadContext, client: Client, life: Life, file: LedgerFile, random: SeededRandom) {
  const { loop, ledger } = context
  const { sizeBytes } = file.content
  const whole = sizeBytes === 0 || random.chance(0.7)
  const offset = whole ? 0 : random.below(sizeBytes)
  const length = whole ? undefined : 1 + random.below(sizeBytes)
  try {
    const bytes = await client.download(file.fileId, { offset, length })
    const until = length === undefined ? sizeBytes : offset + length
    if (!holds(file.content, bytes, offset, until)) context.onViolation(`wrong bytes were served for ${file.fileId}`)
    loop.note(life.name, `downloaded ${file.fileId}`)
    ledger.downloads++
  } catch (error) {
    judgeMiss(context, life, 'download', file, error)
  }
}

async function info(context: WorkloadContext, client: Client, life: Life, file: LedgerFile) {
  try {
    const { sizeBytes } = await client.info(file.fileId)
    if (sizeBytes !== file.content.sizeBytes) context.onViolation(`${file.fileId} is said to have ${sizeBytes} bytes`)
    context.loop.note(life.name, `looked at ${file.fileId}`)
  } catch (error) {
    judgeMiss(context, life, 'info', file, error)
  }
}

async function remove(context: WorkloadContext, client: Client, life: Life, file: LedgerFile) {
  const { loop, ledger } = context
  file.deletions++
  if (file.state === 'present') file.state = 'deleting'
  try {
    await client.delete(file.fileId)
    loop.note(life.name, `deleted ${file.fileId}`)
    file.state = 'deleted'
    ledger.deletes++
  } catch (error) {
    judgeMiss(context, life, 'delete', file, error)
  }
}

/** "Not found" is a promise, too: of a file that nobody has asked to delete it is a lie. */
function judgeMiss(context: WorkloadContext, life: Life, operation: string, file: LedgerFile, error: unknown): void {
  const { code } = toDfsError(error)
  const excused = context.ledger.isExcused(file.name)
  const isLie = operation === 'delete' ? file.deletions === 1 : file.state === 'present'
  if (code === 'not_found' && isLie && !excused) {
    context.onViolation(`${operation} says that ${file.fileId} is not there`)
  }
  fail(
    context,
    life,
    `${operation} ${file.fileId}`,
    error,
    excused ? [...ACCEPTABLE, 'corrupt'] : [...ACCEPTABLE, 'not_found'],
  )
}

/** What a cluster in trouble may answer. A server's bug, or a bad copy where good ones are, is not among it. */
export const ACCEPTABLE: readonly string[] = [
  'unavailable',
  'ack_timeout',
  'timeout',
  'no_storage',
  'no_space',
  'busy',
  'unknown_group',
  'not_found',
]

export function fail(
  { loop, ledger, onViolation }: Pick<WorkloadContext, 'loop' | 'ledger' | 'onViolation'>,
  life: Life,
  what: string,
  error: unknown,
  acceptable: readonly string[],
): void {
  const known = error instanceof DfsError ? error.code : 'thrown'
  loop.note(life.name, `${what}: ${known} ${(error as Error).message}`)
  ledger.failures++
  if (!acceptable.includes(known)) onViolation(`${what} failed with ${known}: ${(error as Error).message}`)
}
