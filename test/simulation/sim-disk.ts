/**
 * The disk of one simulated machine: in memory, repeatable, and as unkind at a power cut as POSIX allows.
 *
 *     as(life) ──▶ ProcessDisk ──▶ SimFileSystem (names) ──▶ SimContent (bytes)
 *                  calls, faults     now and durable           now and durable
 *
 * Bytes are durable after `sync` of their file, names after `syncDirectory` of their directory, neither brings the
 * other along, and only what had taken effect when the sync was called is meant.
 */
import type { Disk } from '../../runtime/world.ts'
import { type DiskFaults, noFaults } from './disk-faults.ts'
import type { EventLoop } from './event-loop.ts'
import type { Life } from './life.ts'
import { attempt, type OpenFile, ProcessDisk, type SharedDisk } from './process-disk.ts'
import type { SeededRandom } from './seeded-random.ts'
import { SimFileSystem, type View } from './sim-file-system.ts'

export type { DiskFaults } from './disk-faults.ts'

/** More than any run writes, unless it wants to. */
const CAPACITY_BYTES = 10 * 1024 ** 3

export class SimDisk {
  /** May be changed at any time. */
  readonly faults: DiskFaults = noFaults()
  /** For a positive control: syncs promise, and do nothing. */
  syncIsLie = false
  /** Hears of every change that took effect: `rename a -> b`. */
  onChange?: (what: string) => void
  readonly #random: SeededRandom
  readonly #processes = new Map<Life, ProcessDisk>()
  readonly #shared: SharedDisk
  readonly #fileSystem: SimFileSystem

  constructor(loop: EventLoop, random: SeededRandom, options: { capacityBytes?: number } = {}) {
    this.#random = random
    this.#fileSystem = new SimFileSystem(() => loop.nowMs, random.below(2 ** 32))
    const disk = this
    this.#shared = {
      loop,
      random,
      faults: this.faults,
      capacityBytes: options.capacityBytes ?? CAPACITY_BYTES,
      fileSystem: this.#fileSystem,
      get syncIsLie() {
        return disk.syncIsLie
      },
      changed: what => disk.onChange?.(what),
    }
  }

  /** The disk as one process sees it. */
  as(life: Life): Disk {
    let process = this.#processes.get(life)
    if (process === undefined) {
      process = new ProcessDisk(life, this.#shared)
      this.#processes.set(life, process)
      life.onEnd(() => this.#processes.delete(life))
    }
    return process
  }

  /** Unsynced changes are lost, torn or kept, as the seed wills. Every life that uses the disk must have ended. */
  powerCut(): void {
    const alive = [...this.#processes.keys()].find(({ ended }) => !ended)
    if (alive !== undefined) throw new Error(`${alive.name} is still running on this disk`)
    const { kept, lost } = this.#fileSystem.powerCut(this.#random)
    this.#shared.changed(`power cut: keeps ${kept} unsynced changes of names, loses ${lost}`)
  }

  /**
   * A disk is unmounted: what was at the path is gone, and an empty directory is left. Files that were open there fail
   * for good. Does nothing if no directory is there.
   */
  vanish(path: string): void {
    const directory = this.#fileSystem.vanish(path)
    if (directory === undefined) return
    this.#severHandles(handle => handle.isWithin(directory))
    this.#shared.changed(`vanish ${path}`)
  }

  /** The disk is back as it was; what was made in its place is gone. */
  reappear(path: string): void {
    if (this.#fileSystem.reappear(path)) this.#shared.changed(`reappear ${path}`)
  }

  /** Another disk, an empty one, is in its place. */
  replace(): void {
    this.#severHandles(() => true)
    this.#fileSystem.format()
    this.#shared.changed('replace')
  }

  /** The paths of all files below one, sorted. */
  files(below: string): string[] {
    const paths: string[] = []
    if (this.#look(below) === undefined) return paths
    for (const { path, node } of this.#fileSystem.walk(below)) if (node.kind === 'file') paths.push(path)
    return paths.sort()
  }

  /** The content of a file; `durable` is what a power cut leaves that loses everything it can. */
  read(path: string, view: View = 'now'): Buffer | undefined {
    const node = this.#look(path, view)
    return node?.kind === 'file' ? node.content.bytes(view) : undefined
  }

  /** Flips a bit of a file, now and durably; false if there is none to flip. */
  flipBit(path: string, random: SeededRandom): boolean {
    const node = this.#look(path)
    if (node?.kind !== 'file' || node.content.sizeBytes === 0) return false
    const atBytes = random.below(node.content.sizeBytes)
    node.content.flipBit(atBytes, random.below(8))
    this.#shared.changed(`flip a bit of ${path} at ${atBytes}`)
    return true
  }

  /** Makes a file of these bytes or replaces its content, now and durably, with the directories above it. */
  write(path: string, bytes: Buffer): void {
    const fileSystem = this.#fileSystem
    fileSystem.makeDirectory('write', path.slice(0, path.lastIndexOf('/')))
    const node = fileSystem.find('write', path) ?? fileSystem.createFile('write', path)
    if (node.kind !== 'file') throw new Error(`${path} is not a file`)
    fileSystem.usedBytes += bytes.length - node.content.sizeBytes
    node.content.replace(bytes)
    fileSystem.settle(path)
    this.#shared.changed(`overwrite ${path} with ${bytes.length} bytes`)
  }

  /** How many files a process has open. */
  openHandles(life: Life): number {
    return this.#processes.get(life)?.handles.size ?? 0
  }

  /** What is at a path, if there is a way there. */
  #look(path: string, view: View = 'now') {
    return attempt(() => this.#fileSystem.find('look', path, view))
  }

  #severHandles(which: (handle: OpenFile) => boolean): void {
    for (const { handles } of this.#processes.values()) {
      for (const handle of handles) if (which(handle)) handle.sever()
    }
  }
}
