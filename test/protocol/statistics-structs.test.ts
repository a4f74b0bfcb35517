import { expect } from 'chai'
import { HEADER_BYTES, readInt64, readString } from '../../protocol/frame.ts'
import { COUNTERS, type Statistics } from '../../protocol/statistics.ts'
import {
  writeGroupStat,
  writeStorageBrief,
  writeStoragePart,
  writeStorageStat,
  writeTrackerPart,
  writeVolumePart,
} from '../../protocol/statistics-structs.ts'
import { groupView, storageView } from '../bin/cluster-view.ts'
import { golden } from '../fastdfs-golden.ts'

const MIB = 2 ** 20
const NOW_MS = 1_800_000_000_900

/** 1 for the first, 2 for the second, ... */
const NUMBERED: Statistics = Object.fromEntries(COUNTERS.map((name, i) => [name, i + 1]))

const numbers = (body: Buffer, at: number, count: number) =>
  Array.from({ length: count }, (_, i) => readInt64(body, at + i * 8))

describe('a struct for monitoring tools', () => {
  const storage = storageView(
    7,
    {
      ip: '10.231.7.11',
      version: '0.1.0-beta.12',
      madeS: 11,
      startedS: 12,
      uploadPriority: 13,
      storePaths: [
        { index: 0, totalBytes: 900 * MIB + 1, freeBytes: 800 * MIB, reservedBytes: 5 * MIB, writable: true },
        { index: 1, totalBytes: 90 * MIB, freeBytes: 80 * MIB, reservedBytes: 5 * MIB, writable: false },
      ],
      statistics: {
        ...NUMBERED,
        connection_alloc_count: 101,
        connection_current_count: 102,
        connection_max_count: 103,
      },
    },
    { beatAgeMs: 1000 },
  )

  it('of a group is what FastDFS answers, field by field', () => {
    const expected = Buffer.from(golden('list_one_group').reply, 'hex').subarray(HEADER_BYTES)
    const [totalBytes, diskFreeBytes, reservedBytes] = numbers(expected, 17, 3).map(mib => mib * MIB)
    const view = groupView({ port: 23000, totalBytes, diskFreeBytes, reservedBytes } as Partial<
      ReturnType<typeof groupView>
    >)
    expect(writeGroupStat(view).toString('hex')).equal(expected.toString('hex'))
    const reusable = writeGroupStat({ ...view, reusableBytes: 3 * MIB })
    expect(numbers(reusable, 41, 1)).deep.equal([3])
    expect(readString(writeGroupStat({ ...view, group: 'G'.repeat(16) }), 0, 17)).equal('G'.repeat(16))
  })

  for (const [family, addressBytes, ip] of [
    ['IPv4', 15, '10.231.7.11'],
    ['IPv6', 45, '2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff'],
  ] as const) {
    it(`of a storage server has every number at its place, with ${family}`, () => {
      const body = writeStorageStat({ ...storage, report: { ...storage.report, ip } }, addressBytes, NOW_MS)
      const wider = addressBytes - 15
      expect(body).length(487 + wider)
      expect([body[0], body[1], body.at(-1)]).deep.equal([7, 6, 0])
      const strings = [readString(body, 2, 16), readString(body, 18, 16 + wider), readString(body, 34 + wider, 16)]
      expect([...strings, readString(body, 50 + wider, 8)]).deep.equal(['7', ip, '', '0.1.0-be'])
      expect(numbers(body, 58 + wider, 10)).deep.equal([11, 12, 990, 880, 10, 13, 2, 256, 0, 23007])
      const buff = body.subarray(138 + wider, 486 + wider)
      expect([0, 4, 8].map(at => buff.readInt32BE(at))).deep.equal([101, 102, 103])
      const heardS = Math.floor((NOW_MS - 1000) / 1000)
      expect(numbers(buff, 12, 42)).deep.equal([...Array.from({ length: 41 }, (_, i) => i + 1), heardS])
    })
  }

  it('of a storage server says what state it is in, and whether it is read and written', () => {
    const states = (
      [
        [{}, {}],
        [{ status: 'readonly' }, {}],
        [{ status: 'draining' }, {}],
        [{ status: 'joining' }, {}],
        [{}, { online: false }],
        [{ status: 'offline' }, { online: false }],
      ] as const
    ).map(([report, view]) => [...writeStorageStat(storageView(1, report, view), 15, NOW_MS).subarray(0, 2)])
    expect(states).deep.equal([
      [7, 6],
      [7, 4],
      [7, 4],
      [0, 0],
      [5, 0],
      [5, 0],
    ])
  })

  it('of a storage server that tells no statistics has zeros', () => {
    const { statistics: _, madeS: __, startedS: ___, ...report } = storage.report
    const body = writeStorageStat({ ...storage, report }, 15, NOW_MS)
    expect(body).length(487)
    expect(numbers(body, 58, 2)).deep.equal([0, 0])
    expect(numbers(body, 150, 41).every(value => value === 0)).equal(true)
  })

  it('in short is what FastDFS answers', () => {
    const expected = Buffer.from(golden('storage_status').reply, 'hex').subarray(HEADER_BYTES)
    const brief = writeStorageBrief(storageView(7, { ip: '10.231.7.11', port: 23000 }))
    // FastDFS's id is the address.
    expected.fill(0, 5, 21).write('7', 5)
    expect(brief.toString('hex')).equal(expected.toString('hex'))
  })

  it('of a storage server in a list of all has every number at its place', () => {
    const body = writeStoragePart(storage, NOW_MS)
    expect(body).length(106)
    expect([readString(body, 0, 16), readString(body, 16, 52)]).deep.equal(['7', '10.231.7.11:23007'])
    expect([body[68], body[69]]).deep.equal([0, 7])
    expect([70, 74, 78].map(at => body.readInt32BE(at))).deep.equal([101, 102, 103])
    expect(readString(body, 82, 8)).equal('0.1.0-be')
    expect(numbers(body, 90, 2)).deep.equal([12, 1_799_999_999])
  })

  it('of a tracker has every number at its place, and cuts a name that is too long', () => {
    const role = { role: 'tracker', id: 't', endpoint: '', beatAgeMs: 900, version: '1.2.3', startedS: 9 }
    const counts = { connections: 2, connectionPeak: 3 }
    const at = { address: '10.0.0.9:22122', isLeader: false, isActive: true }
    const body = writeTrackerPart({ ...role, ...counts }, at, NOW_MS)
    expect(body).length(90)
    expect(readString(body, 0, 52)).equal('10.0.0.9:22122')
    expect([body[52], body[53]]).deep.equal([0, 1])
    expect([54, 58, 62].map(at => body.readInt32BE(at))).deep.equal([3, 2, 3])
    expect(readString(body, 66, 8)).equal('1.2.3')
    expect(numbers(body, 74, 2)).deep.equal([9, 1_800_000_000])
    expect(readString(writeTrackerPart(role, { ...at, address: 'x'.repeat(60) }, NOW_MS), 0, 52)).equal('x'.repeat(52))
  })

  it('of the room of a group says what uploads may take', () => {
    const group = groupView({ totalBytes: 99 * MIB, diskFreeBytes: 50 * MIB, reservedBytes: 10 * MIB })
    const room = (view = group) => {
      const body = writeVolumePart(view)
      expect(body).length(59)
      return [...numbers(body, 17, 5), body[57], body[58]]
    }
    expect(room()).deep.equal([99, 50, 10, 40, 0, 1, 0])
    expect(room({ ...group, reservedBytes: 60 * MIB })).deep.equal([99, 50, 60, 0, 0, 0, 0])
    expect(room({ ...group, writable: 0 })).deep.equal([99, 50, 10, 0, 0, 0, 0])
  })
})
