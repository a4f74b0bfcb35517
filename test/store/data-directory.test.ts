import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect } from 'chai'
import { realWorld } from '../../runtime/real-world.ts'
import type { ChildProcess } from '../../runtime/world.ts'
import { openDirectory } from '../../store/data-directory.ts'
import { WrongIdentityError } from '../../store/identity.ts'
import { optionsOf, rejection, Workshop } from './store-fixture.ts'

const CHILD = fileURLToPath(new URL('./lock-child.js', import.meta.url))

describe('data directory', () => {
  const world = realWorld()
  let workshop: Workshop
  let directory: string
  const children: ChildProcess[] = []

  beforeEach(async () => {
    workshop = await Workshop.make()
    directory = join(workshop.path, 'data')
  })
  afterEach(async () => {
    for (const child of children.splice(0)) {
      child.kill('SIGKILL')
      await child.exited
    }
    await workshop.remove()
  })

  const open = (options = {}) => openDirectory(world, { ...optionsOf(directory), ...options })
  /** Lets another process open the directory; resolves with what it says. */
  async function openElsewhere(): Promise<{ said: string; child: ChildProcess }> {
    let hear: (line: string) => void = () => {}
    const said = new Promise<string>(resolve => {
      hear = resolve
    })
    const child = world.processes.spawn(process.execPath, [CHILD, directory], { onLine: line => hear(line) })
    children.push(child)
    void child.exited.then(() => hear('nothing'))
    return { said: await said, child }
  }

  it('is refused to a second one in the same process until the first lets go', async () => {
    const first = await open()
    expect(await rejection(open())).to.include({ name: 'DiskError', errno: 'EEXIST' })
    expect(await first.lock.held()).to.equal(true)
    await first.lock.release()
    const second = await open()
    expect(second.identity).to.include({ bootCount: 2, incarnation: first.identity.incarnation })
    await second.lock.release()
  })

  it('is refused to another process while this one has it, and the other way round', async () => {
    const mine = await open()
    expect((await openElsewhere()).said).to.equal('EEXIST')
    await mine.lock.release()
    expect((await openElsewhere()).said).to.equal('locked')
    expect(await rejection(open())).to.include({ errno: 'EEXIST' })
  })

  it('is free again when the process that had it was killed, though its socket is still there', async () => {
    const { said, child } = await openElsewhere()
    expect(said).to.equal('locked')
    child.kill('SIGKILL')
    await child.exited
    expect((await stat(join(directory, 'lock'))).isSocket()).to.equal(true)
    const mine = await open()
    expect(mine.identity.bootCount).to.equal(2)
    await mine.lock.release()
  })

  it('may have a path that is longer than any socket address', async () => {
    directory = join(workshop.path, 'x'.repeat(120), 'y'.repeat(120))
    const mine = await open()
    expect(await rejection(open())).to.include({ errno: 'EEXIST' })
    expect((await openElsewhere()).said).to.equal('EEXIST')
    expect(await mine.lock.held()).to.equal(true)
    await mine.lock.release()
    expect((await openElsewhere()).said).to.equal('locked')
  })

  it('that belongs to another server is refused and not left locked', async () => {
    const first = await open()
    await first.lock.release()
    expect(await rejection(open({ storageId: 8 }))).to.be.instanceOf(WrongIdentityError)
    expect(await rejection(open({ group: 'group2' }))).to.be.instanceOf(WrongIdentityError)
    const again = await open()
    expect(again.identity.bootCount).to.equal(2)
    await again.lock.release()
  })

  it('refuses the store paths of another data directory', async () => {
    const storePaths = [join(workshop.path, 'shared')]
    const opened = await workshop.open('one', { storePaths })
    await opened.close()
    expect((await rejection(workshop.open('two', { storePaths }))).message).to.contain('another data directory')
  })

  it('counts its starts', async () => {
    const counts: number[] = []
    for (let i = 0; i < 3; i++) {
      const opened = await workshop.open()
      counts.push(opened.bootCount)
      await opened.close()
    }
    expect(counts).to.deep.equal([1, 2, 3])
  })
})
