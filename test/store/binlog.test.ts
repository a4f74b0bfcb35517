import { mkdir, readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect } from 'chai'
import { type BinlogOp, decodeRecord } from '../../protocol/binlog-record.ts'
import { realWorld } from '../../runtime/real-world.ts'
import { Binlog, type Flush } from '../../store/binlog.ts'
import { binlogPath } from '../../store/binlog-files.ts'
import { VirtualClock } from '../virtual-clock.ts'
import { FaultyDisk } from './faulty-disk.ts'
import { rejection, Workshop } from './store-fixture.ts'

const EPOCH = 1

describe('binlog', () => {
  let workshop: Workshop
  let directory: string
  let disk: FaultyDisk
  let clock: VirtualClock
  let binlog: Binlog
  let done: string[]

  beforeEach(async () => {
    workshop = await Workshop.make()
    directory = join(workshop.path, 'binlog')
    await mkdir(directory)
    disk = new FaultyDisk(realWorld().disk)
    clock = new VirtualClock()
    done = []
    binlog = open()
  })
  afterEach(async () => {
    await binlog.close().catch(() => {})
    await workshop.remove()
  })

  function open(fileBytesMax?: number): Binlog {
    const end = { sequence: 0, timeMs: 0 }
    return new Binlog(disk, clock, {
      ...{ directory, epoch: EPOCH, end, lastSequence: 0, skipped: 0, file: undefined, fileBytes: 0 },
      ...(fileBytesMax !== undefined && { fileBytesMax }),
    })
  }
  function append(op: BinlogOp, name: string, effect: () => Promise<void> = async () => {}): Promise<void> {
    return binlog.append(() => ({
      op,
      name,
      effect: async () => {
        await effect()
        done.push(`${op} ${name}`)
      },
    }))
  }
  async function linesOnDisk(): Promise<string[]> {
    const texts = await Promise.all(
      (await readdir(directory)).sort().map(name => readFile(join(directory, name), 'latin1')),
    )
    return texts.join('').split('\n').slice(0, -1)
  }
  const recordsOnDisk = async () => (await linesOnDisk()).map(decodeRecord)
  const turn = () => new Promise(resolve => setImmediate(resolve))
  /** Holds the flush of a first record, so that what is appended meanwhile goes together into the next one. */
  async function duringFlush(work: () => void): Promise<void> {
    const sync = disk.hold({ action: 'sync' })
    const first = append('C', 'first')
    await sync.reached
    work()
    sync.release()
    await first
  }

  it('gives records their places in the order of the calls, without gaps', async () => {
    await Promise.all(Array.from({ length: 2500 }, (_, i) => append('C', `file${i}`)))
    const records = (await recordsOnDisk()).map(record => record!)
    expect(records.map(record => record.sequence)).to.deep.equal(Array.from({ length: 2500 }, (_, i) => i + 1))
    expect(records.map(record => record.name)).to.deep.equal(Array.from({ length: 2500 }, (_, i) => `file${i}`))
    expect(binlog.end.sequence).to.equal(2500)
  })

  it('writes what arrives during a flush together: many records, few syncs', async () => {
    let appended: Promise<void>[] = []
    await duringFlush(() => {
      appended = Array.from({ length: 500 }, (_, i) => append('C', `file${i}`))
    })
    await Promise.all(appended)
    expect(disk.count({ action: 'sync' })).to.equal(2)
    expect(new Set((await recordsOnDisk()).slice(1).map(record => record?.batch))).to.deep.equal(new Set([2]))
  })

  it('bounds a flush', async () => {
    let appended: Promise<void>[] = []
    await duringFlush(() => {
      appended = Array.from({ length: 2500 }, (_, i) => append('C', `file${i}`))
    })
    await Promise.all(appended)
    expect([...new Set((await recordsOnDisk()).map(record => record?.batch))]).to.deep.equal([1, 2, 1026, 2050])
    expect(disk.count({ action: 'sync' })).to.equal(4)
  })

  it('makes a record durable before its effect, and the effect before anybody knows of the record', async () => {
    const order: string[] = []
    binlog.onFlush(() => order.push('listener'))
    const sync = disk.hold({ action: 'sync' })
    const appended = append('C', 'a', async () => {
      order.push('effect')
      expect(disk.count({ action: 'sync' })).to.equal(1)
      expect(binlog.end.sequence).to.equal(0)
      await turn()
      order.push('effect done')
    }).then(() => order.push('caller'))
    await sync.reached
    await turn()
    expect(order).to.deep.equal([])
    sync.release()
    await appended
    expect(order).to.deep.equal(['effect', 'effect done', 'listener', 'caller'])
    expect(binlog.end.sequence).to.equal(1)
  })

  it('keeps the order of what is done to one name, within a flush and from one to the next', async () => {
    let second: Promise<unknown>[] = []
    let finishCreate: () => void = () => {}
    const slow = () =>
      new Promise<void>(resolve => {
        finishCreate = resolve
      })
    await duringFlush(() => {
      second = [append('D', 'old'), append('C', 'a', slow), append('D', 'a'), append('C', 'a'), append('c', 'b')]
    })
    while (disk.count({ action: 'sync' }) < 2) await turn()
    // A whole flush later is durable; its removal still waits for the effects before it.
    const later = append('d', 'b')
    while (disk.count({ action: 'sync' }) < 3) await turn()
    await turn()
    expect(done).to.deep.equal(['C first', 'D old', 'c b'])
    finishCreate()
    await Promise.all([...second, later])
    expect(done).to.deep.equal(['C first', 'D old', 'c b', 'C a', 'D a', 'C a', 'd b'])
  })

  it('tells its listeners of every record once, in order, with the end of the flush before', async () => {
    const flushes: Flush[] = []
    binlog.onFlush(flush => flushes.push(flush))
    let appended: Promise<void>[] = []
    await duringFlush(() => {
      appended = [append('C', 'a'), append('C', 'b')]
    })
    await Promise.all(appended)
    await append('C', 'c')
    expect(flushes.map(({ previous, sequence }) => [previous, sequence])).to.deep.equal([
      [0, 1],
      [1, 3],
      [3, 4],
    ])
    expect(flushes.flatMap(flush => flush.lines)).to.deep.equal(await linesOnDisk())
  })

  it('knows behind which record there are only those of others', async () => {
    expect(binlog.ownEnd).to.equal(0)
    await append('C', 'ours')
    const origin = { storageId: 9, epoch: 1, sequence: 7 }
    await binlog.append(() => ({ op: 'c', name: 'theirs', origin }))
    expect([binlog.ownEnd, binlog.end.sequence]).to.deep.equal([1, 2])
    await append('D', 'ours')
    expect(binlog.ownEnd).to.equal(3)
  })

  it('never goes back in time, whatever the clock does, except for records of a peer', async () => {
    clock.advance(5000)
    await append('C', 'a')
    clock.wallMs = () => 1000
    await append('C', 'a')
    const origin = { storageId: 9, epoch: 1, sequence: 1 }
    await binlog.append(() => ({ op: 'c', name: 'b', origin, timeMs: 9e12, effect: async () => {} }))
    await append('C', 'a')
    const timesMs = (await recordsOnDisk()).map(record => record?.timeMs)
    expect(timesMs).to.deep.equal([timesMs[0], timesMs[0], 9e12, timesMs[0]])
    expect(binlog.end.timeMs).to.equal(timesMs[0])
  })

  it('begins behind the sequences that are skipped, with a batch that counts from the last durable record', async () => {
    const end = { sequence: 5, timeMs: 0 }
    const at = { directory, epoch: EPOCH, end, lastSequence: 4, skipped: 1024, file: undefined, fileBytes: 0 }
    const later = new Binlog(disk, clock, at)
    const make = () => ({ op: 'C' as const, name: 'a', effect: async () => undefined })
    await later.append(make)
    await Promise.all([later.append(make), later.append(make)])
    expect((await recordsOnDisk()).map(record => [record?.sequence, record?.batch])).to.deep.equal([
      [1030, 5],
      [1031, 1031],
      [1032, 1031],
    ])
    await later.close()
  })

  it('rejects whose effect failed, and only that one', async () => {
    const failing = append('C', 'a', () => Promise.reject(new Error('ENOSPC')))
    const other = append('C', 'b')
    expect((await rejection(failing)).message).to.equal('ENOSPC')
    await other
    expect(binlog.failure).to.equal(undefined)
    expect(binlog.end.sequence).to.equal(2)
  })

  for (const action of ['write', 'sync'] as const) {
    it(`takes nothing any more after a failed ${action}: neither what was under way, nor what waits, nor what comes`, async () => {
      await append('C', 'before')
      const held = disk.hold({ action })
      const underWay = rejection(append('C', 'a', () => expect.fail('no effect')))
      await held.reached
      const waiting = rejection(append('C', 'b', () => expect.fail('no effect')))
      held.release('EIO')
      for (const error of [await underWay, await waiting, await rejection(append('C', 'c'))]) {
        expect(error).to.include({ code: 'unavailable' })
      }
      expect(binlog.failure).to.include({ errno: 'EIO' })
      expect(binlog.end.sequence).to.equal(1)
      expect(disk.count({ action: 'sync' })).to.equal(1)
      expect(done).to.deep.equal(['C before'])
    })
  }

  it('begins the next file when one is full, named by the first sequence in it, and makes its entry durable', async () => {
    binlog = open(1000)
    for (let i = 0; i < 60; i++) await append('C', `file${i}`)
    const names = (await readdir(directory)).sort()
    expect(names.length).to.be.greaterThan(2)
    for (const name of names) {
      const text = await readFile(join(directory, name), 'latin1')
      expect(text.length).to.be.within(1, 1000)
      const first = decodeRecord(text.slice(0, text.indexOf('\n')))!
      expect(binlogPath(directory, EPOCH, first.sequence)).to.equal(join(directory, name))
    }
    const sequences = (await linesOnDisk()).map(line => decodeRecord(line)!.sequence)
    expect(sequences).to.deep.equal(Array.from({ length: 60 }, (_, i) => i + 1))
    expect(disk.count({ action: 'syncDirectory' })).to.equal(names.length)
    const second = new RegExp(names[1]!)
    const entry = disk.find('end', { action: 'syncDirectory' }, disk.find('end', { action: 'open', path: second }))
    expect(entry).to.be.lessThan(disk.find('begin', { action: 'write', path: second }))
  })

  it('writes a flush that is larger than a file whole, into a file of its own', async () => {
    binlog = open(100)
    await append('C', 'x'.repeat(120))
    await append('C', 'y'.repeat(120))
    expect(await readdir(directory)).to.have.length(2)
    expect(await linesOnDisk()).to.have.length(2)
  })

  for (const action of ['write', 'sync'] as const) {
    it(`refuses a flush that the disk has no room for when it comes to the ${action}, takes it back, and goes on`, async () => {
      await append('C', 'before')
      disk.fail({ action, path: /binlog/ }, 'ENOSPC', { keptBytes: action === 'write' ? 20 : 0 })
      const refused = [append('C', 'a'), append('C', 'b')]
      for (const append of refused) expect(await rejection(append)).to.include({ code: 'no_space' })
      expect(binlog.failure).to.equal(undefined)
      await append('C', 'after')
      expect((await recordsOnDisk()).map(record => [record?.sequence, record?.name])).to.deep.equal([
        [1, 'before'],
        [2, 'after'],
      ])
      expect(done).to.deep.equal(['C before', 'C after'])
    })
  }

  it('does not count on the entry of a new file whose sync failed for want of room', async () => {
    disk.fail({ action: 'syncDirectory' }, 'ENOSPC')
    expect(await rejection(append('C', 'a'))).to.include({ code: 'no_space' })
    await append('C', 'b')
    const synced = disk.find('end', { action: 'syncDirectory' })
    expect(synced).to.be.within(0, disk.find('begin', { action: 'write' }))
    expect((await linesOnDisk()).map(line => decodeRecord(line)?.sequence)).to.deep.equal([1])
  })

  it('begins its next file when there is room again for one', async () => {
    binlog = open(100)
    await append('C', 'x'.repeat(90))
    disk.fail({ action: 'open', mode: 'create' }, 'ENOSPC')
    expect(await rejection(append('C', 'y'.repeat(90)))).to.include({ code: 'no_space' })
    await append('C', 'z'.repeat(90))
    expect((await recordsOnDisk()).map(record => [record?.sequence, record?.name[0]])).to.deep.equal([
      [1, 'x'],
      [2, 'z'],
    ])
  })

  it('closes after everything that was appended, and takes nothing afterwards', async () => {
    const appended = append('C', 'a', turn as () => Promise<void>)
    await binlog.close()
    expect(done).to.deep.equal(['C a'])
    await appended
    expect(await rejection(append('C', 'b'))).to.include({ code: 'unavailable' })
  })
})
