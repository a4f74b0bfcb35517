/** `--fastdfs-conf`: the flags of a role, completed by FastDFS's own files. What the command line says wins. */
import { networkInterfaces } from 'node:os'
import { resolve } from 'node:path'
import type { Command } from 'commander'
import { readStorageIds } from '../runtime/conf-file.ts'
import { realWorld } from '../runtime/real-world.ts'
import type { Sockets } from '../runtime/world.ts'
import { type ConfRole, findStorageId, type Note, noteOfMode, readSettings, whatOf } from './fastdfs-conf.ts'
import { isEverywhere, type PortFlags, roleLog } from './role.ts'

interface ConfFlags extends PortFlags {
  readonly fastdfsConf: readonly string[]
  readonly group?: string
}

/** Where a value comes from, in commander's words. */
const CONF = 'config'

export function addConfFlag(command: Command, files: string): Command {
  return command.option(
    '--fastdfs-conf <file...>',
    `FastDFS's ${files}: what has a meaning here is taken, the rest is logged; other flags win`,
    [],
  )
}

/**
 * The flags of a role with what the files add; logs what they ignore. One of the `required` options that is still missing
 * ends the program. Rejects with an Error that names file and line.
 */
export async function completeFlags<F extends PortFlags>(
  command: Command,
  role: ConfRole,
  required: readonly string[] = [],
): Promise<F> {
  const notes = await takeConf(command, role)
  const missing = command.options.find(o => {
    return required.includes(o.attributeName()) && command.getOptionValue(o.attributeName()) === undefined
  })
  if (missing !== undefined) command.error(`error: required option '${missing.flags}' not specified`)
  const log = roleLog(role)
  for (const { level, what, why } of notes) log[level](what, `configuration: ${why}`)
  return command.opts<F>()
}

async function takeConf(command: Command, role: ConfRole): Promise<readonly Note[]> {
  const { disk, sockets } = realWorld()
  const isOpen = (option: string) => ['default', undefined].includes(command.getOptionValueSource(option))
  const set = (option: string, value: unknown) => command.setOptionValueWithSource(option, value, CONF)
  const paths = command.opts<ConfFlags>().fastdfsConf.map(path => resolve(path))
  if (paths.length === 0) return []
  const settings = await readSettings(role, paths, disk)
  const notes = [...settings.notes]
  for (const [option, { value, entry }] of settings.options) {
    if (isOpen(option)) set(option, value)
    else notes.push({ level: 'info', what: { ...whatOf(entry), option }, why: 'the command line says otherwise' })
  }
  const own = await ownAddresses(command.opts<ConfFlags>(), sockets)
  let advertise = own[0]
  if (settings.storageIdsPath !== undefined && isOpen('id')) {
    const { group, port } = command.opts<ConfFlags>()
    const lines = await readStorageIds(disk, settings.storageIdsPath)
    const line = await findStorageId(lines, { group, port, addresses: own }, host => sockets.resolve(host))
    set('id', line.storageId)
    set('storageIds', lines)
    set('group', line.group)
    advertise = line.hosts[0]
    notes.push(...noteOfMode(line))
  }
  // FastDFS's trackers tell the address that they are called from; ours tell what they are told.
  const { bind } = command.opts<ConfFlags>()
  if (isEverywhere(bind) && command.getOptionValueSource('bind') === CONF && isOpen('advertise')) {
    set('advertise', advertise)
    const level = own.length > 1 ? 'warn' : 'info'
    notes.push({ level, what: { advertise, own }, why: 'others are told this address; --advertise names another' })
  }
  return notes
}

/** What this host may be known as: the address that is listened on, or all it has, those of IPv4 first. */
async function ownAddresses({ bind, advertise }: ConfFlags, sockets: Sockets): Promise<string[]> {
  const hosts = isEverywhere(bind) ? outwardAddresses() : [bind]
  if (advertise !== undefined) hosts.push(advertise)
  return Promise.all(hosts.map(host => sockets.resolve(host).catch(() => host)))
}

/** The addresses that others can reach; loopback where there is no network. */
function outwardAddresses(): string[] {
  const all = Object.values(networkInterfaces()).flatMap(ofOne => ofOne ?? [])
  const outward = all.filter(({ internal, address }) => !internal && !/^(fe80:|169\.254\.)/.test(address))
  const [v4, v6] = ['IPv4', 'IPv6'].map(family => outward.filter(of => of.family === family).map(of => of.address))
  return outward.length === 0 ? ['127.0.0.1'] : [...v4!, ...v6!]
}
