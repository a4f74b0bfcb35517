/** Real roles, started from FastDFS's own files. */
import { type ChildProcess, spawn } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { createConnection } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect } from 'chai'
import type { Client } from '../../client/client.ts'
import { connect } from '../../client/connect.ts'
import { decodeFileName, parseFileId } from '../../protocol/file-id.ts'
import type { NatsServer } from '../../runtime/nats-server.ts'
import { realWorld } from '../../runtime/real-world.ts'
import { ensureSecrets } from '../../runtime/secrets.ts'
import { credentialsOf, natsServerBinaries, startTestServer, temporaryDirectory } from '../runtime/nats-fixture.ts'
import { until } from '../until.ts'

const PROGRAM = fileURLToPath(new URL('../../bin/dfs.js', import.meta.url))
const SHIPPED = 'test/bin/fastdfs-conf'
const LOOPBACK = ['--bind', '127.0.0.1', '--port', '0']
const LOG_LEVEL_WARN = 40

interface Role {
  readonly child: ChildProcess
  /** What it said when it was ready; undefined if it ended before. */
  readonly ready: { id: number | string; group: string; host: string; port: number; dataDir: string } | undefined
  readonly logged: Record<string, unknown>[]
  readonly stderr: string
}

describe('roles that are started from configuration files of FastDFS', function () {
  this.timeout(60_000)
  let directory: Awaited<ReturnType<typeof temporaryDirectory>>
  let nats: NatsServer
  let tracker: Role
  let client: Client
  const children: ChildProcess[] = []

  before(async () => {
    directory = await temporaryDirectory()
    const [binary] = await natsServerBinaries()
    nats = await startTestServer({ binary: binary!, directory: directory.path })
    await ensureSecrets(realWorld(), directory.path, { groups: ['group1'], servers: [nats.url] })
    tracker = await start(...ofTracker(), '--fastdfs-conf', `${SHIPPED}/tracker.conf`, ...LOOPBACK)
    client = await connect({ credentials: await credentialsOf(directory.path, 'client') })
  })
  after(async () => {
    await client?.close()
    await Promise.all(children.map(end))
    await nats?.stop()
    await directory?.remove()
  })

  const credentials = (user: string) => join(directory.path, 'credentials', `${user}.json`)
  const ofTracker = () => ['tracker', '--credentials', credentials('tracker')]
  const ofStorage = () => [
    ...['storage', '--credentials', credentials('storage_group1'), '--sync-credentials', credentials('sync_group1')],
  ]

  /** Starts a role and waits until it is ready, or has ended. */
  async function start(...args: string[]): Promise<Role> {
    const child = spawn(process.execPath, [PROGRAM, ...args])
    children.push(child)
    let [stdout, stderr] = ['', '']
    child.stdout.on('data', text => (stdout += text))
    child.stderr.on('data', text => (stderr += text))
    let hasEnded = false
    child.on('close', () => (hasEnded = true))
    await until('it is ready or has ended', () => stdout.includes('\n') || hasEnded)
    const lines = stderr.split('\n').filter(line => line.startsWith('{'))
    return {
      child,
      ready: stdout === '' ? undefined : JSON.parse(stdout),
      logged: lines.map(line => JSON.parse(line)),
      stderr,
    }
  }

  function end(child: ChildProcess): Promise<unknown> {
    if (child.exitCode !== null) return Promise.resolve()
    return new Promise(resolve => {
      child.on('exit', resolve)
      child.kill('SIGTERM')
    })
  }

  /** What the trackers know of a storage server. */
  async function reportOf({ ready }: Pick<Role, 'ready'>) {
    const { storages } = await client.status()
    return storages.find(({ report }) => report.storageId === ready?.id)?.report
  }

  function write(name: string, text: string): string {
    writeFileSync(join(directory.path, name), text)
    return join(directory.path, name)
  }

  describe('as FastDFS ships them', () => {
    let storage: Role

    before(async () => {
      storage = await start(
        ...[...ofStorage(), '--fastdfs-conf', `${SHIPPED}/storage.conf`, '--fastdfs-conf', `${SHIPPED}/tracker.conf`],
        // Elsewhere than the files say; and with a reserve that the disk of whoever tests this surely has.
        ...['--data', `${directory.path}/data`, '--store-path', `${directory.path}/path`, '--reserved', '1M'],
        ...LOOPBACK,
      )
      await until('the storage server is active', async () => (await reportOf(storage))?.status === 'active')
    })
    after(() => end(storage.child))

    it('store and fetch files, each in one of its own, as use_trunk_file says', async () => {
      const bytes = Buffer.from('uploaded to a server with an old configuration')
      const { fileId } = await client.upload(bytes, { extension: 'txt' })
      expect(await client.download(fileId)).deep.equal(bytes)
      const { group, name } = parseFileId(fileId)
      const { kind, directory: below, baseName } = decodeFileName(name)
      expect([group, kind]).deep.equal(['group1', 'plain'])
      expect(readFileSync(join(directory.path, 'path', 'data', below, baseName))).deep.equal(bytes)
    })

    it('say line by line what they ignore, as warnings where it matters', () => {
      for (const { logged } of [tracker, storage]) {
        const about = (key: string) => logged.filter(line => line.key === key)
        expect(about('work_threads')[0]).include({ level: 30, value: '4' })
        expect(about('use_storage_id')[0]).include({ level: LOG_LEVEL_WARN, value: 'false' })
        expect(about('port')[0]!.msg).match(/the command line says otherwise/)
      }
      const servers = storage.logged.filter(({ key }) => key === 'tracker_server')
      expect(servers.map(({ value }) => value)).deep.equal(['192.168.0.196:22122', '192.168.0.197:22122'])
      expect(storage.logged.find(({ key }) => key === 'fsync_after_written_bytes')!.msg).match(/--durability os/)
    })
  })

  it('need nothing else: id, group, directories, reserve, address and allowed hosts are those of the files', async () => {
    const base = `${directory.path}/base`
    write('storage_ids.conf', '100001 group1 127.0.0.1\n100002 group1 127.0.0.2')
    const trackerConf = write(
      'tracker.conf',
      'use_storage_id = true\nstorage_ids_filename = storage_ids.conf\nreserved_storage_space = 20%',
    )
    const storageConf = write(
      'storage.conf',
      `base_path = ${base}\nbind_addr = 127.0.0.1\nport = 0\ntracker_server = 127.0.0.1:22122\nallow_hosts = 127.0.0.[2-9]`,
    )
    const { ready, logged, child } = await start(...ofStorage(), '--fastdfs-conf', storageConf, trackerConf)
    expect(ready).include({ id: 100_001, group: 'group1', host: '127.0.0.1', dataDir: `${base}/natsdfs` })
    expect(logged.map(({ msg }) => msg).join('\n')).contain('--allow-hosts leaves out this host itself')
    const connectFrom = (localAddress: string) =>
      new Promise<string>(resolve => {
        const socket = createConnection({ host: '127.0.0.1', port: ready!.port, localAddress })
        // An active test, command 111, and its reply, command 100.
        socket.write(Buffer.from([0, 0, 0, 0, 0, 0, 0, 0, 111, 0]))
        socket.on('data', data => resolve(`command ${data[8]}`))
        socket.on('error', () => undefined)
        socket.on('close', () => resolve('closed'))
        socket.on('data', () => socket.destroy())
      })
    expect(await connectFrom('127.0.0.1')).equal('closed')
    expect(await connectFrom('127.0.0.2')).equal('command 100')

    const report = await until('the server has told of whom it refused', async () => {
      const report = await reportOf({ ready })
      return report?.counts.refused === 1 && report
    })
    const [path] = report.storePaths
    expect(path!.reservedBytes).equal(Math.round(path!.totalBytes / 5))
    await end(child)
  })

  it('listen everywhere where bind_addr is empty, and tell others an address that leads to them', async () => {
    const conf = write('everywhere.conf', 'bind_addr =\nport = 0')
    const { ready, logged, child } = await start(...ofTracker(), '--id', 'tracker-9', '--fastdfs-conf', conf)
    expect(ready!.host)
      .match(/^[0-9a-f.:]+$/)
      .and.not.equal('0.0.0.0')
    const socket = createConnection({ host: ready!.host, port: ready!.port })
    await new Promise((resolve, reject) => socket.on('connect', resolve).on('error', reject))
    socket.destroy()
    expect(logged.some(({ msg }) => /others are told this address/.test(String(msg)))).equal(true)
    await end(child)
  })

  for (const [what, args, message] of [
    ['a directory', () => [...ofStorage(), '--group', 'group1'], /required option '--data <dir>'/],
    [
      'a group',
      () => [...ofStorage(), '--data', 'x', '--fastdfs-conf', write('t.conf', 'port = 1')],
      /'--group <name>'/,
    ],
    [
      'a file that is there',
      () => [...ofTracker(), '--fastdfs-conf', 'nowhere.conf'],
      /nowhere\.conf: there is no such/,
    ],
    [
      'a file that is right',
      () => [...ofTracker(), '--fastdfs-conf', write('t.conf', 'port = x')],
      /t\.conf:1: port = x/,
    ],
    ['hosts that can be', () => [...ofTracker(), '--allow-hosts', '10.0.0.300'], /"10\.0\.0\.300" is no address/],
  ] as const) {
    it(`do not start without ${what}, and say so`, async () => {
      const { ready, child, stderr } = await start(...args())
      expect(ready).equal(undefined)
      expect(child.exitCode).not.equal(0)
      expect(stderr).match(message)
    })
  }
})
