/** One file, read for nothing but its checksums, a piece at a time. */
import { crc32 } from '@node-rs/crc32'
import { decodeFileName, type FileNameParts } from '../protocol/file-id.ts'
import { DiskError } from '../runtime/world.ts'
import { BLOCK_BYTES } from './block-pool.ts'
import type { Damage } from './quarantine.ts'
import { blockCount } from './sidecar.ts'
import { contentOf, isDamagedHeaderOf, isHeaderOf, readSlotHeader, SLOT_HEADER_BYTES } from './slot.ts'
import type { Store } from './store.ts'
import { StoredFile } from './stored-file.ts'

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

/** Reads the next piece of a file into a buffer of at least `BLOCK_BYTES`. */
export async function readPiece(store: Store, reading: FileReading, buffer: Buffer): Promise<FilePiece> {
  const file = decodeFileName(reading.name)
  try {
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
  const header = readSlotHeader(head)
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

async function readBlock(store: Store, reading: FileReading, file: FileNameParts, buffer: Buffer): Promise<FilePiece> {
  // The names of slave and appender files do not say what they have to be.
  if (file.sizeBytes === undefined) return { bytes: SEEK_BYTES, verdict: GOOD }
  const stored = await store.open(reading.name)
  if (!(stored instanceof StoredFile)) return { bytes: SEEK_BYTES, verdict: GONE }
  try {
    const { name, block: index } = reading
    if (index >= blockCount(stored.sizeBytes)) return { bytes: SEEK_BYTES, verdict: judgeBlocks(reading, file) }
    const { block, isGood } = await stored.examineBlock(index, buffer)
    const badBlock = reading.badBlock ?? (isGood ? undefined : index)
    const read = { name, block: index + 1, crc32: crc32(block, reading.crc32), badBlock }
    const bytes = SEEK_BYTES + block.length
    if (read.block < blockCount(stored.sizeBytes)) return { bytes, next: read }
    return { bytes, verdict: judgeBlocks(read, file) }
  } finally {
    await stored.close()
  }
}

/** Blocks that sum up to what the name says are good, whatever the sidecar says. */
function judgeBlocks({ crc32: sum, badBlock }: FileReading, file: FileNameParts): Verdict {
  if (badBlock === undefined) return sum === file.crc32 ? GOOD : { is: 'bad', part: 'file' }
  return sum === file.crc32 ? { is: 'bad', part: 'sidecar' } : { is: 'bad', part: 'block', block: badBlock }
}
