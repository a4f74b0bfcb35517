/** `dfs upload`. */
import { type Dirent, promises as fs } from 'node:fs'
import { join } from 'node:path'
import { type AckLevel, LocalError, type UploadInput } from '../client/index.ts'
import { eachInOrder, printJson, printLine, UsageError } from './output.ts'
import { commandProgress } from './progress.ts'
import { type ClusterFlags, retryNotes, type Session } from './session.ts'

export interface UploadFlags extends ClusterFlags {
  readonly recursive?: boolean
  readonly group?: string
  readonly key?: string
  readonly ext?: string
  readonly ack?: AckLevel
  readonly appender?: boolean
  readonly quiet?: boolean
}

const STDIN = '-'

/** A file to upload, or why it cannot be. The size is undefined for standard input. */
export type FoundFile = { readonly path: string } & (
  | { readonly sizeBytes: number | undefined }
  | { readonly error: Error }
)

export async function upload(
  { client, signal }: Session,
  paths: readonly string[],
  flags: UploadFlags,
): Promise<number> {
  const stdins = paths.filter(path => path === STDIN).length
  if (stdins > 1) throw new UsageError('standard input can be read only once')
  // A producer that says nothing must not keep us after Ctrl-C.
  if (stdins === 1) signal.addEventListener('abort', () => process.stdin.destroy())
  const files = await findFiles(paths, flags.recursive === true)
  const progress = commandProgress(flags.quiet, totalOf(files))
  const noteRetry = retryNotes(line => progress.aside(() => flags.quiet || process.stderr.write(line)))
  try {
    return await eachInOrder(
      files,
      { signal, nameOf: ({ path }) => path, aside: write => progress.aside(write) },
      async file => {
        if ('error' in file) throw file.error
        const input: UploadInput = file.path === STDIN ? process.stdin : file.path
        const { group, key, ext, ack } = flags
        const extension = ext?.replace(/^\./, '')
        const options = {
          group,
          key,
          extension,
          signal,
          onProgress: progress.transfer(),
          onRetry: noteRetry(file.path),
        }
        const uploaded = flags.appender
          ? await client.uploadAppender(input, options)
          : await client.upload(input, { ...options, ack })
        return { path: file.path, ...uploaded }
      },
      uploaded => (flags.json ? printJson(uploaded) : printLine(uploaded.fileId)),
    )
  } finally {
    progress.stop()
  }
}

/** Finds what to upload, in the order given; what is in a directory comes sorted by name. */
export async function findFiles(paths: readonly string[], recursive: boolean): Promise<FoundFile[]> {
  const found: FoundFile[] = []
  for (const path of paths) {
    if (path === STDIN) found.push({ path, sizeBytes: undefined })
    else for await (const file of findBelow(path, recursive)) found.push(file)
  }
  return found
}

async function* findBelow(path: string, recursive: boolean): AsyncGenerator<FoundFile> {
  try {
    const entry = await fs.stat(path)
    if (!entry.isDirectory()) yield { path, sizeBytes: entry.size }
    else if (recursive) yield* walk(path)
    else yield { path, error: new LocalError(`${path} is a directory; -r uploads what is in it`, { cause: undefined }) }
  } catch (cause) {
    yield { path, error: new LocalError(`cannot read ${path}`, { cause }) }
  }
}

async function* walk(directory: string): AsyncGenerator<FoundFile> {
  let entries: Dirent[]
  try {
    entries = await fs.readdir(directory, { withFileTypes: true })
  } catch (cause) {
    yield { path: directory, error: new LocalError(`cannot read ${directory}`, { cause }) }
    return
  }
  for (const entry of entries.sort(byName)) {
    const path = join(directory, entry.name)
    if (entry.isDirectory()) yield* walk(path)
    else if (entry.isFile()) yield* findBelow(path, false)
  }
}

function byName(a: Dirent, b: Dirent): number {
  return a.name < b.name ? -1 : 1
}

function totalOf(found: readonly FoundFile[]): number | undefined {
  let sum = 0
  for (const file of found) {
    if ('error' in file) continue
    if (file.sizeBytes === undefined) return undefined
    sum += file.sizeBytes
  }
  return sum
}
