/**
 * What a storage server has promised, remembered outside of it: every file it acknowledged, and every delete. Speaks to
 * it as any FastDFS client does.
 */
import { createHash, randomBytes } from 'node:crypto'
import {
  readGroupAndName,
  UPLOAD_FIXED_BYTES,
  writeGroupAndName,
  writeUploadFields,
} from '../../protocol/data-bodies.ts'
import { DfsError } from '../../protocol/errors.ts'
import { formatFileId, parseFileId } from '../../protocol/file-id.ts'
import { COMMANDS } from '../../protocol/frame.ts'
import { type FrameClient, receiveWhole } from '../../runtime/frame-client.ts'
import { fetchFile } from '../data-port.ts'

/** Any store path. */
const ANY = 0xff

/** `deleting`: nobody has heard whether it was deleted, so either is right, until we have looked. */
type State = 'kept' | 'deleting' | 'deleted'

interface Promised {
  readonly digest: string
  state: State
}

/** Bytes that uploads are cut from, so that none has to be made anew; each begins with a number of its own. */
const POOL = randomBytes(2 ** 20)

export class Manifest {
  readonly lost = new Set<string>()
  readonly wrong = new Map<string, string>()
  acknowledged = 0
  deleted = 0
  readonly #files = new Map<string, Promised>()
  readonly #kept = new PickSet()
  /** Not looked at since they were promised. */
  readonly #fresh = new Set<string>()
  #contents = 0

  /** Uploads a file of this size and takes note of it; resolves when it is acknowledged. */
  async upload(client: FrameClient, sizeBytes: number): Promise<void> {
    const content = this.#content(sizeBytes)
    const fields = writeUploadFields({ storePathIndex: ANY, sizeBytes, extension: 'bin' })
    const send = (write: (parts: readonly Uint8Array[]) => Promise<void>) => write([fields, content])
    const reply = await client.exchange(COMMANDS.uploadFile, UPLOAD_FIXED_BYTES + sizeBytes, send, receiveWhole)
    const fileId = formatFileId(readGroupAndName(reply))
    if (this.#files.has(fileId)) this.wrong.set(fileId, 'was given out twice')
    this.#files.set(fileId, { digest: digestOf(content), state: 'kept' })
    this.#kept.add(fileId)
    this.#fresh.add(fileId)
    this.acknowledged++
  }

  /** Deletes one of the files; nothing if there are none. */
  async delete(client: FrameClient, below: (limit: number) => number): Promise<void> {
    const fileId = this.#kept.pick(below)
    if (fileId === undefined) return
    const promised = this.#files.get(fileId)!
    this.#kept.delete(fileId)
    this.#fresh.add(fileId)
    promised.state = 'deleting'
    const { group, name } = parseFileId(fileId)
    await client.request(COMMANDS.deleteFile, writeGroupAndName(group, name)).catch(error => {
      // Nobody else deletes it, so it was not there any more.
      if (codeOf(error) === 'not_found') this.lost.add(fileId)
      throw error
    })
    promised.state = 'deleted'
    this.deleted++
  }

  /** Reads one of the files while others are written and deleted. */
  async readOne(client: FrameClient, below: (limit: number) => number): Promise<void> {
    const fileId = this.#kept.pick(below)
    if (fileId !== undefined) await this.#check(client, fileId, false)
  }

  /** Files to be looked at after a cut: all that are fresh, and some of the others. */
  sample(count: number, below: (limit: number) => number): string[] {
    const older = Array.from({ length: count }, () => this.#kept.pick(below)).filter(fileId => fileId !== undefined)
    return [...new Set([...this.#fresh, ...older])]
  }

  all(): string[] {
    return [...this.#files.keys()]
  }

  /** Checks that a file is there and right, or gone if it was deleted. Rejects if the connection broke. */
  check(client: FrameClient, fileId: string): Promise<void> {
    return this.#check(client, fileId, true)
  }

  async #check(client: FrameClient, fileId: string, isSettled: boolean): Promise<void> {
    const promised = this.#files.get(fileId)!
    const found = await fetchFile(client, fileId).then(digestOf, error => {
      if (client.broken) throw error
      return codeOf(error)
    })
    // Somebody else may be deleting it at this moment.
    if (!isSettled && promised.state !== 'kept') return
    if (found === 'not_found' && promised.state === 'kept') this.lost.add(fileId)
    else if (found === promised.digest && promised.state === 'deleted') this.wrong.set(fileId, 'is back again')
    else if (found !== promised.digest && found !== 'not_found') this.wrong.set(fileId, `reads wrong: ${found}`)
    if (!isSettled) return
    this.#fresh.delete(fileId)
    if (promised.state !== 'deleting') return
    // Whatever became of it must stay so.
    promised.state = found === 'not_found' ? 'deleted' : 'kept'
    if (promised.state === 'kept') this.#kept.add(fileId)
  }

  #content(sizeBytes: number): Buffer {
    const at = (this.#contents * 8191) % (POOL.length - sizeBytes)
    const content = Buffer.from(POOL.subarray(at, at + sizeBytes))
    if (sizeBytes >= 4) content.writeUInt32BE(this.#contents, 0)
    this.#contents++
    return content
  }
}

/** A set that one of can be picked from. */
class PickSet {
  readonly #items: string[] = []
  readonly #places = new Map<string, number>()

  add(item: string): void {
    this.#places.set(item, this.#items.length)
    this.#items.push(item)
  }

  delete(item: string): void {
    const place = this.#places.get(item)
    if (place === undefined) return
    const last = this.#items.pop()!
    this.#places.delete(item)
    if (last === item) return
    this.#items[place] = last
    this.#places.set(last, place)
  }

  pick(below: (limit: number) => number): string | undefined {
    return this.#items.length === 0 ? undefined : this.#items[below(this.#items.length)]
  }
}

function digestOf(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}

function codeOf(error: unknown): string {
  return error instanceof DfsError ? error.code : String(error)
}
