/** What was measured on: a rate without its machine says nothing. */
import { statfs } from 'node:fs/promises'
import { availableParallelism, cpus, release, totalmem, type } from 'node:os'
import type { World } from '../runtime/world.ts'
import { natsVersion } from './cluster.ts'

export interface Machine {
  readonly cores: number
  readonly model: string
  readonly memoryGib: number
  readonly system: string
  readonly node: string
  readonly natsServer: string
  /** Of the directory that the servers write to. */
  readonly fileSystem: string
}

/** The numbers by which Linux tells the usual file systems apart. */
const FILE_SYSTEMS: Record<number, string> = {
  61267: 'ext4',
  1481003842: 'xfs',
  2435016766: 'btrfs',
  801189825: 'zfs',
  16914836: 'tmpfs',
  2035054128: 'overlayfs',
}

export async function describeMachine(world: World, directory: string): Promise<Machine> {
  const { type: magic } = await statfs(directory)
  return {
    cores: availableParallelism(),
    model: cpus()[0]?.model ?? 'unknown',
    memoryGib: Math.round(totalmem() / 2 ** 30),
    system: `${type()} ${release()}`,
    node: process.version,
    natsServer: await natsVersion(world),
    fileSystem: FILE_SYSTEMS[magic] ?? `type ${magic}`,
  }
}
