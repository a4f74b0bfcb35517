/**
 * Lists what is kept here, in the order that all members share (protocol/list-bodies.ts), a bounded piece at a time and
 * from the disk: headers of segments, then directories. A file is listed when it is acknowledged, or about to be: not while
 * its slot is being written, and not any more when its deletion is answered.
 */
import { DfsError } from '../protocol/errors.ts'
import { type FileNameParts, isMetadataName } from '../protocol/file-id.ts'
import {
  LIST_FILES_MAX,
  type ListedName,
  type ListFields,
  type ListPage,
  type ListPlace,
} from '../protocol/list-bodies.ts'
import { fileOf, PlainWalk } from './plain-walk.ts'
import type { SlotBytes, SlotPlace } from './segments.ts'
import { nameOfSlot } from './slot.ts'
import type { SegmentPlace, SlotCatalogue } from './slot-catalogue.ts'
import type { SlotWriter } from './slot-writer.ts'
import type { Store } from './store.ts'
import type { StorePaths } from './store-paths.ts'

/** What a page may cost, however little it finds: some megabytes of headers, or as many files as it holds. */
const WORK_MAX = LIST_FILES_MAX
/** Of 64 KiB of headers, as against a file in a directory. */
const HEADERS_WORK = 4

/** What is to be listed. */
export type ListWanted = Pick<ListFields, 'place' | 'prefix' | 'sinceS'>

export interface FileListParts {
  readonly store: Pick<Store, 'storePaths' | 'namesFrom' | 'open'>
  readonly paths: StorePaths
  readonly catalogue: SlotCatalogue
  readonly slotWriter: SlotWriter
}

type IsWanted = (name: string, createTimeS: number) => boolean

export class FileList {
  readonly #parts: FileListParts

  constructor(parts: FileListParts) {
    this.#parts = parts
  }

  /** The next files behind a place. Rejects with a DiskError if the disk of a store path is not there. */
  async page({ place: from, prefix, sinceS }: ListWanted): Promise<ListPage> {
    const files: ListedName[] = []
    const walk = new PlainWalk(this.#parts.store)
    const isWanted = (name: string, createTimeS: number) => createTimeS >= sinceS && name.startsWith(prefix)
    let place: ListPlace | undefined = from
    for (let work = 0; place !== undefined && work < WORK_MAX && files.length < LIST_FILES_MAX; ) {
      work += place.phase === 'slots' ? HEADERS_WORK : 1
      if (place.phase === 'slots') place = await this.#slots(place, isWanted, files)
      else place = await this.#plain(place, walk, isWanted, files)
    }
    return { place, files }
  }

  /** Takes what some headers tell of. */
  async #slots(place: ListPlace & { phase: 'slots' }, isWanted: IsWanted, files: ListedName[]): Promise<ListPlace> {
    const segment = this.#segmentFrom(place)
    if (segment === undefined) return { phase: 'plain', storePathIndex: 0, directoryIndex: 0, after: '' }
    const path = this.#parts.paths.of(segment)
    const { storePathIndex, storageId, segmentId } = segment
    const isSame =
      segmentId === place.segmentId && storageId === place.storageId && storePathIndex === place.storePathIndex
    const found = await path.segments.headers(segment, isSame ? place.offsetBytes : 0)
    if (found === undefined) {
      // A disk that went away has no segments either.
      await path.checkPresent()
      return { phase: 'slots', storePathIndex, storageId, segmentId: segmentId + 1, offsetBytes: 0 }
    }
    // As of now: what has got a record since its header was read may be listed.
    const writing = new Set(this.#parts.slotWriter.writing.map(keyOf))
    for (const { offsetBytes, header } of found.slots) {
      if (files.length >= LIST_FILES_MAX) return { phase: 'slots', storePathIndex, storageId, segmentId, offsetBytes }
      const slot = { ...segment, offsetBytes }
      if (header.isFree || writing.has(keyOf(slot))) continue
      const name = nameOfSlot(slot, header)
      if (isWanted(name, header.createTimeS)) files.push({ name, sizeBytes: header.sizeBytes, crc32: header.crc32 })
    }
    return { phase: 'slots', storePathIndex, storageId, segmentId, offsetBytes: found.nextBytes }
  }

  /** The segment of a place, or the first behind it. */
  #segmentFrom(place: SegmentPlace): SegmentPlace | undefined {
    let first: SegmentPlace | undefined
    for (const entry of this.#parts.catalogue.entries) {
      if (!this.#parts.paths.byIndex.has(entry.storePathIndex)) continue
      if (compare(entry, place) >= 0 && (first === undefined || compare(entry, first) < 0)) first = entry
    }
    return first === undefined
      ? undefined
      : { storePathIndex: first.storePathIndex, storageId: first.storageId, segmentId: first.segmentId }
  }

  /** Takes the next file of a directory. */
  async #plain(
    place: ListPlace & { phase: 'plain' },
    walk: PlainWalk,
    isWanted: IsWanted,
    files: ListedName[],
  ): Promise<ListPlace | undefined> {
    const found = await walk.next(place, name => {
      const file = fileOf(name)
      return file !== undefined && !isMetadata(name, file) && isWanted(name, file.createTimeS)
    })
    if (found?.name !== undefined) {
      const file = await this.#describe(found.name)
      if (file !== undefined) files.push(file)
    }
    return found === undefined ? undefined : { phase: 'plain', ...found.place }
  }

  /** Undefined of a file that was deleted meanwhile. */
  async #describe(name: string): Promise<ListedName | undefined> {
    const { kind, sizeBytes, crc32 } = fileOf(name)!
    if (sizeBytes !== undefined) return { name, sizeBytes, crc32 }
    try {
      const file = await this.#parts.store.open(name)
      await file?.close()
      return file && { name, sizeBytes: file.sizeBytes, crc32: kind === 'slave' ? file.crc32 : undefined }
    } catch (error) {
      // It is there, and damaged.
      if (error instanceof DfsError && error.code === 'corrupt') return { name, sizeBytes: undefined, crc32: undefined }
      throw error
    }
  }
}

/** What lies beside a file, under its name and `-m`. */
function isMetadata(name: string, { kind }: FileNameParts): boolean {
  return kind === 'slave' && isMetadataName(name)
}

function compare(a: SegmentPlace, b: SegmentPlace): number {
  return a.storePathIndex - b.storePathIndex || a.storageId - b.storageId || a.segmentId - b.segmentId
}

function keyOf({
  storePathIndex,
  storageId,
  segmentId,
  offsetBytes,
}: Pick<SlotBytes, 'storePathIndex' | keyof SlotPlace>): string {
  return `${storePathIndex}/${storageId}/${segmentId}/${offsetBytes}`
}
