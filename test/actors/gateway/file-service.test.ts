/** What the headers of an upload by NATS message ask for of its acknowledgement. */
import { expect } from 'chai'
import type { Receipt } from '../../../protocol/ack.ts'
import { decode } from '../../../protocol/codec.ts'
import type { Bus } from '../../../runtime/bus.ts'
import { until } from '../../until.ts'
import { SmallCluster } from '../small-cluster.ts'

const UPLOAD_ID = 'cd'.repeat(16)

interface Answer {
  readonly fileId?: string
  readonly receipt?: Receipt
  readonly error?: { code: string; status: number; message: string; retryable: boolean }
}

describe('an upload by NATS message', function () {
  this.timeout(30_000)
  let cluster: SmallCluster
  let bus: Bus

  before(async () => {
    cluster = await SmallCluster.start()
    for (const id of [1, 2]) await cluster.addStorage(id)
    await until('the source knows its peer', () => cluster.members.get(1)!.storage.replicas.members === 2)
    await cluster.startGateway()
    const { world } = cluster.context
    bus = await world.connectBus({
      servers: [],
      user: 'client',
      password: '',
      inboxPrefix: '_INBOX_client',
      name: 'x',
      waitForServer: false,
    })
  })
  after(async () => {
    await bus?.drain()
    await cluster?.remove()
  })

  async function upload(headers: Record<string, string>): Promise<Answer> {
    const reply = await bus.request('dfs.upload', Buffer.from('by message'), { headers, timeoutMs: 20_000 })
    return decode(reply.payload).value as Answer
  }

  it('says where the file is', async () => {
    const { receipt } = await upload({})
    expect(receipt).to.deep.include({ durable: true, source: 1, epoch: 1 })
  })

  for (const level of ['quorum', 'all']) {
    it(`waits for ${level} of two members with Dfs-Ack: ${level}`, async () => {
      expect((await upload({ 'Dfs-Ack': level })).receipt?.replicas).to.equal(2)
    })
  }

  for (const [name, value] of [
    ['Dfs-Ack', 'both'],
    ['Dfs-Ack', ''],
    ['Dfs-Ack-Timeout', 'soon'],
    ['Dfs-Ack-Timeout', '-1'],
  ] as const) {
    it(`is refused with ${name}: ${value || 'nothing'}`, async () => {
      expect((await upload({ [name]: value })).error).to.include({ code: 'bad_request', status: 400 })
    })
  }

  it('says what was reached when the peer is away, and waits for the same file when it is sent again', async () => {
    const headers = { 'Dfs-Ack': 'all', 'Dfs-Ack-Timeout': '300', 'Dfs-Upload-Id': UPLOAD_ID }
    await cluster.stopStorage(2)
    const { error } = await upload(headers)
    expect(error).to.include({ code: 'ack_timeout', status: 504, retryable: true })
    expect(error!.message).to.match(/^1 of 2 members hold group1\/M00\//)
    await cluster.addStorage(2)
    const { fileId, receipt } = await upload({ ...headers, 'Dfs-Ack-Timeout': '10000' })
    expect(error!.message).to.contain(fileId)
    expect(receipt).to.include({ replicas: 2, source: 1 })
  })
})
