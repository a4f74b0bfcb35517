/**
 * Two sides prove to each other that they know the same secret, without sending it.
 *
 *     caller                                        server
 *       │ authenticate: role 1, caller's nonce 32,       │
 *       │               a ticket if that is the role ──▶ │
 *       │ ◀───── server's nonce 32, HMAC "server" 32     │
 *       │ prove: HMAC "caller" 32 ─────────────────────▶ │
 *       │ ◀───── status 0, or EACCES and the end         │
 *
 * HMAC-SHA256 over side, role and both nonces, so that no answer can be played back to either side. The peers' key is
 * the cluster secret; the clients' key is derived from it, so that a client can never speak as a peer. That of a ticket is
 * the ticket's secret; a connection may prove several tickets, one after another.
 */
import { createHmac, timingSafeEqual } from 'node:crypto'
import { DfsError, ERRORS } from '../protocol/errors.ts'
import { COMMANDS } from '../protocol/frame.ts'
import { decodeTicket, isInTime, keyIdOf, TICKET_BYTES_MAX, type Ticket, ticketSecretOf } from '../protocol/ticket.ts'
import type { FrameClient } from './frame-client.ts'
import type { Connection, ConnectionRole, FrameReply, FrameRequest } from './frame-server.ts'
import type { Clock, Random } from './world.ts'

/** Whoever fails to prove itself gets no second guess on this connection. */
const REFUSED: FrameReply = { status: ERRORS.unauthorized.errno, close: true }

const NONCE_BYTES = 32
const PROOF_BYTES = 32
const NO_BYTES = Buffer.alloc(0)

/** Tickets that a connection has: uploads, reads and changes of one group, and those that follow them. */
const TICKETS_MAX = 8

export type ProvenRole = Exclude<ConnectionRole, 'anonymous'>
/** What is proven: who one is, or that one holds a ticket. */
type ProofRole = ProvenRole | 'ticket'
const ROLE_BYTES: Record<ProofRole, number> = { client: 1, peer: 2, ticket: 3 }

/** The key that members of a role share, as hex. */
export function roleKey(clusterSecret: string, role: ProvenRole): string {
  return role === 'peer' ? clusterSecret : createHmac('sha256', clusterSecret).update(role).digest('hex')
}

/** Who we are to servers, or what we hold. */
export type Proof =
  | { readonly role: ProvenRole; readonly key: string }
  | { readonly role: 'ticket'; readonly key: Uint8Array; readonly ticket: Uint8Array }

/** What is expected of a caller. */
interface Expected {
  readonly role: ProofRole
  readonly proof: Buffer
  readonly ticket: Ticket | undefined
}

/** The server's half. One instance serves all connections. */
export class Gatekeeper {
  readonly #clusterSecret: string
  readonly #random: Random
  readonly #clock: Clock
  /** Keys of this group's tickets, by their ids. */
  readonly #ticketKeys: ReadonlyMap<string, string>
  /** Proofs that are expected; a connection that goes away takes its entry with it. */
  readonly #expected = new WeakMap<object, Expected>()

  constructor(
    clusterSecret: string,
    { random, clock }: { random: Random; clock: Clock },
    ticketKeys: readonly string[] = [],
  ) {
    this.#clusterSecret = clusterSecret
    this.#random = random
    this.#clock = clock
    this.#ticketKeys = new Map(ticketKeys.map(key => [keyIdOf(key), key]))
  }

  /** Answers `authenticate`. */
  async challenge(request: FrameRequest): Promise<FrameReply> {
    const { lengthBytes, connection } = request
    if (lengthBytes < 1 + NONCE_BYTES || lengthBytes > 1 + NONCE_BYTES + TICKET_BYTES_MAX)
      throw new DfsError('bad_request', 'authenticate has 33 bytes, and a ticket')
    const body = Buffer.from(await request.body.bytes(lengthBytes))
    const role = (Object.keys(ROLE_BYTES) as ProofRole[]).find(name => ROLE_BYTES[name] === body[0])
    const isTicket = role === 'ticket'
    if (role === undefined || isTicket === (lengthBytes === 1 + NONCE_BYTES))
      throw new DfsError('bad_request', 'no such role')
    const callerNonce = body.subarray(1, 1 + NONCE_BYTES)
    const shown = isTicket ? this.#read(body.subarray(1 + NONCE_BYTES)) : undefined
    if (isTicket && shown === undefined) return REFUSED
    const key = shown?.secret ?? roleKey(this.#clusterSecret, role as ProvenRole)
    const nonce = this.#random.bytes(NONCE_BYTES)
    const proof = proofOf('caller', role, key, callerNonce, nonce)
    this.#expected.set(connection, { role, proof, ticket: shown?.ticket })
    return { status: 0, parts: [nonce, proofOf('server', role, key, callerNonce, nonce)] }
  }

  /** Answers `prove`. */
  async verify(request: FrameRequest): Promise<FrameReply> {
    const { connection } = request
    const expected = this.#expected.get(connection)
    this.#expected.delete(connection)
    if (expected === undefined || request.lengthBytes !== PROOF_BYTES) return REFUSED
    if (!timingSafeEqual(await request.body.bytes(PROOF_BYTES), expected.proof)) return REFUSED
    if (expected.role !== 'ticket') connection.role = expected.role
    else this.#admit(connection, expected.ticket!)
    return { status: 0 }
  }

  /** A ticket, and the secret that its holder has; undefined if it is over, or signed with no key of ours. */
  #read(bytes: Buffer): { ticket: Ticket; secret: Buffer } | undefined {
    const ticket = decodeTicket(bytes)
    const key = ticket && this.#ticketKeys.get(ticket.keyId)
    if (ticket !== undefined && !isInTime(ticket, this.#clock.wallMs() / 1000)) return undefined
    return key === undefined ? undefined : { ticket: ticket!, secret: ticketSecretOf(key, bytes) }
  }

  /** Whoever holds a ticket may use our own commands. */
  #admit(connection: Connection, ticket: Ticket): void {
    if (connection.role === 'anonymous') connection.role = 'client'
    connection.tickets = [ticket, ...connection.tickets].slice(0, TICKETS_MAX)
  }
}

/** The caller's half. Rejects with `unauthorized` if the server does not know the secret, or does not believe us. */
export async function authenticate(client: FrameClient, proof: Proof, random: Random): Promise<void> {
  const { role, key } = proof
  const nonce = random.bytes(NONCE_BYTES)
  const hello = Buffer.concat([Buffer.of(ROLE_BYTES[role]), nonce, proof.role === 'ticket' ? proof.ticket : NO_BYTES])
  const answer = await client.request(COMMANDS.authenticate, hello)
  if (answer.length !== NONCE_BYTES + PROOF_BYTES) throw new DfsError('unauthorized', 'the server cannot prove itself')
  const serverNonce = answer.subarray(0, NONCE_BYTES)
  const expected = proofOf('server', role, key, nonce, serverNonce)
  if (!timingSafeEqual(answer.subarray(NONCE_BYTES), expected)) {
    throw new DfsError('unauthorized', 'the server does not know our secret')
  }
  await client.request(COMMANDS.prove, proofOf('caller', role, key, nonce, serverNonce))
}

function proofOf(
  side: 'server' | 'caller',
  role: ProofRole,
  key: string | Uint8Array,
  callerNonce: Uint8Array,
  nonce: Uint8Array,
): Buffer {
  return createHmac('sha256', key).update(`natsdfs ${side} ${role} `).update(callerNonce).update(nonce).digest()
}
