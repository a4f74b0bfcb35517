/** Lists what this member has, a page at a time and for one caller at a time, so that uploads hardly notice. */
import { DfsError } from '../../protocol/errors.ts'
import { LIST_BYTES_MAX, readList, writeListPage } from '../../protocol/list-bodies.ts'
import type { FrameReply, FrameRequest } from '../../runtime/frame-server.ts'
import { admitGroup, type PortContext } from './port-context.ts'

/** Callers that wait for their page: some consoles and scripts; a page takes milliseconds. */
const WAITING_MAX = 16

/** Whose turn it is. */
export class Listers {
  #last: Promise<unknown> = Promise.resolve()
  #waiting = 0

  /** Does work when all that came before is done. Rejects with `busy`. */
  async turn<T>(work: () => Promise<T>): Promise<T> {
    if (this.#waiting >= WAITING_MAX) throw new DfsError('busy', 'too many listings are under way')
    this.#waiting++
    const done = this.#last.then(work)
    this.#last = done.catch(ignore)
    return done.finally(() => this.#waiting--)
  }
}

/** Our own listing, 208. */
export async function listFiles(context: PortContext, request: FrameRequest): Promise<FrameReply> {
  if (request.lengthBytes > LIST_BYTES_MAX) throw new DfsError('bad_request', 'this is no listing')
  const wanted = readList(await request.body.bytes(request.lengthBytes))
  request.bodyTaken()
  admitGroup(context, wanted)
  context.access.admit(request.connection, 'read', wanted.prefix)
  admitMembers(context, wanted.members)
  const page = await context.listers.turn(() => context.store.list(wanted))
  return { status: 0, parts: [writeListPage(page)] }
}

/** Whoever asks all members must not leave one out that is known here: its files may be nowhere else. Throws `unavailable`. */
function admitMembers({ store, peers }: PortContext, members: readonly number[]): void {
  if (members.length === 0) return
  const known = [...peers().keys(), ...store.positions.map(({ storageId }) => storageId)]
  const missing = known.find(id => !members.includes(id))
  if (missing !== undefined)
    throw new DfsError('unavailable', `storage server ${missing}, which is a member of the group, was not asked`)
}

function ignore(): void {}
