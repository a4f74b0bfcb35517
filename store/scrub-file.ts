/** One file, read for nothing but its checksums, a piece at a time. */
import { crc32 } from '@node-rs/crc32'
import { DfsError } from '../protocol/errors.ts'
import { decodeFileName, type FileNameParts, fileOfMetadata } from '../protocol/file-id.ts'
import { DiskError } from '../runtime/world.ts'
import { BLOCK_BYTES } from './block-pool.ts'
import type { Damage } from './quarantine.ts'
import { blockCount } from './sidecar.ts'
import { contentOf, isDamagedHeaderOf, isHeaderOf, readHeaderOf, SLOT_HEADER_BYTES } from './slot.ts'
import type { Store } from './store.ts'
import { type OpenFile, StoredFile } from './stored-file.ts'

/** What is counted for opening a file or listing a directory, beside its bytes: a disk has to move for it. */
export const SEEK_BYTES = 4096

/** How far a file has been read. */
export interface FileReading {
  readonly name: string
  /** The next block. */
  readonly block: number
  /** Of all content before it. */
  readonly crc32: number
  /** The first block so far that failed its checksum. */
  readonly badBlock?: number | undefined
}

/** What a file was found to be. */
export type Verdict =
  | { readonly is: 'good' }
  /** Not here, or deleted. */
  | { readonly is: 'gone' }
  /** Its disk is not here, or failed as a whole: that is noticed otherwise. */
  | { readonly is: 'away' }
  | ({ readonly is: 'bad' } & Damage)
  /** Its slot's header is damaged, and cannot be marked: whether the file was deleted stands in the binlog only. */
  | { readonly is: 'unclear' }
  /** Its disk has failed to give it, this time. */
  | { readonly is: 'unreadable' }

/** What came of reading a piece: a verdict, or where to go on. */
export interface FilePiece {
  readonly bytes: number
  readonly next?: FileReading
  readonly verdict?: Verdict
}

const GOOD: Verdict = { is: 'good' }
const GONE: Verdict = { is: 'gone' }
const BAD_SLOT: Verdict = { is: 'bad', part: 'slot' }

/** Before the first piece of a file. */
export function beginningOf(name: string): FileReading {
  return { name, block: 0, crc32: 0 }
}

/** Reads the next piece of a file, or of its metadata, into a buffer of at least `BLOCK_BYTES`. */
export async function readPiece(store: Store, reading: FileReading, buffer: Buffer): Promise<FilePiece> {
  const master = fileOfMetadata(reading.name)
  const file = decodeFileName(master ?? reading.name)
  try {
    if (master !== undefined) return await readMetadata(store, file)
    return file.slot === undefined
      ? await readBlock(store, reading, file, buffer)
      : await readSlotPiece(store, reading, file, buffer)
  } catch (error) {
    return { bytes: SEEK_BYTES, verdict: await verdictOn(store, file, error) }
  }
}

/** What an error says of a file. Throws what is none of a disk. */
export async function verdictOn(store: Store, file: FileNameParts, error: unknown): Promise<Verdict> {
  if (!(error instanceof DiskError)) throw error
  return { is: (await store.isSound(file)) ? 'unreadable' : 'away' }
}

/** Judges what is in the place of a slot, header and file. What was never written is zero. */
export function judgeSlot(slot: Buffer, file: FileNameParts): Verdict {
  const verdict = judgeHeader(slot.subarray(0, SLOT_HEADER_BYTES), file)
  if (verdict !== GOOD) return verdict
  return contentOf(slot, { sizeBytes: file.sizeBytes!, crc32: file.crc32 }) === undefined ? BAD_SLOT : GOOD
}

/** `good`: the header is that of the file, which is there. */
function judgeHeader(head: Buffer, file: FileNameParts): Verdict {
  const header = readHeaderOf(head, file)
  if (header === undefined) return head.every(byte => byte === 0) ? GONE : { is: 'unclear' }
  if (header.isFree) return GONE
  if (isHeaderOf(header, file)) return GOOD
  // One that differs in more is that of another file, as for those who read.
  return isDamagedHeaderOf(header, file) ? { is: 'unclear' } : GONE
}

async function readSlotPiece(
  store: Store,
  { name, block, crc32: sum }: FileReading,
  file: FileNameParts,
  buffer: Buffer,
): Promise<FilePiece> {
  const endBytes = SLOT_HEADER_BYTES + file.sizeBytes!
  const fromBytes = block * BLOCK_BYTES
  const target = buffer.subarray(0, Math.min(BLOCK_BYTES, endBytes - fromBytes))
  const offsetBytes = file.slot!.offsetBytes + fromBytes
  const count = await store.readSlots({ ...file, slot: { ...file.slot!, offsetBytes } }, target)
  const bytes = SEEK_BYTES + count
  target.fill(0, count)
  if (block === 0) {
    const verdict = judgeHeader(target.subarray(0, SLOT_HEADER_BYTES), file)
    if (verdict !== GOOD) return { bytes, verdict }
  }
  const content = target.subarray(block === 0 ? SLOT_HEADER_BYTES : 0)
  const read = { name, block: block + 1, crc32: crc32(content, sum) }
  if (fromBytes + target.length < endBytes) return { bytes, next: read }
  return { bytes, verdict: read.crc32 === file.crc32 ? GOOD : BAD_SLOT }
}

async function readMetadata(store: Store, file: FileNameParts): Promise<FilePiece> {
  try {
    const metadata = await store.readMetadata(file)
    return { bytes: SEEK_BYTES + (metadata?.length ?? 0), verdict: metadata === undefined ? GONE : GOOD }
  } catch (error) {
    return { bytes: SEEK_BYTES, verdict: damageOf(error, { part: 'metadata' }) }
  }
}

async function readBlock(store: Store, reading: FileReading, file: FileNameParts, buffer: Buffer): Promise<FilePiece> {
  let stored: OpenFile | undefined
  try {
    stored = await store.open(reading.name)
  } catch (error) {
    return { bytes: SEEK_BYTES, verdict: damageOf(error, { part: 'sidecar' }) }
  }
  if (stored === undefined) return { bytes: SEEK_BYTES, verdict: GONE }
  try {
    if (!(stored instanceof StoredFile)) return await readChanging(reading, stored, buffer)
    // Of a slave file only the sidecar says what its blocks have to be.
    const wanted = file.kind === 'slave' ? stored.crc32 : file.crc32
    const { name, block: index } = reading
    if (index >= blockCount(stored.sizeBytes)) return { bytes: SEEK_BYTES, verdict: judgeBlocks(reading, wanted) }
    const { block, isGood } = await stored.examineBlock(index, buffer)
    const badBlock = reading.badBlock ?? (isGood ? undefined : index)
    const read = { name, block: index + 1, crc32: crc32(block, reading.crc32), badBlock }
    const bytes = SEEK_BYTES + block.length
    if (read.block < blockCount(stored.sizeBytes)) return { bytes, next: read }
    return { bytes, verdict: judgeBlocks(read, wanted) }
  } finally {
    await stored.close()
  }
}

/** A block of an appender file, which may have changed since the last one was read. */
async function readChanging({ name, block }: FileReading, file: OpenFile, buffer: Buffer): Promise<FilePiece> {
  if (block >= blockCount(file.sizeBytes)) return { bytes: SEEK_BYTES, verdict: GOOD }
  try {
    const { length } = await file.readBlocks(block, buffer.subarray(0, BLOCK_BYTES))
    const bytes = SEEK_BYTES + length
    if (block + 1 < blockCount(file.sizeBytes)) return { bytes, next: { name, block: block + 1, crc32: 0 } }
    return { bytes, verdict: GOOD }
  } catch (error) {
    return { bytes: SEEK_BYTES, verdict: damageOf(error, { part: 'block', block }) }
  }
}

/** What it says of a file that it could not be read: it is damaged, or was cut or deleted just then. */
function damageOf(error: unknown, damage: Damage): Verdict {
  if (!(error instanceof DfsError)) throw error
  return error.code === 'corrupt' ? { is: 'bad', ...damage } : GONE
}

/** Blocks that sum up to what is wanted are good, whatever the sidecar says of each. */
function judgeBlocks({ crc32: sum, badBlock }: FileReading, wanted: number): Verdict {
  if (badBlock === undefined) return sum === wanted ? GOOD : { is: 'bad', part: 'file' }
  return sum === wanted ? { is: 'bad', part: 'sidecar' } : { is: 'bad', part: 'block', block: badBlock }
}
