/** `dfs info`. */
import type { FileDetails } from '../client/index.ts'
import { eachInOrder, formatBytes, printJson, printLine } from './output.ts'
import { type ReadFlags, retryNotes, type Session } from './session.ts'

export function info({ client, signal }: Session, fileIds: readonly string[], flags: ReadFlags): Promise<number> {
  const noteRetry = retryNotes(line => process.stderr.write(line))
  return eachInOrder(
    fileIds,
    { signal, nameOf: fileId => fileId },
    fileId => client.info(fileId, { signal, consistency: flags.consistency, onRetry: noteRetry(fileId) }),
    details => (flags.json ? printJson(details) : printLine(formatDetails(details))),
  )
}

/** The id, and below it what is known of the file. */
export function formatDetails({ fileId, sizeBytes, crc32, createTimeS, source }: FileDetails): string {
  const size = sizeBytes < 1000 ? `${sizeBytes} B` : `${formatBytes(sizeBytes)} (${sizeBytes} B)`
  return [
    fileId,
    `  size     ${size}`,
    `  crc32    ${crc32.toString(16).padStart(8, '0')}`,
    `  created  ${new Date(createTimeS * 1000).toISOString()}`,
    `  source   ${source === undefined ? 'unknown' : `storage server ${source}`}`,
  ].join('\n')
}
