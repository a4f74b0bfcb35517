/** How old a read may be: with a peer that is behind, and a source that is away. */
import { expect } from 'chai'
import type { Client } from '../../../client/client.ts'
import type { Consistency } from '../../../client/own-changes.ts'
import { readChanged, writeSetMetadata } from '../../../protocol/data-bodies.ts'
import { parseFileId } from '../../../protocol/file-id.ts'
import { COMMANDS, REQUEST_STATUS } from '../../../protocol/frame.ts'
import { writeMetadata } from '../../../protocol/metadata.ts'
import { uploadFile } from '../../data-port.ts'
import { until } from '../../until.ts'
import { codeOf, SmallCluster } from '../small-cluster.ts'

describe('a read', function () {
  this.timeout(40_000)
  let cluster: SmallCluster
  let client: Client
  beforeEach(async () => {
    cluster = await SmallCluster.start()
    await cluster.addStorage(1, { sync: true })
    await cluster.addStorage(2, { sync: true })
    client = await cluster.client()
    await until('the tracker knows both', async () => (await client.status()).storages.length === 2)
  })
  afterEach(() => cluster.remove())

  /** The tracker knows that a peer has what a source has. */
  async function level(): Promise<void> {
    const { store } = cluster.members.get(1)!.storage
    await until('the tracker knows that the peer has all', async () => {
      const { storages } = await client.status()
      const at = storages
        .find(({ report }) => report.storageId === 2)
        ?.report.positions.find(one => one.storageId === 1)
      return at !== undefined && at.sequence >= store.ownEnd
    })
  }

  /** What a read comes to: its text, or the code it is tried again for. */
  async function outcome(read: (options: object) => Promise<unknown>, consistency: Consistency): Promise<string> {
    const codes: string[] = []
    const signal = AbortSignal.timeout(250)
    try {
      const found = await read({
        consistency,
        signal,
        onRetry: (error: { code: string }) => void codes.push(error.code),
      })
      return Buffer.isBuffer(found) ? found.toString() : JSON.stringify(found)
    } catch (error) {
      return codes.at(-1) ?? (error as { code: string }).code
    }
  }

  /** An appender file with metadata whose last changes the peer does not have. */
  async function changedFile(): Promise<string> {
    const { fileId } = await client.uploadAppender(Buffer.from('old'), { group: 'group1' })
    await client.setMetadata(fileId, { is: 'old' })
    await level()
    await cluster.stopSync(1)
    await client.append(fileId, Buffer.from(' and new'))
    await client.setMetadata(fileId, { is: 'new' })
    return fileId
  }

  it('of a file that this client has changed is never older than the change, though any other may be', async () => {
    const fileId = await changedFile()
    const download = (options: object) => client.download(fileId, options)
    const metadata = (options: object) => client.getMetadata(fileId, options)
    for (const consistency of ['session', 'strong'] as const) {
      expect(await outcome(download, consistency)).to.equal('old and new')
      expect(await outcome(metadata, consistency)).to.equal('{"is":"new"}')
    }
    await cluster.stopStorage(1)
    await until('the peer is asked', async () => (await outcome(download, 'any')) === 'old')
    expect(await outcome(metadata, 'any')).to.equal('{"is":"old"}')
    for (const consistency of ['session', 'strong'] as const)
      for (const read of [download, metadata, (options: object) => client.info(fileId, options)])
        expect(await outcome(read, consistency), consistency).to.equal('unavailable')
    // Another client has seen nothing of the change.
    const other = await cluster.client()
    expect(await outcome(options => other.download(fileId, options), 'session')).to.equal('old')
    expect(await outcome(options => other.download(fileId, options), 'strong')).to.equal('unavailable')
  })

  it('goes to a peer again as soon as that has the change', async () => {
    const fileId = await changedFile()
    await cluster.startSync(1)
    await level()
    await cluster.stopStorage(1)
    await until('the peer answers', async () => {
      return (await outcome(options => client.download(fileId, options), 'session')) === 'old and new'
    })
    expect(await outcome(options => client.getMetadata(fileId, options), 'session')).to.equal('{"is":"new"}')
    expect(await outcome(options => client.download(fileId, options), 'strong')).to.equal('unavailable')
  })

  it('of a file that this client has deleted finds nothing, though a peer still has it', async () => {
    const { fileId } = await client.upload(Buffer.from('going'), { group: 'group1' })
    await level()
    // A peer surely holds a file when the second of its name is over: then both are asked in turn.
    await cluster.context.timers.sleep(1_100)
    await cluster.stopSync(1)
    await client.delete(fileId)
    expect(await cluster.members.get(2)!.storage.store.has(parseFileId(fileId).name)).to.equal(true)
    for (let i = 0; i < 4; i++) {
      expect(await codeOf(client.download(fileId))).to.equal('not_found')
      expect(await codeOf(client.info(fileId, { consistency: 'strong' }))).to.equal('not_found')
      await cluster.context.timers.sleep(400)
    }
    await cluster.stopStorage(1)
    await until('any', async () => (await outcome(options => client.download(fileId, options), 'any')) === 'going')
    expect(await outcome(options => client.download(fileId, options), 'session')).to.equal('unavailable')
  })

  it('asks for the place of a change through any member, and FastDFS’s clients hear nothing of it', async () => {
    const connection = await cluster.connect(1)
    const fileId = await uploadFile(connection, Buffer.from('file'))
    const metadata = writeMetadata(new Map([['a', 'b']]))
    const body = writeSetMetadata({ ...parseFileId(fileId), metadata, merges: false })
    await level()
    for (const storageId of [1, 2]) {
      const member = await cluster.connect(storageId)
      expect(await member.request(COMMANDS.setMetadata, body)).to.have.length(0)
      const { place } = readChanged(await member.request(COMMANDS.setMetadata, body, REQUEST_STATUS.tellPlace))
      expect(place).to.deep.equal({ source: 1, epoch: 1, sequence: cluster.members.get(1)!.storage.store.ownEnd })
    }
  })
})
