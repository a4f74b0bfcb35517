import { cp, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect } from 'chai'
import { realWorld } from '../../runtime/real-world.ts'
import { DocumentDamagedError, readDocument, writeDocument } from '../../store/durable-document.ts'
import { type CallPattern, FaultyDisk } from './faulty-disk.ts'
import { rejection, Workshop } from './store-fixture.ts'

const OLD = { version: 1, name: 'old', text: 'ä€\u{1f600}' }
const NEW = { version: 1, name: 'new', list: [1, 2, 3] }

describe('durable document', () => {
  const { disk } = realWorld()
  let workshop: Workshop
  let path: string

  beforeEach(async () => {
    workshop = await Workshop.make()
    path = join(workshop.path, 'document')
  })
  afterEach(() => workshop.remove())

  it('is undefined if there is none', async () => {
    expect(await readDocument(disk, path)).to.equal(undefined)
  })

  it('is a line of JSON and a line with its CRC32C', async () => {
    await writeDocument(disk, path, { version: 1, epoch: 7 })
    expect(await readFile(path, 'utf8')).to.equal('{"version":1,"epoch":7}\nbc893d6d\n')
  })

  it('is read as it was written, also when it replaced another', async () => {
    await writeDocument(disk, path, OLD)
    expect(await readDocument(disk, path)).to.deep.equal(OLD)
    await writeDocument(disk, path, NEW)
    expect(await readDocument(disk, path)).to.deep.equal(NEW)
    expect(await readdir(workshop.path)).to.deep.equal(['document'])
  })

  it('is the old one or the new one after a crash at any step, and can be written again', async () => {
    const steps: CallPattern[] = [
      { action: 'open', mode: 'create' },
      { action: 'write' },
      { action: 'sync' },
      { action: 'rename' },
      { action: 'syncDirectory' },
    ]
    await writeDocument(disk, path, OLD)
    for (const step of steps) {
      const faulty = new FaultyDisk(disk)
      faulty.fail(step, 'EIO', { keptBytes: 10 })
      expect(await rejection(writeDocument(faulty, path, NEW))).to.include({ errno: 'EIO' })
      const left = await readDocument(disk, path)
      expect(left, step.action).to.deep.equal(step.action === 'syncDirectory' ? NEW : OLD)
      const copy = `${path}.${step.action}`
      await cp(path, copy)
      await cp(`${path}.new`, `${copy}.new`).catch(() => {})
      await writeDocument(disk, copy, NEW)
      expect(await readDocument(disk, copy), step.action).to.deep.equal(NEW)
    }
  })

  it('is durable before it takes the place of the old one, and its place is durable before it is said so', async () => {
    const faulty = new FaultyDisk(disk)
    await writeDocument(faulty, path, NEW)
    const synced = faulty.find('end', { action: 'sync', path: /document\.new$/ })
    const renamed = faulty.find('begin', { action: 'rename' })
    expect(synced).to.be.within(0, renamed)
    expect(faulty.find('end', { action: 'syncDirectory' })).to.be.greaterThan(renamed)
  })

  it('is refused when any bit of it is flipped', async () => {
    await writeDocument(disk, path, OLD)
    const whole = await readFile(path)
    for (let at = 0; at < whole.length; at++) {
      for (const bit of [1, 0x20, 0x80]) {
        const flipped = Buffer.from(whole)
        flipped[at]! ^= bit
        await writeFile(path, flipped)
        expect(await rejection(readDocument(disk, path)), `byte ${at}, bit ${bit}`).to.be.instanceOf(
          DocumentDamagedError,
        )
      }
    }
  })

  it('is refused when it is cut anywhere, empty, zeroed, or has something added', async () => {
    await writeDocument(disk, path, OLD)
    const whole = await readFile(path)
    const wrong = Array.from({ length: whole.length }, (_, length) => whole.subarray(0, length))
    wrong.push(
      Buffer.alloc(whole.length),
      Buffer.from('\n00000000\n'),
      Buffer.from(`${whole}x`),
      Buffer.from(`${whole}\n`),
    )
    for (const bytes of wrong) {
      await writeFile(path, bytes)
      const error = await rejection(readDocument(disk, path))
      expect(error, JSON.stringify(bytes.toString())).to.be.instanceOf(DocumentDamagedError)
    }
  })

  it('is refused when it is longer than any document', async () => {
    await writeFile(path, Buffer.alloc(256 * 1024 + 1))
    expect(await rejection(readDocument(disk, path))).to.be.instanceOf(DocumentDamagedError)
  })
})
