/** Who may say that there is no such file, and what the others say instead. */
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'chai'
import { readGroupAndName, writeGroupAndName, writeSlave } from '../../../protocol/data-bodies.ts'
import { decodeFileName, encodeFileName, formatFileId, parseFileId, tailOf } from '../../../protocol/file-id.ts'
import { COMMANDS } from '../../../protocol/frame.ts'
import type { FrameClient } from '../../../runtime/frame-client.ts'
import { fetchFile, uploadFile } from '../../data-port.ts'
import { quickClock } from '../../quick-clock.ts'
import { until } from '../../until.ts'
import { codeOf, SmallCluster } from '../small-cluster.ts'

/** Long enough that what was made before lies in a second that is over. */
const LATER_MS = 5_000

const SLAVE = Buffer.from('slave')

describe('a file that a storage server does not have', function () {
  this.timeout(30_000)
  let cluster: SmallCluster
  let aheadMs: number

  beforeEach(async () => {
    const clock = quickClock()
    aheadMs = 0
    cluster = await SmallCluster.start({ clock: { ...clock, wallMs: () => clock.wallMs() + aheadMs } })
  })
  afterEach(() => cluster.remove())

  const storeOf = (storageId: number) => cluster.members.get(storageId)!.storage.store
  /** Uploads to the first storage server, whose file it is then. */
  async function upload(text: string): Promise<string> {
    return uploadFile(await cluster.connect(1), Buffer.from(text))
  }
  function info(connection: FrameClient, fileId: string): Promise<Buffer> {
    const { group, name } = parseFileId(fileId)
    return connection.request(COMMANDS.queryFileInfo, writeGroupAndName(group, name))
  }
  function remove(connection: FrameClient, fileId: string): Promise<Buffer> {
    const { group, name } = parseFileId(fileId)
    return connection.request(COMMANDS.deleteFile, writeGroupAndName(group, name))
  }
  /** What a storage server says of a file, asked for it and about it. */
  async function answers(storageId: number, fileId: string, role: 'anonymous' | 'peer' = 'anonymous'): Promise<string> {
    const connection = await cluster.connect(storageId, role)
    const [bytes, about] = [await codeOf(fetchFile(connection, fileId)), await codeOf(info(connection, fileId))]
    return bytes === about ? bytes : `${bytes}, ${about}`
  }
  /** Waits until a member has applied everything of a source. */
  async function synced(source: number, member: number): Promise<void> {
    const isLevel = () => {
      const { epoch, end } = storeOf(source)
      const position = storeOf(member).position(source)
      return position?.epoch === epoch && position.sequence === end.sequence
    }
    await until(`${member} has everything of ${source}`, isLevel)
  }
  /** Waits until members know each other. */
  async function acquainted(...storageIds: number[]): Promise<void> {
    for (const storageId of storageIds) {
      const { storage } = cluster.members.get(storageId)!
      let known: readonly number[] = []
      storage.onPeers(peers => {
        known = peers.map(peer => peer.storageId)
      })
      const others = storageIds.filter(other => other !== storageId)
      await until(`${storageId} knows the others`, () => others.every(other => known.includes(other)))
    }
  }
  /** Stops a storage server and takes its disk away. */
  async function loseData(storageId: number): Promise<void> {
    const { dataDirectory } = cluster.members.get(storageId)!
    await cluster.stopStorage(storageId)
    rmSync(dataDirectory, { recursive: true })
  }
  /** Makes two members, and a file of the first that is lost there with its disk. */
  async function onlyAtThePeer(): Promise<string> {
    await cluster.addStorage(1)
    await cluster.addStorage(2)
    const fileId = await upload('the peer has it')
    await synced(1, 2)
    await loseData(1)
    return fileId
  }
  function damage(storageId: number, fileId: string): void {
    const { directory, baseName } = decodeFileName(parseFileId(fileId).name)
    const path = join(cluster.members.get(storageId)!.dataDirectory, 'store', 'data', directory, baseName)
    const bytes = readFileSync(path)
    bytes[0]! ^= 1
    writeFileSync(path, bytes)
  }

  it('is "unavailable" before a tracker has said who the others are, also at a source with an empty disk', async () => {
    const fileId = await onlyAtThePeer()
    await cluster.stopTracker()
    await cluster.startStorage(1, { sync: false })
    for (const id of [fileId, neverMade(1), neverMade(2)]) expect(await answers(1, id)).to.equal('unavailable')
    expect(await codeOf(remove(await cluster.connect(1), fileId))).to.equal('unavailable')
    expect(await answers(1, fileId, 'peer')).to.equal('not_here')
  })

  it('is asked of the peers by a source whose disk is empty, though no tracker has told it of its past', async () => {
    const fileId = await onlyAtThePeer()
    await cluster.stopStorage(2)
    await cluster.stopTracker()
    await cluster.startTracker()
    await cluster.addStorage(1, { sync: false })
    await cluster.addStorage(2, { sync: false })
    await acquainted(1, 2)
    expect(storeOf(1).epoch).to.equal(1)
    const first = await cluster.connect(1)
    expect((await fetchFile(first, fileId)).toString()).to.equal('the peer has it')
    expect(await codeOf(info(first, fileId))).to.equal('none')
    expect(await codeOf(remove(first, fileId))).to.equal('unavailable')
    expect(await codeOf(remove(await cluster.connect(2, 'client'), fileId))).to.equal('unavailable')
    expect((await fetchFile(await cluster.connect(2), fileId)).toString(), 'nothing is lost').to.equal(
      'the peer has it',
    )
  })

  it('is asked of the peers by a source under a later epoch, for information too', async () => {
    const fileId = await onlyAtThePeer()
    await cluster.addStorage(1, { sync: false })
    await acquainted(1, 2)
    expect(storeOf(1).epoch).to.equal(2)
    expect(await answers(1, fileId)).to.equal('none')
    expect(await answers(1, neverMade(1)), 'everybody was asked').to.equal('not_found')
    await cluster.stopStorage(2)
    expect(await answers(1, fileId)).to.equal('unavailable')
  })

  it('is not made anew as a slave file by a source that has lost it, while a peer holds it', async () => {
    await cluster.addStorage(1)
    await cluster.addStorage(2)
    const masterId = await upload('the master')
    const makeSlave = async (prefix: string) => {
      const head = writeSlave({ sizeBytes: 5, prefix, extension: 'txt' }, parseFileId(masterId).name)
      const connection = await cluster.connect(1, 'client')
      return formatFileId(
        readGroupAndName(await connection.request(COMMANDS.uploadSlave, Buffer.concat([head, SLAVE]))),
      )
    }
    const slaveId = await makeSlave('_a')
    await synced(1, 2)
    await loseData(1)
    await cluster.addStorage(1)
    await acquainted(1, 2)
    expect(storeOf(1).epoch).to.equal(2)
    expect(await codeOf(makeSlave('_a'))).to.equal('already_exists')
    expect((await fetchFile(await cluster.connect(1), slaveId)).equals(SLAVE)).to.equal(true)
    await makeSlave('_b')
    await cluster.stopStorage(2)
    expect(await codeOf(makeSlave('_c'))).to.equal('unavailable')
  })

  it('is "unavailable" while a tracker that has just started has not told of those whom the records name', async () => {
    const fileId = await onlyAtThePeer()
    await cluster.addStorage(1, { sync: false })
    for (const storageId of [1, 2]) await cluster.stopStorage(storageId)
    for (const [storageId, known] of [
      [1, fileId],
      [2, neverMade(2)],
    ] as const) {
      await cluster.stopTracker()
      await cluster.startTracker()
      await cluster.addStorage(storageId, { sync: false })
      expect(await answers(storageId, known), `at ${storageId}, alone`).to.equal('unavailable')
      await cluster.stopStorage(storageId)
    }
  })

  it('is "not here" between members, unless one knows that it is deleted', async () => {
    await cluster.addStorage(1, { sync: false })
    await cluster.addStorage(2, { sync: false })
    await acquainted(1, 2)
    const [kept, deleted] = [await upload('kept'), await upload('deleted')]
    await remove(await cluster.connect(1), deleted)
    expect(await answers(2, kept, 'peer')).to.equal('not_here')
    expect(await answers(1, neverMade(1), 'peer')).to.equal('not_here')
    expect(await answers(1, neverMade(2), 'peer')).to.equal('not_here')
    expect(await answers(1, deleted, 'peer')).to.equal('not_found')
  })

  it('is "not found" when everybody was asked and nobody has it, and "unavailable" when one cannot be asked', async () => {
    for (const storageId of [1, 2, 3]) await cluster.addStorage(storageId, { sync: false })
    await acquainted(1, 2, 3)
    const deleted = await upload('deleted')
    await remove(await cluster.connect(1), deleted)
    for (const storageId of [1, 2, 3]) expect(await answers(storageId, neverMade(1))).to.equal('not_found')
    expect(await codeOf(remove(await cluster.connect(1), neverMade(1)))).to.equal('not_found')
    await cluster.stopStorage(3)
    for (const storageId of [1, 2]) expect(await answers(storageId, neverMade(1))).to.equal('unavailable')
    expect(await codeOf(remove(await cluster.connect(1), neverMade(1)))).to.equal('unavailable')
    for (const storageId of [1, 2]) expect(await answers(storageId, deleted), 'the source knows').to.equal('not_found')
  })

  it('is "not found" at a member that has applied its source past it, also without the source', async () => {
    await cluster.addStorage(1)
    await cluster.addStorage(2)
    const fileId = await upload('deleted')
    await remove(await cluster.connect(1), fileId)
    aheadMs = LATER_MS
    await upload('later')
    await synced(1, 2)
    await cluster.stopStorage(1)
    expect(await answers(2, fileId)).to.equal('not_found')
    expect(await answers(2, fileId, 'peer')).to.equal('not_found')
  })

  it('is not "not found" at a member that went without it because its source could not read it', async () => {
    await cluster.addStorage(1)
    await cluster.addStorage(3)
    const fileId = await upload('damaged at its source')
    await synced(1, 3)
    damage(1, fileId)
    aheadMs = LATER_MS
    await upload('later')
    await cluster.addStorage(2, { sync: false })
    await synced(1, 2)
    await acquainted(1, 2, 3)
    expect(storeOf(2).position(1)).to.include({ incomplete: true })
    expect(storeOf(3).position(1)?.incomplete).to.equal(undefined)
    expect((await fetchFile(await cluster.connect(2), fileId)).toString()).to.equal('damaged at its source')
    await cluster.stopStorage(3)
    expect(await answers(2, fileId, 'peer')).to.equal('not_here')
    await cluster.stopStorage(1)
    expect(await answers(2, fileId)).to.equal('unavailable')
  })

  it('is not "not found" at a member that is level with a source under a later epoch', async () => {
    await cluster.addStorage(1)
    await cluster.addStorage(2)
    await upload('shipped')
    await synced(1, 2)
    await cluster.members.get(1)!.sync!.stop()
    const fileId = await upload('not shipped')
    await loseData(1)
    await cluster.addStorage(1)
    expect(storeOf(1).epoch).to.equal(2)
    aheadMs = LATER_MS
    await upload('later')
    await synced(1, 2)
    expect(storeOf(2).position(1)).to.include({ epoch: 2 })
    expect(await answers(2, fileId, 'peer')).to.equal('not_here')
    await cluster.stopStorage(1)
    expect(await answers(2, fileId)).to.equal('unavailable')
  })
})

/** The id of a file that a source could have made, and never has. */
function neverMade(storageId: number): string {
  const name = encodeFileName({
    ...{ storePathIndex: 0, directoryIndex: 0, storageId, createTimeS: 1_763_690_000, sizeBytes: 5, crc32: 5, salt: 1 },
    ...{ tail: tailOf('txt', 0) },
  })
  return formatFileId({ group: 'group1', name })
}
