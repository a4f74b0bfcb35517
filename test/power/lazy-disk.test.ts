/** The lazy disk is the real one until something is cut; then it is what was synced. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { realDisk } from '../../runtime/real-disk.ts'
import { readText } from '../../runtime/text-file.ts'
import { type Disk, DiskError, type DiskFile } from '../../runtime/world.ts'
import { SeededRandom } from '../simulation/seeded-random.ts'
import { writeWhole } from '../store/store-fixture.ts'
import { LazyDisk } from './lazy-disk.ts'

describe('lazy disk', () => {
  let directory = ''
  let root = ''
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'dfs-lazy-'))
    root = join(directory, 'disk')
  })
  afterEach(() => rmSync(directory, { recursive: true, force: true }))
  const at = (name: string) => join(root, name)

  for (const seed of [1, 2, 3, 4]) {
    it(`behaves like the real one as long as nothing is cut, seed ${seed}`, async () => {
      const random = new SeededRandom(`differential ${seed}`)
      const real = new Hand(realDisk, join(directory, 'real'))
      let lazy = new LazyDisk(root)
      const hand = new Hand(lazy, root)
      await realDisk.makeDirectory(join(directory, 'real'))
      for (let i = 0; i < 1_500; i++) {
        const call = drawCall(random)
        expect(await hand.do(call), `call ${i}: ${JSON.stringify(call)}`).deep.equal(await real.do(call))
        if (!random.chance(0.01)) continue
        // The process dies and comes back; the machine has gone on.
        await real.closeAll()
        await hand.closeAll()
        const cache = lazy.cache()
        lazy.die()
        lazy = new LazyDisk(root, { cache })
        hand.goOn(lazy)
      }
      await hand.closeAll()
      await syncAll(lazy, root)
      expect(await treeOf(new LazyDisk(root), root)).deep.equal(await treeOf(realDisk, join(directory, 'real')))
      await real.closeAll()
    })
  }

  it('loses bytes that were not synced, and keeps those that were', async () => {
    const disk = new LazyDisk(root)
    const file = await disk.open(at('a'), 'create')
    await file.write([Buffer.from('kept')], 0)
    await file.sync()
    await disk.syncDirectory(root)
    await file.write([Buffer.from('lost')], 4)
    expect(await readText(disk, at('a'))).equal('keptlost')
    expect(await readText(new LazyDisk(root), at('a'))).equal('kept')
  })

  it('loses a file that was synced while its directory was not', async () => {
    const disk = new LazyDisk(root)
    const file = await disk.open(at('a'), 'create')
    await file.write([Buffer.from('bytes')], 0)
    await file.sync()
    expect(await disk.list(root)).deep.equal(['a'])
    expect(await new LazyDisk(root).list(root)).deep.equal([])
  })

  it('keeps the name alone of a file that was not synced while its directory was', async () => {
    const disk = new LazyDisk(root)
    await writeWhole(disk, at('a'), Buffer.from('bytes'))
    await disk.syncDirectory(root)
    expect(await readText(new LazyDisk(root), at('a'))).equal('')
  })

  it('takes back what was renamed, removed or cut short, until it is synced', async () => {
    await writeDurably(['a', 'b', 'c'])
    const change = async (disk: Disk) => {
      await disk.rename(at('a'), at('a2'))
      await disk.remove(at('b'))
      const file = await disk.open(at('c'), 'update')
      await file.truncate(1)
      return file
    }
    await change(new LazyDisk(root))
    expect(await treeOf(new LazyDisk(root), root)).deep.equal({ a: 'a', b: 'b', c: 'c' })
    const disk = new LazyDisk(root)
    const file = await change(disk)
    await file.truncate(0)
    await file.sync()
    await disk.syncDirectory(root)
    expect(await treeOf(new LazyDisk(root), root)).deep.equal({ a2: 'a', c: '' })
  })

  it('makes the directories on the way durable with an entry, and no other entry', async () => {
    const disk = new LazyDisk(root)
    await disk.makeDirectory(at('x/y'))
    await writeWhole(disk, at('other'), Buffer.from('other'))
    await writeWhole(disk, at('x/y/file'), Buffer.alloc(0))
    await disk.syncDirectory(at('x/y'))
    expect(await treeOf(new LazyDisk(root), root)).deep.equal({ x: { y: { file: '' } } })
  })

  it('makes a rename durable with what the name was before', async () => {
    await writeDurably(['a', 'b'])
    const disk = new LazyDisk(root)
    await disk.makeDirectory(at('x'))
    await disk.rename(at('a'), at('a2'))
    await disk.rename(at('b'), at('a'))
    await disk.rename(at('a'), at('x/b'))
    await disk.syncDirectory(at('x'))
    expect(await treeOf(new LazyDisk(root), root)).deep.equal({ a2: 'a', x: { b: 'b' } })
  })

  it('lets whole sectors through when it is torn, and entries in order or in any', async () => {
    const seen = new Set<string>()
    for (let seed = 0; seed < 40; seed++) {
      const order = seed % 2 === 0 ? 'in order' : 'in any order'
      rmSync(root, { recursive: true, force: true })
      await writeDurably(['a'])
      const disk = new LazyDisk(root)
      const file = await disk.open(at('a'), 'update')
      await file.write([Buffer.alloc(2048, 'x')], 0)
      await disk.rename(at('a'), at('b'))
      await writeWhole(disk, at('c'), Buffer.alloc(0))
      disk.tear(new SeededRandom(`tear ${seed}`), order)
      const { a, b, c } = (await treeOf(new LazyDisk(root), root)) as Record<string, string>
      for (let i = 0; i < 4; i++) expect((a ?? b)!.slice(i * 512, (i + 1) * 512)).match(/^(x*|a?\0*)$/)
      seen.add(`${order}: ${a === undefined ? 'b' : 'a'}${c === undefined ? '' : 'c'}`)
      seen.add(`${(a ?? b)!.length}`)
    }
    expect([...seen]).include.members(['in order: a', 'in order: b', 'in order: bc', '1', '2048'])
    expect([...seen]).include.members(['in any order: a', 'in any order: b', 'in any order: bc', 'in any order: ac'])
    expect([...seen]).not.include('in order: ac')
  })

  it('lies about the paths it is told to lie about', async () => {
    const disk = new LazyDisk(root, { lies: /a$/ })
    for (const name of ['a', 'b']) {
      const file = await disk.open(at(name), 'create')
      await file.write([Buffer.from(name)], 0)
      await file.sync()
    }
    await disk.syncDirectory(root)
    expect(await treeOf(new LazyDisk(root), root)).deep.equal({ a: '', b: 'b' })
  })

  async function writeDurably(names: readonly string[]): Promise<void> {
    const disk = new LazyDisk(root)
    for (const name of names) await writeWhole(disk, at(name), Buffer.from(name))
    await syncAll(disk, root)
  }
})

/** One call of a random sequence; paths below the disk's root. */
type Call =
  | { readonly do: 'open'; readonly path: string; readonly mode: 'read' | 'create' | 'update' }
  | { readonly do: 'rename'; readonly path: string; readonly to: string }
  | { readonly do: 'remove' | 'makeDirectory' | 'list' | 'stat' | 'syncDirectory' | 'content'; readonly path: string }
  | { readonly do: 'write'; readonly file: number; readonly offsetBytes: number; readonly bytes: Buffer }
  | { readonly do: 'read'; readonly file: number; readonly offsetBytes: number; readonly count: number }
  | { readonly do: 'truncate'; readonly file: number; readonly sizeBytes: number }
  | { readonly do: 'sync' | 'sizeBytes' | 'close'; readonly file: number }

function drawCall(random: SeededRandom): Call {
  const directory = () => random.pick(['', '', 'x', 'x', 'x/y', 'z'])
  const path = () => join(directory(), random.pick(['a', 'b', 'c']))
  const file = random.below(4)
  const offsetBytes = random.below(2_000)
  const what = random.pick([
    ...(['open', 'open', 'open', 'rename', 'rename', 'remove', 'makeDirectory', 'list', 'stat'] as const),
    ...(['syncDirectory', 'content', 'write', 'write', 'write', 'read', 'truncate'] as const),
    ...(['sync', 'sizeBytes', 'close'] as const),
  ])
  switch (what) {
    case 'open':
      return { do: what, path: path(), mode: random.pick(['read', 'create', 'create', 'update']) }
    case 'rename':
      return { do: what, path: path(), to: path() }
    case 'write':
      return { do: what, file, offsetBytes, bytes: random.bytes(random.below(1_500)) }
    case 'read':
      return { do: what, file, offsetBytes, count: random.below(1_500) }
    case 'truncate':
      return { do: what, file, sizeBytes: offsetBytes }
    case 'sync':
    case 'sizeBytes':
    case 'close':
      return { do: what, file }
    case 'makeDirectory':
    case 'list':
    case 'syncDirectory':
      return { do: what, path: directory() }
    default:
      return { do: what, path: path() }
  }
}

/** Does calls on a disk, and keeps the last four files open. */
class Hand {
  #disk: Disk
  readonly #root: string
  readonly #files: (DiskFile | undefined)[] = []
  #opened = 0

  constructor(disk: Disk, root: string) {
    this.#disk = disk
    this.#root = root
  }

  /** Goes on with another disk, when nothing is open. */
  goOn(disk: Disk): void {
    this.#disk = disk
  }

  /** What a call gave, or the errno it failed with. */
  async do(call: Call): Promise<unknown> {
    try {
      return (await this.#do(call)) ?? 'done'
    } catch (error) {
      if (error instanceof DiskError) return error.errno
      throw error
    }
  }

  async closeAll(): Promise<void> {
    for (const file of this.#files.splice(0)) await file?.close()
  }

  async #do(call: Call): Promise<unknown> {
    const disk = this.#disk
    const file = 'file' in call ? this.#files[call.file] : undefined
    const path = 'path' in call ? join(this.#root, call.path) : ''
    switch (call.do) {
      case 'open': {
        const opened = await disk.open(path, call.mode)
        const place = this.#opened++ % 4
        await this.#files[place]?.close()
        this.#files[place] = opened
        return opened.sizeBytes()
      }
      case 'rename':
        return disk.rename(path, join(this.#root, call.to))
      case 'remove':
        return disk.remove(path)
      case 'makeDirectory':
        return disk.makeDirectory(path)
      case 'list':
        return (await disk.list(path)).sort()
      case 'stat': {
        const entry = await disk.stat(path)
        return entry && { kind: entry.kind, sizeBytes: entry.kind === 'file' ? entry.sizeBytes : 0 }
      }
      case 'syncDirectory':
        return disk.syncDirectory(path)
      case 'content':
        return readText(disk, path)
      case 'write':
        return file?.write([call.bytes.subarray(0, 7), call.bytes.subarray(7)], call.offsetBytes)
      case 'read': {
        const target = Buffer.alloc(call.count)
        return [await file?.read(target, call.offsetBytes), target]
      }
      case 'truncate':
        return file?.truncate(call.sizeBytes)
      case 'sync':
        return file?.sync()
      case 'sizeBytes':
        return file?.sizeBytes()
      case 'close':
        await file?.close()
        this.#files[call.file] = undefined
        return 'closed'
    }
  }
}

/** Everything below a directory: texts of files, trees of directories. */
async function treeOf(disk: Disk, directory: string): Promise<Record<string, unknown>> {
  const tree: Record<string, unknown> = {}
  for (const name of (await disk.list(directory)).sort()) {
    const path = join(directory, name)
    const isDirectory = (await disk.stat(path))!.kind === 'directory'
    tree[name] = isDirectory ? await treeOf(disk, path) : await readText(disk, path)
  }
  return tree
}

async function syncAll(disk: Disk, directory: string): Promise<void> {
  await disk.syncDirectory(directory)
  for (const name of await disk.list(directory)) {
    const path = join(directory, name)
    if ((await disk.stat(path))!.kind === 'directory') {
      await syncAll(disk, path)
      continue
    }
    const file = await disk.open(path, 'update')
    await file.sync()
    await file.close()
  }
}
