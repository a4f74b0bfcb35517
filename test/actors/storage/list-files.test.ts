/** Listing a group: its members' lists merged, each file once, whoever lags or is away. */
import { randomBytes } from 'node:crypto'
import { expect } from 'chai'
import type { Client } from '../../../client/client.ts'
import type { ListedFile, ListOptions } from '../../../client/list-files.ts'
import { parseFileId } from '../../../protocol/file-id.ts'
import { COMMANDS } from '../../../protocol/frame.ts'
import { LIST_FILES_MAX, LIST_START, writeList } from '../../../protocol/list-bodies.ts'
import { uploadFile } from '../../data-port.ts'
import { until } from '../../until.ts'
import { codeOf, SmallCluster } from '../small-cluster.ts'

const OPTIONS = { sync: false, segmentFileBytesMax: 1_000 }
const ASKED = { group: 'group1', sinceS: 0, place: LIST_START, prefix: '' }

describe('a listing of a group', function () {
  this.timeout(30_000)
  let cluster: SmallCluster
  let client: Client
  beforeEach(async () => {
    cluster = await SmallCluster.start()
    await cluster.addStorage(1, OPTIONS)
    await cluster.addStorage(2, OPTIONS)
    client = await cluster.client()
    await until('the tracker knows both', async () => (await client.status()).storages.length === 2)
  })
  afterEach(() => cluster.remove())

  async function list(options: ListOptions = {}): Promise<ListedFile[]> {
    const files: ListedFile[] = []
    for await (const file of client.list(options)) files.push(file)
    return files
  }
  const idsOf = (files: readonly ListedFile[]) => files.map(({ fileId }) => fileId).sort()
  async function uploadTo(storageId: number, sizes: readonly number[]): Promise<string[]> {
    const connection = await cluster.connect(storageId)
    return Promise.all(sizes.map(size => uploadFile(connection, randomBytes(size))))
  }
  const sizes = (count: number) => Array.from({ length: count }, (_, i) => (i % 8 === 0 ? 2_000 : i % 900))
  const holds = (storageId: number, ids: readonly string[]) =>
    until(`storage server ${storageId} has all`, async () => {
      const { store } = cluster.members.get(storageId)!.storage
      return (await Promise.all(ids.map(id => store.has(parseFileId(id).name)))).every(Boolean)
    })

  it('has the files of all members before and after they have each other’s, each once', async () => {
    const ids = [...(await uploadTo(1, sizes(LIST_FILES_MAX + 50))), ...(await uploadTo(2, sizes(300)))].sort()
    expect(idsOf(await list())).to.deep.equal(ids)
    await cluster.startSync(1)
    await cluster.startSync(2)
    await holds(2, ids)
    await holds(1, ids)
    const listed = await list()
    expect(idsOf(listed)).to.deep.equal(ids)
    for (const file of listed.slice(0, 20)) {
      const { sizeBytes, crc32, createTimeS } = await client.info(file.fileId)
      expect(file).to.deep.include({ sizeBytes, crc32, createTimeS })
    }
  })

  it('goes on from a cursor, in another program, with members that have changed places', async () => {
    const ids = [...(await uploadTo(1, sizes(400))), ...(await uploadTo(2, sizes(400)))].sort()
    const first = await client.listPage()
    expect(first.files).to.have.length.within(1, 2 * LIST_FILES_MAX)
    client = await cluster.client()
    const rest = await list({ cursor: first.cursor })
    expect(idsOf([...first.files, ...rest])).to.deep.equal(ids)
  })

  it('does not have what its source has deleted, though a peer that is behind still holds it', async () => {
    await cluster.startSync(1)
    const ids = await uploadTo(1, sizes(20))
    await holds(2, ids)
    await cluster.stopSync(1)
    for (const id of ids.slice(0, 5)) await client.delete(id)
    expect(await cluster.members.get(2)!.storage.store.has(parseFileId(ids[0]!).name), 'the peer is behind').to.equal(
      true,
    )
    expect(idsOf(await list())).to.deep.equal(ids.slice(5).sort())
  })

  it('fails while a member is away, unless it may be partial: then it has what the others hold', async () => {
    await cluster.startSync(1)
    const shared = await uploadTo(1, sizes(20))
    await holds(2, shared)
    await cluster.stopSync(1)
    await uploadTo(1, [10])
    await cluster.stopStorage(1)
    const signal = AbortSignal.timeout(1_000)
    const reasons: string[] = []
    const failed = client.listPage({ signal, onRetry: error => void reasons.push(error.code) })
    await failed.catch(() => undefined)
    expect(new Set(reasons)).to.deep.equal(new Set(['unavailable']))
    expect(idsOf(await list({ partial: true }))).to.deep.equal(shared.sort())
  })

  it('fails if the tracker does not tell of a member that another one knows', async () => {
    const connection = await cluster.connect(1, 'client')
    await until('1 knows 2', async () => {
      const work = connection.request(COMMANDS.listFiles, writeList({ ...ASKED, members: [1] }))
      return (await codeOf(work)) === 'unavailable'
    })
    expect(await codeOf(connection.request(COMMANDS.listFiles, writeList({ ...ASKED, members: [2, 1] })))).to.equal(
      'none',
    )
    expect(await codeOf(connection.request(COMMANDS.listFiles, writeList({ ...ASKED, members: [] })))).to.equal('none')
  })

  it('takes a group, a time and a beginning, and refuses what is none', async () => {
    const [id = ''] = await uploadTo(1, [10, 2_000])
    const [file] = (await list()).filter(({ fileId }) => fileId === id)
    expect(await list({ group: 'group1', prefix: id })).to.deep.equal([file])
    expect(await list({ prefix: 'group1/M01' })).to.deep.equal([])
    expect(await list({ prefix: 'group2/' })).to.deep.equal([])
    expect(await list({ sinceS: file!.createTimeS + 60 })).to.deep.equal([])
    expect(await list({ sinceS: file!.createTimeS })).to.have.length(2)
    const slow = AbortSignal.timeout(2_000)
    expect(await codeOf(list({ group: 'group7', signal: slow } as ListOptions))).to.be.oneOf(['unknown_group', 'none'])
    expect(await codeOf(list({ cursor: 'nowhere' }))).to.equal('bad_request')
    const anonymous = await cluster.connect(1)
    const reply = anonymous.request(COMMANDS.listFiles, writeList({ ...ASKED, members: [] }))
    expect(await codeOf(reply)).to.equal('unauthorized')
  })

  it('keeps nobody waiting: pages are made one after another, and too many are refused', async () => {
    await uploadTo(1, sizes(600))
    const connection = await cluster.connect(1, 'client')
    const body = writeList({ ...ASKED, members: [] })
    const asked = await Promise.all(
      Array.from({ length: 30 }, () => codeOf(connection.request(COMMANDS.listFiles, body))),
    )
    expect(new Set(asked)).to.deep.equal(new Set(['none', 'busy']))
    expect(await codeOf(connection.request(COMMANDS.listFiles, body))).to.equal('none')
  })
})
