/**
 * Valid frames for both ports: what was captured from a real FastDFS, and every command of ours, private ones too. Where
 * a frame names a file, it is one that this cluster has, or had.
 */
import {
  writeChange,
  writeDownload,
  writeGroupAndName,
  writeLink,
  writeSetMetadata,
  writeSlave,
  writeUploadFields,
  writeUploadHead,
  writeUploadStream,
} from '../../protocol/data-bodies.ts'
import { decodeFileName } from '../../protocol/file-id.ts'
import { COMMANDS, frame } from '../../protocol/frame.ts'
import { writeSyncPosition, writeSyncRecord, writeSyncRun } from '../../protocol/sync-bodies.ts'
import { EXCHANGES } from '../fastdfs-golden.ts'
import type { SeededRandom } from '../simulation/seeded-random.ts'

export type Port = 'tracker' | 'storage'
export type Role = 'anonymous' | 'client'

/** Kinds of names: `plain` and `appender` ones have 44 characters, as FastDFS's without trunk files. */
export type Kind = 'plain' | 'appender' | 'segment' | 'slave'

/** A name of a kind, if there is one. */
export type PickName = (kind: Kind) => string

/** Makes a valid request: one frame, or several that belong together. */
export type Template = (pick: PickName, random: SeededRandom) => Buffer

const GROUP = 'group1'
const NAME = /M[0-9A-F]{2}\/[0-9A-F]{2}\/[0-9A-F]{2}\/[\w.-]{34}/g
const SIZES = [0, 1, 13, 13, 500, 3_000, 5_000, 20_000]
/** Once in so many uploads: more than a block. */
const LARGE_ONE_IN = 200
const LARGE_BYTES = 300_000
const KINDS: readonly Kind[] = ['plain', 'segment', 'appender', 'slave']

/** What was captured, with names of ours. */
const golden = (port: Port): Template[] =>
  EXCHANGES.filter(({ name }) => name.startsWith('s.') === (port === 'storage')).map(({ request }) => pick => {
    const text = Buffer.from(request, 'hex').toString('latin1')
    const ours = (name: string) => {
      try {
        return pick(decodeFileName(name).kind)
      } catch {
        // Not the name of a file: one of the requests asks for such a one.
        return name
      }
    }
    return Buffer.from(text.replace(NAME, ours), 'latin1')
  })

const named =
  (command: number): Template =>
  (pick, random) =>
    frame(command, writeGroupAndName(GROUP, pick(random.pick(KINDS))))

const plain =
  (command: number, bytes = 0): Template =>
  (_, random) =>
    frame(command, random.bytes(bytes))

const ofGroup =
  (command: number, rest = ''): Template =>
  () =>
    frame(command, writeGroupAndName(GROUP, rest))

const TRACKER: readonly Template[] = [
  ...golden('tracker'),
  named(COMMANDS.queryFetch),
  named(COMMANDS.queryUpdate),
  named(COMMANDS.queryFetchAll),
  ofGroup(COMMANDS.queryStoreWithGroupAll),
  ofGroup(COMMANDS.listStorage, '1'),
  ofGroup(COMMANDS.listStorage, '127.0.0.1'),
  ofGroup(COMMANDS.deleteStorage, '77'),
  ofGroup(COMMANDS.deleteGroup),
  ofGroup(COMMANDS.setTrunkServer, '1'),
  ofGroup(COMMANDS.getStorageStatus, '127.0.0.1:23000'),
  plain(COMMANDS.trackerClusterStat, 3),
  plain(COMMANDS.storageClusterStat, 4),
  plain(COMMANDS.storageVolumeStat, 4),
  plain(COMMANDS.quit),
]

const STORAGE: readonly Template[] = [
  ...golden('storage'),
  upload(COMMANDS.uploadFile),
  upload(COMMANDS.uploadAppender),
  (pick, random) => {
    const range = { offset: random.below(20), length: random.below(2) * random.below(9_000) }
    return frame(COMMANDS.downloadFile, writeDownload({ ...range, group: GROUP, name: pick(random.pick(KINDS)) }))
  },
  named(COMMANDS.queryFileInfo),
  (pick, random) => {
    const fields = { group: GROUP, master: '', name: pick(random.pick(KINDS)), prefix: '', extension: 'lnk' }
    return frame(COMMANDS.createLink, writeLink(fields))
  },
  (pick, random) => {
    const [master, name, prefix] = [pick('plain'), pick(random.pick(KINDS)), `_l${random.below(10_000)}`]
    return frame(COMMANDS.createLink, writeLink({ group: GROUP, master, name, prefix, extension: 'lnk' }))
  },
  named(COMMANDS.deleteFile),
  named(COMMANDS.getMetadata),
  (pick, random) => {
    const metadata = Buffer.from(`a\x02${random.below(100)}\x01b\x02fuzzed`)
    const fields = { group: GROUP, name: pick(random.pick(KINDS)), metadata, merges: random.chance(0.5) }
    return frame(COMMANDS.setMetadata, writeSetMetadata(fields))
  },
  (pick, random) => {
    const content = random.bytes(random.below(400))
    const fields = { sizeBytes: content.length, prefix: `_${random.below(10_000)}`, extension: 'jpg' }
    const master = pick(random.pick(['plain', 'segment']))
    return frame(COMMANDS.uploadSlave, Buffer.concat([writeSlave(fields, master), content]))
  },
  (pick, random) => {
    const content = random.bytes(1 + random.below(400))
    return frame(COMMANDS.append, Buffer.concat([writeChange(pick('appender'), content.length), content]))
  },
  (pick, random) => {
    const content = random.bytes(1 + random.below(400))
    const head = writeChange(pick('appender'), random.below(10), content.length)
    return frame(COMMANDS.modify, Buffer.concat([head, content]))
  },
  (pick, random) => frame(COMMANDS.truncate, writeChange(pick('appender'), random.below(10))),
  pick => frame(COMMANDS.regenerate, Buffer.from(pick('appender'))),
  plain(COMMANDS.activeTest),
  plain(COMMANDS.quit),
  plain(COMMANDS.prove, 32),
  (_, random) => frame(COMMANDS.authenticate, Buffer.concat([Buffer.of(1 + random.below(2)), random.bytes(32)])),
  uploadOnce,
  uploadStream,
  (_, random) => frame(COMMANDS.data, random.bytes(random.below(400))),
  (_, random) => {
    const incarnation = random.bytes(16).toString('hex')
    const asking = { storageId: 2, group: GROUP, epoch: 1, incarnation, term: 0, other: 0 }
    return frame(COMMANDS.syncPosition, writeSyncPosition(asking))
  },
  (pick, random) => {
    const line = `1 1 1 1763690000000 C ${pick('plain')} t:1n1 - - 00000000`
    const fields = { storageId: 2, content: 'file', previous: 0, offset: 0, crc32: 0 } as const
    return frame(COMMANDS.syncRecord, Buffer.concat([writeSyncRecord(fields, line), random.bytes(50)]))
  },
  (pick, random) => {
    const line = `1 1 1 1763690000000 C ${pick('segment')} - - - 00000000`
    const head = writeSyncRun({ storageId: 2, previous: 0, records: [{ line, content: 'file' }] })
    return frame(COMMANDS.syncRun, Buffer.concat([head, random.bytes(256)]))
  },
]

/** What may be asked, by port and by whom. */
export const CORPUS: Readonly<Record<`${Port} ${Role}`, readonly Template[]>> = {
  'tracker anonymous': TRACKER,
  // Nobody proves anything to a tracker.
  'tracker client': TRACKER,
  'storage anonymous': STORAGE,
  'storage client': [...STORAGE, uploadOnce, uploadOnce, uploadStream, uploadStream],
}

function upload(command: number): Template {
  return (_, random) => {
    const content = contentOf(random)
    const fields = { storePathIndex: 0xff, sizeBytes: content.length, extension: random.pick(['', 'bin', 'tar.gz']) }
    return frame(command, Buffer.concat([writeUploadFields(fields), content]))
  }
}

function uploadOnce(_: PickName, random: SeededRandom): Buffer {
  const content = contentOf(random)
  const fields = writeUploadFields({ storePathIndex: 0xff, sizeBytes: content.length, extension: 'bin' })
  return frame(COMMANDS.uploadOnce, Buffer.concat([writeUploadHead(headOf(random)), fields, content]))
}

function uploadStream(_: PickName, random: SeededRandom): Buffer {
  const open = writeUploadStream({ ...headOf(random), storePathIndex: 0xff, extension: 'bin' })
  const pieces = Array.from({ length: random.below(3) }, () => frame(COMMANDS.data, contentOf(random)))
  return Buffer.concat([frame(COMMANDS.uploadStream, open), ...pieces, frame(COMMANDS.data, Buffer.alloc(0))])
}

function headOf(random: SeededRandom) {
  const ack = random.pick(['one', 'one', 'one', 'quorum', 'all', undefined] as const)
  return { uploadId: random.bytes(16).toString('hex'), ack, ackTimeoutMs: 1_000 }
}

function contentOf(random: SeededRandom): Buffer {
  return random.bytes(random.below(LARGE_ONE_IN) === 0 ? LARGE_BYTES : random.pick(SIZES))
}
