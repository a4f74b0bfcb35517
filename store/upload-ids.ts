/**
 * The upload ids of the last uploads to this source, so that an upload that is sent again, because its answer was lost,
 * is the same upload. Filled from the end of the binlog at start. Only the source knows them: a peer cannot say whether
 * the source has taken an upload back since.
 */
import { Oldest } from './oldest.ts'
import type { Stored } from './store.ts'

/** Some minutes of the busiest server, 3 MiB of memory; a client gives up long before. */
export const UPLOAD_IDS_MAX = 16_384

/** What an upload id has become: a file, or one that will be acknowledged soon. */
export type Uploaded = Promise<Stored>

export class UploadIds {
  /** Oldest first. */
  readonly #uploads = new Map<string, Uploaded>()
  readonly #oldest = new Oldest(this.#uploads)
  readonly #isThere: (stored: Stored) => Promise<boolean>

  /** `isThere` says whether a file has not gone since. */
  constructor(isThere: (stored: Stored) => Promise<boolean>) {
    this.#isThere = isThere
  }

  /** Makes an upload, unless its id has a file already, or will have. */
  once(uploadId: string | undefined, make: () => Uploaded): Uploaded {
    if (uploadId === undefined) return make()
    // Nothing comes between looking and taking note: those who send it at the same time wait for each other.
    const stored = this.#known(this.#uploads.get(uploadId)).then(known => known ?? make())
    this.set(uploadId, stored)
    return stored
  }

  /** The upload with this id; a promise of its file that rejects if it failed. */
  get(uploadId: string): Uploaded | undefined {
    return this.#uploads.get(uploadId)
  }

  /** The file of an upload, if it is there. */
  async #known(upload: Uploaded | undefined): Promise<Stored | undefined> {
    const stored = await upload?.catch(() => undefined)
    // A name whose file is gone was taken back, or deleted: whoever sends the bytes again wants them kept.
    return stored !== undefined && (await this.#isThere(stored)) ? stored : undefined
  }

  /** Remembers an upload that is under way or done; one that fails is forgotten, so that it can be tried again. */
  set(uploadId: string, stored: Uploaded): void {
    this.#uploads.set(uploadId, stored)
    stored.catch(() => {
      if (this.#uploads.get(uploadId) === stored) this.#uploads.delete(uploadId)
    })
    if (this.#uploads.size > UPLOAD_IDS_MAX) this.#uploads.delete(this.#oldest.next()!)
  }
}
