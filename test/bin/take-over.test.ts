import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect } from 'chai'
import { parseFileId } from '../../protocol/file-id.ts'
import { FastdfsWriter, sha256, unpackReal } from '../store/fastdfs-fixture.ts'

const PROGRAM = fileURLToPath(new URL('../../bin/dfs.js', import.meta.url))
/** Kills at times that lie in all parts of the work: it takes some hundred milliseconds in all. */
const KILLS = 6
const KILL_STEP_MS = 60

describe('dfs take-over and dfs export', () => {
  let directory: string
  let conf: string

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'dfs-take-over-'))
    conf = join(directory, 'storage.conf')
    const lines = [
      'group_name = group1',
      `base_path = ${join(directory, 'base')}`,
      'store_path_count = 1',
      `store_path0 = ${join(directory, 'store')}`,
      'tracker_server = 127.0.0.1:22122',
      'bind_addr = 127.0.0.1',
    ]
    writeFileSync(conf, `${lines.join('\n')}\n`)
  })
  afterEach(() => rmSync(directory, { recursive: true }))

  it('go there and back, killed in between, with the files of storage.conf', async () => {
    const listed = unpackReal(directory)
    const args = ['take-over', '--fastdfs-conf', conf, '--id', '7']
    let killed = 0
    for (let kill = 0; kill < KILLS; kill++) {
      const { child, ended } = start(args)
      const timer = setTimeout(() => child.kill('SIGKILL'), 200 + kill * KILL_STEP_MS)
      const { code } = await ended
      clearTimeout(timer)
      if (code === 0) break
      killed++
    }
    expect(killed).to.be.greaterThan(0)
    const last = await start([...args, '--json']).ended
    if (last.code === 0)
      expect(JSON.parse(last.stdout)).to.deep.include({ files: 39, damaged: 0, left: 0, metadata: 1 })
    else expect(last.stderr).to.match(/taken over already/)
    const to = join(directory, 'back')
    const back = await start(['export', '--fastdfs', to, '--fastdfs-conf', conf, '--subdir-count', '2']).ended
    expect(back.stdout).to.match(/^37 plain, 1 slave, 1 appender files, 0 in 0 trunk files\n {2}1 with metadata/)
    for (const { id, kind, sha256: sum } of listed) {
      if (kind !== 'plain') continue
      expect(sha256(readFileSync(join(to, 'store_path0/data', parseFileId(id).name.slice(4))))).to.equal(sum)
    }
  })

  it('say what is damaged, with an exit code of its own, and what has to be known first', async () => {
    const writer = new FastdfsWriter(directory)
    const name = writer.plain(Buffer.from('good'), { address: '10.0.0.2' })
    writeFileSync(writer.pathOf(name), 'bad!')
    writer.close()
    const args = ['take-over', '--fastdfs-conf', conf, '--id', '7']
    const refused = await start(args).ended
    expect(refused.code).to.equal(1)
    expect(refused.stderr).to.match(/--source 10\.0\.0\.2=<storage id>/)
    const { code, stdout } = await start([...args, '--source', '10.0.0.2=7']).ended
    expect(code).to.equal(5)
    expect(stdout).to.match(/ 1 damaged, 0 entries left alone\n {2}see .*natsdfs\/take-over\n$/)
  })

  it('wait for nobody, and refuse while FastDFS runs on its directory', async () => {
    unpackReal(directory)
    const fastdfs = spawn('bash', ['-c', 'exec -a fdfs_storaged sleep 60'], { stdio: 'ignore' })
    try {
      await new Promise(resolve => fastdfs.once('spawn', resolve))
      writeFileSync(join(directory, 'base/data/fdfs_storaged.pid'), `${fastdfs.pid}\n`)
      const args = ['take-over', '--fastdfs-conf', conf, '--id', '7']
      expect((await start(args).ended).stderr).to.match(/is the FastDFS storage server of .*: stop it first/)
      fastdfs.kill('SIGKILL')
      await new Promise(resolve => fastdfs.once('close', resolve))
      expect((await start(args).ended).code).to.equal(0)
    } finally {
      fastdfs.kill('SIGKILL')
    }
  })

  it('is told to whoever starts a storage server without it', async () => {
    unpackReal(directory)
    const credentials = join(directory, 'credentials.json')
    const values = { servers: [], user: 'u', password: 'p', inboxPrefix: '_INBOX_u', dataSecret: 'ab'.repeat(32) }
    writeFileSync(credentials, JSON.stringify(values), { mode: 0o600 })
    const files = ['--credentials', credentials, '--sync-credentials', credentials]
    const { code, stderr } = await start(['storage', '--fastdfs-conf', conf, '--id', '7', ...files]).ended
    expect(code).to.equal(1)
    expect(stderr).to.match(/dfs take-over/)
    expect(existsSync(join(directory, 'base/natsdfs'))).to.equal(false)
  })
})

function start(args: readonly string[]): {
  child: ChildProcess
  ended: Promise<{ code: number | null; stdout: string; stderr: string }>
} {
  const child = spawn(process.execPath, [PROGRAM, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  const output = { stdout: '', stderr: '' }
  child.stdout.on('data', text => {
    output.stdout += text
  })
  child.stderr.on('data', text => {
    output.stderr += text
  })
  const ended = new Promise<{ code: number | null; stdout: string; stderr: string }>(resolve => {
    child.on('close', code => resolve({ code, ...output }))
  })
  return { child, ended }
}
