/** A member takes over the files of a source that is gone, and gives them back: real disks and sockets. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'chai'
import type { Client } from '../../../client/client.ts'
import { writeChange } from '../../../protocol/data-bodies.ts'
import { COMMANDS } from '../../../protocol/frame.ts'
import { BLOCK_BYTES } from '../../../store/block-pool.ts'
import { until } from '../../until.ts'
import { codeOf, SmallCluster } from '../small-cluster.ts'

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
    const bytes = await file.readBlocks(0, Buffer.alloc(BLOCK_BYTES)).finally(() => file.close())
    return bytes.toString()
  }
  // A file that is replaced while it is read has to be read again.
  const hasAt = (member: number, fileId: string, text: string | undefined) =>
    readAt(member, fileId).then(
      found => found === text,
      () => false,
    )
  const untilAt = (member: number, fileId: string, text: string | undefined) =>
    until(`storage server ${member} has ${text}`, () => hasAt(member, fileId, text), AWAY_MS)
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

  const untilTakenBack = (member: number) =>
    until(
      `storage server ${member} has its files back`,
      () => cluster.members.get(member)!.storage.ordering.takenBack !== undefined,
      AWAY_MS,
    )
  const newAppender = async (text: string) => {
    const { fileId } = await client.uploadAppender(Buffer.from(text), { ...GROUP, extension: 'log' })
    await untilAt(2, fileId, text)
    return fileId
  }
  const leave = async (member: number) => {
    await cluster.stopStorage(member)
    await untilOffline(member)
  }

  it('lets a member go on with the files of a source that is gone, and the source go on from there', async () => {
    const fileId = await newAppender('one ')
    const { fileId: plainId } = await client.upload(Buffer.from('plain'), GROUP)
    await untilAt(2, plainId, 'plain')
    await leave(1)
    await takeOver(2, 1)
    await client.append(fileId, Buffer.from('two '))
    expect(await read(fileId)).to.equal('one two ')
    await client.setMetadata(fileId, { color: 'red' })
    const slave = await client.uploadSlave(fileId, Buffer.from('small'), { prefix: '_s', extension: 'log' })
    await client.delete(plainId)
    await cluster.addStorage(1)
    await untilTakenBack(1)
    expect(await readAt(1, fileId)).to.equal('one two ')
    expect(await readAt(1, slave.fileId)).to.equal('small')
    expect(await readAt(1, plainId)).to.equal(undefined)
    await client.append(fileId, Buffer.from('three'))
    await client.delete(slave.fileId)
    expect(await read(fileId)).to.equal('one two three')
    await untilAt(2, fileId, 'one two three')
    await untilAt(2, slave.fileId, undefined)
    expect(await client.getMetadata(fileId, { consistency: 'strong' })).to.deep.equal({ color: 'red' })
    expect(cluster.members.get(1)!.storage.store.asideCount).to.equal(0)
  })

  it('keeps aside what the source had made of a file that its successor has changed, and nothing else', async () => {
    const both = await newAppender('one ')
    const onlySource = await newAppender('uno ')
    await cluster.stopSync(1)
    await client.append(both, Buffer.from('lost '))
    await client.append(onlySource, Buffer.from('dos'))
    await leave(1)
    await takeOver(2, 1)
    await client.append(both, Buffer.from('two'))
    expect(await read(both)).to.equal('one two')
    expect(await read(onlySource)).to.equal('uno ')
    await cluster.addStorage(1)
    await untilTakenBack(1)
    expect(await read(both)).to.equal('one two')
    await untilAt(2, onlySource, 'uno dos')
    await untilAt(2, both, 'one two')
    const aside = join(cluster.dataDirectoryOf(1), 'store', 'aside')
    const kept = readdirSync(aside)
    expect(kept).to.have.length(1)
    expect(kept[0]).to.include(both.slice(both.lastIndexOf('/') + 1))
    expect(readFileSync(join(aside, kept[0]!)).toString()).to.equal('one lost ')
  })

  it('brings a third member to the same, whatever it has missed', async () => {
    await cluster.addStorage(3)
    const fileId = await newAppender('one ')
    await untilAt(3, fileId, 'one ')
    await client.append(fileId, Buffer.from('and a half '))
    await untilAt(3, fileId, 'one and a half ')
    await cluster.stopSync(1)
    const missed = await client.uploadSlave(fileId, Buffer.from('first'), { prefix: '_s', extension: 'log' })
    await leave(3)
    await cluster.startSync(1)
    await untilAt(2, missed.fileId, 'first')
    await cluster.stopStorage(1)
    await untilOffline(1)
    await takeOver(2, 1)
    await client.truncate(fileId, 4)
    await client.append(fileId, Buffer.from('two '))
    await client.delete(missed.fileId)
    await client.uploadSlave(fileId, Buffer.from('second'), { prefix: '_s', extension: 'log' })
    await cluster.addStorage(1)
    await untilTakenBack(1)
    await client.append(fileId, Buffer.from('three'))
    await cluster.addStorage(3)
    for (const member of [1, 2, 3]) {
      await untilAt(member, fileId, 'one two three')
      await untilAt(member, missed.fileId, 'second')
    }
  })

  it('lets nobody change what may have been changed elsewhere, before the other one or an operator was asked', async () => {
    const fileId = await newAppender('one ')
    const { fileId: plainId } = await client.upload(Buffer.from('plain'), GROUP)
    await leave(1)
    await leave(2)
    await cluster.addStorage(1)
    const connection = await cluster.connect(1, 'client')
    const name = fileId.slice(fileId.indexOf('/') + 1)
    const append = () => connection.request(COMMANDS.append, Buffer.concat([writeChange(name, 3), Buffer.from('two')]))
    expect(await codeOf(append())).to.equal('unavailable')
    await client.upload(Buffer.from('more'), GROUP)
    await client.delete(plainId)
    expect(await codeOf(cluster.members.get(1)!.storage.takeOver(1, false))).to.equal('unavailable')
    await cluster.members.get(1)!.storage.takeOver(1, true)
    await append()
    await cluster.addStorage(2)
    await untilAt(2, fileId, 'one two')
    expect(await codeOf(cluster.members.get(2)!.storage.takeOver(1, true))).to.equal('still_in_use')
  })

  it('gives the files of a source that stays away to another member by itself, in a group of three', async () => {
    await cluster.addStorage(3)
    const fileId = await newAppender('one ')
    await untilAt(3, fileId, 'one ')
    await leave(1)
    await until(
      'somebody has taken over',
      () =>
        client.append(fileId, Buffer.from('two'), { signal: AbortSignal.timeout(2_000) }).then(
          () => true,
          () => false,
        ),
      2 * AWAY_MS,
    )
    expect(await read(fileId)).to.equal('one two')
    for (const member of [2, 3]) await untilAt(member, fileId, 'one two')
  })
})
