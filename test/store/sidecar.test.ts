import { expect } from 'chai'
import { BLOCK_BYTES } from '../../store/block-pool.ts'
import {
  blockCount,
  crcOffset,
  hasSidecar,
  isSidecarOf,
  SIDECAR_HEADER_BYTES,
  SidecarWriter,
  sidecarPath,
} from '../../store/sidecar.ts'

describe('sidecar', () => {
  it('is a header and one CRC32C for each block, big-endian', () => {
    const writer = new SidecarWriter()
    writer.add(Buffer.from('123456789'))
    writer.add(Buffer.from(''))
    const fields = ['44465353', '00000001', '00040000', '00000000', '0000000100000009', 'e3069283', '00000000']
    expect(writer.encode(2 ** 32 + 9).toString('hex')).to.equal(fields.join(''))
  })

  it('belongs to a file of one size, one block size and one version', () => {
    const head = new SidecarWriter().encode(BLOCK_BYTES + 1)
    expect(isSidecarOf(head, BLOCK_BYTES + 1)).to.equal(true)
    expect(isSidecarOf(head, BLOCK_BYTES + 2)).to.equal(false)
    for (const at of [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 16, 17, 18, 19, 20, 21, 22, 23]) {
      const flipped = Buffer.from(head)
      flipped[at]! ^= 0x10
      expect(isSidecarOf(flipped, BLOCK_BYTES + 1), `byte ${at}`).to.equal(false)
    }
  })

  it('is there for a file of more than one block', () => {
    expect([0, 1, BLOCK_BYTES, BLOCK_BYTES + 1].map(hasSidecar)).to.deep.equal([false, false, false, true])
    expect([0, 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES].map(blockCount)).to.deep.equal([0, 1, 1, 2, 3])
    expect(crcOffset(2)).to.equal(SIDECAR_HEADER_BYTES + 8)
    expect(sidecarPath('/a/b.jpg')).to.equal('/a/b.jpg~sum')
  })
})
