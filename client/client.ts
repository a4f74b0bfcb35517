/** The client: files in, files out, over direct sockets; the trackers are asked only now and then. */
import { readGroupAndName, writeChange, writeLink, writeSetMetadata } from '../protocol/data-bodies.ts'
import { extensionOf, formatFileId, parseFileId } from '../protocol/file-id.ts'
import { COMMANDS } from '../protocol/frame.ts'
import type { ReplyOf } from '../protocol/message.ts'
import { metadataOf, readMetadata, textsOf, writeMetadata } from '../protocol/metadata.ts'
import { takeOver } from '../protocol/storage-messages.ts'
import { trackerLocate, trackerStatus } from '../protocol/tracker-messages.ts'
import type { Bus } from '../runtime/bus.ts'
import {
  type AppenderOptions,
  append,
  deleteFile,
  modify,
  type SlaveOptions,
  uploadAppender,
  uploadSlave,
} from './changing-files.ts'
import { writeFile } from './file-sink.ts'
import { type AskServer, type FilePage, type ListedFile, type ListOptions, listPage } from './list-files.ts'
import { type DownloadOptions, downloadTo, type FileDetails, type FileFacts, fileInfo, type Sink } from './read-file.ts'
import { LocalError } from './retry.ts'
import { readPurpose } from './routes.ts'
import { type ClientParts, type ReadOptions, type RequestOptions, Servers, type TransferOptions } from './servers.ts'
import { type Uploaded, type UploadOptions, upload } from './upload.ts'
import type { UploadInput } from './upload-source.ts'

/** A download into memory is refused beyond this; a file or a stream takes any size. */
const BUFFER_BYTES_MAX = 512 * 1024 * 1024

/** A take-over waits for what is under way at those who agree. */
const TAKE_OVER_MS = 30_000

/** What a link is called: see `createLink`. */
export interface LinkOptions {
  /** That of the file unless given. */
  readonly extension?: string | undefined
  readonly masterId?: string | undefined
  readonly prefix?: string | undefined
}

/** The one thing we need of a stream to write to. */
export interface WritableLike {
  write(piece: Uint8Array, done: (error?: Error | null) => void): unknown
}

export class Client {
  readonly #servers: Servers
  readonly #bus: Bus

  /** Puts a client together; `connect` is the usual way. The bus stays the caller's. */
  constructor(parts: ClientParts) {
    this.#servers = new Servers(parts)
    this.#bus = parts.bus
  }

  /**
   * Stores a file and says its id. What fails and may be repeated is repeated, on another server if need be, as the
   * same upload. Rejects with a DfsError, or with a LocalError if the input cannot be read.
   *
   * With `ack_timeout` the file is stored, and fewer members hold it than were asked for. Whoever gave an upload id may
   * upload it again under this id, which waits once more for the same file.
   */
  upload(input: UploadInput, options: UploadOptions = {}): Promise<Uploaded> {
    return upload(this.#servers, input, options)
  }

  /** Reads a file, or a range of it, into memory. Rejects with `too_large` beyond 512 MiB. */
  async download(fileId: string, options: DownloadOptions = {}): Promise<Buffer> {
    const pieces: Buffer[] = []
    let bytes = 0
    await this.downloadTo(fileId, options, async piece => {
      bytes += piece.length
      if (bytes > BUFFER_BYTES_MAX) throw new LocalError('the file is too large for memory', { cause: undefined })
      pieces.push(Buffer.from(piece))
    })
    return Buffer.concat(pieces)
  }

  /**
   * Hands a file, or a range of it, to a sink piece by piece. A server that fails on the way is replaced by another,
   * which goes on where it stopped. A whole file is checked against the CRC32 in its id.
   */
  downloadTo(fileId: string, options: DownloadOptions, sink: Sink): Promise<{ bytes: number }> {
    return downloadTo(this.#servers, fileId, options, sink)
  }

  /**
   * Writes a file to a path. It appears there whole and checked; until then it is `<path>.part`, from which
   * `continue` goes on.
   */
  downloadToFile(
    fileId: string,
    path: string,
    options: TransferOptions & ReadOptions & { continue?: boolean } = {},
  ): Promise<{ bytes: number }> {
    return writeFile(this, this.#servers.world.disk, fileId, path, options)
  }

  /** Hands a file, or a range of it, to a stream such as a Writable, which is not ended. */
  downloadToStream(fileId: string, stream: WritableLike, options: DownloadOptions = {}): Promise<{ bytes: number }> {
    return this.downloadTo(fileId, options, piece => {
      return new Promise((resolve, reject) => {
        stream.write(piece, cause =>
          cause ? reject(new LocalError('the stream cannot be written', { cause })) : resolve(),
        )
      })
    })
  }

  /** Says what is known of a file; rejects with `not_found` if it is not there. */
  info(fileId: string, options: ReadOptions = {}): Promise<FileDetails> {
    return fileInfo(this.#servers, fileId, options)
  }

  /** Deletes a file; rejects with `not_found` if it is not there. */
  delete(fileId: string, options: RequestOptions = {}): Promise<void> {
    return deleteFile(this.#servers, fileId, options)
  }

  /**
   * Stores a slave file: one more version of a file, such as a thumbnail, whose id is that of its master with a prefix, of up
   * to 16 characters, and an extension of its own. Rejects with `already_exists` if there is one. The input has to have a
   * known size.
   */
  uploadSlave(masterId: string, input: UploadInput, options: SlaveOptions): Promise<FileFacts> {
    return uploadSlave(this.#servers, masterId, input, options)
  }

  /** Stores an appender file, which may be changed; the input has to have a known size. A retry may leave one behind. */
  uploadAppender(input: UploadInput, options: AppenderOptions = {}): Promise<{ fileId: string }> {
    return uploadAppender(this.#servers, input, options)
  }

  /**
   * Writes at the end of an appender file. For one writer at a time: whether an attempt whose answer was lost has written is
   * seen by the size of the file.
   */
  append(fileId: string, input: UploadInput, options: TransferOptions = {}): Promise<void> {
    return append(this.#servers, fileId, input, options)
  }

  /** Writes into an appender file, from an offset on that is not behind its end. */
  modify(fileId: string, offset: number, input: UploadInput, options: TransferOptions = {}): Promise<void> {
    return modify(this.#servers, fileId, offset, input, options)
  }

  /** Cuts an appender file. Rejects with `bad_range` if it is shorter. */
  async truncate(fileId: string, sizeBytes: number, options: RequestOptions = {}): Promise<void> {
    const body = writeChange(parseFileId(fileId).name, sizeBytes)
    await this.#servers.change(COMMANDS.truncate, fileId, body, options)
  }

  /** Makes a plain file of an appender file, and says its new id. */
  async regenerate(fileId: string, options: RequestOptions = {}): Promise<{ fileId: string }> {
    const body = Buffer.from(parseFileId(fileId).name, 'latin1')
    const answer = await this.#servers.change(COMMANDS.regenerate, fileId, body, options)
    return { fileId: formatFileId(readGroupAndName(answer)) }
  }

  /**
   * Makes a file with the content of another one, and says its new id: a plain file with the extension of that one unless given,
   * or, with a master in its group and a prefix, a slave file. It does not end with the file that it was made of. A retry may
   * leave a plain one behind. Rejects with `already_exists` if there is such a slave file.
   */
  async createLink(fileId: string, options: RequestOptions & LinkOptions = {}): Promise<{ fileId: string }> {
    const { group, name } = parseFileId(fileId)
    const { masterId, prefix = '', extension = extensionOf(name) } = options
    const master = masterId === undefined ? '' : parseFileId(masterId).name
    const body = writeLink({ group, master, name, prefix, extension })
    const answer = await this.#servers.change(COMMANDS.createLink, masterId ?? fileId, body, options)
    return { fileId: formatFileId(readGroupAndName(answer)) }
  }

  /**
   * Sets the metadata of a file: names of up to 64 bytes and values of up to 256, in place of what was set before, or merged
   * into it. Rejects with `not_found` if the file is not there.
   */
  async setMetadata(
    fileId: string,
    metadata: Readonly<Record<string, string>>,
    options: RequestOptions & { merge?: boolean | undefined } = {},
  ): Promise<void> {
    const { group, name } = parseFileId(fileId)
    const merges = options.merge === true
    const body = writeSetMetadata({ group, name, metadata: writeMetadata(metadataOf(metadata)), merges })
    await this.#servers.change(COMMANDS.setMetadata, fileId, body, options)
  }

  /** The metadata of a file, empty if none was set; rejects with `not_found` if the file is not there. */
  async getMetadata(fileId: string, options: ReadOptions = {}): Promise<Record<string, string>> {
    return textsOf(readMetadata(await this.#servers.read(COMMANDS.getMetadata, fileId, options)))
  }

  /**
   * The files there are, in pages that are asked for as they are read. Every file that is there from the beginning to the
   * end is listed exactly once; one that comes or goes meanwhile may be listed or not. Rejects with `unavailable` if a member
   * of a group cannot be asked, unless that is `partial`.
   */
  async *list(options: ListOptions & RequestOptions = {}): AsyncGenerator<ListedFile, void, void> {
    let { cursor } = options
    do {
      const page = await this.listPage({ ...options, cursor })
      yield* page.files
      cursor = page.cursor
    } while (cursor !== undefined)
  }

  /** One page of a listing, which may be empty, and from where to go on: a listing that may be resumed by another program. */
  listPage(options: ListOptions & RequestOptions = {}): Promise<FilePage> {
    const servers = this.#servers
    const askServer: AskServer = (group, server, ask) => servers.onFirst([server], ask, readPurpose(group))
    return servers.retry(options, () => listPage(servers.routes, askServer, options))
  }

  /** The cluster as a tracker sees it. */
  status(): Promise<ReplyOf<typeof trackerStatus>> {
    return this.#servers.routes.ask(trackerStatus, {})
  }

  /**
   * Makes a storage server order the changes of the files of a source that is gone, until that is back; `alone` says that
   * whoever else would have to agree is dead. For operators: needs their NATS credentials. Rejects with `still_in_use` if the
   * source is not gone, with `unavailable` if too few members agree or one has more of its records.
   */
  takeOver(by: number, source: number, { alone = false } = {}): Promise<ReplyOf<typeof takeOver>> {
    return this.#servers.routes.ask(takeOver, { source, alone }, { id: `storage-${by}`, timeoutMs: TAKE_OVER_MS })
  }

  /** What a file id says, and who could serve it now. */
  locate(fileId: string): Promise<ReplyOf<typeof trackerLocate>> {
    return this.#servers.routes.ask(trackerLocate, { fileId })
  }

  /** Ends all connections; what is under way rejects. */
  async close(): Promise<void> {
    this.#servers.close()
    await this.#bus.drain()
  }
}
