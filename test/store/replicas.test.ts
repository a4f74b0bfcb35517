import { expect } from 'chai'
import { ACK_TIMEOUT_MS, ACK_TIMEOUT_MS_MAX } from '../../protocol/ack.ts'
import { Timers } from '../../runtime/timers.ts'
import { Replicas, WAITING_MAX } from '../../store/replicas.ts'
import { VirtualClock } from '../virtual-clock.ts'

/** A timeout may be late by the sweep. */
const SWEEP_MS = 100

const file = (sequence: number) => ({ name: `file ${sequence}`, sequence })

describe('replicas', () => {
  let clock: VirtualClock
  let replicas: Replicas

  beforeEach(() => {
    clock = new VirtualClock()
    replicas = new Replicas(clock, new Timers(clock), 0, () => ({ records: 0, bytes: 0 }))
  })

  /** What a wait has come to: undefined while it goes on. */
  async function outcome(wait: Promise<boolean>): Promise<unknown> {
    let come: unknown
    wait.then(
      isReached => {
        come = isReached
      },
      error => {
        come = error.code
      },
    )
    await new Promise(setImmediate)
    return come
  }

  for (const [peers, quorum, all] of [
    [0, 1, 1],
    [1, 2, 2],
    [2, 2, 3],
    [3, 3, 4],
    [4, 3, 5],
  ] as const) {
    it(`of ${peers + 1} members: ${quorum} are a quorum, ${all} are all`, () => {
      for (let peer = 2; peer < 2 + peers; peer++) replicas.expect(peer)
      expect(replicas.members).to.equal(all)
      const reached = { one: 0, quorum: 0, all: 0 }
      for (let holders = 1; holders <= peers + 1; holders++) {
        if (holders > 1) replicas.begin(holders, 7)
        expect(replicas.holders(file(7))).to.equal(holders)
        for (const level of ['one', 'quorum', 'all'] as const) {
          if (replicas.reaches(level, file(7))) reached[level] ||= holders
        }
      }
      expect(reached).to.deep.equal({ one: 1, quorum, all })
    })
  }

  it('let sync gather until an upload waits, or for a time', async () => {
    replicas.expect(2)
    const gather = () => outcome(replicas.untilAwaited(10).then(() => true))
    const alone = gather()
    expect(await alone).to.equal(undefined)
    const over = replicas.untilAwaited(10)
    clock.advance(10)
    await over
    const cutShort = replicas.untilAwaited(10)
    void replicas.wait('all', file(1))
    await cutShort
    expect(await gather()).to.equal(true)
    replicas.begin(2, 1)
    expect(await gather()).to.equal(undefined)
  })

  it('are counted by what peers say in this life, and not by what our marks say of them', () => {
    replicas.expect(2, 100)
    expect(replicas.holders(file(50))).to.equal(1)
    replicas.begin(2, 60)
    expect(replicas.holders(file(50))).to.equal(2)
    expect(replicas.holders(file(61))).to.equal(1)
  })

  it('lose a peer that comes back without what it had', async () => {
    replicas.begin(2, 60)
    replicas.begin(2, 0)
    expect(replicas.holders(file(50))).to.equal(1)
    const wait = replicas.wait('all', file(50), 1_000)
    replicas.confirm(2, 49)
    expect(await outcome(wait)).to.equal(undefined)
    replicas.confirm(2, 50)
    expect(await outcome(wait)).to.equal(true)
  })

  it('do not go back when answers are heard out of order', () => {
    replicas.begin(2, 0)
    replicas.confirm(2, 10)
    replicas.confirm(2, 9)
    expect(replicas.holders(file(10))).to.equal(2)
  })

  it('do not count peers that got the record of a file and not the file', async () => {
    replicas.begin(2, 0)
    const wait = replicas.wait('all', file(5), 1_000)
    replicas.lacks('file 5')
    replicas.confirm(2, 6)
    expect(await outcome(wait)).to.equal(undefined)
    expect(replicas.holders(file(5))).to.equal(1)
    expect(replicas.reaches('quorum', file(5))).to.equal(false)
    expect(replicas.holders(file(6))).to.equal(2)
    clock.advance(1_000 + SWEEP_MS)
    expect(await outcome(wait)).to.equal(false)
  })

  it('are waited for by each upload as long as its own level needs', async () => {
    for (const peer of [2, 3]) replicas.expect(peer)
    const quorum = [5, 8].map(sequence => replicas.wait('quorum', file(sequence)))
    const all = [5, 8].map(sequence => replicas.wait('all', file(sequence)))
    const outcomes = () => Promise.all([...quorum, ...all].map(outcome))
    replicas.confirm(2, 7)
    expect(await outcomes()).to.deep.equal([true, undefined, undefined, undefined])
    replicas.confirm(3, 5)
    expect(await outcomes()).to.deep.equal([true, undefined, true, undefined])
    replicas.confirm(3, 9)
    expect(await outcomes()).to.deep.equal([true, true, true, undefined])
    replicas.confirm(2, 8)
    expect(await outcomes()).to.deep.equal([true, true, true, true])
  })

  it('wait for a member that is heard of meanwhile', async () => {
    replicas.expect(2)
    const wait = replicas.wait('all', file(5))
    replicas.expect(3)
    replicas.confirm(2, 5)
    expect(await outcome(wait)).to.equal(undefined)
    replicas.confirm(3, 5)
    expect(await outcome(wait)).to.equal(true)
  })

  for (const [what, asked, waitedMs] of [
    ['as long as was asked for', 700, 700],
    ['for a while if nobody says how long', undefined, ACK_TIMEOUT_MS],
    ['no longer than the longest that may be asked for', 10 * ACK_TIMEOUT_MS_MAX, ACK_TIMEOUT_MS_MAX],
  ] as const) {
    it(`are waited for ${what}`, async () => {
      replicas.expect(2)
      const wait = replicas.wait('all', file(1), asked)
      clock.advance(waitedMs - 1)
      expect(await outcome(wait)).to.equal(undefined)
      clock.advance(1 + SWEEP_MS)
      expect(await outcome(wait)).to.equal(false)
      expect(clock.alarmCount, 'timers left').to.equal(0)
    })
  }

  it('are waited for with one timer, by a limited number of uploads', async () => {
    replicas.expect(2)
    const waits: Promise<boolean>[] = []
    while (!replicas.isFull) waits.push(replicas.wait('all', file(waits.length + 1)))
    expect(waits).to.have.lengthOf(WAITING_MAX)
    expect(clock.alarmCount).to.equal(1)
    replicas.confirm(2, 1)
    expect(replicas.isFull).to.equal(false)
    expect(await outcome(waits[0]!)).to.equal(true)
    clock.advance(ACK_TIMEOUT_MS + SWEEP_MS)
    expect(new Set((await Promise.all(waits)).slice(1))).to.deep.equal(new Set([false]))
  })

  it('let go of those that wait when the server ends', async () => {
    replicas.expect(2)
    const wait = replicas.wait('all', file(1))
    replicas.close()
    expect(await outcome(wait)).to.equal('unavailable')
    expect(clock.alarmCount).to.equal(0)
  })

  it('tell how far each peer is behind, as far as marks and peers say', () => {
    replicas.expect(2, 0)
    replicas.backlog.grow({ previous: 0, sequence: 4 })
    replicas.begin(3, 4)
    expect(replicas.backlogs().map(({ storageId }) => storageId)).to.deep.equal([2, 3])
    expect(replicas.slowest).to.equal(0)
  })
})
