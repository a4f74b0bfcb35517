import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { realDisk } from '../../runtime/real-disk.ts'
import type { DiskLock } from '../../runtime/world.ts'

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
