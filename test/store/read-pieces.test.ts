import { writeFile } from 'node:fs/promises'
import { expect } from 'chai'
import fc from 'fast-check'
import { realWorld } from '../../runtime/real-world.ts'
import { BLOCK_BYTES, BlockPool, PIECE_BYTES } from '../../store/block-pool.ts'
import { IncomingFile } from '../../store/incoming-file.ts'
import { readPieces } from '../../store/read-pieces.ts'
import { StorePath } from '../../store/store-path.ts'
import { StoredFile } from '../../store/stored-file.ts'
import { FaultyDisk } from './faulty-disk.ts'
import { contentOf, fill, pathOptions, rejection, sumOf, Workshop } from './store-fixture.ts'

const BYTES = 9 * PIECE_BYTES + BLOCK_BYTES + 17

describe('pieces of a file', () => {
  const content = contentOf(BYTES)
  let workshop: Workshop
  let disk: FaultyDisk
  let path: string
  let file: StoredFile
  let pool: BlockPool

  beforeEach(async () => {
    workshop = await Workshop.make()
    disk = new FaultyDisk(realWorld().disk)
    const storePath = await StorePath.open(disk, 0, workshop.path, pathOptions('0'.repeat(32)))
    await (await fill(await IncomingFile.create(disk, storePath, 'a'), content)).seal()
    path = storePath.temporaryPath('a')
    file = await StoredFile.open(disk, path, BYTES, sumOf(content), 'direct')
    pool = new BlockPool()
  })
  afterEach(async () => {
    await file.close()
    await workshop.remove()
  })

  /** Reads a range to its end. */
  async function read(from: number, until: number): Promise<Buffer> {
    const pieces: Buffer[] = []
    for await (const piece of readPieces(file, pool, { from, until })) pieces.push(Buffer.from(piece))
    return Buffer.concat(pieces)
  }

  it('are the bytes of any range, and leave no buffer behind', async () => {
    const offset = fc.oneof(
      fc.nat(BYTES),
      fc.nat(37).map(block => block * BLOCK_BYTES),
      fc.nat(37).map(block => block * BLOCK_BYTES + 1),
    )
    await fc.assert(
      fc.asyncProperty(offset, offset, async (a, b) => {
        const [from, until] = [Math.min(a, b), Math.min(Math.max(a, b), BYTES)]
        expect((await read(from, until)).equals(content.subarray(from, until)), `${from} to ${until}`).to.equal(true)
        expect(pool.takenBytes).to.equal(0)
      }),
      { numRuns: 50 },
    )
  })

  it('are read ahead once the first is asked for no more, in three buffers however slow the reader is', async () => {
    const pieces = readPieces(file, pool, { from: 0, until: BYTES })
    await pieces.next()
    const reads = () => disk.count({ action: 'read', path: /tmp.a$/ })
    expect(pool.takenBytes).to.equal(PIECE_BYTES)
    expect(reads()).to.equal(1)
    await pieces.next()
    expect(pool.takenBytes).to.equal(3 * PIECE_BYTES)
    const second = await pieces.next()
    expect((second.value as Buffer).equals(content.subarray(2 * PIECE_BYTES, 3 * PIECE_BYTES))).to.equal(true)
    expect(pool.takenBytes).to.equal(3 * PIECE_BYTES)
    await pieces.return()
    expect(pool.takenBytes).to.equal(0)
  })

  it('come one block at a time when the pool runs short', async () => {
    pool = new BlockPool(2 * PIECE_BYTES)
    const other = pool.tryAcquire(PIECE_BYTES)!
    const sizes: number[] = []
    for await (const piece of readPieces(file, pool, { from: 5, until: PIECE_BYTES })) {
      sizes.push(piece.length)
      expect(pool.takenBytes).to.equal(PIECE_BYTES + BLOCK_BYTES)
    }
    expect(sizes).to.deep.equal([BLOCK_BYTES - 5, BLOCK_BYTES, BLOCK_BYTES, BLOCK_BYTES])
    pool.release(other)
  })

  it('end in front of one with a bad block, when all before it were given', async () => {
    const bad = Buffer.from(content)
    bad[3 * PIECE_BYTES + BLOCK_BYTES]! ^= 1
    await writeFile(path, bad)
    const given: Buffer[] = []
    const reading = (async () => {
      for await (const piece of readPieces(file, pool, { from: 0, until: BYTES })) given.push(Buffer.from(piece))
    })()
    expect(await rejection(reading)).to.include({ code: 'corrupt' })
    expect(Buffer.concat(given).equals(content.subarray(0, 3 * PIECE_BYTES))).to.equal(true)
    expect(pool.takenBytes).to.equal(0)
  })
})
