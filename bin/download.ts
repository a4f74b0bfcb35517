/** `dfs download`. */
import { promises as fs } from 'node:fs'
import { join } from 'node:path'
import { type Consistency, type DownloadOptions, LocalError } from '../client/index.ts'
import { decodeFileName, parseFileId } from '../protocol/file-id.ts'
import { DONE, OutputClosed, printJson, printLine, UsageError } from './output.ts'
import { commandProgress } from './progress.ts'
import { type ClusterFlags, retryNotes, type Session } from './session.ts'

export interface DownloadFlags extends ClusterFlags {
  readonly output?: string
  readonly offset?: number
  readonly length?: number
  readonly continue?: boolean
  readonly quiet?: boolean
  readonly consistency?: Consistency
}

const STDOUT = '-'

export async function download(session: Session, fileId: string, flags: DownloadFlags): Promise<number> {
  const { client, signal } = session
  const { offset, length, output } = flags
  const isRange = offset !== undefined || length !== undefined
  const toStdout = output === STDOUT
  if (flags.continue && (isRange || toStdout)) throw new UsageError('--continue is for a whole file into a file')
  if (flags.json && toStdout) throw new UsageError('--json and the file cannot both go to standard output')
  const { path, direct } = toStdout ? { path: STDOUT, direct: true } : await targetOf(fileId, output)
  const progress = commandProgress(flags.quiet)
  const note = (line: string) => progress.aside(() => flags.quiet || process.stderr.write(line))
  const options: DownloadOptions = {
    offset,
    length,
    signal,
    consistency: flags.consistency,
    onProgress: progress.transfer(),
    onRetry: retryNotes(note)(fileId),
  }
  let bytes: number
  try {
    if (toStdout) ({ bytes } = await client.downloadToStream(fileId, process.stdout, options))
    else if (isRange || direct) bytes = await writeDirectly(session, fileId, path, options)
    else ({ bytes } = await client.downloadToFile(fileId, path, { ...options, continue: flags.continue === true }))
  } catch (error) {
    // Whoever reads our output has seen enough.
    if (toStdout && isBrokenPipe(error)) return DONE
    const partial = `${path}.part`
    if (!direct && (await exists(partial))) note(`dfs: what has come is in ${partial}; --continue goes on from there\n`)
    throw error
  } finally {
    progress.stop()
  }
  if (flags.json) printJson({ fileId, path, sizeBytes: bytes })
  else if (!toStdout) printLine(path)
  return DONE
}

/** Where the file goes. What exists and is no regular file is written as it is: a rename would replace a device. */
async function targetOf(fileId: string, output: string | undefined): Promise<{ path: string; direct: boolean }> {
  const { baseName } = decodeFileName(parseFileId(fileId).name)
  if (output === undefined) return { path: baseName, direct: false }
  const entry = await fs.stat(output).catch(() => undefined)
  if (entry?.isDirectory()) return { path: join(output, baseName), direct: false }
  return { path: output, direct: entry !== undefined && !entry.isFile() }
}

/** Writes pieces as they come. The file is opened with the first one: a refused download leaves no empty file. */
async function writeDirectly(
  { client }: Session,
  fileId: string,
  path: string,
  options: DownloadOptions,
): Promise<number> {
  const local = <T>(work: Promise<T>) =>
    work.catch((cause: unknown) => Promise.reject(new LocalError(`cannot write ${path}`, { cause })))
  let file: fs.FileHandle | undefined
  try {
    const { bytes } = await client.downloadTo(fileId, options, async piece => {
      file ??= await local(fs.open(path, 'w'))
      await local(file.writeFile(piece))
    })
    file ??= await local(fs.open(path, 'w'))
    return bytes
  } finally {
    await file?.close()
  }
}

function exists(path: string): Promise<boolean> {
  return fs.stat(path).then(
    () => true,
    () => false,
  )
}

function isBrokenPipe(error: unknown): boolean {
  if (error instanceof OutputClosed) return true
  return error instanceof LocalError && (error.cause as NodeJS.ErrnoException | undefined)?.code === 'EPIPE'
}
