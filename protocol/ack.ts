/** How many members of a group have to hold an upload durably before it is answered, and what the answer says of it. */
import { type Static, Type } from 'typebox'
import { GROUP_MEMBERS_MAX, StorageIdSchema } from './storage-messages.ts'

/**
 * `one`: the source; `quorum`: a majority of the group's members, both of two; `all`: all of them. Their order is that of
 * their numbers in frames.
 */
export const ACK_LEVELS = ['one', 'quorum', 'all'] as const
export type AckLevel = (typeof ACK_LEVELS)[number]

/** How long an upload waits for its level if nobody says: a peer that restarts is back in less. */
export const ACK_TIMEOUT_MS = 5_000

/** The longest that may be asked for: half of what our own clients wait for a reply before they give a server up. */
export const ACK_TIMEOUT_MS_MAX = 10_000

const Count = Type.Integer({ minimum: 0 })

/** Where an upload is, when it is answered. */
export const Receipt = Type.Object({
  /** How many members hold it, as far as its source knows: never more than there are. */
  replicas: Type.Integer({ minimum: 1, maximum: GROUP_MEMBERS_MAX }),
  /** Whether its source has synced it to its disk, and not only given it to the system. */
  durable: Type.Boolean(),
  source: StorageIdSchema,
  /** The place of its record in the source's binlog. */
  epoch: Count,
  sequence: Count,
})
export type Receipt = Static<typeof Receipt>
