/** The rules of the house, held against every source. Each rule is first shown to catch what breaks it. */
import { readdirSync, readFileSync } from 'node:fs'
import { isBuiltin } from 'node:module'
import { dirname, join, posix } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect } from 'chai'

interface Source {
  /** From the root of the repository. */
  readonly path: string
  readonly text: string
}

/** What breaks a rule in a source, one line for each: `path:line what`. */
type Rule = (source: Source) => string[]

/** This file runs as `dist/test/architecture.test.js`. */
const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..', '..')
const CODE = ['actors', 'bench', 'bin', 'client', 'protocol', 'runtime', 'store', 'test']
const TEXT = /\.(ts|mjs|md|json|conf|ya?ml|sh)$|^[^.]+$/

/** What each folder may import besides itself; folders that are not named may import everything. */
const BELOW: Record<string, readonly string[]> = {
  protocol: [],
  runtime: ['protocol'],
  store: ['protocol', 'runtime'],
  client: ['protocol', 'runtime'],
  actors: ['protocol', 'runtime', 'store'],
  'actors/gateway': ['protocol', 'runtime', 'store', 'client'],
}

/** Files of the bench that only calculate, or leave the machine to others. */
const BENCH_PURE = [
  'content',
  'frame-scanner',
  'load-result',
  'matrix',
  'pairs',
  'plot',
  'report',
  'row',
  'sample',
  'sdk-rows',
  'statistics',
]

/** Files that implement the World, and programs that are started in it: they alone may touch the machine. */
const WORLD = new RegExp(
  `^(runtime/real-[a-z-]+\\.ts|runtime/nats-bus\\.ts|(bin|test)/.*|bench/(?!(${BENCH_PURE.join('|')})\\.ts).*)$`,
)

/** Modules of Node that only calculate. */
const PURE_MODULES = ['assert', 'buffer', 'crypto', 'events', 'path', 'stream', 'string_decoder', 'url', 'util', 'zlib']

/** What reaches past the World, by name. Method names and names of our own are let through. */
const MACHINE: Record<string, RegExp> = {
  'the wall clock': /\bDate\.now\b|\bnew Date\s*(?:\(\s*\)|(?!\s*\())|(?<!new\s)(?<![\w.])Date\(/g,
  'a timer': /(?<![\w.])(?:setTimeout|setInterval|setImmediate)\b|\bAbortSignal\.timeout\b/g,
  randomness: /\bMath\.random\b|\b(?:randomBytes|randomUUID|randomInt|randomFill|randomFillSync|getRandomValues)\b/g,
  performance: /(?<![\w.])performance\s*[.[]/g,
  process: /(?<![\w.])process\s*\??[.[]/g,
  globalThis: /\bglobalThis\b/g,
  fetch: /(?:\bawait|\breturn|[=(,:?])\s*fetch\s*\(/g,
}

describe('the house', () => {
  const sources = CODE.flatMap(folder => sourcesBelow(folder))
  const texts = [...sources, ...sourcesBelow('docs'), ...sourcesIn('.')]

  it('is looked through', () => {
    expect(sources.length).greaterThan(100)
    const paths = sources.map(source => source.path)
    expect(paths).include.members(['protocol/frame.ts', 'actors/tracker/tracker.ts', 'test/architecture.test.ts'])
    expect(texts.map(source => source.path)).include.members(['README.md', 'nats-server.conf', 'docs/protocol.md'])
  })

  describe('imports go down only', () => {
    const importing = (path: string, from: string) => imports({ path, text: `import { x } from '${from}'\n` })

    for (const [path, from] of [
      ['protocol/frame.ts', '../runtime/timers.ts'],
      ['runtime/actor.ts', '../store/binlog.ts'],
      ['runtime/role.ts', '../actors/tracker/tracker.ts'],
      ['store/binlog.ts', '../actors/sync/sync.ts'],
      ['store/binlog.ts', '../client/client.ts'],
      ['client/client.ts', '../store/binlog.ts'],
      ['client/client.ts', '../bin/dfs.ts'],
      ['actors/sync/sync.ts', '../storage/storage.ts'],
      ['actors/sync/sync.ts', '../../client/client.ts'],
      ['actors/gateway/http.ts', '../tracker/tracker.ts'],
      ['actors/gateway/http.ts', '../../bin/dfs.ts'],
      ['runtime/actor.ts', '../test/until.ts'],
      ['runtime/actor.ts', '../bench/statistics.ts'],
    ] as const) {
      it(`not from ${path} to ${from}`, () => expect(importing(path, from)).length(1))
    }

    for (const [path, from] of [
      ['runtime/actor.ts', '../protocol/errors.ts'],
      ['runtime/actor.ts', './timers.ts'],
      ['runtime/nats-bus.ts', 'nats'],
      ['store/binlog.ts', '../runtime/world.ts'],
      ['client/client.ts', '../runtime/frame-pool.ts'],
      ['actors/sync/sync.ts', './replay-binlog.ts'],
      ['actors/sync/sync.ts', '../../store/binlog.ts'],
      ['actors/gateway/http.ts', '../../client/client.ts'],
      ['bin/dfs.ts', '../actors/tracker/start-tracker.ts'],
      ['bench/run-sdk-load.ts', '../client/index.ts'],
      ['test/actors/sync/sync.test.ts', '../../../actors/sync/sync.ts'],
    ] as const) {
      it(`but from ${path} to ${from}`, () => expect(importing(path, from)).deep.equal([]))
    }

    it('in whatever form they are written', () => {
      for (const text of [
        `import type { A } from '../store/binlog.ts'`,
        `import {\n  a,\n  b,\n} from "../store/binlog.ts"`,
        `import '../store/binlog.ts'`,
        `export * from '../store/binlog.ts'`,
        `export { a } from '../store/binlog.ts'`,
        `const a = await import('../store/binlog.ts')`,
        `type A = import('../store/binlog.ts').A`,
      ]) {
        expect(imports({ path: 'runtime/a.ts', text }), text).length(1)
      }
      expect(imports({ path: 'runtime/a.ts', text: `// import '../store/binlog.ts'` })).deep.equal([])
    })

    it('in every source', () => expectNone(imports, sources))
  })

  describe('nothing but the World touches the machine', () => {
    const inStore = (text: string) => world({ path: 'store/a.ts', text })

    for (const text of [
      'const now = Date.now()',
      'const now = new Date()',
      'const now = new Date( )',
      'const now = new Date',
      'const now = Date()',
      'setTimeout(f, 1)',
      'const timer = setInterval(f)',
      'setImmediate(f)',
      'const s = AbortSignal.timeout(5)',
      'const r = Math.random()',
      `import { randomBytes } from 'node:crypto'`,
      `import { randomUUID as id } from 'node:crypto'`,
      'crypto.randomInt(3)',
      'crypto.getRandomValues(a)',
      'const t = performance.now()',
      'const e = process.env.HOME',
      'const e = process["env"]',
      'const text = `$' + '{process.pid}`',
      `const process = spawn('x')\nprocess.env`,
      'globalThis.x = 1',
      `await fetch('http://x')`,
      `import { open } from 'node:fs'`,
      `import { open } from 'node:fs/promises'`,
      `import { connect } from 'node:net'`,
      `import { lookup } from 'node:dns'`,
      `import { lookup } from 'node:dns/promises'`,
      `import { spawn } from 'node:child_process'`,
      `import { cpus } from 'node:os'`,
      `import { setTimeout as f } from 'node:timers/promises'`,
      `import { createServer } from 'node:http'`,
      `import { Worker } from 'node:worker_threads'`,
      `import { connect } from 'nats'`,
      `import fs from 'fs'`,
      `const fs = await import('node:fs')`,
    ]) {
      it(`not by ${text.replaceAll('\n', ' ')}`, () => {
        expect(inStore(text)).not.deep.equal([])
        expect(world({ path: 'runtime/real-disk.ts', text })).deep.equal([])
        expect(world({ path: 'bin/dfs.ts', text })).deep.equal([])
        expect(world({ path: 'bench/generator.ts', text })).deep.equal([])
        expect(world({ path: 'bench/statistics.ts', text })).not.deep.equal([])
      })
    }

    for (const text of [
      'const at = new Date(clock.wallMs())',
      'timers.set(1, f)',
      'this.setTimeout(1)',
      '// as setTimeout does',
      '/**\n * Not Date.now().\n */',
      `throw new Error('no process.env here')`,
      'await this.#tracker.fetch(id)',
      'async fetch(id: string) {}',
      'const process = processes.spawn(p, a, o)\nprocess.kill(s)\nawait process.exited',
      `import { join } from 'node:path'`,
      `import { createHmac, timingSafeEqual } from 'node:crypto'`,
      `import { pino } from 'pino'`,
      'random.below(10)',
    ]) {
      it(`but by ${text.replaceAll('\n', ' ')}`, () => expect(inStore(text)).deep.equal([]))
    }

    it('in every source', () => expectNone(world, sources))
  })

  describe('no file names a path of somebody’s machine', () => {
    // Put together here, because this file is looked through too.
    const path = (...parts: string[]) => `/${parts.join('/')}`

    it('in code, comments or texts', () => {
      for (const text of [
        path('home', 'me', 'x'),
        path('root', 'x'),
        path('Users', 'me'),
        path('work', 'main'),
        path('tmp', 'x'),
      ]) {
        expect(machinePaths({ path: 'README.md', text: `see ${text}` })).length(1)
        expect(machinePaths({ path: 'store/a.ts', text: `const a = '${text}'` })).length(1)
      }
    })

    it('but paths of ours, and of every system', () => {
      const text = '/usr/local/bin /etc/dfs/cluster.json <path>/tmp/<token> data/tmp/x dist/work/x'
      expect(machinePaths({ path: 'README.md', text })).deep.equal([])
    })

    it('in every file', () => expectNone(machinePaths, texts))
  })

  describe('every test runs', () => {
    it('whatever somebody worked on alone or put aside', () => {
      for (const [what, how] of [
        ['describe', 'only'],
        ['it', 'only'],
        ['it', 'skip'],
        ['context', 'skip'],
      ]) {
        expect(focus({ path: 'test/a.test.ts', text: `${what}.${how}('x', () => {})` })).length(1)
      }
      for (const what of ['xit', 'xdescribe', 'fit']) {
        expect(focus({ path: 'test/a.test.ts', text: `  ${what}('x', () => {})` })).length(1)
      }
      expect(focus({ path: 'test/a.test.ts', text: `if (!there) this.skip()\nit('x')\nunit('y')` })).deep.equal([])
    })

    it('in every file', () => expectNone(focus, sources))
  })

  describe('no error is swallowed without a reason', () => {
    it('by an empty catch', () => {
      for (const head of ['catch', 'catch (error)']) {
        for (const body of ['{}', '{ }', '{\n}']) {
          expect(emptyCatch({ path: 'store/a.ts', text: `try { f() } ${head} ${body}` })).length(1)
        }
      }
      expect(emptyCatch({ path: 'store/a.ts', text: 'try { f() } catch {\n  // It was gone already.\n}' })).deep.equal(
        [],
      )
    })

    it('in every source', () => expectNone(emptyCatch, sources))
  })
})

/** Imports that go up, or sideways from one actor to another. */
function imports(source: Source): string[] {
  const [top = '', second = ''] = source.path.split('/')
  const own = top === 'actors' ? `actors/${second}` : top
  const below = BELOW[own] ?? BELOW[top]
  if (below === undefined) return []
  return importsOf(source).flatMap(({ from, line }) => {
    if (!from.startsWith('.')) return []
    const target = posix.join(posix.dirname(source.path), from)
    if ([own, ...below].some(folder => target.startsWith(`${folder}/`))) return []
    return [`${source.path}:${line} imports ${target}`]
  })
}

/** What reaches for the machine outside the World. */
function world(source: Source): string[] {
  if (WORLD.test(source.path)) return []
  const modules = importsOf(source).flatMap(({ from, line }) => {
    const isPure = !isBuiltin(from) || PURE_MODULES.includes(from.replace('node:', ''))
    return isPure && from !== 'nats' ? [] : [`${source.path}:${line} imports ${from}`]
  })
  const code = codeOf(source.text)
  // One of our own children may be called a process.
  const ours = /\b(?:const|let) process\b/.test(code) ? /\bprocess\.(?:pid|exited|kill)\b/g : /(?!)/g
  const uses = Object.entries(MACHINE).flatMap(([what, pattern]) =>
    placesOf(code.replace(ours, ' '), pattern).map(line => `${source.path}:${line} uses ${what}`),
  )
  return [...modules, ...uses]
}

function machinePaths({ path, text }: Source): string[] {
  const pattern = /(?<![\w.>})-])\/(?:work|root|home|Users|farm|mnt|tmp)\/[\w.-]/g
  return placesOf(text, pattern).map(line => `${path}:${line} names a path of a machine`)
}

function focus({ path, text }: Source): string[] {
  const pattern =
    /\b(?:describe|context|suite|it|test|specify)\.(?:only|skip)\s*\(|^\s*(?:xit|xdescribe|fit|fdescribe)\(/gm
  return placesOf(codeOf(text), pattern).map(line => `${path}:${line} runs some tests only`)
}

function emptyCatch({ path, text }: Source): string[] {
  const pattern = /\bcatch\s*(?:\([^)]*\)\s*)?\{\s*\}/g
  // The reason is a comment, so comments stay; texts that speak of it go.
  return placesOf(withoutTexts(text), pattern).map(line => `${path}:${line} swallows an error`)
}

const TOKENS = /\/\*[\s\S]*?\*\/|\/\/[^\n]*|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|`(?:\\[\s\S]|[^`\\])*`/g

/** The text with its comments blanked. */
function withoutComments(text: string): string {
  return text.replace(TOKENS, token => (token.startsWith('/') ? blank(token) : token))
}

/** The text with the insides of its strings blanked; templates stay, because they may hold code. */
function withoutTexts(text: string): string {
  return text.replace(TOKENS, token => (token.startsWith("'") || token.startsWith('"') ? blank(token) : token))
}

/** The text with nothing but code. */
function codeOf(text: string): string {
  return withoutTexts(withoutComments(text))
}

function blank(text: string): string {
  return text.replaceAll(/[^\n]/g, ' ')
}

/** What a source imports, in whatever form, and in which line. */
function importsOf(source: Source): { from: string; line: number }[] {
  const text = withoutComments(source.text)
  const pattern = /\b(?:from|import)\s*\(?\s*['"]([^'"\n]+)['"]/g
  return [...text.matchAll(pattern)].map(match => ({ from: match[1]!, line: lineOf(text, match.index) }))
}

/** The lines in which a pattern is found. */
function placesOf(text: string, pattern: RegExp): number[] {
  return [...text.matchAll(pattern)].map(match => lineOf(text, match.index))
}

function lineOf(text: string, index: number): number {
  return text.slice(0, index).split('\n').length
}

function expectNone(rule: Rule, sources: readonly Source[]): void {
  expect(sources.flatMap(rule).join('\n')).equal('')
}

function sourcesBelow(folder: string): Source[] {
  return readdirSync(join(ROOT, folder), { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile() && TEXT.test(entry.name))
    .map(entry => sourceAt(join(entry.parentPath, entry.name)))
}

function sourcesIn(folder: string): Source[] {
  return readdirSync(join(ROOT, folder), { withFileTypes: true })
    .filter(entry => entry.isFile() && TEXT.test(entry.name) && entry.name !== 'package-lock.json')
    .map(entry => sourceAt(join(ROOT, folder, entry.name)))
}

function sourceAt(file: string): Source {
  return { path: file.slice(ROOT.length + 1), text: readFileSync(file, 'utf8') }
}
