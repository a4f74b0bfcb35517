/**
 * Bodies of FastDFS frames, field by field. Widths are in the tables; an address has 15 bytes where it is IPv4 and 45
 * where it is IPv6, and clients tell by the length of the whole body.
 */
import { ACK_LEVELS, ACK_TIMEOUT_MS_MAX, type AckLevel, type Receipt } from './ack.ts'
import { DfsError } from './errors.ts'
import { FILE_NAME_BYTES_MAX, GROUP_NAME_BYTES, isExtension } from './file-id.ts'
import { isSize, readInt64, readString, writeInt64, writeString } from './frame.ts'
import { METADATA_BYTES_MAX } from './metadata.ts'

/** How long an address is, without a NUL. */
export const IPV4_BYTES = 15
export const IPV6_BYTES = 45
export const EXTENSION_FIELD_BYTES = 6
export const UPLOAD_ID_BYTES = 16
const PREFIX_FIELD_BYTES = 16

/** `uploadFile` 11: store path 1, size 8, extension 6, then the content. */
export const UPLOAD_FIXED_BYTES = 1 + 8 + EXTENSION_FIELD_BYTES
/** What is in front of `uploadOnce` 202 and `uploadStream` 203: upload id 16, ack level 1 (0: the server's), ack timeout 4. */
export const UPLOAD_HEAD_BYTES = UPLOAD_ID_BYTES + 1 + 4
/** `uploadStream` 203: the head, store path 1, extension 6. */
export const UPLOAD_STREAM_BYTES = UPLOAD_HEAD_BYTES + 1 + EXTENSION_FIELD_BYTES
/** What is in front of the reply to both: replicas 1, durable 1, source 4, epoch 8, sequence 8. */
export const RECEIPT_BYTES = 22
/** `downloadFile` 14: offset 8, bytes 8 (0: to the end), then group 16 and name. */
export const DOWNLOAD_FIXED_BYTES = 16
/** The longest body of a query: group 16 and name, with FastDFS's limit of names. */
export const NAME_BODY_BYTES_MAX = GROUP_NAME_BYTES + FILE_NAME_BYTES_MAX

/** `setMetadata` 13: length of the name 8, of the metadata 8, how 1 (`O` in place of, `M` merged), group 16, name, metadata. */
export const SET_METADATA_FIXED_BYTES = 8 + 8 + 1 + GROUP_NAME_BYTES
export const SET_METADATA_BYTES_MAX = SET_METADATA_FIXED_BYTES + FILE_NAME_BYTES_MAX + METADATA_BYTES_MAX

/** `uploadSlave` 21: length of the master's name 8, size 8, prefix 16, extension 6, the master's name, then the content. */
export const SLAVE_FIXED_BYTES = 8 + 8 + PREFIX_FIELD_BYTES + EXTENSION_FIELD_BYTES

/**
 * `createLink` 20: lengths of the master's name 8, of the file's name 8, of a signature 8, group 16, prefix 16, extension 6, the
 * master's name, the file's name, the signature, which is FastDHT's and means nothing here.
 */
export const LINK_FIXED_BYTES = 8 + 8 + 8 + GROUP_NAME_BYTES + PREFIX_FIELD_BYTES + EXTENSION_FIELD_BYTES
/** FastDFS's signatures are 24 bytes or less. */
const SIGNATURE_BYTES_MAX = 64
export const LINK_BYTES_MAX = LINK_FIXED_BYTES + 2 * FILE_NAME_BYTES_MAX + SIGNATURE_BYTES_MAX

/** `append` 24: length of the name 8, size 8, name, then the bytes. */
export const APPEND_FIXED_BYTES = 16
/** `modify` 34: length of the name 8, offset 8, size 8, name, then the bytes. */
export const MODIFY_FIXED_BYTES = 24
/** `truncate` 36: length of the name 8, new size 8, name. */
export const TRUNCATE_FIXED_BYTES = 16

export interface UploadFields {
  readonly storePathIndex: number
  readonly sizeBytes: number
  readonly extension: string
}

/** Reads the fixed part of `uploadFile`. */
export function readUploadFields(buffer: Buffer): UploadFields {
  return {
    storePathIndex: buffer[0]!,
    sizeBytes: readInt64(buffer, 1),
    extension: readString(buffer, 9, EXTENSION_FIELD_BYTES),
  }
}

/** Says what is wrong with an extension, if anything: `bad_request`. */
export function extensionError(extension: string): DfsError | undefined {
  return isExtension(extension)
    ? undefined
    : new DfsError('bad_request', 'an extension is up to 6 of A-Z a-z 0-9 . _ -')
}

export function writeUploadFields(fields: UploadFields): Buffer {
  const buffer = Buffer.alloc(UPLOAD_FIXED_BYTES)
  buffer[0] = fields.storePathIndex
  writeInt64(buffer, fields.sizeBytes, 1)
  writeString(buffer, fields.extension, 9, EXTENSION_FIELD_BYTES)
  return buffer
}

/** What our own uploads say beside FastDFS's fields. */
export interface UploadHead {
  /** 32 hex digits. */
  readonly uploadId: string
  /** The server's own if undefined, as is the timeout. */
  readonly ack: AckLevel | undefined
  readonly ackTimeoutMs: number | undefined
}

/** Reads the head of `uploadOnce` and `uploadStream`. Throws `bad_request`. */
export function readUploadHead(buffer: Buffer): UploadHead {
  const level = buffer[UPLOAD_ID_BYTES]!
  if (level > ACK_LEVELS.length) throw new DfsError('bad_request', `there is no ack level ${level}`)
  return {
    uploadId: buffer.toString('hex', 0, UPLOAD_ID_BYTES),
    ack: ACK_LEVELS[level - 1],
    ackTimeoutMs: buffer.readUInt32BE(UPLOAD_ID_BYTES + 1) || undefined,
  }
}

export function writeUploadHead({ uploadId, ack, ackTimeoutMs }: UploadHead): Buffer {
  const buffer = Buffer.alloc(UPLOAD_HEAD_BYTES)
  buffer.write(uploadId, 0, 'hex')
  buffer[UPLOAD_ID_BYTES] = ack === undefined ? 0 : ACK_LEVELS.indexOf(ack) + 1
  buffer.writeUInt32BE(Math.min(ackTimeoutMs ?? 0, ACK_TIMEOUT_MS_MAX), UPLOAD_ID_BYTES + 1)
  return buffer
}

export function writeUploadStream(fields: UploadHead & { storePathIndex: number; extension: string }): Buffer {
  const rest = Buffer.alloc(UPLOAD_STREAM_BYTES - UPLOAD_HEAD_BYTES)
  rest[0] = fields.storePathIndex
  writeString(rest, fields.extension, 1, EXTENSION_FIELD_BYTES)
  return Buffer.concat([writeUploadHead(fields), rest])
}

export function writeReceipt({ replicas, durable, source, epoch, sequence }: Receipt): Buffer {
  const buffer = Buffer.allocUnsafe(RECEIPT_BYTES)
  buffer[0] = replicas
  buffer[1] = durable ? 1 : 0
  buffer.writeUInt32BE(source, 2)
  writeInt64(buffer, epoch, 6)
  writeInt64(buffer, sequence, 14)
  return buffer
}

/** Reads the reply to `uploadOnce` and `uploadStream`: the receipt, then group and name. */
export function readUploaded(buffer: Buffer): { receipt: Receipt; group: string; name: string } {
  const receipt: Receipt = {
    replicas: buffer[0]!,
    durable: buffer[1] === 1,
    source: buffer.readUInt32BE(2),
    epoch: readInt64(buffer, 6),
    sequence: readInt64(buffer, 14),
  }
  return { receipt, ...readGroupAndName(buffer, RECEIPT_BYTES) }
}

/** Where a change stands in its source's binlog, or a later record: whoever has applied that has the change. */
export interface ChangePlace {
  readonly source: number
  readonly epoch: number
  readonly sequence: number
}

/** What is in front of the reply to a change, if it is asked for: source 4, epoch 8, sequence 8. */
const CHANGE_PLACE_BYTES = 20

export function writeChangePlace({ source, epoch, sequence }: ChangePlace): Buffer {
  const buffer = Buffer.allocUnsafe(CHANGE_PLACE_BYTES)
  buffer.writeUInt32BE(source, 0)
  writeInt64(buffer, epoch, 4)
  writeInt64(buffer, sequence, 12)
  return buffer
}

/** Reads the reply to a change: its place, then FastDFS's reply. */
export function readChanged(buffer: Buffer): { place: ChangePlace; body: Buffer } {
  if (buffer.length < CHANGE_PLACE_BYTES) throw new DfsError('internal', 'the reply to a change is cut short')
  const place = { source: buffer.readUInt32BE(0), epoch: readInt64(buffer, 4), sequence: readInt64(buffer, 12) }
  return { place, body: buffer.subarray(CHANGE_PLACE_BYTES) }
}

/** Reads group 16 and the rest as a name: the body of delete, info and fetch, and the reply to an upload. */
export function readGroupAndName(buffer: Buffer, offset = 0): { group: string; name: string } {
  return {
    group: readString(buffer, offset, GROUP_NAME_BYTES),
    name: buffer.toString('latin1', offset + GROUP_NAME_BYTES),
  }
}

export function writeGroupAndName(group: string, name: string): Buffer {
  const buffer = Buffer.alloc(GROUP_NAME_BYTES + name.length)
  writeString(buffer, group, 0, GROUP_NAME_BYTES)
  writeString(buffer, name, GROUP_NAME_BYTES, name.length)
  return buffer
}

/** What a slave file is made of. */
export interface SlaveFields {
  readonly sizeBytes: number
  readonly prefix: string
  readonly extension: string
}

/** Reads the fixed part of `uploadSlave`. */
export function readSlaveFields(buffer: Buffer): SlaveFields & { masterBytes: number } {
  return {
    masterBytes: readInt64(buffer, 0),
    sizeBytes: readInt64(buffer, 8),
    prefix: readString(buffer, 16, PREFIX_FIELD_BYTES),
    extension: readString(buffer, 16 + PREFIX_FIELD_BYTES, EXTENSION_FIELD_BYTES),
  }
}

/** All of `uploadSlave` before the content. */
export function writeSlave({ sizeBytes, prefix, extension }: SlaveFields, masterName: string): Buffer {
  const buffer = Buffer.alloc(SLAVE_FIXED_BYTES + masterName.length)
  writeInt64(buffer, masterName.length, 0)
  writeInt64(buffer, sizeBytes, 8)
  writeString(buffer, prefix, 16, PREFIX_FIELD_BYTES)
  writeString(buffer, extension, 16 + PREFIX_FIELD_BYTES, EXTENSION_FIELD_BYTES)
  buffer.write(masterName, SLAVE_FIXED_BYTES, 'latin1')
  return buffer
}

/** Which file a link is made of; with a master, it gets a name of that, the prefix and the extension. */
export interface LinkFields {
  readonly group: string
  /** Empty for none. */
  readonly master: string
  readonly name: string
  readonly prefix: string
  readonly extension: string
}

/** Reads the body of `createLink`. Throws `bad_request`. */
export function readLink(buffer: Buffer): LinkFields {
  const [masterBytes, nameBytes, signatureBytes] = [0, 8, 16].map(at => readInt64(buffer, at)) as [
    number,
    number,
    number,
  ]
  const nameAt = LINK_FIXED_BYTES + masterBytes
  const isSound = [masterBytes, nameBytes, signatureBytes].every(isSize) && nameBytes > 0
  if (!isSound || nameAt + nameBytes + signatureBytes !== buffer.length)
    throw new DfsError('bad_request', 'the lengths of names and signature are not those of the body')
  return {
    group: readString(buffer, 24, GROUP_NAME_BYTES),
    master: buffer.toString('latin1', LINK_FIXED_BYTES, nameAt),
    name: buffer.toString('latin1', nameAt, nameAt + nameBytes),
    prefix: readString(buffer, 24 + GROUP_NAME_BYTES, PREFIX_FIELD_BYTES),
    extension: readString(buffer, LINK_FIXED_BYTES - EXTENSION_FIELD_BYTES, EXTENSION_FIELD_BYTES),
  }
}

export function writeLink({ group, master, name, prefix, extension }: LinkFields): Buffer {
  const fixed = Buffer.alloc(LINK_FIXED_BYTES)
  writeInt64(fixed, master.length, 0)
  writeInt64(fixed, name.length, 8)
  writeString(fixed, group, 24, GROUP_NAME_BYTES)
  writeString(fixed, prefix, 24 + GROUP_NAME_BYTES, PREFIX_FIELD_BYTES)
  writeString(fixed, extension, LINK_FIXED_BYTES - EXTENSION_FIELD_BYTES, EXTENSION_FIELD_BYTES)
  return Buffer.concat([fixed, Buffer.from(master + name, 'latin1')])
}

/** The fixed part of `append`, `modify` and `truncate`, and the name: numbers of 8 bytes, of which the first is its length. */
export function writeChange(name: string, ...numbers: readonly number[]): Buffer {
  const buffer = Buffer.alloc(8 + 8 * numbers.length + name.length)
  for (const [i, number] of [name.length, ...numbers].entries()) writeInt64(buffer, number, 8 * i)
  buffer.write(name, 8 + 8 * numbers.length, 'latin1')
  return buffer
}

/** Whose metadata is to be what, or to have what as well. */
export interface SetMetadataFields {
  readonly group: string
  readonly name: string
  readonly metadata: Buffer
  readonly merges: boolean
}

/** Reads the body of `setMetadata`. Throws `bad_request`. */
export function readSetMetadata(buffer: Buffer): SetMetadataFields {
  const nameBytes = readInt64(buffer, 0)
  const metadataBytes = readInt64(buffer, 8)
  const how = String.fromCharCode(buffer[16]!)
  const metadataAt = SET_METADATA_FIXED_BYTES + nameBytes
  if (nameBytes <= 0 || metadataBytes < 0 || metadataAt + metadataBytes !== buffer.length)
    throw new DfsError('bad_request', 'the lengths of name and metadata are not those of the body')
  if (how !== 'O' && how !== 'M') throw new DfsError('bad_request', 'metadata is set by O, or merged by M')
  return {
    group: readString(buffer, 17, GROUP_NAME_BYTES),
    name: buffer.toString('latin1', SET_METADATA_FIXED_BYTES, metadataAt),
    metadata: buffer.subarray(metadataAt),
    merges: how === 'M',
  }
}

export function writeSetMetadata({ group, name, metadata, merges }: SetMetadataFields): Buffer {
  const fixed = Buffer.alloc(SET_METADATA_FIXED_BYTES)
  writeInt64(fixed, name.length, 0)
  writeInt64(fixed, metadata.length, 8)
  fixed.write(merges ? 'M' : 'O', 16, 'latin1')
  writeString(fixed, group, 17, GROUP_NAME_BYTES)
  return Buffer.concat([fixed, Buffer.from(name, 'latin1'), metadata])
}

/** Reads the body of `downloadFile`. */
export function readDownload(buffer: Buffer) {
  return {
    offset: readInt64(buffer, 0),
    length: readInt64(buffer, 8),
    ...readGroupAndName(buffer, DOWNLOAD_FIXED_BYTES),
  }
}

export function writeDownload(request: { offset: number; length: number; group: string; name: string }): Buffer {
  const range = Buffer.alloc(DOWNLOAD_FIXED_BYTES)
  writeInt64(range, request.offset, 0)
  writeInt64(range, request.length, 8)
  return Buffer.concat([range, writeGroupAndName(request.group, request.name)])
}

export interface FileInfoFields {
  readonly sizeBytes: number
  readonly mtimeS: number
  readonly crc32: number
  readonly sourceIp: string
}

/** The reply of `queryFileInfo`: size 8, time 8, CRC32 8 with its sign drawn out, source address and one NUL. */
export function writeFileInfo(info: FileInfoFields): Buffer {
  const width = addressWidth(info.sourceIp) + 1
  const buffer = Buffer.alloc(24 + width)
  writeInt64(buffer, info.sizeBytes, 0)
  writeInt64(buffer, info.mtimeS, 8)
  buffer.writeBigInt64BE(BigInt(info.crc32 | 0), 16)
  writeString(buffer, info.sourceIp, 24, width)
  return buffer
}

export function readFileInfo(buffer: Buffer): FileInfoFields {
  return {
    sizeBytes: readInt64(buffer, 0),
    mtimeS: readInt64(buffer, 8),
    crc32: buffer.readUInt32BE(20),
    sourceIp: readString(buffer, 24, buffer.length - 24),
  }
}

function addressWidth(ip: string): number {
  return ip.includes(':') ? IPV6_BYTES : IPV4_BYTES
}
