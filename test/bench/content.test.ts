import { expect } from 'chai'
import { isContent, makeContent } from '../../bench/content.ts'

describe('the content of the bench', () => {
  it('is the pattern of fdfs_load', () => {
    const first = makeContent(12)
    let x = 12345
    for (const byte of first) {
      x = (Math.imul(x, 1103515245) + 12345) >>> 0
      expect(byte).equal((x >>> 16) & 0xff)
    }
  })

  it('is recognised from any offset, past its period too', () => {
    const sizeBytes = 2 ** 24 + 1000
    const content = makeContent(sizeBytes)
    for (const [from, to] of [
      [0, 100],
      [3, 9],
      [5000, 9000],
      [2 ** 24 - 10, sizeBytes],
      [0, sizeBytes],
    ] as const) {
      expect(isContent(content.subarray(from, to), from)).equal(true)
      expect(isContent(content.subarray(from, to), from + 1), `${from}`).equal(false)
    }
  })
})
