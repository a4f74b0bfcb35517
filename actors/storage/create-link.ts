/**
 * Makes a link: a new id for what another file holds. Here it is a copy, a plain file or a slave file like any other: it is
 * replicated, scrubbed and read as those are, and does not end with the file that it was made of.
 */
import { LINK_BYTES_MAX, LINK_FIXED_BYTES, readLink, writeGroupAndName } from '../../protocol/data-bodies.ts'
import { DfsError } from '../../protocol/errors.ts'
import { mayChange, slaveNameOf } from '../../protocol/file-id.ts'
import { COMMANDS } from '../../protocol/frame.ts'
import type { FrameReply, FrameRequest } from '../../runtime/frame-server.ts'
import { BLOCK_BYTES } from '../../store/block-pool.ts'
import { askAbout } from './absence.ts'
import { answerChange } from './acknowledge.ts'
import { passOn } from './pass-on.ts'
import { admitFile, admitGroup, isForUs, type PortContext } from './port-context.ts'
import { admitUpload } from './upload-file.ts'
import { askFor, expectNone } from './upload-slave.ts'

/** FastDFS's create link, 20: done by the source of the file, or of the master that the link is named after. */
export async function createLink(context: PortContext, request: FrameRequest): Promise<FrameReply> {
  const { store, blocks, orderers } = context
  const { body, lengthBytes } = request
  if (lengthBytes < LINK_FIXED_BYTES || lengthBytes > LINK_BYTES_MAX)
    throw new DfsError('bad_request', 'a link names a file')
  const head = await body.copy(lengthBytes)
  const { group, master, name, prefix, extension } = readLink(head)
  admitGroup(context, { group })
  const file = admitFile(context, name)
  if (master === '' && prefix !== '') throw new DfsError('bad_request', 'a prefix goes with a master file')
  const slaveName = master === '' ? undefined : slaveNameOf(master, prefix, extension)
  const orderer = master === '' ? file : admitFile(context, master)
  for (const named of [name, master]) if (named !== '') context.access.admit(request.connection, 'change', named)
  if (!isForUs(context, orderer)) return passOn(context, request, orderer, head)
  request.bodyTaken()
  // What such a file is now, only its own source knows.
  const changes = mayChange(file)
  if (changes && !isForUs(context, file))
    throw new DfsError('not_supported', 'master and file have different sources, and the file may change')
  admitUpload(context, { extension }, undefined)
  if (slaveName !== undefined) {
    if (!(await store.has(master))) await askFor(context, request, master)
    await expectNone(context, request, slaveName)
  }
  const buffer = await blocks.acquire(file.slot?.slotBytes ?? BLOCK_BYTES)
  const copy = () => store.copy(name, { slaveName, extension }, buffer)
  const copied = slaveName === undefined && !changes ? copy() : orderers.change(orderer.storageId, copy)
  const stored = await copied.finally(() => blocks.release(buffer))
  if (stored !== undefined) {
    return answerChange(context, request, stored.name, [writeGroupAndName(group, stored.name)])
  }
  await askAbout(context, request, { name, file }, client =>
    client.request(COMMANDS.queryFileInfo, writeGroupAndName(group, name)),
  )
  throw new DfsError('unavailable', 'the file is not here yet, or has been lost here; its peers hold it')
}
