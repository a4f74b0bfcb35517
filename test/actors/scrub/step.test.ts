/** What the scrub decides, where a store would have to be broken for it. */
import { expect } from 'chai'
import {
  markOf,
  type ScrubEffect,
  type ScrubMessage,
  type ScrubState,
  SUSPECTS_MAX,
  scrubBehaviour,
} from '../../../actors/scrub/scrub.ts'
import type { CommonEffect } from '../../../runtime/actor.ts'
import { beginningOf } from '../../../store/scrub-file.ts'
import { PASS_START, type ScrubPosition } from '../../../store/scrub-mark.ts'

const START_MS = 5_000
const MIB = 2 ** 20
const AT: ScrubPosition = { phase: 'slots', epoch: 1, sequence: 9 }

class Steps {
  readonly #behaviour
  state: ScrubState
  effects: readonly (ScrubEffect | CommonEffect<ScrubMessage>)[]

  constructor(mark: Parameters<typeof markOf>[0] | { position: ScrubPosition; suspects: [] }, bytesPerSecond = MIB) {
    const given = 'passes' in mark ? markOf(mark) : mark
    this.#behaviour = scrubBehaviour({ bytesPerSecond, passMsMin: 1000, mark: given })
    ;[this.state, this.effects] = this.#behaviour.init(0)
  }

  post(message: ScrubMessage, nowMs: number): this {
    ;[this.state, this.effects] = this.#behaviour.step(this.state, message, nowMs)
    return this
  }

  walked(nowMs: number, piece: Partial<Extract<ScrubMessage, { type: 'walked' }>['piece']>): this {
    return this.post({ type: 'walked', piece: { position: AT, bytes: 0, found: [], deleted: [], ...piece } }, nowMs)
  }
}

describe("the scrub's step", () => {
  const fresh = () => new Steps({ position: PASS_START, suspects: [] })

  it('begins a while after its start', () => {
    const steps = fresh()
    expect(steps.effects).to.deep.equal([{ do: 'after', key: 'next', delayMs: START_MS, message: { type: 'next' } }])
    expect(steps.post({ type: 'next' }, START_MS).effects).to.deep.equal([{ do: 'walk', position: PASS_START }])
  })

  it('waits until what it has read is paid for, with one piece under way', () => {
    const steps = fresh().post({ type: 'next' }, START_MS)
    expect(steps.post({ type: 'next' }, START_MS).effects).to.deep.equal([])
    steps.walked(START_MS, { bytes: MIB / 2 })
    expect(steps.effects).to.deep.equal([{ do: 'after', key: 'next', delayMs: 500, message: { type: 'next' } }])
    expect(steps.post({ type: 'next' }, START_MS + 500).effects).to.deep.equal([{ do: 'walk', position: AT }])
  })

  it('has room for so many suspects; the others are found again', () => {
    const found = Array.from({ length: SUSPECTS_MAX + 5 }, (_, i) => ({
      name: `file ${i}`,
      verdict: { is: 'unclear' } as const,
    }))
    const steps = fresh().post({ type: 'next' }, START_MS).walked(START_MS, { found })
    expect(steps.state.suspects.size).to.equal(SUSPECTS_MAX)
    // Nothing is said before the last record was seen.
    expect(steps.effects).to.deep.equal([{ do: 'walk', position: AT }])
  })

  it('waits for the record of a deletion before it calls a damaged header bad, over a restart, too', () => {
    const found = ['deleted', 'bad'].map(name => ({ name, verdict: { is: 'unclear' } as const }))
    const before = fresh().post({ type: 'next' }, START_MS).walked(START_MS, { found })
    const steps = new Steps(before.state).post({ type: 'next' }, START_MS)
    expect(steps.effects).to.deep.equal([{ do: 'walk', position: AT }])
    steps.walked(START_MS, { deleted: ['deleted'] })
    expect(steps.effects).to.deep.equal([
      { do: 'forget', names: ['deleted'] },
      { do: 'walk', position: AT },
    ])
    const plain: ScrubPosition = { phase: 'plain', storePathIndex: 0, directoryIndex: 0, after: '' }
    steps.walked(START_MS, { position: plain })
    expect(steps.effects.at(-1)).to.deep.equal({ do: 'read', file: beginningOf('bad') })
    steps.post({ type: 'read', piece: { bytes: 0, verdict: { is: 'unclear' } } }, START_MS)
    expect(steps.effects[0]).to.deep.equal({ do: 'note', name: 'bad', damage: { part: 'slot' } })
    expect(steps.state.suspects.size).to.equal(0)
  })

  it('leaves a file at which it failed, and goes on later', () => {
    const file = beginningOf('strange')
    const steps = fresh().post({ type: 'next' }, START_MS).walked(START_MS, { file })
    expect(steps.effects).to.deep.equal([{ do: 'read', file }])
    expect(steps.post({ type: 'failed' }, START_MS).effects[0]).to.include({ do: 'after', delayMs: 10_000 })
    expect(steps.post({ type: 'next' }, START_MS + 10_000).effects).to.deep.equal([{ do: 'walk', position: AT }])
  })
})
