/** The way through files of their own, directory after directory. Nothing is kept of it but one directory's names. */
import { decodeFileName } from '../protocol/file-id.ts'
import type { Store } from './store.ts'

/** Behind a name in a directory. */
export interface PlainPlace {
  readonly storePathIndex: number
  readonly directoryIndex: number
  /** Empty at the beginning of a directory. */
  readonly after: string
}

export class PlainWalk {
  readonly #store: Pick<Store, 'storePaths' | 'namesFrom'>
  /** What is in the directory that was listed last. */
  #listed: Listed | undefined

  constructor(store: Pick<Store, 'storePaths' | 'namesFrom'>) {
    this.#store = store
  }

  /**
   * Goes to the next name of a directory that `isWanted`, or to the beginning of another; undefined behind the last. Rejects
   * if the disk of a store path is not there.
   */
  async next(
    { storePathIndex, directoryIndex, after }: PlainPlace,
    isWanted: (name: string) => boolean,
  ): Promise<{ place: PlainPlace; name: string | undefined } | undefined> {
    if (storePathIndex >= this.#store.storePaths.length) return undefined
    const listed = this.#listed
    const isListed = listed?.storePathIndex === storePathIndex && listed.directoryIndex === directoryIndex
    if (isListed && after !== '') return nextIn(listed, after, isWanted)
    const found = await this.#store.namesFrom(storePathIndex, directoryIndex)
    this.#listed = found === undefined ? undefined : { storePathIndex, ...found }
    if (this.#listed === undefined) {
      return { place: { storePathIndex: storePathIndex + 1, directoryIndex: 0, after: '' }, name: undefined }
    }
    // The directory that was being read is gone: this is one behind it.
    return nextIn(this.#listed, this.#listed.directoryIndex === directoryIndex ? after : '', isWanted)
  }
}

/** What is in a directory. */
interface Listed {
  readonly storePathIndex: number
  readonly directoryIndex: number
  readonly names: readonly string[]
}

function nextIn({ storePathIndex, directoryIndex, names }: Listed, after: string, isWanted: (name: string) => boolean) {
  const name = names.find(name => name > after && isWanted(name))
  const place =
    name === undefined
      ? { storePathIndex, directoryIndex: directoryIndex + 1, after: '' }
      : { storePathIndex, directoryIndex, after: name }
  return { place, name }
}

/** What a name says, if it is that of a file: people may have put anything there, and files have companions. */
export function fileOf(name: string) {
  try {
    return decodeFileName(name)
  } catch {
    return undefined
  }
}
