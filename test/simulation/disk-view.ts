/** What is on a machine's disks: file names and copies, in files of their own and in slots of segments. */
import { crc32 } from '@node-rs/crc32'
import { decodeFileName, type FileNameParts, metadataNameOf, nameAt } from '../../protocol/file-id.ts'
import { BLOCK_BYTES } from '../../store/block-pool.ts'
import { hasSidecar, SidecarWriter, sidecarPath } from '../../store/sidecar.ts'
import { nameOfSlot, readSlotHeader, SLOT_ALIGNMENT, stateOf } from '../../store/slot.ts'
import { STORE_PATHS } from './sim-cluster.ts'
import type { SimDisk } from './sim-disk.ts'

export type View = 'now' | 'durable'

/** The file name of a path below a store path; undefined for whatever has none. Sidecar and metadata go with their file. */
export function nameOf(path: string): string | undefined {
  const match = /^\/store(\d)\/data\/(..\/..)\/([^~]+?)(?:~sum|~sum\.new|-m)?$/.exec(path)
  if (match === null) return undefined
  const [, index, directory, baseName] = match
  return nameAt(Number(index), directory!, baseName!)
}

/** Where a file of this name lies on every member. */
export function pathOf(name: string): string {
  const { storePathIndex, directory, baseName, storageId, slot } = decodeFileName(name)
  const root = STORE_PATHS[storePathIndex]
  if (slot === undefined) return `${root}/data/${directory}/${baseName}`
  return `${root}/segments/${storageId}/${String(slot.segmentId).padStart(10, '0')}`
}

/** Where the metadata of a file lies on every member. */
export function metadataPathOf(name: string): string {
  const { storePathIndex, directory, baseName } = decodeFileName(name)
  return metadataNameOf(`${STORE_PATHS[storePathIndex]}/data/${directory}/${baseName}`)
}

/** Names of all files in files of their own. */
export function plainNames(disk: SimDisk): string[] {
  const paths = STORE_PATHS.flatMap(path => disk.files(`${path}/data`))
  return paths.filter(path => !/~|-m$/.test(path)).flatMap(path => nameOf(path) ?? [])
}

/** Names of all files in slots, whether their bytes are good or not. */
export function slotNames(disk: SimDisk): string[] {
  return STORE_PATHS.flatMap(path => disk.files(`${path}/segments`)).flatMap(path => namesIn(disk, path))
}

/** Names of the files in a segment. Between slots may be room for some that never came. */
function namesIn(disk: SimDisk, path: string): string[] {
  const [, index, storageId, segmentId] = /^\/store(\d)\/segments\/(\d+)\/(\d{10})$/.exec(path) ?? []
  const bytes = disk.read(path) ?? Buffer.alloc(0)
  const names: string[] = []
  let offsetBytes = 0
  while (offsetBytes < bytes.length) {
    const header = readSlotHeader(bytes.subarray(offsetBytes))
    const place = { storePathIndex: Number(index), storageId: Number(storageId), segmentId: Number(segmentId) }
    if (header?.isFree === false) names.push(nameOfSlot({ ...place, offsetBytes }, header))
    offsetBytes += header?.slotBytes ?? SLOT_ALIGNMENT
  }
  return names
}

/** Whether what a disk has under a name is what the name says, its sidecar included. */
export function isGoodOn(disk: SimDisk, name: string, view: View): boolean {
  const file = decodeFileName(name)
  const path = pathOf(name)
  const bytes = disk.read(path, view)
  if (bytes === undefined) return false
  if (file.slot !== undefined) return stateOf(slotIn(bytes, file), file) === 'present'
  // Of others than plain files only the sidecar says what they have to be.
  const { sizeBytes = bytes.length } = file
  if (file.sizeBytes !== undefined && (bytes.length !== sizeBytes || crc32(bytes) !== file.crc32)) return false
  const isAlone = file.sizeBytes !== undefined && !hasSidecar(sizeBytes)
  return isAlone || disk.read(sidecarPath(path), view)?.equals(sidecarOf(bytes)) === true
}

/** Whether the slot of a name says that its file was deleted. */
export function isFreedOn(disk: SimDisk, name: string): boolean {
  const file = decodeFileName(name)
  const bytes = disk.read(pathOf(name))
  return bytes !== undefined && file.slot !== undefined && stateOf(slotIn(bytes, file), file) === 'deleted'
}

/** What is in the place of a file's slot, as far as the segment goes. */
export function slotIn(segment: Buffer, { slot }: FileNameParts): Buffer {
  const { offsetBytes, slotBytes } = slot!
  return segment.subarray(offsetBytes, offsetBytes + slotBytes)
}

/** The sidecar that belongs to a file's bytes. */
export function sidecarOf(bytes: Buffer): Buffer {
  const sums = new SidecarWriter()
  for (let at = 0; at < bytes.length; at += BLOCK_BYTES) sums.add(bytes.subarray(at, at + BLOCK_BYTES))
  return sums.encode(bytes.length)
}
