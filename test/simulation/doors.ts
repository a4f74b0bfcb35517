/**
 * Requests to a member of the workload's choice, once and no more: the SDK goes to the source of a file if it can, and asks
 * again what may have been done.
 */
import type { Client } from '../../client/client.ts'
import { type ClientParts, clientPool, type ReadOptions } from '../../client/servers.ts'
import {
  readFileInfo,
  readGroupAndName,
  writeChange,
  writeGroupAndName,
  writeSetMetadata,
  writeSlave,
} from '../../protocol/data-bodies.ts'
import { formatFileId, parseFileId } from '../../protocol/file-id.ts'
import { COMMANDS, REQUEST_STATUS } from '../../protocol/frame.ts'
import { metadataOf, readMetadata, textsOf, writeMetadata } from '../../protocol/metadata.ts'
import type { FrameClient } from '../../runtime/frame-client.ts'
import type { FramePool } from '../../runtime/frame-pool.ts'
import { fetchFile } from '../data-port.ts'

const PORT = 23000

/** Where the workload's operations go: the SDK, or one member. All reject with a DfsError. */
export type Door = Pick<
  Client,
  'append' | 'modify' | 'truncate' | 'regenerate' | 'setMetadata' | 'getMetadata' | 'delete' | 'info' | 'download'
> & {
  uploadSlave(masterId: string, bytes: Buffer, options: { prefix: string; extension: string }): Promise<unknown>
}

export class Doors {
  readonly client: Client
  readonly #pool: FramePool

  constructor(client: Client, parts: ClientParts) {
    this.client = client
    this.#pool = clientPool(parts)
  }

  /** The data port of a machine. */
  of(machine: string): Door {
    const connect = () => this.#pool.connection({ host: machine, port: PORT })
    const ask = async (command: number, parts: readonly Uint8Array[], status?: number) =>
      (await connect()).request(command, Buffer.concat(parts), status)
    return doorOf(ask, connect)
  }
}

/** What a read asks for. */
function statusOf({ consistency }: ReadOptions = {}): number {
  return consistency === 'strong' ? REQUEST_STATUS.strong : 0
}

function doorOf(
  ask: (command: number, parts: readonly Uint8Array[], status?: number) => Promise<Buffer>,
  connect: () => Promise<FrameClient>,
): Door {
  const named = (fileId: string) => {
    const { group, name } = parseFileId(fileId)
    return writeGroupAndName(group, name)
  }
  return {
    async append(fileId, bytes) {
      const content = bytes as Buffer
      await ask(COMMANDS.append, [writeChange(parseFileId(fileId).name, content.length), content])
    },
    async modify(fileId, offset, bytes) {
      const content = bytes as Buffer
      await ask(COMMANDS.modify, [writeChange(parseFileId(fileId).name, offset, content.length), content])
    },
    async truncate(fileId, sizeBytes) {
      await ask(COMMANDS.truncate, [writeChange(parseFileId(fileId).name, sizeBytes)])
    },
    async regenerate(fileId) {
      const answer = await ask(COMMANDS.regenerate, [Buffer.from(parseFileId(fileId).name, 'latin1')])
      return { fileId: formatFileId(readGroupAndName(answer)) }
    },
    async setMetadata(fileId, texts, { merge = false } = {}) {
      const metadata = writeMetadata(metadataOf(texts))
      await ask(COMMANDS.setMetadata, [writeSetMetadata({ ...parseFileId(fileId), metadata, merges: merge })])
    },
    async getMetadata(fileId, options) {
      return textsOf(readMetadata(await ask(COMMANDS.getMetadata, [named(fileId)], statusOf(options))))
    },
    async delete(fileId) {
      await ask(COMMANDS.deleteFile, [named(fileId)])
    },
    async info(fileId, options) {
      const { sizeBytes, crc32 } = readFileInfo(await ask(COMMANDS.queryFileInfo, [named(fileId)], statusOf(options)))
      return { fileId, sizeBytes, crc32, createTimeS: 0, source: undefined }
    },
    async uploadSlave(masterId, bytes, { prefix, extension }) {
      const head = writeSlave({ sizeBytes: bytes.length, prefix, extension }, parseFileId(masterId).name)
      await ask(COMMANDS.uploadSlave, [head, bytes])
    },
    async download(fileId, { offset = 0, length = 0, ...options } = {}) {
      return fetchFile(await connect(), fileId, { offset, length, status: statusOf(options) })
    },
  }
}
