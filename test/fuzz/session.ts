/**
 * One connection of a fuzzing client: what it sends, in which pieces, and how it ends; then what came back. The plan comes
 * from seed and index alone, but for the names of the files that are there.
 */
import { connect, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { RECEIPT_BYTES, readGroupAndName } from '../../protocol/data-bodies.ts'
import { decodeFileName } from '../../protocol/file-id.ts'
import { COMMANDS, frame, HEADER_BYTES, readHeader } from '../../protocol/frame.ts'
import type { FrameClient } from '../../runtime/frame-client.ts'
import { authenticate } from '../../runtime/handshake.ts'
import type { Endpoint } from '../../runtime/world.ts'
import { SeededRandom } from '../simulation/seeded-random.ts'
import { CORPUS, type PickName, type Port, type Role } from './corpus.ts'
import { mutate } from './mutate.ts'

/** How a connection ends: after the last reply, after a while of silence, or wherever it happens to be. */
type Ending = 'read' | 'linger' | 'cut'

export interface Plan {
  readonly port: Port
  readonly role: Role
  readonly requests: readonly Buffer[]
  readonly pieces: readonly Buffer[]
  /** Milliseconds before a piece: 0 is a turn of the event loop. */
  readonly pauseMs: number
  readonly ending: Ending
}

export interface Outcome {
  /** Names that were acknowledged. */
  readonly names: readonly string[]
  /** Replies by their status. */
  readonly statuses: readonly number[]
  readonly problem: string | undefined
}

const REQUESTS_MAX = 4
const VALID_SHARE = 0.3
const SPLIT_SHARE = 0.3
const PIECES_MAX = 6
const LINGER_MS = 200
/** A storage server waits for half a minute for a body; nothing takes longer. */
const ANSWER_MS = 60_000
const ETIMEDOUT = 110
const COMMANDS_THAT_CREATE: ReadonlySet<number> = new Set([
  COMMANDS.uploadFile,
  COMMANDS.uploadAppender,
  COMMANDS.uploadSlave,
  COMMANDS.createLink,
  COMMANDS.regenerate,
  COMMANDS.uploadOnce,
  COMMANDS.uploadStream,
])

export function planSession(seed: number, index: number, pick: PickName): Plan {
  const random = new SeededRandom(`fuzz ${seed} ${index}`)
  const port = random.chance(0.25) ? 'tracker' : 'storage'
  const role = port === 'storage' && random.chance(0.25) ? 'client' : 'anonymous'
  const templates = CORPUS[`${port} ${role}`]
  const valid = () => random.pick(templates)(pick, random)
  const requests = Array.from({ length: 1 + random.below(REQUESTS_MAX) }, () => {
    return random.chance(VALID_SHARE) ? valid() : mutate(valid(), random, valid)
  })
  const bytes = Buffer.concat(requests)
  const ending = random.chance(0.8) ? 'read' : random.pick(['linger', 'cut'] as const)
  const sent = ending === 'cut' ? bytes.subarray(0, random.below(bytes.length + 1)) : bytes
  const pieces = random.chance(SPLIT_SHARE) ? split(sent, random) : [sent]
  return { port, role, requests, pieces, pauseMs: random.below(3), ending }
}

/** How many files a plan may make at most: each takes a command of those that do. */
export function creationsMax({ requests }: Plan): number {
  let count = 0
  for (const request of requests) if (request.length > 8 && COMMANDS_THAT_CREATE.has(request[8]!)) count++
  return count
}

/** Plays a session. Rejects only if nobody accepts the connection. */
export async function playSession(plan: Plan, to: Endpoint, from: string, clientKey: string): Promise<Outcome> {
  const socket = await open(to, from)
  const received: Buffer[] = []
  let wake = () => {}
  let isOver = false
  let isReset = false
  const over = () => {
    isOver = true
    wake()
  }
  socket.on('data', chunk => {
    received.push(chunk)
    wake()
  })
  socket.on('end', over)
  socket.on('close', over)
  socket.on('error', () => {
    isReset = true
    over()
  })
  const changed = () =>
    new Promise<void>(resolve => {
      wake = resolve
    })
  try {
    if (plan.role === 'client') await prove()
    for (const piece of plan.pieces) {
      if (isOver) break
      socket.write(piece)
      if (plan.pieces.length > 1) await sleep(plan.pauseMs)
    }
    if (plan.ending === 'cut') return { names: [], statuses: [], problem: undefined }
    if (plan.ending === 'linger') await sleep(LINGER_MS)
    else {
      socket.end()
      const timer = setTimeout(() => socket.destroy(new Error('no answer')), ANSWER_MS)
      while (!isOver) await changed()
      clearTimeout(timer)
    }
    return judge(Buffer.concat(received), plan.ending === 'read', isReset)
  } finally {
    socket.destroy()
  }

  async function prove(): Promise<void> {
    const request = async (command: number, body: Uint8Array) => {
      socket.write(frame(command, body))
      for (;;) {
        const all = Buffer.concat(received)
        const lengthBytes = all.length < HEADER_BYTES ? 0 : readHeader(all, 0).lengthBytes
        if (all.length >= HEADER_BYTES + lengthBytes) {
          received.splice(0, received.length)
          return all.subarray(HEADER_BYTES)
        }
        if (isOver) throw new Error('the server ended inside a handshake')
        await changed()
      }
    }
    const random = new SeededRandom('nonce')
    await authenticate({ request } as unknown as FrameClient, { role: 'client', key: clientKey }, random)
  }
}

/** What came back: replies one after another, and nothing else. */
function judge(bytes: Buffer, isWhole: boolean, isReset: boolean): Outcome {
  const names: string[] = []
  const statuses: number[] = []
  let at = 0
  let problem = isReset && isWhole ? 'the connection broke off' : undefined
  while (at + HEADER_BYTES <= bytes.length) {
    const { lengthBytes, command, status } = readHeader(bytes, at)
    if (command !== COMMANDS.reply || !Number.isSafeInteger(lengthBytes) || lengthBytes < 0) {
      problem = `this is no reply: ${bytes.toString('hex', at, at + 40)}`
      break
    }
    const body = bytes.subarray(at + HEADER_BYTES, at + HEADER_BYTES + lengthBytes)
    if (body.length < lengthBytes) break
    at += HEADER_BYTES + lengthBytes
    statuses.push(status)
    names.push(...namesIn(body, status))
  }
  if (isWhole && at < bytes.length) problem ??= `a reply ended after ${bytes.length - at} bytes`
  return { names, statuses, problem }
}

/** The name of a file that was made; of one that too few members held in time, the reason names it. */
function namesIn(body: Buffer, status: number): string[] {
  if (status === ETIMEDOUT) return [...body.toString('latin1').matchAll(/group1\/(\S+)/g)].map(([, name]) => name!)
  if (status !== 0) return []
  return [0, RECEIPT_BYTES].flatMap(offset => {
    if (body.length < offset + 16) return []
    const { group, name } = readGroupAndName(body, offset)
    try {
      decodeFileName(name)
      return group === 'group1' ? [name] : []
    } catch {
      // Any other reply.
      return []
    }
  })
}

function split(bytes: Buffer, random: SeededRandom): Buffer[] {
  const cuts = Array.from({ length: random.below(PIECES_MAX) }, () => random.below(bytes.length + 1))
  const ends = [...cuts.sort((a, b) => a - b), bytes.length]
  return ends.map((end, i) => bytes.subarray(ends[i - 1] ?? 0, end))
}

function open(to: Endpoint, localAddress: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ ...to, localAddress, noDelay: true, allowHalfOpen: true })
    socket.once('error', reject)
    socket.once('connect', () => {
      socket.off('error', reject)
      resolve(socket)
    })
  })
}
