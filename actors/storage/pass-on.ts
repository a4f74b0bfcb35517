/** Passes a request with a body of any length on to the source of a file, piece by piece. */
import type { FileNameParts } from '../../protocol/file-id.ts'
import { receiveWhole } from '../../runtime/frame-client.ts'
import type { FrameReply, FrameRequest } from '../../runtime/frame-server.ts'
import { PIECE_BYTES } from '../../store/block-pool.ts'
import { askSource, type PortContext } from './port-context.ts'

/** `head` is what was read of the body already. */
export async function passOn(
  context: PortContext,
  request: FrameRequest,
  file: FileNameParts,
  head: Buffer,
): Promise<FrameReply> {
  const { body, command } = request
  const bytes = head.length + body.bodyLeft
  const buffer = await context.blocks.acquirePiece(PIECE_BYTES)
  const sendAll = async (pass: (parts: readonly Uint8Array[]) => Promise<void>) => {
    await pass([head])
    while (body.bodyLeft > 0) await pass([buffer.subarray(0, await body.readBody(buffer))])
  }
  let sent: Promise<void> | undefined
  const send = (pass: (parts: readonly Uint8Array[]) => Promise<void>) => {
    sent = sendAll(pass)
    return sent
  }
  try {
    const answer = await askSource(context, request, file, client =>
      client.exchange(command, bytes, send, receiveWhole, request.status),
    )
    return { status: 0, parts: [answer] }
  } finally {
    // A source that refuses answers before it has all; until then the body is read, and into this buffer.
    await sent?.catch(ignore)
    context.blocks.release(buffer)
  }
}

function ignore(): void {}
