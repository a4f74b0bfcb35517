/** What whoever asks is told when a disk fails under a request. */
import { expect } from 'chai'
import { writeGroupAndName } from '../../../protocol/data-bodies.ts'
import { parseFileId } from '../../../protocol/file-id.ts'
import { COMMANDS } from '../../../protocol/frame.ts'
import type { FrameClient } from '../../../runtime/frame-client.ts'
import { realWorld } from '../../../runtime/real-world.ts'
import { fetchFile, uploadFile } from '../../data-port.ts'
import { FaultyDisk } from '../../store/faulty-disk.ts'
import { codeOf, SmallCluster } from '../small-cluster.ts'

describe('a disk that fails under a request', function () {
  this.timeout(20_000)
  let disk: FaultyDisk
  let cluster: SmallCluster
  let connection: FrameClient
  let fileId: string

  beforeEach(async () => {
    disk = new FaultyDisk(realWorld().disk)
    cluster = await SmallCluster.start({ disk })
    await cluster.addStorage(1)
    connection = await cluster.connect(1)
    fileId = await upload()
  })
  afterEach(async () => {
    disk.heal()
    await cluster.remove()
  })

  const upload = () => uploadFile(connection, Buffer.from('to be kept'))
  function ask(command: number): Promise<Buffer> {
    const { group, name } = parseFileId(fileId)
    return connection.request(command, writeGroupAndName(group, name))
  }

  it('is "unavailable" for whoever reads or deletes, and no reason not to read when it is well again', async () => {
    for (const [what, action, work] of [
      ['a download', 'open', () => fetchFile(connection, fileId)],
      ['information', 'stat', () => ask(COMMANDS.queryFileInfo)],
      ['a deletion', 'stat', () => ask(COMMANDS.deleteFile)],
    ] as const) {
      disk.fail({ action, path: /data\/.*txt$/ }, 'EIO')
      expect(await codeOf(work()), what).to.equal('unavailable')
    }
    expect((await fetchFile(connection, fileId)).toString()).to.equal('to be kept')
  })

  for (const [errno, code] of [
    ['ENOSPC', 'no_space'],
    ['EDQUOT', 'no_space'],
    ['EIO', 'unavailable'],
  ] as const) {
    for (const [what, pattern] of [
      ['as its file is made', { action: 'open', path: /tmp\/\w+$/ }],
      ['as its bytes come', { action: 'write', path: /tmp\/\w+$/ }],
      ['as it is made durable', { action: 'sync', path: /tmp\/\w+$/ }],
      ['as it is given its name', { action: 'rename', path: /tmp\/\w+$/ }],
    ] as const) {
      it(`is "${code}" for an upload when it says ${errno} ${what}`, async () => {
        disk.fail(pattern, errno)
        expect(await codeOf(upload())).to.equal(code)
        expect((await fetchFile(connection, fileId)).toString()).to.equal('to be kept')
        if (code === 'no_space') expect((await fetchFile(connection, await upload())).toString()).to.equal('to be kept')
      })
    }
  }
})
