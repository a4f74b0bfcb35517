/**
 * A storage server with its sync, for the crash harness to kill. It ends when stdin closes, so that it never outlives the
 * harness.
 *
 *     stdin     {"dataDirectory":…,…}       StorageProcessOptions, the first line: begin
 *               die <phase> <occurrence>    SIGKILL yourself at this occurrence of the phase, counted from now
 *     stdout    {"recoveryMs":…,…}          a line each time that a tracker has accepted it: it takes uploads
 *     stderr    its log
 *
 * The order to die comes late, because every life begins with the check of what the last one left: nothing may count
 * before the load.
 */
import { createInterface } from 'node:readline'
import { SCRUB_BYTES_PER_SECOND } from '../../actors/scrub/scrub.ts'
import { startStorageServer } from '../../bin/storage-server.ts'
import { processLog } from '../../runtime/log.ts'
import { realWorld } from '../../runtime/real-world.ts'
import type { RoleContext } from '../../runtime/role.ts'
import { credentialsPath, readCredentials } from '../../runtime/secrets.ts'
import { Timers } from '../../runtime/timers.ts'
import type { OnPhase, Phase } from '../../store/phase.ts'
import type { RecoveryReport } from '../../store/store.ts'
import { lyingDisk } from './lying-disk.ts'
import { REUSE, SEGMENT_FILE_BYTES_MAX, type StorageProcessOptions } from './storage-options.ts'

/** Said when uploads are taken. */
export interface StorageProcessReport {
  /** From the lock to the open data port. */
  readonly recoveryMs: number
  readonly recovery: RecoveryReport
}

const HOST = '127.0.0.1'

let fatal: { phase: Phase; left: number } | undefined
const onPhase: OnPhase = phase => {
  if (fatal?.phase === phase && --fatal.left === 0) process.kill(process.pid, 'SIGKILL')
}
const options = await new Promise<StorageProcessOptions>(begin => {
  const orders = createInterface({ input: process.stdin })
  orders.on('close', () => process.exit(0))
  orders.once('line', first => {
    begin(JSON.parse(first) as StorageProcessOptions)
    orders.on('line', line => {
      const [, phase, occurrence] = line.split(' ')
      fatal = { phase: phase as Phase, left: Number(occurrence) }
    })
  })
})
const real = realWorld()
const { lieAbout } = options
const world = lieAbout === undefined ? real : { ...real, disk: lyingDisk(real.disk, lieAbout) }
const context: RoleContext = {
  world,
  timers: new Timers(world.clock),
  log: processLog('warn', { storageId: options.storageId }),
  prefix: 'dfs',
  version: '0.0.0',
}

const credentials = (user: string) => readCredentials(world.disk, credentialsPath(options.secretsDirectory, user))
const own = await credentials(`storage_${options.group}`)
const syncCredentials = await credentials(`sync_${options.group}`)
for (;;) {
  const startMs = performance.now()
  const server = await startStorageServer(context, {
    dataDirectory: options.dataDirectory,
    group: options.group,
    storageId: options.storageId,
    storePaths: [],
    storePathChoice: 'round_robin',
    reservedBytes: 0,
    segmentFileBytesMax: options.segmentFileBytesMax ?? SEGMENT_FILE_BYTES_MAX,
    hotFileBytes: 0,
    durability: 'fsync',
    ack: options.ack ?? 'one',
    scrub: { bytesPerSecond: SCRUB_BYTES_PER_SECOND },
    reuse: REUSE,
    credentials: own,
    clusterSecret: own.dataSecret ?? '',
    syncCredentials,
    bind: { host: HOST, port: options.port },
    advertiseHost: HOST,
    uploadPriority: 10,
    onPhase,
  })
  const recoveryMs = performance.now() - startMs
  const { storage } = server
  let told = false
  storage.onPeers(() => {
    if (told) return
    told = true
    const report: StorageProcessReport = { recoveryMs, recovery: storage.store.recovery }
    process.stdout.write(`${JSON.stringify(report)}\n`)
  })
  if ((await server.ended) === 'stopped') break
}
process.exit(0)
