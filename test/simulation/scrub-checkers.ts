/** What the scrub owes: it never calls a good file bad, and finds every bad one that is there. */
import { crc32 } from '@node-rs/crc32'
import { decodeFileName, fileOfMetadata, metadataNameOf } from '../../protocol/file-id.ts'
import { readInt64 } from '../../protocol/frame.ts'
import { decodeMetadata } from '../../store/metadata-file.ts'
import { hasSidecar, SIDECAR_HEADER_BYTES, sidecarPath } from '../../store/sidecar.ts'
import { isDamagedHeaderOf, isHeaderOf, readSlotHeader, SLOT_HEADER_BYTES, stateOf } from '../../store/slot.ts'
import { recordsOf, storageMachines } from './checkers.ts'
import { isGoodOn, metadataPathOf, pathOf, sidecarOf, slotIn } from './disk-view.ts'
import type { Machine, SimCluster } from './sim-cluster.ts'
import type { SimDisk } from './sim-disk.ts'

type Wrong = (what: string) => void

/** What was bad since the mending is known after so many passes. */
const PASSES = 2

/** In a sidecar's header, what nobody reads, and the size of the file. */
const RESERVED_BYTES = { from: 12, until: 16 }
const SIZE_AT = 16

/** Looks at each file that is called bad once, soon after. */
export class ScrubChecker {
  readonly #seen = new Set<string>()

  check(cluster: SimCluster, wrong: Wrong): void {
    for (const { name: machine, server, disk } of storageMachines(cluster)) {
      for (const { name, part } of server?.storage.quarantine.files ?? []) {
        const key = `${machine} ${name}`
        if (this.#seen.has(key)) continue
        this.#seen.add(key)
        const file = fileOfMetadata(name)
        const isGood = file === undefined ? isGoodOn(disk, name, 'now') : !isBadMetadata(disk, file)
        if (isGood) wrong(`${machine} calls ${name} bad (${part}), and it is good`)
      }
    }
  }
}

/** How many passes each server has made in this life. */
export function passesOf(cluster: SimCluster): ReadonlyMap<string, number> {
  return new Map(storageMachines(cluster).map(({ name, server }) => [name, server?.scrub.counts().scrubPasses ?? 0]))
}

/** Every bad file is known, and nothing else is, when some passes have been made since. */
export function checkFound(cluster: SimCluster, before: ReadonlyMap<string, number>, wrong: Wrong): void {
  for (const machine of storageMachines(cluster)) {
    const { name, server } = machine
    if (server === undefined) continue
    const passes = server.scrub.counts().scrubPasses - before.get(name)!
    if (passes < PASSES) wrong(`${name} has made ${passes} passes while it was idle`)
    const { quarantine } = server.storage
    const bad = new Set(badFiles(machine))
    for (const file of bad) if (!quarantine.has(file)) wrong(`${name} has not found that ${file} is bad`)
    for (const { name: file, part } of quarantine.files) {
      if (!bad.has(file)) wrong(`${name} still calls ${file} bad (${part})`)
    }
  }
}

/** The files a machine has, by its records, and has as something else. */
function badFiles(machine: Machine): string[] {
  const live = new Set<string>()
  for (const { op, name, token, inSlot } of recordsOf(machine, 'now')) {
    if (op === 'C' || (op === 'c' && (token !== undefined || inSlot))) live.add(name)
    if (op === 'D' || op === 'd') live.delete(name)
  }
  const { disk } = machine
  const files = [...live].filter(name =>
    decodeFileName(name).slot === undefined ? isBadPlain(disk, name) : isBadSlot(disk, name),
  )
  return [...files, ...[...live].filter(name => isBadMetadata(disk, name)).map(metadataNameOf)]
}

function isBadMetadata(disk: SimDisk, name: string): boolean {
  const bytes = disk.read(metadataPathOf(name))
  return bytes !== undefined && decodeMetadata(bytes) === undefined
}

function isBadPlain(disk: SimDisk, name: string): boolean {
  const { sizeBytes, crc32: sum } = decodeFileName(name)
  const whole = disk.read(pathOf(name))
  if (whole === undefined) return false
  const bytes = whole.subarray(0, sizeBytes)
  if (sizeBytes !== undefined && (bytes.length !== sizeBytes || crc32(bytes) !== sum)) return true
  if (sizeBytes !== undefined && !hasSidecar(sizeBytes)) return false
  const sidecar = disk.read(sidecarPath(pathOf(name)))
  if (sidecar === undefined || sidecar.length < SIDECAR_HEADER_BYTES) return true
  // Of files that change only the sidecar says how long they are.
  const size = sizeBytes ?? readInt64(sidecar, SIZE_AT)
  if (size > bytes.length) return true
  const expected = sidecarOf(bytes.subarray(0, size))
  sidecar.copy(expected, RESERVED_BYTES.from, RESERVED_BYTES.from, RESERVED_BYTES.until)
  return !sidecar.equals(expected)
}

function isBadSlot(disk: SimDisk, name: string): boolean {
  const file = decodeFileName(name)
  const slot = slotIn(disk.read(pathOf(name)) ?? Buffer.alloc(0), file)
  const head = slot.subarray(0, SLOT_HEADER_BYTES)
  // What was never written is not there.
  if (head.length < SLOT_HEADER_BYTES || head.every(byte => byte === 0)) return false
  const header = readSlotHeader(slot)
  if (header === undefined) return true
  // One that differs in more is that of another file.
  if (header.isFree || (!isHeaderOf(header, file) && !isDamagedHeaderOf(header, file))) return false
  return stateOf(slot, file) === 'corrupt'
}
