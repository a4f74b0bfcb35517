import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { expect } from 'chai'
import { connect, type NatsConnection } from 'nats'
import { configureFor, natsEnvironment } from '../../runtime/nats-config.ts'
import { findNatsServer, type NatsServer, natsServerVersion } from '../../runtime/nats-server.ts'
import { realWorld } from '../../runtime/real-world.ts'
import type { ChildProcess } from '../../runtime/world.ts'
import { until } from '../until.ts'
import { credentialsOf, natsServerBinaries, startTestServer, temporaryDirectory } from './nats-fixture.ts'

const world = realWorld()

// Only there can we see the processes of others, and so tell what is left.
const itOnLinux = process.platform === 'linux' ? it : it.skip

for (const binary of await natsServerBinaries()) {
  const version = await natsServerVersion(world.processes, binary)

  describe(`the supervised nats-server, version ${version}`, () => {
    let directory: string
    const cleanUps: (() => unknown)[] = []

    beforeEach(async () => {
      const made = await temporaryDirectory()
      directory = made.path
      cleanUps.push(made.remove)
    })
    afterEach(async () => {
      for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp()
    })

    async function start(options: { port?: number; template?: string } = {}): Promise<NatsServer> {
      const server = await startTestServer({ binary, directory, ...options })
      cleanUps.push(() => server.stop())
      return server
    }

    async function connectTo(url: string): Promise<NatsConnection> {
      const { user, password } = await credentialsOf(directory, 'ops')
      const connection = await connect({ servers: url, user, pass: password, reconnect: false })
      cleanUps.push(() => connection.close())
      return connection
    }

    /** Starts a process of its own that runs the server; returns it and the server's pid. */
    async function startParent(): Promise<{ parent: ChildProcess; serverPid: number }> {
      const script = new URL('./nats-parent.js', import.meta.url).pathname
      const lines: string[] = []
      const parent = world.processes.spawn(process.execPath, [script, binary, directory], {
        onLine: line => lines.push(line),
      })
      cleanUps.push(() => parent.kill('SIGKILL'))
      const line = await until('the parent is ready', () => lines.find(line => line.startsWith('{')))
      const serverPid = (JSON.parse(line) as { pid: number }).pid
      cleanUps.push(() => world.processes.signal(serverPid, 'SIGKILL'))
      return { parent, serverPid }
    }

    /** The processes whose command line names our directory; dead ones that nobody has asked after have none. */
    async function ourProcesses(): Promise<{ pid: number; commandLine: string }[]> {
      const pids = (await readdir('/proc')).map(Number).filter(pid => pid > 0 && pid !== process.pid)
      const all = await Promise.all(
        pids.map(async pid => ({ pid, commandLine: await world.processes.commandLine(pid) })),
      )
      return all.filter(({ commandLine }) => commandLine.includes(directory))
    }

    const noneLeft = () => until('no process of ours is left', async () => (await ourProcesses()).length === 0)

    it('is ready when it is started, with JetStream and the version it says', async () => {
      const server = await start()
      expect(server.version).to.equal(version)
      expect(server.status()).to.include({ ready: true, restarts: 0 })
      const connection = await connectTo(server.url)
      expect(connection.info).to.include({ version, jetstream: true })
    })

    itOnLinux('ends when it is stopped, leaves no process, and may be started again', async () => {
      const first = await start()
      await first.stop()
      expect(first.status()).to.equal(undefined)
      await noneLeft()
      const second = await start()
      expect(second.status()?.ready).to.equal(true)
    })

    it('is started again after a kill -9, on the same port and with its store', async () => {
      const server = await start()
      const { pid } = server.status()!
      const manager = await (await connectTo(server.url)).jetstreamManager()
      await manager.streams.add({ name: 'KEPT', subjects: ['kept.>'] })
      world.processes.signal(pid!, 'SIGKILL')
      await until('it is ready again', () => server.status()?.restarts === 1 && server.status()?.ready)
      expect(server.status()?.pid).not.to.equal(pid)
      const again = await (await connectTo(server.url)).jetstreamManager()
      expect((await again.streams.info('KEPT')).config.name).to.equal('KEPT')
    })

    itOnLinux('leaves no watcher behind for each time it was killed', async () => {
      const server = await start()
      world.processes.signal(server.status()!.pid!, 'SIGKILL')
      await until('it is ready again', () => server.status()?.restarts === 1 && server.status()?.ready)
      await until('one server and one watcher', async () => (await ourProcesses()).length === 2)
    })

    itOnLinux('dies with the process that started it, even by kill -9, and leaves nothing', async () => {
      const { parent, serverPid } = await startParent()
      expect((await ourProcesses()).map(({ pid }) => pid)).to.include(serverPid)
      parent.kill('SIGKILL')
      await noneLeft()
    })

    itOnLinux('stops the server that an earlier run left behind, and takes its place', async () => {
      const { parent, serverPid } = await startParent()
      // Only without its watcher does a server outlive its parent.
      const watchers = (await ourProcesses()).filter(({ commandLine }) => commandLine.startsWith('/bin/sh'))
      for (const { pid } of watchers) world.processes.signal(pid, 'SIGKILL')
      parent.kill('SIGKILL')
      await parent.exited
      expect(await world.processes.commandLine(serverPid)).to.contain(directory)
      const server = await start()
      expect(server.status()?.pid).not.to.equal(serverPid)
      expect(await world.processes.commandLine(serverPid)).to.equal('')
    })

    it('does not touch a process that now has the pid of an earlier server', async () => {
      const stranger = spawn(process.execPath, ['-e', 'process.stdin.resume()', `${directory}/nats/nats-server.conf`])
      cleanUps.push(() => stranger.kill('SIGKILL'))
      await once(stranger, 'spawn')
      await mkdir(`${directory}/nats`)
      for (const pid of [String(stranger.pid), '1', '-1', '', String(process.pid)]) {
        await writeFile(`${directory}/nats/nats-server.pid`, pid)
        const server = await start()
        await server.stop()
      }
      expect(stranger.signalCode).to.equal(null)
      expect(world.processes.alive(stranger.pid!)).to.equal(true)
    })

    it('is not fooled by the ports files of servers that were killed', async () => {
      await mkdir(`${directory}/nats/ports`, { recursive: true })
      await writeFile(`${directory}/nats/ports/nats-server_1.ports`, '{"nats":["nats://127.0.0.1:1"]}')
      const server = await start()
      await connectTo(server.url)
      expect(await readdir(`${directory}/nats/ports`)).to.have.length(1)
    })

    it('is not started twice in one directory', async () => {
      const server = await start()
      const error = await start().catch((error: unknown) => error)
      expect(error).to.be.an('error').with.property('message').that.contains('another process runs this nats-server')
      expect(server.status()?.ready).to.equal(true)
    })

    it('says why it could not start: a taken port, a configuration it does not know, a missing program', async () => {
      const taken = createServer().listen(0, '127.0.0.1')
      cleanUps.push(() => taken.close())
      await once(taken, 'listening')
      const { port } = taken.address() as { port: number }
      const messageOf = (attempt: Promise<unknown>) => attempt.catch((error: Error) => error.message)
      expect(await messageOf(start({ port }))).to.contain('address already in use')
      expect(await messageOf(start({ template: 'no_such_field: 1' }))).to.contain('no_such_field')
      expect(await messageOf(startTestServer({ binary: '/no/such/program', directory }))).to.contain('/no/such/program')
      await start()
    })

    itOnLinux('keeps secrets out of the command line and the configuration', async () => {
      await start()
      const { password } = await credentialsOf(directory, 'ops')
      for (const { commandLine } of await ourProcesses()) expect(commandLine).not.to.contain(password)
      expect(await readFile(`${directory}/nats/nats-server.conf`, 'utf8')).not.to.contain(password)
    })

    it('accepts the template itself and what is made of it, also under an awkward path', async () => {
      const template = await readFile('nats-server.conf', 'utf8')
      const texts = [
        template,
        configureFor(template, version, ['group1']),
        configureFor(template, version, ['a', 'B2']),
      ]
      const users = ['tracker', 'gateway', 'client', 'ops', 'sys']
      for (const group of ['group1', 'a', 'B2']) users.push(`storage_${group}`, `sync_${group}`)
      const environment = natsEnvironment({
        name: 'dfs1',
        host: '127.0.0.1',
        port: 4222,
        monitorPort: 8222,
        storeDirectory: `${directory}/a "b" \\c #d`,
        passwords: Object.fromEntries(users.map(user => [user, '1e5'])),
      })
      for (const text of texts) {
        await writeFile(`${directory}/test.conf`, text)
        const lines: string[] = []
        const check = world.processes.spawn(binary, ['-t', '-c', `${directory}/test.conf`], {
          environment,
          onLine: line => lines.push(line),
        })
        expect((await check.exited).code, lines.join('\n')).to.equal(0)
      }
    })
  })
}

describe('the search for a nats-server', () => {
  let directory: string
  let remove: () => Promise<void>

  beforeEach(async () => {
    const made = await temporaryDirectory()
    directory = made.path
    remove = made.remove
  })
  afterEach(() => remove())

  async function put(path: string): Promise<string> {
    await mkdir(`${directory}/${path}`.replace(/\/[^/]*$/, ''), { recursive: true })
    await writeFile(`${directory}/${path}`, '')
    return `${directory}/${path}`
  }
  const errorOf = (attempt: Promise<string>) => attempt.catch((error: unknown) => String(error))

  it('takes the one it was told, or none', async () => {
    const told = await put('told')
    await put('bin/nats-server')
    const searchPath = `${directory}/bin`
    expect(await findNatsServer(world.disk, { configured: told, searchPath })).to.equal(told)
    const error = await errorOf(findNatsServer(world.disk, { configured: `${directory}/none`, searchPath }))
    expect(error).to.contain(`looked for ${directory}/none`)
  })

  it('takes the first on the PATH', async () => {
    const first = await put('b/nats-server')
    await put('c/nats-server')
    const searchPath = ['a', 'b', 'c'].map(name => `${directory}/${name}`).join(':')
    expect(await findNatsServer(world.disk, { searchPath })).to.equal(first)
  })

  it('takes the newest that was installed for us when there is no other', async function () {
    const others = await errorOf(findNatsServer(world.disk, {}))
    if (!others.includes('there is no nats-server')) this.skip()
    for (const version of ['2.9.10', '2.14.9', '2.14.10']) await put(`.cache/natsdfs/bin/nats-server-v${version}`)
    const found = await findNatsServer(world.disk, { home: directory })
    expect(found).to.equal(`${directory}/.cache/natsdfs/bin/nats-server-v2.14.10`)
  })
})
