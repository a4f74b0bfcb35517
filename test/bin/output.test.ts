import { expect } from 'chai'
import {
  eachInOrder,
  errorLine,
  exitCodeOf,
  exitCodeOfAll,
  formatBytes,
  formatSeconds,
  formatTable,
  Interrupted,
  UsageError,
} from '../../bin/output.ts'
import { LocalError } from '../../client/index.ts'
import { DfsError, ERRORS, type ErrorCode } from '../../protocol/errors.ts'
import { DiskError } from '../../runtime/world.ts'

describe('what commands print', () => {
  it('gives sizes three digits and a binary unit', () => {
    const texts = [0, 1, 999, 1000, 1024, 1536, 102_348, 1024 * 1024 - 1, 20 * 2 ** 20, 2 ** 30, 1.5 * 2 ** 40, 2 ** 60]
    expect(texts.map(formatBytes)).to.deep.equal([
      '0 B',
      '1 B',
      '999 B',
      '1.0 KiB',
      '1.0 KiB',
      '1.5 KiB',
      '99.9 KiB',
      '1.0 MiB',
      '20.0 MiB',
      '1.0 GiB',
      '1.5 TiB',
      '1024 PiB',
    ])
  })

  it('gives times in the two units that matter', () => {
    const texts = [0, 0.44, 9.94, 9.96, 59.4, 59.6, 200, 3599.6, 7500, 90_000]
    expect(texts.map(formatSeconds)).to.deep.equal([
      '0.0 s',
      '0.4 s',
      '9.9 s',
      '10 s',
      '59 s',
      '1 min 0 s',
      '3 min 20 s',
      '1 h 0 min',
      '2 h 5 min',
      '1 d 1 h',
    ])
  })

  it('lines tables up and leaves no spaces at the end of a line', () => {
    expect(
      formatTable([
        ['A', 'B'],
        ['longer', 'x'],
        ['', ''],
      ]),
    ).to.equal('A       B\nlonger  x\n\n')
  })

  it('names what failed, why, by which code, and whether trying again may help', () => {
    expect(errorLine('a.jpg', new DfsError('no_space', 'disk full'))).to.equal(
      'dfs: a.jpg: disk full (no_space; trying again may help)',
    )
    expect(errorLine('group1/x', new DfsError('not_found'))).to.equal(
      'dfs: group1/x: there is no such file (not_found)',
    )
  })

  it('does not name twice what the reason names already', () => {
    expect(errorLine('a.jpg', new LocalError('cannot read a.jpg', { cause: undefined }))).to.equal(
      'dfs: cannot read a.jpg',
    )
  })

  it('says what the system said about a file of ours', () => {
    const cause = new DiskError('open', 'a.jpg', 'EACCES')
    expect(errorLine('', new LocalError('cannot read a.jpg', { cause }))).to.equal(
      'dfs: cannot read a.jpg: permission denied',
    )
  })
})

describe('exit codes', () => {
  it('tell a wrong command line, a missing file and a missing cluster from other failures', () => {
    const codes = (Object.keys(ERRORS) as ErrorCode[]).map(code => [code, exitCodeOf(new DfsError(code))])
    expect(Object.fromEntries(codes)).to.deep.equal({
      bad_request: 2,
      bad_file_id: 2,
      unauthorized: 1,
      forbidden: 1,
      not_found: 3,
      not_here: 3,
      unknown_group: 3,
      unknown_storage: 3,
      already_exists: 1,
      still_in_use: 1,
      not_supported: 1,
      storage_id_in_use: 1,
      epoch_too_old: 1,
      too_large: 1,
      bad_range: 1,
      ack_timeout: 4,
      digest_mismatch: 1,
      busy: 1,
      internal: 1,
      corrupt: 1,
      unavailable: 4,
      no_storage: 4,
      timeout: 4,
      ticket_expired: 1,
      no_space: 1,
    })
    expect(exitCodeOf(new UsageError('no'))).to.equal(2)
    expect(exitCodeOf(new Error('no'))).to.equal(1)
    expect(exitCodeOf(new Interrupted('no', 130))).to.equal(130)
  })

  it('of several files say whether all failed in one way, in several, or only some', () => {
    const codes = [[], [0, 0], [3], [3, 3], [3, 4], [0, 3], [3, 0, 4]].map(exitCodeOfAll)
    expect(codes).to.deep.equal([0, 0, 3, 3, 1, 5, 5])
  })
})

describe('work on several items', () => {
  const { signal } = new AbortController()

  it('prints in the order of the items, at most sixteen under way', async () => {
    const items = Array.from({ length: 40 }, (_, i) => i)
    const release = new Map<number, () => void>()
    const printed: number[] = []
    const work = (item: number) => new Promise<number>(resolve => release.set(item, () => resolve(item)))
    const done = eachInOrder(items, { signal, nameOf: String }, work, item => printed.push(item))
    expect(release.size).to.equal(16)
    // The last one that was begun ends first, every time.
    while (printed.length < items.length) {
      const last = [...release.keys()].at(-1)!
      release.get(last)!()
      release.delete(last)
      await new Promise(setImmediate)
      expect(release.size).to.be.at.most(16)
    }
    expect(printed).to.deep.equal(items)
    expect(await done).to.equal(0)
  })

  it('still prints what was done when it is aborted, and begins nothing more', async () => {
    const controller = new AbortController()
    const printed: number[] = []
    const begun: number[] = []
    const work = async (item: number) => {
      begun.push(item)
      if (item === 0) await new Promise((_, reject) => controller.signal.addEventListener('abort', reject))
      if (item === 3) controller.abort(new Interrupted('interrupted', 130))
      return item
    }
    const items = Array.from({ length: 100 }, (_, i) => i)
    const failure = await eachInOrder(items, { signal: controller.signal, nameOf: String }, work, item =>
      printed.push(item),
    ).catch((error: unknown) => error)
    expect(exitCodeOf(failure)).to.equal(130)
    expect(printed).to.deep.equal(begun.slice(1))
    expect(begun).to.have.length.below(100)
  })
})
