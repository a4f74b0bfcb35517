/** Bodies of FastDFS frames to and from a tracker, besides the structs of statistics-structs.ts. */
import { DfsError } from './errors.ts'
import { FieldWriter } from './field-writer.ts'
import { GROUP_NAME_BYTES } from './file-id.ts'
import { readString } from './frame.ts'
import type { StorageReport } from './storage-messages.ts'
import type { ServerAddress } from './tracker-messages.ts'

/** The longest storage id in a request. */
export const STORAGE_ID_BYTES_MAX = 15
/** The longest address with its port in a request. */
export const HOST_BYTES_MAX = 52
/** `fetchStorageIds` 69: start index 4, allow empty 1. */
export const FETCH_IDS_BYTES = 5

/** A reply has at most so many lines of storage ids, some 60 bytes each; clients ask for the rest. */
const STORAGE_IDS_MAX = 1000

/**
 * The reply of the tracker's queries: group 16, then address and port 8 of each server, and for a store query the store
 * path 1. All addresses have the width of the cluster's longest.
 */
export function writeServers(
  found: { group: string; servers: readonly Pick<ServerAddress, 'ip' | 'port'>[]; storePathIndex?: number },
  addressBytes: number,
): Buffer {
  const { group, servers, storePathIndex } = found
  const paths = storePathIndex === undefined ? [] : [storePathIndex]
  const fields = new FieldWriter(GROUP_NAME_BYTES + servers.length * (addressBytes + 8) + paths.length)
  fields.text(group, GROUP_NAME_BYTES)
  for (const { ip, port } of servers) fields.text(ip, addressBytes).int64(port)
  return fields.byte(...paths).end()
}

/** A group and what else is named with it: a storage id or an address. */
export interface GroupAndText {
  readonly group: string
  readonly text: string
}

/** Reads group 16, then text to the end. */
export function readGroupAndText(body: Buffer): GroupAndText {
  const textBytes = body.length - GROUP_NAME_BYTES
  return { group: readString(body, 0, GROUP_NAME_BYTES), text: readString(body, GROUP_NAME_BYTES, textBytes) }
}

/** `10.0.0.1:23000`, `[fd00::1]:23000`. */
export function formatAddress(ip: string, port: number): string {
  return ip.includes(':') ? `[${ip}]:${port}` : `${ip}:${port}`
}

/** Reads what `formatAddress` writes. Throws `bad_request`. */
export function parseAddress(text: string): { ip: string; port: number } {
  const found = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(text)
  if (found === null) throw new DfsError('bad_request', `${text} is not an address and a port`)
  return { ip: found[1] ?? found[2]!, port: Number(found[3]) }
}

/** Reads the body of `fetchStorageIds`. */
export function readFetchIds(body: Buffer): { startIndex: number; allowEmpty: boolean } {
  return { startIndex: body.readInt32BE(0), allowEmpty: body[4] !== 0 }
}

/** How many there are 4, how many of them follow 4, then a line for each: `id group address:port`. */
export function writeStorageIds(storages: readonly StorageReport[], startIndex: number): Buffer {
  const shown = storages.slice(startIndex, startIndex + STORAGE_IDS_MAX)
  const lines = shown.map(({ storageId, group, ip, port }) => `${storageId} ${group} ${formatAddress(ip, port)}\n`)
  const text = Buffer.from(lines.join(''), 'latin1')
  return new FieldWriter(8 + text.length).int32(storages.length, shown.length).bytes(text).end()
}

/** Settings as a client reads them: a line `key=value` for each. */
export function writeParameters(parameters: Readonly<Record<string, string | number>>): Buffer {
  const lines = Object.entries(parameters).map(([key, value]) => `${key}=${value}\n`)
  return Buffer.from(lines.join(''), 'latin1')
}
