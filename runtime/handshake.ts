/**
 * Two sides prove to each other that they know the same secret, without sending it.
 *
 *     caller                                        server
 *       │ authenticate: role 1, caller's nonce 32 ─────▶ │
 *       │ ◀───── server's nonce 32, HMAC "server" 32     │
 *       │ prove: HMAC "caller" 32 ─────────────────────▶ │
 *       │ ◀───── status 0, or EACCES and the end         │
 *
 * HMAC-SHA256 over side, role and both nonces, so that no answer can be played back to either side. The peers' key is
 * the cluster secret; the clients' key is derived from it, so that a client can never speak as a peer.
 */
import { createHmac, timingSafeEqual } from 'node:crypto'
import { DfsError, ERRORS } from '../protocol/errors.ts'
import { COMMANDS } from '../protocol/frame.ts'
import type { FrameClient } from './frame-client.ts'
import type { ConnectionRole, FrameReply, FrameRequest } from './frame-server.ts'
import type { Random } from './world.ts'

/** Whoever fails to prove itself gets no second guess on this connection. */
const REFUSED: FrameReply = { status: ERRORS.unauthorized.errno, close: true }

const NONCE_BYTES = 32
const PROOF_BYTES = 32

export type ProvenRole = Exclude<ConnectionRole, 'anonymous'>
const ROLE_BYTES: Record<ProvenRole, number> = { client: 1, peer: 2 }

/** The key that members of a role share, as hex. */
export function roleKey(clusterSecret: string, role: ProvenRole): string {
  return role === 'peer' ? clusterSecret : createHmac('sha256', clusterSecret).update(role).digest('hex')
}

/** Who we are to servers. */
export interface Proof {
  readonly role: ProvenRole
  readonly key: string
}

/** The server's half. One instance serves all connections. */
export class Gatekeeper {
  readonly #clusterSecret: string
  readonly #random: Random
  /** Proofs that are expected; a connection that goes away takes its entry with it. */
  readonly #expected = new WeakMap<object, { role: ProvenRole; proof: Buffer }>()

  constructor(clusterSecret: string, random: Random) {
    this.#clusterSecret = clusterSecret
    this.#random = random
  }

  /** Answers `authenticate`. */
  async challenge(request: FrameRequest): Promise<FrameReply> {
    if (request.lengthBytes !== 1 + NONCE_BYTES) throw new DfsError('bad_request', 'authenticate has 33 bytes')
    const body = Buffer.from(await request.body.bytes(1 + NONCE_BYTES))
    const role = (Object.keys(ROLE_BYTES) as ProvenRole[]).find(name => ROLE_BYTES[name] === body[0])
    if (role === undefined) throw new DfsError('bad_request', 'no such role')
    const key = roleKey(this.#clusterSecret, role)
    const nonce = this.#random.bytes(NONCE_BYTES)
    const callerNonce = body.subarray(1)
    this.#expected.set(request.connection, { role, proof: proofOf('caller', role, key, callerNonce, nonce) })
    return { status: 0, parts: [nonce, proofOf('server', role, key, callerNonce, nonce)] }
  }

  /** Answers `prove`. */
  async verify(request: FrameRequest): Promise<FrameReply> {
    const expected = this.#expected.get(request.connection)
    this.#expected.delete(request.connection)
    if (expected === undefined || request.lengthBytes !== PROOF_BYTES) return REFUSED
    if (!timingSafeEqual(await request.body.bytes(PROOF_BYTES), expected.proof)) return REFUSED
    request.connection.role = expected.role
    return { status: 0 }
  }
}

/** The caller's half. Rejects with `unauthorized` if the server does not know the secret, or does not believe us. */
export async function authenticate(client: FrameClient, proof: Proof, random: Random): Promise<void> {
  const nonce = random.bytes(NONCE_BYTES)
  const hello = Buffer.concat([Buffer.of(ROLE_BYTES[proof.role]), nonce])
  const answer = await client.request(COMMANDS.authenticate, hello)
  if (answer.length !== NONCE_BYTES + PROOF_BYTES) throw new DfsError('unauthorized', 'the server cannot prove itself')
  const serverNonce = answer.subarray(0, NONCE_BYTES)
  const expected = proofOf('server', proof.role, proof.key, nonce, serverNonce)
  if (!timingSafeEqual(answer.subarray(NONCE_BYTES), expected)) {
    throw new DfsError('unauthorized', 'the server does not know our secret')
  }
  await client.request(COMMANDS.prove, proofOf('caller', proof.role, proof.key, nonce, serverNonce))
}

function proofOf(side: 'server' | 'caller', role: ProvenRole, key: string, callerNonce: Uint8Array, nonce: Uint8Array) {
  return createHmac('sha256', key).update(`natsdfs ${side} ${role} `).update(callerNonce).update(nonce).digest()
}
