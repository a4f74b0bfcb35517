import { constants, existsSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { realDisk } from '../../runtime/real-disk.ts'
import type { DiskLock } from '../../runtime/world.ts'
import { BlockPool, PIECE_BYTES } from '../../store/block-pool.ts'
import { SeededRandom } from '../simulation/seeded-random.ts'

describe('the lock of a directory', () => {
  let root: string
  let directory: string
  const locks: DiskLock[] = []

  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'natsdfs-disk-'))
    directory = join(root, 'data')
    await mkdir(directory)
  })
  afterEach(async () => {
    for (const lock of locks.splice(0)) await lock.release()
    await rm(root, { recursive: true })
  })

  async function take(): Promise<DiskLock> {
    const lock = await realDisk.lock(directory)
    locks.push(lock)
    return lock
  }
  const release = async (lock: DiskLock) => {
    locks.splice(locks.indexOf(lock), 1)
    await lock.release()
  }
  const errnoOf = (work: Promise<unknown>) => work.then(() => 'none').catch((error: { errno: string }) => error.errno)

  it('is one at a time, leaves nothing behind, and may be taken again', async () => {
    const first = await take()
    expect(await errnoOf(realDisk.lock(directory))).to.equal('EEXIST')
    await release(first)
    expect(await readdir(directory)).to.deep.equal([])
    expect(await (await take()).held()).to.equal(true)
  })

  it('may be let go of twice, and is no worse for whoever has it then', async () => {
    const first = await take()
    await Promise.all([first.release(), first.release()])
    const second = await take()
    await release(first)
    expect(await second.held()).to.equal(true)
    expect(await errnoOf(realDisk.lock(directory))).to.equal('EEXIST')
  })

  it('that was removed from under its holder is let go of without a word', async () => {
    const lock = await take()
    await rm(join(directory, 'lock'))
    expect(await lock.held()).to.equal(false)
    await release(lock)
    expect(await readdir(directory)).to.deep.equal([])
  })

  // Only where a directory can be named by its open handle.
  if (existsSync('/proc/self/fd')) {
    for (const [what, name] of [
      ['', 'short'],
      [', in a directory with a long path too', 'x'.repeat(120)],
    ] as const) {
      it(`that another has taken over stays theirs when the first lets go of it${what}`, async () => {
        directory = join(root, name)
        await mkdir(directory)
        const first = await take()
        await rm(join(directory, 'lock'))
        const second = await take()
        expect([await first.held(), await second.held()]).to.deep.equal([false, true])
        await release(first)
        expect(await second.held()).to.equal(true)
        expect(await errnoOf(realDisk.lock(directory))).to.equal('EEXIST')
        await release(second)
        expect(await readdir(directory)).to.deep.equal([])
      })
    }
  }
})

describe('a file that goes past the page cache', () => {
  let root: string
  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'natsdfs-disk-'))
  })
  afterEach(() => rm(root, { recursive: true }))

  /** How many files of this process go past the page cache; undefined where the system does not tell. */
  async function directFiles(): Promise<number | undefined> {
    if (constants.O_DIRECT === undefined || !existsSync('/proc/self/fdinfo')) return undefined
    const infos = await Promise.all(
      (await readdir('/proc/self/fdinfo')).map(fd => readFile(`/proc/self/fdinfo/${fd}`, 'utf8').catch(() => '')),
    )
    const flags = infos.map(info => Number.parseInt(/flags:\s*(\d+)/.exec(info)?.[1] ?? '0', 8))
    return flags.filter(flag => (flag & constants.O_DIRECT) !== 0).length
  }

  it('has the bytes that were written, whatever begins or ends at a page and what does not', async () => {
    const random = new SeededRandom('direct')
    const piece = new BlockPool().tryAcquire(PIECE_BYTES)!
    const path = join(root, 'file')
    const file = await realDisk.open(path, 'create', 'direct')
    const copy = Buffer.alloc(2 * PIECE_BYTES)
    const pages = (limit: number) => random.below(limit / 4096) * 4096
    const some = (limit: number) => pages(limit) + (random.below(3) === 0 ? random.below(4096) : 0)
    let sizeBytes = 0
    for (let i = 0; i < 200; i++) {
      // A buffer that begins anywhere is what the system refuses, and what is not tried again.
      const [offset, from] = [some(PIECE_BYTES), i < 150 ? pages(PIECE_BYTES) : some(PIECE_BYTES)]
      const bytes = piece.subarray(from, from + some(PIECE_BYTES))
      if (random.below(2) === 0) {
        random.bytes(bytes.length).copy(bytes)
        bytes.copy(copy, offset)
        sizeBytes = Math.max(sizeBytes, bytes.length > 0 ? offset + bytes.length : 0)
        await file.write([bytes], offset)
      } else {
        const expected = copy.subarray(0, sizeBytes).subarray(offset, offset + bytes.length)
        expect(await file.read(bytes, offset)).to.equal(expected.length)
        expect(bytes.subarray(0, expected.length).equals(expected), `read ${i}`).to.equal(true)
      }
    }
    await file.sync()
    await file.close()
    expect((await readFile(path)).equals(copy.subarray(0, sizeBytes))).to.equal(true)
  })

  it('lets go of it when it is closed', async () => {
    const before = await directFiles()
    const file = await realDisk.open(join(root, 'file'), 'create', 'direct')
    const during = await directFiles()
    if (before !== undefined) expect(during).to.equal(before + 1)
    await file.close()
    expect(await directFiles()).to.equal(before)
  })
})
