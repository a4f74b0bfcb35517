/** Deletes a file: at its source, which orders the changes of its files, or by asking the source. */
import { NAME_BODY_BYTES_MAX, readGroupAndName, writeGroupAndName } from '../../protocol/data-bodies.ts'
import { DfsError } from '../../protocol/errors.ts'
import { COMMANDS } from '../../protocol/frame.ts'
import type { FrameClient } from '../../runtime/frame-client.ts'
import type { FrameReply, FrameRequest } from '../../runtime/frame-server.ts'
import { askAbout } from './absence.ts'
import { answerChange } from './acknowledge.ts'
import { admitName, askSource, isForUs, type PortContext } from './port-context.ts'

/** FastDFS's delete, 12. */
export async function deleteFile(context: PortContext, request: FrameRequest): Promise<FrameReply> {
  const id = await readName(request)
  request.bodyTaken()
  const parts = admitName(context, id)
  context.access.admit(request.connection, 'delete', id.name)
  if (isForUs(context, parts)) {
    if (!(await context.orderers.delete(parts, () => context.store.delete(id.name)))) {
      const body = writeGroupAndName(id.group, id.name)
      await askAbout(context, request, { name: id.name, file: parts }, client =>
        client.request(COMMANDS.queryFileInfo, body),
      )
      throw new DfsError('unavailable', 'this source has lost the file, which its peers still hold')
    }
    context.counts.deletes++
    return answerChange(context, request)
  }
  const body = writeGroupAndName(id.group, id.name)
  const ask = (client: FrameClient) => client.request(COMMANDS.deleteFile, body, request.status)
  return { status: 0, parts: [await askSource(context, request, parts, ask)] }
}

/** Reads a body that is group and name. Throws `bad_request`. */
export async function readName(request: FrameRequest): Promise<{ group: string; name: string }> {
  if (request.lengthBytes <= 16 || request.lengthBytes > NAME_BODY_BYTES_MAX) {
    throw new DfsError('bad_request', 'this command names a group and a file')
  }
  return readGroupAndName(await request.body.bytes(request.lengthBytes))
}
