/** A store with files of all kinds, and scrubs of it on a clock of their own that moves whenever they wait. */
import { open, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { PASS_MS_MIN } from '../../../actors/scrub/scrub.ts'
import { type RunningScrub, startScrub } from '../../../actors/scrub/start-scrub.ts'
import { decodeFileName } from '../../../protocol/file-id.ts'
import { silentLog } from '../../../runtime/log.ts'
import { realWorld } from '../../../runtime/real-world.ts'
import { Timers } from '../../../runtime/timers.ts'
import { type BadFile, Quarantine } from '../../../store/quarantine.ts'
import type { StoreOptions } from '../../../store/store-options.ts'
import { contentOf, type OpenStore, upload, type Workshop } from '../../store/store-fixture.ts'
import { VirtualClock } from '../../virtual-clock.ts'

/** Files of up to here are in slots; the largest are read in several pieces. */
export const PACKS: Partial<StoreOptions> = { segmentFileBytesMax: 2 ** 19 }

/** Names of what a store holds. */
export interface Files {
  readonly small: readonly string[]
  /** Slots that are read for themselves: in one piece, and in two. */
  readonly large: readonly string[]
  readonly oneBlock: string
  readonly threeBlocks: string
}

/** Fills a data directory. */
export async function fillStore(workshop: Workshop): Promise<Files> {
  const plain = await workshop.open()
  const oneBlock = await upload(plain.store, contentOf(1000, 1))
  await plain.close()
  const { store, close } = await workshop.open('data', PACKS)
  const threeBlocks = await upload(store, contentOf(600_000, 2))
  const small: string[] = []
  for (let i = 0; i < 20; i++) small.push(await upload(store, contentOf(i * 211, i)))
  const large = [await upload(store, contentOf(100_000, 3)), await upload(store, contentOf(300_000, 4))]
  await close()
  return { small, large, oneBlock, threeBlocks }
}

/** Where the bytes of a name are: its own file, or a segment and where its slot begins. */
export function placeOf({ directory }: OpenStore, name: string): { path: string; offsetBytes: number } {
  return placeIn(directory, name)
}

/** The same below a data directory. */
export function placeIn(directory: string, name: string): { path: string; offsetBytes: number } {
  const { slot, storageId, directory: below, baseName } = decodeFileName(name)
  if (slot === undefined) return { path: join(directory, 'store', 'data', below, baseName), offsetBytes: 0 }
  const segment = String(slot.segmentId).padStart(10, '0')
  return { path: join(directory, 'store', 'segments', String(storageId), segment), offsetBytes: slot.offsetBytes }
}

/** Flips bits of a byte. */
export async function flip(path: string, atBytes: number, bits = 0x01): Promise<void> {
  const file = await open(path, 'r+')
  const byte = Buffer.alloc(1)
  await file.read(byte, 0, 1, atBytes)
  byte[0]! ^= bits
  await file.write(byte, 0, 1, atBytes)
  await file.close()
}

/** Flips a byte of what a name stands for, counted from where its slot or file begins. */
export async function spoil(opened: OpenStore, name: string, atBytes: number, bits?: number): Promise<void> {
  const { path, offsetBytes } = placeOf(opened, name)
  await flip(path, offsetBytes + atBytes, bits)
}

export class TestScrub {
  readonly clock: VirtualClock
  readonly quarantine: Quarantine
  readonly scrub: RunningScrub
  /** What people were told, in order. */
  readonly told: string[]

  private constructor(clock: VirtualClock, quarantine: Quarantine, scrub: RunningScrub, told: string[]) {
    this.clock = clock
    this.quarantine = quarantine
    this.scrub = scrub
    this.told = told
  }

  static async start({ store, directory, disk }: OpenStore, bytesPerSecond = 2 ** 20): Promise<TestScrub> {
    const clock = new VirtualClock()
    const told: string[] = []
    const quarantine = await Quarantine.read(disk, directory)
    const world = { ...realWorld(), disk, clock }
    const context = { world, timers: new Timers(clock), log: silentLog(), prefix: 'dfs', version: '0.0.0' }
    const onDamage = (name: string, problem: string) => void told.push(`${name} ${problem}`)
    const options = { dataDirectory: directory, store, quarantine, bytesPerSecond, onDamage }
    return new TestScrub(clock, quarantine, await startScrub(context, options), told)
  }

  /** Lets it work until something is so; time passes only while it waits. */
  async until(isSo: () => boolean): Promise<void> {
    while (!isSo()) {
      if (this.clock.alarmCount > 0) this.clock.ringNext()
      await new Promise(resolve => setImmediate(resolve))
    }
  }

  /** Lets it work for so long. */
  async for(ms: number): Promise<void> {
    const untilMs = this.clock.monotonicMs() + ms
    await this.until(() => this.clock.monotonicMs() >= untilMs)
  }

  /** Lets it make whole passes, and look once more at whatever was bad before. */
  async passes(count = 1): Promise<void> {
    const wanted = this.scrub.counts().scrubPasses + count
    await this.until(() => this.scrub.counts().scrubPasses >= wanted)
    await this.for(PASS_MS_MIN / 10)
  }

  /** What is in quarantine: part and block by name. */
  get bad(): Record<string, string> {
    const what = ({ part, block }: BadFile) => (block === undefined ? part : `${part} ${block}`)
    return Object.fromEntries(this.quarantine.files.map(file => [file.name, what(file)]))
  }
}

/** Cuts a file off behind so many bytes. */
export async function shorten(path: string, sizeBytes: number): Promise<void> {
  await writeFile(path, (await readFile(path)).subarray(0, sizeBytes))
}
