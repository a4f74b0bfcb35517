/** A disk that really fills up: a small file system in memory, mounted where the system lets us. */
import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import type { Client } from '../client/client.ts'
import { RunningCluster } from './running-cluster.ts'
import { until } from './until.ts'

const DISK_BYTES = 48 * 2 ** 20

describe('a cluster on a disk that fills up', function () {
  this.timeout(60_000)
  let directory: string
  let cluster: RunningCluster
  let client: Client

  before(async function () {
    directory = mkdtempSync(join(tmpdir(), 'dfs-full-'))
    // Mounting takes privileges that not every machine gives its tests; the store's own tests fake this disk anywhere.
    const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${DISK_BYTES}`, 'tmpfs', directory])
    if (mounted.status !== 0) return this.skip()
    cluster = await RunningCluster.startIn(directory, '--storages', '1')
    client = await cluster.connect()
  })
  after(async () => {
    await client?.close()
    await cluster?.stop()
    spawnSync('umount', [directory])
    rmSync(directory, { recursive: true, force: true })
  })

  it('refuses a file that does not fit, at once and by name, and leaves nothing of it behind', async () => {
    const error = await rejection(client.upload(Buffer.alloc(DISK_BYTES)))
    expect(error).to.include('Every writable store path')
    expect(temporaries()).to.deep.equal([])
  })

  it('refuses a stream that turns out not to fit, in its middle', async () => {
    const error = await rejection(client.upload(endless()))
    expect(error).to.include('Every writable store path')
    expect(temporaries()).to.deep.equal([])
  })

  it('takes what fits again, and has lost nothing', async () => {
    const bytes = randomBytes(100_000)
    // The trackers hear of the room with the next beat.
    const taken = () => client.upload(bytes).catch(() => undefined)
    const { fileId } = await until('there is room again', taken)
    expect(await client.download(fileId)).to.deep.equal(bytes)
    const [storage] = (await client.status()).storages
    expect(storage?.report.status).to.equal('active')
  })

  function temporaries(): string[] {
    return readdirSync(join(cluster.data, 'storage-1', 'store', 'tmp'))
  }
})

async function* endless(): AsyncGenerator<Uint8Array> {
  for (let bytes = 0; bytes < 4 * DISK_BYTES; bytes += 2 ** 20) yield randomBytes(2 ** 20)
}

async function rejection(work: Promise<unknown>): Promise<string> {
  try {
    await work
  } catch (error) {
    return String(error)
  }
  throw new Error('it was taken')
}
