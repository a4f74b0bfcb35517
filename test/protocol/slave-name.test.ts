import { expect } from 'chai'
import { readGroupAndName, readSlaveFields, SLAVE_FIXED_BYTES, writeSlave } from '../../protocol/data-bodies.ts'
import { slaveNameOf } from '../../protocol/file-id.ts'
import { golden } from '../fastdfs-golden.ts'

const MASTER = 'M00/03/AC/CucHC3sAiuGARzrjAAAADcRYHyQ923.txt'

describe('name of a slave file', () => {
  it('is what FastDFS makes of the same request, which is written as it was', () => {
    const body = Buffer.from(golden('s.upload_slave').request, 'hex').subarray(10)
    const { masterBytes, ...fields } = readSlaveFields(body)
    const master = body.toString('latin1', SLAVE_FIXED_BYTES, SLAVE_FIXED_BYTES + masterBytes)
    const { name } = readGroupAndName(Buffer.from(golden('s.upload_slave').reply, 'hex').subarray(10))
    expect(slaveNameOf(master, fields.prefix, fields.extension)).to.equal(name)
    expect(Buffer.concat([writeSlave(fields, master), Buffer.from('SLAV')])).to.deep.equal(body)
  })

  it('takes the place of the extension, if the master has one', () => {
    const base = MASTER.slice(0, -'.txt'.length)
    expect(slaveNameOf(MASTER, '_small', 'jpg')).to.equal(`${base}_small.jpg`)
    expect(slaveNameOf(MASTER, '_longer', '')).to.equal(`${base}_longer`)
    expect(slaveNameOf(`${base}9999`, '_small', 'tar.gz')).to.equal(`${base}9999_small.tar.gz`)
  })

  it('is refused where it would be that of something else', () => {
    const wrong: [string, string][] = [
      ['', 'jpg'],
      ['x'.repeat(17), 'jpg'],
      ['a/b', 'jpg'],
      ['..', 'jpg'],
      ['_small', 'toolong'],
      ['_a', 'b'],
      ['_small-m', ''],
      ['_small', 'jpg-m'],
    ]
    for (const [prefix, extension] of wrong)
      expect(() => slaveNameOf(MASTER, prefix, extension), `${prefix} ${extension}`)
        .to.throw()
        .with.property('code', 'bad_request')
  })
})
