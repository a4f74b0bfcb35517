/**
 * Who orders the changes of whose files: each source its own, unless another member of its group has taken that over.
 * The members agree on it, by majority, in rounds that have a number each, the **term**: CASPaxos, with the table below
 * as its one register.
 *
 *     ask       nothing changes; the answer says what is agreed on there, where it stands, and why it would refuse to prepare
 *     prepare   promise to agree on nothing older than `term`, and order nothing until it is over; the answer comes when
 *               what was under way there is recorded
 *     accept    agree on `table`, unless something newer was promised
 *
 * Command 210 between members carries both ways as msgpack.
 */
import { type Static, Type } from 'typebox'
import { GROUP_MEMBERS_MAX, SourcePosition, StorageIdSchema } from './storage-messages.ts'

const Count = Type.Integer({ minimum: 0 })

/** A place in the binlog of a member. */
const Place = Type.Object({ storageId: StorageIdSchema, epoch: Count, sequence: Count })

/** A source whose files are, or were, in the hands of another member. */
export const Succession = Type.Object({
  source: StorageIdSchema,
  /** Who orders the changes of the source's files now. */
  orderer: StorageIdSchema,
  /** Of whoever did before: up to there what it has recorded of these files counts. */
  after: Place,
  /** In the orderer's own binlog: what it recorded up to there of these files is of the time before. */
  since: Place,
  /** In the source's binlog: what it recorded behind it, of files that the orderer has changed, was not known to that. */
  cut: Place,
})
export type Succession = Static<typeof Succession>

/** What members agree on; a source that is not named orders its own files and has always done so. */
export const OrdererTable = Type.Object({
  /** The round in which it was agreed on, 0 for none; see `termAfter`. */
  term: Count,
  successions: Type.Array(Succession, { maxItems: GROUP_MEMBERS_MAX }),
})
export type OrdererTable = Static<typeof OrdererTable>

export const NO_TERM: OrdererTable = { term: 0, successions: [] }

/** Asked of a member, by another one. */
export const OrdererQuestion = Type.Object({
  kind: Type.Union([Type.Literal('ask'), Type.Literal('prepare'), Type.Literal('accept')]),
  by: StorageIdSchema,
  /** Of the round; what is agreed on where `ask` comes from. */
  term: Count,
  /** Whose files change hands with that round, if any do. */
  source: Type.Optional(StorageIdSchema),
  /** With `source`: who had them so far has promised this round, and so gives them away. */
  isGiven: Type.Optional(Type.Boolean()),
  /** With `accept`: what is to be agreed on. */
  table: Type.Optional(OrdererTable),
})
export type OrdererQuestion = Static<typeof OrdererQuestion>

export const OrdererAnswer = Type.Object({
  storageId: StorageIdSchema,
  /** Whether a promise was given, or the table was taken. */
  granted: Type.Boolean(),
  /** Why not, for people. */
  reason: Type.Optional(Type.String()),
  /** The newest round that was promised. */
  promised: Count,
  table: OrdererTable,
  /** Its epoch and the end of its own binlog. */
  end: Place,
  /** How far it has applied the others' records. */
  positions: Type.Array(SourcePosition, { maxItems: GROUP_MEMBERS_MAX }),
})
export type OrdererAnswer = Static<typeof OrdererAnswer>

/** Terms of two members never are the same: the low 24 bits are the storage id of who began the round. */
const TERMS_PER_ROUND = 2 ** 24

/** A term of a member's own, later than another. */
export function termAfter(term: number, storageId: number): number {
  return (Math.floor(term / TERMS_PER_ROUND) + 1) * TERMS_PER_ROUND + storageId
}

/** Which round a term is of, for people. */
export function roundOf(term: number): number {
  return Math.floor(term / TERMS_PER_ROUND)
}

/** Who orders the changes of a source's files. */
export function ordererOf({ successions }: OrdererTable, source: number): number {
  return successionOf({ successions }, source)?.orderer ?? source
}

export function successionOf(
  { successions }: Pick<OrdererTable, 'successions'>,
  source: number,
): Succession | undefined {
  return successions.find(succession => succession.source === source)
}

/** The table with one succession in place of that of the same source. */
export function withSuccession({ term, successions }: OrdererTable, succession: Succession): OrdererTable {
  return { term, successions: [...successions.filter(({ source }) => source !== succession.source), succession] }
}
