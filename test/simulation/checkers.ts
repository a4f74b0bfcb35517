/**
 * What must be true of the disks and the processes, whatever the clients saw. Each checker calls `wrong` with what it
 * found; the simulation stops at the first.
 */
import { crc32c } from '@node-rs/crc32'
import { type BinlogRecord, decodeRecord } from '../../protocol/binlog-record.ts'
import { decodeFileName } from '../../protocol/file-id.ts'
import { IN_FLIGHT_BYTES_MAX } from '../../store/block-pool.ts'
import { isGoodOn, pathOf, plainNames, slotNames, type View } from './disk-view.ts'
import type { Ledger } from './ledger.ts'
import { DATA_DIRECTORY, type Machine, type SimCluster, STORAGES, STORE_PATHS } from './sim-cluster.ts'
import type { Acknowledged } from './workload.ts'

type Wrong = (what: string) => void

/** Files an idle storage server keeps open beside its segments: its binlog, its lock, and a checkpoint that may be on its way. */
const IDLE_HANDLES_MAX = 4
/** Sync windows to four peers, and every connection's file: more than this and handles leak. */
const HANDLES_MAX = 1_000

/** Marks say what a peer has durably applied: none may say more than is on the peer's disk, or than the source has. */
export function checkMarks(cluster: SimCluster, wrong: Wrong): void {
  for (const source of storageMachines(cluster)) {
    for (const path of source.disk.files(`${DATA_DIRECTORY}/marks`)) {
      const mark = document(source.disk.read(path)) as
        | { peer: number; peerIncarnation: string; epoch: number; sequence: number; shipped: number }
        | undefined
      const peer = mark && storageMachines(cluster).find(({ name }) => STORAGES.get(name)!.storageId === mark.peer)
      if (mark === undefined || peer === undefined || peer.lostRecord || source.lostRecord) continue
      const identity = document(peer.disk.read(`${DATA_DIRECTORY}/identity`, 'durable')) as
        | { incarnation: string }
        | undefined
      // A mark of a peer that lost its disk since is of no use to anybody, and true of the disk that is gone.
      if (identity?.incarnation !== mark.peerIncarnation) continue
      const { storageId } = STORAGES.get(source.name)!
      // Where a start has set its position back, the peer will say so itself.
      const applied = appliedOf(peer, storageId, mark.epoch, { ever: true })
      if (mark.shipped > applied) {
        wrong(
          `${source.name} has marked record ${mark.shipped} of epoch ${mark.epoch} as applied by ${peer.name}, which surely has ${applied}`,
        )
      }
      const records = recordsOf(source, 'durable').filter(({ epoch }) => epoch === mark.epoch)
      const end = records.at(-1)?.sequence ?? 0
      if (records.length > 0 && mark.sequence > end) {
        wrong(
          `${source.name} has marked ${mark.sequence} of epoch ${mark.epoch} for ${peer.name}, but its binlog surely ends at ${end}`,
        )
      }
    }
  }
}

/** Every record of a source is in a peer's binlog once, and in the source's order. */
export function checkOrder(cluster: SimCluster, wrong: Wrong): void {
  for (const machine of storageMachines(cluster)) {
    const last = new Map<string, number>()
    let previous = { epoch: 0, sequence: 0 }
    for (const record of recordsOf(machine, 'now')) {
      const { epoch, sequence, origin, op } = record
      if (epoch === previous.epoch && sequence <= previous.sequence) {
        wrong(`record ${sequence} of ${machine.name} stands behind ${previous.sequence}`)
      }
      previous = record
      // A record whose effect failed is shipped again, and recorded again.
      if (origin === undefined || machine.hadErrors) continue
      // Across the peer's own epochs a source may have to send again what was lost.
      const key = `${epoch} ${origin.storageId} ${origin.epoch}`
      // Metadata that comes with its file stands at the place before.
      if (op === 'u' && origin.sequence === (last.get(key) ?? 0)) continue
      if (origin.sequence <= (last.get(key) ?? 0)) {
        wrong(
          `${machine.name} has applied record ${origin.sequence} of storage server ${origin.storageId} again, after ${last.get(key)}`,
        )
      }
      last.set(key, origin.sequence)
    }
  }
}

/** A file gets its name when its record is durable, and not before: at any moment. */
export function checkRecordsFirst(cluster: SimCluster, wrong: Wrong): void {
  for (const machine of storageMachines(cluster)) {
    if (machine.lostRecord) continue
    const recorded = new Set(recordsOf(machine, 'durable').map(({ name }) => name))
    // The bytes of a slot come before its record; that nobody knows of them is all there is to it.
    for (const name of plainNames(machine.disk)) {
      if (!recorded.has(name)) wrong(`${machine.name} has given ${name} its name before its record was durable`)
    }
  }
}

/**
 * An upload is durable on as many members as its receipt says, at that moment, and on as many as it asked for: at least of
 * those that its source has shipped to before, and so must know.
 */
export function checkAcknowledged(
  cluster: SimCluster,
  { file, receipt, ack, begunMs }: Acknowledged,
  wrong: Wrong,
): void {
  if (receipt.replicas === 1 && ack === 'one') return
  const group = storageMachines(cluster).filter(({ name }) => STORAGES.get(name)!.group === file.group)
  const source = group.find(({ name }) => STORAGES.get(name)!.storageId === receipt.source)!
  const paths = source.disk.files(`${DATA_DIRECTORY}/marks`).filter(path => /\/\d+$/.test(path))
  const marks = paths.filter(path => document(source.disk.read(path)) !== undefined)
  const known = 1 + marks.length
  const needed = { one: 1, quorum: Math.floor(known / 2) + 1, all: known }[ack]
  if (receipt.replicas < needed) {
    wrong(`${file.fileId} was acknowledged by ${receipt.replicas} members, and ${ack} of ${known} are ${needed}`)
  }
  // What a member lost since the upload was sent, it may have held.
  const holders = group.filter(member => member.harmedMs >= begunMs || hasDurably(member, file.name))
  if (holders.length < receipt.replicas) {
    const found = holders.map(({ name }) => name).join(', ')
    wrong(`${file.fileId} was acknowledged as held by ${receipt.replicas} members, and is durable on ${found}`)
  }
}

/** A plain file is durable before its record, under a name that only its record tells. */
function hasDurably(machine: Machine, name: string): boolean {
  const record = recordsOf(machine, 'durable').find(record => record.name === name)
  return record?.inSlot ? isGoodOn(machine.disk, name, 'durable') : record?.token !== undefined
}

/** Nothing grows past its limit while it works. */
export function checkLimits(cluster: SimCluster, wrong: Wrong): void {
  for (const { name, life, server, disk } of storageMachines(cluster)) {
    if (life === undefined || server === undefined) continue
    const { takenBytes } = server.storage.blocks
    if (takenBytes > IN_FLIGHT_BYTES_MAX) wrong(`${name} has ${takenBytes} bytes in flight`)
    const handles = disk.openHandles(life)
    if (handles > HANDLES_MAX) wrong(`${name} has ${handles} files open`)
  }
}

/** An idle server holds nothing. */
export function checkIdle(cluster: SimCluster, wrong: Wrong): void {
  for (const { name, life, server, disk } of storageMachines(cluster)) {
    if (life === undefined || server === undefined) {
      wrong(`${name} does not run`)
      continue
    }
    const { takenBytes } = server.storage.blocks
    if (takenBytes > 0) wrong(`${name} is idle and holds ${takenBytes} bytes of blocks`)
    const handles = disk.openHandles(life)
    const segments = STORE_PATHS.flatMap(path => disk.files(`${path}/segments`)).length
    if (handles > IDLE_HANDLES_MAX + segments) wrong(`${name} is idle and has ${handles} files open`)
    const waiting = STORE_PATHS.flatMap(path => disk.files(`${path}/tmp`))
    // What came to nothing while the server lived on may wait for its next start; what is complete may not.
    const { failure, storePaths } = server.storage.store
    if (failure !== undefined || storePaths.some(path => !path.writable)) wrong(`${name} is not sound after all`)
    if (waiting.length > 64) wrong(`${name} has ${waiting.length} temporary files`)
  }
}

/**
 * Whether all members of each group hold the same files: whatever their sources have recorded, and nothing they have
 * deleted. Returns the first differences; none means that the group has converged.
 */
export function differences(cluster: SimCluster, ledger: Ledger): string[] {
  const found: string[] = []
  for (const source of storageMachines(cluster)) {
    const { group, storageId } = STORAGES.get(source.name)!
    const { live, deleted } = ownFiles(source)
    for (const member of storageMachines(cluster)) {
      if (STORAGES.get(member.name)!.group !== group) continue
      const files = new Set(filesOf(member))
      for (const name of live) {
        // A source whose own copy is bad has none to give.
        if (files.has(name) || ledger.isExcused(name) || wasRefused(source, name, ledger)) continue
        if (member === source || isGoodOn(source.disk, name, 'now'))
          found.push(`${member.name} lacks ${name} of ${source.name}`)
      }
      for (const name of deleted) {
        if (files.has(name) && !ledger.isExcused(name))
          found.push(`${member.name} still has ${name}, deleted by ${source.name}`)
      }
    }
    // A source in its first epoch never lost anything: what its peers have of it, it has recorded itself.
    if (source.server?.storage.store.epoch !== 1 || source.lostRecord) continue
    for (const member of storageMachines(cluster)) {
      for (const name of filesOf(member)) {
        if (decodeFileName(name).storageId !== storageId || live.has(name) || ledger.isExcused(name)) continue
        if (isUnfinishedSlot(member, name)) continue
        found.push(`${member.name} has ${name}, of which ${source.name} has no record`)
      }
    }
  }
  return found
}

/** Once recovered, no file is without a record, and no record without its file. */
export function checkRecords(cluster: SimCluster, ledger: Ledger, wrong: Wrong): void {
  for (const machine of storageMachines(cluster)) {
    const last = new Map<string, BinlogRecord>()
    for (const record of recordsOf(machine, 'now')) if (/[CDcd]/.test(record.op)) last.set(record.name, record)
    const files = new Set(filesOf(machine))
    for (const name of files) {
      const op = last.get(name)?.op
      if (op === 'C' || op === 'c' || ledger.isExcused(name) || machine.lostRecord || isUnfinishedSlot(machine, name))
        continue
      wrong(`${machine.name} has ${name}, whose last record is ${op ?? 'none'}`)
    }
    for (const [name, { op, token, inSlot }] of last) {
      // A record that was applied without its file is one whose file was deleted, or damaged, at its source.
      const isThere = op === 'C' || (op === 'c' && (token !== undefined || inSlot))
      if (isThere && !files.has(name) && !ledger.isExcused(name) && !wasRefused(machine, name, ledger))
        wrong(`${machine.name} has a record of ${name}, and no file`)
    }
  }
}

/** An upload that failed on a failing disk, and of which nobody was told, may leave its record behind. */
function wasRefused(machine: Machine, name: string, ledger: Ledger): boolean {
  return machine.hadErrors && !ledger.isKnown(name)
}

/** Every file that was acknowledged and not deleted is whole on a disk of its group. */
export function checkKept(cluster: SimCluster, ledger: Ledger, wrong: Wrong): void {
  for (const { name, group, fileId, state } of ledger.files) {
    if (state !== 'present' || ledger.isExcused(name)) continue
    const members = storageMachines(cluster).filter(machine => STORAGES.get(machine.name)!.group === group)
    if (!members.some(machine => isGoodOn(machine.disk, name, 'now'))) {
      wrong(
        `${fileId} was acknowledged, and is on no disk: ${members.map(m => `${m.name} ${m.disk.read(pathOf(name))?.length}`).join(', ')}`,
      )
    }
  }
}

/** How many records say that a slot was used again. */
export function countReused(cluster: SimCluster): number {
  const records = storageMachines(cluster).flatMap(machine => recordsOf(machine, 'now'))
  return records.filter(({ op, reused }) => op === 'C' && reused).length
}

/** All machines that run a storage server. */
export function storageMachines(cluster: SimCluster): Machine[] {
  return [...STORAGES.keys()].map(name => cluster.machine(name))
}

/** Names of all files on a machine. */
function filesOf({ disk }: Machine): string[] {
  return [...plainNames(disk), ...slotNames(disk)]
}

/**
 * A slot that was being written when its server died: torn, or of a peer, whose source ships it again. Nobody was told of
 * it, and there is no record of it.
 */
function isUnfinishedSlot(machine: Machine, name: string): boolean {
  const { slot, storageId } = decodeFileName(name)
  if (slot === undefined || recordsOf(machine, 'now').some(record => record.name === name)) return false
  return storageId !== STORAGES.get(machine.name)!.storageId || !isGoodOn(machine.disk, name, 'now')
}

/** What a source's records of its present epoch say of its own files, its own and those of who had them meanwhile. */
function ownFiles(machine: Machine): { live: Set<string>; deleted: Set<string> } {
  const live = new Set<string>()
  const deleted = new Set<string>()
  const records = recordsOf(machine, 'now')
  const epoch = records.reduce((max, record) => Math.max(max, record.epoch), 0)
  for (const record of records) {
    if (record.epoch !== epoch) continue
    if (record.op === 'S' || decodeFileName(record.name).storageId !== STORAGES.get(machine.name)!.storageId) continue
    if (record.op === 'C' || (record.op === 'c' && record.token !== undefined)) {
      live.add(record.name)
      deleted.delete(record.name)
    }
    if (record.op === 'D' || record.op === 'd') {
      live.delete(record.name)
      deleted.add(record.name)
    }
  }
  return { live, deleted }
}

/** How far a peer has surely applied a source's epoch, or `ever` had, before a start set its position back. */
export function appliedOf(peer: Machine, storageId: number, epoch: number, { ever = false } = {}): number {
  let applied = 0
  for (const { op, origin } of recordsOf(peer, 'durable')) {
    if (origin?.storageId !== storageId || origin.epoch !== epoch) continue
    applied = op === 'S' && !ever ? origin.sequence : Math.max(applied, origin.sequence)
  }
  const checkpoint = document(peer.disk.read(`${DATA_DIRECTORY}/checkpoint`, 'durable')) as
    | { positions: { storageId: number; epoch: number; sequence: number }[] }
    | undefined
  for (const position of checkpoint?.positions ?? []) {
    if (position.storageId === storageId && position.epoch === epoch) applied = Math.max(applied, position.sequence)
  }
  return applied
}

/** All records of a machine that can be read, oldest first. */
export function recordsOf({ disk }: Machine, view: View): BinlogRecord[] {
  const records: BinlogRecord[] = []
  for (const path of disk.files(`${DATA_DIRECTORY}/binlog`)) {
    for (const line of (disk.read(path, view) ?? Buffer.alloc(0)).toString('latin1').split('\n')) {
      const record = parse(line)
      if (record !== undefined) records.push(record)
    }
  }
  return records
}

const parsed = new Map<string, BinlogRecord | undefined>()

/** The same lines are looked at again and again. */
function parse(line: string): BinlogRecord | undefined {
  if (line === '') return undefined
  if (parsed.has(line)) return parsed.get(line)
  const record = decodeRecord(line)
  if (parsed.size > 100_000) parsed.clear()
  parsed.set(line, record)
  return record
}

export function document(bytes: Buffer | undefined): unknown {
  const [json = '', check = ''] = (bytes ?? Buffer.alloc(0)).toString().split('\n')
  return json !== '' && crc32c(json).toString(16).padStart(8, '0') === check ? JSON.parse(json) : undefined
}
