import { readdirSync, readFileSync } from 'node:fs'
import { expect } from 'chai'
import { protocolDoc } from '../bin/protocol-doc.ts'
import { ERRORS } from '../protocol/errors.ts'
import { COMMANDS } from '../protocol/frame.ts'

/** This file runs as `dist/test/protocol-doc.test.js`. */
const ROOT = new URL('../../', import.meta.url)
const read = (path: string) => readFileSync(new URL(path, ROOT), 'utf8')

describe('docs/protocol.md', () => {
  const doc = protocolDoc()

  it('says what the definitions say now', () => {
    const isCurrent = read('docs/protocol.md') === doc
    expect(isCurrent, 'it is not: run `node dist/bin/protocol-doc.js > docs/protocol.md`').equal(true)
  })

  it('names every error code, with its status, its errno and its meaning', () => {
    for (const [code, { status, errno, retryable, about }] of Object.entries(ERRORS)) {
      expect(doc).contain(`| \`${code}\` | ${status} | ${errno} | ${retryable ? 'yes' : 'no'} | ${about} |`)
    }
  })

  it('names every message of every file that defines some', () => {
    const files = readdirSync(new URL('protocol/', ROOT)).filter(name => name.endsWith('-messages.ts'))
    expect(files).include('tracker-messages.ts')
    for (const file of files) {
      const names = [...read(`protocol/${file}`).matchAll(/^ {2}name: '([^']+)'/gm)].map(match => match[1]!)
      expect(names, file).not.deep.equal([])
      for (const name of names) expect(doc, file).contain(`### ${name}\n`)
    }
  })

  it('names every command of a frame once', () => {
    for (const [name, number] of Object.entries(COMMANDS)) {
      expect(doc.split(`| ${number} | \`${name}\` |`), name).length(2)
    }
  })

  it('links to nothing that it does not describe', () => {
    const headings = new Set([...doc.matchAll(/^#+ (.+)$/gm)].map(match => `#${match[1]!.toLowerCase()}`))
    for (const [, anchor] of doc.matchAll(/\]\((#[^)]+)\)/g)) expect([...headings]).include(anchor)
  })

  it('leaves no type unsaid', () => {
    expect(doc).not.match(/undefined|\[object|NaN/)
  })
})
