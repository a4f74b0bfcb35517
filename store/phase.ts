/**
 * The steps of a change on its way to being kept, in this order:
 *
 *     written        the bytes are in a temporary file
 *     synced         the temporary file is durable
 *     recorded       the binlog record is durable
 *     renamed        the file has its name
 *     acknowledged   the answer has been given to the socket
 *
 * A delete has no first two, and its `renamed` is `removed` in all but name. Whoever breaks things on purpose listens.
 */
export type Phase = 'written' | 'synced' | 'recorded' | 'renamed' | 'acknowledged'

/** Hears each step as it is done. What it throws, it throws into the change. */
export type OnPhase = (phase: Phase) => void
