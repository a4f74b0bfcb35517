/**
 * FastDFS frames: what goes over a direct socket.
 *
 *     0        8         9         10
 *     +--------+---------+---------+------------------+
 *     | length | command | status  | body ...         |
 *     +--------+---------+---------+------------------+
 *      8 bytes, big-endian, of the body alone; status is 0 in requests, 0 or a Linux errno in replies
 *
 * All integers are big-endian. Strings of fixed width are padded with NUL; the last field of a body may be open-ended.
 * Every reply has command 100, and an error reply has no body. Reading never copies: fields are views of the buffer.
 */

export const HEADER_BYTES = 10

/** Commands of FastDFS that we answer, and our own from 200 on. */
export const COMMANDS = {
  uploadFile: 11,
  deleteFile: 12,
  setMetadata: 13,
  downloadFile: 14,
  getMetadata: 15,
  createLink: 20,
  uploadSlave: 21,
  queryFileInfo: 22,
  uploadAppender: 23,
  append: 24,
  modify: 34,
  truncate: 36,
  regenerate: 38,
  trackerStatus: 64,
  fetchStorageIds: 69,
  getStorageId: 70,
  getStorageStatus: 71,
  getParameters: 75,
  quit: 82,
  listOneGroup: 90,
  listAllGroups: 91,
  listStorage: 92,
  deleteStorage: 93,
  setTrunkServer: 94,
  getLeader: 95,
  trackerClusterStat: 96,
  storageClusterStat: 97,
  storageVolumeStat: 98,
  reply: 100,
  queryStoreWithoutGroup: 101,
  queryFetch: 102,
  queryUpdate: 103,
  queryStoreWithGroup: 104,
  queryFetchAll: 105,
  queryStoreWithoutGroupAll: 106,
  queryStoreWithGroupAll: 107,
  deleteGroup: 108,
  activeTest: 111,
  /** Private: opens the mutual proof of a shared secret; role 1, nonce 32. */
  authenticate: 200,
  /** Private: the caller's half of the proof; HMAC 32. */
  prove: 201,
  /** Private: an upload that may be repeated, and says who has to hold it; its head, then as `uploadFile`. */
  uploadOnce: 202,
  /** Private: the same of unknown length; its head, store path 1, extension 6, then `data` frames until an empty one. */
  uploadStream: 203,
  /** Private: bytes of an `uploadStream`. */
  data: 204,
  /** Private, peers only: asks how far a source's records have been applied; see sync-bodies.ts. */
  syncPosition: 205,
  /** Private, peers only: one record of the source's binlog, and its file; see sync-bodies.ts. */
  syncRecord: 206,
  /** Private, peers only: records that follow each other, and the slots of their files; see sync-bodies.ts. */
  syncRun: 207,
  /** Private: some of the files that a member has; see list-bodies.ts. */
  listFiles: 208,
  /** Private, peers only: asks which files it has already. */
  syncHeld: 209,
  /** Private, peers only: who orders the changes of whose files; see orderers.ts. */
  orderers: 210,
} as const

/**
 * What our own clients say in the status of a request, which is 0 in those of FastDFS's: a read that is to be answered from
 * what this member has itself, or only by who orders the file's changes; a change whose reply is to begin with its place in the binlog (`readChanged`).
 */
export const REQUEST_STATUS = { strong: 32, alone: 64, tellPlace: 128 } as const

/** The first ten bytes of a frame. */
export interface FrameHeader {
  /** Negative or above 2^53 in a broken request: see `lengthBytes` checks at the reader. */
  readonly lengthBytes: number
  readonly command: number
  readonly status: number
}

/** Reads a header at an offset; the caller has made sure that ten bytes are there. */
export function readHeader(buffer: Buffer, offset: number): FrameHeader {
  return {
    lengthBytes: readInt64(buffer, offset),
    command: buffer[offset + 8]!,
    status: buffer[offset + 9]!,
  }
}

/** Makes the ten bytes of a header. */
export function header(command: number, lengthBytes: number, status = 0): Buffer {
  return writeHeader(Buffer.allocUnsafe(HEADER_BYTES), command, lengthBytes, status)
}

/** Makes a whole frame of a body that is at hand. */
export function frame(command: number, body: Uint8Array, status = 0): Buffer {
  const buffer = writeHeader(Buffer.allocUnsafe(HEADER_BYTES + body.length), command, body.length, status)
  buffer.set(body, HEADER_BYTES)
  return buffer
}

/** Writes a header at the start of a buffer, and gives the buffer back. */
export function writeHeader(buffer: Buffer, command: number, lengthBytes: number, status: number): Buffer {
  writeInt64(buffer, lengthBytes, 0)
  buffer[8] = command
  buffer[9] = status
  return buffer
}

/** Reads 8 bytes as a number; exact up to 2^53 either way, which no honest length or offset passes. */
export function readInt64(buffer: Buffer, offset: number): number {
  return buffer.readInt32BE(offset) * 2 ** 32 + buffer.readUInt32BE(offset + 4)
}

/** Whether a number that came in 8 bytes can be a size or an offset. */
export function isSize(number: number): boolean {
  return Number.isSafeInteger(number) && number >= 0
}

/** Writes a non-negative number below 2^53 in 8 bytes. */
export function writeInt64(buffer: Buffer, value: number, offset: number): void {
  const high = Math.floor(value / 2 ** 32)
  buffer.writeUInt32BE(high, offset)
  buffer.writeUInt32BE(value - high * 2 ** 32, offset + 4)
}

/** Reads a NUL-padded string of fixed width. */
export function readString(buffer: Buffer, offset: number, widthBytes: number): string {
  const end = offset + widthBytes
  const nul = buffer.indexOf(0, offset)
  return buffer.toString('latin1', offset, nul < 0 || nul > end ? end : nul)
}

/** Writes a string into a field of fixed width, padded with NUL. Throws RangeError if it does not fit. */
export function writeString(buffer: Buffer, text: string, offset: number, widthBytes: number): void {
  if (text.length > widthBytes) throw new RangeError(`${text} has more than ${widthBytes} bytes`)
  buffer.fill(0, offset, offset + widthBytes)
  buffer.write(text, offset, 'latin1')
}
