/** Metadata of files: set at their source, which orders the changes of its files, and read there if it can be reached. */
import {
  readSetMetadata,
  SET_METADATA_BYTES_MAX,
  SET_METADATA_FIXED_BYTES,
  writeGroupAndName,
} from '../../protocol/data-bodies.ts'
import { DfsError, toDfsError } from '../../protocol/errors.ts'
import { type FileNameParts, metadataNameOf } from '../../protocol/file-id.ts'
import { COMMANDS } from '../../protocol/frame.ts'
import { readMetadata, writeMetadata } from '../../protocol/metadata.ts'
import type { FrameClient } from '../../runtime/frame-client.ts'
import type { FrameReply, FrameRequest } from '../../runtime/frame-server.ts'
import type { ChangeMetadata } from '../../store/store.ts'
import { askAbout, askOthers } from './absence.ts'
import { answerChange } from './acknowledge.ts'
import { readName } from './delete-file.ts'
import { admitName, admitRead, askSource, isAlone, isForUs, type PortContext } from './port-context.ts'

/** FastDFS's set metadata, 13: in place of what was set before, or merged into it. */
export async function setMetadata(context: PortContext, request: FrameRequest): Promise<FrameReply> {
  const { lengthBytes } = request
  if (lengthBytes <= SET_METADATA_FIXED_BYTES || lengthBytes > SET_METADATA_BYTES_MAX)
    throw new DfsError('bad_request', 'this command names a file and gives its metadata')
  const body = await request.body.copy(lengthBytes)
  request.bodyTaken()
  const { group, name, metadata, merges } = readSetMetadata(body)
  const file = admitName(context, { group, name })
  context.access.admit(request.connection, 'change', name)
  const changes = readMetadata(metadata)
  if (!isForUs(context, file)) {
    const ask = (client: FrameClient) => client.request(COMMANDS.setMetadata, body, request.status)
    return { status: 0, parts: [await askSource(context, request, file, ask)] }
  }
  const change: ChangeMetadata = async before => {
    const old = merges ? await before() : undefined
    return writeMetadata(old === undefined ? changes : new Map([...readMetadata(old), ...changes]))
  }
  const { orderers, store } = context
  const isChanged = await orderers.change(file.storageId, () => store.changeMetadata(name, change))
  if (isChanged) return answerChange(context, request)
  const ask = (client: FrameClient) => client.request(COMMANDS.queryFileInfo, writeGroupAndName(group, name))
  await askAbout(context, request, { name, file }, ask)
  throw new DfsError('unavailable', 'this source has lost the file, which its peers still hold')
}

/** FastDFS's get metadata, 15. To FastDFS's clients a file without any is one that is not there. */
export async function getMetadata(context: PortContext, request: FrameRequest): Promise<FrameReply> {
  const id = await readName(request)
  request.bodyTaken()
  const file = admitName(context, id)
  context.access.admit(request.connection, 'read', id.name)
  const metadata = await metadataOf(context, request, id, file)
  if (metadata.length === 0 && request.connection.role === 'anonymous') throw new DfsError('not_found')
  return { status: 0, parts: [metadata] }
}

async function metadataOf(
  context: PortContext,
  request: FrameRequest,
  id: { group: string; name: string },
  file: FileNameParts,
): Promise<Buffer> {
  const { store } = context
  const ask = (client: FrameClient) => client.request(COMMANDS.getMetadata, writeGroupAndName(id.group, id.name))
  const isAsked = isAlone(request)
  admitRead(context, request, id.name)
  if (!isAsked && !isForUs(context, file)) {
    try {
      return await askSource(context, request, file, ask)
    } catch (error) {
      // A source that cannot tell leaves what is here as the best there is; one that knows is believed.
      if (toDfsError(error).code === 'not_found') throw error
    }
  }
  if (!(await store.has(id.name))) return askAbout(context, request, { name: id.name, file }, ask)
  try {
    return (await store.readMetadata(file)) ?? Buffer.alloc(0)
  } catch (error) {
    if (isAsked || toDfsError(error).code !== 'corrupt') throw error
    context.onCorruption(metadataNameOf(id.name))
    return askOthers(context, file, ask, { isBad: true })
  }
}
