/**
 * Load in FastDFS's protocol: every connection has one request outstanding, and sends the next as the reply comes.
 *
 *     straight     ─▶ storage server: upload 11, download 14, delete 12
 *     via tracker  ─▶ tracker: where? 101, 102, 103 ─▶ the storage server it names: the same
 */
import { GROUP_NAME_BYTES } from '../protocol/file-id.ts'
import { COMMANDS, HEADER_BYTES, readInt64, readString, writeInt64, writeString } from '../protocol/frame.ts'
import type { Endpoint } from '../runtime/world.ts'
import { fillContent, makeContent } from './content.ts'
import { FrameLink } from './frame-link.ts'
import { LoadTally } from './load-result.ts'

export interface LoadPlan {
  readonly kind: 'upload' | 'download' | 'delete'
  readonly at: Endpoint
  /** Whether `at` is a tracker, to be asked before every operation. */
  readonly viaTracker: boolean
  readonly connections: number
  /** Ends after a time, or after a count of operations; deletions end with their ids. */
  readonly seconds?: number
  readonly count?: number
  /** Of each upload. */
  readonly sizeBytes?: number
  /** To download or delete: in turn if there is a count, at random if there is a time. */
  readonly ids?: readonly string[]
}

export interface Load {
  readonly tally: LoadTally
  readonly seconds: number
  /** Of what was uploaded. */
  readonly ids: readonly string[]
}

/** A server that refuses everything would be asked for ever. */
const ERRORS_MAX = 2_000

/** Up to here each connection has content of its own, behind its header in one buffer; larger content is shared. */
const OWN_CONTENT_BYTES_MAX = 2 ** 20

const UPLOAD_FIELDS_BYTES = 15
const RANGE_BYTES = 16
const ASK_STORE = command(COMMANDS.queryStoreWithoutGroup)

/** Runs a load to its end. */
export function runLoad(plan: LoadPlan): Promise<Load> {
  return new Promise(resolve => {
    const run = new Run(plan, resolve)
    run.begin()
  })
}

class Run {
  readonly plan: LoadPlan
  readonly tally = new LoadTally()
  readonly ids: string[] = []
  /** Group and name of each id, as requests carry them. */
  readonly names: readonly Buffer[]
  readonly sharedContent: Buffer | undefined
  readonly #done: (load: Load) => void
  readonly #limit: number
  #taken = 0
  #running: number
  #random = 0x9e3779b9
  #over = false
  #startMs = 0

  constructor(plan: LoadPlan, done: (load: Load) => void) {
    const { kind, ids = [], sizeBytes = 0, connections, count } = plan
    this.plan = plan
    this.#done = done
    this.#running = connections
    this.names = ids.map(nameOf)
    this.sharedContent = kind === 'upload' && sizeBytes > OWN_CONTENT_BYTES_MAX ? makeContent(sizeBytes) : undefined
    this.#limit = kind === 'delete' ? ids.length : (count ?? Number.POSITIVE_INFINITY)
  }

  begin(): void {
    const { connections, seconds } = this.plan
    const connected = Array.from({ length: connections }, (_, i) => new Connection(this, i))
    this.#startMs = performance.now()
    if (seconds !== undefined) setTimeout(() => this.end(), seconds * 1000)
    for (const connection of connected) connection.next()
  }

  end(): void {
    this.#over = true
  }

  /** The number of the next operation, or -1 if there is none. */
  take(): number {
    return this.#over || this.#taken === this.#limit ? -1 : this.#taken++
  }

  /** Which file the operation with this number is about. */
  nameFor(number: number): Buffer {
    if (this.#limit !== Number.POSITIVE_INFINITY) return this.names[number % this.names.length]!
    this.#random ^= this.#random << 13
    this.#random ^= this.#random >>> 17
    this.#random ^= this.#random << 5
    return this.names[(this.#random >>> 0) % this.names.length]!
  }

  finished(): void {
    if (--this.#running > 0) return
    this.#done({ tally: this.tally, seconds: (performance.now() - this.#startMs) / 1000, ids: this.ids })
  }
}

/** One client: its connection to the tracker, and one to each storage server that it was sent to. */
class Connection {
  readonly #run: Run
  readonly #number: number
  readonly #upload: Buffer
  /** Room for the longest request that names a file. */
  readonly #request = Buffer.alloc(HEADER_BYTES + RANGE_BYTES + GROUP_NAME_BYTES + 128)
  readonly #storages = new Map<string, FrameLink>()
  #tracker: FrameLink | undefined
  /** Whose reply is waited for. */
  #waiting: FrameLink | undefined
  #name: Buffer | undefined
  #startMs = 0
  #errors = 0
  #uploads = 0
  #finished = false

  constructor(run: Run, number: number) {
    this.#run = run
    this.#number = number
    this.#upload = run.plan.kind === 'upload' ? uploadRequest(run) : Buffer.alloc(0)
  }

  next(): void {
    const { plan } = this.#run
    const number = this.#errors > ERRORS_MAX ? -1 : this.#run.take()
    if (number < 0) {
      this.#finish()
      return
    }
    this.#name = plan.kind === 'upload' ? undefined : this.#run.nameFor(number)
    this.#startMs = performance.now()
    if (plan.viaTracker) this.#ask()
    else this.#transfer('', plan.at, 0)
  }

  #ask(): void {
    this.#tracker ??= this.#connect(this.#run.plan.at)
    this.#waiting = this.#tracker
    const { kind } = this.#run.plan
    if (kind === 'upload') this.#tracker.send(ASK_STORE)
    else this.#tracker.send(this.#about(kind === 'delete' ? COMMANDS.queryUpdate : COMMANDS.queryFetch, 0))
  }

  #transfer(key: string, at: Endpoint, storePathIndex: number): void {
    let link = this.#storages.get(key)
    if (link === undefined) {
      link = this.#connect(at)
      this.#storages.set(key, link)
    }
    this.#waiting = link
    const { kind } = this.#run.plan
    if (kind === 'upload') {
      this.#upload[HEADER_BYTES] = storePathIndex
      if (this.#run.sharedContent === undefined) this.#makeOwn()
      link.send(this.#upload, this.#run.sharedContent)
    } else if (kind === 'download') link.send(this.#about(COMMANDS.downloadFile, RANGE_BYTES))
    else link.send(this.#about(COMMANDS.deleteFile, 0))
  }

  /** Makes this upload's content unlike any other's, as far as it has room for it. */
  #makeOwn(): void {
    const at = HEADER_BYTES + UPLOAD_FIELDS_BYTES
    if (this.#upload.length < at + 8) return
    this.#upload.writeUInt32LE(this.#number, at)
    this.#upload.writeUInt32LE(this.#uploads++, at + 4)
  }

  /** A request that names the file, behind so many bytes of a range that stays zero: all of it. */
  #about(code: number, rangeBytes: number): Buffer {
    const name = this.#name!
    const request = this.#request.subarray(0, HEADER_BYTES + rangeBytes + name.length)
    writeInt64(request, rangeBytes + name.length, 0)
    request[8] = code
    request.fill(0, HEADER_BYTES, HEADER_BYTES + rangeBytes)
    name.copy(request, HEADER_BYTES + rangeBytes)
    return request
  }

  #connect(at: Endpoint): FrameLink {
    return new FrameLink(at, {
      onReply: (link, status, lengthBytes) => {
        this.#waiting = undefined
        if (status !== 0) {
          // An upload that was refused may not have been read to its end.
          if (this.#run.plan.kind === 'upload') this.#drop(link)
          this.#fail()
        } else if (link === this.#tracker) this.#answered(link, lengthBytes)
        else this.#transferred(link, lengthBytes)
      },
      onEnd: link => {
        this.#drop(link)
        if (this.#waiting !== link) return
        this.#waiting = undefined
        this.#fail()
      },
    })
  }

  /** The tracker has said where: group 16, address 15 or 45, port 8, and for an upload the store path. */
  #answered({ body }: FrameLink, lengthBytes: number): void {
    const pathBytes = this.#run.plan.kind === 'upload' ? 1 : 0
    const addressBytes = lengthBytes - GROUP_NAME_BYTES - 8 - pathBytes
    const portAt = GROUP_NAME_BYTES + addressBytes
    const key = body.toString('latin1', GROUP_NAME_BYTES, portAt + 8)
    const known = this.#storages.has(key)
    const at = known ? this.#run.plan.at : addressIn(body, addressBytes)
    this.#transfer(key, at, pathBytes === 0 ? 0 : body[portAt + 8]!)
  }

  #transferred({ body }: FrameLink, lengthBytes: number): void {
    const { plan, tally, ids } = this.#run
    const isUpload = plan.kind === 'upload'
    tally.add(performance.now() - this.#startMs, isUpload ? plan.sizeBytes! : lengthBytes)
    if (isUpload) {
      ids.push(`${readString(body, 0, GROUP_NAME_BYTES)}/${body.toString('latin1', GROUP_NAME_BYTES, lengthBytes)}`)
    }
    this.next()
  }

  #fail(): void {
    this.#errors++
    this.#run.tally.errors++
    // Not at once: a refusal that comes without any wait would keep the stack growing.
    setImmediate(() => this.next())
  }

  #drop(link: FrameLink): void {
    link.close()
    if (this.#tracker === link) this.#tracker = undefined
    for (const [key, storage] of this.#storages) if (storage === link) this.#storages.delete(key)
  }

  #finish(): void {
    if (this.#finished) return
    this.#finished = true
    this.#tracker?.close()
    for (const link of this.#storages.values()) link.close()
    this.#run.finished()
  }
}

function addressIn(body: Buffer, addressBytes: number): Endpoint {
  const host = readString(body, GROUP_NAME_BYTES, addressBytes)
  return { host, port: readInt64(body, GROUP_NAME_BYTES + addressBytes) }
}

function uploadRequest({ plan: { sizeBytes = 0 }, sharedContent }: Run): Buffer {
  const ownBytes = sharedContent === undefined ? sizeBytes : 0
  const contentAt = HEADER_BYTES + UPLOAD_FIELDS_BYTES
  const request = Buffer.alloc(contentAt + ownBytes)
  writeInt64(request, UPLOAD_FIELDS_BYTES + sizeBytes, 0)
  request[8] = COMMANDS.uploadFile
  writeInt64(request, sizeBytes, HEADER_BYTES + 1)
  writeString(request, 'bin', HEADER_BYTES + 9, 6)
  fillContent(request.subarray(contentAt))
  return request
}

function nameOf(fileId: string): Buffer {
  const slash = fileId.indexOf('/')
  const name = Buffer.alloc(GROUP_NAME_BYTES + fileId.length - slash - 1)
  writeString(name, fileId.slice(0, slash), 0, GROUP_NAME_BYTES)
  name.write(fileId.slice(slash + 1), GROUP_NAME_BYTES, 'latin1')
  return name
}

/** A request without a body. */
function command(code: number): Buffer {
  const request = Buffer.alloc(HEADER_BYTES)
  request[8] = code
  return request
}
