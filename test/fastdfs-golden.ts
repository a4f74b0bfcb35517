/**
 * Exchanges with a real FastDFS 6.16.1, in the order they were captured in: storage ids off, trunk files off, one group of two
 * storage servers. Those that were had with a storage server begin with `s.`. Copied once and never edited: our code has to
 * agree with them, not the other way round.
 */
import { readFileSync } from 'node:fs'

/** A request and its reply, as hex. */
export interface Exchange {
  readonly name: string
  readonly request: string
  readonly reply: string
}

interface Captured {
  readonly name: string
  readonly req?: string
  readonly resp?: string
}

const FILE = new URL('../../test/fastdfs-golden.json', import.meta.url)

const captured = JSON.parse(readFileSync(FILE, 'utf8')) as readonly Captured[]

/** What was tried without a reply: two requests in one segment, of which the second one got none. */
export const UNANSWERED: readonly string[] = captured.filter(({ resp }) => resp === undefined).map(({ name }) => name)

export const EXCHANGES: readonly Exchange[] = captured
  .filter(({ name }) => !UNANSWERED.includes(name))
  .map(({ name, req, resp }) => ({ name, request: req!, reply: resp! }))

const byName = new Map(EXCHANGES.map(exchange => [exchange.name, exchange]))

/** The exchange of a name. Throws if there is none. */
export function golden(name: string): Exchange {
  const exchange = byName.get(name)
  if (exchange === undefined) throw new Error(`nothing was captured as ${name}`)
  return exchange
}
