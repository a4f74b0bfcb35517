import { expect } from 'chai'
import { BLOCK_BYTES, BlockPool, PIECE_BYTES } from '../../store/block-pool.ts'

describe('block pool', () => {
  it('gives out no more blocks than it may, and the next to who waited first', async () => {
    const pool = new BlockPool(2 * BLOCK_BYTES)
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
    const pool = new BlockPool(2 * BLOCK_BYTES)
    const block = await pool.acquire()
    expect(block).to.have.length(BLOCK_BYTES)
    pool.release(block)
    expect(pool.tryAcquire()).to.equal(block)
  })

  it('has buffers of many sizes in one budget, and lets nobody overtake who waits for a large one', async () => {
    const pool = new BlockPool(64 * 1024)
    const small = await pool.acquire(100)
    expect(small.length).to.be.within(100, 16 * 1024)
    const large = pool.acquire(60 * 1024)
    expect(pool.tryAcquire(100), 'somebody waits').to.equal(undefined)
    const behind = pool.acquire(100)
    pool.release(small)
    expect((await large).length).to.be.at.least(60 * 1024)
    pool.release(await large)
    pool.release(await behind)
    expect(pool.takenBytes).to.equal(0)
  })

  it('gives its smallest buffer to whoever needs next to nothing, or nothing', async () => {
    const pool = new BlockPool(64 * 1024)
    for (const bytes of [0, 1, 8 * 1024]) expect(await pool.acquire(bytes)).to.have.length(8 * 1024)
    expect(await pool.acquire(8 * 1024 + 1)).to.have.length(16 * 1024)
  })

  it('gives even what is more than the budget, to one at a time', async () => {
    const pool = new BlockPool(BLOCK_BYTES)
    const [first, second] = [pool.acquire(2 * BLOCK_BYTES), pool.acquire(2 * BLOCK_BYTES)]
    pool.release(await first)
    expect((await second).length).to.be.at.least(2 * BLOCK_BYTES)
  })
  it('gives pieces while at most half of it is taken, then blocks, and nothing to who has some', async () => {
    const pool = new BlockPool(8 * PIECE_BYTES)
    expect(await pool.acquirePiece(BLOCK_BYTES)).to.have.length(BLOCK_BYTES)
    for (let i = 0; i < 2; i++) expect(await pool.acquirePiece(BLOCK_BYTES + 1)).to.have.length(PIECE_BYTES)
    for (let i = 0; i < 2; i++) expect(pool.trySpare()).to.have.length(PIECE_BYTES)
    expect(pool.trySpare()).to.equal(undefined)
    const left = pool.tryAcquire(BLOCK_BYTES)!
    expect(await pool.acquirePiece(100 * PIECE_BYTES)).to.have.length(BLOCK_BYTES)
    pool.release(left)
  })
})
