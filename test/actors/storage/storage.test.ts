import { expect } from 'chai'
import {
  STORAGE_TICK_MS,
  type StorageEffect,
  type StorageMessage,
  type StorageState,
  storageBehaviour,
} from '../../../actors/storage/storage.ts'
import { GROUP_MEMBERS_MAX, type Peer, type Welcome } from '../../../protocol/storage-messages.ts'
import type { CommonEffect, ReplyTo } from '../../../runtime/actor.ts'

const TICK = { do: 'after', key: 'tick', delayMs: STORAGE_TICK_MS, message: { type: 'tick' } }
const NOBODY: ReplyTo<never> = { resolve: () => undefined, reject: () => undefined }

const peer = (storageId: number, more: Partial<Peer> = {}): Peer => ({
  storageId,
  host: `storage-${storageId}`,
  ip: `10.0.0.${storageId}`,
  port: 23000,
  epoch: 1,
  status: 'active',
  ...more,
})

const accepted = (...peers: Peer[]): Welcome => ({ trackerId: 'tracker-1', accepted: true, peers })
const refused = (code?: string, epochMin?: number): Welcome => ({
  trackerId: 'tracker-1',
  accepted: false,
  peers: [],
  ...(code === undefined ? {} : { code }),
  ...(epochMin === undefined ? {} : { epochMin }),
})

describe('a storage server', () => {
  let state: StorageState

  /** Takes one step; returns its effects. */
  function tell(message: StorageMessage): readonly (StorageEffect | CommonEffect<StorageMessage>)[] {
    const [next, effects] = storageBehaviour.step(state, message)
    state = next
    return effects
  }

  function join(...peers: Peer[]): void {
    tell({ type: 'joined', welcome: accepted(...peers) })
  }

  beforeEach(() => {
    state = storageBehaviour.init()[0]
  })

  it('begins by looking at its disks and asking to join, and takes nothing yet', () => {
    const [state, effects] = storageBehaviour.init()
    expect(effects).deep.equal([{ do: 'examine' }, { do: 'join' }, TICK])
    expect(state).deep.equal({
      status: 'joining',
      reason: 'no tracker has answered yet',
      joined: false,
      joining: true,
      peers: new Map(),
    })
  })

  it('changes no state it was given', () => {
    const before = state
    const copy = structuredClone(before)
    join(peer(2))
    tell({ type: 'examined', problem: 'the disk is full' })
    tell({ type: 'drain' })
    expect(before).deep.equal(copy)
  })

  it('reports to who asks', () => {
    expect(tell({ type: 'status', replyTo: NOBODY })).deep.equal([{ do: 'report', to: NOBODY }])
  })

  describe('that joins', () => {
    it('does not ask twice at once', () => {
      expect(tell({ type: 'tick' })).deep.equal([{ do: 'examine' }, TICK])
    })

    it('is active once it is accepted, tells so at once, and knows its peers', () => {
      const effects = tell({ type: 'joined', welcome: accepted(peer(2), peer(3)) })
      expect(effects).deep.equal([{ do: 'beat' }, { do: 'tellPeers', peers: [peer(2), peer(3)] }])
      expect(state).deep.equal({
        status: 'active',
        reason: undefined,
        joined: true,
        joining: false,
        peers: new Map([
          [2, peer(2)],
          [3, peer(3)],
        ]),
      })
      expect(tell({ type: 'tick' })).deep.equal([{ do: 'examine' }, { do: 'beat' }, TICK])
    })

    it('asks again with the next tick when nobody answered, and says why it waits', () => {
      expect(tell({ type: 'joinFailed', reason: 'timeout' })).deep.equal([])
      expect(state).include({ status: 'joining', reason: 'timeout', joining: false })
      expect(tell({ type: 'tick' })).deep.equal([{ do: 'examine' }, { do: 'join' }, TICK])
      expect(tell({ type: 'tick' })).deep.equal([{ do: 'examine' }, TICK])
    })

    it('says why it was refused, and asks again with the next tick', () => {
      expect(tell({ type: 'joined', welcome: refused('storage_id_in_use') })).deep.equal([])
      expect(state).include({ status: 'joining', reason: 'storage_id_in_use', joined: false, joining: false })
      expect(tell({ type: 'tick' })).deep.equal([{ do: 'examine' }, { do: 'join' }, TICK])
    })

    it('raises its epoch when it has lived before, and asks again', () => {
      expect(tell({ type: 'joined', welcome: refused('epoch_too_old', 4) })).deep.equal([
        { do: 'raiseEpoch', epoch: 4 },
      ])
      expect(state).include({ status: 'joining', joined: false, joining: false })
      expect(state.reason).contain('epoch 4')
      expect(tell({ type: 'tick' })).deep.equal([{ do: 'examine' }, { do: 'join' }, TICK])
    })

    it('raises nothing when it is not told to what', () => {
      expect(tell({ type: 'joined', welcome: refused('epoch_too_old') })).deep.equal([])
      expect(state.reason).equal('epoch_too_old')
      expect(tell({ type: 'joined', welcome: refused() })).deep.equal([])
      expect(state.reason).equal('refused')
    })

    it('with a bad disk stays readonly when it is accepted', () => {
      tell({ type: 'examined', problem: 'the disk is gone' })
      expect(state).include({ status: 'readonly', reason: 'the disk is gone', joined: false })
      join()
      expect(state).include({ status: 'readonly', reason: 'the disk is gone', joined: true })
      tell({ type: 'examined', problem: undefined })
      expect(state).include({ status: 'active', reason: undefined })
    })

    it('with a bad disk keeps that reason when nobody answers', () => {
      tell({ type: 'examined', problem: 'the disk is gone' })
      tell({ type: 'joinFailed', reason: 'timeout' })
      expect(state).include({ status: 'readonly', reason: 'the disk is gone' })
    })

    it('takes no files after its disk is well again but before it is accepted', () => {
      tell({ type: 'examined', problem: 'the disk is gone' })
      tell({ type: 'examined', problem: undefined })
      expect(state).include({ status: 'joining', joined: false })
    })
  })

  describe('that has joined', () => {
    beforeEach(() => join(peer(2)))

    it('learns from the answers to its beats who its peers are now', () => {
      const moved = peer(2, { ip: '10.9.9.9', status: 'offline' })
      expect(tell({ type: 'welcome', welcome: accepted(moved, peer(3)) })).deep.equal([
        { do: 'tellPeers', peers: [moved, peer(3)] },
      ])
    })

    it('forgets no peer because a tracker does not know it yet', () => {
      expect(tell({ type: 'welcome', welcome: accepted() })).deep.equal([{ do: 'tellPeers', peers: [peer(2)] }])
    })

    it('takes no more peers than a group can have, but goes on hearing of those it knows', () => {
      const many = Array.from({ length: 100 }, (_, i) => peer(i + 3))
      tell({ type: 'welcome', welcome: accepted(...many) })
      expect(state.peers.size).equal(GROUP_MEMBERS_MAX - 1)
      tell({ type: 'welcome', welcome: accepted(peer(200), peer(2, { status: 'offline' })) })
      expect(state.peers.size).equal(GROUP_MEMBERS_MAX - 1)
      expect(state.peers.get(2)!.status).equal('offline')
      expect(state.peers.has(200)).equal(false)
    })

    it('takes no more files when one tracker refuses it, tells so, and joins again', () => {
      const effects = tell({ type: 'welcome', welcome: refused('storage_id_in_use') })
      expect(effects).deep.equal([{ do: 'event', kind: 'storage_refused', detail: { reason: 'storage_id_in_use' } }])
      expect(state).include({ status: 'joining', reason: 'storage_id_in_use', joined: false })
      expect(state.peers.size).equal(1)
      expect(tell({ type: 'tick' })).deep.equal([{ do: 'examine' }, { do: 'join' }, TICK])
      join()
      expect(state).include({ status: 'active', reason: undefined })
    })

    it('tells once that it was refused, however many trackers say so', () => {
      tell({ type: 'welcome', welcome: refused('storage_id_in_use') })
      expect(tell({ type: 'welcome', welcome: refused('storage_id_in_use') })).deep.equal([])
    })

    it('becomes readonly on a problem, tells so once, and beats on', () => {
      const problem = 'the binlog cannot be written'
      expect(tell({ type: 'examined', problem })).deep.equal([
        { do: 'event', kind: 'storage_readonly', detail: { reason: problem } },
      ])
      expect(state).include({ status: 'readonly', reason: problem })
      expect(tell({ type: 'examined', problem: 'another' })).deep.equal([])
      expect(state).include({ status: 'readonly', reason: 'another' })
      expect(tell({ type: 'tick' })).deep.equal([{ do: 'examine' }, { do: 'beat' }, TICK])
    })

    it('becomes active again when the problem has gone', () => {
      tell({ type: 'examined', problem: 'a problem' })
      expect(tell({ type: 'examined', problem: undefined })).deep.equal([])
      expect(state).include({ status: 'active', reason: undefined })
      expect(tell({ type: 'examined', problem: undefined })).deep.equal([])
      expect(state.status).equal('active')
    })

    it('stays readonly while it is refused, and is active only after both are over', () => {
      tell({ type: 'examined', problem: 'a problem' })
      tell({ type: 'welcome', welcome: refused('storage_id_in_use') })
      expect(state).include({ status: 'readonly', joined: false })
      tell({ type: 'examined', problem: undefined })
      expect(state).include({ status: 'joining', joined: false })
      join()
      expect(state.status).equal('active')
    })
  })

  describe('that drains', () => {
    it('tells so at once', () => {
      join()
      expect(tell({ type: 'drain' })).deep.equal([{ do: 'beat' }])
      expect(state).include({ status: 'draining', reason: 'it is about to stop' })
    })

    it('has nothing to tell before it has joined', () => {
      expect(tell({ type: 'drain' })).deep.equal([])
      expect(state.status).equal('draining')
    })

    it('takes no more files whatever comes', () => {
      join()
      tell({ type: 'drain' })
      const messages: StorageMessage[] = [
        { type: 'examined', problem: 'a problem' },
        { type: 'examined', problem: undefined },
        { type: 'welcome', welcome: accepted(peer(2)) },
        { type: 'welcome', welcome: refused('storage_id_in_use') },
        { type: 'joined', welcome: accepted() },
        { type: 'joined', welcome: refused('epoch_too_old', 3) },
        { type: 'joinFailed', reason: 'timeout' },
        { type: 'tick' },
      ]
      for (const message of messages) {
        tell(message)
        expect(state.status, message.type).equal('draining')
      }
    })
  })
})
