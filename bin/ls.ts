/** `dfs ls`. */
import { InvalidArgumentError } from 'commander'
import type { ListedFile } from '../client/index.ts'
import { realWorld } from '../runtime/real-world.ts'
import { DONE, printJson, printLine } from './output.ts'
import { type ClusterFlags, retryNotes, type Session } from './session.ts'

export interface ListFlags extends Omit<ClusterFlags, 'prefix'> {
  readonly subjectPrefix: string
  readonly group?: string
  readonly prefix?: string
  readonly since?: number
  readonly partial?: boolean
}

const SECONDS: Record<string, number> = { s: 1, m: 60, h: 3600, d: 86_400 }

/** Reads `2024-05-01`, `2024-05-01T12:00:00Z`, `90m` ago; seconds since 1970. Throws commander's InvalidArgumentError. */
export function parseSince(text: string): number {
  const ago = /^(\d{1,9})([smhd])$/.exec(text)
  const nowS = realWorld().clock.wallMs() / 1000
  const timeS = ago === null ? Date.parse(text) / 1000 : nowS - Number(ago[1]) * SECONDS[ago[2]!]!
  if (!Number.isFinite(timeS)) throw new InvalidArgumentError('a date, a time, or how long ago, such as 36h or 7d')
  return Math.min(Math.max(0, Math.floor(timeS)), 2 ** 32 - 1)
}

export async function ls({ client, signal }: Session, flags: ListFlags): Promise<number> {
  const onRetry = retryNotes(line => process.stderr.write(line))('ls')
  const { group, prefix, since: sinceS, partial } = flags
  for await (const file of client.list({ group, prefix, sinceS, partial, signal, onRetry })) {
    signal.throwIfAborted()
    if (flags.json) printJson(file)
    else printLine(formatListed(file))
  }
  return DONE
}

/** Time, kind, size, CRC32 and id; `-` for what is not known. */
export function formatListed({ fileId, kind, createTimeS, sizeBytes, crc32 }: ListedFile): string {
  const time = new Date(createTimeS * 1000).toISOString().replace('.000', '')
  const sum = crc32?.toString(16).padStart(8, '0') ?? '-'.padStart(8)
  return [time, kind.padEnd(8), String(sizeBytes ?? '-').padStart(12), sum, fileId].join('  ')
}
