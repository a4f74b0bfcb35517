/**
 * Load through the SDK, which shares four sockets for each server among all that is under way; called almost as
 * run-generator.ts is:
 *
 *     up     CREDENTIALS SIZE OUTSTANDING SECONDS IDFILE       as `upn` and `downn`: a count instead of a time
 *     down   CREDENTIALS IDFILE OUTSTANDING SECONDS
 *     dup    HOST:PORT SIZE OUTSTANDING SECONDS                uploads on four such sockets, but with FastDFS's
 *     ddown  HOST:PORT IDFILE OUTSTANDING SECONDS              commands and without asking: what the yardstick takes
 *
 * Prints one line, see load-result.ts.
 */
import { appendFileSync, readFileSync } from 'node:fs'
import { connect } from '../client/index.ts'
import { writeDownload, writeUploadFields } from '../protocol/data-bodies.ts'
import { parseFileId } from '../protocol/file-id.ts'
import { COMMANDS } from '../protocol/frame.ts'
import { FramePool } from '../runtime/frame-pool.ts'
import { realWorld } from '../runtime/real-world.ts'
import { Timers } from '../runtime/timers.ts'
import { closedLoop } from './closed-loop.ts'
import { makeContent } from './content.ts'
import { endWithParent } from './parent.ts'

const SOCKETS = 4
const TIMEOUTS = { idleMs: 20_000, headerMs: 10_000, bodyMs: 20_000 }

endWithParent()
const [mode = '', where = '', what = '', outstanding = '1', limit = '1', idFile = ''] = process.argv.slice(2)
const [, direct, name, fixed] = /^(d?)(up|down)(n?)$/.exec(mode) ?? []
const isUpload = name === 'up'
const ids = isUpload ? [] : readFileSync(what, 'utf8').split('\n').filter(Boolean)
const content = makeContent(isUpload ? Number(what) : 0)
const uploaded: string[] = []
const plan = {
  outstanding: Number(outstanding),
  ...(fixed === 'n' ? { count: Number(limit) } : { seconds: Number(limit) }),
}
const operation = direct === 'd' ? byPool() : await bySdk()
const line = await closedLoop(`sdk ${mode}`, { ...plan, operation })
if (idFile !== '') appendFileSync(idFile, uploaded.map(id => `${id}\n`).join(''))
console.log(line)
process.exit(0)

async function bySdk(): Promise<(number: number) => Promise<number>> {
  const client = await connect({ credentials: where, name: 'dfs-bench' })
  if (!isUpload) return async number => (await client.downloadTo(idOf(number), {}, async () => undefined)).bytes
  return async number => {
    const { fileId, sizeBytes } = await client.upload(ownContent(number), { extension: 'bin' })
    uploaded.push(fileId)
    return sizeBytes
  }
}

function byPool(): (number: number) => Promise<number> {
  const world = realWorld()
  const { sockets, clock, random } = world
  const timing = { timers: new Timers(clock), connectMs: 2_000, timeouts: TIMEOUTS, idleMsMax: 30_000 }
  const pool = new FramePool({ sockets, clock, random, connectionsPerServerMax: SOCKETS, ...timing })
  const colon = where.lastIndexOf(':')
  const remote = { host: where.slice(0, colon), port: Number(where.slice(colon + 1)) }
  if (!isUpload) {
    return async number => {
      const { group, name } = parseFileId(idOf(number))
      const body = writeDownload({ offset: 0, length: 0, group, name })
      const client = await pool.connection(remote)
      return client.exchange(
        COMMANDS.downloadFile,
        body.length,
        send => send([body]),
        async (reply, { lengthBytes }) => {
          await reply.skipBody()
          return lengthBytes
        },
      )
    }
  }
  return async number => {
    const bytes = ownContent(number)
    const fields = writeUploadFields({ storePathIndex: 0, sizeBytes: bytes.length, extension: 'bin' })
    const client = await pool.connection(remote)
    const whole = fields.length + bytes.length
    await client.exchange(
      COMMANDS.uploadFile,
      whole,
      send => send([fields, bytes]),
      async () => undefined,
    )
    return bytes.length
  }
}

function idOf(number: number): string {
  // A prime, so that neighbours are not asked for one after another.
  return ids[(number * 7919) % ids.length]!
}

/** Content that no other upload has; of a large file, the first bytes are not worth a copy. */
function ownContent(number: number): Buffer {
  if (content.length > 2 ** 20) return content
  const own = Buffer.from(content)
  own.writeUInt32LE(number, 0)
  return own
}
