/** Says what is known of a file that is there. */
import { writeFileInfo, writeGroupAndName } from '../../protocol/data-bodies.ts'
import { DfsError } from '../../protocol/errors.ts'
import { COMMANDS } from '../../protocol/frame.ts'
import type { FrameReply, FrameRequest } from '../../runtime/frame-server.ts'
import { askAbout } from './absence.ts'
import { readName } from './delete-file.ts'
import { admitName, admitRead, type PortContext } from './port-context.ts'

/** A flag in the status of the request: the CRC32 is not wanted where it has to be looked for. */
const WITHOUT_CRC32 = 1

/**
 * FastDFS's file info, 22. But of slave and appender files, everything but "it is there" stands in the name. Its other flag, 2,
 * asks for silence in the log, which says nothing of files that are missing anyway.
 */
export async function queryFileInfo(context: PortContext, request: FrameRequest): Promise<FrameReply> {
  const id = await readName(request)
  request.bodyTaken()
  const parts = admitName(context, id)
  context.access.admit(request.connection, 'read', id.name)
  admitRead(context, request, id.name)
  context.counts.infos++
  const { store } = context
  if (!(await store.has(id.name))) {
    const body = writeGroupAndName(id.group, id.name)
    const answer = await askAbout(context, request, { name: id.name, file: parts }, client =>
      client.request(COMMANDS.queryFileInfo, body, request.status),
    )
    return { status: 0, parts: [answer] }
  }
  const source = parts.storageId === undefined ? undefined : context.peers().get(parts.storageId)
  const saysAll = parts.sizeBytes !== undefined
  const { sizeBytes, crc32 } = saysAll ? parts : await describe(context, id.name)
  const info = {
    sizeBytes: sizeBytes!,
    mtimeS: parts.createTimeS,
    crc32: saysAll || (request.status & WITHOUT_CRC32) === 0 ? crc32 : 0,
    sourceIp: source?.ip ?? parts.address ?? context.ownIp(),
  }
  return { status: 0, parts: [writeFileInfo(info)] }
}

async function describe({ store }: PortContext, name: string): Promise<{ sizeBytes: number; crc32: number }> {
  const file = await store.open(name)
  if (file === undefined) throw new DfsError('not_found')
  await file.close()
  return file
}
