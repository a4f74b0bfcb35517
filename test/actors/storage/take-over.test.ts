import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { readGroupAndName, writeGroupAndName } from '../../../protocol/data-bodies.ts'
import { parseFileId } from '../../../protocol/file-id.ts'
import { COMMANDS } from '../../../protocol/frame.ts'
import { fetchFile, uploadFile } from '../../data-port.ts'
import { FastdfsWriter, REAL_ADDRESS, sha256, takeOverAt, unpackReal } from '../../store/fastdfs-fixture.ts'
import { contentOf } from '../../store/store-fixture.ts'
import { until } from '../../until.ts'
import { codeOf, SmallCluster } from '../small-cluster.ts'

describe('storage servers on FastDFS directories', () => {
  let cluster: SmallCluster
  let directory: string
  const at = (storageId: number) => join(directory, String(storageId))
  /** Takes over the directory of a member and starts a server on it. */
  const start = async (storageId: number, sources: ReadonlyMap<string, number> = new Map()) => {
    await takeOverAt(at(storageId), cluster.dataDirectoryOf(storageId), { storageId, sources })
    await cluster.addStorage(storageId, { sync: true, storePaths: [join(at(storageId), 'store')] })
  }
  const caughtUp = (source: number, peer: number) =>
    until(`${peer} has all of ${source}`, () => {
      const { store } = cluster.members.get(source)!.storage
      const position = cluster.members.get(peer)!.storage.store.position(source)
      return position !== undefined && position.sequence >= store.ownEnd
    })

  beforeEach(async () => {
    directory = mkdtempSync(join(tmpdir(), 'dfs-take-over-'))
    cluster = await SmallCluster.start()
  })
  afterEach(async () => {
    await cluster.remove()
    rmSync(directory, { recursive: true })
  })

  it('give a new peer every file of a real one, byte for byte, and let any member delete them', async () => {
    const listed = unpackReal(at(1))
    await start(1)
    await cluster.addStorage(2)
    await caughtUp(1, 2)
    const client = await cluster.client()
    const peer = await cluster.connect(2)
    for (const { id, kind, sha256: sum, meta } of listed) {
      if (kind === 'deleted') expect(await codeOf(fetchFile(peer, id))).to.equal('not_found')
      else if (kind === 'metadata') expect(await client.getMetadata(id)).to.deep.equal(meta)
      else {
        expect(sha256(await fetchFile(peer, id)), id).to.equal(sum)
        expect(sha256((await client.download(id)) as Buffer), id).to.equal(sum)
      }
    }
    // Without the source they are all there.
    const { store } = cluster.members.get(2)!.storage
    for (const { id, kind } of listed) {
      if (kind !== 'deleted') expect(await store.has(parseFileId(id).name), id).to.equal(true)
    }
    const [first, second] = listed.filter(({ kind }) => kind === 'plain').map(({ id }) => id)
    const { group, name } = parseFileId(first!)
    await peer.request(COMMANDS.deleteFile, writeGroupAndName(group, name))
    await client.delete(second!)
    await caughtUp(1, 2)
    for (const id of [first!, second!]) {
      expect(await codeOf(fetchFile(peer, id))).to.equal('not_found')
      expect(await codeOf(client.download(id))).to.equal('not_found')
      expect(await store.has(parseFileId(id).name)).to.equal(false)
    }
  })

  it('go on writing: new files, slaves of old ones, old appender files and metadata', async () => {
    const listed = unpackReal(at(1))
    await start(1)
    await cluster.addStorage(2)
    const client = await cluster.client()
    const master = listed.find(({ kind, size }) => kind === 'plain' && size === 13)!.id
    const appender = listed.find(({ kind }) => kind === 'appender')!
    const slave = await client.uploadSlave(master, Buffer.from('small'), { prefix: '_small', extension: 'txt' })
    await client.append(appender.id, Buffer.from('more'))
    await client.setMetadata(master, { colour: 'red' })
    const fresh = await uploadFile(await cluster.connect(1), Buffer.from('new'))
    await caughtUp(1, 2)
    const peer = await cluster.connect(2)
    expect((await fetchFile(peer, fresh)).toString()).to.equal('new')
    expect((await fetchFile(peer, slave.fileId)).toString()).to.equal('small')
    const bytes = await fetchFile(peer, appender.id)
    expect(bytes.length).to.equal(appender.size + 4)
    expect(sha256(bytes.subarray(0, appender.size))).to.equal(appender.sha256)
    expect(await client.getMetadata(master)).to.deep.equal({ colour: 'red' })
  })

  it('send each other only what the other lacks, and replace what is damaged there', async () => {
    const addresses = new Map([
      ['10.0.0.1', 1],
      ['10.0.0.2', 2],
    ])
    const contents = Array.from({ length: 40 }, (_, i) => contentOf(2_000 + 17_000 * i, i))
    const members = [1, 2].map(id => new FastdfsWriter(at(id), `10.0.0.${id}`))
    const names = contents.map((content, i) => {
      const [a, b] = members.map(member =>
        i % 4 === 3
          ? member.packed(content.subarray(0, 3_000), { address: `10.0.0.${1 + (i % 2)}` })
          : member.plain(content, { address: `10.0.0.${1 + (i % 2)}` }),
      )
      expect(a).to.equal(b)
      return a!
    })
    for (const member of members) member.close()
    // Of files whose source is 1, member 2 lacks one and has another damaged.
    const [lacking, damaged] = [names[4]!, names[8]!]
    rmSync(members[1]!.pathOf(lacking))
    writeFileSync(members[1]!.pathOf(damaged), Buffer.alloc(contents[8]!.length))
    for (const id of [1, 2]) await start(id, addresses)
    await caughtUp(1, 2)
    await caughtUp(2, 1)
    for (const id of [1, 2]) {
      const connection = await cluster.connect(id)
      for (const [i, name] of names.entries()) {
        const expected = i % 4 === 3 ? contents[i]!.subarray(0, 3_000) : contents[i]!
        expect((await fetchFile(connection, `group1/${name}`)).equals(expected), `${id} ${i}`).to.equal(true)
        expect(await cluster.members.get(id)!.storage.store.has(name), `${id} ${i}`).to.equal(true)
      }
    }
    expect(readFileSync(members[1]!.pathOf(damaged))).to.deep.equal(contents[8])
    const sent = [1, 2].map(id => cluster.members.get(id)!.storage.store.counters.total_sync_out_bytes)
    expect(sent).to.deep.equal([contents[4]!.length + contents[8]!.length, 0])
  })

  it('give a new peer the files of trunk files, at the same places', async () => {
    const writer = new FastdfsWriter(at(1))
    const contents = [1, 255, 4_096, 100_000].map(bytes => contentOf(bytes))
    const ids = contents.map(content => `group1/${writer.packed(content, { directory: '0C/03' })}`)
    writer.close()
    await start(1)
    await cluster.addStorage(2)
    await caughtUp(1, 2)
    const peer = await cluster.connect(2)
    for (const [i, id] of ids.entries()) expect(await fetchFile(peer, id)).to.deep.equal(contents[i])
    const trunk = join(cluster.dataDirectoryOf(2), 'store/data/0C/03/000001')
    const sum = (path: string) => createHash('sha256').update(readFileSync(path)).digest('hex')
    expect(sum(trunk)).to.equal(sum(writer.trunkPath('0C/03')))
    const client = await cluster.client()
    await client.delete(ids[1]!)
    await caughtUp(1, 2)
    for (const id of [1, 2]) expect(await codeOf(fetchFile(await cluster.connect(id), ids[1]!))).to.equal('not_found')
    expect(await fetchFile(peer, ids[2]!)).to.deep.equal(contents[2])
  })

  it('take no file that has not come yet for deleted', async () => {
    const listed = unpackReal(at(1))
    await start(1)
    await cluster.addStorage(2, { sync: false })
    const plain = listed.filter(({ kind }) => kind === 'plain')
    const peer = await cluster.connect(2)
    for (const { id, sha256: sum } of plain) expect(sha256(await fetchFile(peer, id))).to.equal(sum)
    await cluster.stopStorage(1)
    for (const { id } of plain) {
      const isHere = await cluster.members.get(2)!.storage.store.has(parseFileId(id).name)
      if (!isHere) expect(await codeOf(fetchFile(peer, id))).to.equal('unavailable')
    }
  })

  it('answer for ids of the kind that has a storage id in it, their own and those of a server that is gone', async () => {
    const writer = new FastdfsWriter(at(1))
    const names = ['1.0.0.0', '9.0.0.0'].map(address => writer.plain(Buffer.from(address), { address }))
    writer.close()
    await start(1, new Map([['9', 1]]))
    await cluster.addStorage(2)
    await caughtUp(1, 2)
    const peer = await cluster.connect(2)
    const client = await cluster.client()
    for (const name of names) {
      const id = `group1/${name}`
      expect((await fetchFile(peer, id)).length).to.equal(7)
      expect(await cluster.members.get(2)!.storage.store.has(name)).to.equal(true)
      await client.delete(id)
      expect(await codeOf(fetchFile(await cluster.connect(1), id))).to.equal('not_found')
    }
  })

  it('never say "not found" of a file that only a member has which is not its source', async () => {
    const addresses = new Map([
      ['10.0.0.1', 1],
      ['10.0.0.3', 3],
    ])
    const [source, other] = [1, 3].map(id => new FastdfsWriter(at(id), `10.0.0.${id}`))
    const lost = `group1/${other!.plain(Buffer.from('only here'), { address: '10.0.0.1' })}`
    for (const writer of [source!, other!]) writer.close()
    for (const id of [1, 3]) await start(id, addresses)
    await cluster.addStorage(2)
    await uploadFile(await cluster.connect(1), Buffer.from('later'))
    await caughtUp(1, 2)
    await until(
      '2 knows that 1 took over',
      async () => (await codeOf(fetchFile(await cluster.connect(2), lost))) === 'none',
    )
    for (const id of [1, 2, 3]) {
      expect((await fetchFile(await cluster.connect(id), lost)).toString()).to.equal('only here')
    }
  })

  it('tell FastDFS clients the source by the address that the name has', async () => {
    const listed = unpackReal(at(1))
    await start(1)
    const { id } = listed[0]!
    const connection = await cluster.connect(1)
    const { group, name } = parseFileId(id)
    const info = await connection.request(COMMANDS.queryFileInfo, writeGroupAndName(group, name))
    expect(info.toString('latin1', 24).replace(/\0+$/, '')).to.equal(REAL_ADDRESS)
    expect(readGroupAndName(writeGroupAndName(group, name))).to.deep.equal({ group, name })
  })
})
