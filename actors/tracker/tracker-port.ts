/** The tracker's FastDFS port: the same questions as on the bus, in the other encoding. */

import { NAME_BODY_BYTES_MAX, readGroupAndName, writeServer } from '../../protocol/data-bodies.ts'
import { DfsError } from '../../protocol/errors.ts'
import { formatFileId, GROUP_NAME_BYTES } from '../../protocol/file-id.ts'
import { COMMANDS, readString } from '../../protocol/frame.ts'
import type { ReplyOf } from '../../protocol/message.ts'
import type { queryFetch, queryStore } from '../../protocol/tracker-messages.ts'
import type { Actor } from '../../runtime/actor.ts'
import type { FrameHandler, FrameReply, FrameRequest } from '../../runtime/frame-server.ts'
import type { TrackerEffect, TrackerMessage, TrackerState } from './tracker.ts'

export type TrackerActor = Actor<TrackerState, TrackerMessage, TrackerEffect>

/** The longest body a tracker takes: any query of ours; FastDFS's own are not longer. */
export const TRACKER_BODY_BYTES_MAX = 4096

const OK: FrameReply = { status: 0 }

/** Answers FastDFS clients by asking the tracker actor. */
export function trackerPort(tracker: TrackerActor): FrameHandler {
  return request => {
    const { command } = request
    switch (command) {
      case COMMANDS.activeTest:
        return OK
      case COMMANDS.quit:
        return undefined
      case COMMANDS.queryStoreWithoutGroup:
        expectLength(request, 0, 0)
        return store(tracker, {})
      case COMMANDS.queryStoreWithGroup:
        expectLength(request, GROUP_NAME_BYTES, GROUP_NAME_BYTES)
        return withBody(request, body => store(tracker, { group: readString(body, 0, GROUP_NAME_BYTES) }))
      case COMMANDS.queryFetch:
      case COMMANDS.queryUpdate:
        expectLength(request, GROUP_NAME_BYTES + 1, NAME_BODY_BYTES_MAX)
        return withBody(request, body => fetch(tracker, command, formatFileId(readGroupAndName(body))))
      default:
        throw new DfsError('bad_request', `command ${command} is not known here`)
    }
  }
}

/** Answers with the whole body of a request: at once if it is here. */
function withBody(request: FrameRequest, answer: (body: Buffer) => Promise<FrameReply>): Promise<FrameReply> {
  const { body, lengthBytes } = request
  const here = body.bytesHere(lengthBytes)
  return here === undefined ? body.bytes(lengthBytes).then(answer) : answer(here)
}

async function store(tracker: TrackerActor, request: { group?: string }): Promise<FrameReply> {
  const placed = await tracker.ask<ReplyOf<typeof queryStore>>(replyTo => ({ type: 'queryStore', request, replyTo }))
  const { group, storePathIndex } = placed
  return { status: 0, parts: [writeServer({ ...placed.servers[0]!, group, storePathIndex })] }
}

async function fetch(tracker: TrackerActor, command: number, fileId: string): Promise<FrameReply> {
  const type = command === COMMANDS.queryFetch ? 'queryFetch' : 'queryUpdate'
  const found = await tracker.ask<ReplyOf<typeof queryFetch>>(replyTo => ({ type, fileId, replyTo }))
  return { status: 0, parts: [writeServer({ ...found.servers[0]!, group: found.group })] }
}

function expectLength(request: FrameRequest, leastBytes: number, mostBytes: number): void {
  if (request.lengthBytes < leastBytes || request.lengthBytes > mostBytes) {
    throw new DfsError('bad_request', `command ${request.command} has ${leastBytes} to ${mostBytes} bytes`)
  }
}
