import { expect } from 'chai'
import { Turns } from '../../store/turns.ts'

describe('turns', () => {
  it('are taken one after another under a key, however they end, and at once under others', async () => {
    const turns = new Turns()
    const done: string[] = []
    let finish: () => void = () => {}
    const held = new Promise<void>(resolve => {
      finish = resolve
    })
    const first = turns.take('a', async () => {
      await held
      done.push('first')
      throw new Error('the first fails')
    })
    const second = turns.take('a', async () => void done.push('second'))
    await turns.take('b', async () => void done.push('other'))
    expect(done).to.deep.equal(['other'])
    finish()
    expect(await first.catch(error => error.message)).to.equal('the first fails')
    await second
    expect(done).to.deep.equal(['other', 'first', 'second'])
    expect(await turns.take('a', async () => 'again')).to.equal('again')
  })
})
