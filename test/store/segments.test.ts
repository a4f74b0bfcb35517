import { mkdir, readFile, rename, rm, truncate } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { expect } from 'chai'
import { decodeFileName, tailOf } from '../../protocol/file-id.ts'
import { realWorld } from '../../runtime/real-world.ts'
import { DiskError } from '../../runtime/world.ts'
import { nextSegmentId, Segments, WRITER_MAX, writerOf } from '../../store/segments.ts'
import { nameOfSlot, SEGMENT_BYTES, SLOT_HEADER_BYTES, slotBytesFor, writeSlotHeader } from '../../store/slot.ts'
import { SlotAllocator } from '../../store/slot-allocator.ts'
import { FaultyDisk } from './faulty-disk.ts'
import { contentOf, rejection, sumOf, Workshop } from './store-fixture.ts'

const SOURCE = 7
const SEGMENT = 0x0010_0001
const RECORD = { timeS: 0, sequence: 1 }
/** More than a store path has open at a time. */
const MANY = 150

/** A file in its slot, by its name. */
interface Packed {
  readonly name: string
  readonly content: Buffer
  readonly slot: Buffer
  readonly at: { storageId: number; segmentId: number; offsetBytes: number }
}

describe('segments', () => {
  let workshop: Workshop
  let root: string
  let disk: FaultyDisk
  let isPresent: boolean
  let segments: Segments

  beforeEach(async () => {
    workshop = await Workshop.make()
    root = join(workshop.path, 'path', 'segments')
    await mkdir(root, { recursive: true })
    disk = new FaultyDisk(realWorld().disk)
    isPresent = true
    segments = open()
  })
  afterEach(async () => {
    disk.heal()
    await segments.close()
    await workshop.remove()
  })

  function open(syncs = true): Segments {
    const checkPresent = async () => {
      if (!isPresent) throw new DiskError('find', root, 'ENODEV')
    }
    return new Segments(disk, dirname(root), { syncs, checkPresent })
  }
  const pathOf = (segmentId = SEGMENT) => join(root, String(SOURCE), String(segmentId).padStart(10, '0'))
  async function put(packed: Packed): Promise<Packed> {
    await segments.put([{ storePathIndex: 0, ...packed.at, bytes: packed.slot }])
    return packed
  }
  const read = ({ name, content }: Packed) => {
    const target = Buffer.alloc(slotBytesFor(content.length))
    return segments.read(name, decodeFileName(name), target)
  }
  const stateOf = ({ name }: Packed) => segments.stateOf(name, decodeFileName(name))
  const free = ({ name }: Packed) => segments.free(name, decodeFileName(name))
  /** What lies in a segment, slot by slot. */
  async function walk(untilBytes = SEGMENT_BYTES): Promise<string[]> {
    const names: string[] = []
    const range = { fromBytes: 0, untilBytes }
    for await (const { name } of segments.slots({ storageId: SOURCE, segmentId: SEGMENT }, 0, range)) names.push(name)
    return names
  }

  it('give back what was put, to whoever asks by its name, also after they were closed', async () => {
    const files = await Promise.all([0, 1, 1000, 70_000].map((bytes, i) => put(pack(i * 131_072, contentOf(bytes, i)))))
    for (let round = 0; round < 2; round++) {
      for (const file of files) expect((await read(file))?.equals(file.content), file.name).to.equal(true)
      await segments.close()
      segments = open()
    }
  })

  it('make a source’s directory and a segment’s entry durable before they say that a slot is', async () => {
    await put(pack(0, contentOf(10)))
    const syncedAt = disk.find('end', { action: 'syncDirectory', path: new RegExp(`segments/${SOURCE}$`) })
    const madeAt = disk.find('end', { action: 'open', mode: 'create' })
    expect(disk.find('end', { action: 'syncDirectory', path: /segments$/ })).to.be.within(0, madeAt)
    expect(syncedAt).to.be.above(madeAt)
    expect(disk.find('end', { action: 'sync' })).to.be.above(madeAt)
  })

  it('know nothing of what was never put, wherever it would be', async () => {
    await put(pack(0, contentOf(10)))
    for (const never of [pack(64, contentOf(10)), pack(131_072, contentOf(10)), pack(0, contentOf(10), SEGMENT + 1)]) {
      expect(await read(never)).to.equal(undefined)
      expect(await stateOf(never)).to.equal('unknown')
      await free(never)
    }
    await segments.syncChanges()
    expect(await segments.list(SOURCE, 1), 'and none is made by looking').to.deep.equal([SEGMENT])
  })

  it('never give other bytes to a stale name, nor free them', async () => {
    const now = await put(pack(0, contentOf(100, 1)))
    const stale = [pack(0, contentOf(100, 2)), pack(0, contentOf(90, 1)), pack(0, contentOf(1000, 1))]
    for (const other of stale) {
      const isEarlier = sumOf(other.content) < sumOf(now.content) && other.slot.length === now.slot.length
      expect(await read(other)).to.equal(undefined)
      expect(await stateOf(other)).to.equal(isEarlier ? 'deleted' : 'unknown')
      await free(other)
    }
    expect((await read(now))?.equals(now.content)).to.equal(true)
    expect(disk.count({ action: 'write' }), 'nothing but the file was written').to.equal(1)
  })

  it('free one file and none beside it, as often as they are told', async () => {
    const files = await Promise.all([0, 1, 2].map(i => put(pack(i * 192, contentOf(100, i)))))
    const before = await readFile(pathOf())
    for (let round = 0; round < 2; round++) {
      await free(files[1]!)
      expect(await read(files[1]!)).to.equal(undefined)
      expect(await stateOf(files[1]!)).to.equal('deleted')
      for (const kept of [files[0]!, files[2]!]) expect((await read(kept))?.equals(kept.content)).to.equal(true)
    }
    const after = await readFile(pathOf())
    expect([...before.keys()].filter(at => before[at] !== after[at])).to.deep.equal([192])
  })

  it('make durable that a slot is free, also one that was so before they looked', async () => {
    const file = await put(pack(0, contentOf(100)))
    await free(file)
    await segments.syncChanges()
    expect(disk.count({ action: 'sync', path: /segments/ })).to.equal(2)
    await segments.syncChanges()
    expect(disk.count({ action: 'sync', path: /segments/ }), 'nothing is new').to.equal(2)
    await free(file)
    await segments.syncChanges()
    expect(disk.count({ action: 'sync', path: /segments/ })).to.equal(3)
  })

  it('remember what is not durable when a sync fails', async () => {
    const file = await put(pack(0, contentOf(100)))
    await free(file)
    disk.fail({ action: 'sync' }, 'EIO')
    expect(await rejection(segments.syncChanges())).to.include({ errno: 'EIO' })
    const before = disk.count({ action: 'sync' })
    await segments.syncChanges()
    expect(disk.count({ action: 'sync' })).to.equal(before + 1)
  })

  it('say "corrupt" of a file whose header or content was flipped, whichever bit it was, and never that it is not there', async () => {
    const file = await put(pack(192, contentOf(100)))
    const raw = await realWorld().disk.open(pathOf(), 'update')
    const bytes = SLOT_HEADER_BYTES + 100
    for (let bit = 0; bit < bytes * 8; bit++) {
      const flipped = Uint8Array.of(file.slot[bit >> 3]! ^ (1 << (bit & 7)))
      await raw.write([flipped], 192 + (bit >> 3))
      expect(await rejection(read(file)), `bit ${bit}`).to.include({ code: 'corrupt' })
      if (bit < SLOT_HEADER_BYTES * 8) expect(await rejection(stateOf(file)), `bit ${bit}`).include({ code: 'corrupt' })
      await raw.write([file.slot.subarray(bit >> 3, (bit >> 3) + 1)], 192 + (bit >> 3))
    }
    await raw.close()
    expect((await read(file))?.equals(file.content)).to.equal(true)
  })

  it('go from slot to slot, as far as there are any, past those that are free or never got to the disk', async () => {
    const files: Packed[] = []
    let at = 0
    for (const bytes of [10, 0, 5000, 300]) {
      files.push(await put(pack(at, contentOf(bytes, bytes))))
      at += files.at(-1)!.slot.length
    }
    const behind = await put(pack(at + 64, contentOf(10)))
    await free(files[1]!)
    const names = files.map(({ name }) => name)
    expect(await walk(), 'and over a hole').to.deep.equal([...names, behind.name])
    expect(await walk(files[2]!.at.offsetBytes), 'as far as asked').to.deep.equal(names.slice(0, 2))
  })

  it('come to an end where the last slot is torn, wherever that is', async () => {
    const [first, last] = [await put(pack(0, contentOf(10))), await put(pack(64, contentOf(100)))]
    for (let bytes = 64 + last.slot.length; bytes >= 0; bytes--) {
      await truncate(pathOf(), bytes)
      const whole = [bytes >= SLOT_HEADER_BYTES && first.name, bytes >= 64 + SLOT_HEADER_BYTES && last.name]
      expect(await walk(), `${bytes} bytes`).to.deep.equal(whole.filter(name => name !== false))
      const found = await read(last).catch(error => error.code)
      // A slot that was never whole was never acknowledged; one that has been is short by no kill, nor by a power cut.
      const expected = bytes < 64 + SLOT_HEADER_BYTES ? undefined : bytes < 64 + 124 ? 'corrupt' : last.content
      expect(found, `${bytes} bytes`).to.deep.equal(expected)
    }
  })

  it('reject what fails, and take what comes after it with another handle', async () => {
    for (const [action, errno] of [
      ['open', 'EIO'],
      ['write', 'ENOSPC'],
      ['sync', 'EIO'],
      ['syncDirectory', 'EIO'],
    ] as const) {
      disk.fail({ action, path: /segments\/7/ }, errno)
      expect(await rejection(put(pack(0, contentOf(10)))), action).to.include({ errno })
      const again = await put(pack(64, contentOf(10)))
      expect((await read(again))?.equals(again.content), action).to.equal(true)
      await segments.close()
      await rm(root, { recursive: true })
      await mkdir(root)
      segments = open()
    }
  })

  it('have no more files open than they may, and read and write however many there are', async () => {
    const files: Packed[] = []
    for (let i = 0; i < MANY; i++) files.push(await put(pack(0, contentOf(100, i), SEGMENT + i)))
    const opened = () => disk.count({ action: 'open' }) - disk.closed
    expect(opened()).to.be.within(100, 128)
    const found = await Promise.all(files.map(read))
    for (const [i, file] of files.entries()) expect(found[i]?.equals(file.content), file.name).to.equal(true)
    await Promise.all(files.map(free))
    for (const file of files) expect(await stateOf(file)).to.equal('deleted')
    expect(opened()).to.be.at.most(128)
    await segments.close()
    expect(opened()).to.equal(0)
  })

  it('read with a new handle when that from before says that its disk is gone', async () => {
    const file = await put(pack(0, contentOf(100)))
    disk.fail({ action: 'read' }, 'EIO')
    expect((await read(file))?.equals(file.content)).to.equal(true)
    disk.fail({ action: 'read' }, 'EIO', { times: 2 })
    expect(await rejection(read(file)), 'but only once').to.include({ errno: 'EIO' })
  })

  it('make nothing where their disk is not, and go on when it is back', async () => {
    await put(pack(0, contentOf(100)))
    await segments.close()
    const away = join(workshop.path, 'away')
    await rename(join(root, String(SOURCE)), away)
    isPresent = false
    const next = pack(192, contentOf(100, 2))
    expect(await rejection(put(next))).to.include({ errno: 'ENODEV' })
    expect(await realWorld().disk.list(root)).to.deep.equal([])
    await rename(away, join(root, String(SOURCE)))
    isPresent = true
    expect((await read(await put(next)))?.equals(next.content)).to.equal(true)
  })

  it('put what others look for at the same time, whoever comes first', async () => {
    const file = pack(0, contentOf(100))
    const held = disk.hold({ action: 'open' })
    const reads = [read(file), read(file), read(file)]
    await held.reached
    const done = put(file)
    held.release()
    await done
    for (const found of await Promise.all(reads)) {
      expect(found === undefined || found.equals(file.content)).to.equal(true)
    }
    expect((await read(file))?.equals(file.content)).to.equal(true)
  })

  it('are listed by source and writer, in order, whatever else lies there', async () => {
    const other = 2 * 2 ** 20 + 1
    for (const segmentId of [SEGMENT + 2, SEGMENT, other]) await put(pack(0, contentOf(1), segmentId))
    await mkdir(join(root, String(SOURCE), 'lost+found'))
    expect(await segments.list(SOURCE, 1)).to.deep.equal([SEGMENT, SEGMENT + 2])
    expect(await segments.list(SOURCE, 2)).to.deep.equal([other])
    expect(await segments.list(SOURCE + 1, 1)).to.deep.equal([])
  })
})

describe('slot allocator', () => {
  it('gives places side by side, and goes on in the next segment when one is full', () => {
    const allocator = new SlotAllocator(1, SEGMENT)
    const slotBytes = SEGMENT_BYTES / 8
    for (let i = 0; i < 7; i++) allocator.take(slotBytes, RECORD)
    expect(allocator.take(slotBytes - 64, RECORD)).to.deep.equal({
      segmentId: SEGMENT,
      offsetBytes: 7 * slotBytes,
      reused: false,
    })
    expect(allocator.take(64, RECORD)).to.deep.equal({
      segmentId: SEGMENT,
      offsetBytes: SEGMENT_BYTES - 64,
      reused: false,
    })
    expect(allocator.take(64, RECORD)).to.deep.equal({ segmentId: SEGMENT + 1, offsetBytes: 0, reused: false })
  })

  it('leaves a segment once, whoever says so', () => {
    const allocator = new SlotAllocator(1, SEGMENT)
    allocator.take(64, RECORD)
    for (let i = 0; i < 3; i++) allocator.leave(SEGMENT)
    expect(allocator.take(64, RECORD)).to.deep.equal({ segmentId: SEGMENT + 1, offsetBytes: 0, reused: false })
    allocator.leave(SEGMENT)
    expect(allocator.take(64, RECORD)).to.deep.equal({ segmentId: SEGMENT + 1, offsetBytes: 64, reused: false })
  })
})

describe('the last segment of a writer', () => {
  it('is full when it is: the next id would be that of another writer', () => {
    const allocator = new SlotAllocator(1, 2 ** 21 - 1)
    for (let i = 0; i < 8; i++) allocator.take(SEGMENT_BYTES / 8, RECORD)
    expect(() => allocator.take(64, RECORD))
      .to.throw()
      .with.property('code', 'no_space')
  })
})

describe('segment id', () => {
  it('is a writer and a sequence, and the next start leaves one out', () => {
    expect(nextSegmentId(1, undefined)).to.equal(SEGMENT)
    expect(nextSegmentId(1, SEGMENT)).to.equal(SEGMENT + 2)
    expect(nextSegmentId(WRITER_MAX, undefined)).to.be.below(2 ** 31)
    for (const writer of [1, 2, WRITER_MAX]) expect(writerOf(nextSegmentId(writer, undefined))).to.equal(writer)
  })
})

/** A file as its source would have it at a place: the time and the tail follow from the content. */
function pack(offsetBytes: number, content: Buffer, segmentId = SEGMENT): Packed {
  const sizeBytes = content.length
  const sum = sumOf(content)
  const slotBytes = slotBytesFor(sizeBytes)
  const header = { slotBytes, sizeBytes, crc32: sum, createTimeS: sum, tail: tailOf('txt', sum) }
  const slot = Buffer.alloc(slotBytes)
  content.copy(slot, SLOT_HEADER_BYTES)
  writeSlotHeader(slot, header)
  const at = { storageId: SOURCE, segmentId, offsetBytes }
  return { name: nameOfSlot({ storePathIndex: 0, ...at }, header), content, slot, at }
}
