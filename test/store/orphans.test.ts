import { mkdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { expect } from 'chai'
import type { BinlogOp, BinlogRecord } from '../../protocol/binlog-record.ts'
import { decodeFileName, encodeFileName, SIZE_WITHOUT_SALT_MIN, tailOf } from '../../protocol/file-id.ts'
import { realWorld } from '../../runtime/real-world.ts'
import { BATCH_RECORDS_MAX } from '../../store/binlog.ts'
import { OrphanSearch } from '../../store/orphans.ts'
import { directoryIndexOf } from '../../store/placing.ts'
import { sidecarPath } from '../../store/sidecar.ts'
import { StorePath } from '../../store/store-path.ts'
import { pathOptions, STORAGE_ID, sumOf, Workshop } from './store-fixture.ts'

const PEER = 9
const LARGE = SIZE_WITHOUT_SALT_MIN

describe('a search for files that have no record', () => {
  let workshop: Workshop
  let paths: Map<number, StorePath>

  beforeEach(async () => {
    workshop = await Workshop.make()
    paths = new Map()
    for (const index of [0, 1]) {
      const root = join(workshop.path, `path${index}`)
      paths.set(index, await StorePath.open(realWorld().disk, index, root, pathOptions('0'.repeat(32))))
    }
  })
  afterEach(() => workshop.remove())

  /** The name that a file gets with a sequence. */
  function nameOf(
    sequence: number,
    { storageId = STORAGE_ID, sizeBytes = 5, storePathIndex = 0, createTimeS = 1_700_000_000 } = {},
  ): string {
    return encodeFileName({
      ...{ storePathIndex, directoryIndex: directoryIndexOf(sequence, sizeBytes), storageId, sizeBytes },
      ...{ createTimeS, crc32: sumOf(Buffer.from('content')), salt: sequence },
      ...{ tail: tailOf('txt', 0) },
    })
  }
  /** Puts files in place; what is in them is nobody's business here. */
  async function put(...names: string[]): Promise<void> {
    for (const name of names) {
      const path = join(workshop.path, `path${Number(name.slice(1, 3))}`, 'data', name.slice(4))
      await mkdir(dirname(path), { recursive: true })
      await writeFile(path, '')
    }
  }
  function recordOf(sequence: number, op: BinlogOp = 'C', name = op === 'S' ? '-' : nameOf(sequence)): BinlogRecord {
    const origin = op === 'c' || op === 'd' ? { storageId: PEER, epoch: 1, sequence } : undefined
    const place = { epoch: 1, sequence, batch: sequence, timeMs: 1 }
    return { ...place, op, name, origin, token: undefined, uploadId: undefined }
  }
  /** Searches behind records with these sequences, or these records, read from the beginning of a binlog file. */
  async function find(
    records: readonly (number | BinlogRecord)[],
    endSequence = 0,
    firstSequence?: number,
    sinceMs = 0,
  ) {
    const search = new OrphanSearch(STORAGE_ID, sinceMs)
    if (firstSequence !== undefined) search.noteFile(firstSequence)
    for (const record of records) search.note(typeof record === 'number' ? recordOf(record) : record)
    return (await search.find(paths, endSequence)).sort()
  }
  const namesOf = (...sequences: number[]) => sequences.map(sequence => nameOf(sequence)).sort()

  it('finds those behind the last record, as far as a lost flush can have reached', async () => {
    const last = 3 + BATCH_RECORDS_MAX
    await put(...namesOf(1, 2, 3, 4, 500, last, last + 1))
    expect(await find([1, 2, 3])).to.deep.equal(namesOf(4, 500, last))
  })

  it('finds those behind the end that a checkpoint knows of, and on the way there', async () => {
    const last = 50 + BATCH_RECORDS_MAX
    await put(...namesOf(3, 4, 50, 51, last, last + 1))
    expect(await find([3], 50)).to.deep.equal(namesOf(4, 50, 51, last))
  })

  it('finds those between two records, and none that has its record', async () => {
    await put(...namesOf(41, 42, 43, 44, 45, 46))
    expect(await find([41, 42, 45, recordOf(46, 'D', nameOf(41))])).to.deep.equal(namesOf(43, 44))
  })

  it('finds those between records that are not of creations of its own', async () => {
    await put(...namesOf(2, 3, 4, 6))
    const records = [recordOf(1, 'S'), recordOf(3, 'c', nameOf(77, { storageId: PEER })), recordOf(5, 'D', nameOf(9))]
    expect(await find(records)).to.deep.equal(namesOf(2, 4, 6))
  })

  it('finds those in front of the first record of a file that is read from its beginning, and else none of the past', async () => {
    await put(...namesOf(39, 40, 41, 42))
    expect(await find([42], 0, 40)).to.deep.equal(namesOf(40, 41))
    expect(await find([42])).to.deep.equal([])
  })

  it('finds nothing where there has never been a record', async () => {
    await put(...namesOf(1, 2))
    expect(await find([])).to.deep.equal([])
  })

  it('finds none twice: one that was found before has a record under a later sequence', async () => {
    await put(...namesOf(43, 44))
    expect(await find([42, 45, recordOf(1070, 'C', nameOf(43))])).to.deep.equal(namesOf(44))
    expect(await find([42, 45, recordOf(1070, 'C', nameOf(43)), recordOf(1071, 'C', nameOf(44))])).to.deep.equal([])
  })

  it('passes over files of other sources, sidecars, files of other kinds, in other places, and what people put there', async () => {
    const own = nameOf(43)
    const [appender, segment] = [1n << 58n, 1n << 59n].map(flag => {
      return own.replace(/[\w-]{27}(?=\d{3}\.txt$)/, encoded => {
        const bytes = Buffer.from(encoded, 'base64url')
        bytes.writeBigUInt64BE(bytes.readBigUInt64BE(8) | flag, 8)
        return bytes.toString('base64url')
      })
    }) as [string, string]
    const inSegment = segment.replace(/(\d{3}\.txt)$/, `${'A'.repeat(16)}$1`)
    expect(decodeFileName(appender)).to.include({ kind: 'appender', storageId: STORAGE_ID, salt: 43 })
    expect(decodeFileName(inSegment)).to.include({ kind: 'segment', storageId: STORAGE_ID, salt: 43 })
    const inAnotherDirectory = own.replace('00/00', '00/01')
    await put(
      own,
      appender,
      inSegment,
      inAnotherDirectory,
      nameOf(43, { storageId: PEER }),
      own.replace('.txt', '_small.txt'),
    )
    await put(sidecarPath(own), `${own}.bak`, 'M00/00/00/README', 'M00/00/00/-', 'M00/lost+found/x')
    // An appender file has a sequence in its name, too.
    expect(await find([42, 45])).to.deep.equal([own, appender])
  })

  it('finds those in a gap that is larger than there are directories', async () => {
    const [from, to] = [1_000_000, 1_200_000]
    await put(...namesOf(from, from + 1, from + 65_536, from + 65_537, from + 150_000, to - 1, to))
    expect(await find([from, to])).to.deep.equal(
      namesOf(from + 1, from + 65_536, from + 65_537, from + 150_000, to - 1),
    )
  })

  it('knows a sequence again whose high bits do not fit a name', async () => {
    const first = 2 ** 23 - 2
    await put(...namesOf(first, first + 1, first + 2, first + 3, first + 4))
    expect(await find([first, first + 4])).to.deep.equal(namesOf(first + 1, first + 2, first + 3))
  })

  it('looks in all store paths but for those that failed', async () => {
    const [here, there] = [nameOf(43), nameOf(44, { storePathIndex: 1 })]
    await put(here, there)
    expect(await find([42])).to.deep.equal([here, there])
    paths.get(1)!.fail(new Error('gone'))
    expect(await find([42])).to.deep.equal([here])
  })

  it('finds files of 4 GiB and more by their directory alone', async () => {
    const large = (sequence: number) => nameOf(sequence, { sizeBytes: LARGE })
    await put(...[41, 42, 43, 44, 45].map(large))
    expect(await find([41, 42, 45, 46])).to.deep.equal([large(43), large(44)].sort())
    expect(await find([41, 42, 45, recordOf(70_000, 'C', large(43))], 0))
      .to.include(large(44))
      .and.not.include(large(43))
  })

  it('takes no file of 4 GiB and more for one of a gap that is from before the checkpoint, in the same directory', async () => {
    const [before, since] = [1_700_000_000, 1_700_000_001].map(createTimeS => {
      return nameOf(43, { sizeBytes: LARGE, createTimeS })
    }) as [string, string]
    await put(before, since)
    expect(await find([42, 45], 0, undefined, 1_700_000_001_500)).to.deep.equal([since])
  })
})
