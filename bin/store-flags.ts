/** How a storage server keeps files: the options that `dfs storage` has, and `dfs up` passes on to its own. */
import { dirname } from 'node:path'
import { type Command, Option } from 'commander'
import { SCRUB_BYTES_PER_SECOND } from '../actors/scrub/scrub.ts'
import { DATA_AUTHS, type DataAuth } from '../actors/storage/access.ts'
import { ACK_LEVELS, type AckLevel } from '../protocol/ack.ts'
import type { Disk } from '../runtime/world.ts'
import type { StoreOptions } from '../store/store-options.ts'
import { parseReserve, parseSize, type Reserve } from './sizes.ts'

export interface StoreFlags {
  readonly reserved: Reserve
  readonly storePathChoice: StoreOptions['storePathChoice']
  readonly segmentMaxFile: number
  readonly hotFiles: number
  readonly durability: StoreOptions['durability']
  readonly ack: AckLevel
  readonly scrubRate: number
  readonly dataAuth: DataAuth
}

/** Adds the options to a command. */
export function addStoreFlags(command: Command): Command {
  return command
    .option(
      '--reserved <size>',
      'space on each store path that uploads never take; 20%: of the smallest one',
      parseReserve,
      2 ** 30,
    )
    .addOption(
      new Option('--store-path-choice <how>', 'path for an upload')
        .choices(['round_robin', 'most_free'])
        .default('round_robin'),
    )
    .option('--segment-max-file <size>', 'larger files get a file of their own; 0: all do', parseSize, 2 ** 20)
    .option('--hot-files <size>', 'memory for small files that were read lately', parseSize, 64 * 2 ** 20)
    .addOption(
      new Option('--durability <level>', 'what has an acknowledged file: the disk, or only the system')
        .choices(['fsync', 'os'])
        .default('fsync'),
    )
    .addOption(
      new Option('--ack <level>', 'how many members hold an upload before it is answered, unless the client says')
        .choices(ACK_LEVELS)
        .default('one'),
    )
    .addOption(
      new Option(
        '--data-auth <mode>',
        'what clients show on the data port: nothing, the secret of their credentials, or tickets of a tracker',
      )
        .choices(DATA_AUTHS)
        .default('none'),
    )
    .option(
      '--scrub-rate <size>',
      'bytes a second for reading all files again and again, to find bad ones; 0: none',
      parseSize,
      SCRUB_BYTES_PER_SECOND,
    )
}

/** The same as they are given to another process. */
export function storeArguments(flags: StoreFlags): string[] {
  const reserved = typeof flags.reserved === 'number' ? String(flags.reserved) : `${flags.reserved.percent}%`
  return [
    ...['--reserved', reserved, '--store-path-choice', flags.storePathChoice],
    ...['--segment-max-file', String(flags.segmentMaxFile), '--hot-files', String(flags.hotFiles)],
    ...['--durability', flags.durability, '--ack', flags.ack, '--scrub-rate', String(flags.scrubRate)],
    ...['--data-auth', flags.dataAuth],
  ]
}

/** The same as a storage server understands them, for what it writes to: its store paths, or its data directory. */
export async function storeOptionsOf(flags: StoreFlags, disk: Disk, paths: readonly string[]) {
  return {
    storePathChoice: flags.storePathChoice,
    reservedBytes: await reservedBytesOf(flags.reserved, disk, paths),
    segmentFileBytesMax: flags.segmentMaxFile,
    hotFileBytes: flags.hotFiles,
    durability: flags.durability,
    ack: flags.ack,
    auth: flags.dataAuth,
    scrub: { bytesPerSecond: flags.scrubRate },
  }
}

/** One size for all paths: of disks that differ, the smallest has its share, and no path is closed for good. */
async function reservedBytesOf(reserve: Reserve, disk: Disk, paths: readonly string[]): Promise<number> {
  if (typeof reserve === 'number') return reserve
  const totals = await Promise.all(paths.map(path => totalBytesAt(disk, path)))
  return Math.round((Math.min(...totals) * reserve.percent) / 100)
}

/** What the disk of a path holds; the path may still have to be made. */
async function totalBytesAt(disk: Disk, path: string): Promise<number> {
  if ((await disk.stat(path)) === undefined && dirname(path) !== path) return totalBytesAt(disk, dirname(path))
  return (await disk.space(path)).totalBytes
}
