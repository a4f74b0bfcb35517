/** What the store relies on from a disk that runs, as one suite for the real disk and for the simulated one. */
import { expect } from 'chai'
import { type Disk, DiskError } from '../../runtime/world.ts'

/** A disk with an empty directory on it. */
export interface DiskHarness {
  readonly disk: Disk
  readonly root: string
  /** Runs work to its end. */
  run<T>(work: () => Promise<T>): Promise<T>
  remove(): Promise<void>
}

/** The errno a call rejects with; undefined if it does not. */
export async function errnoOf(work: Promise<unknown>): Promise<string | undefined> {
  try {
    await work
    return undefined
  } catch (error) {
    if (error instanceof DiskError) return error.errno
    throw error
  }
}

/** Makes a file of a text. */
export async function writeNew(disk: Disk, path: string, text: string): Promise<void> {
  const file = await disk.open(path, 'create')
  await file.write([Buffer.from(text, 'latin1')], 0)
  await file.close()
}

/** A whole file as text. */
export async function readWhole(disk: Disk, path: string): Promise<string> {
  const file = await disk.open(path, 'read')
  const bytes = Buffer.alloc(await file.sizeBytes())
  const count = await file.read(bytes, 0)
  await file.close()
  return bytes.toString('latin1', 0, count)
}

export function diskContract(name: string, make: () => Promise<DiskHarness>): void {
  describe(name, () => {
    let harness: DiskHarness
    beforeEach(async () => {
      harness = await make()
    })
    afterEach(() => harness.remove())

    /** A test that is given the disk and says a path by its end. */
    const holds = (title: string, test: (disk: Disk, at: (path: string) => string) => Promise<void>) =>
      it(title, () => harness.run(() => test(harness.disk, path => `${harness.root}/${path}`)))

    holds('creates only what does not exist, and opens only what does', async (disk, at) => {
      await writeNew(disk, at('file'), 'x')
      await disk.makeDirectory(at('directory'))
      for (const [path, read, create, update] of [
        ['file', undefined, 'EEXIST', undefined],
        ['none', 'ENOENT', undefined, undefined],
        ['none/below', 'ENOTDIR', 'ENOTDIR', 'ENOTDIR'],
        ['nowhere/below', 'ENOENT', 'ENOENT', 'ENOENT'],
        ['directory', undefined, 'EEXIST', 'EISDIR'],
      ] as const) {
        const open = async (mode: 'read' | 'create' | 'update') => (await disk.open(at(path), mode)).close()
        expect(await errnoOf(open('read')), `read ${path}`).to.equal(read)
        expect(await errnoOf(open('create')), `create ${path}`).to.equal(create)
        expect(await errnoOf(open('update')), `update ${path}`).to.equal(update)
      }
    })

    holds('reads up to the end of a file and nothing behind it', async (disk, at) => {
      await writeNew(disk, at('file'), 'hello')
      const file = await disk.open(at('file'), 'read')
      const target = Buffer.from('..........')
      expect(await file.read(target.subarray(1, 4), 1)).to.equal(3)
      expect(target.toString()).to.equal('.ell......')
      expect(await file.read(target, 3)).to.equal(2)
      expect(target.toString()).to.equal('loll......')
      expect(await file.read(target, 5)).to.equal(0)
      expect(await file.read(target, 500)).to.equal(0)
      expect(await file.read(Buffer.alloc(0), 0)).to.equal(0)
      await file.close()
    })

    holds('writes any number of parts one after another, anywhere', async (disk, at) => {
      const file = await disk.open(at('file'), 'create')
      await file.write([Buffer.from('ab'), Buffer.alloc(0), Buffer.from('cd')], 0)
      await file.write([Buffer.from('X')], 1)
      await file.write([], 0)
      expect(await file.sizeBytes()).to.equal(4)
      await file.write(
        Array.from({ length: 3000 }, () => Buffer.from('z')),
        4,
      )
      await file.sync()
      await file.close()
      expect(await readWhole(disk, at('file'))).to.equal(`aXcd${'z'.repeat(3000)}`)
    })

    holds('writes durably what it writes, and beside other writes, whatever has its path by then', async (disk, at) => {
      const file = await disk.open(at('file'), 'create')
      await file.write([Buffer.from('ab')], 0)
      await disk.rename(at('file'), at('moved'))
      await writeNew(disk, at('file'), 'other')
      await file.writeDurably([Buffer.from('c'), Buffer.from('d')], 2)
      await Promise.all([file.writeDurably([Buffer.from('e')], 4), file.writeDurably([Buffer.from('f')], 5)])
      await file.write([Buffer.from('X')], 1)
      expect(await file.sizeBytes()).to.equal(6)
      await file.close()
      expect(await readWhole(disk, at('moved'))).to.equal('aXcdef')
      expect(await readWhole(disk, at('file'))).to.equal('other')
    })

    holds('has zeroes where nothing was written, also where something was cut away', async (disk, at) => {
      const file = await disk.open(at('file'), 'create')
      await file.write([Buffer.from('abc')], 2)
      await file.truncate(3)
      await file.truncate(6)
      await file.write([Buffer.from('z')], 8)
      expect(await file.sizeBytes()).to.equal(9)
      await file.close()
      expect(await readWhole(disk, at('file'))).to.equal('\0\0a\0\0\0\0\0z')
    })

    holds('writes only to files that were opened for it', async (disk, at) => {
      await writeNew(disk, at('file'), 'x')
      const file = await disk.open(at('file'), 'read')
      expect(await errnoOf(file.write([Buffer.from('y')], 0))).to.equal('EBADF')
      expect(await errnoOf(file.writeDurably([Buffer.from('y')], 0))).to.equal('EBADF')
      expect(await errnoOf(file.truncate(0))).to.equal('EINVAL')
      await file.close()
      const directory = await disk.open(at(''), 'read')
      expect(await errnoOf(directory.read(Buffer.alloc(1), 0))).to.equal('EISDIR')
      expect(await errnoOf(directory.write([Buffer.from('y')], 0))).to.equal('EBADF')
      await directory.sync()
      await directory.close()
      expect(await readWhole(disk, at('file'))).to.equal('x')
    })

    holds('does nothing with a closed file, but closes it again', async (disk, at) => {
      const file = await disk.open(at('file'), 'create')
      const closed = file.close()
      expect(await errnoOf(file.sizeBytes())).to.equal('EBADF')
      await closed
      await file.close()
      expect(await errnoOf(file.read(Buffer.alloc(1), 0))).to.equal('EBADF')
      expect(await errnoOf(file.write([Buffer.from('y')], 0))).to.equal('EBADF')
      expect(await errnoOf(file.truncate(0))).to.equal('EBADF')
      expect(await errnoOf(file.sync())).to.equal('EBADF')
      expect(await errnoOf(file.sizeBytes())).to.equal('EBADF')
    })

    holds('lets calls end that are under way when a file is closed', async (disk, at) => {
      const file = await disk.open(at('file'), 'create')
      const written = file.write([Buffer.from('late')], 0)
      await Promise.all([file.close(), written])
      expect(await readWhole(disk, at('file'))).to.equal('late')
    })

    holds('replaces a file by renaming another over it', async (disk, at) => {
      await writeNew(disk, at('old'), 'old')
      await writeNew(disk, at('new'), 'new')
      const before = await disk.stat(at('new'))
      const old = await disk.open(at('old'), 'read')
      await disk.rename(at('new'), at('old'))
      await disk.rename(at('old'), at('old'))
      expect(await disk.list(at(''))).to.deep.equal(['old'])
      expect(await readWhole(disk, at('old'))).to.equal('new')
      expect((await disk.stat(at('old')))?.inode).to.equal(before?.inode)
      const bytes = Buffer.alloc(3)
      await old.read(bytes, 0)
      expect(bytes.toString()).to.equal('old')
      await old.close()
    })

    holds('says why it does not rename', async (disk, at) => {
      await writeNew(disk, at('file'), '')
      await disk.makeDirectory(at('a/b'))
      await disk.makeDirectory(at('empty'))
      for (const [from, to, errno] of [
        ['none', 'x', 'ENOENT'],
        ['file', 'none/x', 'ENOENT'],
        ['file/x', 'x', 'ENOTDIR'],
        ['file', 'a', 'EISDIR'],
        ['a', 'file', 'ENOTDIR'],
        ['a', 'a/b/c', 'EINVAL'],
        ['a/b', 'a', 'ENOTEMPTY'],
        ['empty', 'a', 'ENOTEMPTY'],
        ['a', 'empty', undefined],
      ] as const) {
        expect(await errnoOf(disk.rename(at(from), at(to))), `${from} -> ${to}`).to.equal(errno)
      }
      expect((await disk.list(at(''))).sort()).to.deep.equal(['empty', 'file'])
      expect(await disk.list(at('empty'))).to.deep.equal(['b'])
    })

    holds('keeps an open file working when its name changes or goes', async (disk, at) => {
      await disk.makeDirectory(at('d'))
      const file = await disk.open(at('file'), 'create')
      await file.write([Buffer.from('one')], 0)
      await disk.rename(at('file'), at('d/moved'))
      await file.write([Buffer.from(' two')], 3)
      expect(await readWhole(disk, at('d/moved'))).to.equal('one two')
      await disk.remove(at('d/moved'))
      await file.write([Buffer.from('!')], 7)
      const bytes = Buffer.alloc(10)
      expect(await file.read(bytes, 0)).to.equal(8)
      expect(bytes.toString('latin1', 0, 8)).to.equal('one two!')
      await file.sync()
      await file.close()
      expect(await disk.list(at('d'))).to.deep.equal([])
    })

    holds('removes files and nothing else', async (disk, at) => {
      await writeNew(disk, at('file'), '')
      await disk.makeDirectory(at('directory'))
      expect(await errnoOf(disk.remove(at('none')))).to.equal('ENOENT')
      expect(await errnoOf(disk.remove(at('file/x')))).to.equal('ENOTDIR')
      expect(await errnoOf(disk.remove(at('directory')))).to.equal('ERR_FS_EISDIR')
      await disk.remove(at('file'))
      expect(await disk.list(at(''))).to.deep.equal(['directory'])
    })

    holds('makes directories with those above them, and does not mind that they exist', async (disk, at) => {
      await disk.makeDirectory(at('a/b/c'))
      await disk.makeDirectory(at('a/b'))
      await disk.makeDirectory(at('a/b/d'))
      await writeNew(disk, at('a/file'), '')
      expect((await disk.list(at('a/b'))).sort()).to.deep.equal(['c', 'd'])
      expect(await errnoOf(disk.makeDirectory(at('a/file')))).to.equal('EEXIST')
      expect(await errnoOf(disk.makeDirectory(at('a/file/x')))).to.equal('ENOTDIR')
      expect(await errnoOf(disk.list(at('a/file')))).to.equal('ENOTDIR')
      expect(await errnoOf(disk.list(at('none')))).to.equal('ENOENT')
    })

    holds('tells files, directories and nothing apart, and one inode from another', async (disk, at) => {
      await writeNew(disk, at('file'), 'four')
      await writeNew(disk, at('other'), '')
      await disk.makeDirectory(at('directory'))
      const entries = await Promise.all(['file', 'other', 'directory'].map(path => disk.stat(at(path))))
      expect(entries.map(entry => entry?.kind)).to.deep.equal(['file', 'file', 'directory'])
      expect(entries[0]?.sizeBytes).to.equal(4)
      expect(entries[0]?.mtimeMs).to.be.a('number')
      expect(new Set(entries.map(entry => entry?.inode)).size).to.equal(3)
      expect(await disk.stat(at('none'))).to.equal(undefined)
      expect(await disk.stat(at('none/x'))).to.equal(undefined)
      expect(await errnoOf(disk.stat(at('file/x')))).to.equal('ENOTDIR')
    })

    holds('syncs directories that are there, and knows their space', async (disk, at) => {
      await disk.syncDirectory(at(''))
      expect(await errnoOf(disk.syncDirectory(at('none')))).to.equal('ENOENT')
      const { totalBytes, freeBytes } = await disk.space(at(''))
      expect(freeBytes).to.be.within(1, totalBytes)
      expect(await errnoOf(disk.space(at('none')))).to.equal('ENOENT')
    })

    holds('gives the lock of a directory to one holder at a time', async (disk, at) => {
      await disk.makeDirectory(at('d'))
      const lock = await disk.lock(at('d'))
      expect(await errnoOf(disk.lock(at('d')))).to.equal('EEXIST')
      expect((await disk.stat(at('d/lock')))?.kind).to.equal('other')
      expect(await errnoOf(disk.open(at('d/lock'), 'read'))).to.equal('ENXIO')
      expect(await lock.held()).to.equal(true)
      await lock.release()
      expect(await disk.list(at('d'))).to.deep.equal([])
      const next = await disk.lock(at('d'))
      expect(await next.held()).to.equal(true)
      await next.release()
      expect(await errnoOf(disk.lock(at('none')))).to.equal('ENOENT')
    })

    holds('tells a holder that somebody removed its lock', async (disk, at) => {
      const lock = await disk.lock(at(''))
      await disk.remove(at('lock'))
      expect(await lock.held()).to.equal(false)
      const next = await disk.lock(at(''))
      expect([await lock.held(), await next.held()]).to.deep.equal([false, true])
      await next.release()
      await lock.release()
    })

    holds('replaces a lock that nobody holds any more', async (disk, at) => {
      await disk.makeDirectory(at('old'))
      const lock = await disk.lock(at('old'))
      await disk.rename(at('old'), at('new'))
      expect(await errnoOf(disk.lock(at('new')))).to.equal('EEXIST')
      await lock.release()
      expect(await disk.list(at('new'))).to.deep.equal(['lock'])
      const next = await disk.lock(at('new'))
      expect(await next.held()).to.equal(true)
      await next.release()
    })
  })
}
