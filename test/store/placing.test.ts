import { expect } from 'chai'
import { directoryIndexOf } from '../../store/placing.ts'

describe('directory of a new file', () => {
  it('is the next one after a hundred files, and the first one after the last', () => {
    expect([0, 99, 100, 199, 6_553_599, 6_553_600].map(sequence => directoryIndexOf(sequence, 1))).to.deep.equal([
      0, 0, 1, 1, 65535, 0,
    ])
  })

  it('differs for neighbours of 4 GiB and more, whose names have no salt', () => {
    expect(directoryIndexOf(7, 2 ** 32 - 1)).to.equal(directoryIndexOf(8, 2 ** 32 - 1))
    const directories = new Set(Array.from({ length: 65536 }, (_, i) => directoryIndexOf(1000 + i, 2 ** 32)))
    expect(directories.size).to.equal(65536)
  })
})
