/**
 * `npm run soak -- [files]`: memory of the storage servers after many and after large files. Prints the resident size
 * of each after the first 1,000 files, after 300 MiB up and down, and after all files, each after 30 s of rest.
 */
import { createHash, randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Client } from '../../client/client.ts'
import { RunningCluster, residentBytes } from '../running-cluster.ts'
import { until } from '../until.ts'

const FIRST_FILES = 1_000
const LARGE_BYTES = 300 * 2 ** 20
const REST_MS = 30_000
const GROWTH_BYTES_MAX = 30 * 2 ** 20
const WRITERS = 32
const SYNC_MS = 300_000

const files = Number(process.argv[2] ?? 100_000)
const cluster = await RunningCluster.start()
try {
  const client = await cluster.connect()
  await uploadMany(client, FIRST_FILES)
  const base = await restedSizes(client, `the first ${FIRST_FILES} files`)
  await largeFile(client)
  const large = await restedSizes(client, '300 MiB up and down')
  await uploadMany(client, files - FIRST_FILES)
  const many = await restedSizes(client, `${files} files`)
  await client.close()
  const grown = [...large, ...many].map((size, i) => size - base[i % base.length]!)
  console.log(`grown by at most ${mib(Math.max(...grown))} (${mib(GROWTH_BYTES_MAX)} allowed)`)
  process.exitCode = Math.max(...grown) > GROWTH_BYTES_MAX ? 1 : 0
} finally {
  await cluster.remove()
}

async function uploadMany(client: Client, count: number): Promise<void> {
  const startMs = performance.now()
  let left = count
  const writer = async () => {
    while (left-- > 0) await client.upload(randomBytes(1024 + (left % 4096)), { extension: 'bin' })
  }
  await Promise.all(Array.from({ length: WRITERS }, writer))
  console.log(`${count} uploads, ${Math.round((count / (performance.now() - startMs)) * 1000)} a second`)
}

async function largeFile(client: Client): Promise<void> {
  const bytes = randomBytes(LARGE_BYTES)
  const { fileId } = await client.upload(bytes)
  const sum = createHash('sha256')
  await client.downloadTo(fileId, {}, async piece => void sum.update(piece))
  const same = sum.digest('hex') === createHash('sha256').update(bytes).digest('hex')
  if (!same) throw new Error('the large file came back changed')
}

/** Waits until the servers are in sync and have rested; their resident sizes in bytes. */
async function restedSizes(client: Client, after: string): Promise<number[]> {
  await until('all is synced', async () => inSync(await client.status()), SYNC_MS)
  await sleep(REST_MS)
  const sizes = cluster.ports.storages.map(({ pid }) => residentBytes(pid))
  console.log(`after ${after}: ${sizes.map(mib).join(', ')}`)
  return sizes
}

function inSync({ storages }: Awaited<ReturnType<Client['status']>>): boolean {
  return storages.every(({ report: source }) =>
    storages.every(({ report: peer }) => {
      if (peer.storageId === source.storageId || source.binlogEnd.timeMs === 0) return true
      const position = peer.positions.find(({ storageId }) => storageId === source.storageId)
      return position?.timeMs === source.binlogEnd.timeMs
    }),
  )
}

function mib(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`
}
