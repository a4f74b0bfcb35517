import { expect } from 'chai'
import { plainSockets, realSockets } from '../../runtime/real-sockets.ts'
import { LOOPBACK } from './frame-fixture.ts'
import { socketsContract } from './sockets-contract.ts'

for (const [name, sockets] of [
  ['real sockets', realSockets],
  ['real sockets that use documented means only', plainSockets],
] as const) {
  socketsContract(name, () => ({ near: sockets, far: sockets, listenAt: LOOPBACK, remove: () => undefined }))
}

describe('real sockets', () => {
  it('resolve a name to an address, and an address to itself', async () => {
    expect(await realSockets.resolve('localhost')).equal('127.0.0.1')
    expect(await realSockets.resolve('10.1.2.3')).equal('10.1.2.3')
    expect(await realSockets.resolve('::1')).equal('::1')
  })
})
