import { expect } from 'chai'
import fc from 'fast-check'
import type { FileNameParts } from '../../protocol/file-id.ts'
import { SlotRanges } from '../../store/slot-ranges.ts'

const UNIT = 8

/** A file that is so many units long, in a slot that begins so many units into a segment. */
function fileAt(segmentId: number, from: number, units: number, storageId = 1, storePathIndex = 0): FileNameParts {
  const slot = { segmentId, offsetBytes: from * UNIT, slotBytes: units * UNIT }
  return { storageId, storePathIndex, slot } as FileNameParts
}

const files = fc
  .tuple(fc.nat(1), fc.nat(30), fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: 2 }), fc.nat(1))
  .map(([segmentId, from, units, storageId, path]) => fileAt(segmentId, from, units, storageId, path))

function overlap(a: FileNameParts, b: FileNameParts): boolean {
  const [one, other] = [a.slot!, b.slot!]
  return (
    a.storageId === b.storageId &&
    a.storePathIndex === b.storePathIndex &&
    one.segmentId === other.segmentId &&
    one.offsetBytes < other.offsetBytes + other.slotBytes &&
    other.offsetBytes < one.offsetBytes + one.slotBytes
  )
}

describe('ranges of slots', () => {
  it('have what shares a byte with a slot that was added, and nothing else', () => {
    fc.assert(
      fc.property(fc.array(files, { maxLength: 12 }), files, (added, asked) => {
        const ranges = new SlotRanges()
        for (const file of added) ranges.add(file)
        expect(ranges.has(asked)).to.equal(added.some(file => overlap(file, asked)))
      }),
      { numRuns: 2000 },
    )
  })

  it('know nothing of files that are in no slot', () => {
    const ranges = new SlotRanges()
    const plain = { storageId: 1, storePathIndex: 0, slot: undefined } as FileNameParts
    ranges.add(plain)
    expect(ranges.has(plain)).to.equal(false)
  })
})
