import { Ajv } from 'ajv'
import { expect } from 'chai'
import { trackerBehaviour } from '../../../actors/tracker/tracker.ts'
import { OFFLINE_AFTER_MS } from '../../../actors/tracker/view.ts'
import { parseFileId } from '../../../protocol/file-id.ts'
import type { ReplyOf } from '../../../protocol/message.ts'
import { GROUP_MEMBERS_MAX, type StorageReport, Welcome } from '../../../protocol/storage-messages.ts'
import type { queryFetch, trackerLocate, trackerStatus, trackerStorages } from '../../../protocol/tracker-messages.ts'
import {
  addressOf,
  eventsOf,
  fileIdOf,
  GIB,
  NOBODY,
  pathOf,
  ROUND_ROBIN,
  reportOf,
  TestTracker,
} from './test-tracker.ts'

const CREATED_S = 1_700_000_000
const FILE = fileIdOf(1, CREATED_S)

const peer = (storageId: number, status = 'active') => ({ ...addressOf(storageId), epoch: 1, status })

/** What a server says that has applied the records of storage 1 up to a time. */
const syncedTo = (timeMs: number): Partial<StorageReport> => ({
  positions: [{ storageId: 1, epoch: 1, sequence: 9, timeMs }],
})

const EMPTY_GROUP = {
  ...{ storages: 0, online: 0, readable: 0, writable: 0, port: 0, storePathCount: 0 },
  ...{ freeBytes: 0, totalBytes: 0, diskFreeBytes: 0, reservedBytes: 0, reusableBytes: 0 },
}

describe('a tracker', () => {
  let tracker: TestTracker

  beforeEach(() => {
    tracker = new TestTracker()
  })

  const fetch = (fileId = FILE) => tracker.ask({ type: 'queryFetch', fileId }) as ReplyOf<typeof queryFetch>
  const update = (fileId = FILE) => tracker.ask({ type: 'queryUpdate', fileId }) as ReplyOf<typeof queryFetch>
  const status = () => tracker.ask({ type: 'status' }) as ReplyOf<typeof trackerStatus>
  const idsOf = ({ servers }: ReplyOf<typeof queryFetch>) => servers.map(server => server.storageId)

  it('begins with a beat and a tick, and knows nobody', () => {
    const [state, effects] = trackerBehaviour({ trackerId: 't', version: '1', policy: ROUND_ROBIN }).init(7)
    expect(effects).deep.equal([
      { do: 'beat' },
      { do: 'after', key: 'tick', delayMs: 1_000, message: { type: 'tick' } },
    ])
    expect(state.groups.size).equal(0)
    expect(state.stale).equal(false)
  })

  it('beats with every tick, and ticks again, also when its NATS is gone', () => {
    const effects = [{ do: 'beat' }, { do: 'after', key: 'tick', delayMs: 1_000, message: { type: 'tick' } }]
    expect(tracker.tell({ type: 'tick' })).deep.equal(effects)
    tracker.nowMs += 60_000
    expect(tracker.tell({ type: 'tick' })).deep.equal(effects)
  })

  it('changes no state it was given', () => {
    const before = tracker.state
    const copy = structuredClone({ ...before })
    tracker.beat(1)
    tracker.ask({ type: 'queryStore', request: {} })
    tracker.hears('gateway', 'gateway-1')
    tracker.pass(10_000)
    expect(before).deep.equal(copy)
  })

  describe('hears', () => {
    it('a first beat: welcomes, and tells that a storage server is there', () => {
      const effects = tracker.tell({ type: 'beat', report: reportOf(1), replyTo: NOBODY })
      expect(effects).deep.equal([
        { do: 'reply', to: NOBODY, body: { trackerId: 'tracker-1', accepted: true, peers: [] } },
        {
          do: 'event',
          kind: 'storage_online',
          group: 'group1',
          detail: { storageId: 1, host: 'storage-1', port: 23000 },
        },
      ])
    })

    it('further beats, and keeps the last report', () => {
      tracker.beat(1)
      const report = reportOf(1, { version: '1.2.4' })
      expect(tracker.tell({ type: 'beat', report, replyTo: NOBODY })).deep.equal([
        { do: 'reply', to: NOBODY, body: { trackerId: 'tracker-1', accepted: true, peers: [] } },
      ])
      expect(tracker.state.groups.get('group1')).deep.equal([{ report, heardMs: tracker.nowMs, online: true }])
    })

    it('a join like a first beat', () => {
      const effects = tracker.tell({ type: 'join', report: reportOf(1, { status: 'joining' }), replyTo: NOBODY })
      expect(eventsOf(effects)).deep.equal([['storage_online', 1]])
      expect(tracker.ask({ type: 'queryStore', request: {} })).equal('no_storage')
      tracker.beat(1)
      expect(tracker.ask({ type: 'queryStore', request: {} })).property('group', 'group1')
    })

    it('and tells a member who the others of its group are', () => {
      tracker.beat(3)
      tracker.beat(2, { status: 'readonly' })
      tracker.beat(9, { group: 'group2' })
      expect(tracker.beat(1).peers).deep.equal([peer(2, 'readonly'), peer(3)])
      tracker.beat(2, { status: 'offline' })
      expect(tracker.beat(1).peers).deep.equal([peer(2, 'offline'), peer(3)])
    })

    it('and tells those it refuses who the others are, too', () => {
      tracker.beat(1)
      tracker.beat(2)
      const welcome = tracker.join(1, { incarnation: 'f'.repeat(32) })
      expect(welcome).deep.equal({
        trackerId: 'tracker-1',
        accepted: false,
        code: 'storage_id_in_use',
        peers: [peer(2)],
      })
    })

    it('and says of a silent member that it is offline', () => {
      tracker.beat(2)
      tracker.pass(OFFLINE_AFTER_MS + 1_000, [[1]])
      expect(tracker.beat(1).peers).deep.equal([peer(2, 'offline')])
    })

    it('of more members than a welcome can name, and names as many as it can', () => {
      for (let id = 1; id <= GROUP_MEMBERS_MAX + 8; id++) tracker.beat(id)
      const welcome = tracker.beat(1)
      expect(welcome.peers).length(GROUP_MEMBERS_MAX - 1)
      expect(new Ajv().validate(Welcome, welcome)).equal(true)
    })

    it('of a server that has moved to another group, and forgets it in the old one', () => {
      tracker.beat(1)
      tracker.beat(2)
      tracker.beat(1, { group: 'group2' })
      expect(tracker.beat(2).peers).deep.equal([])
      expect(update(fileIdOf(1, CREATED_S, 'group2'))).deep.equal({ group: 'group2', servers: [addressOf(1)] })
    })
  })

  describe('that has JetStream', () => {
    const natsConnected = (jetstream: boolean) =>
      tracker.tell({ type: 'natsConnected', jetstream, serverVersion: '2.14.0' })

    it('wants a stream for each group that is new, and for all when it connects again', () => {
      expect(natsConnected(true)).deep.equal([])
      const effects = tracker.tell({ type: 'beat', report: reportOf(1), replyTo: NOBODY })
      expect(effects).deep.include({ do: 'ensureStream', group: 'group1' })
      expect(tracker.tell({ type: 'beat', report: reportOf(2), replyTo: NOBODY })).not.deep.include({
        do: 'ensureStream',
        group: 'group1',
      })
      tracker.beat(3, { group: 'group2' })
      expect(natsConnected(true)).deep.equal([
        { do: 'ensureStream', group: 'group1' },
        { do: 'ensureStream', group: 'group2' },
      ])
    })

    it('wants none where there is none', () => {
      natsConnected(false)
      const effects = tracker.tell({ type: 'beat', report: reportOf(1), replyTo: NOBODY })
      expect(effects.map(effect => effect.do)).deep.equal(['reply', 'event'])
      expect(natsConnected(false)).deep.equal([])
    })
  })

  describe('misses', () => {
    it('a storage server that is silent for more than four beats, and tells it once', () => {
      tracker.beat(1)
      expect(tracker.pass(OFFLINE_AFTER_MS)).deep.equal([])
      expect(tracker.pass(1_000)).deep.equal([['storage_offline', 1]])
      expect(tracker.pass(60_000)).deep.equal([])
    })

    it('nobody else for it', () => {
      tracker.beat(1)
      tracker.beat(2)
      expect(tracker.pass(60_000, [[2]])).deep.equal([['storage_offline', 1]])
    })

    it('it no more when it comes back', () => {
      tracker.beat(1)
      tracker.pass(6_000)
      expect(eventsOf(tracker.tell({ type: 'beat', report: reportOf(1), replyTo: NOBODY }))).deep.equal([
        ['storage_online', 1],
      ])
      expect(tracker.pass(10_000, [[1]])).deep.equal([])
    })

    it('one that says goodbye at once', () => {
      tracker.beat(1)
      tracker.beat(2)
      const effects = tracker.tell({ type: 'beat', report: reportOf(1, { status: 'offline' }), replyTo: NOBODY })
      expect(eventsOf(effects)).deep.equal([['storage_offline', 1]])
      expect(idsOf(fetch())).deep.equal([2])
      expect(tracker.pass(10_000, [[2]])).deep.equal([])
    })

    it('no storage server for good: it holds files', () => {
      tracker.beat(1)
      tracker.pass(3_600_000)
      expect(status().storages).length(1)
    })
  })

  describe('whose NATS falls silent', () => {
    const silence = (ms: number) => tracker.pass(ms, [], false)

    beforeEach(() => {
      tracker.beat(1)
      tracker.beat(2)
      tracker.pass(1_000, [[1], [2]])
    })

    it('blames nobody, marks what it knows as stale, and goes on answering', () => {
      expect(silence(60_000)).deep.equal([])
      const { stale, storages } = status()
      expect(stale).equal(true)
      expect(storages.map(storage => storage.online)).deep.equal([true, true])
      expect(idsOf(fetch())).deep.equal([1, 2])
      expect(tracker.ask({ type: 'queryStore', request: {} })).property('group', 'group1')
    })

    it('does not call it stale before it is sure', () => {
      silence(OFFLINE_AFTER_MS)
      expect(status().stale).equal(false)
      silence(1_000)
      expect(status().stale).equal(true)
    })

    it('gives everybody the time to be heard again when it is back, then misses those that are not', () => {
      silence(60_000)
      expect(tracker.pass(1_000)).deep.equal([])
      expect(status().stale).equal(false)
      expect(tracker.pass(OFFLINE_AFTER_MS - 1_000, [[1]])).deep.equal([])
      expect(tracker.pass(2_000, [[1]])).deep.equal([['storage_offline', 2]])
      expect(tracker.pass(10_000, [[1]])).deep.equal([])
    })

    it('gives them that time too when it was back before it was sure', () => {
      silence(OFFLINE_AFTER_MS)
      tracker.tell({ type: 'natsConnected', jetstream: false, serverVersion: '2.14.0' })
      expect(tracker.pass(1_000)).deep.equal([])
      expect(tracker.pass(10_000, [[1], [2]])).deep.equal([])
    })

    it('is not stale while it hears anybody', () => {
      tracker.pass(10_000, [[1]], false)
      expect(status().stale).equal(false)
    })
  })

  describe('among others', () => {
    it('speaks for all when its id is the first', () => {
      tracker.hears('tracker', 'tracker-1')
      tracker.hears('tracker', 'tracker-2')
      tracker.hears('gateway', 'a-gateway')
      expect(eventsOf(tracker.tell({ type: 'beat', report: reportOf(1), replyTo: NOBODY }))).length(1)
    })

    it('leaves it to the first to speak, and does everything else', () => {
      tracker.hears('tracker', 'tracker-0')
      const effects = tracker.tell({ type: 'beat', report: reportOf(1), replyTo: NOBODY })
      expect(effects.map(effect => effect.do)).deep.equal(['reply'])
      tracker.pass(2_000)
      tracker.hears('tracker', 'tracker-0')
      tracker.pass(1_000)
      tracker.hears('tracker', 'tracker-0')
      expect(tracker.pass(2_000)).deep.equal([])
      expect(status().storages[0]!.online).equal(false)
    })

    it('speaks when the first has said goodbye', () => {
      tracker.hears('tracker', 'tracker-0')
      tracker.hears('tracker', 'tracker-0', true)
      expect(eventsOf(tracker.tell({ type: 'beat', report: reportOf(1), replyTo: NOBODY }))).length(1)
    })

    it('speaks when the first has died together with a storage server', () => {
      // One machine, two roles; the tracker was the last to beat.
      tracker.beat(1)
      tracker.nowMs += 900
      tracker.hears('tracker', 'tracker-0')
      expect(tracker.pass(10_000)).deep.equal([['storage_offline', 1]])
    })

    it('forgets roles that have been silent for a minute, and those that leave at once', () => {
      tracker.hears('gateway', 'gateway-1')
      tracker.hears('gateway', 'gateway-2')
      tracker.hears('gateway', 'gateway-2', true)
      const gateways = () => status().roles.filter(({ role }) => role === 'gateway')
      tracker.pass(59_000)
      expect(gateways()).deep.equal([{ role: 'gateway', id: 'gateway-1', endpoint: 'gateway-1:1', beatAgeMs: 59_000 }])
      tracker.pass(2_000)
      expect(gateways()).deep.equal([])
    })
  })

  describe('says who can serve a file', () => {
    it('the source, and those that have applied its records past that second, in turn, then the others', () => {
      tracker.beat(1)
      tracker.beat(2, syncedTo((CREATED_S + 1) * 1000))
      tracker.beat(3, syncedTo((CREATED_S + 1) * 1000 - 1))
      tracker.beat(4)
      const positions = [2, 3].map(storageId => ({ storageId, epoch: 1, sequence: 9 }))
      expect(fetch()).deep.equal({ group: 'group1', servers: [1, 2, 3, 4].map(addressOf), positions })
      expect([fetch(), fetch()].map(idsOf)).deep.equal([
        [2, 1, 3, 4],
        [1, 2, 3, 4],
      ])
    })

    it('never one that is offline, silent or not yet accepted; readonly and draining ones too', () => {
      tracker.beat(1, { status: 'offline' })
      tracker.beat(2, { status: 'joining' })
      tracker.beat(3)
      tracker.pass(6_000, [
        [4, { status: 'readonly' }],
        [5, { status: 'draining' }],
      ])
      expect(idsOf(fetch())).deep.equal([4, 5])
      expect(idsOf(update())).deep.equal([4, 5])
    })

    it('any member, for a file whose id carries an address', () => {
      tracker.beat(2)
      tracker.beat(3)
      const servers = idsOf(fetch('group1/M00/00/0C/wKgBcGS5AaGAQABcAAAAKhI0Vng123.jpg'))
      expect(servers).have.members([2, 3])
    })

    it('nobody, where nobody is there', () => {
      expect(fetch()).equal('unknown_group')
      tracker.beat(1, { status: 'offline' })
      expect(fetch()).equal('no_storage')
      expect(update()).equal('no_storage')
    })

    it('nobody yet, where it has just begun to listen, also again: who asks may ask again', () => {
      tracker = new TestTracker({}, 0)
      const answers = () => [fetch(), update(), tracker.ask({ type: 'queryStore', request: { group: 'group1' } })]
      const known = ['unknown_group', 'unknown_group', 'unknown_group']
      const notYet = ['no_storage', 'no_storage', 'no_storage']
      tracker.beat(9, { group: 'group2' })
      expect(answers()).deep.equal(notYet)
      tracker.pass(OFFLINE_AFTER_MS - 1_000, [[9, { group: 'group2' }]])
      expect(answers()).deep.equal(notYet)
      tracker.pass(1_000, [[9, { group: 'group2' }]])
      expect(answers()).deep.equal(known)
      tracker.tell({ type: 'natsConnected', jetstream: false, serverVersion: '2.14.0' })
      expect(answers()).deep.equal(notYet)
    })

    it('nobody for what is no file id', () => {
      tracker.beat(1)
      for (const bad of ['', 'group1', 'group1/', '/x', 'group1/M00/../x', `${FILE}/..`, 'gr oup1/M00/00/00/x']) {
        expect(fetch(bad), bad).equal('bad_file_id')
        expect(update(bad), bad).equal('bad_file_id')
        expect(tracker.ask({ type: 'locate', fileId: bad }), bad).equal('bad_file_id')
      }
    })

    it('with the reason why not', () => {
      const effects = tracker.tell({ type: 'queryFetch', fileId: 'nonsense', replyTo: NOBODY })
      expect(effects).deep.equal([
        { do: 'refuse', to: NOBODY, code: 'bad_file_id', message: 'a file id starts with a group and a slash' },
      ])
    })
  })

  describe('says who orders the changes of a file', () => {
    it('its source first, however often it is asked', () => {
      for (const id of [1, 2, 3]) tracker.beat(id)
      const ofTwo = fileIdOf(2, CREATED_S)
      for (let i = 0; i < 3; i++) expect(idsOf(update(ofTwo))).deep.equal([2, 1, 3])
      expect(update(ofTwo)).deep.equal({ group: 'group1', servers: [2, 1, 3].map(addressOf) })
    })

    it('the others, where the source is gone: they pass it on', () => {
      tracker.beat(1, { status: 'offline' })
      tracker.beat(2)
      expect(idsOf(update())).deep.equal([2])
    })
  })

  describe('locates', () => {
    it('what a file id says, and who could serve it now', () => {
      tracker.beat(1)
      tracker.beat(2)
      const located = tracker.ask({ type: 'locate', fileId: FILE }) as ReplyOf<typeof trackerLocate>
      expect(located).deep.equal({
        group: 'group1',
        storePathIndex: 0,
        createTimeS: CREATED_S,
        kind: 'plain',
        crc32: 0x1234_5678,
        source: 1,
        sizeBytes: 42,
        servers: [addressOf(1), addressOf(2)],
      })
    })

    it('a file of a group nobody has heard of: its id says as much', () => {
      const located = tracker.ask({ type: 'locate', fileId: FILE }) as ReplyOf<typeof trackerLocate>
      expect(located).include({ group: 'group1', source: 1 }).deep.include({ servers: [] })
    })

    it('the address instead of the source, where the id carries one', () => {
      const fileId = 'group1/M00/00/0C/wKgBcGS5AaGAQABcAAAAKhI0Vng123.jpg'
      expect(() => parseFileId(fileId)).not.throw()
      const located = tracker.ask({ type: 'locate', fileId })
      expect(located).include({ sourceAddress: '192.168.1.112' }).not.property('source')
    })
  })

  describe('forgets, when it is told to,', () => {
    const group = 'group1'
    const remove = (storageId?: number) => tracker.ask({ type: 'delete', group, ...(storageId && { storageId }) })
    const ids = () => status().storages.map(({ report }) => report.storageId)

    beforeEach(() => {
      tracker.beat(1)
      tracker.beat(2, { status: 'offline' })
    })

    it('a storage server that is offline, until it comes back, and tells the others and the world', () => {
      const effects = tracker.tell({ type: 'delete', group, storageId: 2, replyTo: NOBODY })
      expect(effects).deep.include.members([
        { do: 'reply', to: NOBODY, body: {} },
        { do: 'tellForget', what: { group, storageId: 2 } },
      ])
      expect(eventsOf(effects)).deep.equal([['storage_deleted', 2]])
      expect(ids()).deep.equal([1])
      expect(tracker.beat(1).peers).deep.equal([])
      expect(tracker.beat(2).accepted).equal(true)
      expect(ids()).deep.equal([1, 2])
    })

    it('nothing that it still hears of, or does not know', () => {
      const before = tracker.state
      expect(remove(1)).equal('still_in_use')
      expect(remove()).equal('still_in_use')
      expect(remove(9)).equal('unknown_storage')
      expect(tracker.ask({ type: 'delete', group: 'group9' })).equal('unknown_group')
      expect(tracker.state).equal(before)
      expect(new TestTracker({}, 0).ask({ type: 'delete', group })).equal('no_storage')
    })

    it('a group without storage servers, which keys do not lead to any more', () => {
      tracker.beat(3, { group: 'group2', status: 'offline' })
      const removed = { group: 'group2', storageId: 3 }
      tracker.ask({ type: 'delete', ...removed })
      expect(status().groups).deep.include.members([{ ...EMPTY_GROUP, group: 'group2' }])
      expect(tracker.ask({ type: 'delete', group: 'group2' })).deep.equal({})
      expect(status().groups.map(view => view.group)).deep.equal(['group1'])
      for (const key of ['a', 'b', 'c', 'd', 'e', 'f']) {
        expect(tracker.ask({ type: 'queryStore', request: { key } })).property('group', 'group1')
      }
    })

    it('what another tracker was told, if it does not hear of it, and says nothing of it', () => {
      const effects = [2, 1, 9].flatMap(storageId => tracker.tell({ type: 'forget', group, storageId }))
      expect(effects.map(effect => effect.do)).deep.equal(['event'])
      expect(tracker.tell({ type: 'forget', group })).deep.equal([])
      expect(ids()).deep.equal([1])
    })
  })

  describe('tells', () => {
    beforeEach(() => {
      tracker.beat(2, { storePaths: [pathOf(0), pathOf(1, { totalBytes: GIB })] })
      tracker.beat(1, { storePaths: [pathOf(0, { reservedBytes: 25 * GIB, reusableBytes: 5 * GIB })] })
      tracker.beat(3, { status: 'readonly', storePaths: [pathOf(0, { freeBytes: GIB })] })
      tracker.beat(5, { group: 'group2', status: 'offline' })
      tracker.nowMs += 250
    })

    const group1 = {
      ...{ group: 'group1', storages: 3, online: 3, readable: 3, writable: 2, port: 23000, storePathCount: 1 },
      ...{ freeBytes: 80 * GIB, totalBytes: 1000 * GIB },
      ...{ diskFreeBytes: 100 * GIB, reservedBytes: 25 * GIB, reusableBytes: 5 * GIB },
    }
    const group2 = {
      ...{ group: 'group2', storages: 1, online: 0, readable: 0, writable: 0, port: 23000, storePathCount: 1 },
      ...{ freeBytes: 0, totalBytes: 0, diskFreeBytes: 0, reservedBytes: 0, reusableBytes: 0 },
    }

    it('of all groups by name, each with the least of its members', () => {
      expect(tracker.ask({ type: 'groups' })).deep.equal({ groups: [group1, group2] })
    })

    it('of all storage servers by id, or those of a group', () => {
      const storages = (group?: string) => tracker.ask({ type: 'storages', group }) as ReplyOf<typeof trackerStorages>
      expect(storages().storages.map(({ report }) => report.storageId)).deep.equal([1, 2, 3, 5])
      expect(storages('group2')).deep.equal({
        storages: [{ report: reportOf(5, { group: 'group2', status: 'offline' }), online: false, beatAgeMs: 250 }],
      })
      expect(storages('group9')).equal('unknown_group')
    })

    it('of the whole cluster in one answer', () => {
      tracker.tell({ type: 'natsConnected', jetstream: true, serverVersion: '2.14.0' })
      tracker.hears('gateway', 'gateway-1')
      const { storages, ...rest } = status()
      expect(storages).length(4)
      expect(rest).deep.equal({
        trackerId: 'tracker-1',
        version: '1.2.3',
        stale: false,
        jetstream: true,
        natsServer: '2.14.0',
        roles: [{ role: 'gateway', id: 'gateway-1', endpoint: 'gateway-1:1', beatAgeMs: 0 }],
        groups: [group1, group2],
      })
    })
  })
})
