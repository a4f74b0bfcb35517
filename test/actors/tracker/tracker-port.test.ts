import { expect } from 'chai'
import {
  type TrackerEffect,
  type TrackerMessage,
  type TrackerState,
  trackerBehaviour,
} from '../../../actors/tracker/tracker.ts'
import { TRACKER_BODY_BYTES_MAX, trackerPort } from '../../../actors/tracker/tracker-port.ts'
import { COMMANDS, header, readInt64, readString } from '../../../protocol/frame.ts'
import type { StorageReport } from '../../../protocol/storage-messages.ts'
import { Actor } from '../../../runtime/actor.ts'
import { silentLog } from '../../../runtime/log.ts'
import { Timers } from '../../../runtime/timers.ts'
import {
  type FrameHarness,
  type RawConnection,
  type RawReply,
  requestOf,
  serveFrames,
} from '../../runtime/frame-fixture.ts'
import { VirtualClock } from '../../virtual-clock.ts'
import { portContext } from './port-fixture.ts'
import { fileIdOf, NOBODY, pathOf, ROUND_ROBIN, reportOf } from './test-tracker.ts'

const ENOENT = 2
const EACCES = 13
const EBUSY = 16
const EINVAL = 22
const EFBIG = 27
const ENOSPC = 28
const EOPNOTSUPP = 95

const CREATED_S = 1_700_000_000

/** `group1` in 16 bytes, an address in 15 and port 23000 in 8, as FastDFS answers them. */
const GROUP1 = `67726f757031${'00'.repeat(10)}`
const SERVER1 = `31302e302e302e31${'00'.repeat(7)}00000000000059d8`
const SERVER2 = `31302e302e302e32${'00'.repeat(7)}00000000000059d8`

describe("the tracker's FastDFS port", () => {
  let harness: FrameHarness
  let tracker: Actor<TrackerState, TrackerMessage, TrackerEffect>
  let client: RawConnection

  beforeEach(async () => {
    const clock = new VirtualClock()
    tracker = new Actor(
      trackerBehaviour({ trackerId: 'tracker-1', version: '1.2.3', policy: ROUND_ROBIN }),
      () => undefined,
      { name: 'tracker-1', clock, timers: new Timers(clock), log: silentLog() },
    )
    tracker.start()
    harness = await serveFrames(trackerPort(portContext(tracker, clock)), {
      bodyBytesMax: TRACKER_BODY_BYTES_MAX,
      lengthBits: 32,
      closesAfter: () => false,
    })
    client = await harness.connect()
  })
  afterEach(async () => {
    await harness.remove()
    tracker.stop()
  })

  const beat = (storageId: number, more: Partial<StorageReport> = {}) =>
    tracker.post({ type: 'beat', report: reportOf(storageId, more), replyTo: NOBODY })

  /** Sends a request in hex; returns the reply in hex. */
  async function ask(request: string): Promise<string> {
    client.send(Buffer.from(request, 'hex'))
    const { command, status, body } = await client.reply()
    return Buffer.concat([header(command, body.length, status), body]).toString('hex')
  }

  async function answer(command: number, body: string | Uint8Array = ''): Promise<RawReply> {
    client.send(requestOf(command, body))
    return client.reply()
  }

  /** Sends a command and its body; returns the status of the reply, which has no body unless it is good. */
  async function statusOf(command: number, body: string | Uint8Array = ''): Promise<number> {
    const reply = await answer(command, body)
    if (reply.status !== 0) expect(reply.body).length(0)
    return reply.status
  }

  const groupField = (group: string) => group.padEnd(16, '\0')
  const fileFields = (fileId: string) => groupField(fileId.slice(0, 6)) + fileId.slice(7)

  it('answers a test of the connection with nothing', async () => {
    expect(await ask('00000000000000006f00')).equal('00000000000000006400')
  })

  it('answers where to upload, in turn, with group, address, port and path', async () => {
    beat(1)
    beat(2)
    expect(await ask('00000000000000006500')).equal(`00000000000000286400${GROUP1}${SERVER1}00`)
    expect(await ask('00000000000000006500')).equal(`00000000000000286400${GROUP1}${SERVER2}00`)
  })

  it('answers where to upload in a group that is named', async () => {
    beat(1)
    beat(2, { group: 'group2', storePaths: [pathOf(0, { writable: false }), pathOf(3)] })
    expect(await ask(`00000000000000106800${GROUP1}`)).equal(`00000000000000286400${GROUP1}${SERVER1}00`)
    const group2 = GROUP1.replace('7031', '7032')
    expect(await ask(`00000000000000106800${group2}`)).equal(`00000000000000286400${group2}${SERVER2}03`)
  })

  it('answers who serves a file, and who changes it, with group, address and port', async () => {
    beat(1)
    beat(2)
    const body = Buffer.from(fileFields(fileIdOf(2, CREATED_S)), 'latin1').toString('hex')
    expect(body.length / 2).equal(60)
    expect(await ask(`000000000000003c6600${body}`)).equal(`00000000000000276400${GROUP1}${SERVER2}`)
    expect(await ask(`000000000000003c6700${body}`)).equal(`00000000000000276400${GROUP1}${SERVER2}`)
  })

  it('answers with IPv6 addresses in 45 bytes', async () => {
    beat(1, { ip: 'fd00::1' })
    client.send(requestOf(COMMANDS.queryStoreWithoutGroup))
    const { body } = await client.reply()
    expect(body).length(16 + 45 + 8 + 1)
    expect([readString(body, 16, 45), readInt64(body, 61)]).deep.equal(['fd00::1', 23000])
  })

  it('answers with the errno of what is wrong, and keeps the connection', async () => {
    expect(await statusOf(COMMANDS.queryStoreWithoutGroup)).equal(ENOENT)
    beat(1)
    expect(await ask('000000000000001068006e6f67726f7570000000000000000000')).equal('00000000000000006402')
    expect(await statusOf(COMMANDS.queryFetch, fileFields(fileIdOf(1, CREATED_S, 'group9')))).equal(ENOENT)
    expect(await statusOf(COMMANDS.queryUpdate, `${groupField('group1')}nonsense`)).equal(EINVAL)
    beat(1, { storePaths: [pathOf(0, { freeBytes: 0 })] })
    expect(await statusOf(COMMANDS.queryStoreWithoutGroup)).equal(ENOSPC)
    expect(await statusOf(COMMANDS.activeTest)).equal(0)
  })

  it('answers who else there is, the alternatives in their order', async () => {
    for (const id of [1, 2, 3]) beat(id)
    const servers = ({ body }: RawReply, count: number) =>
      Array.from({ length: count }, (_, i) => [readString(body, 16 + i * 23, 15), readInt64(body, 31 + i * 23)])
    const all = await answer(COMMANDS.queryStoreWithoutGroupAll)
    expect(all.body).length(16 + 3 * 23 + 1)
    expect(servers(all, 3)).deep.equal([
      ['10.0.0.1', 23000],
      ['10.0.0.2', 23000],
      ['10.0.0.3', 23000],
    ])
    const inGroup = await answer(COMMANDS.queryStoreWithGroupAll, groupField('group1'))
    expect(servers(inGroup, 3)).deep.equal([
      ['10.0.0.2', 23000],
      ['10.0.0.3', 23000],
      ['10.0.0.1', 23000],
    ])
    const readers = await answer(COMMANDS.queryFetchAll, fileFields(fileIdOf(2, CREATED_S)))
    expect(readers.body).length(16 + 3 * 23)
    expect(servers(readers, 1)).deep.equal([['10.0.0.2', 23000]])
  })

  it('answers with one width for all, that of the longest address in the cluster', async () => {
    beat(1)
    beat(2, { group: 'group2', ip: 'fd00::2' })
    const group1 = groupField('group1')
    const lengths = new Map<number, number>()
    for (const [command, body] of [
      [COMMANDS.queryStoreWithGroup, group1],
      [COMMANDS.queryStoreWithGroupAll, group1],
      [COMMANDS.queryFetch, fileFields(fileIdOf(1, CREATED_S))],
      [COMMANDS.queryFetchAll, fileFields(fileIdOf(1, CREATED_S))],
      [COMMANDS.listStorage, group1],
    ] as const) {
      lengths.set(command, (await answer(command, body)).body.length)
    }
    expect([...lengths.values()]).deep.equal([70, 70, 69, 69, 517])
    expect((await answer(COMMANDS.getParameters)).body.toString()).contain('response_ip_addr_size=46\n')
    expect((await answer(COMMANDS.getStorageId, `${groupField('group2')}[fd00::2]:23000`)).body.toString()).equal('2')
    // As soon as the last of them is gone, the old one.
    beat(2, { group: 'group2', ip: '10.0.0.2' })
    expect((await answer(COMMANDS.queryStoreWithGroup, group1)).body).length(40)
  })

  it('lists the storage servers of a group, or those with an id or an address', async () => {
    beat(1)
    beat(2, { ip: '10.0.0.1', port: 23002 })
    const list = async (text: string) => {
      const { status, body } = await answer(COMMANDS.listStorage, groupField('group1') + text)
      return [status, ...Array.from({ length: body.length / 487 }, (_, i) => readString(body, i * 487 + 2, 16))]
    }
    expect(await list('')).deep.equal([0, '1', '2'])
    expect(await list('2')).deep.equal([0, '2'])
    expect(await list('10.0.0.1')).deep.equal([0, '1', '2'])
    expect(await list('3')).deep.equal([ENOENT])
    expect(await statusOf(COMMANDS.listStorage, groupField('group9'))).equal(ENOENT)
  })

  it('filters what it tells of trackers, storage servers and groups', async () => {
    beat(1)
    beat(2, { group: 'group2', storePaths: [pathOf(0, { freeBytes: 1 })] })
    beat(3, { group: 'group3', status: 'offline' })
    for (const id of ['tracker-1', 'tracker-2']) {
      const more = id === 'tracker-2' ? { version: '0.9', startedS: 7, connections: 3, connectionPeak: 5 } : {}
      tracker.post({
        type: 'roleBeat',
        beat: { role: 'tracker', id, endpoint: `${id}:22122`, leaving: false, ...more },
      })
    }
    tracker.post({ type: 'roleBeat', beat: { role: 'gateway', id: 'g', endpoint: '', leaving: false } })
    const found = async (command: number, filter: number[], [head, each, at]: [number, number, number]) => {
      const { body } = await answer(command, Uint8Array.from(filter))
      const count = (body.length - head) / each
      expect(head < 5 ? body[0] : body.readUInt32BE(head - 4)).equal(count)
      return Array.from({ length: count }, (_, i) => readString(body, head + i * each + at, 16))
    }
    const trackers = (...filter: number[]) => found(COMMANDS.trackerClusterStat, filter, [1, 90, 0])
    expect(await trackers(0, 0, 0)).deep.equal(['10.0.9.1:22122', '10.0.9.2:22122'])
    expect(await trackers(2, 0, 1)).deep.equal(['10.0.9.1:22122'])
    expect(await trackers(2, 0, 0)).deep.equal(['10.0.9.2:22122'])
    expect(await trackers(1, 0, 0)).deep.equal([])
    const { body } = await answer(COMMANDS.trackerClusterStat, Uint8Array.from([2, 0, 0]))
    expect([body[53], body[54], body.readInt32BE(55), body.readInt32BE(59)]).deep.equal([0, 1, 5, 3])
    expect([readString(body, 67, 8), readInt64(body, 75)]).deep.equal(['0.9', 7])

    const ACTIVE = 7
    const storages = (...filter: number[]) => found(COMMANDS.storageClusterStat, filter, [6, 106, 0])
    const [equal, not] = ['=', '!'].map(operator => operator.charCodeAt(0)) as [number, number]
    expect(await storages(0, 0, 0, 0)).deep.equal(['1', '2', '3'])
    expect(await storages(2, equal, ACTIVE, 0)).deep.equal(['1', '2'])
    expect(await storages(2, not, ACTIVE, 0)).deep.equal(['3'])
    expect(await storages(2, 0, ACTIVE, 0)).deep.equal([])
    expect(await storages(1, 0, 0, 1)).deep.equal(['1', '2', '3'])

    const volumes = (...filter: number[]) => found(COMMANDS.storageVolumeStat, filter, [5, 59, 0])
    expect(await volumes(0, 0, 0, 0)).deep.equal(['group1', 'group2', 'group3'])
    expect(await volumes(1, 1, 0, 0)).deep.equal(['group1'])
    expect(await volumes(4, 0, 0, 0)).deep.equal(['group2', 'group3'])
    expect(await volumes(2, 0, 1, 0)).deep.equal(['group1', 'group2', 'group3'])
  })

  it('tells the ids of all storage servers from an index on', async () => {
    const ids = (startIndex: number, allowEmpty: number) =>
      answer(
        COMMANDS.fetchStorageIds,
        Uint8Array.from([0xff * Number(startIndex < 0), 0, 0, startIndex & 0xff, allowEmpty]),
      )
    expect(await ids(0, 0)).include({ status: EINVAL })
    expect((await ids(0, 1)).body.toString('hex')).equal('0000000000000000')
    beat(1)
    beat(2, { group: 'group2', ip: 'fd00::2' })
    const { body } = await ids(1, 0)
    expect(body.toString('hex', 0, 8)).equal('0000000200000001')
    expect(body.toString('latin1', 8)).equal('2 group2 [fd00::2]:23000\n')
    for (const index of [2, -1]) expect(await ids(index, 1)).include({ status: EINVAL })
  })

  it('forgets a storage server that is offline, and then its group', async () => {
    beat(1)
    const group1 = groupField('group1')
    expect(await statusOf(COMMANDS.deleteStorage, `${group1}1`)).equal(EBUSY)
    expect(await statusOf(COMMANDS.deleteGroup, group1)).equal(EBUSY)
    for (const id of ['2', '0', 'x', '10.0.0.1', '99999999']) {
      expect(await statusOf(COMMANDS.deleteStorage, group1 + id), id).equal(ENOENT)
    }
    beat(1, { status: 'offline' })
    expect(await statusOf(COMMANDS.deleteStorage, `${group1}1`)).equal(0)
    expect(await statusOf(COMMANDS.deleteStorage, `${group1}1`)).equal(ENOENT)
    expect(await statusOf(COMMANDS.listOneGroup, group1)).equal(0)
    expect(await statusOf(COMMANDS.deleteGroup, group1)).equal(0)
    expect(await statusOf(COMMANDS.deleteGroup, group1)).equal(ENOENT)
    expect(await statusOf(COMMANDS.listOneGroup, group1)).equal(ENOENT)
    expect((await answer(COMMANDS.listAllGroups)).body).length(0)
  })

  it('finds a storage server by its address and port, and by nothing less', async () => {
    beat(1)
    for (const command of [COMMANDS.getStorageStatus, COMMANDS.getStorageId]) {
      expect(await statusOf(command, `${groupField('group1')}10.0.0.1:23000`)).equal(0)
      for (const [host, status] of [
        ['10.0.0.1:23001', ENOENT],
        ['10.0.0.2:23000', ENOENT],
        ['10.0.0.1', EINVAL],
        ['10.0.0.1:', EINVAL],
        ['fd00::1:23000', EINVAL],
        ['[fd00::1]:23000', ENOENT],
        ['::::', EINVAL],
      ] as const) {
        expect(await statusOf(command, groupField('group1') + host), host).equal(status)
      }
      expect(await statusOf(command, `${groupField('group9')}10.0.0.1:23000`)).equal(ENOENT)
    }
  })

  it('has no trunk servers to set, and members of a FastDFS cluster may not join', async () => {
    beat(1)
    expect(await statusOf(COMMANDS.setTrunkServer, groupField('group1'))).equal(EOPNOTSUPP)
    expect(await statusOf(COMMANDS.setTrunkServer, `${groupField('group1')}1`)).equal(EOPNOTSUPP)
    expect(await statusOf(COMMANDS.setTrunkServer, groupField('group9'))).equal(ENOENT)
    const join = 81
    for (const command of [58, 63, 72, 79, join, 83, 89, 109]) {
      for (const body of ['', Buffer.alloc(145)]) expect(await statusOf(command, body), `${command}`).equal(EACCES)
    }
    expect(await statusOf(COMMANDS.activeTest)).equal(0)
  })

  it('refuses a body of the wrong length, and keeps the connection', async () => {
    beat(1)
    const wrong: [number, number][] = [
      [COMMANDS.queryStoreWithoutGroup, 1],
      [COMMANDS.queryStoreWithGroup, 0],
      [COMMANDS.queryStoreWithGroup, 15],
      [COMMANDS.queryStoreWithGroup, 17],
      [COMMANDS.queryFetch, 16],
      [COMMANDS.queryFetch, 16 + 128],
      [COMMANDS.queryUpdate, 0],
      [COMMANDS.queryUpdate, TRACKER_BODY_BYTES_MAX],
      [COMMANDS.queryFetchAll, 16],
      [COMMANDS.queryStoreWithoutGroupAll, 1],
      [COMMANDS.queryStoreWithGroupAll, 15],
      [COMMANDS.listOneGroup, 0],
      [COMMANDS.listOneGroup, 17],
      [COMMANDS.listAllGroups, 16],
      [COMMANDS.listStorage, 15],
      [COMMANDS.listStorage, 16 + 16],
      [COMMANDS.deleteStorage, 16],
      [COMMANDS.deleteStorage, 16 + 16],
      [COMMANDS.deleteGroup, 17],
      [COMMANDS.setTrunkServer, 15],
      [COMMANDS.setTrunkServer, 16 + 16],
      [COMMANDS.getLeader, 1],
      [COMMANDS.trackerClusterStat, 4],
      [COMMANDS.storageClusterStat, 3],
      [COMMANDS.storageVolumeStat, 5],
      [COMMANDS.getStorageStatus, 16],
      [COMMANDS.getStorageStatus, 16 + 53],
      [COMMANDS.getStorageId, 16],
      [COMMANDS.getStorageId, 16 + 53],
      [COMMANDS.fetchStorageIds, 4],
      [COMMANDS.fetchStorageIds, 6],
      [COMMANDS.getParameters, 1],
      [COMMANDS.trackerStatus, 1],
    ]
    for (const [command, bytes] of wrong) {
      expect(await statusOf(command, Buffer.alloc(bytes, 'g')), `${command} with ${bytes}`).equal(EINVAL)
    }
    expect(await statusOf(COMMANDS.activeTest)).equal(0)
  })

  it('refuses a command it does not know, and keeps the connection', async () => {
    expect(await ask('0000000000000000c800')).equal('00000000000000006416')
    for (const command of [0, 11, 57, 80, 99, 110, COMMANDS.authenticate, 255])
      expect(await statusOf(command, 'body')).equal(EINVAL)
    expect(await statusOf(COMMANDS.activeTest)).equal(0)
  })

  it('looks at the low half of a length alone, as FastDFS does', async () => {
    beat(1)
    expect(await ask('00000100000000006f00')).equal('00000000000000006400')
    expect(await ask(`00000001000000106800${GROUP1}`)).equal(`00000000000000286400${GROUP1}${SERVER1}00`)
  })

  for (const [what, length] of [
    ['a negative length', 'ffffffffffffffff'],
    ['one whose low half is negative', '0000000080000000'],
  ]) {
    it(`ends the connection without a word after ${what}`, async () => {
      client.send(Buffer.from(`${length}6f00`, 'hex'))
      expect(await client.untilEnded()).length(0)
    })
  }

  it('refuses a body longer than any question, and ends the connection', async () => {
    expect(await statusOf(COMMANDS.queryFetch, Buffer.alloc(TRACKER_BODY_BYTES_MAX + 1))).equal(EFBIG)
    expect(await client.untilEnded()).length(0)
  })

  it('ends the connection when the client quits', async () => {
    client.send(Buffer.from('00000000000000005200', 'hex'))
    expect(await client.untilEnded()).length(0)
  })

  it('answers pipelined questions in their order', async () => {
    beat(1)
    beat(2)
    const body = fileFields(fileIdOf(2, CREATED_S))
    client.send(
      requestOf(COMMANDS.queryFetch, body),
      requestOf(COMMANDS.activeTest),
      requestOf(COMMANDS.queryUpdate, body),
      requestOf(199),
      requestOf(COMMANDS.queryStoreWithoutGroup),
    )
    const replies = []
    for (let i = 0; i < 5; i++) replies.push(await client.reply())
    expect(replies.map(({ status, body }) => [status, body.length])).deep.equal([
      [0, 39],
      [0, 0],
      [0, 39],
      [EINVAL, 0],
      [0, 40],
    ])
  })
})
