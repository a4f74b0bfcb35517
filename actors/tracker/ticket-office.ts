/** Gives tickets to those whom NATS lets ask a tracker; see protocol/ticket.ts. */
import { DfsError } from '../../protocol/errors.ts'
import {
  encodeTicket,
  groupKey,
  type IssuedTicket,
  keyIdOf,
  type Operation,
  TICKET_S,
  ticketSecretOf,
} from '../../protocol/ticket.ts'
import type { Clock } from '../../runtime/world.ts'

/** What a ticket is to be for. */
export interface TicketScope {
  readonly group: string
  readonly operations: readonly Operation[]
  readonly uploadIds?: string | undefined
  readonly names?: string | undefined
}

export class TicketOffice {
  readonly #secret: string | undefined
  readonly #clock: Clock
  /** By group, made when first needed: there are as many as groups. */
  readonly #keys = new Map<string, { key: string; keyId: string }>()

  /** Signs with the first of the secrets. */
  constructor(secrets: readonly string[], clock: Clock) {
    this.#secret = secrets[0]
    this.#clock = clock
  }

  get isOpen(): boolean {
    return this.#secret !== undefined
  }

  /** Throws `not_supported` without a secret, `bad_request` for uploads of any id. */
  issue({ group, operations, uploadIds = '', names = '' }: TicketScope): IssuedTicket {
    if (this.#secret === undefined)
      throw new DfsError('not_supported', 'this tracker has no secret to sign tickets with')
    if (operations.includes('upload') && uploadIds === '')
      throw new DfsError('bad_request', 'a ticket for uploads says what their ids begin with')
    const known = this.#keys.get(group)
    const { key, keyId } = known ?? this.#makeKey(this.#secret, group)
    const expiresS = Math.floor(this.#clock.wallMs() / 1000) + TICKET_S
    const ticket = encodeTicket({ keyId, operations, expiresS, group, uploadIds, names })
    const secret = ticketSecretOf(key, ticket).toString('base64url')
    // It may end up to a second sooner than it began.
    return { ticket: ticket.toString('base64url'), secret, leaseMs: (TICKET_S - 1) * 1000 }
  }

  #makeKey(secret: string, group: string): { key: string; keyId: string } {
    const key = groupKey(secret, group)
    const made = { key, keyId: keyIdOf(key) }
    this.#keys.set(group, made)
    return made
  }
}
