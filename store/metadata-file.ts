/**
 * Metadata on disk: beside its file under the same name and `-m`, as FastDFS keeps it, but behind a check of its own. It is
 * replaced as a whole, as plain files are made: durable in a temporary file first, then recorded, then renamed.
 *
 *     0 magic 4, "\0dfm" | 4 CRC32C of the rest 4 | 8 metadata; see protocol/metadata.ts
 *
 * What FastDFS wrote has no such check, and stays as it is: when it is taken over, a sidecar `<name>-m~sum` is put beside it.
 */
import { crc32, crc32c } from '@node-rs/crc32'
import { DfsError } from '../protocol/errors.ts'
import { type FileNameParts, metadataNameOf } from '../protocol/file-id.ts'
import { METADATA_BYTES_MAX } from '../protocol/metadata.ts'
import type { Disk } from '../runtime/world.ts'
import { Sidecar, sidecarPath } from './sidecar.ts'
import type { StorePath } from './store-path.ts'

const MAGIC = Buffer.from('\0dfm', 'latin1')
const HEAD_BYTES = 8

export const METADATA_FILE_BYTES_MAX = HEAD_BYTES + METADATA_BYTES_MAX

/** What becomes of a file's metadata, on its way in. */
export class IncomingMetadata {
  readonly storePath: StorePath
  /** Names the temporary file, also in the binlog record. */
  readonly token: string
  readonly #disk: Disk

  private constructor(disk: Disk, storePath: StorePath, token: string) {
    this.#disk = disk
    this.storePath = storePath
    this.token = token
  }

  /** Writes what `encodeMetadata` gave to a temporary file; durable when it resolves, as far as the store path is. */
  static async write(disk: Disk, storePath: StorePath, token: string, bytes: Buffer): Promise<IncomingMetadata> {
    const incoming = new IncomingMetadata(disk, storePath, token)
    try {
      const file = await disk.open(storePath.temporaryPath(token), 'create')
      try {
        await file.write([bytes], 0)
        if (storePath.syncs) await file.sync()
      } finally {
        await file.close()
      }
      if (storePath.syncs) await storePath.syncTemporary()
    } catch (error) {
      await incoming.discard()
      throw error
    }
    return incoming
  }

  /** Throws it away; what cannot be removed is swept at the next start. */
  async discard(): Promise<void> {
    await this.#disk.remove(this.storePath.temporaryPath(this.token)).catch(() => {})
  }
}

/** The bytes of the file with this metadata in it. */
export function encodeMetadata(metadata: Buffer): Buffer {
  const head = Buffer.alloc(HEAD_BYTES)
  MAGIC.copy(head)
  head.writeUInt32BE(crc32c(metadata), MAGIC.length)
  return Buffer.concat([head, metadata])
}

/** The metadata in a file; undefined unless it is what was written. */
export function decodeMetadata(bytes: Buffer): Buffer | undefined {
  const metadata = bytes.subarray(HEAD_BYTES)
  const isWhole = bytes.length >= HEAD_BYTES && bytes.subarray(0, MAGIC.length).equals(MAGIC)
  return isWhole && bytes.readUInt32BE(MAGIC.length) === crc32c(metadata) ? metadata : undefined
}

/**
 * Reads the metadata of a file, or what a record of `token` has made it where the disk has failed to move that; undefined if
 * it has none here. Throws `corrupt`.
 */
export async function readMetadataFile(
  disk: Disk,
  storePath: StorePath,
  file: FileNameParts,
  token?: string,
): Promise<Buffer | undefined> {
  const unmoved = token && (await ifThere(disk.open(storePath.temporaryPath(token), 'read')))
  const opened = unmoved || (await ifThere(disk.open(pathOf(storePath, file), 'read')))
  if (opened === undefined) {
    await storePath.checkPresent()
    return undefined
  }
  try {
    const bytes = Buffer.alloc(METADATA_FILE_BYTES_MAX + 1)
    const found = bytes.subarray(0, await opened.read(bytes, 0))
    const metadata = decodeMetadata(found) ?? (await checkedRaw(disk, pathOf(storePath, file), found))
    if (metadata === undefined) throw new DfsError('corrupt', `the metadata of ${file.baseName} fails its checksum`)
    return metadata
  } finally {
    await opened.close()
  }
}

/**
 * Moves metadata to its file. At recovery it may have been done: then there is no temporary file, and what is in place may
 * be so in memory only.
 */
export async function placeMetadata(
  disk: Disk,
  storePath: StorePath,
  file: FileNameParts,
  token: string,
  { again = false } = {},
): Promise<void> {
  await storePath.makeDirectoryOf(file)
  const moved = disk.rename(storePath.temporaryPath(token), pathOf(storePath, file))
  await (again ? ifThere(moved) : moved)
  storePath.noteChange(file)
}

/** Removes the metadata of a file, if it has some. At recovery it may be gone, and that not be durable. */
export async function removeMetadata(
  disk: Disk,
  storePath: StorePath,
  file: FileNameParts,
  { again = false } = {},
): Promise<void> {
  const removed = await ifThere(disk.remove(pathOf(storePath, file)).then(() => true))
  if (removed === true) await ifThere(disk.remove(sidecarPath(pathOf(storePath, file))))
  if (removed === true || (again && (await storePath.hasDirectoryOf(file)))) storePath.noteChange(file)
}

/** FastDFS's metadata, if it is what was taken over. */
async function checkedRaw(disk: Disk, path: string, bytes: Buffer): Promise<Buffer | undefined> {
  const sidecar = await Sidecar.read(disk, path).catch(error => {
    if (error instanceof DfsError) return undefined
    throw error
  })
  return sidecar?.sizeBytes === bytes.length && sidecar.crc32 === crc32(bytes) ? bytes : undefined
}

function pathOf(storePath: StorePath, file: FileNameParts): string {
  return metadataNameOf(storePath.pathOf(file))
}

async function ifThere<T>(work: Promise<T>): Promise<T | undefined> {
  try {
    return await work
  } catch (error) {
    if ((error as { errno?: string }).errno !== 'ENOENT') throw error
    return undefined
  }
}
