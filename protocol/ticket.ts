/**
 * Tickets: what a tracker gives to whoever may do something, and a storage server believes for a minute.
 *
 *     0         1        5            6           10        26
 *     +---------+--------+------------+-----------+---------+------------------+------------------+
 *     | version | key id | operations | expires at| group   | upload ids       | names            |
 *     +---------+--------+------------+-----------+---------+------------------+------------------+
 *      1: 1      4        1            4           16        length 1 and bytes length 1 and bytes
 *
 *     operations   bits: 1 upload, 2 read, 4 change, 8 delete
 *     expires at   seconds since 1970, by the clock of the tracker
 *     upload ids   what the ids of its uploads begin with
 *     names        what the names of its files begin with; nothing for all of the group
 *
 *     key of a group       HMAC-SHA256(ticket secret, "natsdfs tickets of <group>")
 *     secret of a ticket   HMAC-SHA256(key of its group, "natsdfs ticket " and the ticket)
 *
 * A ticket is no secret; what is, is the secret that goes with it, which a storage server makes for itself from the ticket
 * and the key of its group. The holder proves that it has it (runtime/handshake.ts) and never sends it: whoever overhears
 * that can neither use the ticket nor make another.
 */
import { createHash, createHmac } from 'node:crypto'
import { type Static, Type } from 'typebox'
import { DfsError } from './errors.ts'
import { FILE_NAME_BYTES_MAX, GROUP_NAME_BYTES } from './file-id.ts'
import { readString, writeString } from './frame.ts'

const VERSION = 1
const FIXED_BYTES = 26
const UPLOAD_ID_BYTES = 16
export const TICKET_BYTES_MAX = FIXED_BYTES + 1 + UPLOAD_ID_BYTES + 1 + FILE_NAME_BYTES_MAX

/** How long a ticket is good. */
export const TICKET_S = 60
/** How far the clocks of trackers and storage servers may be apart: so much earlier and later a ticket is believed, too. */
export const CLOCK_ERROR_S = 5

export const OPERATIONS = ['upload', 'read', 'change', 'delete'] as const
export type Operation = (typeof OPERATIONS)[number]
export const OperationSchema = Type.Union([
  Type.Literal('upload'),
  Type.Literal('read'),
  Type.Literal('change'),
  Type.Literal('delete'),
])

/** What a ticket says. */
export interface Ticket {
  /** 8 hex digits. */
  readonly keyId: string
  readonly operations: readonly Operation[]
  readonly expiresS: number
  readonly group: string
  /** Hex digits, two for each byte. */
  readonly uploadIds: string
  readonly names: string
}

/** A ticket as its holder has it: both in base64url. */
export const IssuedTicket = Type.Object({
  ticket: Type.String({ maxLength: 400 }),
  secret: Type.String({ maxLength: 64 }),
  /** How long it is good from now on. */
  leaseMs: Type.Integer({ minimum: 0 }),
})
export type IssuedTicket = Static<typeof IssuedTicket>

/** The key that signs the tickets of a group, as hex. */
export function groupKey(ticketSecret: string, group: string): string {
  return createHmac('sha256', ticketSecret).update(`natsdfs tickets of ${group}`).digest('hex')
}

/** Names a key without telling it. */
export function keyIdOf(key: string): string {
  return createHash('sha256').update(`natsdfs key id ${key}`).digest('hex').slice(0, 8)
}

export function ticketSecretOf(key: string, ticket: Uint8Array): Buffer {
  return createHmac('sha256', key).update('natsdfs ticket ').update(ticket).digest()
}

export function encodeTicket({ keyId, operations, expiresS, group, uploadIds, names }: Ticket): Buffer {
  const fixed = Buffer.alloc(FIXED_BYTES)
  fixed[0] = VERSION
  fixed.write(keyId, 1, 'hex')
  for (const operation of operations) fixed[5]! |= bitOf(operation)
  fixed.writeUInt32BE(expiresS, 6)
  writeString(fixed, group, 10, GROUP_NAME_BYTES)
  const ids = Buffer.from(uploadIds, 'hex')
  return Buffer.concat([fixed, Buffer.of(ids.length), ids, Buffer.of(names.length), Buffer.from(names, 'latin1')])
}

/** Reads a ticket; undefined if it is none. */
export function decodeTicket(bytes: Buffer): Ticket | undefined {
  if (bytes.length < FIXED_BYTES + 2 || bytes.length > TICKET_BYTES_MAX || bytes[0] !== VERSION) return undefined
  const namesAt = FIXED_BYTES + 1 + bytes[FIXED_BYTES]!
  if (bytes.length !== namesAt + 1 + (bytes[namesAt] ?? 0)) return undefined
  return {
    keyId: bytes.toString('hex', 1, 5),
    operations: OPERATIONS.filter(operation => (bytes[5]! & bitOf(operation)) !== 0),
    expiresS: bytes.readUInt32BE(6),
    group: readString(bytes, 10, GROUP_NAME_BYTES),
    uploadIds: bytes.toString('hex', FIXED_BYTES + 1, namesAt),
    names: bytes.toString('latin1', namesAt + 1),
  }
}

/** Whether a ticket is good at a time: not over, and not one for longer than there are, which a wrong clock would make. */
export function isInTime({ expiresS }: Ticket, nowS: number): boolean {
  return nowS <= expiresS + CLOCK_ERROR_S && expiresS <= nowS + TICKET_S + CLOCK_ERROR_S
}

/** What somebody wants to do. */
export interface Wish {
  readonly operation: Operation
  readonly group: string
  /** Of a file, or the beginning of those of several. */
  readonly name: string
  /** Of an upload; empty if it has none, undefined if there can be none: that of an appender file. */
  readonly uploadId: string | undefined
}

/** Throws `unauthorized` without a ticket, `ticket_expired` if those that allow it are over, `forbidden` if none does. */
export function admitWish(tickets: readonly Ticket[], wish: Wish, nowS: number): void {
  if (tickets.length === 0) throw new DfsError('unauthorized', 'a ticket is needed here')
  let isAllowed = false
  for (const ticket of tickets) {
    if (!allows(ticket, wish)) continue
    if (isInTime(ticket, nowS)) return
    isAllowed = true
  }
  throw isAllowed ? new DfsError('ticket_expired') : new DfsError('forbidden', 'the ticket is for something else')
}

function allows(ticket: Ticket, { operation, group, name, uploadId }: Wish): boolean {
  const { operations, uploadIds, names } = ticket
  if (ticket.group !== group || !operations.includes(operation)) return false
  return operation === 'upload' ? uploadId?.startsWith(uploadIds) !== false : name.startsWith(names)
}

function bitOf(operation: Operation): number {
  return 1 << OPERATIONS.indexOf(operation)
}
