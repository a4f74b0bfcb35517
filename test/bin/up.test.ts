import { spawn } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { fileURLToPath } from 'node:url'
import { expect } from 'chai'
import { COMMANDS } from '../../protocol/frame.ts'
import { allPids, chaos } from '../campaigns/chaos.ts'
import { isAlive, RunningCluster } from '../running-cluster.ts'
import { RawConnection, requestOf } from '../runtime/frame-fixture.ts'
import { until } from '../until.ts'

const PROGRAM = fileURLToPath(new URL('../../bin/dfs.js', import.meta.url))

describe('dfs up', function () {
  this.timeout(120_000)

  it('loses and spoils no acknowledged file when any of its processes is killed', async () => {
    const seed = Math.floor(Math.random() * 2 ** 31)
    const lines: string[] = []
    const result = await chaos(1, seed, line => lines.push(line))
    expect(result.problems, `seed ${seed}\n${lines.join('\n')}`).to.deep.equal([])
    expect(result.kills).to.deep.equal({ storage: 1, tracker: 1, gateway: 1, 'nats-server': 1 })
    expect(result.acknowledged).to.be.greaterThan(0)
  })

  it('leaves no process, lock or port behind when it is killed itself, and starts again on the same data', async () => {
    const cluster = await RunningCluster.start()
    try {
      const client = await cluster.connect()
      const { fileId } = await client.upload(Buffer.from('before the kill'), { extension: 'txt' })
      await client.close()
      const pids = allPids(cluster)
      const { fastdfs, storages } = cluster.ports
      process.kill(cluster.upPid, 'SIGKILL')
      await until('all its processes end', () => pids.every(pid => !isAlive(pid)), 20_000)
      for (const port of [Number(fastdfs.tracker.split(':')[1]), ...storages.map(storage => storage.port)]) {
        await new Promise<void>((resolve, reject) => {
          const server = createServer().once('error', reject)
          server.listen(port, '127.0.0.1', () => server.close(() => resolve()))
        })
      }
      await cluster.up()
      const again = await cluster.connect()
      expect((await again.download(fileId)).toString()).to.equal('before the kill')
      await again.close()
    } finally {
      await cluster.remove()
    }
  })

  it('takes connections from the hosts it is told of only, to all of its ports', async () => {
    const cluster = await RunningCluster.start('--allow-hosts', '127.0.0.1', '127.0.0.[4-5]')
    try {
      const client = await cluster.connect()
      const { fileId } = await client.upload(Buffer.from('from here'), { ack: 'all' })
      expect((await client.download(fileId)).toString()).to.equal('from here')
      await client.close()
      const { trackers, storages } = cluster.ports
      for (const port of [...trackers, ...storages].map(role => role.port)) {
        for (const [from, answer] of [
          ['127.0.0.5', 10],
          ['127.0.0.6', 0],
        ] as const) {
          const connection = await RawConnection.connect({ host: '127.0.0.1', port }, from)
          connection.send(requestOf(COMMANDS.activeTest))
          connection.end()
          expect(await connection.untilEnded(), `${from} to ${port}`).length(answer)
          connection.destroy()
        }
      }
    } finally {
      await cluster.remove()
    }
  })

  describe('while it runs', () => {
    let cluster: RunningCluster
    before(async () => {
      cluster = await RunningCluster.start()
    })
    after(() => cluster?.remove())

    it('refuses a second one on the same data, and says so', async () => {
      const { code, output } = await run(['up', '--data', cluster.data, '--port-base', '0'], cluster.environment)
      expect(code).to.equal(1)
      expect(output).to.include('in use by another')
      expect(allPids(cluster).every(isAlive)).to.equal(true)
    })

    it('refuses a storage server on a data directory that is in use', async () => {
      const { storages } = cluster.ports
      const credentials = `${cluster.data}/credentials`
      const { code, output } = await run(
        [
          ...['storage', '--data', storages[0]!.dataDir, '--group', 'group1', '--port', '0'],
          ...['--credentials', `${credentials}/storage_group1.json`],
          ...['--sync-credentials', `${credentials}/sync_group1.json`],
        ],
        cluster.environment,
      )
      expect(code).to.not.equal(0)
      expect(output).to.include('EEXIST')
    })

    it('says which port is taken and what to do', async () => {
      const taken = cluster.ports.storages[0]!.port
      const { code, output } = await run(
        ['up', '--data', `${cluster.directory}/other`, '--port-base', String(taken - 50)],
        cluster.environment,
      )
      expect(code).to.equal(1)
      expect(output).to.match(/port \d+ for .* is taken: .*--port-base/)
    })

    it('keeps secrets out of arguments and logs, and from other users', async () => {
      const secrets = JSON.parse(readFileSync(`${cluster.data}/secrets.json`, 'utf8'))
      const values = [secrets.clusterSecret, ...Object.values(secrets.passwords)] as string[]
      const logs = readdirSync(`${cluster.data}/logs`).map(name => readFileSync(`${cluster.data}/logs/${name}`, 'utf8'))
      const commands = allPids(cluster).map(pid => readFileSync(`/proc/${pid}/cmdline`, 'utf8'))
      for (const text of [...logs, ...commands, cluster.output]) {
        for (const value of values) expect(text).to.not.include(value)
      }
    })

    it('ends in order and with code 0 on Ctrl-C', async () => {
      const pids = allPids(cluster)
      expect(await cluster.stop()).to.equal(0)
      expect(pids.some(isAlive)).to.equal(false)
    })
  })
})

/** Runs the command to its end. */
function run(args: readonly string[], env: NodeJS.ProcessEnv): Promise<{ code: number | null; output: string }> {
  return new Promise(resolve => {
    const child = spawn(process.execPath, [PROGRAM, ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] })
    let output = ''
    child.stdout.on('data', text => {
      output += text
    })
    child.stderr.on('data', text => {
      output += text
    })
    child.on('exit', code => resolve({ code, output }))
  })
}
