/** The bodies of listings: what is written is read, and nothing else; places have one order. */
import { expect } from 'chai'
import fc from 'fast-check'
import {
  comparePlaces,
  formatPlace,
  LIST_BYTES_MAX,
  LIST_FILES_MAX,
  type ListPlace,
  parsePlace,
  readList,
  readListPage,
  writeList,
  writeListPage,
} from '../../protocol/list-bodies.ts'

const text = (max: number) => fc.stringMatching(/^[A-Za-z0-9/._-]*$/, { size: 'small' }).map(made => made.slice(0, max))
const path = fc.nat(254)
const places: fc.Arbitrary<ListPlace> = fc.oneof(
  fc.record({
    phase: fc.constant('slots' as const),
    storePathIndex: path,
    storageId: fc.nat(2 ** 24 - 1),
    segmentId: fc.nat(2 ** 31 - 1),
    offsetBytes: fc.nat(2 ** 26),
  }),
  fc.record({
    phase: fc.constant('plain' as const),
    storePathIndex: path,
    directoryIndex: fc.nat(65535),
    after: text(127),
  }),
)
const ids = fc.array(fc.integer({ min: 1, max: 2 ** 24 - 1 }), { maxLength: 32 })
const requests = fc.record({
  group: fc.constantFrom('group1', 'g', 'a234567890123456'),
  sinceS: fc.nat(2 ** 32 - 1),
  place: places,
  prefix: text(127),
  members: ids,
})
const facts = fc.option(fc.nat(2 ** 32 - 1), { nil: undefined })
const pages = fc.record({
  place: fc.option(places, { nil: undefined }),
  files: fc.array(
    fc.record({ name: text(127), sizeBytes: fc.option(fc.maxSafeNat(), { nil: undefined }), crc32: facts }),
    {
      maxLength: 20,
    },
  ),
})

describe('the bodies of a listing', () => {
  it('are read as they were written, and not if they are cut', () => {
    fc.assert(
      fc.property(requests, pages, fc.nat(), (request, page, cut) => {
        const body = writeList(request)
        expect(body.length).to.be.at.most(LIST_BYTES_MAX)
        expect(readList(body)).to.deep.equal(request)
        expect(() => readList(body.subarray(0, cut % body.length))).to.throw()
        expect(readListPage(writeListPage(page))).to.deep.equal(page)
      }),
    )
  })

  it('are short enough to be read whole, with the most and longest names', () => {
    const files = Array.from({ length: LIST_FILES_MAX }, () => ({ name: 'n'.repeat(127), sizeBytes: 1, crc32: 1 }))
    expect(writeListPage({ place: undefined, files }).length).to.be.below(64 * 1024)
  })

  it('name places in one order', () => {
    fc.assert(
      fc.property(places, places, places, (a, b, c) => {
        expect(parsePlace(formatPlace(a))).to.deep.equal(a)
        expect(Math.sign(comparePlaces(a, b))).to.equal(-Math.sign(comparePlaces(b, a)) || 0)
        if (comparePlaces(a, b) <= 0 && comparePlaces(b, c) <= 0) expect(comparePlaces(a, c)).to.be.at.most(0)
      }),
    )
  })

  for (const wrong of ['', 'slots', 'slots/1/2/3', 'slots/a/b/c/d', 'plain/0', 'plain/9999/1/x', '../../etc'])
    it(`are refused with ${wrong || 'nothing'} for a place`, () => {
      expect(() => parsePlace(wrong)).to.throw()
    })
})
