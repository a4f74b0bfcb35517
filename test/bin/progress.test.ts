import { expect } from 'chai'
import { progressText, TransferProgress } from '../../bin/progress.ts'
import { Timers } from '../../runtime/timers.ts'
import { VirtualClock } from '../virtual-clock.ts'

const MIB = 2 ** 20

function start(options: { isTTY?: boolean; quiet?: boolean; totalBytes?: number } = {}) {
  const { isTTY = false, quiet = false, totalBytes } = options
  const clock = new VirtualClock()
  const written: string[] = []
  const output = { isTTY, columns: 80, write: (text: string) => written.push(text) }
  const progress = new TransferProgress({ clock, timers: new Timers(clock), output, quiet, totalBytes })
  return { clock, written, progress }
}

describe('progress', () => {
  it('says in a pipe nothing about what takes less than two seconds', () => {
    const { clock, written, progress } = start()
    progress.transfer()({ bytes: 5, totalBytes: 10 })
    clock.advance(1_900)
    progress.stop()
    clock.advance(60_000)
    expect(written).to.deep.equal([])
  })

  it('says in a pipe how far it is after two seconds, and every ten seconds from then on', () => {
    const { clock, written, progress } = start()
    const note = progress.transfer()
    for (let second = 1; second <= 23; second++) {
      note({ bytes: second * MIB, totalBytes: 100 * MIB })
      clock.advance(1_000)
    }
    progress.stop()
    expect(written).to.deep.equal([
      'dfs: 2.0 MiB of 100 MiB, 1.0 MiB/s, 1 min 38 s left\n',
      'dfs: 12.0 MiB of 100 MiB, 1.0 MiB/s, 1 min 28 s left\n',
      'dfs: 22.0 MiB of 100 MiB, 1.0 MiB/s, 1 min 18 s left\n',
    ])
  })

  it('draws one bar for all transfers on a terminal, and removes it', () => {
    const { clock, written, progress } = start({ isTTY: true, totalBytes: 4 * MIB })
    progress.transfer()({ bytes: MIB, totalBytes: 2 * MIB })
    progress.transfer()({ bytes: MIB, totalBytes: 2 * MIB })
    clock.advance(250)
    expect(written).to.deep.equal([])
    clock.advance(250)
    progress.stop()
    expect(written.join('')).to.contain('[============------------] 2.0 MiB of 4.0 MiB')
    expect(written.at(-1)).to.equal('\x1b[2K')
  })

  it('takes the bar away before something else is printed', () => {
    const { clock, written, progress } = start({ isTTY: true })
    progress.transfer()({ bytes: 1, totalBytes: 2 })
    clock.advance(500)
    progress.aside(() => written.push('an id\n'))
    expect(written.slice(-2)).to.deep.equal(['\x1b[2K', 'an id\n'])
    progress.stop()
    expect(written.at(-1)).to.equal('an id\n')
  })

  it('says nothing when asked to be quiet', () => {
    const { clock, written, progress } = start({ isTTY: true, quiet: true })
    progress.transfer()({ bytes: 1, totalBytes: 2 })
    clock.advance(60_000)
    progress.stop()
    expect(written).to.deep.equal([])
  })

  it('leaves out what nobody can know', () => {
    expect(progressText(5 * MIB, undefined, MIB)).to.equal('5.0 MiB, 1.0 MiB/s')
    expect(progressText(5 * MIB, 10 * MIB, 0)).to.equal('5.0 MiB of 10.0 MiB, 0 B/s')
  })
})
