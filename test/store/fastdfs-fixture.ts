/** Directories of FastDFS storage servers: one that a real 6.16.1 wrote, and others made from the format. */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { crc32 } from '@node-rs/crc32'
import { silentLog } from '../../runtime/log.ts'
import { realWorld } from '../../runtime/real-world.ts'
import { Timers } from '../../runtime/timers.ts'
import { type Disk, DiskError, type World } from '../../runtime/world.ts'
import { type TakeOverOptions, takeOver } from '../../store/take-over.ts'

const FIXTURES = 'test/store/fastdfs'

/** What is known of a file in the real directory. */
export interface ListedFile {
  readonly id: string
  readonly kind: 'plain' | 'slave' | 'appender' | 'metadata' | 'deleted'
  readonly size: number
  readonly sha256: string
  readonly meta?: Readonly<Record<string, string>>
}

/** The address of the server that wrote it. */
export const REAL_ADDRESS = '10.231.9.11'

/** Unpacks the real directory, but for its two largest files; what is in it. */
export function unpackReal(directory: string): readonly ListedFile[] {
  mkdirSync(directory, { recursive: true })
  execFileSync('tar', ['xzf', join(FIXTURES, 'plain.tgz'), '-C', directory])
  return JSON.parse(readFileSync(join(FIXTURES, 'plain.json'), 'utf8'))
}

export function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}

/** Takes over a directory as `unpackReal` and `FastdfsWriter` lay it out. */
export function takeOverAt(
  directory: string,
  dataDirectory: string,
  options: Partial<TakeOverOptions> = {},
  parts: Partial<World> = {},
) {
  const world = { ...realWorld(), ...parts }
  return takeOver(
    { world, timers: new Timers(world.clock), log: silentLog() },
    {
      dataDirectory,
      basePath: join(directory, 'base'),
      group: 'group1',
      storageId: 1,
      storePaths: [join(directory, 'store')],
      sources: new Map(),
      storePathChoice: 'round_robin',
      reservedBytes: 0,
      segmentFileBytesMax: 0,
      hotFileBytes: 0,
      durability: 'fsync',
      ...options,
    },
  )
}

/** The real disk, which is gone after so many calls. */
export function dyingDisk(calls: number): Disk {
  let left = calls
  const mortal = <T extends object>(target: T): T =>
    new Proxy(target, {
      get: (_, key) => {
        const method: unknown = Reflect.get(target, key)
        if (typeof method !== 'function') return method
        return async (...args: unknown[]) => {
          if (--left < 0) throw new DiskError(String(key), String(args[0]), 'EIO')
          const result = await method.apply(target, args)
          return key === 'open' ? mortal(result as object) : result
        }
      },
    })
  return mortal(realWorld().disk)
}

interface FileFields {
  readonly address?: string
  readonly timeS?: number
  readonly directory?: string
  readonly extension?: string
  /** Bits 63 to 32 of the size field. */
  readonly flags?: number
  /** The low half of it, if it is not the size. */
  readonly sizeField?: number
}

const SIZE_IN_LOW_BITS = 0x80000000
const TRUNK = 0x08000000
const SLOT_HEADER_BYTES = 24
/** As `trunk_alloc_alignment_size` is shipped. */
const ALIGNMENT = 256

/** Writes a directory as FastDFS does, from the description of its formats alone. */
export class FastdfsWriter {
  readonly #directory: string
  readonly #binlog: string[] = []
  #serial = 0
  #trunkEnd = 0

  constructor(directory: string, address = REAL_ADDRESS) {
    this.#directory = directory
    mkdirSync(join(directory, 'base/data/sync'), { recursive: true })
    mkdirSync(join(directory, 'store/data'), { recursive: true })
    writeFileSync(join(directory, 'base/data/.data_init_flag'), `last_ip_addr=${address}\nlast_server_port=23000\n`)
    writeFileSync(join(directory, 'store/data/.fastdfs_vars'), 'store_path_mark=\n')
  }

  /** Writes a plain file; its name. */
  plain(content: Buffer, fields: FileFields = {}): string {
    const name = this.#name(content, fields)
    this.write(name, content)
    this.#record('C', name)
    return name
  }

  /** Writes a file into trunk file 1; its name. */
  packed(content: Buffer, fields: FileFields = {}): string {
    const slotBytes = Math.ceil((SLOT_HEADER_BYTES + content.length) / ALIGNMENT) * ALIGNMENT
    const extent = Buffer.alloc(12)
    extent.writeUInt32BE(1, 0)
    extent.writeUInt32BE(this.#trunkEnd, 4)
    extent.writeUInt32BE(slotBytes, 8)
    const name = this.#name(content, { flags: TRUNK, ...fields }, extent.toString('base64url'))
    const slot = Buffer.alloc(slotBytes)
    slot[0] = 'F'.charCodeAt(0)
    slot.writeUInt32BE(slotBytes, 1)
    slot.writeUInt32BE(content.length, 5)
    slot.writeUInt32BE(crc32(content), 9)
    slot.writeUInt32BE(fields.timeS ?? 1_700_000_000, 13)
    slot.write(name.slice(-7), 17, 'latin1')
    content.copy(slot, SLOT_HEADER_BYTES)
    const path = this.trunkPath(fields.directory)
    mkdirSync(dirname(path), { recursive: true })
    writeFileSync(path, slot, { flag: 'a' })
    this.#trunkEnd += slotBytes
    this.#record('C', name)
    return name
  }

  /** Marks the slot of a file free as FastDFS does: its size is all that is left. */
  freePacked(name: string): void {
    const extent = Buffer.from(name.split('/').at(-1)!.slice(27, 43), 'base64url')
    const path = this.trunkPath(name.slice(4, 9))
    const bytes = readFileSync(path)
    const offset = extent.readUInt32BE(4)
    bytes.fill(0, offset, offset + SLOT_HEADER_BYTES)
    bytes.writeUInt32BE(extent.readUInt32BE(8), offset + 1)
    writeFileSync(path, bytes)
    this.#record('D', name)
  }

  metadata(name: string, metadata: Readonly<Record<string, string>>): void {
    this.write(
      `${name}-m`,
      Buffer.from(
        Object.entries(metadata)
          .map(pair => pair.join('\x02'))
          .join('\x01'),
      ),
    )
    this.#record('C', `${name}-m`)
  }

  write(name: string, content: Buffer): void {
    const path = this.pathOf(name)
    mkdirSync(dirname(path), { recursive: true })
    writeFileSync(path, content)
  }

  pathOf(name: string): string {
    return join(this.#directory, 'store/data', name.slice(4))
  }

  trunkPath(directory = '00/00'): string {
    return join(this.#directory, 'store/data', directory, '000001')
  }

  /** Writes the binlog of all that was written. */
  close(): void {
    writeFileSync(join(this.#directory, 'base/data/sync/binlog.000'), this.#binlog.join(''))
  }

  #record(op: string, name: string): void {
    this.#binlog.push(`1700000000 ${op} ${name}\n`)
  }

  #name(content: Buffer, fields: FileFields, extent = ''): string {
    const { address = REAL_ADDRESS, timeS = 1_700_000_000, directory = '00/00', extension = 'txt' } = fields
    const bytes = Buffer.alloc(20)
    Buffer.from(address.split('.').map(Number)).copy(bytes)
    bytes.writeUInt32BE(timeS, 4)
    bytes.writeUInt32BE(((fields.flags ?? SIZE_IN_LOW_BITS) | (this.#serial & 0x7fffff)) >>> 0, 8)
    bytes.writeUInt32BE(fields.sizeField ?? content.length, 12)
    bytes.writeUInt32BE(crc32(content), 16)
    const padding = String(this.#serial++ % 1000).padStart(6 - extension.length, '0')
    return `M00/${directory}/${bytes.toString('base64url')}${extent}${padding}.${extension}`
  }
}
