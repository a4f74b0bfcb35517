/**
 * `npm test`: checks format and lint, types, and runs every test. Arguments go to mocha: `npm test -- --grep binlog`.
 * The last line is `N passed, N failed`, with `, N skipped` if any; a failing check is one failure.
 */
import { spawn, spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const TEST_TIMEOUT_MS = 60_000
const TEST_SLOW_MS = 1_000
/** How long the process may live on after the last test. */
const END_LIMIT_MS = 30_000
/** These calculate, and take as long as all others, which mostly wait: beside each other both take half the time. */
const CALCULATING = ['dist/test/simulation/*.test.js']

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const modules = join(root, 'node_modules')
const total = { passed: 0, failed: 0, skipped: 0 }

check('format and lint', join(modules, '@biomejs', 'biome', 'bin', 'biome'), ['check', '--error-on-warnings', '.'])
// bin/setup.mjs leaves this mark of a build without errors; without it the compiler says again what is wrong.
if (existsSync(join(root, 'dist', '.built'))) report('types', true)
else check('types', join(modules, 'typescript', 'bin', 'tsc'), ['--noEmit'])
const args = process.argv.slice(2)
await Promise.all([
  runMocha([...args, ...CALCULATING.flatMap(path => ['--ignore', path]), 'dist/test/**/*.test.js'], 'inherit'),
  runMocha([...args, ...CALCULATING], 'pipe'),
])

const skipped = total.skipped > 0 ? `, ${total.skipped} skipped` : ''
console.log(`${total.passed} passed, ${total.failed} failed${skipped}`)
process.exitCode = total.failed > 0 ? 1 : 0

function check(name, script, args) {
  const { status, stdout, stderr, error } = spawnSync(process.execPath, [script, ...args], {
    cwd: root,
    encoding: 'utf8',
  })
  report(name, status === 0)
  if (status !== 0) console.log(`${stdout ?? ''}${stderr ?? ''}${error?.message ?? ''}`)
}

function report(name, passed) {
  total[passed ? 'passed' : 'failed'] += 1
  console.log(`${passed ? '✔' : '✘'} ${name}`)
}

/**
 * The reporter sends its counts as they change, so that they survive a run that breaks off. A run whose process does not
 * end by itself has a test that left something open, and has failed. What is piped is printed as a whole at the end.
 */
function runMocha(args, output) {
  const options = ['--timeout', String(TEST_TIMEOUT_MS), '--slow', String(TEST_SLOW_MS)]
  const mocha = spawn(
    process.execPath,
    [
      ...['--enable-source-maps', join(modules, 'mocha', 'bin', 'mocha.js'), ...options],
      ...['--reporter', join(root, 'test', 'reporter.mjs'), ...args],
    ],
    { cwd: root, stdio: ['inherit', output, output, 'ipc'] },
  )
  const printed = []
  for (const stream of [mocha.stdout, mocha.stderr]) stream?.on('data', piece => printed.push(piece))
  let counts = { passed: 0, failed: 0, skipped: 0, finished: false }
  let limit
  mocha.on('message', message => {
    counts = message
    if (counts.finished) limit = setTimeout(() => mocha.kill('SIGKILL'), END_LIMIT_MS)
  })
  return new Promise(resolve => {
    mocha.on('close', (code, signal) => {
      clearTimeout(limit)
      process.stdout.write(Buffer.concat(printed))
      for (const name of Object.keys(total)) total[name] += counts[name]
      if (signal === 'SIGKILL' && counts.finished) report('every test closes what it opened', false)
      else if (!counts.finished || (code !== 0 && counts.failed === 0)) {
        report(`mocha runs to its end (${signal ?? `code ${code}`})`, false)
      }
      resolve()
    })
  })
}
