import { expect } from 'chai'
import { UPLOAD_IDS_MAX, UploadIds } from '../../store/upload-ids.ts'

describe('upload ids', () => {
  it('are remembered up to a number, the oldest forgotten first', () => {
    const ids = new UploadIds(async () => true)
    for (let i = 0; i < UPLOAD_IDS_MAX + 10; i++)
      ids.set(String(i), Promise.resolve({ name: `name ${i}`, sequence: i }))
    expect(ids.get('9')).to.equal(undefined)
    expect(ids.get('10')).to.not.equal(undefined)
  })

  it('of an upload that failed are forgotten, but not if it was tried again meanwhile', async () => {
    const ids = new UploadIds(async () => true)
    ids.set('a', Promise.reject(new Error('full')))
    ids.set('b', Promise.reject(new Error('full')))
    const again = Promise.resolve({ name: 'name', sequence: 1 })
    ids.set('b', again)
    await new Promise(resolve => setImmediate(resolve))
    expect(ids.get('a')).to.equal(undefined)
    expect(ids.get('b')).to.equal(again)
  })
})
