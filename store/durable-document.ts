/**
 * A small file that is always whole: a line of JSON and a line with its CRC32C, replaced by rename.
 *
 *     {"version":1,"epoch":7,...}\n
 *     1a2b3c4d\n
 *
 * A crash leaves the old document or the new one. One that fails its check was damaged, and reading it throws: guessing
 * at who we are or how far we got is how files get lost.
 */
import { crc32c } from '@node-rs/crc32'
import { readText, writeText } from '../runtime/text-file.ts'
import type { Disk } from '../runtime/world.ts'

/** Identities, marks and checkpoints have a few kilobytes; anything longer is not one of them. */
const DOCUMENT_BYTES_MAX = 256 * 1024

/** A document is there, but is not what was written. */
export class DocumentDamagedError extends Error {
  constructor(path: string, why: string) {
    super(`${path} is damaged: ${why}`)
    this.name = 'DocumentDamagedError'
  }
}

/** Reads a document; undefined if there is none. Throws DocumentDamagedError. */
export async function readDocument(disk: Disk, path: string): Promise<unknown> {
  const entry = await disk.stat(path)
  if (entry === undefined) return undefined
  if (entry.sizeBytes > DOCUMENT_BYTES_MAX) throw new DocumentDamagedError(path, 'it is too long')
  const [json = '', check = '', ...rest] = ((await readText(disk, path)) ?? '').split('\n')
  const whole = json !== '' && check === checkOf(json) && rest.length === 1 && rest[0] === ''
  if (!whole) throw new DocumentDamagedError(path, 'its checksum does not match')
  return JSON.parse(json)
}

/** Replaces a document; durable when it resolves. */
export function writeDocument(disk: Disk, path: string, value: object): Promise<void> {
  const json = JSON.stringify(value)
  return writeText(disk, path, `${json}\n${checkOf(json)}\n`)
}

function checkOf(json: string): string {
  return crc32c(json).toString(16).padStart(8, '0')
}
