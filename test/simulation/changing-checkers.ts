/** What must be true of names that may change: their histories, and what the disks have of them. */
import { decodeFileName } from '../../protocol/file-id.ts'
import { readMetadata, textsOf } from '../../protocol/metadata.ts'
import { decodeMetadata } from '../../store/metadata-file.ts'
import type { Promised } from '../../store/orderer-file.ts'
import { SLOT_HEADER_BYTES } from '../../store/slot.ts'
import { appliedOf, document, recordsOf, storageMachines } from './checkers.ts'
import { isGoodOn, metadataPathOf, pathOf, slotIn } from './disk-view.ts'
import { type FileState, type History, isSame, metadataText, NOTHING, tell } from './history.ts'
import type { Ledger } from './ledger.ts'
import type { Reigns } from './reigns.ts'
import { DATA_DIRECTORY, type Machine, type SimCluster, STORAGES } from './sim-cluster.ts'

type Wrong = (what: string) => void

const ALONE = 'metadata without its file'

/** Members that do not have what their source has, of all names that may change. */
export function changingDifferences(cluster: SimCluster, ledger: Ledger): string[] {
  return ledger.histories.flatMap(history => {
    if (ledger.isExcused(history.name)) return []
    const [source, ...peers] = membersOf(cluster, history)
    // A source that has lost its copy does not get it back, and ships none.
    if (ledger.isSpoilt(source!.name, history.name)) return []
    const here = stateOn(source!, history)
    if (typeof here === 'string') return [`${history.name} at its source ${source!.name}: ${here}`]
    return peers.flatMap(peer => {
      if (ledger.isSpoilt(peer.name, history.name)) return []
      const there = stateOn(peer, history)
      if (typeof there === 'string') return [`${history.name} at ${peer.name}: ${there}`]
      return isSame(here, there)
        ? []
        : [`${peer.name} has ${history.name} with ${tell(there)}, ${source!.name} with ${tell(here)}`]
    })
  })
}

/** Some order of all operations explains all answers, and what the members have in the end. */
export function checkHistories(cluster: SimCluster, ledger: Ledger, reigns: Reigns, wrong: Wrong): void {
  for (const history of ledger.histories) {
    if (ledger.isExcused(history.name)) continue
    const found = history.check(reigns.of(history.source, history.name))
    if ('wrong' in found) {
      wrong(`${history.fileId}: ${found.wrong}`)
      continue
    }
    const [source, ...peers] = membersOf(cluster, history)
    const isLost = ledger.isSpoilt(source!.name, history.name)
    for (const member of [source!, ...peers]) {
      if (ledger.isSpoilt(member.name, history.name)) continue
      const state = stateOn(member, history)
      // A source that cannot read its own copy has none to give.
      if (isLost && (state === ALONE || (typeof state !== 'string' && state.content === undefined))) continue
      if (typeof state !== 'string' && found.states.some(known => isSame(known, state))) continue
      const expected = found.states.slice(0, 8).map(tell).join(', or ')
      wrong(
        `${member.name} has ${history.fileId} with ${typeof state === 'string' ? state : tell(state)}, and not ${expected}`,
      )
    }
  }
}

/** What is still unsettled about who orders the changes of whose files: in the end each source does of its own. */
export function unsettled(cluster: SimCluster): string[] {
  return storageMachines(cluster).flatMap(({ name, server, disk }) => {
    const { storageId } = STORAGES.get(name)!
    const found = document(disk.read(`${DATA_DIRECTORY}/orderers`)) as Promised | undefined
    if (found?.isAlone === true) return [`${name} thinks that it is alone`]
    if (found !== undefined && found.promised !== found.table.term) return [`${name} has promised a round, and no more`]
    if (server?.storage.orders(storageId) !== true) return [`${name} does not order its own files`]
    return []
  })
}

/** Members that order the changes of the same files at the same time. */
export function doubleOrderers(cluster: SimCluster): string[] {
  return [...STORAGES].flatMap(([source, { storageId, group }]) => {
    const members = storageMachines(cluster).filter(({ name }) => STORAGES.get(name)!.group === group)
    const orderers = members.filter(({ server }) => server?.storage.orders(storageId) === true)
    return orderers.length > 1 ? [`${orderers.map(({ name }) => name).join(' and ')} order the files of ${source}`] : []
  })
}

/** Whether all peers surely have everything that was done to a name, and good. */
export function isLevel(cluster: SimCluster, ledger: Ledger, history: History): boolean {
  const [source, ...peers] = membersOf(cluster, history)
  if (history.open > 0 || ledger.isSpoilt(source!.name, history.name)) return false
  const last = recordsOf(source!, 'now').findLast(({ name, origin }) => name === history.name && origin === undefined)
  if (last === undefined) return false
  return peers.every(
    peer => !ledger.isSpoilt(peer.name, history.name) && appliedOf(peer, history.source, last.epoch) >= last.sequence,
  )
}

/** The members of a name's group, its source first. */
function membersOf(cluster: SimCluster, { group, source }: History): Machine[] {
  const members = storageMachines(cluster).filter(({ name }) => STORAGES.get(name)!.group === group)
  const isSource = ({ name }: Machine) => STORAGES.get(name)!.storageId === source
  return [...members.filter(isSource), ...members.filter(member => !isSource(member))]
}

/** What a member's disk has under a name, or what is wrong with it. */
function stateOn({ disk }: Machine, { name }: History): FileState | string {
  const file = decodeFileName(name)
  const path = pathOf(name)
  const { slot } = file
  const besides = disk.read(metadataPathOf(name))
  const bytes = disk.read(path)
  const isThere = slot === undefined ? bytes !== undefined : isGoodOn(disk, name, 'now')
  if (!isThere) return besides === undefined ? NOTHING : ALONE
  if (!isGoodOn(disk, name, 'now')) return 'a copy that is not what its sidecar says'
  const metadata = besides === undefined ? Buffer.alloc(0) : decodeMetadata(besides)
  if (metadata === undefined) return 'metadata that fails its check'
  const content =
    slot === undefined ? bytes! : slotIn(bytes!, file).subarray(SLOT_HEADER_BYTES, SLOT_HEADER_BYTES + file.sizeBytes!)
  return { content, metadata: metadataText(textsOf(readMetadata(metadata))) }
}
