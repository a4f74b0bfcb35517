import { expect } from 'chai'
import {
  type PeerMark,
  type SyncEffect,
  type SyncMessage,
  type SyncState,
  syncBehaviour,
} from '../../../actors/sync/sync.ts'
import type { Peer } from '../../../protocol/storage-messages.ts'
import type { CommonEffect } from '../../../runtime/actor.ts'

const PEER: Peer = { storageId: 2, host: 'b', ip: '10.0.0.2', port: 23000, epoch: 1, status: 'active' }
const MARK: PeerMark = { incarnation: '2'.repeat(32), sequence: 5, shipped: 5 }

describe('sync', () => {
  const behaviour = syncBehaviour({ epoch: 1, marks: new Map() })
  let state: SyncState

  function tell(message: SyncMessage): readonly (SyncEffect | CommonEffect<SyncMessage>)[] {
    const [next, effects] = behaviour.step(state, message, 0)
    state = next
    return effects
  }
  /** How long it pauses after a session that failed. */
  function pauseAfter(skipsOnce: boolean): number {
    const [effect] = tell({ type: 'replayFailed', storageId: 2, error: 'it broke', skipsOnce })
    expect(effect).to.deep.include({ do: 'after', message: { type: 'retry', storageId: 2 } })
    expect(tell({ type: 'retry', storageId: 2 })).to.deep.include({ do: 'replay', peer: PEER, mark: undefined })
    return (effect as { delayMs: number }).delayMs
  }

  beforeEach(() => {
    state = behaviour.init()[0]
    tell({ type: 'peers', peers: [PEER] })
  })

  it('pauses for longer after each session that fails', () => {
    const pauses = Array.from({ length: 8 }, () => pauseAfter(false))
    expect(pauses).to.deep.equal([200, 400, 800, 1600, 3200, 6400, 10_000, 10_000])
  })

  it('pauses shortly after one that failed over a file that the next goes on without, however many there are', () => {
    for (let i = 0; i < 8; i++) expect(pauseAfter(true)).to.equal(200)
  })

  it('begins anew with short pauses after a session that reached the end', () => {
    for (let i = 0; i < 5; i++) pauseAfter(false)
    tell({ type: 'replayed', storageId: 2, mark: MARK })
    tell({ type: 'binlogFlushed', end: 6 })
    const [effect] = tell({ type: 'replayFailed', storageId: 2, error: 'it broke', skipsOnce: false })
    expect(effect).to.include({ delayMs: 200 })
  })
})
