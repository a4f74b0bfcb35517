/** Large files whose connection breaks on their way to a peer. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'chai'
import { type ReplayContext, replayBinlog } from '../../../actors/sync/replay-binlog.ts'
import type { Peer } from '../../../protocol/storage-messages.ts'
import { realWorld } from '../../../runtime/real-world.ts'
import { type Endpoint, type Socket, SocketError, type Sockets } from '../../../runtime/world.ts'
import { BLOCK_BYTES, PIECE_BYTES } from '../../../store/block-pool.ts'
import { FaultyDisk } from '../../store/faulty-disk.ts'
import { contentOf, download, upload as uploadTo } from '../../store/store-fixture.ts'
import { until } from '../../until.ts'
import { codeOf, SmallCluster } from '../small-cluster.ts'
import { replayContext } from './replay-context.ts'

const SOURCE = 1
const PEER = 2
const BYTES = 8 * PIECE_BYTES + BLOCK_BYTES + 5
/** What a session sends beside files. */
const TALK_BYTES = 4 * 1024

/** Sockets that count what is sent over them, and break when they have sent enough. */
class BreakingSockets implements Sockets {
  sentBytes = 0
  breakAfterBytes = Number.POSITIVE_INFINITY
  /** What is sent in place of a part. */
  change = (bytes: Uint8Array): Uint8Array => bytes
  readonly #sockets = realWorld().sockets

  listen = (at: Endpoint, accept: (socket: Socket) => void) => this.#sockets.listen(at, accept)
  resolve = (host: string) => this.#sockets.resolve(host)

  async connect(to: Endpoint, timeoutMs: number): Promise<Socket> {
    const socket = await this.#sockets.connect(to, timeoutMs)
    const write = socket.write.bind(socket)
    socket.write = async parts => {
      const all = Buffer.concat(parts.map(part => this.change(part)))
      const sent = all.subarray(0, this.breakAfterBytes - this.sentBytes)
      this.sentBytes += sent.length
      await write([sent])
      if (sent.length === all.length) return
      // What the system has taken arrives; nothing else does.
      await socket.end()
      throw new SocketError('write', 'EPIPE')
    }
    return socket
  }
}

describe('a large file on its way to a peer', function () {
  this.timeout(30_000)
  const content = contentOf(BYTES)
  let sockets: BreakingSockets
  let disk: FaultyDisk
  let cluster: SmallCluster
  let context: ReplayContext
  let peer: Peer
  let name: string

  beforeEach(async () => {
    sockets = new BreakingSockets()
    disk = new FaultyDisk(realWorld().disk)
    cluster = await SmallCluster.start({ sockets, disk })
    const { storage } = await cluster.addStorage(SOURCE, { sync: false })
    const { endpoint } = (await cluster.addStorage(PEER, { sync: false })).storage
    context = replayContext(storage, [])
    peer = { storageId: PEER, host: endpoint.host, ip: endpoint.host, port: endpoint.port, epoch: 1, status: 'active' }
    name = await upload(content)
  })
  afterEach(async () => {
    sockets.breakAfterBytes = Number.POSITIVE_INFINITY
    await cluster.remove()
  })

  const peerStore = () => cluster.members.get(PEER)!.storage.store
  const upload = (bytes: Buffer) => uploadTo(cluster.members.get(SOURCE)!.storage.store, bytes, undefined, 'bin')
  const temporary = () => join(cluster.members.get(PEER)!.dataDirectory, 'store', 'tmp')

  /** Sends so much of what a session has to send, and breaks it off; what it failed with. */
  async function broken(bytes: number): Promise<Error | undefined> {
    sockets.breakAfterBytes = sockets.sentBytes + bytes
    const failure = await replayBinlog(context, peer, undefined).then(
      () => undefined,
      error => error,
    )
    sockets.breakAfterBytes = Number.POSITIVE_INFINITY
    return failure
  }
  /** Runs sessions until one reaches the end, and says how many bytes that one has sent. */
  function whole(): Promise<number> {
    return until('a session reaches the end', async () => {
      const before = sockets.sentBytes
      await replayBinlog(context, peer, undefined)
      return sockets.sentBytes - before
    })
  }
  async function expectWhole(): Promise<void> {
    expect((await download(peerStore(), name))?.equals(content)).to.equal(true)
    expect(readdirSync(temporary())).to.deep.equal([])
    expect(cluster.members.get(PEER)!.storage.blocks.takenBytes).to.equal(0)
  }

  it('goes on where it was broken off, however often, and arrives whole', async () => {
    expect(await broken(3.5 * PIECE_BYTES)).to.be.instanceOf(Error)
    expect(await broken(2.5 * PIECE_BYTES)).to.be.instanceOf(Error)
    expect((await whole()) - (BYTES - 5 * PIECE_BYTES)).to.be.within(0, TALK_BYTES)
    await expectWhole()
  })

  it('begins again if the disk does not give what it was given', async function () {
    // On a busy machine the peer may have compared before we come to spoil it.
    this.retries(3)
    await broken(3.5 * PIECE_BYTES)
    const path = await until('the beginning is there', () => readdirSync(temporary())[0]).then(token =>
      join(temporary(), token),
    )
    const bytes = readFileSync(path)
    bytes[PIECE_BYTES]! ^= 1
    writeFileSync(path, bytes)
    expect((await whole()) - BYTES).to.be.within(0, TALK_BYTES)
    await expectWhole()
  })

  it('begins again if what came is not what the source has', async () => {
    const second = content.subarray(PIECE_BYTES, 2 * PIECE_BYTES)
    sockets.change = bytes => (second.equals(bytes) ? Buffer.alloc(PIECE_BYTES) : bytes)
    await broken(3.5 * PIECE_BYTES)
    sockets.change = bytes => bytes
    expect((await whole()) - BYTES).to.be.within(0, TALK_BYTES)
    await expectWhole()
  })

  it('is not acknowledged with wrong bytes in what came later either', async () => {
    await broken(3.5 * PIECE_BYTES)
    sockets.change = bytes => (bytes.length === PIECE_BYTES ? Buffer.alloc(PIECE_BYTES) : bytes)
    const failure = await replayBinlog(context, peer, undefined).catch(error => error)
    expect(failure).to.include({ code: 'digest_mismatch' })
    expect(peerStore().position(SOURCE)).to.equal(undefined)
    sockets.change = bytes => bytes
    expect((await whole()) - BYTES).to.be.within(0, TALK_BYTES)
    await expectWhole()
  })

  it('is not waited for once it was deleted at its source', async () => {
    await broken(3.5 * PIECE_BYTES)
    await cluster.members.get(SOURCE)!.storage.store.delete(name)
    expect(await whole()).to.be.below(TALK_BYTES)
    expect(await download(peerStore(), name)).to.equal(undefined)
    expect(readdirSync(temporary())).to.deep.equal([])
  })

  it('begins again after a start of the peer, which sweeps away what came', async () => {
    await broken(3.5 * PIECE_BYTES)
    await cluster.stopStorage(PEER)
    const { endpoint, ordering } = (await cluster.startStorage(PEER, { sync: false })).storage
    peer = { ...peer, port: endpoint.port }
    const isSettled = () => codeOf(Promise.resolve().then(() => ordering.term())).then(code => code === 'none')
    await until('it knows who orders whose changes', isSettled)
    expect((await whole()) - BYTES).to.be.within(0, TALK_BYTES)
    await expectWhole()
  })
})
