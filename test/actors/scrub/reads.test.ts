/** A file that is bad here and good at a peer: who reads it gets it, and the server knows. */
import { expect } from 'chai'
import { type RunningScrub, startScrub } from '../../../actors/scrub/start-scrub.ts'
import { parseFileId } from '../../../protocol/file-id.ts'
import { subjectOf } from '../../../protocol/message.ts'
import { clusterEvent } from '../../../protocol/storage-messages.ts'
import { BLOCK_BYTES } from '../../../store/block-pool.ts'
import { fetchFile, uploadFile } from '../../data-port.ts'
import { contentOf } from '../../store/store-fixture.ts'
import { until } from '../../until.ts'
import { codeOf, SmallCluster } from '../small-cluster.ts'
import { flip, placeIn } from './scrub-fixture.ts'

const SOURCE = 1
const PEER = 2

describe('a file that is read and bad', () => {
  let cluster: SmallCluster
  let scrub: RunningScrub

  beforeEach(async () => {
    cluster = await SmallCluster.start()
    for (const id of [SOURCE, PEER]) await cluster.addStorage(id, { sync: true, segmentFileBytesMax: 2 ** 16 })
    const { storage, dataDirectory } = cluster.members.get(PEER)!
    const { store, quarantine } = storage
    scrub = await startScrub(cluster.context, {
      ...{ dataDirectory, store, quarantine, bytesPerSecond: 0 },
      onDamage: (name, problem) => storage.tellCorruption(name, problem),
    })
    storage.onCorruption(name => scrub.suspect(name))
    storage.addCounts(() => scrub.counts())
  })
  afterEach(async () => {
    await scrub.stop()
    await cluster.remove()
  })

  for (const [what, sizeBytes, atBytes] of [
    ['a small file', 5000, 100],
    ['a large file, in its first block', 2 * BLOCK_BYTES, 100],
    ['a large file, in a later block', 2 * BLOCK_BYTES, BLOCK_BYTES + 100],
  ] as const) {
    it(`is served from a peer, told once, and counted: ${what}`, async () => {
      const { context } = cluster
      const bus = await context.world.connectBus({
        ...{ servers: [], user: 'ops', password: '', inboxPrefix: '_INBOX', name: 'ops', waitForServer: false },
      })
      const events: string[] = []
      bus.subscribe(subjectOf(clusterEvent, { prefix: context.prefix, group: 'group1', id: 'corruption' }), message =>
        events.push(String(message.payload)),
      )
      const content = contentOf(sizeBytes)
      const fileId = await uploadFile(await cluster.connect(SOURCE), content)
      const { name } = parseFileId(fileId)
      const { storage, dataDirectory } = cluster.members.get(PEER)!
      const end = cluster.members.get(SOURCE)!.storage.store.end.sequence
      await until('the peer has it', () => (storage.store.position(SOURCE)?.sequence ?? 0) >= end)
      const place = placeIn(dataDirectory, name)
      await flip(place.path, place.offsetBytes + atBytes)
      const reader = await cluster.connect(PEER)
      for (let i = 0; i < 3; i++) expect((await fetchFile(reader, fileId)).equals(content)).to.equal(true)
      await until('the file is in quarantine', () => storage.quarantine.has(name))
      for (let i = 0; i < 3; i++) expect((await fetchFile(reader, fileId)).equals(content)).to.equal(true)
      const client = await cluster.client()
      const badFiles = async () => {
        const { storages } = await client.status()
        return storages.find(({ report }) => report.storageId === PEER)?.report.counts.badFiles
      }
      await until('a beat tells of it', async () => (await badFiles()) === 1)
      expect(events).to.have.length(1)
      expect(JSON.parse(events[0]!).detail).to.include({ storageId: PEER, file: fileId })
      // A member that asks gets no bad byte, and is not sent on.
      expect(await codeOf(fetchFile(await cluster.connect(PEER, 'peer'), fileId, { offset: atBytes }))).to.equal(
        'corrupt',
      )
      await bus.drain()
    })
  }
})
