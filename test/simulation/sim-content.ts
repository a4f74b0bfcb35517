/**
 * The bytes of one simulated file, as they are now and as a power cut would leave them.
 *
 *     durable image ──▶ unsynced change ──▶ unsynced change ──▶ image now
 *                  ◀── sync moves them to the durable side
 *
 * Both images share one buffer as long as everything since the last sync was appended, so that most bytes are kept once.
 */
import type { SeededRandom } from './seeded-random.ts'

/** What a disk writes whole or not at all. */
export const SECTOR_BYTES = 512

/** Room for appends to come, so that a file is not copied for each of them. */
const GROWTH = 1.5

/** What becomes of unsynced changes at a power cut: of each for itself, if mixed. */
export type Fate = 'lost' | 'kept' | 'mixed'

type Change =
  | { readonly kind: 'write'; readonly offsetBytes: number; readonly bytes: Buffer }
  | { readonly kind: 'truncate'; readonly sizeBytes: number }

export class SimContent {
  readonly #now = new Image()
  readonly #durable = new Image()
  /** Unsynced, in the order they took effect. */
  #changes: Change[] = []
  /** How many changes there were before those. */
  #settled = 0
  /** The durable image has no buffer of its own; what lies behind its size in the one it has is not zero. */
  #shared = false
  /** A failed sync left changes in the image now that will never be durable. */
  #diverged = false

  get sizeBytes(): number {
    return this.#now.sizeBytes
  }

  /** Names the changes so far, for `sync`. */
  get position(): number {
    return this.#settled + this.#changes.length
  }

  /** Whether a power cut can change anything. */
  get unsynced(): boolean {
    return this.#changes.length > 0 || this.#diverged
  }

  /** Fills `target` as far as there are bytes; returns how many. */
  read(target: Uint8Array, offsetBytes: number): number {
    return this.#now.read(target, offsetBytes)
  }

  /** A copy of everything. */
  bytes(view: 'now' | 'durable'): Buffer {
    return (view === 'now' ? this.#now : this.#durable).copy()
  }

  /** Keeps `bytes`, which must not change any more. */
  write(bytes: Buffer, offsetBytes: number): void {
    if (bytes.length === 0) return
    if (offsetBytes < this.#durable.sizeBytes) this.#part()
    this.#now.write(bytes, offsetBytes)
    this.#changes.push({ kind: 'write', offsetBytes, bytes })
  }

  truncate(sizeBytes: number): void {
    if (sizeBytes === this.sizeBytes) return
    if (sizeBytes < this.#durable.sizeBytes) this.#part()
    this.#now.resize(sizeBytes)
    this.#changes.push({ kind: 'truncate', sizeBytes })
  }

  /** Makes durable what had taken effect at a position. */
  sync(position: number): void {
    const count = Math.max(0, position - this.#settled)
    if (count === this.#changes.length && !this.#diverged) this.#share()
    else if (count > 0) {
      this.#part()
      for (const change of this.#changes.slice(0, count)) apply(change, this.#durable)
    }
    this.#drop(count)
  }

  /** What is unsynced can be read until the next power cut, and never becomes durable. */
  failSync(): void {
    if (this.#changes.length === 0) return
    this.#part()
    this.#diverged = true
    this.#drop(this.#changes.length)
  }

  powerCut(random: SeededRandom, fate: Fate): void {
    if (!this.unsynced) return
    this.#part()
    for (const change of this.#changes) {
      const own = fate === 'mixed' ? random.pick(CHANGE_FATES) : fate
      if (own === 'kept') apply(change, this.#durable)
      else if (own === 'torn' && change.kind === 'write') tear(change, this.#durable, random)
    }
    this.#drop(this.#changes.length)
    this.#diverged = false
    this.#now.become(this.#durable)
    this.#shared = true
  }

  /** Replaces everything, durably. */
  replace(bytes: Buffer): void {
    this.#drop(this.#changes.length)
    this.#diverged = false
    this.#now.replace(Buffer.from(bytes))
    this.#share()
  }

  /** Flips one bit of a byte, wherever that byte is kept. */
  flipBit(atBytes: number, bit: number): void {
    this.#now.flip(atBytes, bit)
    if (!this.#durable.shares(this.#now)) this.#durable.flip(atBytes, bit)
    for (const change of this.#changes) {
      if (change.kind !== 'write') continue
      const at = atBytes - change.offsetBytes
      if (at >= 0 && at < change.bytes.length) change.bytes[at]! ^= 1 << bit
    }
  }

  #share(): void {
    this.#durable.become(this.#now)
    this.#shared = true
  }

  /** Gives the durable image a buffer of its own, before bytes of it change in one image only. */
  #part(): void {
    if (this.#shared) this.#durable.replace(this.#durable.copy())
    this.#shared = false
  }

  #drop(count: number): void {
    this.#changes = this.#changes.slice(count)
    this.#settled += count
  }
}

const CHANGE_FATES = ['kept', 'lost', 'torn'] as const

/** The bytes from 0 to a size. Behind the size the buffer is zero, unless a longer image had it too. */
class Image {
  #buffer: Buffer = Buffer.alloc(0)
  #sizeBytes = 0

  get sizeBytes(): number {
    return this.#sizeBytes
  }

  read(target: Uint8Array, offsetBytes: number): number {
    const end = Math.min(this.#sizeBytes, offsetBytes + target.length)
    return end > offsetBytes ? this.#buffer.copy(target, 0, offsetBytes, end) : 0
  }

  copy(): Buffer {
    return Buffer.from(this.#buffer.subarray(0, this.#sizeBytes))
  }

  write(bytes: Buffer, offsetBytes: number): void {
    this.#reserve(offsetBytes + bytes.length)
    bytes.copy(this.#buffer, offsetBytes)
    this.#sizeBytes = Math.max(this.#sizeBytes, offsetBytes + bytes.length)
  }

  resize(sizeBytes: number): void {
    if (sizeBytes < this.#sizeBytes) this.#buffer.fill(0, sizeBytes, this.#sizeBytes)
    else this.#reserve(sizeBytes)
    this.#sizeBytes = sizeBytes
  }

  /** Keeps `bytes`. */
  replace(bytes: Buffer): void {
    this.#buffer = bytes
    this.#sizeBytes = bytes.length
  }

  flip(atBytes: number, bit: number): void {
    if (atBytes < this.#sizeBytes) this.#buffer[atBytes]! ^= 1 << bit
  }

  /** From now on they have one buffer. */
  become(other: Image): void {
    this.#buffer = other.#buffer
    this.#sizeBytes = other.#sizeBytes
  }

  shares(other: Image): boolean {
    return this.#buffer === other.#buffer
  }

  #reserve(sizeBytes: number): void {
    if (sizeBytes <= this.#buffer.length) return
    const buffer = Buffer.alloc(Math.max(sizeBytes, Math.ceil(this.#sizeBytes * GROWTH)))
    this.#buffer.copy(buffer, 0, 0, this.#sizeBytes)
    this.#buffer = buffer
  }
}

function apply(change: Change, image: Image): void {
  if (change.kind === 'write') image.write(change.bytes, change.offsetBytes)
  else image.resize(change.sizeBytes)
}

/** Some sectors reach the disk, others do not; the new size may do so without its bytes. */
function tear({ offsetBytes, bytes }: Change & { kind: 'write' }, image: Image, random: SeededRandom): void {
  const end = offsetBytes + bytes.length
  let from = offsetBytes
  while (from < end) {
    const until = Math.min(end, from - (from % SECTOR_BYTES) + SECTOR_BYTES)
    if (random.chance(0.5)) image.write(bytes.subarray(from - offsetBytes, until - offsetBytes), from)
    from = until
  }
  if (random.chance(0.5) && image.sizeBytes < end) image.resize(end)
}
