/** Takes a slave file: it is named after its master, and kept by its master's source. */
import { readSlaveFields, SLAVE_FIXED_BYTES, writeGroupAndName, writeSlave } from '../../protocol/data-bodies.ts'
import { DfsError, toDfsError } from '../../protocol/errors.ts'
import { FILE_NAME_BYTES_MAX, slaveNameOf } from '../../protocol/file-id.ts'
import { COMMANDS } from '../../protocol/frame.ts'
import type { FrameReply, FrameRequest } from '../../runtime/frame-server.ts'
import { askAbout } from './absence.ts'
import { admitAck, answerChange } from './acknowledge.ts'
import { passOn } from './pass-on.ts'
import { admitFile, isForUs, type PortContext } from './port-context.ts'
import { receiveInto } from './upload-file.ts'

/** FastDFS's upload of a slave file, 21. */
export async function uploadSlave(context: PortContext, request: FrameRequest): Promise<FrameReply> {
  const { body, lengthBytes } = request
  const { store, orderers } = context
  if (lengthBytes < SLAVE_FIXED_BYTES) throw new DfsError('bad_request', 'the upload is cut short')
  const { masterBytes, ...fields } = readSlaveFields(await body.bytes(SLAVE_FIXED_BYTES))
  if (masterBytes <= 0 || masterBytes > FILE_NAME_BYTES_MAX || masterBytes + fields.sizeBytes !== body.bodyLeft)
    throw new DfsError('bad_request', 'the lengths of name and content are not those of the body')
  const master = (await body.bytes(masterBytes)).toString('latin1')
  const file = admitFile(context, master)
  context.access.admit(request.connection, 'change', master)
  const name = slaveNameOf(master, fields.prefix, fields.extension)
  if (!isForUs(context, file)) return passOn(context, request, file, writeSlave(fields, master))
  const refused = context.uploadsRefused()
  if (refused !== undefined) throw new DfsError('unavailable', refused)
  admitAck(context, undefined)
  orderers.expectOrdering(file.storageId)
  if (!(await store.has(master))) await askFor(context, request, master)
  // A source that has lost its past may have made one, which its peers still hold.
  await expectNone(context, request, name)
  store.counters.total_upload_bytes += fields.sizeBytes
  const incoming = await store.receive(file.storePathIndex, fields.sizeBytes, 'slave')
  try {
    await receiveInto(context, incoming, target => body.readBody(target))
  } catch (error) {
    await incoming.discard()
    throw error
  }
  request.bodyTaken()
  const work = () => store.createSlave(incoming, name)
  const stored = await orderers.change(file.storageId, work, () => incoming.discard())
  context.counts.uploads++
  context.counts.uploadBytes += fields.sizeBytes
  store.counters.success_upload_bytes += fields.sizeBytes
  return answerChange(context, request, stored.name, [writeGroupAndName(store.group, stored.name)])
}

/** Throws `already_exists` if there is a slave file of this name. */
export async function expectNone(context: PortContext, request: FrameRequest, name: string): Promise<void> {
  const { store, orderers } = context
  const isThere = (await store.has(name)) || (await isElsewhere(context, request, name))
  // What others have may be on its way out, to those who do not order its changes.
  orderers.expectOrdering(admitFile(context, name).storageId)
  if (isThere) throw new DfsError('already_exists')
}

/** Whether another member has a file that is not here. Rejects with `unavailable` if somebody may have it. */
function isElsewhere(context: PortContext, request: FrameRequest, name: string): Promise<boolean> {
  return askFor(context, request, name).then(
    () => true,
    error => {
      if (toDfsError(error).code !== 'not_found') throw error
      return false
    },
  )
}

/** Resolves if another member has a file, though its source does not. */
export async function askFor(context: PortContext, request: FrameRequest, name: string): Promise<void> {
  const body = writeGroupAndName(context.store.group, name)
  await askAbout(context, request, { name, file: admitFile(context, name) }, client =>
    client.request(COMMANDS.queryFileInfo, body),
  )
}
