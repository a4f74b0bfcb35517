import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'chai'
import { decodeFileName, parseFileId } from '../../protocol/file-id.ts'
import { readMetadata, textsOf } from '../../protocol/metadata.ts'
import { BLOCK_BYTES } from '../../store/block-pool.ts'
import {
  dyingDisk,
  FastdfsWriter,
  type ListedFile,
  REAL_ADDRESS,
  sha256,
  takeOverAt,
  unpackReal,
} from './fastdfs-fixture.ts'
import { contentOf, type OpenStore, Workshop } from './store-fixture.ts'

const BY_1 = { storageId: 1, group: 'group1' }

describe('taking over a FastDFS directory', () => {
  let workshop: Workshop
  let directory: string
  const data = 'natsdfs'
  const open = () => workshop.open(data, { ...BY_1, storePaths: [join(directory, 'store')] })
  const take = (...[options, parts]: Parameters<typeof takeOverAt> extends [string, string, ...infer R] ? R : never) =>
    takeOverAt(directory, join(workshop.path, data), options, parts)

  beforeEach(async () => {
    workshop = await Workshop.make()
    directory = join(workshop.path, 'fastdfs')
  })
  afterEach(() => workshop.remove())

  describe('one that a real server wrote', () => {
    let listed: readonly ListedFile[]
    let before: string

    beforeEach(() => {
      listed = unpackReal(directory)
      before = digestOf(directory)
    })

    it('serves every file as it was, and knows those that are deleted', async () => {
      const report = await take()
      expect(report.counts).to.deep.include({ plain: 37, slave: 1, appender: 1, metadata: 1, damaged: 0, left: 0 })
      const { store } = await open()
      for (const { id, kind, sha256: sum, size, meta } of listed) {
        const { name } = parseFileId(id)
        if (kind === 'deleted') {
          expect(await store.has(name)).to.equal(false)
        } else if (kind === 'metadata') {
          const metadata = await store.readMetadata(decodeFileName(name))
          expect(textsOf(readMetadata(metadata!))).to.deep.equal(meta)
        } else {
          const content = await bytesOf(store, name)
          expect(content.length).to.equal(size)
          expect(sha256(content), id).to.equal(sum)
        }
      }
      expect(store.formerly).to.include(REAL_ADDRESS)
      // Whoever has applied some of them has not applied all.
      for await (const { record } of store.readRecords({ after: 0, until: listed.length }))
        if (record.op !== 'S') expect(record.timeMs).to.equal(0)
    })

    it('changes nothing of what was there', async () => {
      await take()
      expect(digestOf(directory)).to.equal(before)
    })

    it('knows of a file that it deletes, and of no other, that it is gone', async () => {
      await take()
      const { store } = await open()
      const names = listed.filter(({ kind }) => kind === 'plain').map(({ id }) => parseFileId(id).name)
      for (const name of names) {
        expect(await store.delete(name)).to.equal(true)
        expect(await store.knowsDeletion(name), name).to.equal(true)
      }
      const deleted = parseFileId(listed.find(({ kind }) => kind === 'deleted')!.id).name
      expect(await store.knowsDeletion(deleted)).to.equal(false)
    })

    it('does it only once, and not where a server has run', async () => {
      await take()
      expect(await reasonOf(take())).to.match(/taken over already/)
      const opened = await workshop.open('other', BY_1)
      await opened.store.takeOver([{ op: 'C', name: parseFileId(listed[0]!.id).name }])
      await opened.close()
      const reason = await reasonOf(takeOverAt(directory, join(workshop.path, 'other')))
      expect(reason).to.match(/a storage server has run here/)
    })

    it('goes on after a failure of the disk at any time, and starts no server before it is done', async () => {
      for (let calls = 5; ; calls += 37) {
        rmSync(join(workshop.path, data), { recursive: true, force: true })
        rmSync(directory, { recursive: true })
        unpackReal(directory)
        const isDone = await take({}, { disk: dyingDisk(calls) }).then(
          () => true,
          () => false,
        )
        if (isDone) {
          expect(calls).to.be.greaterThan(300)
          return
        }
        // The process that died holds no lock any more.
        rmSync(join(workshop.path, data, 'lock'), { force: true })
        const progress = progressOf(join(workshop.path, data))
        if (progress === 'begun') expect(await reasonOf(open())).to.match(/not finished/)
        const report = progress === 'done' ? undefined : await take()
        if (report !== undefined)
          expect(report.counts).to.deep.include({ plain: 37, slave: 1, appender: 1, metadata: 1, damaged: 0, left: 0 })
        expect(digestOf(directory)).to.equal(before)
        const { store, close } = await open()
        for (const { id, kind, sha256: sum } of listed) {
          if (kind === 'plain' || kind === 'slave' || kind === 'appender')
            expect(sha256(await bytesOf(store, parseFileId(id).name))).to.equal(sum)
        }
        await close()
      }
    })
  })

  it('lists the one of 10,000 files that is damaged, and serves all but that one', async () => {
    const writer = new FastdfsWriter(directory)
    const names = Array.from({ length: 10_000 }, (_, i) =>
      writer.plain(Buffer.from(`file ${i} `.repeat(1 + (i % 50))), { directory: `0${i % 5}/${10 + (i % 40)}` }),
    )
    const bad = names[4711]!
    const bytes = readFileSync(writer.pathOf(bad))
    bytes[3]! ^= 1
    writeFileSync(writer.pathOf(bad), bytes)
    writer.close()
    const report = await take()
    expect(report.counts).to.deep.include({ plain: 9_999, damaged: 1, left: 0 })
    expect(readFileSync(report.path, 'utf8')).to.match(new RegExp(`^damaged ${bad}: .*\\n$`))
    const { store } = await open()
    expect(await reasonOf(bytesOf(store, bad))).to.match(/fails its checksum/)
    for (const [i, name] of names.entries()) {
      if (name === bad || i % 100 !== 0) continue
      expect((await bytesOf(store, name)).toString()).to.equal(`file ${i} `.repeat(1 + (i % 50)))
    }
    expect(await store.knowsDeletion(bad)).to.equal(true)
  })

  it('takes no large file for good that is short, or has other bytes at its end', async () => {
    const writer = new FastdfsWriter(directory)
    const content = (fill: number) => Buffer.alloc(3 * BLOCK_BYTES + 5, fill)
    const [short, flipped, good] = [writer.plain(content(1)), writer.plain(content(2)), writer.plain(content(3))]
    writer.close()
    truncateSync(writer.pathOf(short), 2 * BLOCK_BYTES)
    writeFileSync(writer.pathOf(flipped), Buffer.concat([content(2).subarray(1), Buffer.from('x')]))
    const { counts } = await take()
    expect(counts).to.deep.include({ plain: 1, damaged: 2 })
    const { store } = await open()
    expect(await bytesOf(store, good)).to.deep.equal(content(3))
    for (const name of [short, flipped]) expect(await reasonOf(bytesOf(store, name))).to.match(/fails its checksum/)
  })

  it('leaves alone what is no file, and lists it', async () => {
    const writer = new FastdfsWriter(directory)
    const name = writer.plain(Buffer.from('good'))
    writer.write('M00/00/00/README', Buffer.from('somebody was here'))
    writer.write(`${name.slice(0, -8)}_gone.txt-m`, Buffer.from('a\x02b'))
    writer.write(`${name}-m`, Buffer.from('no metadata'))
    writer.close()
    const report = await take()
    expect(report.counts).to.deep.include({ plain: 1, metadata: 0, damaged: 1, left: 2 })
    const { store } = await open()
    expect(await reasonOf(store.readMetadata(decodeFileName(name)))).to.match(/fails its checksum/)
  })

  it('refuses files of a server that it is not told of, and records no files of another', async () => {
    const writer = new FastdfsWriter(directory)
    const own = writer.plain(Buffer.from('own'))
    const other = writer.plain(Buffer.from('of the other'), { address: '10.0.0.2' })
    writer.close()
    expect(await reasonOf(take())).to.match(/address 10\.0\.0\.2.*--source 10\.0\.0\.2=<storage id>/)
    const report = await take({ sources: new Map([['10.0.0.2', 2]]) })
    expect([...report.foreign]).to.deep.equal([[2, 1]])
    const { store } = await open()
    expect((await bytesOf(store, other)).toString()).to.equal('of the other')
    const recorded: string[] = []
    for await (const { record } of store.readRecords({ after: 0, until: 1 })) recorded.push(record.name)
    expect(recorded).to.deep.equal([own])
  })

  describe('metadata', () => {
    it('is read as FastDFS wrote it, and is corrupt when a bit of it flips', async () => {
      const writer = new FastdfsWriter(directory)
      const name = writer.plain(Buffer.from('file'))
      writer.metadata(name, { a: '1', b: '2' })
      writer.close()
      await take()
      const { store } = await open()
      const file = decodeFileName(name)
      expect((await store.readMetadata(file))!.toString('latin1')).to.equal('a\x021\x01b\x022')
      const path = `${writer.pathOf(name)}-m`
      const raw = readFileSync(path)
      for (let bit = 0; bit < raw.length * 8; bit++) {
        const flipped = Buffer.from(raw)
        flipped[bit >> 3]! ^= 1 << (bit & 7)
        writeFileSync(path, flipped)
        expect(await reasonOf(store.readMetadata(file))).to.match(/fails its checksum/)
      }
      writeFileSync(path, raw)
      await store.changeMetadata(name, async () => Buffer.from('c\x023'))
      expect((await store.readMetadata(file))!.toString('latin1')).to.equal('c\x023')
      await store.delete(name)
      expect(readdirSync(join(directory, 'store/data/00/00'))).to.deep.equal([])
    })
  })

  describe('trunk files', () => {
    const contents = [10, 300, 5_000, 700_000].map(bytes => contentOf(bytes))

    it('serves what is in them, and knows what was freed', async () => {
      const writer = new FastdfsWriter(directory)
      const names = contents.map(content => writer.packed(content, { directory: '1F/A0' }))
      writer.metadata(names[1]!, { where: 'in a trunk file' })
      const freed = writer.packed(Buffer.from('freed'), { directory: '1F/A0' })
      writer.freePacked(freed)
      writer.close()
      const { counts } = await take()
      expect(counts).to.deep.include({ packed: 4, metadata: 1, trunkFiles: 1, damaged: 0, left: 0 })
      const { store } = await open()
      for (const [i, name] of names.entries()) expect(await packedBytes(store, name)).to.deep.equal(contents[i])
      expect(await store.has(freed)).to.equal(false)
      const metadata = await store.readMetadata(decodeFileName(names[1]!))
      expect(metadata!.toString('latin1')).to.equal('where\x02in a trunk file')
      expect(await store.delete(names[0]!)).to.equal(true)
      expect(await store.knowsDeletion(names[0]!)).to.equal(true)
      expect(readFileSync(writer.trunkPath('1F/A0'))[0]).to.equal(0)
      expect(await packedBytes(store, names[2]!)).to.deep.equal(contents[2])
    })

    it('lists a file whose slot is damaged, header or content, and serves none of it', async () => {
      const writer = new FastdfsWriter(directory)
      const names = contents.map(content => writer.packed(content))
      writer.close()
      const bytes = readFileSync(writer.trunkPath())
      const at = (name: string) => decodeFileName(name).slot!.offsetBytes
      bytes[at(names[0]!) + 30]! ^= 1
      bytes[at(names[1]!) + 9]! ^= 1
      bytes[at(names[2]!)]! ^= 2
      writeFileSync(writer.trunkPath(), bytes)
      const { counts } = await take()
      expect(counts).to.deep.include({ packed: 1, damaged: 3 })
      const { store } = await open()
      for (const name of names.slice(0, 3)) expect(await reasonOf(packedBytes(store, name))).to.match(/checksum/)
      expect(await packedBytes(store, names[3]!)).to.deep.equal(contents[3])
    })

    it('never gives a slot of theirs to a new file', async () => {
      const writer = new FastdfsWriter(directory)
      const name = writer.packed(contents[1]!)
      writer.close()
      await take()
      const { store } = await open()
      await store.delete(name)
      await store.lookAfterSlots()
      const before = readFileSync(writer.trunkPath())
      expect(store.storePaths[0]!.reusableBytes).to.equal(0)
      expect(readFileSync(writer.trunkPath())).to.deep.equal(before)
    })

    it('is refused while a part of the binlog, which says what is in them, is compressed', async () => {
      const writer = new FastdfsWriter(directory)
      writer.packed(contents[0]!)
      writer.close()
      execFileSync('gzip', [join(directory, 'base/data/sync/binlog.000')])
      expect(await reasonOf(take())).to.match(/compressed: unpack it/)
    })
  })
})

async function bytesOf(store: OpenStore['store'], name: string): Promise<Buffer> {
  const file = await store.open(name)
  const target = Buffer.alloc(Math.max(1, Math.ceil(file!.sizeBytes / BLOCK_BYTES)) * BLOCK_BYTES)
  try {
    return Buffer.from(await file!.readBlocks(0, target))
  } finally {
    await file!.close()
  }
}

async function packedBytes(store: OpenStore['store'], name: string): Promise<Buffer | undefined> {
  const file = decodeFileName(name)
  return store.read(name, file, Buffer.alloc(file.slot!.slotBytes))
}

async function reasonOf(work: Promise<unknown>): Promise<string> {
  return work.then(
    () => 'none',
    error => (error as Error).message,
  )
}

function progressOf(dataDirectory: string): 'none' | 'begun' | 'done' {
  const path = join(dataDirectory, 'identity')
  const identity = existsSync(path) ? readFileSync(path, 'utf8') : ''
  if (identity.includes('plainUntil')) return 'done'
  return identity.includes('takeOver') ? 'begun' : 'none'
}

/** Names, sizes and bytes of all that FastDFS wrote: not of sidecars, nor of what is ours alone. */
function digestOf(directory: string): string {
  const hash = createHash('sha256')
  for (const name of (readdirSync(directory, { recursive: true }) as string[]).sort()) {
    const path = join(directory, name)
    const isOurs = /~sum$|~sum\.new$|^store\/(identity|identity\.new|tmp|segments)/.test(name)
    if (isOurs || !statSync(path).isFile()) continue
    hash.update(`${name}\n`).update(readFileSync(path))
  }
  return hash.digest('hex')
}
