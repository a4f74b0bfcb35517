/**
 * Kills parts of a running cluster with -9 while uploads run, and then compares every acknowledged file on every
 * replica's disk and through the client. The fault model: any process may die at any moment; the machine and its disks
 * live on. Nothing acknowledged may be lost or wrong.
 */
import { createHash, randomBytes } from 'node:crypto'
import type { Client } from '../../client/client.ts'
import { isAlive, RunningCluster } from '../running-cluster.ts'
import { until } from '../until.ts'

/** The parts that are killed. */
const VICTIMS = ['storage', 'tracker', 'gateway', 'nats-server'] as const
type Victim = (typeof VICTIMS)[number]

const WRITERS = 6
const SIZES = [0, 1, 500, 4096, 70_000, 262_144, 400_000]
const BIG_SIZE = 3_000_000
/** A killed process must run again within this time; its back-off grows to 10 s when it dies often. */
const RESTART_MS = 60_000
const SYNC_MS = 120_000

export interface ChaosResult {
  readonly kills: Readonly<Record<Victim, number>>
  readonly acknowledged: number
  readonly failedUploads: number
  readonly problems: readonly string[]
}

/** Runs the campaign: each victim dies `rounds` times, in an order that the seed decides. */
export async function chaos(rounds: number, seed: number, say: (line: string) => void): Promise<ChaosResult> {
  const random = seededRandom(seed)
  const cluster = await RunningCluster.start('--trackers', '2')
  const kills: Record<Victim, number> = { storage: 0, tracker: 0, gateway: 0, 'nats-server': 0 }
  const acknowledged = new Map<string, string>()
  const problems: string[] = []
  let failedUploads = 0
  let running = true
  try {
    const client = await cluster.connect()
    const writers = Array.from({ length: WRITERS }, (_, i) => write(i))
    const order = shuffled(Array.from({ length: rounds }, () => VICTIMS).flat(), random)
    for (const victim of order) {
      await until('the first upload', () => acknowledged.size > 0, RESTART_MS)
      const before = acknowledged.size
      const pid = pidOf(cluster, victim, random)
      process.kill(pid, 'SIGKILL')
      kills[victim]++
      const replaced = () => !allPids(cluster).includes(pid) && allPids(cluster).every(p => p > 0 && isAlive(p))
      await until(`${victim} runs again`, replaced, RESTART_MS)
      // The next one dies at a moment of the uploads' making, not ours.
      const more = 1 + Math.floor(random() * 12)
      await until('uploads go on', () => acknowledged.size >= before + more, RESTART_MS)
      say(`killed ${victim} ${pid}; ${acknowledged.size} files acknowledged so far`)
    }
    running = false
    await Promise.all(writers)
    problems.push(...(await compare(cluster, client, acknowledged)))
    await client.close()

    async function write(writer: number): Promise<void> {
      for (let i = 0; running; i++) {
        const size = i % 40 === 39 ? BIG_SIZE : SIZES[(writer + i) % SIZES.length]!
        const bytes = randomBytes(size)
        try {
          const { fileId } = await client.upload(bytes, { extension: 'bin' })
          if (acknowledged.has(fileId)) problems.push(`${fileId} was given out twice`)
          acknowledged.set(fileId, digest(bytes))
        } catch (error) {
          failedUploads++
          say(`an upload failed: ${error}`)
        }
      }
    }
  } finally {
    running = false
    await cluster.remove()
  }
  return { kills, acknowledged: acknowledged.size, failedUploads, problems }
}

/** Compares all files on all disks, and a sample of them through the client. */
async function compare(cluster: RunningCluster, client: Client, files: ReadonlyMap<string, string>): Promise<string[]> {
  const problems: string[] = []
  const ids = cluster.ports.storages.map(({ id }) => id)
  const missing = () =>
    [...files.keys()].filter(fileId => ids.some(id => cluster.readFromDisk(id, fileId) === undefined))
  await until('every file is everywhere', () => missing().length === 0, SYNC_MS).catch(() => {
    for (const fileId of missing()) problems.push(`${fileId} is not on every replica`)
  })
  for (const [fileId, expected] of files) {
    for (const id of ids) {
      const bytes = cluster.readFromDisk(id, fileId)
      if (bytes !== undefined && digest(bytes) !== expected) problems.push(`${fileId} is wrong on storage server ${id}`)
    }
    const fetched = await client.download(fileId).then(digest, error => String(error))
    if (fetched !== expected) problems.push(`${fileId} reads wrong: ${fetched}`)
  }
  return problems
}

function pidOf(cluster: RunningCluster, victim: Victim, random: () => number): number {
  const { storages, trackers, gateway, natsServer } = cluster.ports
  const one = <T>(items: readonly T[]) => items[Math.floor(random() * items.length)]!
  switch (victim) {
    case 'storage':
      return one(storages).pid
    case 'tracker':
      return one(trackers).pid
    case 'gateway':
      return gateway.pid
    case 'nats-server':
      return natsServer.pid
  }
}

/** Every process of a cluster but `dfs up` itself; 0 for one that is being restarted. */
export function allPids(cluster: RunningCluster): number[] {
  const { storages, trackers, gateway, natsServer } = cluster.ports
  return [...storages.map(s => s.pid), ...trackers.map(t => t.pid), gateway.pid, natsServer.pid]
}

function digest(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}

/** Mulberry32: small, and good enough to pick victims. */
function seededRandom(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

function shuffled<T>(items: readonly T[], random: () => number): T[] {
  const left = [...items]
  return items.map(() => left.splice(Math.floor(random() * left.length), 1)[0]!)
}
