/**
 * The load generator as a program of its own, called as `fdfs_load` is:
 *
 *     up       TRACKER:PORT SIZE CONNECTIONS SECONDS IDFILE    uploads for a time, appends their ids to IDFILE
 *     down     TRACKER:PORT IDFILE CONNECTIONS SECONDS         downloads at random for a time
 *     upn      TRACKER:PORT SIZE CONNECTIONS COUNT IDFILE      so many uploads
 *     downn    TRACKER:PORT IDFILE CONNECTIONS COUNT           so many downloads, in turn
 *     del      TRACKER:PORT IDFILE CONNECTIONS                 deletes every id
 *     dup, ddown, dupn, ddownn, ddel                           the same straight to one storage server
 *
 * Prints one line, see load-result.ts. Ends early if stdin, when it is a pipe, closes.
 */
import { appendFileSync, readFileSync } from 'node:fs'
import { type LoadPlan, runLoad } from './generator.ts'
import { endWithParent } from './parent.ts'

const MODES: Record<string, LoadPlan['kind']> = { up: 'upload', down: 'download', del: 'delete' }

endWithParent()
const [mode = '', address = '', ...rest] = process.argv.slice(2)
const [, direct, name = '', fixed] = /^(d?)(up|down|del)(n?)$/.exec(mode) ?? fail()
const kind = MODES[name]!
const colon = address.lastIndexOf(':')
const [first = '', connections = '', limit = '', idFile = ''] = rest
const ids = kind === 'upload' ? [] : readFileSync(first, 'utf8').split('\n').filter(Boolean)
if (kind !== 'upload' && ids.length === 0) throw new Error(`${first} names no files`)
const plan: LoadPlan = {
  kind,
  at: { host: address.slice(0, colon), port: Number(address.slice(colon + 1)) },
  viaTracker: direct === '',
  connections: Number(connections),
  ...(kind === 'delete' ? {} : fixed === 'n' ? { count: Number(limit) } : { seconds: Number(limit) }),
  ...(kind === 'upload' ? { sizeBytes: Number(first) } : { ids }),
}
const load = await runLoad(plan)
if (idFile !== '') appendFileSync(idFile, load.ids.map(id => `${id}\n`).join(''))
const about = kind === 'upload' ? `size=${first}` : `n=${ids.length}`
console.log(load.tally.line(`${mode} ${about}`, plan.connections, load.seconds))
process.exit(0)

function fail(): never {
  console.error('see the head of bench/run-generator.ts for the usage')
  process.exit(2)
}
