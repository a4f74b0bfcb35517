/** A member takes over the files of a source that is gone, and gives them back: real disks and sockets. */
import { expect } from 'chai'
import type { Client } from '../../../client/client.ts'
import { until } from '../../until.ts'
import { SmallCluster } from '../small-cluster.ts'

const GROUP = { group: 'group1' }
const AWAY_MS = 15_000

describe('succession', function () {
  this.timeout(60_000)
  let cluster: SmallCluster
  let client: Client

  beforeEach(async () => {
    cluster = await SmallCluster.start()
    await cluster.addStorage(1)
    await cluster.addStorage(2)
    client = await cluster.client()
  })

  afterEach(() => cluster.remove())

  const read = async (fileId: string) => (await client.download(fileId, { consistency: 'strong' })).toString()
  const readAt = async (member: number, fileId: string) => {
    const { store } = cluster.members.get(member)!.storage
    const file = await store.open(fileId.slice(fileId.indexOf('/') + 1))
    if (file === undefined) return undefined
    const buffer = Buffer.alloc(file.sizeBytes)
    await file.readBlocks(0, buffer)
    await file.close()
    return buffer.toString()
  }
  const untilAt = (member: number, fileId: string, text: string | undefined) =>
    until(`storage server ${member} has ${text}`, async () => (await readAt(member, fileId)) === text, AWAY_MS)
  const untilOffline = (member: number) =>
    until(
      `storage server ${member} is offline`,
      async () => (await client.status()).storages.some(({ report, online }) => report.storageId === member && !online),
      AWAY_MS,
    )
  const takeOver = (by: number, source: number) =>
    until(
      'it is taken over',
      () =>
        cluster.members
          .get(by)!
          .storage.takeOver(source, true)
          .then(
            () => true,
            () => false,
          ),
      AWAY_MS,
    )

  it('lets a member go on with the files of a source that is gone, and the source go on from there', async () => {
    const { fileId } = await client.uploadAppender(Buffer.from('one '), { ...GROUP, extension: 'log' })
    await untilAt(2, fileId, 'one ')
    await cluster.stopStorage(1)
    await untilOffline(1)
    await takeOver(2, 1)
    await client.append(fileId, Buffer.from('two '))
    expect(await read(fileId)).to.equal('one two ')
    await client.setMetadata(fileId, { color: 'red' })
    await cluster.addStorage(1)
    await untilAt(1, fileId, 'one two ')
    await until(
      'the source orders again',
      () => cluster.members.get(1)!.storage.ordering.takenBack !== undefined,
      AWAY_MS,
    )
    await client.append(fileId, Buffer.from('three'))
    expect(await read(fileId)).to.equal('one two three')
    await untilAt(2, fileId, 'one two three')
    expect(await client.getMetadata(fileId, { consistency: 'strong' })).to.deep.equal({ color: 'red' })
  })
})
