import { expect } from 'chai'
import { type Check, checkNatsVersion, checkNode, examineStatus, formatCheck } from '../../bin/doctor.ts'
import type { StorageReport } from '../../protocol/storage-messages.ts'
import { clusterStatus, storageView } from './cluster-view.ts'

const GIB = 2 ** 30

const troubles = (checks: readonly Check[]) =>
  checks.filter(({ level }) => level !== 'ok').map(({ level, text }) => `${level} ${text}`)

const withStorage = (report: Partial<StorageReport>) =>
  troubles(examineStatus(clusterStatus({ storages: [storageView(1, report)] })))

describe('dfs doctor', () => {
  it('finds nothing to say about a sound cluster, and says what to do about every trouble', () => {
    expect(troubles(examineStatus(clusterStatus()))).to.deep.equal([])
    const storages = [storageView(1, { status: 'joining' }), storageView(2, {}, { online: false })]
    const checks = examineStatus(clusterStatus({ stale: true, jetstream: false, natsServer: '', roles: [], storages }))
    expect(troubles(checks)).to.have.length(7)
    for (const { level, advice } of checks) expect(advice === undefined).to.equal(level === 'ok')
  })

  it('knows which versions of nats-server have published holes', () => {
    const holes = ['2.9.25', '2.10.26', '2.11.14', '2.12.5', '2.10.9']
    const fine = ['2.10.27', '2.10.29', '2.11.15', '2.12.6', '2.13.0', '2.14.9', '3.0.0', '2.12.6-RC.1']
    expect(holes.map(version => checkNatsVersion(version, 'it').level)).to.deep.equal(holes.map(() => 'warn'))
    expect(fine.map(version => checkNatsVersion(version, 'it').level)).to.deep.equal(fine.map(() => 'ok'))
    expect(checkNatsVersion('dev', 'it').level).to.equal('warn')
  })

  it('knows which Node is too old', () => {
    const levels = ['18.20.0', '20.9.0', '20.19.0', '22.1.0'].map(version => checkNode(version).level)
    expect(levels).to.deep.equal(['fail', 'fail', 'ok', 'ok'])
  })

  it('warns of files that are known to be bad', () => {
    const { counts } = storageView(1, {}).report
    expect(withStorage({ counts: { ...counts, badFiles: 3 } })).to.deep.equal([
      'warn storage server 1 of group1: active, 3 bad files',
    ])
    expect(withStorage({ counts: { ...counts, badFiles: 0 } })).to.deep.equal([])
  })

  it('fails for a store path that is full or cannot be written, and warns before', () => {
    const path = { index: 3, totalBytes: 100 * GIB, freeBytes: 50 * GIB, reservedBytes: GIB, writable: true }
    const found = [
      { ...path, writable: false },
      { ...path, freeBytes: GIB },
      { ...path, freeBytes: 4 * GIB },
      path,
    ].map(path => withStorage({ storePaths: [path] }))
    expect(found).to.deep.equal([
      ['fail store path M03 of storage server 1 cannot be written'],
      ['fail store path M03 of storage server 1 is full'],
      ['warn store path M03 of storage server 1: 3.0 GiB left above the 1.0 GiB reserved'],
      [],
    ])
  })

  it('warns of a peer that is far behind or has nothing yet', () => {
    const source = storageView(1, { binlogEnd: { sequence: 9, timeMs: 100_000 } })
    const peerAt = (timeMs: number) => storageView(2, { positions: [{ storageId: 1, epoch: 1, sequence: 1, timeMs }] })
    const found = [peerAt(95_000), peerAt(70_000), storageView(2)].map(peer =>
      troubles(examineStatus(clusterStatus({ storages: [source, peer] }))),
    )
    expect(found).to.deep.equal([
      [],
      ['warn storage server 2, files of 1: 30 s behind'],
      ['warn storage server 2, files of 1: has nothing yet'],
    ])
  })

  it('warns of a role that has gone silent', () => {
    const roles = [{ role: 'gateway', id: 'gateway-1', endpoint: '', beatAgeMs: 9_000 }]
    expect(troubles(examineStatus(clusterStatus({ roles })))).to.deep.equal([
      'warn no tracker has been heard of',
      'warn gateway gateway-1 silent for 9.0 s',
    ])
  })

  it('prints one line for each check', () => {
    expect(formatCheck({ level: 'ok', text: 'all is well' })).to.equal('ok    all is well')
    expect(formatCheck({ level: 'warn', text: 'it is late', advice: 'go home' })).to.equal(
      'warn  it is late  - go home',
    )
  })
})
