import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'chai'
import { decodeFileName, parseFileId } from '../../protocol/file-id.ts'
import { silentLog } from '../../runtime/log.ts'
import { linkFile } from '../../runtime/real-disk.ts'
import { realWorld } from '../../runtime/real-world.ts'
import { Timers } from '../../runtime/timers.ts'
import { exportToFastdfs } from '../../store/fastdfs-export.ts'
import { FastdfsWriter, type ListedFile, sha256, takeOverAt, unpackReal } from './fastdfs-fixture.ts'
import { contentOf, optionsOf, pack, upload, Workshop } from './store-fixture.ts'

const BY_1 = { storageId: 1, group: 'group1' }

describe('exporting to FastDFS', () => {
  let workshop: Workshop
  let directory: string
  let to: string
  const storePaths = () => [join(directory, 'store')]
  const data = () => join(workshop.path, 'natsdfs')
  const open = () => workshop.open('natsdfs', { ...BY_1, storePaths: storePaths(), segmentFileBytesMax: 2 ** 20 })
  const write = (options: { address?: string; paths?: string[]; basePath?: string } = {}) => {
    const world = realWorld()
    return exportToFastdfs(
      { world, timers: new Timers(world.clock), log: silentLog() },
      {
        ...{ ...optionsOf(data()), ...BY_1 },
        storePaths: options.paths ?? storePaths(),
        basePath: options.basePath ?? join(directory, 'base'),
        ...{ to, address: options.address, port: 23000, subdirCount: 4, link: linkFile },
      },
    )
  }
  const exported = (name: string) => readFileSync(join(to, 'store_path0/data', name.slice(4)))
  const binlog = () => readFileSync(join(to, 'base_path/data/sync/binlog.000'), 'utf8').trimEnd().split('\n')

  beforeEach(async () => {
    workshop = await Workshop.make()
    directory = join(workshop.path, 'fastdfs')
    to = join(workshop.path, 'exported')
  })
  afterEach(() => workshop.remove())

  it('gives back what was taken over, byte for byte, and what came since', async () => {
    const listed = unpackReal(directory)
    await takeOverAt(directory, data())
    const opened = await open()
    const fresh = await upload(opened.store, contentOf(2 ** 20 + 1))
    const packed = await pack(opened.store, contentOf(1_000))
    const deleted = await pack(opened.store, contentOf(1_001))
    await opened.store.delete(deleted)
    await opened.store.changeMetadata(fresh, async () => Buffer.from('a\x02b'))
    await opened.close()
    const counts = await write()
    expect(counts).to.deep.include({ plain: 38, slave: 1, appender: 1, packed: 1, metadata: 2, trunkFiles: 1 })
    expect(counts.linked).to.equal(39)
    expectListed(listed)
    expect(exported(fresh)).to.deep.equal(contentOf(2 ** 20 + 1))
    expect(exported(`${fresh}-m`).toString()).to.equal('a\x02b')
    const { slot, directory: slotDirectory, crc32 } = decodeFileName(packed)
    const trunk = exported(`M00/${slotDirectory}/${slot!.segmentId}`).subarray(slot!.offsetBytes)
    expect(trunk[0]).to.equal('F'.charCodeAt(0))
    expect([trunk.readUInt32BE(1), trunk.readUInt32BE(5), trunk.readUInt32BE(9)]).to.deep.equal([
      slot!.slotBytes,
      1_000,
      crc32,
    ])
    expect(trunk.subarray(24, 1_024)).to.deep.equal(contentOf(1_000))
    const names = binlog().map(line => line.replace(/^\d+ C /, ''))
    const kept = listed.filter(({ kind }) => kind !== 'deleted' && kind !== 'metadata')
    const withMetadata = listed.filter(({ kind }) => kind === 'metadata').map(({ id }) => `${parseFileId(id).name}-m`)
    expect(names.sort()).to.deep.equal(
      [...kept.map(({ id }) => parseFileId(id).name), ...withMetadata, fresh, `${fresh}-m`, packed].sort(),
    )
  })

  it('writes what FastDFS itself had written, but for what has changed', async () => {
    const listed = unpackReal(directory)
    await takeOverAt(directory, data())
    await write()
    const flags = [to, directory].map(root => {
      const path = join(root, root === to ? 'base_path' : 'base', 'data/.data_init_flag')
      return readFileSync(path, 'utf8').trimEnd().split('\n').sort()
    })
    expect(flags[0]).to.deep.equal(flags[1])
    const written = binlog().sort()
    const before = readFileSync(join(directory, 'base/data/sync/binlog.000'), 'utf8').trimEnd().split('\n')
    const kept = new Set(listed.filter(({ kind }) => kind !== 'deleted').map(({ id }) => parseFileId(id).name))
    const isLast = (line: string) => / C /.test(line) && kept.has(line.split(' ')[2]!.replace(/-m$/, ''))
    // All of them were made within a second.
    expect(written).to.deep.equal(before.filter(isLast).sort())
    expect(readFileSync(join(to, 'store_path0/data/.fastdfs_vars'))).to.deep.equal(
      readFileSync(join(directory, 'store/data/.fastdfs_vars')),
    )
    expect(readdirSync(join(to, 'store_path0/data')).filter(name => /^..$/.test(name))).to.have.length(4)
  })

  it('can be taken over again, with trunk files of both kinds', async () => {
    const writer = new FastdfsWriter(directory)
    const old = [10, 5_000].map(bytes => writer.packed(contentOf(bytes)))
    const gone = writer.packed(contentOf(11))
    writer.metadata(old[0]!, { a: 'b' })
    writer.close()
    await takeOverAt(directory, data())
    const opened = await open()
    await opened.store.delete(gone)
    await opened.close()
    expect(await write()).to.deep.include({ packed: 2, trunkFiles: 1, metadata: 1 })
    const again = join(workshop.path, 'again')
    const { counts } = await takeOverAt(to, again, {
      basePath: join(to, 'base_path'),
      storePaths: [join(to, 'store_path0')],
    })
    expect(counts).to.deep.include({ packed: 2, metadata: 1, damaged: 0, left: 0 })
    const flag = readFileSync(join(to, 'base_path/data/.data_init_flag'), 'utf8')
    expect(flag).to.match(/^current_trunk_file_id=1$/m)
  })

  it('leaves ours as it is when FastDFS goes on writing', async () => {
    const listed = unpackReal(directory)
    await takeOverAt(directory, data())
    await write()
    const appender = listed.find(({ kind }) => kind === 'appender')!
    const { name } = parseFileId(appender.id)
    writeFileSync(join(to, 'store_path0/data', name.slice(4)), 'more', { flag: 'a' })
    expect(statSync(join(directory, 'store/data', name.slice(4))).size).to.equal(appender.size)
  })

  it('of a server that was never FastDFS’s, asks for the address, and for an empty place', async () => {
    const opened = await workshop.open('natsdfs', BY_1)
    const name = await upload(opened.store, contentOf(10))
    await opened.close()
    const never = { paths: [], basePath: join(workshop.path, 'none') }
    expect(await reasonOf(write(never))).to.match(/--address/)
    await write({ ...never, address: '10.0.0.1' })
    expect(exported(name)).to.deep.equal(contentOf(10))
    const flag = readFileSync(join(to, 'base_path/data/.data_init_flag'), 'utf8')
    expect(flag).to.match(/^last_ip_addr=10\.0\.0\.1$/m)
    expect(await reasonOf(write({ ...never, address: '10.0.0.1' }))).to.match(/is not empty/)
  })

  function expectListed(listed: readonly ListedFile[]): void {
    for (const { id, kind, sha256: sum, meta } of listed) {
      const { name } = parseFileId(id)
      if (kind === 'deleted') expect(() => exported(name)).to.throw('ENOENT')
      else if (kind === 'metadata')
        expect(exported(`${name}-m`).toString()).to.equal(
          Object.entries(meta!)
            .map(pair => pair.join('\x02'))
            .join('\x01'),
        )
      else expect(sha256(exported(name)), id).to.equal(sum)
    }
  }
})

async function reasonOf(work: Promise<unknown>): Promise<string> {
  return work.then(
    () => 'none',
    error => (error as Error).message,
  )
}
