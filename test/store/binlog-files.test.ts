import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect } from 'chai'
import { type BinlogRecord, encodeRecord } from '../../protocol/binlog-record.ts'
import { realWorld } from '../../runtime/real-world.ts'
import {
  type BinlogLine,
  binlogPath,
  fileOf,
  findSequence,
  listBinlogFiles,
  readLines,
} from '../../store/binlog-files.ts'
import { readRecords } from '../../store/binlog-reader.ts'
import { FaultyDisk } from './faulty-disk.ts'
import { Workshop } from './store-fixture.ts'

const EPOCH = 3

function lineOf(sequence: number): string {
  const record: BinlogRecord = {
    epoch: EPOCH,
    sequence,
    batch: sequence,
    timeMs: 1_700_000_000_000 + sequence,
    op: 'C',
    name: `M00/00/00/${'x'.repeat(20 + (sequence % 30))}`,
    token: `1n${sequence}`,
    origin: undefined,
    uploadId: undefined,
  }
  return encodeRecord(record)
}
const linesOf = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => lineOf(from + i))

describe('binlog files', () => {
  let workshop: Workshop
  let disk: FaultyDisk

  beforeEach(async () => {
    workshop = await Workshop.make()
    disk = new FaultyDisk(realWorld().disk)
  })
  afterEach(() => workshop.remove())

  const put = (firstSequence: number, text: string | Buffer, epoch = EPOCH) =>
    writeFile(binlogPath(workshop.path, epoch, firstSequence), text)
  async function withFile<T>(text: string | Buffer, work: (file: Awaited<ReturnType<typeof disk.open>>) => Promise<T>) {
    const path = join(workshop.path, 'one')
    await writeFile(path, text)
    const file = await disk.open(path, 'read')
    try {
      return await work(file)
    } finally {
      await file.close()
    }
  }
  async function read(range: { after: number; until: number }, damaged: string[] = []) {
    const sequences: number[] = []
    const onDamage = (path: string, offsetBytes: number) =>
      void damaged.push(`${path.split('/').at(-1)}@${offsetBytes}`)
    for await (const { record, line } of readRecords(disk, workshop.path, EPOCH, range, onDamage)) {
      expect(`${line}\n`).to.equal(lineOf(record.sequence))
      sequences.push(record.sequence)
    }
    return sequences
  }
  const countUp = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => from + i)

  it('are listed by epoch in the order of their sequences, and nothing else is', async () => {
    await put(1000, '')
    await put(1, '')
    await put(20, '')
    await put(1, '', EPOCH + 1)
    for (const name of ['3.1', '3.0000000000000001.new', 'x.0000000000000001', '0000000000000001']) {
      await writeFile(join(workshop.path, name), '')
    }
    const files = await listBinlogFiles(disk, workshop.path, EPOCH)
    expect(files.map(file => file.firstSequence)).to.deep.equal([1, 20, 1000])
    expect([1, 19, 20, 999, 5000].map(sequence => fileOf(files, sequence)?.firstSequence)).to.deep.equal([
      1, 1, 20, 20, 1000,
    ])
    expect(fileOf(files.slice(1), 3)).to.equal(undefined)
  })

  it('are read line by line, over the ends of reads, from any line on', async () => {
    const lines = linesOf(1, 2000)
    await withFile(lines.join(''), async file => {
      const read: BinlogLine[] = []
      for await (const line of readLines(file, 0)) read.push(line)
      expect(read.map(line => `${line.text}\n`)).to.deep.equal(lines)
      expect(read.every(line => line.record !== undefined)).to.equal(true)
      const from = read[777]!.offsetBytes
      const rest: number[] = []
      for await (const line of readLines(file, from)) rest.push(line.record!.sequence)
      expect(rest).to.deep.equal(countUp(778, 2000))
    })
  })

  it('give out a torn end as a line without a record, however long it is', async () => {
    const start = linesOf(1, 3).join('')
    for (const tail of ['x', lineOf(4).slice(0, -1), 'x'.repeat(511), 'x'.repeat(200_000), '\0'.repeat(4096)]) {
      await withFile(start + tail, async file => {
        const sequences: number[] = []
        let damagedBytes = 0
        let firstDamage = -1
        for await (const line of readLines(file, 0)) {
          if (line.record !== undefined) sequences.push(line.record.sequence)
          // A last line without its line feed is torn, even if all the rest of it is there: see `offsetBytes`.
          else if (firstDamage < 0) firstDamage = line.offsetBytes
          if (line.record === undefined) damagedBytes += line.text.length
        }
        expect(sequences).to.deep.equal([1, 2, 3])
        expect([firstDamage, damagedBytes]).to.deep.equal([start.length, tail.length])
      })
    }
  })

  it('give out damage between records, and the records behind it', async () => {
    for (const damage of ['\n', '\n\n\n', 'garbage\n', `${'y'.repeat(150_000)}\n`, `${lineOf(2).slice(0, 40)}\n`]) {
      await withFile(lineOf(1) + damage + linesOf(3, 900).join(''), async file => {
        const sequences: number[] = []
        for await (const line of readLines(file, 0)) if (line.record !== undefined) sequences.push(line.record.sequence)
        expect(sequences, JSON.stringify(damage.slice(0, 20))).to.deep.equal([1, ...countUp(3, 900)])
      })
    }
  })

  it('are searched by halving: any sequence of a large file is found with few reads', async () => {
    const lines = linesOf(1, 20_000)
    await withFile(lines.join(''), async file => {
      for (const wanted of [1, 2, 3, 500, 9_999, 10_000, 19_999, 20_000, 20_001, 99_999]) {
        disk.trace.length = 0
        const from = await findSequence(file, wanted)
        expect(disk.count({ action: 'read' }), `reads for ${wanted}`).to.be.lessThan(12)
        const sequences: number[] = []
        for await (const line of readLines(file, from, from + 500)) {
          if (line.record !== undefined) sequences.push(line.record.sequence)
        }
        // It begins at the record before, so that damage in between is not overlooked.
        expect(sequences[0], String(wanted)).to.equal(Math.min(Math.max(1, wanted - 1), 20_000))
      }
    })
  })

  it('are searched past holes in the sequence and past damage', async () => {
    const damage = 'z'.repeat(100_000)
    const text = [...linesOf(1, 1000), damage, '\n', ...linesOf(3000, 4000), damage].join('')
    await withFile(text, async file => {
      for (const wanted of [900, 1001, 2500, 3000, 3500, 4000]) {
        const from = await findSequence(file, wanted)
        const found: number[] = []
        for await (const line of readLines(file, from)) if (line.record !== undefined) found.push(line.record.sequence)
        const later = found.find(sequence => sequence >= wanted)
        expect(later, String(wanted)).to.equal(wanted > 1000 && wanted < 3000 ? 3000 : wanted)
        expect(found.filter(sequence => sequence < wanted).length, String(wanted)).to.be.at.most(1)
      }
    })
  })

  it('with damage right in front of a sequence are read from before that damage', async () => {
    const start = linesOf(1, 5).join('')
    for (const rest of ['torn', 'garbage\n', `garbage\n${linesOf(7, 9).join('')}`]) {
      await withFile(start + rest, async file => {
        expect(await findSequence(file, 6), rest).to.be.at.most(start.length)
      })
    }
  })

  describe('reader', () => {
    beforeEach(async () => {
      await put(1, linesOf(1, 99).join(''))
      await put(100, linesOf(100, 899).join(''))
      await put(900, linesOf(900, 1000).join(''))
      await put(1, linesOf(1, 50).join(''), EPOCH + 1)
    })

    it('reads any range, over the ends of files, and nothing else', async () => {
      for (const [after, until] of [
        [0, 1000],
        [0, 1],
        [50, 150],
        [98, 99],
        [99, 100],
        [99, 99],
        [899, 900],
        [100, 899],
        [999, 1000],
        [1000, 1000],
        [1000, 5000],
      ] as const) {
        const until_ = Math.min(until, 1000)
        const expected = after >= until_ ? [] : countUp(after + 1, until_)
        expect(await read({ after, until }), `${after}..${until}`).to.deep.equal(expected)
      }
    })

    it('leaves damaged lines out, tells where they are, and goes on', async () => {
      const lines = linesOf(100, 899)
      const at = lines.slice(0, 300).join('').length
      lines[300] = lines[300]!.replace('C', 'D')
      await put(100, lines.join(''))
      const damaged: string[] = []
      const sequences = await read({ after: 350, until: 950 }, damaged)
      expect(sequences).to.deep.equal(countUp(351, 950).filter(sequence => sequence !== 400))
      expect(damaged).to.deep.equal([`3.0000000000000100@${at}`])
    })

    it('reads on from a file whose first records are gone', async () => {
      await disk.remove(binlogPath(workshop.path, EPOCH, 1))
      expect((await read({ after: 0, until: 1000 }))[0]).to.equal(100)
    })

    it('finds nothing where there are no files, and closes what it opened when it is left early', async () => {
      let count = 0
      for await (const _ of readRecords(disk, workshop.path, 77, { after: 0, until: 10 }, () => {})) count++
      expect(count).to.equal(0)
      for await (const { record } of readRecords(disk, workshop.path, EPOCH, { after: 0, until: 1000 }, () => {})) {
        if (record.sequence === 5) break
      }
      expect(disk.closed).to.equal(disk.count({ action: 'open' }))
    })

    it('goes on where it stopped without searching', async () => {
      const cursor = {}
      const sequences: number[] = []
      for (let after = 0; after < 1000; after += 10) {
        disk.trace.length = 0
        const range = { after, until: after + 10 }
        for await (const { record } of readRecords(disk, workshop.path, EPOCH, range, () => {}, cursor)) {
          sequences.push(record.sequence)
        }
        expect(disk.count({ action: 'read' })).to.be.at.most(4)
      }
      expect(sequences).to.deep.equal(countUp(1, 1000))
    })
  })
})
