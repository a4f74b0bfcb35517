/** Where the bytes of an upload come from: something at hand or in a file, or a stream that comes but once. */
import { crc32 } from '@node-rs/crc32'
import { extensionOf } from '../protocol/file-id.ts'
import type { Disk } from '../runtime/world.ts'
import { LocalError } from './retry.ts'
import type { TransferOptions } from './servers.ts'

/** Read from a file, or collected from a stream, at a time. */
export const PIECE_BYTES = 256 * 1024

/** What can be uploaded: the path of a file, bytes, or a stream of bytes such as a Readable. */
export type UploadInput = string | Uint8Array | AsyncIterable<Uint8Array>

/** Sends the pieces of an upload. Each call sends the whole content from the beginning. */
export interface UploadSource {
  /** Undefined if nobody knows before the end. */
  readonly sizeBytes: number | undefined
  /** Whether it can be sent, or sent again, now. */
  readonly repeatable: boolean
  /** Sends all pieces in order; returns the CRC32 and the size of what was sent. Rejects with LocalError. */
  send(piece: (bytes: Uint8Array) => Promise<void>): Promise<{ crc32: number; sizeBytes: number }>
  close(): Promise<void>
}

/** Opens an input. A stream that fits one piece is taken whole, and then can be sent again. */
export async function openSource(disk: Disk, input: UploadInput): Promise<UploadSource> {
  if (typeof input === 'string') return fileSource(disk, input)
  if (input instanceof Uint8Array) return bytesSource(input)
  return streamSource(input)
}

/** The extension of what is uploaded, unless given that of its path; none of what has no path. */
export function extensionFor(input: UploadInput, { extension }: { extension?: string | undefined }): string {
  return extension ?? (typeof input === 'string' ? extensionOf(input) : '')
}

/** Sends all pieces, until somebody says that it is enough, and tells how far they have come. */
export function sendPieces(
  source: UploadSource,
  { signal, onProgress }: TransferOptions,
  send: (piece: Uint8Array) => Promise<void>,
): Promise<{ crc32: number; sizeBytes: number }> {
  let bytes = 0
  return source.send(async piece => {
    signal?.throwIfAborted()
    await send(piece)
    bytes += piece.length
    onProgress?.({ bytes, totalBytes: source.sizeBytes })
  })
}

function bytesSource(bytes: Uint8Array): UploadSource {
  return {
    sizeBytes: bytes.length,
    repeatable: true,
    async send(piece) {
      let sum = 0
      for (let at = 0; at < bytes.length; at += PIECE_BYTES) {
        const part = bytes.subarray(at, at + PIECE_BYTES)
        sum = crc32(part, sum)
        await piece(part)
      }
      return { crc32: sum, sizeBytes: bytes.length }
    },
    close: async () => undefined,
  }
}

async function fileSource(disk: Disk, path: string): Promise<UploadSource> {
  const entry = await local(`cannot read ${path}`, disk.stat(path))
  if (entry === undefined) throw new LocalError(`there is no ${path}`, { cause: undefined })
  if (entry.kind !== 'file') throw new LocalError(`${path} is not a regular file`, { cause: undefined })
  const file = await local(`cannot read ${path}`, disk.open(path, 'read'))
  return {
    sizeBytes: entry.sizeBytes,
    repeatable: true,
    async send(piece) {
      const buffers = [Buffer.allocUnsafeSlow(PIECE_BYTES), Buffer.allocUnsafeSlow(PIECE_BYTES)] as const
      let sum = 0
      let at = 0
      let sending: Promise<void> = Promise.resolve()
      // While one buffer is on its way, the other is filled.
      for (let turn = 0; at < entry.sizeBytes; turn ^= 1) {
        const target = buffers[turn as 0 | 1].subarray(0, Math.min(PIECE_BYTES, entry.sizeBytes - at))
        const count = await local(`cannot read ${path}`, file.read(target, at))
        if (count < target.length)
          throw new LocalError(`${path} became shorter while it was read`, { cause: undefined })
        sum = crc32(target, sum)
        await sending
        sending = piece(target)
        sending.catch(ignore)
        at += count
      }
      await sending
      return { crc32: sum, sizeBytes: at }
    },
    close: () => file.close(),
  }
}

async function streamSource(stream: AsyncIterable<Uint8Array>): Promise<UploadSource> {
  const iterator = stream[Symbol.asyncIterator]()
  const next = () => local('the stream failed', iterator.next())
  const first: Uint8Array[] = []
  let firstBytes = 0
  while (firstBytes <= PIECE_BYTES) {
    const { value, done } = await next()
    if (done) return bytesSource(Buffer.concat(first))
    // The chunk may be the stream's own buffer, reused for the next one.
    first.push(Buffer.from(value))
    firstBytes += value.length
  }
  return {
    sizeBytes: undefined,
    // Until the first of it has been handed out.
    get repeatable() {
      return first.length > 0
    },
    async send(piece) {
      let sum = 0
      let sizeBytes = 0
      const pass = async (bytes: Uint8Array) => {
        sum = crc32(bytes, sum)
        sizeBytes += bytes.length
        await piece(bytes)
      }
      for (const bytes of first.splice(0)) await pass(bytes)
      for (let { value, done } = await next(); !done; { value, done } = await next()) await pass(value as Uint8Array)
      return { crc32: sum, sizeBytes }
    },
    // Not awaited: behind a read that nobody will answer it would wait for ever.
    close: async () => void iterator.return?.().catch(ignore),
  }
}

async function local<T>(message: string, work: Promise<T>): Promise<T> {
  try {
    return await work
  } catch (cause) {
    throw new LocalError(message, { cause })
  }
}

function ignore(): void {}
