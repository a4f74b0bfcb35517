/** Sessions of sync over files that their disk does not give, or gives wrong. */
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'chai'
import { type ReplayContext, replayBinlog } from '../../../actors/sync/replay-binlog.ts'
import { decodeFileName } from '../../../protocol/file-id.ts'
import type { Peer } from '../../../protocol/storage-messages.ts'
import { realWorld } from '../../../runtime/real-world.ts'
import { BLOCK_BYTES } from '../../../store/block-pool.ts'
import type { Store } from '../../../store/store.ts'
import { FaultyDisk } from '../../store/faulty-disk.ts'
import { contentOf, download, upload as uploadTo } from '../../store/store-fixture.ts'
import { SmallCluster } from '../small-cluster.ts'
import { replayContext } from './replay-context.ts'

const SOURCE = 1
const PEER = 2
/** More than any session that fails over one file, and less than for ever. */
const SESSIONS_MAX = 50

describe('a session of sync', function () {
  this.timeout(30_000)
  let disk: FaultyDisk
  let cluster: SmallCluster
  let context: ReplayContext
  let peer: Peer
  let corrupt: string[]
  let raised: number[]

  beforeEach(async () => {
    disk = new FaultyDisk(realWorld().disk)
    cluster = await SmallCluster.start({ disk })
    const { storage } = await cluster.addStorage(SOURCE, { sync: false })
    const { endpoint } = (await cluster.addStorage(PEER, { sync: false })).storage
    corrupt = []
    raised = []
    context = replayContext(storage, corrupt, epochMin => void raised.push(epochMin))
    peer = { storageId: PEER, host: endpoint.host, ip: endpoint.host, port: endpoint.port, epoch: 1, status: 'active' }
  })
  afterEach(async () => {
    disk.heal()
    await cluster.remove()
  })

  const peerStore = () => cluster.members.get(PEER)!.storage.store
  function upload(content: Buffer): Promise<string> {
    return uploadTo(cluster.members.get(SOURCE)!.storage.store, content, undefined, 'bin')
  }
  /** Runs one session; what it fails with. */
  async function session(): Promise<Error | undefined> {
    try {
      await replayBinlog(context, peer, undefined)
      return undefined
    } catch (error) {
      return error as Error
    }
  }
  /** Runs sessions until one reaches the end; what those before failed with. */
  async function sessions(): Promise<Error[]> {
    const failures: Error[] = []
    while (failures.length < SESSIONS_MAX) {
      const failure = await session()
      if (failure === undefined) return failures
      failures.push(failure)
    }
    throw new Error('no session reached the end', { cause: failures.at(-1) })
  }
  function damage(name: string): void {
    const { directory, baseName } = decodeFileName(name)
    const path = join(cluster.members.get(SOURCE)!.dataDirectory, 'store', 'data', directory, baseName)
    const bytes = readFileSync(path)
    bytes[0]! ^= 1
    writeFileSync(path, bytes)
  }
  async function expectAtPeer(files: ReadonlyMap<string, Buffer>): Promise<void> {
    for (const [name, content] of files) {
      expect((await download(peerStore(), name))?.equals(content), name).to.equal(true)
    }
  }

  for (const [what, action, path] of [
    ['a file that cannot be opened', 'open', /storage-1.*bin$/],
    ['a file that cannot be read', 'read', /storage-1.*bin$/],
    ['a file whose sidecar cannot be opened', 'open', /storage-1.*bin~sum$/],
    ['a file whose sidecar cannot be read', 'read', /storage-1.*bin~sum$/],
  ] as const) {
    it(`fails over ${what}, and the next one ships it`, async () => {
      const content = contentOf(2 * BLOCK_BYTES + 5)
      const name = await upload(content)
      disk.fail({ action, path }, 'EIO')
      expect(await session(), 'the first one').to.not.equal(undefined)
      expect(peerStore().position(SOURCE)).to.equal(undefined)
      expect(await session(), 'the second one').to.equal(undefined)
      await expectAtPeer(new Map([[name, content]]))
      expect(peerStore().position(SOURCE)?.incomplete).to.equal(undefined)
      expect(corrupt).to.deep.equal([])
    })

    it(`goes on without ${what} after a dozen that failed, and says so once`, async () => {
      const name = await upload(contentOf(2 * BLOCK_BYTES + 5))
      const others = new Map<string, Buffer>()
      disk.fail({ action, path }, 'EIO', { times: Number.POSITIVE_INFINITY })
      expect(await sessions()).to.have.lengthOf(12)
      disk.heal()
      expect(corrupt).to.deep.equal([name])
      expect(await peerStore().open(name)).to.equal(undefined)
      expect(context.replicas.holders({ name, sequence: 1 }), 'what the peer confirmed is no copy').to.equal(1)
      expect(peerStore().position(SOURCE)).to.include({ incomplete: true })
      for (let i = 0; i < 3; i++) others.set(await upload(contentOf(1000, i)), contentOf(1000, i))
      expect(await sessions()).to.deep.equal([])
      await expectAtPeer(others)
    })
  }

  it('waits for a disk that is missing as a whole, for however long', async () => {
    const content = contentOf(1000)
    const name = await upload(content)
    disk.fail({ action: 'open', path: /storage-1.*bin$/ }, 'ENODEV', { times: 30 })
    expect(await sessions()).to.have.lengthOf(30)
    expect(corrupt).to.deep.equal([])
    await expectAtPeer(new Map([[name, content]]))
  })

  describe('over metadata', () => {
    const source = () => cluster.members.get(SOURCE)!
    const set = (name: string, text: string) =>
      source().storage.store.changeMetadata(name, async () => Buffer.from(text))
    const get = async (store: Store, name: string) => (await store.readMetadata(decodeFileName(name)))?.toString()

    it('ships what was recorded, and is done when the source starts again', async () => {
      const name = await upload(contentOf(1000))
      await set(name, 'first')
      disk.fail({ action: 'rename', path: /-m$/ }, 'EIO')
      expect(await set(name, 'second').catch(error => error.errno)).to.equal('EIO')
      expect(await sessions()).to.deep.equal([])
      expect(await get(peerStore(), name)).to.equal('second')
      await cluster.stopStorage(SOURCE)
      const { storage } = await cluster.addStorage(SOURCE, { sync: false })
      expect(await get(storage.store, name)).to.equal('second')
    })

    it('waits for a disk that is not there', async () => {
      const name = await upload(contentOf(1000))
      await sessions()
      await set(name, 'first')
      const path = join(source().dataDirectory, 'store')
      renameSync(path, `${path}-away`)
      mkdirSync(path)
      expect(await session()).to.not.equal(undefined)
      rmSync(path, { recursive: true })
      renameSync(`${path}-away`, path)
      expect(await sessions()).to.deep.equal([])
      expect(await get(peerStore(), name)).to.equal('first')
    })
  })

  it('ships nothing of a source that began anew in the same epoch, and tells it to go on under a later one', async () => {
    const names = [await upload(contentOf(10, 1)), await upload(contentOf(10, 2))]
    await sessions()
    const { dataDirectory } = cluster.members.get(SOURCE)!
    await cluster.stopStorage(SOURCE)
    rmSync(dataDirectory, { recursive: true })
    // Nobody is there to tell it of its past, and its binlog grows beyond it.
    await cluster.stopTracker()
    const { storage } = await cluster.startStorage(SOURCE, { sync: false })
    const anew = replayContext(storage, corrupt, epochMin => void raised.push(epochMin))
    expect(() => anew.ordering.term(), 'nobody has told it who orders its changes').to.throw('settled')
    context = { ...anew, ordering: { ...anew.ordering, term: () => 0 } }
    const others: string[] = []
    for (let i = 0; i < 3; i++) others.push(await upload(contentOf(10, 10 + i)))
    expect(await session()).to.include({ code: 'epoch_too_old' })
    expect(raised).to.deep.equal([2])
    expect(peerStore().position(SOURCE)).to.include({ epoch: 1, sequence: 2 })
    for (const name of others) expect(await peerStore().open(name)).to.equal(undefined)
    for (const [i, name] of names.entries()) {
      expect(await download(peerStore(), name), name).to.deep.equal(contentOf(10, i + 1))
    }
  })

  it('fails once for each own file that is damaged, and says so each time', async () => {
    const files: string[] = []
    for (let i = 0; i < 16; i++) files.push(await upload(contentOf(1000, i)))
    const damaged = files.filter((_, i) => i % 2 === 1)
    for (const name of damaged) damage(name)
    expect(await sessions()).to.have.lengthOf(damaged.length)
    expect(corrupt).to.deep.equal(damaged)
    expect(peerStore().position(SOURCE)).to.include({ incomplete: true })
    await expectAtPeer(new Map(files.flatMap((name, i) => (i % 2 === 0 ? [[name, contentOf(1000, i)] as const] : []))))
  })

  it('that fails over a damaged file says so, so that the next one need not wait', async () => {
    damage(await upload(contentOf(1000)))
    expect(await sessions()).to.satisfy(([failure]: { code?: string }[]) => failure?.code === 'corrupt')
  })
})
