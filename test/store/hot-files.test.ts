import { expect } from 'chai'
import { HotFiles } from '../../store/hot-files.ts'

const KIB = 1024

describe('hot files', () => {
  const content = (sizeBytes: number, fill = 1) => Buffer.alloc(sizeBytes, fill)
  function keep(files: HotFiles, name: string, sizeBytes = KIB): void {
    files.keep(name, content(sizeBytes), files.removals)
  }

  it('are copies of what was read', () => {
    const files = new HotFiles(64 * KIB)
    const read = content(KIB, 7)
    files.keep('a', read, files.removals)
    read.fill(0)
    expect(files.get('a')).to.deep.equal(content(KIB, 7))
    expect(files.get('b')).to.equal(undefined)
  })

  it('never take more room than there is; those go that were not read for the longest time', () => {
    const files = new HotFiles(64 * KIB)
    for (let i = 0; i < 64; i++) keep(files, `${i}`)
    files.get('0')
    keep(files, 'one more')
    expect(files.bytes).to.equal(64 * KIB)
    expect(files.get('1')).to.equal(undefined)
    for (const name of ['0', '2', '63', 'one more']) expect(files.get(name), name).to.have.length(KIB)
  })

  it('are small: a large file is not kept', () => {
    const files = new HotFiles(64 * KIB)
    keep(files, 'large', KIB + 1)
    expect(files.get('large')).to.equal(undefined)
    const none = new HotFiles(0)
    keep(none, 'small', 1)
    expect(none.bytes).to.equal(0)
  })

  it('are forgotten when they are deleted, also while they are being read', () => {
    const files = new HotFiles(64 * KIB)
    keep(files, 'a')
    files.remove('a')
    expect(files.get('a')).to.equal(undefined)
    expect(files.bytes).to.equal(0)
    const before = files.removals
    files.remove('a')
    files.keep('a', content(KIB), before)
    expect(files.get('a')).to.equal(undefined)
  })
})
