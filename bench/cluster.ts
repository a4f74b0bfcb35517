/**
 * The servers under test, as `dfs up` runs them: nats-server, a tracker, two storage servers of one group, each a process
 * of its own on loopback. Unlike under `dfs up`, one of them can be stopped and stays away.
 */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { NODE_FLAGS, STORAGE_NODE_FLAGS } from '../bin/up.ts'
import { decode } from '../protocol/codec.ts'
import { type ReplyOf, type RequestDefinition, SUBJECT_PREFIX, subjectOf } from '../protocol/message.ts'
import { actorStatus, type StorageReport, syncStatus } from '../protocol/storage-messages.ts'
import type { Bus } from '../runtime/bus.ts'
import { pickPort } from '../runtime/free-ports.ts'
import { findNatsServer, type NatsServer, natsServerVersion, startNatsServer } from '../runtime/nats-server.ts'
import { realEnvironment } from '../runtime/real-environment.ts'
import { credentialsPath, ensureSecrets, readCredentials } from '../runtime/secrets.ts'
import type { Timers } from '../runtime/timers.ts'
import type { Endpoint, World } from '../runtime/world.ts'
import type { Programs } from './programs.ts'

export const GROUP = 'group1'
export const STORAGE_IDS = [1, 2] as const
export type Durability = 'fsync' | 'os'

const HOST = '127.0.0.1'
const JOIN_MS_MAX = 30_000
const POLL_MS = 20
const STATUS_TIMEOUT_MS = 2_000
const DFS = fileURLToPath(new URL('../bin/dfs.js', import.meta.url))
const TEMPLATE = fileURLToPath(new URL('../../nats-server.conf', import.meta.url))

export interface ClusterOptions {
  readonly world: World
  readonly timers: Timers
  readonly programs: Programs
  /** Empty, and this cluster's alone. */
  readonly directory: string
  readonly durability: Durability
}

export class BenchCluster {
  readonly tracker: Endpoint
  readonly storages: readonly Endpoint[]
  readonly #options: ClusterOptions
  readonly #natsPort: number
  #nats: NatsServer | undefined
  #bus: Bus | undefined

  private constructor(options: ClusterOptions, ports: readonly number[]) {
    const [nats, tracker, ...storages] = ports
    this.#options = options
    this.#natsPort = nats!
    this.tracker = { host: HOST, port: tracker! }
    this.storages = storages.map(port => ({ host: HOST, port }))
  }

  /** Starts everything and waits until uploads are taken. */
  static async start(options: ClusterOptions): Promise<BenchCluster> {
    const { sockets, random } = options.world
    const taken = new Set<number>()
    for (let i = 0; i < 2 + STORAGE_IDS.length; i++) await pickPort(sockets, random, HOST, taken)
    const cluster = new BenchCluster(options, [...taken])
    try {
      await cluster.#start()
      return cluster
    } catch (error) {
      await cluster.stop()
      throw error
    }
  }

  /** The path of a NATS user's credentials. */
  credentials(user: string): string {
    return credentialsPath(this.#options.directory, user)
  }

  get natsPid(): number {
    return this.#nats?.status()?.pid ?? 0
  }

  /** Starts a storage server on its data; resolves when its port is open. */
  async startStorage(storageId: number): Promise<void> {
    const { programs, directory, durability, world } = this.#options
    const { port } = this.storages[storageId - 1]!
    const credentials = ['--credentials', this.credentials(`storage_${GROUP}`)]
    const knows = await knowsDurability(programs)
    if (!knows && durability !== 'fsync') throw new Error(`this storage server has no durability ${durability}`)
    await world.disk.makeDirectory(directory)
    await programs.serve(`storage-${storageId}`, [
      ...[...STORAGE_NODE_FLAGS, DFS, 'storage', '--id', String(storageId), '--group', GROUP],
      ...['--data', join(directory, `storage-${storageId}`), '--reserved', '1M', '--port', String(port)],
      ...[...credentials, '--sync-credentials', this.credentials(`sync_${GROUP}`), '--supervised'],
      ...(knows ? ['--durability', durability] : []),
    ])
  }

  stopStorage(storageId: number): Promise<void> {
    return this.#options.programs.stop(`storage-${storageId}`)
  }

  /** What a storage server says of itself now, not at its last beat. Rejects if it does not answer. */
  report(storageId: number): Promise<StorageReport> {
    return this.#ask(actorStatus, `storage-${storageId}`)
  }

  /** How far the sync workers of a storage server have got with its peers. */
  syncReport(storageId: number): Promise<ReplyOf<typeof syncStatus>> {
    return this.#ask(syncStatus, `sync-${storageId}`)
  }

  async stop(): Promise<void> {
    const { programs } = this.#options
    await this.#bus?.drain()
    await Promise.all(STORAGE_IDS.map(id => this.stopStorage(id)))
    await programs.stop('tracker')
    await this.#nats?.stop()
  }

  async #ask<D extends RequestDefinition>(definition: D, id: string): Promise<ReplyOf<D>> {
    const subject = subjectOf(definition, { prefix: SUBJECT_PREFIX, id })
    const reply = await this.#bus!.request(subject, new Uint8Array(), { timeoutMs: STATUS_TIMEOUT_MS })
    return decode(reply.payload).value as ReplyOf<D>
  }

  async #start(): Promise<void> {
    const { world, timers, programs, directory } = this.#options
    const url = `nats://${HOST}:${this.#natsPort}`
    const { passwords } = await ensureSecrets(world, directory, { groups: [GROUP], servers: [url] })
    this.#nats = await startNatsServer(world, timers, {
      binary: await natsServer(world),
      template: await readFile(TEMPLATE, 'utf8'),
      directory: join(directory, 'nats'),
      name: 'dfs-bench',
      host: HOST,
      port: this.#natsPort,
      monitorPort: 0,
      groups: [GROUP],
      passwords,
    })
    const { servers, user, password, inboxPrefix } = await readCredentials(world.disk, this.credentials('ops'))
    const connection = { servers, user, password, inboxPrefix, name: 'dfs-bench', waitForServer: false }
    this.#bus = await world.connectBus(connection)
    const tracker = ['tracker', '--credentials', this.credentials('tracker'), '--port', String(this.tracker.port)]
    await Promise.all([
      programs.serve('tracker', [...NODE_FLAGS, DFS, ...tracker, '--supervised']),
      ...STORAGE_IDS.map(id => this.startStorage(id)),
    ])
    await this.#untilActive()
  }

  async #untilActive(): Promise<void> {
    const { clock } = this.#options.world
    const endMs = clock.monotonicMs() + JOIN_MS_MAX
    for (;;) {
      const reports = await Promise.all(STORAGE_IDS.map(id => this.report(id).catch(() => undefined)))
      if (reports.every(report => report?.status === 'active')) return
      if (clock.monotonicMs() > endMs) {
        const why = reports.map(report => report?.reason ?? report?.status ?? 'no answer')
        throw new Error(`the storage servers did not become active: ${why.join('; ')}`)
      }
      await this.#options.timers.sleep(POLL_MS)
    }
  }
}

let known: Promise<boolean> | undefined

/** Whether `dfs storage` can be told how durable an acknowledged upload is. */
export function knowsDurability(programs: Programs): Promise<boolean> {
  known ??= programs.run(process.execPath, [DFS, 'storage', '--help']).then(help => help.includes('--durability'))
  return known
}

/** The version of the nats-server that is used. */
export async function natsVersion(world: World): Promise<string> {
  return natsServerVersion(world.processes, await natsServer(world))
}

function natsServer(world: World): Promise<string> {
  const { natsServer: configured, searchPath, home } = realEnvironment()
  return findNatsServer(world.disk, { configured, searchPath, home })
}
