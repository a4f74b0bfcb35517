/**
 * Metadata of a file: names and values, as FastDFS writes them.
 *
 *     <name> 0x02 <value> 0x01 <name> 0x02 <value> ...      sorted by name, byte by byte
 *
 * Here they are latin1 texts: a character for each byte, whatever the bytes mean to whoever set them.
 */
import { DfsError } from './errors.ts'

/** FastDFS's limits. It cuts what is longer; we refuse it. */
export const METADATA_NAME_BYTES_MAX = 64
export const METADATA_VALUE_BYTES_MAX = 256
/** All of a file's metadata: FastDFS takes what fits its buffer as it is shipped. */
export const METADATA_BYTES_MAX = 256 * 1024

export type Metadata = ReadonlyMap<string, string>

const RECORD_SEPARATOR = '\x01'
const FIELD_SEPARATOR = '\x02'

/** Reads metadata; of a name that is there twice the last value counts. Throws `bad_request`. */
export function readMetadata(bytes: Buffer): Metadata {
  if (bytes.length === 0) return new Map()
  const records = bytes.toString('latin1').split(RECORD_SEPARATOR)
  return admit(
    records.map(record => {
      const [name = '', value, ...rest] = record.split(FIELD_SEPARATOR)
      if (value === undefined || rest.length > 0) throw new DfsError('bad_request', 'metadata is names and values')
      return [name, value]
    }),
  )
}

export function writeMetadata(metadata: Metadata): Buffer {
  const records = [...metadata].sort(([a], [b]) => (a < b ? -1 : 1))
  return Buffer.from(records.map(record => record.join(FIELD_SEPARATOR)).join(RECORD_SEPARATOR), 'latin1')
}

/** Metadata of texts in UTF-8. Throws `bad_request`. */
export function metadataOf(texts: Readonly<Record<string, string>>): Metadata {
  const records = Object.entries(texts).map(record => record.map(text => Buffer.from(text).toString('latin1')))
  const holdsSeparator = (text: string) => text.includes(RECORD_SEPARATOR) || text.includes(FIELD_SEPARATOR)
  if (records.some(record => record.some(holdsSeparator)))
    throw new DfsError('bad_request', 'metadata has no control characters 1 and 2')
  return admit(records.map(([name, value]) => [name!, value!]))
}

/** Metadata as texts, if it is UTF-8. */
export function textsOf(metadata: Metadata): Record<string, string> {
  const text = (bytes: string) => Buffer.from(bytes, 'latin1').toString()
  return Object.fromEntries([...metadata].map(([name, value]) => [text(name), text(value)]))
}

function admit(records: readonly (readonly [string, string])[]): Metadata {
  for (const [name, value] of records) {
    if (name.length === 0 || name.length > METADATA_NAME_BYTES_MAX)
      throw new DfsError('bad_request', `a metadata name has 1 to ${METADATA_NAME_BYTES_MAX} bytes`)
    if (value.length > METADATA_VALUE_BYTES_MAX)
      throw new DfsError('bad_request', `a metadata value has at most ${METADATA_VALUE_BYTES_MAX} bytes`)
  }
  return new Map(records)
}
