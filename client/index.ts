/** natsdfs for programs: `const client = await connect()`, then `upload`, `download`, `info`, `delete`, `status`. */
export type { AckLevel, Receipt } from '../protocol/ack.ts'
export { antiLeechToken, type TokenSecret } from '../protocol/anti-leech.ts'
export { DfsError, ERRORS, type ErrorCode } from '../protocol/errors.ts'
export type { Credentials } from '../runtime/secrets.ts'
export {
  Client,
  type DownloadOptions,
  type FileDetails,
  type LinkOptions,
  type Progress,
  type ReadOptions,
  type RequestOptions,
  type Sink,
  type TransferOptions,
  type Uploaded,
  type UploadOptions,
} from './client.ts'
export { type ConnectOptions, connect } from './connect.ts'
export type { FilePage, ListedFile, ListOptions } from './list-files.ts'
export { CONSISTENCIES, type Consistency } from './own-changes.ts'
export { LocalError } from './retry.ts'
export { type SyncLag, syncLags } from './sync-lag.ts'
export type { UploadInput } from './upload-source.ts'
