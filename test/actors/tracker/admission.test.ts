import { expect } from 'chai'
import type { StorageReport } from '../../../protocol/storage-messages.ts'
import { TestTracker } from './test-tracker.ts'

const OTHER_INCARNATION = 'f'.repeat(32)
const OTHER_SECRET = 'e'.repeat(16)
const boot = (count: number, secret = '1'.padStart(16, '0')) => ({ count, secret })
const position = (epoch: number, sequence: number) => ({ storageId: 1, epoch, sequence, timeMs: 0 })

describe('admission', () => {
  let tracker: TestTracker

  beforeEach(() => {
    tracker = new TestTracker()
  })

  const inUse = { trackerId: 'tracker-1', accepted: false, code: 'storage_id_in_use', peers: [] }
  const accepted = { trackerId: 'tracker-1', accepted: true, peers: [] }
  const tooOld = (epochMin: number) => ({ accepted: false, code: 'epoch_too_old', epochMin })
  const silence = () => tracker.pass(6_000)

  for (const how of ['join', 'beat'] as const) {
    describe(`of a ${how}`, () => {
      const come = (more: Partial<StorageReport>) => tracker[how](1, more)

      it('accepts a server nobody knows', () => {
        expect(come({})).deep.equal(accepted)
      })

      it('accepts the same process again', () => {
        come({})
        expect(come({})).deep.equal(accepted)
      })

      it('accepts a later start on the same data, also before the former one is missed', () => {
        come({ boot: boot(1) })
        expect(come({ boot: boot(2, OTHER_SECRET) })).deep.equal(accepted)
      })

      it('refuses an earlier start on the same data, also when the later one has gone', () => {
        come({ boot: boot(2) })
        expect(come({ boot: boot(1, OTHER_SECRET) })).deep.equal(inUse)
        silence()
        expect(come({ boot: boot(1, OTHER_SECRET) })).deep.equal(inUse)
      })

      it('refuses a copy of the data that was started as often, while the first one lives', () => {
        come({})
        expect(come({ boot: boot(1, OTHER_SECRET) })).deep.equal(inUse)
        silence()
        expect(come({ boot: boot(1, OTHER_SECRET) })).deep.equal(accepted)
      })

      it('refuses other data under the same id while the first one lives', () => {
        come({})
        expect(come({ incarnation: OTHER_INCARNATION, epoch: 9 })).deep.equal(inUse)
      })

      it('refuses it in another group too', () => {
        come({})
        expect(come({ incarnation: OTHER_INCARNATION, epoch: 9, group: 'group2' })).deep.equal(inUse)
        expect(tracker.state.groups.has('group2')).equal(false)
      })

      it('changes nothing for one that is refused', () => {
        come({})
        const { groups } = tracker.state
        come({ boot: boot(1, OTHER_SECRET), host: 'elsewhere' })
        expect(tracker.state.groups).equal(groups)
      })

      it('accepts what comes after a goodbye', () => {
        come({})
        tracker.beat(1, { status: 'offline' })
        expect(come({ incarnation: OTHER_INCARNATION, epoch: 2 })).deep.equal(accepted)
      })
    })
  }

  describe('of epochs', () => {
    it('wants a new one of an id that has lived on other data', () => {
      tracker.join(1, { epoch: 3 })
      silence()
      expect(tracker.join(1, { incarnation: OTHER_INCARNATION, epoch: 1 })).deep.include(tooOld(4))
      expect(tracker.join(1, { incarnation: OTHER_INCARNATION, epoch: 3 })).deep.include(tooOld(4))
      expect(tracker.join(1, { incarnation: OTHER_INCARNATION, epoch: 4 })).deep.equal(accepted)
    })

    it('wants a new one where a peer has applied more than the binlog holds', () => {
      tracker.beat(2, { positions: [position(1, 100)] })
      expect(tracker.join(1, { epoch: 1, binlogEnd: { sequence: 99, timeMs: 0 } })).deep.include(tooOld(2))
      expect(tracker.join(1, { epoch: 1, binlogEnd: { sequence: 100, timeMs: 0 } })).deep.include({ accepted: true })
    })

    it('wants one past the latest that any peer has seen', () => {
      tracker.beat(2, { positions: [position(3, 1)] })
      tracker.beat(3, { positions: [position(5, 1)], group: 'group2' })
      expect(tracker.join(1, { epoch: 1, binlogEnd: { sequence: 1_000, timeMs: 0 } })).deep.include(tooOld(6))
      expect(tracker.join(1, { epoch: 6 })).deep.include({ accepted: true })
    })

    it('asks silent peers too: what they hold does not go away', () => {
      tracker.beat(2, { positions: [position(1, 100)] })
      silence()
      expect(tracker.join(1, { epoch: 1 })).deep.include(tooOld(2))
    })

    it('does not mind peers that are behind, or of an earlier epoch, or that speak of others', () => {
      tracker.beat(2, { positions: [position(2, 50), { storageId: 7, epoch: 9, sequence: 9, timeMs: 0 }] })
      tracker.beat(3, { positions: [position(1, 1_000)] })
      expect(tracker.join(1, { epoch: 2, binlogEnd: { sequence: 50, timeMs: 0 } })).deep.include({ accepted: true })
    })

    it('does not judge beats: while a server works, its peers hear of records before its next beat does', () => {
      tracker.beat(2, { positions: [position(1, 100)] })
      expect(tracker.beat(1, { binlogEnd: { sequence: 99, timeMs: 0 } })).deep.include({ accepted: true })
    })
  })
})
