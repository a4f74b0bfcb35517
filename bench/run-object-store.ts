/**
 * Load on NATS's Object Store, beside which the SDK is measured: `up|upn|down|downn CREDENTIALS SIZE OUTSTANDING
 * SECONDS|COUNT`. A download run first puts a few objects. What was put is read back and compared. Prints one line, see
 * load-result.ts.
 */
import { connect } from 'nats'
import { realDisk } from '../runtime/real-disk.ts'
import { readCredentials } from '../runtime/secrets.ts'
import { closedLoop } from './closed-loop.ts'
import { isContent, makeContent } from './content.ts'
import { useNativeHash } from './native-hash.ts'
import { endWithParent } from './parent.ts'
import { LARGE_BYTES } from './row.ts'

const BUCKET = 'bench'
const HOT_OBJECTS = 16
/** A large object waits for its turn on one connection. */
const TIMEOUT_MS = 30_000

endWithParent()
useNativeHash()
const [mode = '', credentialsPath = '', size = '', outstanding = '1', limit = '1'] = process.argv.slice(2)
const [, name, fixed] = /^(up|down)(n?)$/.exec(mode) ?? []
const content = makeContent(Number(size))
const { servers, user, password: pass, inboxPrefix } = await readCredentials(realDisk, credentialsPath)
const connection = await connect({ servers: [...servers], user, pass, inboxPrefix })
const objects = await connection.jetstream({ timeout: TIMEOUT_MS }).views.os(BUCKET)
try {
  const hot = content.length >= LARGE_BYTES ? 1 : HOT_OBJECTS
  if (name === 'down') for (let i = 0; i < hot; i++) await put(i)
  const plan = {
    outstanding: Number(outstanding),
    ...(fixed === 'n' ? { count: Number(limit) } : { seconds: Number(limit) }),
  }
  const line = await closedLoop(`object-store ${mode} size=${size}`, {
    ...plan,
    operation: name === 'down' ? number => get(number % hot) : put,
  })
  const back = await objects.getBlob(nameOf(0))
  if (back === null || back.length !== content.length || !isContent(Buffer.from(back), 0)) {
    throw new Error('an object came back changed')
  }
  console.log(line)
} finally {
  await objects.destroy()
  await connection.close()
}
process.exit(0)

async function put(number: number): Promise<number> {
  const { size } = await objects.put({ name: nameOf(number) }, streamOf(content))
  return size
}

async function get(number: number): Promise<number> {
  return (await objects.getBlob(nameOf(number)))?.length ?? Promise.reject(new Error(`object ${number} is gone`))
}

function nameOf(number: number): string {
  return `object-${number}`
}

/** The client joins what it is given; pieces of a large object keep that from being a copy of all of it. */
function streamOf(bytes: Buffer): ReadableStream<Uint8Array> {
  let at = 0
  return new ReadableStream({
    pull(controller) {
      controller.enqueue(bytes.subarray(at, at + 131_072))
      at += 131_072
      if (at >= bytes.length) controller.close()
    },
  })
}
