/** The client: files in, files out, over direct sockets; the trackers are asked only now and then. */
import { crc32 } from '@node-rs/crc32'
import type { AckLevel, Receipt } from '../protocol/ack.ts'
import {
  readChanged,
  readFileInfo,
  readGroupAndName,
  readUploaded,
  UPLOAD_FIXED_BYTES,
  UPLOAD_HEAD_BYTES,
  type UploadHead,
  writeChange,
  writeDownload,
  writeGroupAndName,
  writeLink,
  writeSetMetadata,
  writeSlave,
  writeUploadFields,
  writeUploadHead,
  writeUploadStream,
} from '../protocol/data-bodies.ts'
import { DfsError, toDfsError } from '../protocol/errors.ts'
import {
  decodeFileName,
  extensionOf,
  formatFileId,
  isExtension,
  parseFileId,
  slaveNameOf,
} from '../protocol/file-id.ts'
import { COMMANDS, REQUEST_STATUS } from '../protocol/frame.ts'
import type { ReplyOf } from '../protocol/message.ts'
import { metadataOf, readMetadata, textsOf, writeMetadata } from '../protocol/metadata.ts'
import { STORE_PATH_ANY, takeOver } from '../protocol/storage-messages.ts'
import { type ServerAddress, trackerLocate, trackerStatus } from '../protocol/tracker-messages.ts'
import type { Bus } from '../runtime/bus.ts'
import { type BodySource, type FrameClient, receiveWhole } from '../runtime/frame-client.ts'
import { FramePool, type FramePoolOptions } from '../runtime/frame-pool.ts'
import type { Timers } from '../runtime/timers.ts'
import type { World } from '../runtime/world.ts'
import { writeFile } from './file-sink.ts'
import { type AskServer, type FilePage, type ListedFile, type ListOptions, listPage } from './list-files.ts'
import { type Consistency, OwnChanges } from './own-changes.ts'
import { LocalError, retry } from './retry.ts'
import { Routes, readPurpose, updatePurpose, uploadPurpose } from './routes.ts'
import { Tickets } from './tickets.ts'
import { openSource, PIECE_BYTES, type UploadInput, type UploadSource } from './upload-source.ts'

/** A download into memory is refused beyond this; a file or a stream takes any size. */
const BUFFER_BYTES_MAX = 512 * 1024 * 1024

const CONNECT_MS = 2_000
/** A reply may wait for a disk; a server that says nothing for so long is given up. */
const TIMEOUTS = { idleMs: 20_000, headerMs: 10_000, bodyMs: 20_000 }
const CONNECTIONS_PER_SERVER_MAX = 4
const IDLE_MS_MAX = 30_000

/** How far a transfer has come. `totalBytes` is undefined while nobody knows. */
export interface Progress {
  readonly bytes: number
  readonly totalBytes: number | undefined
}

/** What a link is called: see `createLink`. */
export interface LinkOptions {
  /** That of the file unless given. */
  readonly extension?: string | undefined
  readonly masterId?: string | undefined
  readonly prefix?: string | undefined
}

export interface RequestOptions {
  readonly signal?: AbortSignal | undefined
  /** Hears why an attempt failed that will be repeated: a cluster that is away is waited for, for a while. */
  readonly onRetry?: ((error: DfsError) => void) | undefined
}

export interface ReadOptions extends RequestOptions {
  /** How old the answer may be: `session` if not given. */
  readonly consistency?: Consistency | undefined
}

export interface TransferOptions extends RequestOptions {
  readonly onProgress?: ((progress: Progress) => void) | undefined
}

export interface UploadOptions extends TransferOptions {
  /** A group by name. */
  readonly group?: string | undefined
  /** Files with the same key go to the same group. */
  readonly key?: string | undefined
  /** Up to six characters, without the dot; taken from the path if there is one. */
  readonly extension?: string | undefined
  /** 32 hex digits: uploads with the same id are the same upload. Made at random if not given. */
  readonly uploadId?: string | undefined
  /** How many members hold the file before it is acknowledged; the storage server's own level if not given. */
  readonly ack?: AckLevel | undefined
  /** How long that may take once the file is stored, up to 10 s; 5 s if not given. */
  readonly ackTimeoutMs?: number | undefined
}

/** What a file id stands for. */
interface FileFacts {
  readonly fileId: string
  readonly sizeBytes: number
  readonly crc32: number
}

/** A file that is stored. */
export interface Uploaded extends FileFacts {
  readonly receipt: Receipt
}

export interface DownloadOptions extends TransferOptions, ReadOptions {
  readonly offset?: number | undefined
  /** To the end if not given. */
  readonly length?: number | undefined
}

/** What is known of a file that is there. */
export interface FileDetails extends FileFacts {
  readonly createTimeS: number
  /** The storage id of the source, unless the id names an address. */
  readonly source: number | undefined
}

/** Takes the pieces of a download, in order; the buffer is reused after the promise resolves. */
export type Sink = (piece: Buffer) => Promise<void>

/** The one thing we need of a stream to write to. */
export interface WritableLike {
  write(piece: Uint8Array, done: (error?: Error | null) => void): unknown
}

export interface ClientParts {
  readonly world: World
  readonly timers: Timers
  readonly bus: Bus
  readonly prefix: string
  /** The clients' data secret, as hex; who has none needs tickets, or does what FastDFS's clients may do. */
  readonly dataSecret: string | undefined
}

/** A take-over waits for what is under way at those who agree. */
const TAKE_OVER_MS = 30_000

export class Client {
  readonly #world: World
  readonly #timers: Timers
  readonly #pool: FramePool
  /** For uploads that wait for peers: their replies would keep back others that come behind them. */
  readonly #waitingPool: FramePool
  readonly #tickets: Tickets
  readonly #routes: Routes
  readonly #changes = new OwnChanges()
  readonly #bus: Bus

  /** Puts a client together; `connect` is the usual way. The bus stays the caller's. */
  constructor({ world, timers, bus, prefix, dataSecret }: ClientParts) {
    this.#world = world
    this.#timers = timers
    this.#bus = bus
    this.#tickets = new Tickets(world.clock, world.random)
    this.#routes = new Routes(bus, world, prefix, this.#tickets)
    const options: FramePoolOptions = {
      sockets: world.sockets,
      clock: world.clock,
      timers,
      random: world.random,
      connectMs: CONNECT_MS,
      timeouts: TIMEOUTS,
      proof: dataSecret === undefined ? undefined : { role: 'client', key: dataSecret },
      connectionsPerServerMax: CONNECTIONS_PER_SERVER_MAX,
      idleMsMax: IDLE_MS_MAX,
    }
    this.#pool = new FramePool(options)
    this.#waitingPool = new FramePool(options)
  }

  /**
   * Stores a file and says its id. What fails and may be repeated is repeated, on another server if need be, as the
   * same upload. Rejects with a DfsError, or with a LocalError if the input cannot be read.
   *
   * With `ack_timeout` the file is stored, and fewer members hold it than were asked for. Whoever gave an upload id may
   * upload it again under this id, which waits once more for the same file.
   */
  async upload(input: UploadInput, options: UploadOptions = {}): Promise<Uploaded> {
    const extension = options.extension ?? (typeof input === 'string' ? extensionOf(input) : '')
    if (!isExtension(extension)) throw new DfsError('bad_request', `the extension ${extension} cannot be kept`)
    const source = await openSource(this.#world.disk, input)
    try {
      let uploadId = options.uploadId ?? this.#routes.newUploadId()
      const isRepeatable = () => source.repeatable
      const attempt = async () => {
        try {
          return await this.#uploadOnce(source, options, { extension, uploadId })
        } catch (error) {
          // The name that this upload id stands for is not our file's: the next attempt is another upload.
          if (toDfsError(error).code === 'digest_mismatch') uploadId = this.#routes.newUploadId()
          throw error
        }
      }
      return await this.#retry(options, attempt, isRepeatable)
    } finally {
      await source.close()
    }
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
  async downloadTo(fileId: string, options: DownloadOptions, sink: Sink): Promise<{ bytes: number }> {
    const { group, name } = parseFileId(fileId)
    const parts = decodeFileName(name)
    const { offset = 0, length } = options
    if (length === 0) return { bytes: 0 }
    let bytes = 0
    let sum = 0
    let total = length
    await this.#retry(options, async () => {
      // Nothing is left after the piece in which the last server failed: a range of length 0 would mean "all".
      if (bytes > 0 && bytes === total) return
      const begun = bytes
      const range = { offset: offset + begun, length: length === undefined ? 0 : length - begun }
      await this.#onReaders(fileId, options, (client, status) =>
        this.#fetch(client, { group, name, ...range, status }, async (piece, lengthBytes) => {
          options.signal?.throwIfAborted()
          total = begun + lengthBytes
          sum = crc32(piece, sum)
          await sink(piece)
          bytes += piece.length
          options.onProgress?.({ bytes, totalBytes: total })
        }),
      )
    })
    const whole = offset === 0 && length === undefined && parts.sizeBytes !== undefined
    if (whole && (sum !== parts.crc32 || bytes !== parts.sizeBytes)) {
      throw new DfsError('digest_mismatch', `${fileId}: got ${bytes} bytes with CRC32 ${sum.toString(16)}`)
    }
    return { bytes }
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
    return writeFile(this, this.#world.disk, fileId, path, options)
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
  async info(fileId: string, options: ReadOptions = {}): Promise<FileDetails> {
    const id = parseFileId(fileId)
    const body = writeGroupAndName(id.group, id.name)
    const answer = await this.#retry(options, () =>
      this.#onReaders(fileId, options, (client, status) => client.request(COMMANDS.queryFileInfo, body, status)),
    )
    const { sizeBytes, mtimeS, crc32: sum } = readFileInfo(answer)
    return { fileId, sizeBytes, crc32: sum, createTimeS: mtimeS, source: decodeFileName(id.name).storageId }
  }

  /** Deletes a file; rejects with `not_found` if it is not there. */
  async delete(fileId: string, options: RequestOptions = {}): Promise<void> {
    const id = parseFileId(fileId)
    const body = writeGroupAndName(id.group, id.name)
    await this.#retry(options, async count => {
      try {
        await this.#onOrderer(fileId, (client, status) => client.request(COMMANDS.deleteFile, body, status))
      } catch (error) {
        // The answer to an earlier attempt was lost, not the deletion.
        if (count === 0 || toDfsError(error).code !== 'not_found') throw error
        this.#changes.noteUnplaced(fileId)
      }
    })
  }

  /**
   * Stores a slave file: one more version of a file, such as a thumbnail, whose id is that of its master with a prefix, of up
   * to 16 characters, and an extension of its own. Rejects with `already_exists` if there is one. The input has to have a
   * known size.
   */
  async uploadSlave(
    masterId: string,
    input: UploadInput,
    options: TransferOptions & { prefix: string; extension?: string | undefined },
  ): Promise<FileFacts> {
    const { group, name: masterName } = parseFileId(masterId)
    const extension = options.extension ?? (typeof input === 'string' ? extensionOf(input) : '')
    const fileId = formatFileId({ group, name: slaveNameOf(masterName, options.prefix, extension) })
    return this.#send(input, options, async (source, sizeBytes, count) => {
      const head = writeSlave({ sizeBytes, prefix: options.prefix, extension }, masterName)
      let sum = 0
      const note = (sent: { crc32: number }) => {
        sum = sent.crc32
      }
      try {
        await this.#onOrderer(masterId, sendBody(COMMANDS.uploadSlave, head, source, sizeBytes, options, note), fileId)
      } catch (error) {
        // The answer to an earlier attempt was lost, not the file.
        const mayBeOurs = count > 0 && toDfsError(error).code === 'already_exists'
        const found = mayBeOurs ? await this.info(fileId, options) : undefined
        if (found?.sizeBytes !== sizeBytes || found.crc32 !== sum) throw error
        this.#changes.noteUnplaced(fileId)
      }
      return { fileId, sizeBytes, crc32: sum }
    })
  }

  /** Stores an appender file, which may be changed; the input has to have a known size. A retry may leave one behind. */
  async uploadAppender(
    input: UploadInput,
    options: TransferOptions & Pick<UploadOptions, 'group' | 'key' | 'extension'> = {},
  ): Promise<{ fileId: string }> {
    const { group, key } = options
    const extension = options.extension ?? (typeof input === 'string' ? extensionOf(input) : '')
    const wanted = { ...(group === undefined ? {} : { group }), ...(key === undefined ? {} : { key }) }
    const answer = await this.#send(input, options, async (source, sizeBytes) => {
      const route = await this.#routes.forUpload(wanted, this.#routes.newUploadId())
      const head = writeUploadFields({ storePathIndex: STORE_PATH_ANY, sizeBytes, extension })
      const send = sendBody(COMMANDS.uploadAppender, head, source, sizeBytes, options)
      return this.#onFirst(route.servers, send, uploadPurpose(route.group))
    })
    return { fileId: formatFileId(readGroupAndName(answer)) }
  }

  /**
   * Writes at the end of an appender file. For one writer at a time: whether an attempt whose answer was lost has written is
   * seen by the size of the file.
   */
  async append(fileId: string, input: UploadInput, options: TransferOptions = {}): Promise<void> {
    const { name } = parseFileId(fileId)
    const fromSource = { signal: options.signal, onRetry: options.onRetry, consistency: 'strong' } as const
    let before: number | undefined
    await this.#send(input, options, async (source, sizeBytes, count) => {
      if (count > 0 && before !== undefined) {
        if ((await this.info(fileId, fromSource)).sizeBytes === before + sizeBytes) {
          this.#changes.noteUnplaced(fileId)
          return Buffer.alloc(0)
        }
      } else before = (await this.info(fileId, fromSource)).sizeBytes
      const head = writeChange(name, sizeBytes)
      return this.#onOrderer(fileId, sendBody(COMMANDS.append, head, source, sizeBytes, options))
    })
  }

  /** Writes into an appender file, from an offset on that is not behind its end. */
  async modify(fileId: string, offset: number, input: UploadInput, options: TransferOptions = {}): Promise<void> {
    const { name } = parseFileId(fileId)
    await this.#send(input, options, async (source, sizeBytes) => {
      const head = writeChange(name, offset, sizeBytes)
      return this.#onOrderer(fileId, sendBody(COMMANDS.modify, head, source, sizeBytes, options))
    })
  }

  /** Cuts an appender file. Rejects with `bad_range` if it is shorter. */
  async truncate(fileId: string, sizeBytes: number, options: RequestOptions = {}): Promise<void> {
    const body = writeChange(parseFileId(fileId).name, sizeBytes)
    await this.#retry(options, () =>
      this.#onOrderer(fileId, (client, status) => client.request(COMMANDS.truncate, body, status)),
    )
  }

  /** Makes a plain file of an appender file, and says its new id. */
  async regenerate(fileId: string, options: RequestOptions = {}): Promise<{ fileId: string }> {
    const body = Buffer.from(parseFileId(fileId).name, 'latin1')
    const answer = await this.#retry(options, () =>
      this.#onOrderer(fileId, (client, status) => client.request(COMMANDS.regenerate, body, status)),
    )
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
    const answer = await this.#retry(options, () =>
      this.#onOrderer(masterId ?? fileId, (client, status) => client.request(COMMANDS.createLink, body, status)),
    )
    return { fileId: formatFileId(readGroupAndName(answer)) }
  }

  /** Does something with a source of known size, again if that may help. */
  async #send<T>(
    input: UploadInput,
    options: RequestOptions,
    attempt: (source: UploadSource, sizeBytes: number, count: number) => Promise<T>,
  ): Promise<T> {
    const source = await openSource(this.#world.disk, input)
    try {
      const { sizeBytes } = source
      if (sizeBytes === undefined) throw new LocalError('the size of the input has to be known', { cause: undefined })
      const isRepeatable = () => source.repeatable
      return await this.#retry(options, count => attempt(source, sizeBytes, count), isRepeatable)
    } finally {
      await source.close()
    }
  }

  /** Has a file changed, or what is made beside it; notes where the change stands. */
  async #onOrderer(
    fileId: string,
    ask: (client: FrameClient, status: number) => Promise<Buffer>,
    changedId = fileId,
  ): Promise<Buffer> {
    const servers = await this.#routes.forUpdate(fileId)
    const tell = (client: FrameClient) => ask(client, REQUEST_STATUS.tellPlace)
    const { place, body } = readChanged(await this.#onFirst(servers, tell, updatePurpose(parseFileId(fileId).group)))
    this.#changes.note(changedId, place)
    return body
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
    const fields = {
      ...parseFileId(fileId),
      metadata: writeMetadata(metadataOf(metadata)),
      merges: options.merge === true,
    }
    const body = writeSetMetadata(fields)
    await this.#retry(options, () =>
      this.#onOrderer(fileId, (client, status) => client.request(COMMANDS.setMetadata, body, status)),
    )
  }

  /** The metadata of a file, empty if none was set; rejects with `not_found` if the file is not there. */
  async getMetadata(fileId: string, options: ReadOptions = {}): Promise<Record<string, string>> {
    const id = parseFileId(fileId)
    const body = writeGroupAndName(id.group, id.name)
    const answer = await this.#retry(options, () =>
      this.#onReaders(fileId, options, (client, status) => client.request(COMMANDS.getMetadata, body, status)),
    )
    return textsOf(readMetadata(answer))
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
    const askServer: AskServer = (group, server, ask) => this.#onFirst([server], ask, readPurpose(group))
    return this.#retry(options, () => listPage(this.#routes, askServer, options))
  }

  /** The cluster as a tracker sees it. */
  status(): Promise<ReplyOf<typeof trackerStatus>> {
    return this.#routes.ask(trackerStatus, {})
  }

  /**
   * Makes a storage server order the changes of the files of a source that is gone, until that is back; `alone` says that
   * whoever else would have to agree is dead. For operators: needs their NATS credentials. Rejects with `still_in_use` if the
   * source is not gone, with `unavailable` if too few members agree or one has more of its records.
   */
  takeOver(by: number, source: number, { alone = false } = {}): Promise<ReplyOf<typeof takeOver>> {
    return this.#routes.ask(takeOver, { source, alone }, { id: `storage-${by}`, timeoutMs: TAKE_OVER_MS })
  }

  /** What a file id says, and who could serve it now. */
  locate(fileId: string): Promise<ReplyOf<typeof trackerLocate>> {
    return this.#routes.ask(trackerLocate, { fileId })
  }

  /** Ends all connections; what is under way rejects. */
  async close(): Promise<void> {
    this.#pool.close()
    this.#waitingPool.close()
    await this.#bus.drain()
  }

  async #uploadOnce(
    source: UploadSource,
    options: UploadOptions,
    { extension, uploadId }: { extension: string; uploadId: string },
  ): Promise<Uploaded> {
    const { group, key, ack, ackTimeoutMs } = options
    const wanted = { ...(group === undefined ? {} : { group }), ...(key === undefined ? {} : { key }) }
    const route = await this.#routes.forUpload(wanted, uploadId)
    const pool = ack === undefined || ack === 'one' ? this.#pool : this.#waitingPool
    let sent: { crc32: number; sizeBytes: number } | undefined
    let ours: unknown
    const sendAll = async (send: (piece: Uint8Array) => Promise<void>) => {
      let bytes = 0
      try {
        sent = await source.send(async piece => {
          options.signal?.throwIfAborted()
          await send(piece)
          bytes += piece.length
          options.onProgress?.({ bytes, totalBytes: source.sizeBytes })
        })
      } catch (error) {
        if (error instanceof LocalError) ours = error
        throw error
      }
    }
    const send = (client: FrameClient) =>
      sendUpload(client, source, { extension, uploadId, ack, ackTimeoutMs }, sendAll)
    const purpose = uploadPurpose(route.group, this.#routes.isOwn(uploadId) ? undefined : uploadId)
    const answer = await this.#onFirst(route.servers, send, purpose, pool).catch(error => {
      if (toDfsError(error).code === 'ack_timeout') this.#routes.keep(uploadId, route)
      throw ours ?? error
    })
    const { receipt, ...id } = readUploaded(answer)
    const fileId = formatFileId(id)
    const stored = decodeFileName(id.name)
    if (stored.crc32 !== sent?.crc32 || stored.sizeBytes !== sent.sizeBytes) {
      await this.delete(fileId).catch(ignore)
      throw new DfsError('digest_mismatch', 'the server stored other bytes than were sent')
    }
    return { fileId, sizeBytes: sent.sizeBytes, crc32: sent.crc32, receipt }
  }

  async #fetch(
    client: FrameClient,
    wanted: { group: string; name: string; offset: number; length: number; status: number },
    take: (piece: Buffer, lengthBytes: number) => Promise<void>,
  ): Promise<void> {
    const request = writeDownload(wanted)
    let ours: unknown
    const fetched = client.exchange(
      COMMANDS.downloadFile,
      request.length,
      send => send([request]),
      async (body, { lengthBytes }) => {
        const buffer = Buffer.allocUnsafeSlow(Math.min(lengthBytes, PIECE_BYTES))
        while (body.bodyLeft > 0) {
          const piece = buffer.subarray(0, await body.readBody(buffer))
          try {
            await take(piece, lengthBytes)
          } catch (error) {
            ours = error
            throw error
          }
        }
      },
      wanted.status,
    )
    await fetched.catch(error => Promise.reject(ours ?? error))
  }

  /** Asks who may answer a read; one who has to know the last change answers by itself. */
  async #onReaders<T>(
    fileId: string,
    { consistency = 'session' }: ReadOptions,
    ask: (client: FrameClient, status: number) => Promise<T>,
  ): Promise<T> {
    const needed =
      consistency === 'strong' ? 'source' : consistency === 'session' ? this.#changes.needed(fileId) : undefined
    const servers = await this.#routes.forRead(fileId, needed)
    const { strong, alone } = REQUEST_STATUS
    const status = needed === undefined ? 0 : needed === 'source' ? strong : alone
    try {
      return await this.#onFirst(servers, client => ask(client, status), readPurpose(parseFileId(fileId).group))
    } catch (error) {
      if (toDfsError(error).code !== 'not_here') throw error
      throw new DfsError('unavailable', 'the member that orders this file cannot say what became of it', {
        cause: error,
      })
    }
  }

  /**
   * Asks the first server of a list, which is shown the ticket for a purpose; one that fails is avoided for a while, so that
   * the next attempt takes another.
   */
  async #onFirst<T>(
    servers: readonly ServerAddress[],
    ask: (client: FrameClient) => Promise<T>,
    purpose: string,
    pool = this.#pool,
  ): Promise<T> {
    const server = servers[0]
    if (server === undefined) throw new DfsError('no_storage')
    try {
      const client = await pool.connection({ host: server.ip, port: server.port })
      const shown = this.#tickets.show(client, purpose)
      if (shown !== undefined) await shown
      return await ask(client)
    } catch (error) {
      const { code, retryable } = toDfsError(error)
      if (code === 'ticket_expired') {
        this.#tickets.clear()
        this.#routes.forget()
      }
      // Who waited for its peers in vain has the file, and is well, as is who does not believe a ticket.
      const isWell = code === 'ack_timeout' || code === 'ticket_expired'
      if (error instanceof DfsError && retryable && !isWell) this.#routes.avoid(server)
      throw error
    }
  }

  #retry<T>(options: RequestOptions, attempt: (count: number) => Promise<T>, isRepeatable?: () => boolean) {
    const { signal, onRetry } = options
    const { clock, random } = this.#world
    return retry({ timers: this.#timers, clock, random, signal, onRetry, isRepeatable }, attempt)
  }
}

/** One upload on one connection: with its size in front, or in data frames if nobody knows the size yet. */
async function sendUpload(
  client: FrameClient,
  source: UploadSource,
  { extension, uploadId, ack, ackTimeoutMs }: UploadHead & { extension: string },
  sendAll: (send: (piece: Uint8Array) => Promise<void>) => Promise<void>,
): Promise<Buffer> {
  const head: UploadHead = { uploadId, ack, ackTimeoutMs }
  const { sizeBytes } = source
  if (sizeBytes !== undefined) {
    const fields = writeUploadFields({ storePathIndex: STORE_PATH_ANY, sizeBytes, extension })
    const first: Buffer[] = [writeUploadHead(head), fields]
    return client.exchange(
      COMMANDS.uploadOnce,
      UPLOAD_HEAD_BYTES + UPLOAD_FIXED_BYTES + sizeBytes,
      async send => {
        await sendAll(piece => send([...first.splice(0), piece]))
        if (first.length > 0) await send(first.splice(0))
      },
      receiveWhole,
    )
  }
  return client.exchangeStream(
    COMMANDS.uploadStream,
    writeUploadStream({ uploadId, ack, ackTimeoutMs, storePathIndex: STORE_PATH_ANY, extension }),
    COMMANDS.data,
    sendAll,
  )
}

function ignore(): void {}

/** Sends a request whose body is a head and all of a source; `onSent` hears what the source was. */
function sendBody(
  command: number,
  head: Buffer,
  source: UploadSource,
  sizeBytes: number,
  { signal, onProgress }: TransferOptions,
  onSent: (sent: { crc32: number }) => void = ignore,
): (client: FrameClient, status?: number) => Promise<Buffer> {
  const sendAll: BodySource = async send => {
    await send([head])
    let bytes = 0
    const sent = await source.send(async piece => {
      signal?.throwIfAborted()
      await send([piece])
      bytes += piece.length
      onProgress?.({ bytes, totalBytes: sizeBytes })
    })
    onSent(sent)
  }
  return (client, status) => client.exchange(command, head.length + sizeBytes, sendAll, receiveWhole, status)
}
