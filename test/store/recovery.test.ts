import { mkdir, readdir, readFile, rename, rm, stat, unlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect } from 'chai'
import { type BinlogRecord, decodeRecord, encodeRecord } from '../../protocol/binlog-record.ts'
import { decodeFileName } from '../../protocol/file-id.ts'
import { realWorld } from '../../runtime/real-world.ts'
import { binlogPath } from '../../store/binlog-files.ts'
import { BLOCK_BYTES } from '../../store/block-pool.ts'
import { writeCheckpoint } from '../../store/checkpoint.ts'
import { type Recovery, recover } from '../../store/recovery.ts'
import { sidecarPath } from '../../store/sidecar.ts'
import { StorePath } from '../../store/store-path.ts'
import { until } from '../until.ts'
import type { CallPattern, FaultyDisk } from './faulty-disk.ts'
import {
  contentOf,
  download,
  fill,
  type OpenStore,
  pathOptions,
  START_SEQUENCES,
  upload,
  Workshop,
} from './store-fixture.ts'

const EPOCH = 1
const INCARNATION = '0'.repeat(32)
const LARGE = 2 * BLOCK_BYTES + 5

describe('recovery', () => {
  let workshop: Workshop

  beforeEach(async () => {
    workshop = await Workshop.make()
  })
  afterEach(() => workshop.remove())

  const binlogOf = (name: string) => binlogPath(join(workshop.path, name, 'binlog'), EPOCH, 1)
  const temporariesOf = (name: string) => readdir(join(workshop.path, name, 'store', 'tmp'))
  const filesOf = async (name: string) => {
    const data = join(workshop.path, name, 'store', 'data')
    const entries = await readdir(data, { recursive: true, withFileTypes: true })
    return entries.filter(entry => entry.isFile()).map(entry => entry.name)
  }
  /** Starts something, crashes when a disk call is about to happen, and opens what is left. */
  async function crashAt(opened: OpenStore, pattern: CallPattern, work: () => Promise<unknown>): Promise<OpenStore> {
    const held = opened.disk.hold(pattern)
    const done = work()
    await held.reached
    const copy = await workshop.crash()
    held.release()
    await done
    return workshop.open(copy)
  }

  describe('of an upload', () => {
    for (const sizeBytes of [100, LARGE]) {
      const content = contentOf(sizeBytes)

      it(`of ${sizeBytes} bytes renames the file if its record is durable`, async () => {
        const opened = await workshop.open()
        let name = ''
        const again = await crashAt(opened, { action: 'rename', path: /tmp\/\w+$/ }, async () => {
          name = await upload(opened.store, content)
        })
        expect((await download(again.store, name))?.equals(content)).to.equal(true)
        expect(again.store.recovery).to.include({ redone: 1, tornBytes: 0, damagedLines: 0, removedTemporaries: 0 })
        expect(again.store.recovery.missing).to.deep.equal([])
      })

      it(`of ${sizeBytes} bytes forgets the file if there is no record`, async () => {
        const opened = await workshop.open()
        const again = await crashAt(opened, { action: 'write', path: /binlog/ }, () => upload(opened.store, content))
        expect(again.store.end.sequence).to.equal(START_SEQUENCES)
        expect(again.store.recovery.removedTemporaries).to.equal(sizeBytes === LARGE ? 2 : 1)
        expect(await filesOf('copy0')).to.deep.equal([])
        expect(await temporariesOf('copy0')).to.deep.equal([])
      })
    }

    it('places a sidecar that is still on its way in although its file is in place already', async () => {
      const opened = await workshop.open()
      const content = contentOf(LARGE)
      const name = await upload(opened.store, content)
      const root = join(workshop.path, await workshop.crash(), 'store')
      await rename(sidecarPath(join(root, 'data', name.slice(4))), sidecarPath(join(root, 'tmp', '1n0')))
      const again = await workshop.open('copy0')
      expect((await download(again.store, name))?.equals(content)).to.equal(true)
      expect(again.store.recovery).to.include({ redone: 1, removedTemporaries: 0 })
      expect(again.store.recovery.missing).to.deep.equal([])
    })

    it('sweeps what was on its way in', async () => {
      const opened = await workshop.open()
      const file = await fill(await opened.store.receive(0xff, 10), contentOf(10))
      const again = await workshop.open(await workshop.crash())
      expect(again.store.recovery.removedTemporaries).to.equal(1)
      expect(await temporariesOf('copy0')).to.deep.equal([])
      await file.discard()
    })
  })

  describe('of a deletion', () => {
    for (const sizeBytes of [100, LARGE]) {
      for (const what of sizeBytes === LARGE ? [/data\/.*txt$/, /data\/.*~sum$/] : [/data\/.*txt$/]) {
        it(`of ${sizeBytes} bytes removes the file if its record is durable, before ${what}`, async () => {
          const opened = await workshop.open()
          const name = await upload(opened.store, contentOf(sizeBytes))
          const again = await crashAt(opened, { action: 'remove', path: what }, () => opened.store.delete(name))
          expect(await again.store.open(name)).to.equal(undefined)
          expect(await filesOf('copy0')).to.deep.equal([])
          expect(again.store.recovery.missing).to.deep.equal([])
          expect(again.store.recovery.redone).to.equal(2)
        })
      }
    }
  })

  it('does everything again that a checkpoint does not cover, as often as it is interrupted', async () => {
    const opened = await workshop.open()
    const contents = [1, 2, 3, 4].map(seed => contentOf(50, seed))
    const names: string[] = []
    for (const content of contents) names.push(await upload(opened.store, content))
    await opened.store.delete(names[1]!)
    for (let i = 0; i < 3; i++) {
      const again = await workshop.open(await workshop.crash())
      expect(again.store.recovery).to.include({ redone: 5, damagedLines: 0 })
      expect(again.store.recovery.missing).to.deep.equal([])
      for (const [i, name] of names.entries()) {
        expect(await download(again.store, name)).to.deep.equal(i === 1 ? undefined : contents[i])
      }
      await again.close()
    }
  })

  it('tells which files are missing, without those deleted later', async () => {
    const opened = await workshop.open()
    const names = [await upload(opened.store, contentOf(5, 1)), await upload(opened.store, contentOf(5, 2))]
    await opened.store.delete(names[0]!)
    const copy = await workshop.crash()
    await unlink(join(workshop.path, copy, 'store', 'data', names[1]!.slice(4)))
    expect((await workshop.open(copy)).store.recovery.missing).to.deep.equal([names[1]])
  })

  it('makes what it reads durable before it does anything about it', async () => {
    const opened = await workshop.open()
    const gone = await upload(opened.store, contentOf(5, 1))
    const held = opened.disk.hold({ action: 'remove', path: /data/ })
    const deleted = opened.store.delete(gone)
    await held.reached
    const { disk } = await workshop.open(await workshop.crash())
    held.release()
    await deleted
    const removed = disk.find('begin', { action: 'remove', path: /data/ })
    expect(disk.find('end', { action: 'sync', path: /binlog/ })).to.be.within(0, removed)
    expect(disk.find('end', { action: 'syncDirectory', path: /binlog/ })).to.be.within(0, removed)
  })

  it('writes again what it reads, whole and unchanged, before it syncs it and does anything about it', async () => {
    const opened = await workshop.open()
    const gone = await upload(opened.store, contentOf(5, 1))
    const held = opened.disk.hold({ action: 'remove', path: /data/ })
    const deleted = opened.store.delete(gone)
    await held.reached
    const copy = await workshop.crash()
    const text = await readFile(binlogOf(copy), 'latin1')
    const { disk } = await workshop.open(copy)
    held.release()
    await deleted
    const written = disk.find('end', { action: 'write', path: /binlog/ })
    const synced = disk.find('end', { action: 'sync', path: /binlog/ }, written)
    const effect = disk.find('begin', { path: /store\/data\/\w/ })
    expect(written).to.be.within(0, synced)
    expect(synced).to.be.within(0, effect)
    expect(disk.trace[written]!.bytes).to.equal(text.length)
    expect((await readFile(binlogOf(copy), 'latin1')).startsWith(text)).to.equal(true)
  })

  describe('from a checkpoint', () => {
    it('that is damaged does everything again, and writes a sound one', async () => {
      const opened = await workshop.open()
      const name = await upload(opened.store, contentOf(5))
      await opened.close()
      await writeFile(join(workshop.path, 'data', 'checkpoint'), 'not a checkpoint')
      const again = await workshop.open()
      expect(again.store.recovery).to.include({ checkpointDamaged: true, redone: 1 })
      expect(await download(again.store, name)).to.deep.equal(contentOf(5))
      await again.close()
      expect((await workshop.open()).store.recovery).to.include({ checkpointDamaged: false, redone: 0 })
    })

    it('reads nothing again after an orderly end', async () => {
      const opened = await workshop.open()
      const name = await upload(opened.store, contentOf(5))
      await opened.close()
      const again = await workshop.open()
      expect(again.store.recovery.redone).to.equal(0)
      expect(again.store.end.sequence).to.equal(1 + START_SEQUENCES)
      expect(await download(again.store, name)).to.deep.equal(contentOf(5))
    })

    it('reads only what came after it', async () => {
      const opened = await workshop.open()
      for (let i = 0; i < 5; i++) await upload(opened.store, contentOf(5, i))
      opened.clock.advance(10_000)
      await until('a checkpoint', () => opened.disk.count({ action: 'syncDirectory', path: /data$/ }) >= 2)
      await until('its end', () => opened.disk.trace.at(-1)?.phase === 'end')
      await upload(opened.store, contentOf(5, 9))
      const again = await workshop.open(await workshop.crash())
      expect(again.store.recovery).to.include({ redone: 1 })
      expect(again.store.end.sequence).to.equal(6 + START_SEQUENCES)
    })

    it('that is written at a start does not count files as safe that a killed process had only renamed', async () => {
      const opened = await workshop.open()
      await upload(opened.store, contentOf(5))
      const { disk } = await workshop.open(await workshop.crash())
      const synced = (path: RegExp) => disk.find('end', { action: 'syncDirectory', path })
      const checkpoint = disk.find('begin', { action: 'rename', path: /checkpoint$/ })
      for (const path of [/data$/, /data\/00$/, /data\/00\/00$/]) expect(synced(path)).to.be.within(0, checkpoint)
    })

    it('that is written at a start does not count files as gone that a killed process had only removed', async () => {
      const opened = await workshop.open()
      const name = await upload(opened.store, contentOf(5))
      await opened.close()
      const { store } = await workshop.open()
      await store.delete(name)
      const { disk } = await workshop.open(await workshop.crash())
      const synced = disk.find('end', { action: 'syncDirectory', path: /data\/00\/00$/ })
      expect(synced).to.be.within(0, disk.find('begin', { action: 'rename', path: /checkpoint$/ }))
    })

    it('that is written while a file is being renamed does not count that file as safe', async () => {
      const opened = await workshop.open()
      const { disk } = opened
      // Its directory is known already, so only the rename itself changes anything.
      await upload(opened.store, contentOf(5, 1))
      const held = disk.hold({ action: 'rename', path: /tmp\/\w+$/ })
      const second = upload(opened.store, contentOf(5, 2))
      await held.reached
      const before = await checkpointPast(opened)
      held.release()
      await second
      await opened.close()
      expect(checkpointsOn(disk)).to.equal(before + 2)
      const renamed = disk.find('end', { action: 'rename', path: /tmp\/1n1$/ })
      const synced = disk.find('end', { action: 'syncDirectory', path: /data\/00\/00$/ }, renamed)
      const last = disk.find('begin', { action: 'rename', path: /checkpoint$/ }, renamed)
      expect(synced, 'the directory is synced between the rename and the checkpoint').to.be.within(renamed, last)
    })

    it('that is written while a file is being removed does not count that as safe', async () => {
      const opened = await workshop.open()
      const { disk } = opened
      const name = await upload(opened.store, contentOf(5, 1))
      const held = disk.hold({ action: 'remove', path: /data/ })
      const deleted = opened.store.delete(name)
      await held.reached
      await checkpointPast(opened)
      held.release()
      await deleted
      await opened.close()
      const removed = disk.find('end', { action: 'remove', path: /data/ })
      const synced = disk.find('end', { action: 'syncDirectory', path: /data\/00\/00$/ }, removed)
      expect(synced).to.be.within(removed, disk.find('begin', { action: 'rename', path: /checkpoint$/ }, removed))
    })

    it('is written by itself after many records', async () => {
      const { store, disk } = await workshop.open()
      const name = 'M00/00/00/CQAAAGVT8QCAAAABAAAABQAAAAA1234.txt'
      const origin = { storageId: 9, epoch: 1, sequence: 0 }
      const record: BinlogRecord = {
        ...{ epoch: 1, batch: 1, timeMs: 1, op: 'D', name, token: undefined, origin: undefined, uploadId: undefined },
        sequence: 1,
      }
      const applied: Promise<void>[] = []
      for (let sequence = 1; sequence <= 2100; sequence++) {
        const at = { ...origin, sequence }
        applied.push(
          store.apply([
            {
              shipped: {
                origin: at,
                previous: sequence - 1,
                record: { ...record, sequence },
                file: decodeFileName(name),
              },
              content: undefined,
            },
          ]),
        )
      }
      await Promise.all(applied)
      await until('a checkpoint', () => disk.count({ action: 'rename', path: /checkpoint$/ }) === 2)
      const again = await workshop.open(await workshop.crash())
      expect(again.store.recovery.redone).to.be.lessThan(200)
      expect(again.store.position(9)?.sequence).to.equal(2100)
    })
  })

  describe('of a binlog', () => {
    const { disk } = realWorld()
    let paths: ReadonlyMap<number, StorePath>
    let directory: string

    beforeEach(async () => {
      directory = join(workshop.path, 'by-hand')
      await mkdir(join(directory, 'binlog'), { recursive: true })
      paths = new Map([[0, await StorePath.open(disk, 0, join(directory, 'store'), pathOptions(INCARNATION))]])
    })

    const lineOf = (sequence: number, batch = sequence): string =>
      encodeRecord({
        ...{ epoch: EPOCH, sequence, batch, timeMs: 1_700_000_000_000 + sequence, op: 'C' },
        name: `M00/00/00/BwAAAGVT8QCAAAABAAAABQAAAAA123${sequence % 10}.txt`,
        ...{ token: undefined, origin: undefined, uploadId: undefined },
      })
    const flip = (line: string) => line.replace('C M00', 'C M01')
    const path = () => binlogPath(join(directory, 'binlog'), EPOCH, 1)
    /** Recovers from a binlog with this text; also says what is left of it. */
    async function recoverFrom(text: string, checkpoint = 0): Promise<Recovery & { left: string }> {
      await writeFile(path(), text, 'latin1')
      await writeCheckpoint(disk, directory, {
        epoch: EPOCH,
        sequence: checkpoint,
        ownEnd: 0,
        timeMs: 5,
        positions: [],
        slots: [],
        reopened: [],
      })
      const recovered = await recover(disk, directory, { epoch: EPOCH, storageId: 7, writer: 1 }, paths)
      await recovered.file?.close()
      return { ...recovered, left: await readFile(path(), 'latin1') }
    }

    for (const checkpoint of [0, 1, 2]) {
      it(`cuts a last record that is torn at any byte, with a checkpoint at ${checkpoint}`, async () => {
        const kept = lineOf(1) + lineOf(2)
        const last = lineOf(3)
        for (let bytes = 0; bytes < last.length; bytes++) {
          const found = await recoverFrom(kept + last.slice(0, bytes), checkpoint)
          expect(found.left === kept, `${bytes} bytes`).to.equal(true)
          expect(found, `${bytes} bytes`).to.deep.include({ tornBytes: bytes, damagedLines: 0, fileBytes: kept.length })
          expect(found.end, `${bytes} bytes`).to.include({ sequence: 2 })
          expect(found.redone, `${bytes} bytes`).to.equal(2 - checkpoint)
        }
        const whole = await recoverFrom(kept + last, checkpoint)
        expect(whole).to.deep.include({ tornBytes: 0, damagedLines: 0, left: kept + last })
        expect(whole.end.sequence).to.equal(3)
      })

      it(`cuts a last record that is garbled at any byte, with a checkpoint at ${checkpoint}`, async () => {
        const kept = lineOf(1) + lineOf(2)
        const last = lineOf(3)
        for (let at = 0; at < last.length; at++) {
          const garbled = last.slice(0, at) + String.fromCharCode(last.charCodeAt(at) ^ 0x15) + last.slice(at + 1)
          for (const text of [garbled, last.slice(0, at) + '\0'.repeat(last.length - at + 4096)]) {
            const found = await recoverFrom(kept + text, checkpoint)
            expect(found.left === kept, `byte ${at}`).to.equal(true)
            expect(found, `byte ${at}`).to.deep.include({ tornBytes: text.length, damagedLines: 0 })
          }
        }
      })
    }

    it('cuts the last flush at its first bad record: the rest of it was never acknowledged', async () => {
      const batch = [lineOf(2, 2), lineOf(3, 2), lineOf(4, 2), lineOf(5, 2)]
      for (const [i, good] of batch.entries()) {
        const garbled = batch.map((line, j) => (i === j ? flip(line) : line)).join('')
        const found = await recoverFrom(lineOf(1) + garbled)
        expect(found.left, good).to.equal(lineOf(1) + batch.slice(0, i).join(''))
        expect(found.end.sequence).to.equal(1 + i)
        expect(found.damagedLines).to.equal(0)
      }
    })

    it('counts damage among acknowledged records, and keeps those behind it', async () => {
      const lines = [1, 2, 3, 4, 5].map(sequence => lineOf(sequence))
      for (const checkpoint of [0, 1, 2, 3, 4]) {
        for (const bad of [0, 1, 2, 3]) {
          const text = lines.map((line, i) => (i === bad ? flip(line) : line)).join('')
          const found = await recoverFrom(text, checkpoint)
          const what = `line ${bad + 1} with a checkpoint at ${checkpoint}`
          expect(found.left === text, what).to.equal(true)
          expect(found.tornBytes, what).to.equal(0)
          expect(found.end.sequence, what).to.equal(5)
          if (checkpoint <= bad) expect(found, what).to.include({ damagedLines: 1, redone: 4 - checkpoint })
          else expect(found.redone, what).to.equal(5 - checkpoint)
        }
      }
    })

    it('counts damage and cuts a torn end in the same file', async () => {
      const text = lineOf(1) + flip(lineOf(2)) + lineOf(3) + lineOf(4).slice(0, 30)
      const found = await recoverFrom(text)
      expect(found).to.include({ damagedLines: 1, tornBytes: 30, redone: 2 })
      expect(found.end.sequence).to.equal(3)
    })

    it('counts a bad last record as damage if a checkpoint covers it, and never gives its sequence away again', async () => {
      const found = await recoverFrom(lineOf(1) + flip(lineOf(2)), 2)
      expect(found).to.include({ damagedLines: 1, redone: 0, left: lineOf(1) })
      expect(found.end.sequence).to.equal(2)
    })

    it('leaves a binlog as it is that takes several writes to be written again', async () => {
      const text = Array.from({ length: 6000 }, (_, i) => lineOf(i + 1)).join('')
      const found = await recoverFrom(text)
      expect(text.length).to.be.greaterThan(2 * 256 * 1024)
      expect(found.left === text).to.equal(true)
      expect(found).to.include({ redone: 6000, tornBytes: 0, damagedLines: 0 })
    })

    it('goes over several files, and cuts only the last one', async () => {
      const second = binlogPath(join(directory, 'binlog'), EPOCH, 4)
      await writeFile(second, lineOf(4) + lineOf(5) + lineOf(6).slice(0, 50))
      const text = lineOf(1) + lineOf(2) + flip(lineOf(3))
      const found = await recoverFrom(text)
      expect(found).to.include({ damagedLines: 1, tornBytes: 50, redone: 4, left: text })
      expect((await stat(second)).size).to.equal(found.fileBytes)
      expect(found.end.sequence).to.equal(5)
      const later = await recoverFrom(text, 4)
      expect(later).to.include({ damagedLines: 0, tornBytes: 0, redone: 1 })
    })

    it('begins a file whose first record is torn anew', async () => {
      const second = binlogPath(join(directory, 'binlog'), EPOCH, 3)
      await writeFile(second, lineOf(3).slice(0, 20))
      const found = await recoverFrom(lineOf(1) + lineOf(2))
      expect(found).to.include({ tornBytes: 20, fileBytes: 0 })
      expect(found.end.sequence).to.equal(2)
    })

    it('does not touch the files of another epoch', async () => {
      const other = binlogPath(join(directory, 'binlog'), EPOCH + 1, 1)
      await writeFile(other, 'torn')
      const found = await recoverFrom(lineOf(1))
      expect(found.end.sequence).to.equal(1)
      expect(await readFile(other, 'utf8')).to.equal('torn')
    })

    it('has the last time of its own records, not that of a peer', async () => {
      const origin = { storageId: 9, epoch: 1, sequence: 4 }
      const replica = { ...decodeRecord(lineOf(2).slice(0, -1))!, op: 'c' as const, origin, timeMs: 9e12 }
      const found = await recoverFrom(lineOf(1) + encodeRecord(replica))
      expect(found.end).to.deep.equal({ sequence: 2, timeMs: 1_700_000_000_001 })
      expect(found.positions.get(9)).to.deep.equal({ ...origin, timeMs: 9e12 })
    })
  })

  it('goes on after a torn end: what is appended then is whole, and what was kept stays', async () => {
    const opened = await workshop.open()
    const first = await upload(opened.store, contentOf(5, 1))
    await opened.close()
    const crashed = await workshop.open()
    const lost = await upload(crashed.store, contentOf(5, 2))
    const text = await readFile(binlogOf('data'), 'latin1')
    const start = text.lastIndexOf('\n', text.length - 2) + 1
    for (const at of [start, start + 1, start + 60, text.length - 1]) {
      const copy = await workshop.crash()
      await writeFile(binlogOf(copy), text.slice(0, at), 'latin1')
      const torn = await workshop.open(copy)
      expect(torn.store.recovery.tornBytes).to.equal(at - start)
      const second = await upload(torn.store, contentOf(5, 3))
      const after = await workshop.open(await workshop.crash(copy))
      expect(after.store.recovery).to.include({ damagedLines: 0, tornBytes: 0 })
      expect(await download(after.store, first)).to.deep.equal(contentOf(5, 1))
      expect(await download(after.store, second)).to.deep.equal(contentOf(5, 3))
      expect(torn.store.recovery.orphans).to.deep.equal([lost])
      expect(await download(after.store, lost)).to.deep.equal(contentOf(5, 2))
      const records: BinlogRecord[] = []
      const all = { after: 0, until: after.store.end.sequence }
      for await (const { record } of after.store.readRecords(all)) records.push(record)
      expect(records.filter(record => record.op === 'C').map(record => record.name)).to.deep.equal([
        first,
        lost,
        second,
      ])
      expect(after.store.recovery.orphans).to.deep.equal([])
      await torn.close()
      await after.close()
    }
  })

  it('leaves the files of a missing store path alone, keeps its records, and serves the others', async () => {
    const storePaths = ['a', 'b'].map(name => join(workshop.path, name))
    const opened = await workshop.open('data', { storePaths })
    const names = [await upload(opened.store, contentOf(5, 1)), await upload(opened.store, contentOf(5, 2))]
    await opened.close()
    await rm(storePaths[1]!, { recursive: true })
    await mkdir(storePaths[1]!)
    const again = await workshop.open('data', { storePaths })
    expect(await readdir(storePaths[1]!), 'nothing is made on an empty mount point').to.deep.equal([])
    expect(await download(again.store, names[0]!)).to.deep.equal(contentOf(5, 1))
    const error = await download(again.store, names[1]!).catch(error => error)
    expect(error).to.include({ errno: 'ENODEV' })
    expect(again.store.storePaths.map(path => path.writable)).to.deep.equal([true, false])
    expect((await upload(again.store, contentOf(5, 3))).slice(0, 3)).to.equal('M00')
    expect(again.disk.count({ action: 'rename', path: /checkpoint$/ })).to.equal(0)
  })
})

/** Waits for a checkpoint that something else is in the way of; how many there were before. */
async function checkpointPast({ disk, clock }: OpenStore): Promise<number> {
  const before = checkpointsOn(disk)
  clock.advance(10_000)
  await until('a checkpoint of the first', () => checkpointsOn(disk) > before)
  return before
}

function checkpointsOn(disk: FaultyDisk): number {
  return disk.count({ action: 'rename', path: /checkpoint$/ })
}
