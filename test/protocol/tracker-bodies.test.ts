import { expect } from 'chai'
import { IPV4_BYTES, IPV6_BYTES } from '../../protocol/data-bodies.ts'
import { HEADER_BYTES, readString } from '../../protocol/frame.ts'
import { formatAddress, parseAddress, writeServers, writeStorageIds } from '../../protocol/tracker-bodies.ts'
import { storageView } from '../bin/cluster-view.ts'
import { golden } from '../fastdfs-golden.ts'

const repliedTo = (name: string) => Buffer.from(golden(name).reply, 'hex').subarray(HEADER_BYTES)

describe('reply with servers', () => {
  const [first, second] = [11, 12].map(last => ({ ip: `10.231.7.${last}`, port: 23000 })) as [Server, Server]
  type Server = { ip: string; port: number }
  const group = 'group1'

  it('is what FastDFS answers', () => {
    for (const [name, servers, more] of [
      ['store_one', [first], { storePathIndex: 0 }],
      ['store_one_group', [second], { storePathIndex: 0 }],
      ['store_all', [first, second], { storePathIndex: 0 }],
      ['fetch_one', [first], {}],
      ['query_update', [first], {}],
      ['fetch_all_old', [first, second], {}],
    ] as const) {
      expect(writeServers({ group, servers, ...more }, IPV4_BYTES).equals(repliedTo(name)), name).equal(true)
    }
  })

  it('is wider where there is IPv6, so that clients can tell', () => {
    const found = { group, servers: [first, { ip: '2001:db8::7', port: 23000 }] }
    const body = writeServers(found, IPV6_BYTES)
    expect(body).length(16 + 2 * 53)
    expect([readString(body, 16, 45), readString(body, 69, 45)]).deep.equal(['10.231.7.11', '2001:db8::7'])
  })
})

describe('an address with its port', () => {
  it('is read back as it was written', () => {
    for (const [ip, text] of [
      ['10.0.0.1', '10.0.0.1:23000'],
      ['fd00::1', '[fd00::1]:23000'],
      ['storage-1', 'storage-1:23000'],
    ] as const) {
      expect(formatAddress(ip, 23000)).equal(text)
      expect(parseAddress(text)).deep.equal({ ip, port: 23000 })
    }
  })

  it('has both, or is none', () => {
    for (const text of [
      '',
      ':',
      '10.0.0.1',
      ':23000',
      '10.0.0.1:',
      '10.0.0.1:x',
      'fd00::1:2',
      '[fd00::1]',
      '10.0.0.1:123456',
    ]) {
      expect(() => parseAddress(text), text)
        .throw()
        .property('code', 'bad_request')
    }
  })
})

describe('the list of storage ids', () => {
  it('ends where a reply would be too long, and goes on from any index', () => {
    const storages = Array.from({ length: 1500 }, (_, i) => storageView(i + 1).report)
    const part = (startIndex: number) => {
      const body = writeStorageIds(storages, startIndex)
      const lines = body.toString('latin1', 8).split('\n').slice(0, -1)
      expect(body.readInt32BE(0)).equal(1500)
      expect(body.readInt32BE(4)).equal(lines.length)
      return lines
    }
    const [head, tail] = [part(0), part(1000)]
    expect([...head, ...tail].map(line => Number(line.split(' ')[0]))).deep.equal(storages.map(s => s.storageId))
    expect(tail[0]).equal('1001 group1 10.0.0.1:24001')
  })
})
