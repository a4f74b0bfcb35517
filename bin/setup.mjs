/**
 * Makes a fresh checkout ready to run: Node's packages, a nats-server, the built code. Says nothing when there is
 * nothing to do, one line for each thing it does. `npm start` and `npm test` begin with it.
 *
 * Plain JavaScript of the oldest Node that somebody may still have, so that it can tell them to get a newer one.
 */
import { spawnSync } from 'node:child_process'
import {
  accessSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { homedir } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const NODE_MIN = [20, 19]
const NATS_MODULE = 'github.com/nats-io/nats-server/v2'
const NATS_VERSION = 'v2.14.9'
const SOURCES = ['actors', 'bench', 'bin', 'client', 'protocol', 'runtime', 'store', 'test']

const root = dirname(dirname(fileURLToPath(import.meta.url)))
/** Where `runtime/nats-server.ts` looks too. */
const cache = join(homedir(), '.cache', 'natsdfs', 'bin')

checkNode()
installPackages()
installNatsServer()
build()

function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number)
  if (major > NODE_MIN[0] || (major === NODE_MIN[0] && minor >= NODE_MIN[1])) return
  fail(
    `natsdfs needs Node ${NODE_MIN.join('.')} or newer; this is ${process.versions.node}. Newer ones: https://nodejs.org`,
  )
}

function installPackages() {
  if (mtimeMs('node_modules/.package-lock.json') >= mtimeMs('package-lock.json')) return
  say('installing packages (npm install)')
  // Not `npm ci`: it refuses a lock file without the optional packages of every other platform, and not every registry
  // has them all. This takes the locked versions too, and leaves the lock file as it is.
  const npm = run('npm', ['install', '--no-save', '--no-audit', '--no-fund'])
  if (!npm.ok) fail(`npm install failed:\n${npm.output}`)
}

function installNatsServer() {
  if (hasNatsServer()) return
  for (const install of [natsFromGo, natsFromApt, natsFromBrew, natsFromApk]) {
    if (install() && hasNatsServer()) return
  }
  fail(`there is no nats-server, and no way here to get one. Any of these will do:
  brew install nats-server
  sudo apt-get install nats-server
  go install ${NATS_MODULE}@${NATS_VERSION}
  DFS_NATS_SERVER=/path/to/nats-server npm start`)
}

function hasNatsServer() {
  const told = process.env.DFS_NATS_SERVER
  if (told) return isProgram(told) || fail(`DFS_NATS_SERVER is ${told}: there is no such program`)
  const cached = existsSync(cache) ? readdirSync(cache).filter(name => name.startsWith('nats-server-v')) : []
  return cached.length > 0 || onPath('nats-server', ['/usr/sbin', '/usr/local/bin', '/opt/homebrew/bin']) !== undefined
}

/** Built in a directory of its own and then moved: a half-written program is never found. */
function natsFromGo() {
  const go = onPath('go', ['/usr/local/go/bin'])
  if (go === undefined) return false
  say(`building nats-server ${NATS_VERSION} (go install; a minute or two)`)
  return inCache(directory => {
    const built = run(go, ['install', `${NATS_MODULE}@${NATS_VERSION}`], { env: { ...process.env, GOBIN: directory } })
    if (!built.ok) say(`go install failed:\n${built.output}`)
    return built.ok ? join(directory, 'nats-server') : undefined
  })
}

/** Unpacked rather than installed: that needs no root, and the package would start a server of its own on port 4222. */
function natsFromApt() {
  if (onPath('apt-get') === undefined || onPath('dpkg') === undefined) return false
  say('unpacking nats-server (apt-get download)')
  return inCache(directory => {
    const download = () => run('apt-get', ['download', 'nats-server'], { cwd: directory })
    const isRoot = process.getuid() === 0
    let got = download()
    if (!got.ok && isRoot && run('apt-get', ['update']).ok) got = download()
    const archive = readdirSync(directory).find(name => name.endsWith('.deb'))
    if (!got.ok || archive === undefined || !run('dpkg', ['-x', archive, '.'], { cwd: directory }).ok) {
      say(`apt-get download failed:\n${got.output}`)
      return undefined
    }
    return join(directory, 'usr', 'sbin', 'nats-server')
  })
}

function natsFromBrew() {
  if (onPath('brew') === undefined) return false
  say('installing nats-server (brew)')
  return run('brew', ['install', 'nats-server']).ok
}

function natsFromApk() {
  if (onPath('apk') === undefined || process.getuid() !== 0) return false
  say('installing nats-server (apk)')
  return run('apk', ['add', 'nats-server']).ok
}

/** Keeps the program that `make` leaves in a temporary directory, under its version. */
function inCache(make) {
  mkdirSync(cache, { recursive: true })
  const directory = mkdtempSync(join(cache, '.new-'))
  try {
    const program = make(directory)
    if (program === undefined) return false
    const version = /v\d\S*/.exec(run(program, ['--version']).output)
    if (version === null) return false
    renameSync(program, join(cache, `nats-server-${version[0]}`))
    return true
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

/**
 * Runs the compiler if a source is newer than the last build without errors. A failing build ends `npm start`; `npm test`
 * goes on, because there it is one failed check among the others and the report is test/run.mjs's.
 */
function build() {
  const stamp = join(root, 'dist', '.built')
  const sources = SOURCES.flatMap(folder => walk(join(root, folder)))
  // What `npm run bench` leaves there is not built.
  const built = sources.filter(path => !path.startsWith(join(root, 'bench', 'results')))
  const inputs = [...built, join(root, 'tsconfig.json')]
  const newest = Math.max(...inputs.map(mtimeMs), mtimeMs('package-lock.json'))
  if (mtimeMs(stamp) >= newest) return
  say('building (tsc)')
  const startedAt = new Date()
  removeStale(join(root, 'dist'))
  const tsc = run(process.execPath, [join(root, 'node_modules', 'typescript', 'bin', 'tsc')])
  if (tsc.ok) {
    writeFileSync(stamp, '')
    // A source that was saved while the compiler ran is newer than what it read.
    utimesSync(stamp, startedAt, startedAt)
    return
  }
  rmSync(stamp, { force: true })
  if (process.env.npm_lifecycle_event !== 'test') fail(`the build failed:\n${tsc.output}`)
}

/** What a source that is gone was built into: a test of it would go on running. */
function removeStale(dist) {
  if (!existsSync(dist)) return
  for (const path of walk(dist)) {
    const source = path.replace(/(\.d\.ts|\.js)(\.map)?$/, '.ts')
    if (source !== path && !existsSync(join(root, source.slice(dist.length)))) rmSync(path)
  }
}

/** All paths below a directory, with the directories: theirs is the time when something was removed. */
function walk(directory) {
  if (!existsSync(directory)) return []
  const entries = readdirSync(directory, { withFileTypes: true })
  const below = entries.map(entry => {
    const path = join(directory, entry.name)
    return entry.isDirectory() ? walk(path) : [path]
  })
  return [directory, ...below.flat()]
}

/** When a path, relative to the repository or absolute, was changed; 0 if there is none. */
function mtimeMs(path) {
  try {
    return statSync(path.startsWith('/') ? path : join(root, path)).mtimeMs
  } catch {
    return 0
  }
}

/** Finds a program on the PATH or in other usual places. */
function onPath(name, elsewhere = []) {
  const directories = [...(process.env.PATH || '').split(delimiter).filter(part => part !== ''), ...elsewhere]
  return directories.map(directory => join(directory, name)).find(isProgram)
}

function isProgram(path) {
  try {
    accessSync(path, constants.X_OK)
    return statSync(path).isFile()
  } catch {
    return false
  }
}

function run(program, args, options = {}) {
  const { status, stdout, stderr, error } = spawnSync(program, args, { cwd: root, encoding: 'utf8', ...options })
  return { ok: status === 0, output: `${stdout || ''}${stderr || ''}${error ? error.message : ''}`.trim() }
}

function say(line) {
  console.log(`setup: ${line}`)
}

function fail(message) {
  console.error(`setup: ${message}`)
  process.exit(1)
}
