/**
 * Which hosts may connect, as FastDFS's `allow_hosts` says it:
 *
 *     *                              everybody
 *     10.0.1.5   2001:db8::7         an address
 *     192.168.5.64/26                a network, IPv6 too
 *     10.0.1.[1-15,20]               addresses with one of these numbers
 *     host[01-08,20-25].domain.com   names likewise, padded as the first number of a range is; resolved once, at start
 *
 * `node:net` knows addresses and networks; nothing here touches a socket.
 */
import { BlockList, isIP } from 'node:net'
import type { Admits } from './frame-server.ts'
import type { Log } from './log.ts'
import type { Sockets } from './world.ts'

/** Each connection is compared with all of them: 30 us for so many. Networks have no such limit. */
const HOSTS_MAX = 4096

const BRACKETS = /^([^[\]]*)\[([^[\]]*)\]([^[\]]*)$/
const NUMBERS = /^(\d{1,9})(?:-(\d{1,9}))?$/
const HOST_NAME = /^(?!.*\.\d+$)(?=.*[A-Za-z])[A-Za-z0-9._-]{1,253}$/

/** A part of a pattern that stands for something. */
type HostRule =
  | { readonly address: string }
  | { readonly network: string; readonly prefixBits: number }
  | { readonly name: string }

/**
 * Makes what tells whether an address may connect; undefined if everybody may, which is also what no pattern means. A name
 * that stands for nothing now lets nobody in, and is logged. Throws an Error on a malformed pattern.
 */
export async function allowHosts(
  patterns: readonly string[],
  sockets: Pick<Sockets, 'resolve'>,
  log: Log,
): Promise<Admits | undefined> {
  if (patterns.length === 0 || patterns.includes('*')) return undefined
  const rules = patterns.flatMap(readHostPattern)
  if (rules.length > HOSTS_MAX) throw new Error(`more than ${HOSTS_MAX} allowed hosts: name their network instead`)
  const list = new BlockList()
  const add = async (rule: HostRule) => {
    if ('network' in rule) return list.addSubnet(rule.network, rule.prefixBits, familyOf(rule.network))
    const address = 'address' in rule ? rule.address : await sockets.resolve(rule.name).catch(() => undefined)
    if (address === undefined) log.warn({ ...rule }, 'an allowed host is not known by this name: it is left out')
    else list.addAddress(address, familyOf(address))
  }
  await Promise.all(rules.map(add))
  // A link-local address comes with the interface that it is of.
  return address => list.check(address.replace(/%.*$/, ''), familyOf(address))
}

/** Reads one pattern but `*`. Throws an Error that quotes it. */
export function readHostPattern(pattern: string): HostRule[] {
  return numbered(pattern).map(host => {
    const [address = '', prefix, ...more] = host.split('/')
    const bits = isIP(address) === 4 ? 32 : 128
    if (prefix === undefined && isIP(host) !== 0) return { address: host }
    if (prefix === undefined && HOST_NAME.test(host)) return { name: host }
    const isNetwork = isIP(address) !== 0 && more.length === 0 && /^\d{1,3}$/.test(prefix ?? '')
    if (isNetwork && Number(prefix) <= bits) return { network: address, prefixBits: Number(prefix) }
    throw new Error(`"${pattern}" is no address, network or name of a host`)
  })
}

/** A pattern with each of the numbers in its brackets. */
function numbered(pattern: string): string[] {
  const [, head = '', list = '', tail = ''] = BRACKETS.exec(pattern) ?? []
  if (!/[[\]]/.test(pattern)) return [pattern]
  return list.split(',').flatMap(part => {
    const [, first, last = first] = NUMBERS.exec(part.trim()) ?? []
    const count = Number(last) - Number(first) + 1
    if (first === undefined || count < 1)
      throw new Error(`"${pattern}" has no numbers in its brackets such as [1-15,20]`)
    if (count > HOSTS_MAX) throw new Error(`"${pattern}" has more than ${HOSTS_MAX} hosts: name their network instead`)
    return Array.from({ length: count }, (_, i) => {
      return head + String(Number(first) + i).padStart(first.length, '0') + tail
    })
  })
}

function familyOf(address: string): 'ipv4' | 'ipv6' {
  return address.includes(':') ? 'ipv6' : 'ipv4'
}
