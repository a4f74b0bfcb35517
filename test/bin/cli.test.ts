/** The `dfs` command as people use it: against a real cluster, with real files. */
import { spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { crc32 } from '@node-rs/crc32'
import { expect } from 'chai'
import { RunningCluster } from '../running-cluster.ts'

const PROGRAM = fileURLToPath(new URL('../../bin/dfs.js', import.meta.url))
const MIB = 2 ** 20
/** Well formed, but of a file that was never stored. */
const UNKNOWN = 'group1/M00/00/00/AQAAAGkf3nGAAAAqAAAQABcT3q4123.jpg'

interface Ended {
  readonly code: number | null
  readonly stdout: Buffer
  readonly stderr: string
}

interface RunOptions {
  readonly stdin?: Uint8Array
  readonly environment?: NodeJS.ProcessEnv
  /** Press Ctrl-C at the first output. */
  readonly interruptAfterOutput?: boolean
  /** Stop reading, as `head` does, after the first output. */
  readonly closeAfterOutput?: boolean
}

const SUCCESS = 'success_upload_count'

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')
const linesOf = (stdout: Buffer) => stdout.toString().split('\n').slice(0, -1)

describe('the dfs command', () => {
  let cluster: RunningCluster
  let directory: string
  before(async () => {
    directory = mkdtempSync(join(tmpdir(), 'dfs-cli-'))
    cluster = await RunningCluster.start()
  })
  after(async () => {
    rmSync(directory, { recursive: true, force: true })
    await cluster?.remove()
  })

  function run(args: readonly string[], options: RunOptions = {}): Promise<Ended> {
    const child = spawn(process.execPath, [PROGRAM, ...args], {
      cwd: directory,
      env: options.environment ?? cluster.environment,
      stdio: ['pipe', 'pipe', 'pipe'],
    })
    const stdout: Buffer[] = []
    let stderr = ''
    child.stdin.on('error', () => undefined)
    child.stdin.end(options.stdin)
    child.stdout.on('data', piece => stdout.push(piece))
    child.stdout.once('data', () => {
      if (options.interruptAfterOutput) {
        child.stdout.pause()
        child.kill('SIGINT')
      }
      if (options.closeAfterOutput) child.stdout.destroy()
    })
    child.stderr.on('data', text => {
      stderr += text
    })
    child.on('exit', () => child.stdout.resume())
    return new Promise(resolve => {
      child.on('close', code => resolve({ code, stdout: Buffer.concat(stdout), stderr }))
    })
  }

  /** Runs what must succeed without a word on stderr; returns the lines of stdout. */
  async function lines(...args: string[]): Promise<string[]> {
    const { code, stdout, stderr } = await run(args)
    expect({ code, stderr }).to.deep.equal({ code: 0, stderr: '' })
    return linesOf(stdout)
  }

  function write(name: string, bytes: Uint8Array): string {
    writeFileSync(join(directory, name), bytes)
    return name
  }

  const read = (name: string) => readFileSync(join(directory, name))

  async function upload(bytes: Uint8Array): Promise<string> {
    const { code, stdout } = await run(['upload', '-q', '-'], { stdin: bytes })
    expect(code).to.equal(0)
    return linesOf(stdout)[0]!
  }

  describe('token', () => {
    const SECRET = 'FastDFS1234567890'
    const ID = 'group1/M00/00/00/AQAAAGkf3nGAAAAqAAAQABcT3q4123.jpg'
    const TOKEN = 'd7ea6014e36285a3ade9709ec56531a2'
    const withSecret = () => ({ ...cluster.environment, DFS_ANTI_LEECH_SECRET: SECRET })

    it('prints what has to be behind the name of the server, with the secret from a file or the environment', async () => {
      const link = `${ID}?token=${TOKEN}&ts=1700000000`
      const file = write('secret', Buffer.from(`${SECRET}\n`))
      expect(await lines('token', ID, '--ts', '1700000000', '--secret-file', file)).to.deep.equal([link])
      const { code, stdout } = await run(['token', ID, '--ts', '1700000000', '--json'], { environment: withSecret() })
      expect({ code, ...JSON.parse(stdout.toString()) }).to.deep.equal({ code: 0, fileId: ID, token: TOKEN, ts: 1.7e9 })
    })

    it('takes the time of the machine', async () => {
      const before = Math.floor(Date.now() / 1000)
      const { stdout } = await run(['token', ID, '--json'], { environment: withSecret() })
      expect(JSON.parse(stdout.toString()).ts).to.be.within(before, Math.ceil(Date.now() / 1000))
    })

    for (const [what, args, message] of [
      ['no secret', [ID], 'a token takes a secret'],
      ['a file that is not there', [ID, '--secret-file', 'nowhere'], 'nowhere: there is no such file'],
      ['what is no file id', ['group1/photo.jpg', '--secret-file', 'secret'], 'this is not the name of a file'],
      ['a time that is none', [ID, '--ts', '-1'], 'a whole number'],
    ] as const) {
      it(`says so of ${what}, and exits with 2`, async () => {
        write('secret', Buffer.from(SECRET))
        const { code, stdout, stderr } = await run(['token', ...args])
        expect({ code, stdout: stdout.toString() }).to.deep.equal({ code: 2, stdout: '' })
        expect(stderr).to.include(message).and.not.include(SECRET)
      })
    }
  })

  describe('upload and download', () => {
    for (const [text, sizeBytes] of [
      ['0 B', 0],
      ['1 B', 1],
      ['4 KiB', 4096],
      ['1 MiB', MIB],
      ['20 MiB', 20 * MIB],
    ] as const) {
      it(`bring ${text} there and back`, async () => {
        const bytes = randomBytes(sizeBytes)
        const [fileId, ...rest] = await lines('upload', write(`size-${sizeBytes}.bin`, bytes))
        expect(rest).to.deep.equal([])
        expect(fileId).to.match(/^group1\/M00\/.*\.bin$/)
        expect(await lines('download', fileId!, '-o', 'back.bin')).to.deep.equal(['back.bin'])
        expect(sha256(read('back.bin'))).to.equal(sha256(bytes))
        expect(existsSync(join(directory, 'back.bin.part'))).to.equal(false)
      })
    }

    it("give a download the name of the id's last part, also in a directory that is named", async () => {
      const fileId = await upload(Buffer.from('named'))
      expect(await lines('download', fileId)).to.deep.equal([basename(fileId)])
      mkdirSync(join(directory, 'into'))
      expect(await lines('download', fileId, '--output', 'into')).to.deep.equal([join('into', basename(fileId))])
      expect(read(join('into', basename(fileId))).toString()).to.equal('named')
    })

    it('take standard input and give standard output, byte for byte', async () => {
      const bytes = randomBytes(3 * MIB + 17)
      const sent = await run(['upload', '-', '--ext', '.bin', '--json'], { stdin: bytes })
      const { path, fileId, sizeBytes } = JSON.parse(sent.stdout.toString())
      expect({ code: sent.code, path, sizeBytes }).to.deep.equal({ code: 0, path: '-', sizeBytes: bytes.length })
      expect(fileId).to.match(/\.bin$/)
      const received = await run(['download', fileId, '-o', '-'])
      expect(received.code).to.equal(0)
      expect(sha256(received.stdout)).to.equal(sha256(bytes))
    })

    it('say who holds a file that more members were to hold, as JSON, and its id alone otherwise', async () => {
      const name = write('acknowledged.txt', Buffer.from('held by both'))
      const [json] = await lines('upload', '--ack', 'all', '--json', name)
      const { fileId, receipt } = JSON.parse(json!)
      expect(receipt).to.deep.include({ replicas: 2, durable: true, epoch: 1 })
      for (const { id } of cluster.ports.storages) {
        expect(cluster.readFromDisk(id, fileId)?.toString()).to.equal('held by both')
      }
      expect(await lines('upload', '--ack', 'quorum', name)).to.have.lengthOf(1)
      const wrong = await run(['upload', '--ack', 'most', name])
      expect(wrong.code).to.equal(2)
      expect(wrong.stderr).to.match(/one, quorum, all/)
    })

    it('give a range of a file, to a file or to standard output', async () => {
      const bytes = randomBytes(MIB)
      const fileId = await upload(bytes)
      const { stdout } = await run(['download', fileId, '-o', '-', '--offset', '1000', '--length', '300000'])
      expect(stdout.equals(bytes.subarray(1000, 301_000))).to.equal(true)
      await lines('download', fileId, '-o', 'range.bin', '--offset', '1048000')
      expect(read('range.bin').equals(bytes.subarray(1_048_000))).to.equal(true)
      await lines('download', fileId, '-o', 'nothing.bin', '--length', '0')
      expect(read('nothing.bin')).to.have.length(0)
    })

    it('refuse a range past the end and leave no file', async () => {
      const fileId = await upload(Buffer.from('short'))
      const { code, stderr } = await run(['download', fileId, '-o', 'past.bin', '--offset', '6'])
      expect(code).to.equal(1)
      expect(stderr).to.match(/^dfs: group1.*: the file has 5 bytes \(bad_range\)\n$/)
      expect(existsSync(join(directory, 'past.bin'))).to.equal(false)
    })

    it('go on from a .part, and notice one that is of another file', async () => {
      const bytes = randomBytes(5 * MIB)
      const fileId = await upload(bytes)
      write('cut.bin.part', bytes.subarray(0, 2 * MIB + 5))
      const [json] = await lines('download', fileId, '-o', 'cut.bin', '--continue', '--json')
      expect(JSON.parse(json!)).to.deep.equal({ fileId, path: 'cut.bin', sizeBytes: bytes.length })
      expect(sha256(read('cut.bin'))).to.equal(sha256(bytes))

      write('wrong.bin.part', randomBytes(2 * MIB))
      const { code, stderr } = await run(['download', fileId, '-o', 'wrong.bin', '--continue'])
      expect(code).to.equal(1)
      expect(stderr).to.contain('digest_mismatch')
      expect(readdirSync(directory).filter(name => name.startsWith('wrong.bin'))).to.deep.equal([])
    })

    it('write into what is no regular file instead of replacing it', async () => {
      const fileId = await upload(Buffer.from('gone'))
      await lines('download', fileId, '-o', '/dev/null')
      expect(existsSync('/dev/null.part')).to.equal(false)
    })

    it('do not mind a reader that has seen enough', async () => {
      const fileId = await upload(randomBytes(20 * MIB))
      const { code, stderr } = await run(['download', fileId, '-o', '-'], { closeAfterOutput: true })
      expect({ code, stderr }).to.deep.equal({ code: 0, stderr: '' })
    })

    it('end with 130 on Ctrl-C', async () => {
      const fileId = await upload(randomBytes(20 * MIB))
      const { code, stderr } = await run(['download', fileId, '-o', '-'], { interruptAfterOutput: true })
      expect(code).to.equal(130)
      expect(stderr).to.match(/^dfs: group1.*: interrupted\n$/)
    })
  })

  describe('upload of several files', () => {
    it('walks a directory with -r and prints one JSON object a file, in order', async () => {
      const files = new Map<string, Buffer>()
      for (let i = 0; i < 60; i++) {
        const name = join('tree', `d${i % 7}`, `f${i}.txt`)
        mkdirSync(join(directory, 'tree', `d${i % 7}`), { recursive: true })
        files.set(name, randomBytes(i * 100))
        write(name, files.get(name)!)
      }
      const uploaded = (await lines('upload', '-r', 'tree', '--json')).map(line => JSON.parse(line))
      expect(uploaded.map(({ path }) => path)).to.deep.equal([...files.keys()].sort())
      const client = await cluster.connect()
      try {
        for (const { path, fileId, sizeBytes, crc32 } of uploaded) {
          const bytes = await client.download(fileId)
          expect(bytes.equals(files.get(path)!), path).to.equal(true)
          expect(await client.info(fileId)).to.include({ sizeBytes, crc32 })
        }
      } finally {
        await client.close()
      }
    })

    it('reports one that fails, goes on with the others, and exits with 5', async () => {
      const { code, stdout, stderr } = await run([
        'upload',
        write('a', randomBytes(9)),
        'nosuch',
        write('b', randomBytes(9)),
      ])
      expect(code).to.equal(5)
      expect(linesOf(stdout)).to.have.length(2)
      expect(stderr).to.equal('dfs: cannot read nosuch: no such file or directory\n')
    })

    it('refuses a directory without -r', async () => {
      mkdirSync(join(directory, 'plain'), { recursive: true })
      const { code, stderr } = await run(['upload', 'plain'])
      expect({ code, stderr }).to.deep.equal({
        code: 1,
        stderr: 'dfs: plain is a directory; -r uploads what is in it\n',
      })
    })

    it('sends files with the same key, or a named group, where they belong', async () => {
      const [fileId] = await lines('upload', '--group', 'group1', '--key', 'user-1', write('k', randomBytes(9)))
      expect(fileId).to.match(/^group1\//)
    })

    it('refuses a group nobody has heard of with 3', async () => {
      const { code, stderr } = await run(['upload', '--group', 'group9', write('g', randomBytes(9))])
      expect(code).to.equal(3)
      expect(stderr).to.match(/^dfs: g: .*\(unknown_group\)\n$/)
    })
  })

  describe('info and rm', () => {
    it('say what is known of a file, and delete it', async () => {
      const bytes = Buffer.from('123456789')
      const fileId = await upload(bytes)
      const [json] = await lines('info', fileId, '--json')
      const details = JSON.parse(json!)
      expect(details).to.include({ fileId, sizeBytes: 9, crc32: 0xcbf43926 })
      const text = await lines('info', fileId)
      expect(text.slice(0, 3)).to.deep.equal([fileId, '  size     9 B', '  crc32    cbf43926'])
      expect(text[4]).to.equal(`  source   storage server ${details.source}`)

      expect(await lines('rm', fileId)).to.deep.equal([])
      for (const command of ['info', 'download', 'rm']) {
        const { code, stdout, stderr } = await run([command, fileId])
        expect({ command, code, stdout: stdout.length, stderr }).to.deep.equal({
          command,
          code: 3,
          stdout: 0,
          stderr: `dfs: ${fileId}: there is no such file (not_found)\n`,
        })
      }
      expect(readdirSync(directory)).not.to.include(`${basename(fileId)}.part`)
    })

    it('list files, by group, time and beginning, for people and for programs', async () => {
      const stored = await run(['upload', '-'], { stdin: Buffer.from('listed') })
      const [id = ''] = linesOf(stored.stdout)
      const listed = await run(['ls', '--group', 'group1', '--since', '1h', '--json'])
      const files = linesOf(listed.stdout).map(line => JSON.parse(line))
      const file = files.find(({ fileId }) => fileId === id)
      expect(file).to.include({ kind: 'segment', sizeBytes: 6, crc32: crc32('listed') })
      expect(new Set(files.map(({ fileId }) => fileId)).size).to.equal(files.length)
      const [line = '', ...more] = linesOf((await run(['ls', '--prefix', id])).stdout)
      expect(more).to.deep.equal([])
      expect(line).to.match(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ {2}segment {2,}6 {2}[0-9a-f]{8} {2}group1\/M00\S+$/)
      await run(['rm', id])
      expect((await run(['ls', '--prefix', id])).stdout.toString()).to.equal('')
      expect((await run(['ls', '--since', 'yesterday'])).code).to.equal(2)
    })

    it('tell of each of several files, and exit with 5 if some are missing', async () => {
      const fileId = await upload(Buffer.from('here'))
      const { code, stdout, stderr } = await run(['rm', '--json', UNKNOWN, fileId])
      expect(code).to.equal(5)
      expect(linesOf(stdout).map(line => JSON.parse(line))).to.deep.equal([{ fileId, deleted: true }])
      expect(stderr).to.contain(UNKNOWN)
    })

    it('exit with 3 for a file that never was, and with 2 for what is no file id', async () => {
      expect((await run(['info', UNKNOWN])).code).to.equal(3)
      const { code, stderr } = await run(['info', '../etc/passwd'])
      expect(code).to.equal(2)
      expect(stderr).to.match(/^dfs: \.\.\/etc\/passwd: .*\(bad_file_id\)\n$/)
    })
  })

  describe('files that change', () => {
    it('get metadata, slave files and more bytes', async () => {
      const path = join(directory, 'part.log')
      writeFileSync(path, 'more')
      const fileId = await upload(Buffer.from('master'))
      await lines('meta', 'set', fileId, 'width=100', 'author=Ada')
      await lines('meta', 'set', fileId, '--merge', 'width=200')
      expect(await lines('meta', 'get', fileId)).to.deep.equal(['author=Ada', 'width=200'])
      expect((await run(['meta', 'set', fileId, 'nothing'])).code).to.equal(2)
      const [slave] = await lines('slave', fileId, '_small', path)
      expect(slave).to.match(/_small\.log$/)
      expect((await run(['download', slave!, '-o', '-'])).stdout.toString()).to.equal('more')
      expect((await run(['slave', fileId, '_small', path])).code).to.equal(1)

      const [link] = await lines('link', slave!)
      expect(link).to.match(/\.log$/)
      expect(await lines('link', slave!, fileId, '_linked')).to.deep.equal([`${fileId}_linked.log`])
      for (const made of [link!, `${fileId}_linked.log`]) {
        expect((await run(['download', made, '-o', '-'])).stdout.toString()).to.equal('more')
      }
      expect((await run(['link', slave!, fileId, '_linked'])).code).to.equal(1)

      const [appender] = await lines('upload', '--appender', path)
      await lines('append', appender!, path)
      await lines('modify', appender!, path, '--offset', '2')
      await lines('truncate', appender!, '--size', '7')
      expect((await run(['download', appender!, '-o', '-'])).stdout.toString()).to.equal('momorer')
      const [plain] = await lines('regenerate', appender!)
      expect((await run(['download', plain!, '-o', '-'])).stdout.toString()).to.equal('momorer')
      expect((await run(['info', appender!])).code).to.equal(3)
    })
  })

  describe('status, monitor and doctor', () => {
    it('show the cluster to people', async () => {
      const text = (await lines('status')).join('\n')
      expect(text).to.match(/^natsdfs +0\.\d+\.\d+, as tracker-1 sees it\n/)
      expect(text).to.match(/NATS +\d+\.\d+\.\d+, JetStream on/)
      expect(text)
        .to.match(/trackers +tracker-1/)
        .and.to.match(/gateways +gateway-1/)
      expect(text).to.match(/group1 +2 of 2 +/)
      for (const { id, host, port } of cluster.ports.storages) {
        expect(text).to.match(new RegExp(`\n${id} +group1 +${host}:${port} +active `))
      }
    })

    it('show the cluster to programs', async () => {
      const [json, ...rest] = await lines('status', '--json')
      expect(rest).to.deep.equal([])
      const { storages, groups, syncLags, stale } = JSON.parse(json!)
      expect(stale).to.equal(false)
      expect(groups).to.have.length(1)
      expect(storages).to.have.length(2)
      expect(syncLags.map(({ source, peer }: { source: number; peer: number }) => [source, peer])).to.deep.equal([
        [1, 2],
        [2, 1],
      ])
    })

    it('tell what fdfs_monitor tells, of all groups or of one', async () => {
      await upload(Buffer.from('counted'))
      const all = await lines('monitor')
      expect(all).to.include.members(['group count: 1', 'group name = group1', '    Storage 2:'])
      const one = await lines('monitor', 'group1')
      for (const line of one) expect(line).to.match(/^( *Storage \d:| *[\w. ]+ =( .*)?|.*count: .*|Group 1:|)$/)
      const said = one.filter(line => /^ {8}(host|success_upload_count) = /.test(line))
      expect(said.map(line => line.trim().split(' = ')[0])).to.deep.equal(['host', SUCCESS, 'host', SUCCESS])
      const [json] = await lines('monitor', 'group1', '--json')
      expect(JSON.parse(json!).storages).to.have.length(2)
      expect((await run(['monitor', 'group9'])).code).to.equal(3)
    })

    it('find the cluster by file, by credentials and by address', async () => {
      const { DFS_CLUSTER, ...environment } = cluster.environment
      const { credentials, nats } = cluster.ports
      const by = [
        ['--cluster', DFS_CLUSTER!],
        ['--credentials', credentials.client!, '--nats', nats],
        // By the pointer that `dfs up` left in its home.
        [],
      ]
      for (const flags of by) expect((await run(['status', ...flags], { environment })).code).to.equal(0)
    })

    it('watch until Ctrl-C, which is no failure', async () => {
      const { code, stdout, stderr } = await run(['status', '--watch', '--json'], { interruptAfterOutput: true })
      expect({ code, stderr }).to.deep.equal({ code: 0, stderr: '' })
      expect(JSON.parse(linesOf(stdout)[0]!).trackerId).to.equal('tracker-1')
    })

    it('check everything, one line each', async () => {
      const { code, stdout } = await run(['doctor'])
      const checks = linesOf(stdout)
      for (const line of checks) expect(line).to.match(/^(ok {4}|warn {2}|fail {2})\S/)
      for (const what of [
        'Node',
        'NATS answers',
        'JetStream',
        'tracker: tracker-1',
        'gateway: gateway-1',
        'store path M00',
      ]) {
        expect(
          checks.some(line => line.startsWith('ok') && line.includes(what)),
          what,
        ).to.equal(true)
      }
      expect(code).to.equal(checks.some(line => line.startsWith('fail')) ? 1 : 0)

      const json = JSON.parse((await run(['doctor', '--json'])).stdout.toString())
      expect(json.checks).to.have.length(checks.length)
      expect(json.checks[0]).to.have.keys('level', 'text')
    })
  })

  describe('without a cluster', () => {
    const nowhere = () => {
      const { DFS_CLUSTER, ...environment } = cluster.environment
      return { environment: { ...environment, DFS_HOME: join(directory, 'nowhere') } }
    }

    it('says so and exits with 4', async () => {
      for (const args of [
        ['upload', write('w', randomBytes(1))],
        ['download', UNKNOWN],
        ['info', UNKNOWN],
        ['status'],
      ]) {
        const { code, stderr } = await run(args, nowhere())
        expect(code, args.join(' ')).to.equal(4)
        expect(stderr).to.match(/^dfs: .*no running cluster is known here; start one with `dfs up` \(unavailable/)
      }
    })

    it('names the NATS that does not answer', async () => {
      const flags = ['--credentials', cluster.ports.credentials.client!, '--nats', 'nats://127.0.0.1:1']
      const { code, stderr } = await run(['status', ...flags], nowhere())
      expect(code).to.equal(4)
      expect(stderr).to.contain('NATS does not answer at nats://127.0.0.1:1')
    })

    it('lets the doctor say what to do', async () => {
      const { code, stdout } = await run(['doctor'], nowhere())
      expect(code).to.equal(1)
      expect(stdout.toString()).to.match(/^fail {2}no running cluster is known here.* {2}- start a cluster/m)
    })
  })

  describe('the command line', () => {
    it('explains every command with examples', async () => {
      for (const command of ['upload', 'download', 'info', 'rm', 'status', 'monitor', 'doctor']) {
        const text = (await lines(command, '--help')).join('\n')
        expect(text).to.contain(`\nExamples:\n  `).and.to.contain(`  dfs ${command}`)
        for (const flag of ['--json', '--cluster', '--credentials', '--nats']) expect(text).to.contain(flag)
      }
      expect((await lines('--help')).join('\n'))
        .to.contain('Exit codes:')
        .and.to.contain('cannot be reached')
    })

    it('exits with 2 when it makes no sense', async () => {
      const senseless = [
        ['upload'],
        ['upload', '--nosuch', 'x'],
        ['upload', '-', '-'],
        ['upload', '--ext', 'much-too-long', write('x', randomBytes(1))],
        ['download', UNKNOWN, '-o', '-', '--continue'],
        ['download', UNKNOWN, '-o', '-', '--json'],
        ['download', UNKNOWN, '--offset', 'far'],
        ['nosuch'],
      ]
      for (const args of senseless) {
        const { code, stdout, stderr } = await run(args)
        expect({ args, code, stdout: stdout.length }).to.deep.equal({ args, code: 2, stdout: 0 })
        expect(stderr).not.to.equal('')
      }
    })

    it('shows the stack of an error only if asked to', async () => {
      const quiet = await run(['info', UNKNOWN])
      const loud = await run(['info', UNKNOWN], { environment: { ...cluster.environment, DFS_LOG: 'debug' } })
      expect(quiet.stderr).not.to.contain('    at ')
      expect(loud.stderr).to.contain('    at ')
    })
  })
})
