/**
 * Makes the configuration of one nats-server out of the template `nats-server.conf`, which is a valid configuration
 * itself. Two kinds of comment lines in it are instructions:
 *
 *     #@2.10 sync_interval: "10s"     becomes `sync_interval: "10s"` for nats-server 2.10 and later
 *     #@each-group                    what stands between is repeated for every group, with the group's name
 *     ...group1...                    in place of the template's `group1`
 *     #@end
 */

/** The users that exist once; every group has two more, `storage_<group>` and `sync_<group>`. */
const SHARED_USERS = ['tracker', 'gateway', 'client', 'ops', 'sys'] as const

/** FastDFS's own rule: a group name is a field of 16 bytes. It also becomes a token of subjects and a name of variables. */
const GROUP_NAME = /^[A-Za-z0-9]{1,16}$/

const TEMPLATE_GROUP = 'group1'

/** What a template leaves open. */
export interface NatsSettings {
  /** Unique among the servers of a NATS cluster. */
  readonly name: string
  readonly host: string
  readonly port: number
  /** The port of the monitoring pages on this machine; 0 for none. */
  readonly monitorPort: number
  readonly storeDirectory: string
  /** Password of each user, `sys` included. */
  readonly passwords: Readonly<Record<string, string>>
}

/**
 * Fills in what depends on the server's version and on the groups.
 * Throws RangeError for a version or a group name it cannot use, and Error for a template whose blocks do not close.
 */
export function configureFor(template: string, version: string, groups: readonly string[]): string {
  const server = majorAndMinor(version)
  for (const group of groups) {
    if (!GROUP_NAME.test(group)) throw new RangeError(`group name: ${JSON.stringify(group)}`)
  }
  const lines: string[] = []
  let block: string[] | undefined
  for (const [index, text] of template.split('\n').entries()) {
    const line = text.replace(/^(\s*)#@(\d+\.\d+) (.*)$/, (whole, indent, since, rest) =>
      isBefore(server, majorAndMinor(since)) ? whole : indent + rest,
    )
    if (line.trim() === '#@each-group') {
      if (block !== undefined) throw new Error(`nats-server.conf:${index + 1}: #@each-group inside #@each-group`)
      block = []
    } else if (line.trim() === '#@end') {
      if (block === undefined) throw new Error(`nats-server.conf:${index + 1}: #@end without #@each-group`)
      for (const group of groups) lines.push(...block.map(line => line.replaceAll(TEMPLATE_GROUP, group)))
      block = undefined
    } else {
      const target = block ?? lines
      target.push(line)
    }
  }
  if (block !== undefined) throw new Error('nats-server.conf: #@each-group without #@end')
  return lines.join('\n')
}

/** Names the users that a configuration for these groups has. */
export function natsUsers(groups: readonly string[]): string[] {
  return [...SHARED_USERS, ...groups.flatMap(group => [`storage_${group}`, `sync_${group}`])]
}

/** Below which subject a user listens for replies. A plain `nats` command line uses `_INBOX`, so people get that one. */
export function inboxPrefixOf(user: string): string {
  return user === 'ops' || user === 'sys' ? '_INBOX' : `_INBOX_${user}`
}

/** The environment that the configuration's variables are read from. */
export function natsEnvironment(settings: NatsSettings): Record<string, string> {
  const environment: Record<string, string> = {
    DFS_NATS_NAME: quote(settings.name),
    DFS_NATS_HOST: quote(settings.host),
    DFS_NATS_PORT: String(settings.port),
    DFS_NATS_MONITOR: quote(`127.0.0.1:${settings.monitorPort}`),
    DFS_NATS_STORE_DIR: quote(settings.storeDirectory),
  }
  for (const [user, password] of Object.entries(settings.passwords)) {
    environment[`DFS_PASSWORD_${user}`] = quote(password)
  }
  return environment
}

// nats-server parses the value of a variable like a value in the file: unquoted, `1e5` is a number and ends its start.
function quote(value: string): string {
  return `"${value.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`
}

type MajorAndMinor = readonly [number, number]

function majorAndMinor(version: string): MajorAndMinor {
  const match = /^v?(\d+)\.(\d+)/.exec(version)
  if (match === null) throw new RangeError(`version of nats-server: ${JSON.stringify(version)}`)
  return [Number(match[1]), Number(match[2])]
}

function isBefore(a: MajorAndMinor, b: MajorAndMinor): boolean {
  return a[0] < b[0] || (a[0] === b[0] && a[1] < b[1])
}
