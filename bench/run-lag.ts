/**
 * Replication lag at a steady rate: `HOST:PORT CREDENTIALS GROUP PEER SIZE RATE SECONDS IDFILE`. Uploads so many files a
 * second to one storage server, and listens to the binlog of its peer, which tells of each record once it is durable there.
 * One process has both moments, so one clock does. Prints one object of numbers.
 *
 *     upload ─▶ storage 1 ─▶ acknowledged: t1
 *                  └─▶ storage 2 ─▶ dfs.binlog.<group>.2: t2              lag = t2 - t1
 */
import { writeFileSync } from 'node:fs'
import { decodeRecord } from '../protocol/binlog-record.ts'
import { decode } from '../protocol/codec.ts'
import { writeUploadFields } from '../protocol/data-bodies.ts'
import { GROUP_NAME_BYTES } from '../protocol/file-id.ts'
import { COMMANDS, frame } from '../protocol/frame.ts'
import { type PayloadOf, SUBJECT_PREFIX, subjectOf } from '../protocol/message.ts'
import { binlogFlushed } from '../protocol/storage-messages.ts'
import { realWorld } from '../runtime/real-world.ts'
import { readCredentials } from '../runtime/secrets.ts'
import { makeContent } from './content.ts'
import { FrameLink } from './frame-link.ts'
import { endWithParent } from './parent.ts'
import { percentile } from './statistics.ts'

const LINKS = 64
const TICK_MS = 2
/** How long the last files may take to arrive at the peer. */
const LAST_MS_MAX = 60_000

endWithParent()
const [address = '', credentialsPath = '', group = '', peer = '', size = '', rate = '', seconds = '', idFile = ''] =
  process.argv.slice(2)
const colon = address.lastIndexOf(':')
const at = { host: address.slice(0, colon), port: Number(address.slice(colon + 1)) }
const wanted = Number(rate) * Number(seconds)

const acknowledgedMs = new Map<string, number>()
const durableMs = new Map<string, number>()
const lags: number[] = []
let errors = 0
let sent = 0

const world = realWorld()
const credentials = await readCredentials(world.disk, credentialsPath)
const bus = await world.connectBus({ ...credentials, name: 'dfs-bench-lag', waitForServer: false })
bus.subscribe(subjectOf(binlogFlushed, { prefix: SUBJECT_PREFIX, group, id: peer }), message => {
  const nowMs = performance.now()
  const { records = [] } = decode(message.payload).value as PayloadOf<typeof binlogFlushed>
  for (const line of records) {
    const record = decodeRecord(line)
    if (record?.op === 'c') arrived(record.name, durableMs, acknowledgedMs, nowMs)
  }
})

const names: string[] = []
const idle = Array.from({ length: LINKS }, () => {
  const link: FrameLink = new FrameLink(at, {
    onReply(_, status, lengthBytes) {
      if (status === 0) {
        const name = link.body.toString('latin1', GROUP_NAME_BYTES, lengthBytes)
        names.push(name)
        arrived(name, acknowledgedMs, durableMs, performance.now())
      } else errors++
      idle.push(link)
    },
    onEnd: () => {
      if (sent < wanted) throw new Error(`${address} ended the connection`)
    },
  })
  return link
})

const startMs = performance.now()
const uploadedSeconds = await new Promise<number>(resolve => {
  const timer = setInterval(() => {
    const due = Math.min(wanted, ((performance.now() - startMs) * Number(rate)) / 1000)
    while (sent < due && idle.length > 0) idle.pop()!.send(upload(sent++))
    if (sent < wanted || idle.length < LINKS) return
    clearInterval(timer)
    resolve((performance.now() - startMs) / 1000)
  }, TICK_MS)
})
const endMs = performance.now() + LAST_MS_MAX
while (lags.length < names.length && performance.now() < endMs)
  await new Promise(resolve => setTimeout(resolve, TICK_MS))

const sorted = lags.toSorted((a, b) => a - b)
writeFileSync(idFile, names.map(name => `${group}/${name}\n`).join(''))
console.log(
  JSON.stringify({
    uploads: names.length,
    errors,
    arrived: lags.length,
    'uploads a second': names.length / uploadedSeconds,
    'p50 ms': percentile(sorted, 0.5),
    'p99 ms': percentile(sorted, 0.99),
    'max ms': sorted.at(-1),
  }),
)
process.exit(0)

/** Notes one of the two moments of a file; with the second one its lag is known. Each may come first. */
function arrived(name: string, own: Map<string, number>, other: Map<string, number>, nowMs: number): void {
  const otherMs = other.get(name)
  if (otherMs === undefined) {
    own.set(name, nowMs)
    return
  }
  other.delete(name)
  // The peer may be told, and tell us, before the acknowledgement is read: then there is no lag.
  lags.push(own === durableMs ? nowMs - otherMs : 0)
}

function upload(number: number): Buffer {
  const content = makeContent(Number(size))
  content.writeUInt32LE(number, 0)
  const fields = writeUploadFields({ storePathIndex: 0, sizeBytes: content.length, extension: 'bin' })
  return frame(COMMANDS.uploadFile, Buffer.concat([fields, content]))
}
