/** The little of JetStream that we need: a stream that keeps binlog events for followers. Never the only copy. */
import type { Bus } from './bus.ts'

const API_TIMEOUT_MS = 5_000

/** How much a stream keeps, whichever is reached first: followers that are further behind read the binlog itself. */
const KEPT_BYTES = 256 * 1024 * 1024
const KEPT_NS = 7 * 24 * 3600 * 1e9
/** Within this time a message that is published again is not stored again. */
const DUPLICATE_WINDOW_NS = 120 * 1e9

/** Makes a stream unless it is there. Rejects with a BusError, or with what JetStream answers. */
export async function ensureStream(bus: Bus, name: string, subjects: readonly string[]): Promise<void> {
  const known = await api(bus, `$JS.API.STREAM.INFO.${name}`, {})
  if (known.error === undefined) return
  const made = await api(bus, `$JS.API.STREAM.CREATE.${name}`, {
    name,
    subjects,
    storage: 'file',
    retention: 'limits',
    discard: 'old',
    num_replicas: 1,
    max_bytes: KEPT_BYTES,
    max_age: KEPT_NS,
    duplicate_window: DUPLICATE_WINDOW_NS,
    allow_direct: true,
    deny_delete: true,
    deny_purge: true,
  })
  if (made.error !== undefined) throw new Error(`JetStream refused stream ${name}: ${made.error.description}`)
}

async function api(bus: Bus, subject: string, request: object): Promise<{ error?: { description?: string } }> {
  const reply = await bus.request(subject, Buffer.from(JSON.stringify(request)), { timeoutMs: API_TIMEOUT_MS })
  return JSON.parse(Buffer.from(reply.payload).toString('utf8'))
}
