import { expect } from 'chai'
import type { ReplyOf } from '../../../protocol/message.ts'
import { STORE_PATH_ANY } from '../../../protocol/storage-messages.ts'
import type { queryStore } from '../../../protocol/tracker-messages.ts'
import { addressOf, GIB, NOBODY, pathOf, TestTracker } from './test-tracker.ts'

type Placed = ReplyOf<typeof queryStore>

/** Two groups of two members, of two paths each. */
function twoByTwo(tracker: TestTracker): TestTracker {
  const storePaths = [pathOf(0), pathOf(1)]
  for (const [id, group] of [
    [1, 'group1'],
    [2, 'group1'],
    [3, 'group2'],
    [4, 'group2'],
  ] as const) {
    tracker.beat(id, { group, storePaths })
  }
  return tracker
}

const place = (tracker: TestTracker, request: { group?: string; key?: string } = {}) =>
  tracker.ask({ type: 'queryStore', request }) as Placed

const times = <T>(count: number, make: () => T): T[] => Array.from({ length: count }, make)

describe('placement', () => {
  it('answers with a group, its servers in the order in which to try them, a path, and how long that holds', () => {
    const tracker = twoByTwo(new TestTracker())
    const effects = tracker.tell({ type: 'queryStore', request: {}, replyTo: NOBODY })
    expect(effects).deep.equal([
      {
        do: 'reply',
        to: NOBODY,
        body: { group: 'group1', servers: [addressOf(1), addressOf(2)], storePathIndex: 0, leaseMs: 1_000 },
      },
    ])
  })

  describe('by turns', () => {
    it('goes round the groups', () => {
      const tracker = twoByTwo(new TestTracker())
      expect(times(5, () => place(tracker).group)).deep.equal(['group1', 'group2', 'group1', 'group2', 'group1'])
    })

    it('gives every server of every group the same share', () => {
      const tracker = twoByTwo(new TestTracker())
      const firsts = times(40, () => place(tracker).servers[0]!.storageId)
      for (const id of [1, 2, 3, 4])
        expect(
          firsts.filter(first => first === id),
          `storage ${id}`,
        ).length(10)
    })

    it('gives every path of every server the same share', () => {
      const tracker = twoByTwo(new TestTracker())
      const chosen = times(80, () => {
        const { servers, storePathIndex } = place(tracker)
        return `${servers[0]!.storageId} ${storePathIndex}`
      })
      for (const id of [1, 2, 3, 4]) {
        for (const path of [0, 1]) expect(chosen.filter(one => one === `${id} ${path}`)).length(10)
      }
    })

    it('gives the same shares when every other request names its group or has a key', () => {
      const tracker = twoByTwo(new TestTracker())
      for (const other of [{ group: 'group2' }, { key: 'some key' }]) {
        const firsts = times(20, () => {
          const anyGroup = place(tracker).group
          return [anyGroup, place(tracker, other).servers[0]!.storageId] as const
        })
        expect(firsts.filter(([group]) => group === 'group1')).length(10)
        const servers = firsts.map(([, server]) => server)
        for (const server of new Set(servers)) expect(servers.filter(one => one === server)).length(10)
      }
    })

    it('goes round the paths of a server that always comes first', () => {
      const tracker = twoByTwo(new TestTracker({ server: 'by_address' }))
      const chosen = times(4, () => place(tracker, { group: 'group1' }))
      expect(chosen.map(({ servers, storePathIndex }) => [servers[0]!.storageId, storePathIndex])).deep.equal([
        [1, 0],
        [1, 1],
        [1, 0],
        [1, 1],
      ])
    })

    it('names the others of the group after the chosen one, in turn', () => {
      const tracker = new TestTracker()
      for (const id of [1, 2, 3]) tracker.beat(id)
      expect(times(4, () => place(tracker).servers.map(server => server.storageId))).deep.equal([
        [1, 2, 3],
        [2, 3, 1],
        [3, 1, 2],
        [1, 2, 3],
      ])
    })

    it('takes no turn for a request that is refused', () => {
      const tracker = twoByTwo(new TestTracker())
      expect(place(tracker, { group: 'group9' })).equal('unknown_group')
      expect(place(tracker).servers[0]!.storageId).equal(1)
    })
  })

  describe('of groups', () => {
    it('takes the one that is named', () => {
      const tracker = twoByTwo(new TestTracker())
      expect(times(3, () => place(tracker, { group: 'group2' }).group)).deep.equal(['group2', 'group2', 'group2'])
    })

    it('takes the one the operator has named, unless the request names another', () => {
      const tracker = twoByTwo(new TestTracker({ group: { named: 'group2' } }))
      expect(times(2, () => place(tracker).group)).deep.equal(['group2', 'group2'])
      expect(place(tracker, { group: 'group1' }).group).equal('group1')
    })

    it('takes the one with the most room, where the fullest member decides', () => {
      const tracker = new TestTracker({ group: 'most_free' })
      tracker.beat(1, { group: 'group1', storePaths: [pathOf(0, { freeBytes: 500 * GIB })] })
      tracker.beat(2, { group: 'group1', storePaths: [pathOf(0, { freeBytes: 20 * GIB })] })
      tracker.beat(3, { group: 'group2', storePaths: [pathOf(0, { freeBytes: 30 * GIB })] })
      expect(place(tracker).group).equal('group2')
      tracker.beat(2, { group: 'group1', storePaths: [pathOf(0, { freeBytes: 40 * GIB })] })
      expect(place(tracker).group).equal('group1')
    })

    it('counts neither reserved space nor paths that are not writable as room', () => {
      const tracker = new TestTracker({ group: 'most_free' })
      const reserved = pathOf(0, { freeBytes: 500 * GIB, reservedBytes: 490 * GIB })
      const readonly = pathOf(1, { freeBytes: 500 * GIB, writable: false })
      tracker.beat(1, { group: 'group1', storePaths: [reserved, readonly] })
      tracker.beat(2, { group: 'group2', storePaths: [pathOf(0, { freeBytes: 30 * GIB })] })
      expect(place(tracker).group).equal('group2')
    })

    it('keeps a key in its group, and moves it to the next only while its own cannot take it', () => {
      const tracker = twoByTwo(new TestTracker())
      const keys = times(50, () => '').map((_, i) => `key ${i}`)
      const before = keys.map(key => place(tracker, { key }).group)
      expect(new Set(before)).deep.equal(new Set(['group1', 'group2']))
      expect(keys.map(key => place(tracker, { key }).group)).deep.equal(before)
      for (const id of [1, 2]) tracker.beat(id, { status: 'readonly' })
      expect(new Set(keys.map(key => place(tracker, { key }).group))).deep.equal(new Set(['group2']))
      for (const id of [1, 2]) tracker.beat(id)
      expect(keys.map(key => place(tracker, { key }).group)).deep.equal(before)
    })

    it('passes over those that cannot take files', () => {
      const tracker = twoByTwo(new TestTracker())
      for (const id of [1, 2]) tracker.beat(id, { status: 'readonly' })
      expect(times(3, () => place(tracker).group)).deep.equal(['group2', 'group2', 'group2'])
    })
  })

  describe('of servers', () => {
    it('names only those that take uploads now', () => {
      const tracker = new TestTracker()
      tracker.beat(1, { status: 'readonly' })
      tracker.beat(2, { status: 'draining' })
      tracker.beat(3, { status: 'joining' })
      tracker.beat(4, { storePaths: [pathOf(0, { freeBytes: 10 * GIB })] })
      tracker.beat(5, { storePaths: [pathOf(0, { writable: false })] })
      tracker.beat(6)
      tracker.beat(7, { status: 'offline' })
      expect(times(3, () => place(tracker).servers)).deep.equal([[addressOf(6)], [addressOf(6)], [addressOf(6)]])
    })

    it('takes the first by address', () => {
      const tracker = new TestTracker({ server: 'by_address' })
      tracker.beat(1, { ip: '10.0.0.9' })
      tracker.beat(2, { ip: '10.0.0.5', port: 23001 })
      tracker.beat(3, { ip: '10.0.0.5', port: 23000 })
      expect(times(2, () => place(tracker).servers.map(server => server.storageId))).deep.equal([
        [3, 2, 1],
        [3, 2, 1],
      ])
    })

    it('takes the one with the least priority number first', () => {
      const tracker = new TestTracker({ server: 'by_priority' })
      tracker.beat(1, { uploadPriority: 10 })
      tracker.beat(2, { uploadPriority: -1 })
      tracker.beat(3, { uploadPriority: 5 })
      expect(times(2, () => place(tracker).servers.map(server => server.storageId))).deep.equal([
        [2, 3, 1],
        [2, 3, 1],
      ])
    })
  })

  describe('of store paths', () => {
    const storePaths = [
      pathOf(0, { freeBytes: 50 * GIB }),
      pathOf(1, { writable: false, freeBytes: 500 * GIB }),
      pathOf(2, { freeBytes: 10 * GIB }),
      pathOf(3, { freeBytes: 60 * GIB }),
    ]

    it('goes round those that have room above what is reserved', () => {
      const tracker = new TestTracker()
      tracker.beat(1, { storePaths })
      expect(times(4, () => place(tracker).storePathIndex)).deep.equal([0, 3, 0, 3])
    })

    it('takes the one with the most room', () => {
      const tracker = new TestTracker({ path: 'most_free' })
      tracker.beat(1, { storePaths })
      expect(times(2, () => place(tracker).storePathIndex)).deep.equal([3, 3])
    })

    it('weighs the room above what is reserved, not the free space', () => {
      const tracker = new TestTracker({ path: 'most_free' })
      tracker.beat(1, {
        storePaths: [pathOf(0, { freeBytes: 60 * GIB, reservedBytes: 55 * GIB }), pathOf(1, { freeBytes: 50 * GIB })],
      })
      expect(place(tracker).storePathIndex).equal(1)
    })

    it('never answers with the index that means any', () => {
      const tracker = new TestTracker()
      tracker.beat(1, { storePaths })
      expect(times(300, () => place(tracker).storePathIndex)).not.include(STORE_PATH_ANY)
    })
  })

  describe('refuses', () => {
    it('a group nobody has heard of', () => {
      expect(place(twoByTwo(new TestTracker()), { group: 'group9' })).equal('unknown_group')
    })

    it('where there is no storage server at all', () => {
      const tracker = new TestTracker()
      expect(place(tracker)).equal('no_storage')
      expect(place(tracker, { group: 'group1' })).equal('no_storage')
      expect(place(tracker, { key: 'a' })).equal('no_storage')
    })

    it('where none is online', () => {
      const tracker = twoByTwo(new TestTracker())
      for (const id of [1, 2]) tracker.beat(id, { status: 'offline' })
      expect(place(tracker, { group: 'group1' })).equal('no_storage')
      expect(place(tracker).group).equal('group2')
      for (const id of [3, 4]) tracker.beat(id, { group: 'group2', status: 'offline' })
      expect(place(tracker)).equal('no_storage')
      expect(place(tracker, { key: 'a' })).equal('no_storage')
    })

    it('where those that are online take no uploads', () => {
      const tracker = new TestTracker()
      tracker.beat(1, { status: 'readonly' })
      expect(place(tracker)).equal('no_storage')
    })

    it('where every path is down to its reserved space', () => {
      const tracker = new TestTracker()
      tracker.beat(1, { storePaths: [pathOf(0, { freeBytes: 10 * GIB }), pathOf(1, { freeBytes: 9 * GIB })] })
      expect(place(tracker)).equal('no_space')
      tracker.beat(1, { storePaths: [pathOf(0, { freeBytes: 10 * GIB + 1 })] })
      expect(place(tracker).group).equal('group1')
    })
  })
})
