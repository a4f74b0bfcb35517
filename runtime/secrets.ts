/**
 * The secrets of a cluster, made at its first start and kept:
 *
 *     <directory>/secrets.json                { version, clusterSecret, ticketSecrets: [...], passwords: { <user>: ... } }
 *     <directory>/credentials/<user>.json     what one role needs to connect, and nothing of another's
 *
 * Losing `secrets.json` locks every running process out, so it is only ever completed, never made again. The disk makes
 * files that only their owner reads.
 */
import { groupKey } from '../protocol/ticket.ts'
import { roleKey } from './handshake.ts'
import { inboxPrefixOf, natsUsers } from './nats-config.ts'
import { readText, writeText } from './text-file.ts'
import type { Disk, World } from './world.ts'

const VERSION = 1
const CLUSTER_SECRET_BYTES = 32
const PASSWORD_BYTES = 24

/** Everything secret that a cluster has. */
export interface Secrets {
  /** 32 bytes as hex: what storage servers prove to each other that they are of one cluster. */
  readonly clusterSecret: string
  /** What tickets are signed with: the first, while all of them are believed. 32 bytes each, as hex. */
  readonly ticketSecrets: readonly string[]
  /** Passwords of the NATS users, by user. */
  readonly passwords: Readonly<Record<string, string>>
}

/** What a process needs to connect as one NATS user. */
export interface Credentials {
  readonly servers: readonly string[]
  readonly user: string
  readonly password: string
  readonly inboxPrefix: string
  /** Opens the private commands on data sockets: the cluster's secret for storage servers, the clients' for clients. */
  readonly dataSecret?: string
  /** Signs tickets, or tells whether they are signed: the ticket secrets for trackers, its group's keys for a storage server. */
  readonly ticketKeys?: readonly string[]
}

/** For whom the secrets are. */
export interface SecretsFor {
  readonly groups: readonly string[]
  /** Where NATS is, as the credentials tell it: `nats://host:port`. */
  readonly servers: readonly string[]
}

/**
 * Reads the secrets of a directory, makes what is missing, and writes the credentials of every user of `groups`.
 * Rejects if `secrets.json` is there but cannot be read.
 */
export async function ensureSecrets(
  world: Pick<World, 'disk' | 'random'>,
  directory: string,
  wanted: SecretsFor,
): Promise<Secrets> {
  const { disk, random } = world
  await disk.makeDirectory(`${directory}/credentials`)
  const found = await readSecrets(disk, `${directory}/secrets.json`)
  const passwords = { ...found?.passwords }
  for (const user of natsUsers(wanted.groups)) {
    // Starts with a letter: whoever sets it unquoted in an environment would have nats-server read digits as a number.
    passwords[user] ??= `p${random.bytes(PASSWORD_BYTES).toString('hex')}`
  }
  const secrets: Secrets = {
    clusterSecret: found?.clusterSecret ?? random.bytes(CLUSTER_SECRET_BYTES).toString('hex'),
    ticketSecrets: found?.ticketSecrets ?? [random.bytes(CLUSTER_SECRET_BYTES).toString('hex')],
    passwords,
  }
  await writeIfChanged(disk, `${directory}/secrets.json`, { version: VERSION, ...secrets })
  for (const user of natsUsers(wanted.groups)) {
    await writeIfChanged(disk, credentialsPath(directory, user), credentialsOf(secrets, user, wanted.servers))
  }
  return secrets
}

/** Where the credentials of a user are. */
export function credentialsPath(directory: string, user: string): string {
  return `${directory}/credentials/${user}.json`
}

/** Reads the credentials a process was given. Rejects if there are none or they are not credentials. */
export async function readCredentials(disk: Disk, path: string): Promise<Credentials> {
  const text = await readText(disk, path)
  if (text === undefined) throw new Error(`${path}: there are no credentials`)
  const value = parse(path, text) as Partial<Credentials> | null
  const { user, password, inboxPrefix, dataSecret = '', ticketKeys = [], servers = [] } = value ?? {}
  const strings = [user, password, inboxPrefix, dataSecret, ...ticketKeys, ...servers]
  if (!Array.isArray(value?.servers) || strings.some(s => typeof s !== 'string')) {
    throw new Error(`${path}: not credentials`)
  }
  return value as Credentials
}

function credentialsOf(secrets: Secrets, user: string, servers: readonly string[]): Credentials {
  const dataSecret = dataSecretOf(secrets.clusterSecret, user)
  const credentials = { servers, user, password: secrets.passwords[user]!, inboxPrefix: inboxPrefixOf(user) }
  const ticketKeys = ticketKeysOf(secrets.ticketSecrets, user)
  return {
    ...credentials,
    ...(dataSecret === undefined ? {} : { dataSecret }),
    ...(ticketKeys === undefined ? {} : { ticketKeys }),
  }
}

// Not from the cluster secret, which every storage server has: one of another group could give tickets for this one.
function ticketKeysOf(ticketSecrets: readonly string[], user: string): readonly string[] | undefined {
  if (user === 'tracker') return ticketSecrets
  if (!user.startsWith('storage_')) return undefined
  return ticketSecrets.map(secret => groupKey(secret, user.slice('storage_'.length)))
}

// Clients upload with private commands, so they need a secret; replication wants one that does not follow from theirs.
function dataSecretOf(clusterSecret: string, user: string): string | undefined {
  if (user.startsWith('storage_')) return roleKey(clusterSecret, 'peer')
  if (user === 'client' || user === 'gateway') return roleKey(clusterSecret, 'client')
  return undefined
}

async function readSecrets(disk: Disk, path: string): Promise<Secrets | undefined> {
  const text = await readText(disk, path)
  if (text === undefined) return undefined
  const value = parse(path, text) as Partial<Secrets & { version: number }> | null
  const passwords = value?.passwords
  const ticketSecrets = value?.ticketSecrets ?? []
  const whole =
    value?.version === VERSION &&
    isSecret(value.clusterSecret) &&
    Array.isArray(ticketSecrets) &&
    ticketSecrets.every(isSecret) &&
    typeof passwords === 'object' &&
    passwords !== null &&
    Object.values(passwords).every(password => typeof password === 'string')
  if (!whole) throw new Error(`${path}: not the secrets of a cluster, version ${VERSION}`)
  return value as Secrets
}

function isSecret(value: unknown): boolean {
  return typeof value === 'string' && /^[0-9a-f]{64}$/.test(value)
}

function parse(path: string, text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    // Without its cause, which would quote the text around the error: secrets.
    throw new Error(`${path}: not JSON`)
  }
}

async function writeIfChanged(disk: Disk, path: string, value: object): Promise<void> {
  const text = `${JSON.stringify(value, undefined, 2)}\n`
  if ((await readText(disk, path)) !== text) await writeText(disk, path, text)
}
