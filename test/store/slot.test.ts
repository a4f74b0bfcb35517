import { expect } from 'chai'
import fc from 'fast-check'
import { decodeFileName, tailOf } from '../../protocol/file-id.ts'
import {
  contentOf,
  isHeaderOf,
  isSlotName,
  nameOfSlot,
  PACKED_BYTES_MAX,
  readSlotHeader,
  SEGMENT_BYTES,
  SLOT_ALIGNMENT,
  SLOT_BYTES_MAX,
  SLOT_HEADER_BYTES,
  slotBytesFor,
  stateOf,
  writeSlotHeader,
} from '../../store/slot.ts'
import { contentOf as bytesOf, sumOf } from './store-fixture.ts'

const PLACE = { storePathIndex: 0, storageId: 7, segmentId: 0x0010_0001, offsetBytes: 4352 }
const TYPE_FREE = 0

const sizes = fc.oneof(
  fc.nat(PACKED_BYTES_MAX),
  fc.nat(2_000),
  // Around where one size of slots ends and the next begins.
  fc
    .tuple(fc.integer({ min: 6, max: 23 }), fc.nat(16), fc.integer({ min: -1, max: 1 }))
    .map(([octave, step, by]) => 2 ** octave + (step * 2 ** octave) / 16 - SLOT_HEADER_BYTES + by)
    .filter(bytes => Number.isInteger(bytes) && bytes >= 0 && bytes <= PACKED_BYTES_MAX),
)
const tails = fc
  .tuple(fc.constantFrom('', 'a', 'gz', 'jpg', 'tar.gz', 'a.', '-_.-_', '123456'), fc.nat(9_999_999))
  .map(([extension, padding]) => tailOf(extension, padding))
const headers = fc
  .record({ sizeBytes: sizes, crc32: fc.nat(2 ** 32 - 1), createTimeS: fc.nat(2 ** 32 - 1), tail: tails })
  .map(header => ({ ...header, slotBytes: slotBytesFor(header.sizeBytes) }))
const places = fc.record({
  storePathIndex: fc.nat(255),
  storageId: fc.integer({ min: 1, max: 2 ** 24 - 1 }),
  segmentId: fc.nat(2 ** 31 - 1),
  offsetBytes: fc.nat((SEGMENT_BYTES - SLOT_BYTES_MAX) / SLOT_ALIGNMENT).map(index => index * SLOT_ALIGNMENT),
})

/** A slot as a source writes it, and its name. */
function slotOf(sizeBytes: number): { slot: Buffer; name: string } {
  const content = bytesOf(sizeBytes)
  const slotBytes = slotBytesFor(sizeBytes)
  const header = { slotBytes, sizeBytes, crc32: sumOf(content), createTimeS: 1_700_000_000, tail: tailOf('jpg', 833) }
  const slot = Buffer.alloc(slotBytes)
  content.copy(slot, SLOT_HEADER_BYTES)
  writeSlotHeader(slot, header)
  return { slot, name: nameOfSlot(PLACE, header) }
}

function headerBytes(header: Parameters<typeof writeSlotHeader>[1]): Buffer {
  const bytes = Buffer.alloc(SLOT_HEADER_BYTES)
  writeSlotHeader(bytes, header)
  return bytes
}

/** What a name would be if parts of it were others. */
function nameWith(name: string, parts: Partial<Parameters<typeof nameOfSlot>[0] & Parameters<typeof nameOfSlot>[1]>) {
  const { slot, sizeBytes, crc32, createTimeS, tail } = decodeFileName(name)
  const all = { ...PLACE, ...slot!, sizeBytes: sizeBytes!, crc32, createTimeS, tail, ...parts }
  return nameOfSlot(all, all)
}

const isSlot = (name: string) => isSlotName(name, decodeFileName(name))

describe('header of a slot', () => {
  it('is a type, slot size, size, CRC32, time and tail, numbers big-endian', () => {
    const header = { slotBytes: 0x1100, sizeBytes: 0x1001, crc32: 0x89abcdef, createTimeS: 0x65432100, tail: '833.jpg' }
    const golden = ['46', '00001100', '00001001', '89abcdef', '65432100', '3833332e6a7067']
    expect(slotBytesFor(header.sizeBytes)).to.equal(header.slotBytes)
    expect(headerBytes(header).toString('hex')).to.equal(golden.join(''))
    expect(readSlotHeader(Buffer.from(golden.join(''), 'hex'))).to.deep.equal({ ...header, isFree: false })
    expect(readSlotHeader(Buffer.from(['00', ...golden.slice(1)].join(''), 'hex'))).to.deep.equal({
      ...header,
      isFree: true,
    })
  })

  it('is read back as it was written, there or free', () => {
    fc.assert(
      fc.property(headers, fc.boolean(), (header, isFree) => {
        const bytes = headerBytes(header)
        if (isFree) bytes[0] = TYPE_FREE
        expect(readSlotHeader(bytes)).to.deep.equal({ ...header, isFree })
      }),
    )
  })

  it('leaves the bytes behind it alone', () => {
    const { slot } = slotOf(1_000)
    expect(slot.subarray(SLOT_HEADER_BYTES, SLOT_HEADER_BYTES + 1_000).equals(bytesOf(1_000))).to.equal(true)
  })

  it('is none when it is short, all zero, of another type or of a size that no slot has', () => {
    const { slot } = slotOf(1_000)
    for (let length = 0; length < SLOT_HEADER_BYTES; length++) {
      expect(readSlotHeader(slot.subarray(0, length)), `${length} bytes`).to.equal(undefined)
    }
    expect(readSlotHeader(Buffer.alloc(SLOT_HEADER_BYTES))).to.equal(undefined)
    expect(readSlotHeader(Buffer.alloc(SLOT_HEADER_BYTES, 0xff))).to.equal(undefined)
    const header = readSlotHeader(slot)!
    for (const slotBytes of [0, header.slotBytes - SLOT_ALIGNMENT, header.slotBytes + SLOT_ALIGNMENT, 2 ** 32 - 1]) {
      expect(readSlotHeader(headerBytes({ ...header, slotBytes })), `${slotBytes} bytes`).to.equal(undefined)
    }
  })
})

describe('a slot', () => {
  for (const sizeBytes of [0, 1, 40, 300]) {
    it(`of ${sizeBytes} bytes is seen to be damaged wherever a bit of its header or its file is flipped`, () => {
      const { slot, name } = slotOf(sizeBytes)
      const file = decodeFileName(name)
      expect(stateOf(slot, file)).to.equal('present')
      for (let bit = 0; bit < (SLOT_HEADER_BYTES + sizeBytes) * 8; bit++) {
        const flipped = Buffer.from(slot)
        flipped[bit >> 3]! ^= 1 << (bit & 7)
        expect(stateOf(flipped, file), `bit ${bit}`).to.equal('corrupt')
        const header = readSlotHeader(flipped)
        if (header === undefined) continue
        // Whoever finds the slot without knowing its name must not take it for that of the file.
        const isOther = nameOfSlot(PLACE, header) !== name || contentOf(flipped, header) === undefined
        expect(isOther, `the name with bit ${bit}`).to.equal(true)
      }
    })

    it(`of ${sizeBytes} bytes is no file wherever it is torn, and is one without its slack`, () => {
      const { slot, name } = slotOf(sizeBytes)
      const file = decodeFileName(name)
      const end = SLOT_HEADER_BYTES + sizeBytes
      for (let length = 0; length < end; length++) {
        expect(stateOf(slot.subarray(0, length), file), `${length} bytes`).to.equal('corrupt')
        const header = readSlotHeader(slot.subarray(0, length))
        if (header !== undefined) expect(contentOf(slot.subarray(0, length), header)).to.equal(undefined)
      }
      expect(stateOf(slot.subarray(0, end), file)).to.equal('present')
    })
  }

  it('that is free still says whose it was, and nobody else’s', () => {
    const { slot, name } = slotOf(300)
    slot[0] = TYPE_FREE
    expect(stateOf(slot, decodeFileName(name))).to.equal('deleted')
    // What is free has no content to be right or wrong.
    slot[SLOT_HEADER_BYTES]! ^= 1
    expect(stateOf(slot, decodeFileName(name))).to.equal('deleted')
    expect(stateOf(slot, decodeFileName(nameWith(name, { createTimeS: 2 ** 32 - 1 })))).to.equal('corrupt')
    expect(stateOf(slot, decodeFileName(nameWith(name, { createTimeS: 5 }))), 'of an earlier file').to.equal('deleted')
  })

  it('is that of a name only if size, slot size, CRC32, time and tail are the same', () => {
    const { slot, name } = slotOf(300)
    const header = readSlotHeader(slot)!
    expect(isHeaderOf(header, decodeFileName(name))).to.equal(true)
    const others = [{ sizeBytes: 301 }, { slotBytes: 448 }, { crc32: 5 }, { createTimeS: 5 }, { tail: '834.jpg' }]
    for (const other of others) {
      expect(isHeaderOf(header, decodeFileName(nameWith(name, other))), JSON.stringify(other)).to.equal(false)
    }
  })
})

describe('size of a slot', () => {
  it('is aligned, has room for header and file, grows with the file, and wastes a sixteenth at most', () => {
    fc.assert(
      fc.property(sizes, sizeBytes => {
        const slotBytes = slotBytesFor(sizeBytes)
        const needed = SLOT_HEADER_BYTES + sizeBytes
        expect(slotBytes % SLOT_ALIGNMENT).to.equal(0)
        expect(slotBytes).to.be.within(needed, needed + Math.max(SLOT_ALIGNMENT - 1, needed / 16))
        expect(slotBytesFor(sizeBytes + 1)).to.be.at.least(slotBytes)
        expect(slotBytes).to.be.at.most(SLOT_BYTES_MAX)
      }),
      { numRuns: 2_000 },
    )
  })

  it('is the same for the largest file that fits in it, so that a slot can be used again', () => {
    fc.assert(
      fc.property(sizes, sizeBytes => {
        const slotBytes = slotBytesFor(sizeBytes)
        expect(slotBytesFor(slotBytes - SLOT_HEADER_BYTES)).to.equal(slotBytes)
        expect(slotBytesFor(slotBytes - SLOT_HEADER_BYTES + 1)).to.be.above(slotBytes)
      }),
      { numRuns: 2_000 },
    )
  })

  it('has at most sixteen values between a power of two and the next', () => {
    for (let octave = 10; octave < 20; octave++) {
      const values = new Set<number>()
      for (let bytes = 2 ** octave; bytes < 2 ** (octave + 1); bytes += 16) {
        const slotBytes = slotBytesFor(bytes - SLOT_HEADER_BYTES)
        if (slotBytes < 2 ** (octave + 1)) values.add(slotBytes)
      }
      expect(values.size, `from ${2 ** octave}`).to.equal(16)
    }
  })
})

describe('name of a slot', () => {
  it('says what the header and the place say, whatever they are', () => {
    fc.assert(
      fc.property(places, headers, (place, header) => {
        const name = nameOfSlot(place, header)
        const { storePathIndex, storageId, segmentId, offsetBytes } = place
        const { slotBytes, ...parts } = header
        const slot = { segmentId, offsetBytes, slotBytes }
        expect(decodeFileName(name)).to.deep.include({ kind: 'segment', storePathIndex, storageId, slot, ...parts })
        expect(isSlot(name)).to.equal(true)
      }),
    )
  })

  it('is refused in any other spelling: another directory, or an address for a source', () => {
    const { name } = slotOf(300)
    expect(isSlot(name)).to.equal(true)
    expect(name.slice(0, 10)).to.equal('M00/00/01/')
    for (const directory of ['M00/00/00/', 'M00/01/00/', 'M00/FF/FF/']) {
      expect(isSlot(directory + name.slice(10)), directory).to.equal(false)
    }
    const bytes = Buffer.from(name.slice(10, 37), 'base64url')
    bytes.writeUInt32LE(0x0100_007f, 0)
    expect(isSlot(name.slice(0, 10) + bytes.toString('base64url') + name.slice(37))).to.equal(false)
  })

  it('is refused with any bit of its size field set that no slot’s has', () => {
    const { name } = slotOf(300)
    const bytes = Buffer.from(name.slice(10, 37), 'base64url')
    for (let bit = 0; bit < 32; bit++) {
      const other = Buffer.from(bytes)
      other.writeUInt32BE((bytes.readUInt32BE(8) ^ (1 << bit)) >>> 0, 8)
      const spelled = name.slice(0, 10) + other.toString('base64url') + name.slice(37)
      expect(isSlot(spelled), `bit ${bit}`).to.equal(false)
    }
  })

  it('is refused at a place where no slot begins, or that a segment does not have', () => {
    const { name } = slotOf(300)
    const { slotBytes } = decodeFileName(name).slot!
    expect(isSlot(nameWith(name, { offsetBytes: 0 }))).to.equal(true)
    expect(isSlot(nameWith(name, { offsetBytes: SEGMENT_BYTES - slotBytes }))).to.equal(true)
    for (const offsetBytes of [1, 63, SEGMENT_BYTES - slotBytes + SLOT_ALIGNMENT, SEGMENT_BYTES, 2 ** 32 - 64]) {
      expect(isSlot(nameWith(name, { offsetBytes })), `${offsetBytes}`).to.equal(false)
    }
  })

  it('is refused with a forged size, of the slot or of the file', () => {
    const { name } = slotOf(300)
    const { slotBytes } = decodeFileName(name).slot!
    expect(isSlot(nameWith(name, { sizeBytes: 301 })), 'another file of that slot').to.equal(true)
    for (const forged of [
      { slotBytes: 0 },
      { slotBytes: slotBytes + SLOT_ALIGNMENT },
      { slotBytes: 2 ** 32 - SLOT_ALIGNMENT },
      { sizeBytes: slotBytes },
      { sizeBytes: 2 ** 32 - 1 },
      { sizeBytes: PACKED_BYTES_MAX + 1, slotBytes: slotBytesFor(PACKED_BYTES_MAX + 1) },
      { sizeBytes: SEGMENT_BYTES - SLOT_HEADER_BYTES, slotBytes: SEGMENT_BYTES, offsetBytes: 0 },
      // What wraps around in 32 bits.
      { sizeBytes: 2 ** 32 - 1, slotBytes: SLOT_ALIGNMENT, offsetBytes: 0 },
    ]) {
      expect(isSlot(nameWith(name, forged)), JSON.stringify(forged)).to.equal(false)
    }
    const largest = { sizeBytes: PACKED_BYTES_MAX, slotBytes: SLOT_BYTES_MAX, offsetBytes: 0 }
    expect(isSlot(nameWith(name, largest))).to.equal(true)
  })

  it('is not that of a file of its own, nor of a slave', () => {
    const { name } = slotOf(300)
    expect(isSlotName(name, { ...decodeFileName(name), slot: undefined })).to.equal(false)
    expect(decodeFileName(`${name.slice(0, -4)}_150x150.jpg`).slot).to.equal(undefined)
  })
})
