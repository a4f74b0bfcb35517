/** How a storage server keeps files: the options that `dfs storage` has, and `dfs up` passes on to its own. */
import { type Command, Option } from 'commander'
import { SCRUB_BYTES_PER_SECOND } from '../actors/scrub/scrub.ts'
import { ACK_LEVELS, type AckLevel } from '../protocol/ack.ts'
import type { StoreOptions } from '../store/store-options.ts'
import { parseSize } from './sizes.ts'

export interface StoreFlags {
  readonly reserved: number
  readonly storePathChoice: StoreOptions['storePathChoice']
  readonly segmentMaxFile: number
  readonly hotFiles: number
  readonly durability: StoreOptions['durability']
  readonly ack: AckLevel
  readonly scrubRate: number
}

/** Adds the options to a command. */
export function addStoreFlags(command: Command): Command {
  return command
    .option('--reserved <size>', 'space on each store path that uploads never take', parseSize, 2 ** 30)
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
    .option(
      '--scrub-rate <size>',
      'bytes a second for reading all files again and again, to find bad ones; 0: none',
      parseSize,
      SCRUB_BYTES_PER_SECOND,
    )
}

/** The same as they are given to another process. */
export function storeArguments(flags: StoreFlags): string[] {
  return [
    ...['--reserved', String(flags.reserved), '--store-path-choice', flags.storePathChoice],
    ...['--segment-max-file', String(flags.segmentMaxFile), '--hot-files', String(flags.hotFiles)],
    ...['--durability', flags.durability, '--ack', flags.ack, '--scrub-rate', String(flags.scrubRate)],
  ]
}

/** The same as a storage server understands them. */
export function storeOptionsOf(flags: StoreFlags) {
  return {
    storePathChoice: flags.storePathChoice,
    reservedBytes: flags.reserved,
    segmentFileBytesMax: flags.segmentMaxFile,
    hotFileBytes: flags.hotFiles,
    durability: flags.durability,
    ack: flags.ack,
    scrub: { bytesPerSecond: flags.scrubRate },
  }
}
