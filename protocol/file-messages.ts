/** Files by NATS message: what any NATS client can do without an SDK. */
import { Type } from 'typebox'
import { Receipt } from './ack.ts'
import { defineRequest } from './message.ts'

const FileIdText = Type.String({ minLength: 1, maxLength: 160 })

/** What is known of a stored file. */
export const FileInfo = Type.Object({
  fileId: Type.String(),
  sizeBytes: Type.Integer({ minimum: 0 }),
  crc32: Type.Integer({ minimum: 0 }),
  createTimeS: Type.Integer({ minimum: 0 }),
  source: Type.Optional(Type.Integer()),
})

/** Header names of an upload; its body is the file itself, byte for byte. */
export const UPLOAD_HEADERS = {
  group: 'Dfs-Group',
  extension: 'Dfs-Ext',
  /** Hex of 16 bytes: a repeated upload with the same id is the same file. */
  uploadId: 'Dfs-Upload-Id',
  /** `one`, `quorum` or `all`: how many members hold the file before the answer. */
  ack: 'Dfs-Ack',
  /** In milliseconds. */
  ackTimeout: 'Dfs-Ack-Timeout',
} as const

export const fileUpload = defineRequest({
  name: 'file.upload',
  subject: 'file.upload',
  about:
    'Stores the payload, up to one message, as a file. Headers: `Dfs-Ext`, `Dfs-Group`, `Dfs-Upload-Id`, `Dfs-Ack` (`one`, ' +
    '`quorum` or `all`: how many members hold it before the answer), `Dfs-Ack-Timeout` in ms; ' +
    '`Accept: application/msgpack` for a msgpack answer.',
  request: Type.Object({}),
  reply: Type.Object({ ...FileInfo.properties, receipt: Receipt }),
  errors: [
    'bad_request',
    'unknown_group',
    'no_storage',
    'no_space',
    'busy',
    'unavailable',
    'timeout',
    'ack_timeout',
    'too_large',
  ],
})

export const fileDownload = defineRequest({
  name: 'file.download',
  subject: 'file.download',
  about:
    'Answers with the bytes of a file or of a range of it; what does not fit one message is refused with the limit. ' +
    'Headers of the answer: `Dfs-Size` of the whole file, `Dfs-Offset`.',
  request: Type.Object({
    fileId: FileIdText,
    offset: Type.Optional(Type.Integer({ minimum: 0 })),
    length: Type.Optional(Type.Integer({ minimum: 0 })),
  }),
  reply: Type.Object({}),
  errors: ['bad_request', 'bad_file_id', 'not_found', 'bad_range', 'too_large', 'corrupt', 'unavailable', 'timeout'],
})

export const fileInfo = defineRequest({
  name: 'file.info',
  subject: 'file.info',
  about: 'What is known of a file that is there.',
  request: Type.Object({ fileId: FileIdText }),
  reply: FileInfo,
  errors: ['bad_request', 'bad_file_id', 'not_found', 'unavailable', 'timeout'],
})

export const fileDelete = defineRequest({
  name: 'file.delete',
  subject: 'file.delete',
  about: 'Deletes a file at its source; its peers follow.',
  request: Type.Object({ fileId: FileIdText }),
  reply: Type.Object({ fileId: Type.String() }),
  errors: ['bad_request', 'bad_file_id', 'not_found', 'unavailable', 'timeout'],
})
