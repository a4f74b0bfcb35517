/**
 * What clients were promised, kept outside the cluster: every acknowledged upload and every delete, and which files the
 * faults have put beyond what was promised.
 */
import { crc32 } from '@node-rs/crc32'
import { decodeFileName, parseFileId } from '../../protocol/file-id.ts'
import { type FileState, History } from './history.ts'

/** An acknowledged file. */
export interface LedgerFile {
  readonly fileId: string
  readonly name: string
  readonly group: string
  readonly source: number
  readonly content: Content | NamedContent
  /** `present` until somebody asks for its deletion, `deleted` once that was acknowledged. */
  state: 'present' | 'deleting' | 'deleted'
  /** How many deletions have been asked for. */
  deletions: number
}

/** Bytes that can be made again from a number: every position has its own, so that a block in the wrong place is wrong. */
export interface Content {
  readonly number: number
  readonly sizeBytes: number
}

/** Bytes of which only the name is known: those of an appender file when it became a plain one. */
export interface NamedContent {
  readonly sizeBytes: number
  readonly crc32: number
}

export class Ledger {
  /** In the order of the acknowledgements. */
  readonly files: LedgerFile[] = []
  readonly #byName = new Map<string, LedgerFile>()
  readonly #excused = new Set<string>()
  readonly #suspects = new Map<number, number>()
  /** Of names that may change. */
  readonly histories: History[] = []
  readonly #historyOf = new Map<string, History>()
  /** Copies of them that a fault may have spoilt, as machine and name. */
  readonly #spoilt = new Set<string>()
  readonly #suspectCopies = new Map<string, number>()
  /** A machine that will be gone in a moment, and nobody else knows what it still does to the files of these sources. */
  lonely: { readonly machine: string; readonly sources: readonly number[] } | undefined
  #operations = 0
  uploads = 0
  changes = 0
  downloads = 0
  deletes = 0
  failures = 0

  /** An upload was acknowledged. `begunMs` is when it was sent first. */
  acknowledged(fileId: string, content: LedgerFile['content'], begunMs: number): LedgerFile {
    const { group, name } = parseFileId(fileId)
    const source = decodeFileName(name).storageId!
    const file: LedgerFile = { fileId, name, group, source, content, state: 'present', deletions: 0 }
    if (this.#byName.has(name)) throw new Error(`${fileId} was given twice`)
    this.files.push(file)
    this.#byName.set(name, file)
    if (begunMs <= (this.#suspects.get(source) ?? -1)) this.excuse(name)
    this.uploads++
    return file
  }

  file(name: string): LedgerFile | undefined {
    return this.#byName.get(name)
  }

  /** Begins the history of a name that may change, with what there was, and what is there. */
  follow(
    fileId: string,
    kind: History['kind'],
    first: readonly FileState[],
    { begunMs, now }: { begunMs: number; now: () => number },
  ): History {
    const { group, name } = parseFileId(fileId)
    for (const [machine, untilMs] of this.#suspectCopies) if (begunMs <= untilMs) this.spoil(machine, name)
    const source = decodeFileName(name).storageId!
    const history = new History({ fileId, group, name, source, kind }, first, now)
    this.histories.push(history)
    this.#historyOf.set(name, history)
    return history
  }

  /** Whether somebody was told of a file when it was made. */
  isKnown(name: string): boolean {
    const history = this.#historyOf.get(name)
    return this.#byName.has(name) || (history !== undefined && history.kind !== 'slave')
  }

  history(name: string): History | undefined {
    return this.#historyOf.get(name)
  }

  /** The number that the next operation stamps its bytes with. */
  nextOperation(): number {
    return ++this.#operations
  }

  /** A change may have been made, or was: by a source whose disk was not to be trusted while it was asked for? */
  noteChange({ source, name }: History, begunMs: number): void {
    if (begunMs <= (this.#suspects.get(source) ?? -1)) this.excuse(name)
  }

  /** A fault has spoilt what a machine has of a name that may change: nobody mends it, and it may not be served. */
  spoil(machine: string, name: string): void {
    this.#spoilt.add(`${machine} ${name}`)
  }

  /** A disk that silently writes wrong may spoil whatever a machine is given of such names until a moment. */
  suspectCopies(machine: string, untilMs: number): void {
    this.#suspectCopies.set(machine, Math.max(untilMs, this.#suspectCopies.get(machine) ?? 0))
    for (const { name } of this.histories) this.spoil(machine, name)
  }

  isSpoilt(machine: string, name: string): boolean {
    return this.#spoilt.has(`${machine} ${name}`)
  }

  /** A fault took the last good copy of a file, or the only record of it: it may be gone, or stay. Never wrong, though. */
  excuse(name: string): void {
    this.#excused.add(name)
  }

  /** A disk that silently writes wrong may have spoilt whatever is uploaded to this server until a moment. */
  suspect(storageId: number, untilMs: number): void {
    this.#suspects.set(storageId, Math.max(untilMs, this.#suspects.get(storageId) ?? 0))
  }

  isExcused(name: string): boolean {
    return this.#excused.has(name)
  }

  get excusedCount(): number {
    return this.#excused.size
  }
}

/** Whether bytes are those of a content from an offset on; of what only the name is known the whole is compared. */
export function holds(content: LedgerFile['content'], bytes: Buffer, offset: number, until: number): boolean {
  if ('number' in content) return bytes.equals(bytesOf(content).subarray(offset, until))
  const isWhole = offset === 0 && until >= content.sizeBytes
  return !isWhole || (bytes.length === content.sizeBytes && crc32(bytes) === content.crc32)
}

/** Makes the bytes of a content. */
export function bytesOf({ number, sizeBytes }: Content): Buffer {
  const bytes = Buffer.allocUnsafe(sizeBytes)
  const words = new Uint32Array(Math.ceil(sizeBytes / 4))
  let word = (number * 0x9e3779b1 + 0x85ebca6b) >>> 0
  for (let i = 0; i < words.length; i++) {
    word ^= word << 13
    word ^= word >>> 17
    word ^= word << 5
    words[i] = word
  }
  Buffer.from(words.buffer).copy(bytes, 0, 0, sizeBytes)
  return bytes
}

const sums = new Map<string, number>()

/** The CRC32 of a content. */
export function sumOf(content: Content): number {
  const key = `${content.number} ${content.sizeBytes}`
  const known = sums.get(key)
  if (known !== undefined) return known
  const sum = crc32(bytesOf(content))
  if (sums.size > 10_000) sums.clear()
  sums.set(key, sum)
  return sum
}
