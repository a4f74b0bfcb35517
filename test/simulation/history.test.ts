/** A history that could not have been is told from one that could. */
import { expect } from 'chai'
import { type Apply, type Explains, History, NOTHING, type Reign, stampedBytes, strangerIn, tell } from './history.ts'

const adds =
  (text: string): Apply =>
  ({ content, metadata }) =>
    content && { content: Buffer.concat([content, Buffer.from(text)]), metadata }
const shows =
  (text: string | undefined): Explains =>
  ({ content }) =>
    content?.toString() === text

describe('the history of a name that may change', () => {
  let history: History
  let nowMs = 0
  const does = (text: string) => history.end(history.begin(`add ${text}`, adds(text)))
  const begins = (text: string) => history.begin(`add ${text}`, adds(text))
  const looks = (text: string | undefined) => {
    const look = history.begin(`read ${text}`, () => undefined)
    return () => history.refuse(look, shows(text))
  }
  const sees = (text: string | undefined) => looks(text)()
  const wrong = (...reigns: Reign[]) => {
    const found = history.check(reigns)
    return 'wrong' in found ? found.wrong : undefined
  }
  const states = (...reigns: Reign[]) => {
    const found = history.check(reigns)
    return 'states' in found ? found.states.map(({ content }) => content?.toString()).sort() : found.wrong
  }

  beforeEach(() => {
    const id = { fileId: 'group1/name', group: 'group1', name: 'name', source: 1, kind: 'appender' as const }
    nowMs = 0
    history = new History(id, [{ content: Buffer.from('0'), metadata: '' }], () => ++nowMs)
  })

  it('has what was acknowledged, in its order', () => {
    does('a')
    sees('0a')
    does('b')
    expect(states()).to.deep.equal(['0ab'])
    sees('0a')
    expect(wrong()).to.equal('read 0a: nothing explains that after 3 bytes () with {}')
  })

  it('may have what nobody was told of, at any time since, but not once and then no more', () => {
    history.lose(begins('a'))
    sees('0')
    does('b')
    expect(states()).to.deep.equal(['0ab', '0b', '0ba'])
    sees('0ba')
    expect(states()).to.deep.equal(['0ba'])
    sees('0b')
    expect(wrong()).to.match(/^read 0b: /)
  })

  it('has what is done at the same time in any order, and what is read meanwhile before it or after it', () => {
    const [a, b] = [begins('a'), begins('b')]
    const [early, late] = [looks('0b'), looks('0ba')]
    history.end(b)
    history.end(a)
    late()
    early()
    expect(states()).to.deep.equal(['0ba'])
    sees('0ab')
    expect(wrong()).to.match(/^read 0ab: /)
  })

  it('has nothing of what was surely not done, and takes a refusal for a look', () => {
    history.refuse(begins('a'), undefined)
    expect(states()).to.deep.equal(['0'])
    history.refuse(begins('b'), ({ content }) => content === undefined)
    expect(wrong()).to.match(/^add b: /)
  })

  it('has no change of what is not there', () => {
    history.end(history.begin('delete', () => NOTHING))
    sees(undefined)
    expect(states()).to.deep.equal([undefined])
    does('a')
    expect(wrong()).to.match(/^add a: nothing explains that after no file/)
  })

  it('is not used any more when the outcome of four operations is unknown', () => {
    for (let i = 0; i < 4; i++) {
      expect(history.isUsable).to.equal(true)
      history.lose(begins(String(i)))
    }
    expect(history.isUsable).to.equal(false)
  })

  describe('that comes into other hands', () => {
    const reign = (orderer: number, lossMax: number): Reign => ({
      orderer,
      lossMax,
      begunMs: ++nowMs,
      chosenMs: ++nowMs,
    })

    it('may have less, as much as was not known, and has it again when its source is back', () => {
      does('a')
      does('b')
      does('c')
      const taken = reign(2, 2)
      const early = nowMs
      sees('0ab')
      const back = reign(1, 0)
      sees('0abc')
      expect(states(taken, back)).to.deep.equal(['0abc'])
      expect(wrong(taken)).to.match(
        /^read 0abc: nothing explains that after 3 bytes .* by 2, its source has kept 4 bytes/,
      )
      expect(wrong({ ...taken, lossMax: 0 }, back)).to.match(/^read 0ab: /)
      expect(early).to.be.below(back.begunMs)
    })

    it('has no more of it than was known before', () => {
      does('a')
      does('b')
      const taken = reign(2, 1)
      sees('0')
      expect(wrong(taken)).to.match(/^read 0: /)
    })

    it('does not get back what was changed in between', () => {
      does('a')
      does('b')
      const taken = reign(2, 1)
      does('x')
      const back = reign(1, 0)
      expect(states(taken, back)).to.deep.equal(['0abx', '0ax'])
      sees('0ab')
      expect(wrong(taken, back)).to.match(/^read 0ab: /)
    })

    it('keeps what a majority held, also if that was said later', () => {
      const held = begins('a')
      held.isHeld = true
      const taken = reign(2, 3)
      const look = looks('0')
      history.end(held)
      expect(states(taken)).to.deep.equal(['0a'])
      look()
      expect(states(taken)).to.deep.equal(['0a'])
      sees('0')
      expect(wrong(taken)).to.match(/^read 0: /)
    })

    it('loses what whoever had it meanwhile has changed, if that one goes, too', () => {
      does('a')
      const taken = reign(2, 1)
      does('b')
      const next = reign(3, 1)
      const back = reign(1, 0)
      expect(states(taken, next)).to.deep.equal(['0', '0a', '0ab', '0b'])
      // Whose source has kept its own comes with it.
      expect(states(taken, next, back)).to.deep.equal(['0a', '0ab', '0b'])
    })

    it('counts what was asked of its source as long as nobody else had it', () => {
      does('a')
      const look = history.begin('read 0', () => undefined)
      look.isOfSource = true
      history.refuse(look, shows('0'))
      expect(wrong()).to.match(/^read 0: /)
      expect(wrong(reign(2, 0))).to.equal(undefined)
    })
  })

  it('knows whose lines are whose, also where they were cut', () => {
    const content = Buffer.concat([stampedBytes(3, 40).subarray(5), stampedBytes(46_000, 50), stampedBytes(4, 9)])
    expect(tell({ content, metadata: 'a=1' })).to.equal('94 bytes (#3 16 #46000 48) with {a=1}')
    history.writers.add(3)
    expect(strangerIn(content, history)).to.equal(46_000)
    history.writers.add(46_000)
    expect(strangerIn(content, history)).to.equal(undefined)
  })
})
