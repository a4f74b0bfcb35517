/** The roles by themselves, against a NATS that somebody else runs: here one without JetStream. */
import { type ChildProcess, spawn } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { expect } from 'chai'
import type { Client } from '../../client/client.ts'
import { connect } from '../../client/connect.ts'
import type { NatsServer } from '../../runtime/nats-server.ts'
import { realWorld } from '../../runtime/real-world.ts'
import { ensureSecrets } from '../../runtime/secrets.ts'
import { credentialsOf, natsServerBinaries, startTestServer, temporaryDirectory } from '../runtime/nats-fixture.ts'
import { until } from '../until.ts'

const PROGRAM = fileURLToPath(new URL('../../bin/dfs.js', import.meta.url))

describe('single roles on a NATS without JetStream', function () {
  this.timeout(60_000)
  let directory: Awaited<ReturnType<typeof temporaryDirectory>>
  let nats: NatsServer
  let client: Client
  const roles: ChildProcess[] = []
  let output = ''

  before(async () => {
    directory = await temporaryDirectory()
    const template = await readFile('nats-server.conf', 'utf8')
    const [binary] = await natsServerBinaries()
    nats = await startTestServer({
      binary: binary!,
      directory: directory.path,
      // Without the two jetstream blocks, each a line or a few, and without what only they need.
      template: template.replace(/^jetstream \{[\s\S]*?^\}\n/m, '').replace(/^ *jetstream \{.*\}\n/m, ''),
    })
    await ensureSecrets(realWorld(), directory.path, { groups: ['group1'], servers: [nats.url] })
    const file = (user: string) => `${directory.path}/credentials/${user}.json`
    run('tracker', '--port', '0', '--credentials', file('tracker'))
    for (const id of ['11', '12']) {
      run(
        ...['storage', '--id', id, '--group', 'group1', '--port', '0', '--reserved', '1M'],
        ...['--data', `${directory.path}/storage-${id}`, '--credentials', file('storage_group1')],
        ...['--sync-credentials', file('sync_group1')],
      )
    }
    run('gateway', '--credentials', file('gateway'))
    client = await connect({ credentials: await credentialsOf(directory.path, 'client') })
    await until('both storage servers are active', async () => {
      const status = await client.status().catch(() => undefined)
      return status?.storages.filter(({ report }) => report.status === 'active').length === 2
    })
  })
  after(async () => {
    await client?.close()
    await Promise.all(
      roles.map(
        role =>
          new Promise(resolve => {
            role.on('exit', resolve)
            role.kill('SIGTERM')
          }),
      ),
    )
    await nats?.stop()
    await directory?.remove()
  })

  it('stores and fetches files all the same', async () => {
    const bytes = Buffer.from('no JetStream needed')
    const { fileId } = await client.upload(bytes, { extension: 'txt' })
    expect(await client.download(fileId)).to.deep.equal(bytes)
  })

  it('says in the status and in the log that JetStream is missing', async () => {
    expect((await client.status()).jetstream).to.equal(false)
    expect(output).to.include('this NATS has no JetStream')
  })

  it('goes on serving files while NATS is down', async () => {
    const bytes = Buffer.from('read me in the dark')
    const { fileId } = await client.upload(bytes)
    await client.download(fileId)
    await nats.stop()
    expect(await client.download(fileId)).to.deep.equal(bytes)
    const second = await client.upload(Buffer.from('and written'))
    expect((await client.download(second.fileId)).toString()).to.equal('and written')
  })

  it('ends on SIGTERM though it has never found its NATS, and has served its files until then', async () => {
    const data = `${directory.path}/storage-13`
    const file = (user: string) => `${directory.path}/credentials/${user}.json`
    const role = spawn(process.execPath, [
      ...[PROGRAM, 'storage', '--id', '13', '--group', 'group1', '--port', '0', '--data', data],
      ...['--credentials', file('storage_group1'), '--sync-credentials', file('sync_group1')],
    ])
    const ready = await new Promise<string>(resolve => role.stdout.once('data', text => resolve(String(text))))
    expect(JSON.parse(ready)).to.include({ ready: true, id: 13 })
    const ended = new Promise(resolve => role.on('exit', code => resolve(code)))
    role.kill('SIGTERM')
    expect(await ended).to.equal(0)
  })

  function run(...args: string[]): void {
    const role = spawn(process.execPath, [PROGRAM, ...args], { stdio: ['ignore', 'ignore', 'pipe'] })
    role.stderr.on('data', text => {
      output += text
    })
    roles.push(role)
  }
})
