import { expect } from 'chai'
import { BLOCK_BYTES, BlockPool } from '../../store/block-pool.ts'

describe('block pool', () => {
  it('gives out no more blocks than it may, and the next to who waited first', async () => {
    const pool = new BlockPool(2)
    const first = await pool.acquire()
    const second = await pool.acquire()
    expect(pool.takenBytes).to.equal(2 * BLOCK_BYTES)
    expect(pool.tryAcquire()).to.equal(undefined)
    const order: Buffer[] = []
    for (let i = 0; i < 2; i++) void pool.acquire().then(block => order.push(block))
    pool.release(second)
    pool.release(first)
    expect(pool.takenBytes).to.equal(2 * BLOCK_BYTES)
    await Promise.resolve()
    expect(order).to.deep.equal([second, first])
    pool.release(first)
    pool.release(second)
    expect(pool.takenBytes).to.equal(0)
  })

  it('uses blocks again', async () => {
    const pool = new BlockPool(2)
    const block = await pool.acquire()
    expect(block).to.have.length(BLOCK_BYTES)
    pool.release(block)
    expect(pool.tryAcquire()).to.equal(block)
  })
})
