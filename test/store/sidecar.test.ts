import { crc32 } from '@node-rs/crc32'
import { expect } from 'chai'
import fc from 'fast-check'
import { BLOCK_BYTES } from '../../store/block-pool.ts'
import {
  blockCount,
  crcOffset,
  hasSidecar,
  SIDECAR_HEADER_BYTES,
  SidecarWriter,
  sidecarPath,
  sumOfBlocks,
} from '../../store/sidecar.ts'
import { contentOf } from './store-fixture.ts'

describe('sidecar', () => {
  it('is a header and one CRC32 for each block, big-endian', () => {
    const writer = new SidecarWriter()
    writer.add(Buffer.alloc(BLOCK_BYTES))
    writer.add(Buffer.from('123456789'))
    const fields = ['44465353', '00000002', '00040000', '00000000', '0000000000040009', 'e20eea22', 'cbf43926']
    expect(writer.encode(BLOCK_BYTES + 9).toString('hex')).to.equal(fields.join(''))
  })

  it('knows the CRC32 of all blocks from those of each', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 3 }), { maxLength: 3 }), fc.nat(BLOCK_BYTES), (pieces, last) => {
        const writer = new SidecarWriter()
        const parts = [...pieces.map(blocks => blocks * BLOCK_BYTES), last].map((bytes, i) => contentOf(bytes, i + 1))
        for (const part of parts) writer.add(part)
        expect(writer.crc32).to.equal(crc32(Buffer.concat(parts)))
      }),
      { numRuns: 30 },
    )
  })

  it('belongs to a file of one size, one block size and one version', () => {
    const head = new SidecarWriter().encode(BLOCK_BYTES + 1)
    expect(sumOfBlocks(head, BLOCK_BYTES + 1)).to.equal(crc32)
    expect(sumOfBlocks(head, BLOCK_BYTES + 2)).to.equal(undefined)
    for (const at of [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 16, 17, 18, 19, 20, 21, 22, 23]) {
      const flipped = Buffer.from(head)
      flipped[at]! ^= 0x10
      expect(sumOfBlocks(flipped, BLOCK_BYTES + 1), `byte ${at}`).to.equal(undefined)
    }
  })

  it('is there for a file of more than one block', () => {
    expect([0, 1, BLOCK_BYTES, BLOCK_BYTES + 1].map(hasSidecar)).to.deep.equal([false, false, false, true])
    expect([0, 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES].map(blockCount)).to.deep.equal([0, 1, 1, 2, 3])
    expect(crcOffset(2)).to.equal(SIDECAR_HEADER_BYTES + 8)
    expect(sidecarPath('/a/b.jpg')).to.equal('/a/b.jpg~sum')
  })
})
