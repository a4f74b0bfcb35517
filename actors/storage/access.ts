/** Who may do what on the data port; docs/decisions/0015-tickets.md. */
import { DfsError } from '../../protocol/errors.ts'
import { COMMANDS } from '../../protocol/frame.ts'
import { admitWish, type Operation } from '../../protocol/ticket.ts'
import type { Connection, FrameRequest } from '../../runtime/frame-server.ts'
import type { Clock } from '../../runtime/world.ts'

/**
 * What the data port asks of those who are no peers: `none` (FastDFS's clients may do what FastDFS lets them do), `secret`
 * (everybody proves the clients' secret), `ticket` (each operation is allowed by a tracker).
 */
export const DATA_AUTHS = ['none', 'secret', 'ticket'] as const
export type DataAuth = (typeof DATA_AUTHS)[number]

/** What anybody may ask: to be let in, whether we live, and to be let go. */
const OPEN = new Set<number>([COMMANDS.authenticate, COMMANDS.prove, COMMANDS.activeTest, COMMANDS.quit])

export class Access {
  readonly auth: DataAuth
  readonly #group: string
  readonly #clock: Clock

  constructor(auth: DataAuth, group: string, clock: Clock) {
    this.auth = auth
    this.#group = group
    this.#clock = clock
  }

  /** Before anything of a request is looked at. Throws `unauthorized`. */
  admitRequest({ command, connection }: FrameRequest): void {
    const isKnown = this.auth === 'none' || connection.role !== 'anonymous'
    if (!isKnown && !OPEN.has(command)) throw new DfsError('unauthorized')
  }

  /**
   * Before anything is said of a file, or of those that begin with a name. Throws `unauthorized`, `ticket_expired` or
   * `forbidden`.
   */
  admit({ role, tickets }: Connection, operation: Exclude<Operation, 'upload'>, name: string): void {
    if (this.auth !== 'ticket' || role === 'peer') return
    admitWish(tickets, { operation, group: this.#group, name, uploadId: undefined }, this.#clock.wallMs() / 1000)
  }

  /** Before an upload is taken: its id is empty if it has none, undefined if there can be none. Throws the same. */
  admitUpload({ role, tickets }: Connection, uploadId: string | undefined): void {
    if (this.auth !== 'ticket' || role === 'peer') return
    admitWish(tickets, { operation: 'upload', group: this.#group, name: '', uploadId }, this.#clock.wallMs() / 1000)
  }
}
