/**
 * The segments of a store path: many small files in one, each in a slot. A segment belongs to the source that appends to
 * it; its peers hold the same slots at the same places.
 *
 *     <store path>/segments/<storage id of the source>/<segment id, 10 digits>
 *
 *     id   31  30 ........ 20  19 ................ 0
 *         +---+---------------+---------------------+
 *         | 0 | writer        | sequence            |
 *         +---+---------------+---------------------+
 *
 * A writer number stands for one life of a source's data: one that has lost data goes on under another, so that no slot
 * means files of two lives. Each start appends to a new segment: what a crash has left behind the last slot of the one
 * before is never written over.
 *
 * Writer 0 is FastDFS's own. Its trunk files belong to all sources of a group, and lie among the plain files, in the directory
 * that the names of their files say:
 *
 *     <store path>/data/0A/3F/<id, 6 digits>
 */
import { dirname, join } from 'node:path'
import { DfsError } from '../protocol/errors.ts'
import type { FileNameParts } from '../protocol/file-id.ts'
import { type Disk, DiskError } from '../runtime/world.ts'
import { allDone } from './all-done.ts'
import { makeDurableDirectory } from './durable-directory.ts'
import { groupBy } from './group-by.ts'
import { SegmentFile } from './segment-file.ts'
import {
  contentOf,
  corruptSlot,
  isDamagedHeaderOf,
  isHeaderOf,
  isOfLaterFile,
  isTrunkFile,
  nameOfSlot,
  readHeaderOf,
  readSlotHeader,
  SLOT_ALIGNMENT,
  SLOT_HEADER_BYTES,
  type SlotHeader,
} from './slot.ts'

/** Read at a time by whoever goes over headers: some of them in small slots, little for nothing in large ones. */
const WALK_BYTES = 64 * 1024

/** Open at a time for each store path: a cache, the handles of a busy disk fit in it. */
const OPEN_MAX = 128

const SEQUENCE_BITS = 20
/** Eleven bits; 0 is FastDFS's own. */
export const WRITER_MAX = 2 ** 11 - 1

const SEGMENT_NAME = /^\d{10}$/
const SOURCE_NAME = /^[1-9]\d*$/

/** A segment, by its source and id. */
export interface SegmentRef {
  readonly storageId: number
  readonly segmentId: number
}

/** Where a slot begins. */
export interface SlotPlace extends SegmentRef {
  readonly offsetBytes: number
  /** Of a trunk file: the directory it lies in. */
  readonly directory?: string | undefined
}

/** A slot to be written: where, and what. */
export interface SlotBytes extends SlotPlace {
  readonly storePathIndex: number
  readonly bytes: Uint8Array
  /** There was another file before, so it takes no room. */
  readonly reused?: boolean | undefined
}

/** A file name, and what it says. */
export interface NamedFile {
  readonly name: string
  readonly file: FileNameParts
  /** Its source says that another file was in the slot before. */
  readonly reused?: boolean | undefined
}

/** What the slots of a segment come to. */
export interface SegmentSum {
  /** In slots that hold a file, or something that cannot be told. */
  readonly usedBytes: number
  /** Where the last slot ends. */
  readonly endBytes: number
}

/** Slots that lie behind each other, and where the next begins. */
export interface SlotHeaders {
  readonly slots: readonly { readonly offsetBytes: number; readonly header: SlotHeader }[]
  readonly nextBytes: number
}

interface OpenSegment {
  readonly file: Promise<SegmentFile>
  /** It is made if it is not there. */
  readonly makes: boolean
  users: number
  /** When it was used last: larger is later. */
  turn: number
}

export class Segments {
  readonly #disk: Disk
  readonly #root: string
  readonly #trunkRoot: string
  readonly #syncs: boolean
  readonly #checkPresent: () => Promise<void>
  /** See `keyOf`. */
  readonly #open = new Map<string, OpenSegment>()
  #turn = 0
  /** With slots that were freed since the last `syncChanges`. */
  #changed = new Map<string, SegmentRef>()
  /** Segments that are being removed: whoever wants to use one waits, and may make it anew. */
  readonly #removing = new Map<string, Promise<unknown>>()

  /**
   * Those of the store path at `root`. `checkPresent` throws if its disk is not there: nothing is made on what is mounted
   * instead.
   */
  constructor(disk: Disk, root: string, options: { syncs: boolean; checkPresent: () => Promise<void> }) {
    this.#disk = disk
    this.#root = join(root, 'segments')
    this.#trunkRoot = join(root, 'data')
    this.#syncs = options.syncs
    this.#checkPresent = options.checkPresent
  }

  /** Writes slots; all are durable when it resolves, and until it settles the bytes must not change. */
  put(slots: readonly SlotBytes[]): Promise<void> {
    const groups = [...groupBy(slots, keyOf).values()]
    return allDone(groups.map(group => this.#use(group[0]!, true, segment => segment.put(group))))
  }

  /**
   * Reads a file from its slot; undefined if it is not there. `target` has room for the slot; what is returned is a view
   * of it. Rejects with `corrupt` if the slot holds something that is no file.
   */
  async read(name: string, file: FileNameParts, target: Buffer): Promise<Buffer | undefined> {
    const place = placeOf(file)
    const wanted = SLOT_HEADER_BYTES + file.sizeBytes!
    const count = await this.#ifThere(place, segment => segment.read(target.subarray(0, wanted), place.offsetBytes))
    if (count === undefined) return undefined
    const slot = target.subarray(0, count)
    const header = this.#judge(name, file, slot)
    if (header === undefined || header.isFree || !isHeaderOf(header, file)) return undefined
    const content = contentOf(slot, header)
    if (content === undefined) throw corruptSlot(name)
    return content
  }

  /** Reads whatever is in the place of a file's slot, and behind it; returns how many bytes there were. */
  async readRaw(file: FileNameParts, target: Uint8Array): Promise<number> {
    const place = placeOf(file)
    return (await this.#ifThere(place, segment => segment.read(target, place.offsetBytes))) ?? 0
  }

  /**
   * Throws `bad_request` if another file is in the place of the slot of one of these: two lives of their source took one
   * writer number, and what is there may be the only copy. Returns those that are in their slots already.
   */
  async expectRoom(files: readonly NamedFile[]): Promise<NamedFile[]> {
    const there: NamedFile[] = []
    for (const group of groupBy(files, ({ file }) => keyOf(placeOf(file))).values()) {
      await this.#ifThere(placeOf(group[0]!.file), async segment => {
        for (const one of group) {
          if (one.file.slot!.offsetBytes < segment.endBytes && (await isInRoom(segment, one))) there.push(one)
        }
      })
    }
    return there
  }

  /** The state of a file by its slot: `unknown` if nothing has ever been there. */
  async stateOf(name: string, file: FileNameParts): Promise<'present' | 'deleted' | 'unknown'> {
    const header = await this.#header(name, file)
    if (header === undefined) return 'unknown'
    if (!isHeaderOf(header, file)) return isOfLaterFile(header, file) ? 'deleted' : 'unknown'
    return header.isFree ? 'deleted' : 'present'
  }

  /**
   * Frees the slot of a file, if the file is in it. Safe to repeat. Says what it found: the file, its slot free already,
   * another file's slot, nothing that is a slot, or not even the segment.
   */
  async free(name: string, file: FileNameParts): Promise<FoundInSlot> {
    const place = placeOf(file)
    const header = await this.#header(name, file).catch(ignoreCorrupt)
    if (header === undefined) return (await this.has(place)) ? 'nothing' : 'removed'
    if (!isHeaderOf(header, file)) return 'other'
    // One that is marked already may be so in memory only.
    if (!header.isFree) await this.#use(place, false, segment => segment.markFree(place.offsetBytes))
    this.#changed.set(keyOf(place), place)
    return header.isFree ? 'free' : 'file'
  }

  /** Makes durable that slots are free. */
  async syncChanges(): Promise<void> {
    const changed = this.#changed
    this.#changed = new Map()
    try {
      // One that is not there was removed meanwhile.
      for (const place of changed.values())
        await this.#use(place, false, segment => segment.sync()).catch(ignoreMissing)
    } catch (error) {
      for (const [key, place] of changed) this.#changed.set(key, place)
      throw error
    }
  }

  /** Ids of a source's segments under a writer, in order. */
  async list(storageId: number, writer: number): Promise<number[]> {
    const ids = await this.#idsOf(String(storageId))
    return ids.filter(id => writerOf(id) === writer).sort((a, b) => a - b)
  }

  /** All segments of all sources. */
  async listAll(): Promise<SegmentRef[]> {
    const sources = (await this.#disk.list(this.#root)).filter(name => SOURCE_NAME.test(name))
    const refs = sources.map(async source =>
      (await this.#idsOf(source)).map(segmentId => ({ storageId: Number(source), segmentId })),
    )
    return (await Promise.all(refs)).flat()
  }

  async #idsOf(source: string): Promise<number[]> {
    const names = await this.#disk.list(join(this.#root, source)).catch(error => {
      if (error.errno !== 'ENOENT') throw error
      return []
    })
    return names.filter(name => SEGMENT_NAME.test(name)).map(Number)
  }

  /** Goes from slot to slot, each read as a whole, as far as there are any. What is given is good until the next one. */
  async *slots(
    { storageId, segmentId }: SegmentRef,
    storePathIndex: number,
    range: { fromBytes: number; untilBytes: number },
  ): AsyncGenerator<{ name: string; offsetBytes: number; slot: Buffer; header: SlotHeader }> {
    let offsetBytes = range.fromBytes
    while (offsetBytes < range.untilBytes) {
      const place = { storageId, segmentId, offsetBytes }
      const read = async (bytes: number) => {
        const target = Buffer.allocUnsafe(bytes)
        const count = await this.#ifThere(place, segment => segment.read(target, offsetBytes))
        return target.subarray(0, count ?? 0)
      }
      const head = await read(SLOT_HEADER_BYTES)
      const header = readSlotHeader(head)
      if (header === undefined) {
        // What lies behind a slot that never got to the disk may have got there.
        if (head.length < SLOT_HEADER_BYTES || !head.every(isZero)) return
        offsetBytes += SLOT_ALIGNMENT
        continue
      }
      const name = nameOfSlot({ storePathIndex, ...place }, header)
      yield { name, offsetBytes, slot: await read(header.slotBytes), header }
      offsetBytes += header.slotBytes
    }
  }

  /** Whether there is such a segment. */
  async has(ref: SegmentRef): Promise<boolean> {
    return (await this.#ifThere(ref, async () => true)) ?? false
  }

  /**
   * Reads some headers of a segment, from a place where a slot begins or may begin: those of slots, and where the next ones
   * are; undefined behind the last. What is damaged is passed by.
   */
  async headers(ref: SegmentRef, fromBytes: number): Promise<SlotHeaders | undefined> {
    const target = Buffer.allocUnsafe(WALK_BYTES)
    const count = (await this.#ifThere(ref, segment => segment.read(target, fromBytes))) ?? 0
    if (count < SLOT_HEADER_BYTES) return undefined
    const slots: { offsetBytes: number; header: SlotHeader }[] = []
    let at = 0
    while (at + SLOT_HEADER_BYTES <= count) {
      const header = readSlotHeader(target.subarray(at, at + SLOT_HEADER_BYTES))
      if (header !== undefined) slots.push({ offsetBytes: fromBytes + at, header })
      at += header?.slotBytes ?? SLOT_ALIGNMENT
    }
    return { slots, nextBytes: fromBytes + at }
  }

  /** Goes over all headers of a segment, and says what they come to; undefined if it is not there. */
  walk(ref: SegmentRef, visit: OnSlot = ignore): Promise<SegmentSum | undefined> {
    return this.#ifThere(ref, segment => walk(segment, visit))
  }

  /**
   * Removes a segment without a file in it; false if there is one, undefined if somebody is at work in it. Who comes
   * meanwhile waits, and may make the segment anew.
   */
  async remove(ref: SegmentRef): Promise<boolean | undefined> {
    const key = keyOf(ref)
    const open = this.#open.get(key)
    if (this.#removing.has(key) || (open !== undefined && open.users > 0)) return undefined
    this.#open.delete(key)
    if (open !== undefined) this.#close(open)
    const removed = this.#removeFree(ref)
    this.#removing.set(key, removed.catch(ignore))
    try {
      return await removed
    } finally {
      this.#removing.delete(key)
    }
  }

  async #removeFree(ref: SegmentRef): Promise<boolean> {
    try {
      const segment = await this.#openFile(ref, false)
      try {
        if ((await walk(segment, ignore)).usedBytes > 0) return false
      } finally {
        await segment.close()
      }
      const directory = join(this.#root, String(ref.storageId))
      await this.#disk.remove(join(directory, fileNameOf(ref)))
      await this.#disk.syncDirectory(directory)
    } catch (error) {
      if ((error as { errno?: string }).errno !== 'ENOENT') throw error
      // A disk that went away has no segments either.
      await this.#checkPresent()
    }
    this.#changed.delete(keyOf(ref))
    return true
  }

  async close(): Promise<void> {
    const open = [...this.#open.values()]
    this.#open.clear()
    await Promise.all(open.map(({ file }) => file.then(segment => segment.close(), ignore)))
  }

  async #header(name: string, file: FileNameParts): Promise<SlotHeader | undefined> {
    const place = placeOf(file)
    const target = Buffer.alloc(SLOT_HEADER_BYTES)
    const count = await this.#ifThere(place, segment => segment.read(target, place.offsetBytes))
    return count === undefined ? undefined : this.#judge(name, file, target.subarray(0, count))
  }

  /**
   * Throws `corrupt` where something is that is no header, or has been that of the name: nobody may take the file for one
   * that has never been here. What has never been written is short, or zero.
   */
  #judge(name: string, file: FileNameParts, slot: Buffer): SlotHeader | undefined {
    const header = readHeaderOf(slot, file)
    if (header !== undefined) {
      if (!header.isFree && isDamagedHeaderOf(header, file)) throw corruptSlot(name)
      return header
    }
    const head = slot.subarray(0, SLOT_HEADER_BYTES)
    if (head.length < SLOT_HEADER_BYTES || head.every(byte => byte === 0)) return undefined
    throw corruptSlot(name)
  }

  /** Reads, if the segment is there. A disk that went away may have come back: a handle from before does not know. */
  async #ifThere<T>(ref: SegmentRef, work: (segment: SegmentFile) => Promise<T>): Promise<T | undefined> {
    const wasOpen = this.#open.has(keyOf(ref))
    try {
      return await this.#use(ref, false, work).catch(error => {
        if (wasOpen && error instanceof DiskError) return this.#use(ref, false, work)
        throw error
      })
    } catch (error) {
      if ((error as { errno?: string }).errno !== 'ENOENT') throw error
      return undefined
    }
  }

  /** Works with a segment that is open meanwhile. */
  async #use<T>(ref: SegmentRef, makes: boolean, work: (segment: SegmentFile) => Promise<T>): Promise<T> {
    const key = keyOf(ref)
    while (this.#removing.has(key)) await this.#removing.get(key)
    let open = this.#open.get(key)
    // Somebody looks for a segment that is not there yet: that fails, and then it is made.
    while (makes && open?.makes === false && !(await isOpened(open))) open = this.#open.get(key)
    if (open === undefined) {
      open = { file: this.#openFile(ref, makes), makes, users: 0, turn: 0 }
      this.#open.set(key, open)
      open.file.catch(() => {
        if (this.#open.get(key) === open) this.#open.delete(key)
      })
    }
    open.turn = ++this.#turn
    open.users++
    try {
      return await work(await open.file)
    } catch (error) {
      // Whoever comes next tries it with another handle.
      if (error instanceof DiskError && this.#open.get(key) === open) this.#open.delete(key)
      throw error
    } finally {
      open.users--
      if (this.#open.get(key) !== open) this.#close(open)
      else if (this.#open.size > OPEN_MAX) this.#closeOne()
    }
  }

  /** Closes the one that nobody uses, and nobody has used for the longest time. */
  #closeOne(): void {
    let oldest: readonly [string, OpenSegment] | undefined
    for (const one of this.#open) {
      if (one[1].users === 0 && (oldest === undefined || one[1].turn < oldest[1].turn)) oldest = one
    }
    if (oldest === undefined) return
    this.#open.delete(oldest[0])
    this.#close(oldest[1])
  }

  /** Closes a segment that nobody will be given any more, once nobody uses it. */
  #close({ file, users }: OpenSegment): void {
    if (users === 0) file.then(segment => segment.close()).catch(ignore)
  }

  async #openFile(ref: SegmentRef & Pick<SlotPlace, 'directory'>, makes: boolean): Promise<SegmentFile> {
    const isTrunk = ref.directory !== undefined
    const directory = isTrunk ? join(this.#trunkRoot, ref.directory) : join(this.#root, String(ref.storageId))
    const path = join(directory, isTrunk ? trunkFileName(ref) : fileNameOf(ref))
    const file = await this.#disk.open(path, 'update').catch(async error => {
      if (error.errno !== 'ENOENT' || !makes) throw error
      await this.#checkPresent()
      if (isTrunk) await makeDurableDirectory(this.#disk, dirname(directory))
      await makeDurableDirectory(this.#disk, directory)
      return this.#disk.open(path, 'create')
    })
    return new SegmentFile(this.#disk, directory, file, { sizeBytes: await file.sizeBytes(), syncs: this.#syncs })
  }
}

/** What a deletion finds in the slot of its file. */
export type FoundInSlot = 'file' | 'free' | 'other' | 'nothing' | 'removed'

/** Called with each slot of a segment, in order. */
type OnSlot = (offsetBytes: number, header: SlotHeader) => void

/** Loops over what was read, because there may be a million slots. Where nothing was ever put there are zeros. */
async function walk(segment: SegmentFile, visit: OnSlot): Promise<SegmentSum> {
  const window = Buffer.allocUnsafe(WALK_BYTES)
  let usedBytes = 0
  let endBytes = 0
  for (let windowAt = 0, at = 0; ; windowAt = at) {
    const count = await segment.read(window, windowAt)
    if (count < SLOT_HEADER_BYTES) return { usedBytes, endBytes }
    while (at + SLOT_HEADER_BYTES <= windowAt + count) {
      const head = window.subarray(at - windowAt, at - windowAt + SLOT_HEADER_BYTES)
      const header = readSlotHeader(head)
      if (header !== undefined) {
        visit(at, header)
        if (!header.isFree) usedBytes += header.slotBytes
        at += header.slotBytes
        endBytes = at
      } else if (head.every(isZero)) at += SLOT_ALIGNMENT
      else {
        // Nobody knows what this is, nor where the next slot begins: none of it is taken for free.
        const leftBytes = Math.max(segment.endBytes - at, SLOT_HEADER_BYTES)
        const unknownBytes = Math.ceil(leftBytes / SLOT_ALIGNMENT) * SLOT_ALIGNMENT
        return { usedBytes: usedBytes + unknownBytes, endBytes: at + unknownBytes }
      }
    }
  }
}

/** Whether a file is in its slot already. Throws unless it is, or the slot is free, or was another's that is deleted. */
async function isInRoom(segment: SegmentFile, { name, file, reused }: NamedFile): Promise<boolean> {
  const target = Buffer.alloc(SLOT_HEADER_BYTES)
  const count = await segment.read(target, file.slot!.offsetBytes)
  const header = readHeaderOf(target.subarray(0, count), file)
  if (header === undefined || header.isFree) return false
  if (isHeaderOf(header, file)) return true
  // Its source may have lost the record of the deletion, with the deletion done; FastDFS may not have come to tell of it.
  if ((reused || isTrunkFile(file.slot!)) && header.createTimeS < file.createTimeS) return false
  throw new DfsError('bad_request', `there is another file in the slot of ${name}`)
}

function isZero(byte: number): boolean {
  return byte === 0
}

/** As FastDFS names it. */
export function trunkFileName({ segmentId }: Pick<SegmentRef, 'segmentId'>): string {
  return String(segmentId).padStart(6, '0')
}

function fileNameOf({ segmentId }: SegmentRef): string {
  return String(segmentId).padStart(10, '0')
}

function keyOf({ storageId, segmentId, directory }: SegmentRef & Pick<SlotPlace, 'directory'>): string {
  return `${directory ?? storageId}/${segmentId}`
}

/** The first segment that a start may append to, behind those there are and one that a power cut may have taken. */
export function nextSegmentId(writer: number, last: number | undefined): number {
  return last === undefined ? writer * 2 ** SEQUENCE_BITS + 1 : last + 2
}

export function writerOf(segmentId: number): number {
  return Math.floor(segmentId / 2 ** SEQUENCE_BITS)
}

/** Where the slot of a file is. */
export function placeOf(file: FileNameParts): SlotPlace {
  const { segmentId, offsetBytes } = file.slot!
  const directory = isTrunkFile(file.slot!) ? file.directory : undefined
  return { storageId: file.storageId ?? 0, segmentId, offsetBytes, directory }
}

/** What is no header is not the file's. */
function ignoreCorrupt(error: unknown): undefined {
  if (error instanceof DfsError && error.code === 'corrupt') return undefined
  throw error
}

/** What is not there was removed, or goes with its disk. */
function ignoreMissing(error: unknown): void {
  if ((error as { errno?: string }).errno !== 'ENOENT') throw error
}

function isOpened({ file }: OpenSegment): Promise<boolean> {
  return file.then(
    () => true,
    () => false,
  )
}

function ignore(): void {}
