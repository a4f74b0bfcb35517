import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { expect } from 'chai'
import fc from 'fast-check'
import { ConfError, holdsStorageIds, parseBoolean, readConf, readStorageIds } from '../../runtime/conf-file.ts'
import { realDisk } from '../../runtime/real-disk.ts'
import { temporaryDirectory } from './nats-fixture.ts'

describe('a configuration file of FastDFS', () => {
  let directory: Awaited<ReturnType<typeof temporaryDirectory>>
  beforeEach(async () => {
    directory = await temporaryDirectory()
  })
  afterEach(() => directory.remove())

  function write(name: string, text: string): string {
    const path = join(directory.path, name)
    mkdirSync(dirname(path), { recursive: true })
    writeFileSync(path, text)
    return path
  }

  const read = (text: string) => readConf(realDisk, write('a.conf', text))
  const entriesOf = async (text: string) =>
    (await read(text)).entries.map(({ section, key, value, line }) => [section, key, value, line])
  const failureOf = (work: Promise<unknown>) => work.then(() => undefined).catch((error: Error) => error)

  it('has keys and values, with or without room around them, and comments', async () => {
    expect(
      await entriesOf('# first\nport=22122\r\n\n  bind_addr  =  10.0.0.1 \n\t# port = 1\nempty =\nx = a = b # c'),
    ).deep.equal([
      ['', 'port', '22122', 2],
      ['', 'bind_addr', '10.0.0.1', 4],
      ['', 'empty', '', 6],
      ['', 'x', 'a = b # c', 7],
    ])
  })

  it('has keys more than once, in their order', async () => {
    expect(await entriesOf('t = a\nu = b\nt = c')).deep.equal([
      ['', 't', 'a', 1],
      ['', 'u', 'b', 2],
      ['', 't', 'c', 3],
    ])
  })

  it('has sections, and [] ends them', async () => {
    expect(await entriesOf('a = 1\n[ access-log ]\na = 2\n[]\na = 3')).deep.equal([
      ['', 'a', '1', 1],
      ['access-log', 'a', '2', 3],
      ['', 'a', '3', 5],
    ])
  })

  it('tells of lines that are nothing', async () => {
    const { entries, strays } = await read('port 22122\na = 1\n[half\n')
    expect(entries).length(1)
    expect(strays.map(({ line }) => line)).deep.equal([1, 3])
  })

  it('includes others from the directory of the first, outside of any section, and goes on so behind them', async () => {
    write('below/b.conf', 'b = 2\n#include below/c.conf\n[s]\nd = 4')
    write('below/c.conf', '[s]\nc = 3')
    const { entries } = await read('[s]\na = 1\n#INCLUDE\t below/b.conf \ne = 5\n # include nothing\n #include nothing')
    expect(
      entries.map(({ file, section, key, line }) => [file.slice(directory.path.length), section, key, line]),
    ).deep.equal([
      ['/a.conf', 's', 'a', 2],
      ['/below/b.conf', '', 'b', 1],
      ['/below/c.conf', 's', 'c', 2],
      ['/below/b.conf', 's', 'd', 4],
      ['/a.conf', '', 'e', 4],
    ])
  })

  for (const [what, text, message] of [
    ['a file that is not there', 'a = 1\n#include nowhere.conf', /a\.conf:2: .*nowhere\.conf: there is no such file/],
    ['what includes itself', '#include a.conf', /a\.conf:1: too many files/],
    ['the network', '#include http://10.0.0.1/a.conf', /a\.conf:1: only files/],
    ['decisions of its own', 'a = 1\n#@if %{LOCAL_IP} in [10.0.0.1]\nb = 2\n#@endif', /a\.conf:2: .*#@if/],
    ['programs', '#@function SHELL_EXEC\na = hostname', /a\.conf:1: .*#@function/],
  ] as const) {
    it(`is refused with file and line if it includes, or has, ${what}`, async () => {
      expect(await failureOf(read(text)))
        .instanceOf(ConfError)
        .property('message')
        .match(message)
    })
  }

  it('is refused if it is not there', async () => {
    const failure = await failureOf(readConf(realDisk, join(directory.path, 'nowhere.conf')))
    expect(failure)
      .property('message')
      .match(/nowhere\.conf: there is no such file$/)
  })

  it('reads back as it was written, whatever is around the keys', async () => {
    const room = fc.stringMatching(/^[ \t]{0,3}$/)
    const key = fc.stringMatching(/^[a-z][a-z0-9_.]{0,20}$/)
    const value = fc.string({ unit: 'grapheme', maxLength: 40 }).map(text => text.replaceAll(/[\n\r]/g, '').trim())
    const noise = fc.constantFrom('', '# c = d', '\t#', '   ', '#[s]', '# include x')
    const line = fc.record({ room, key, value, section: fc.option(key, { nil: undefined }), noise })
    await fc.assert(
      fc.asyncProperty(fc.array(line, { maxLength: 20 }), fc.constantFrom('\n', '\r\n'), async (lines, end) => {
        let section = ''
        const expected = lines.map(line => {
          section = line.section ?? section
          return [section, line.key, line.value]
        })
        const text = lines.map(({ room, key, value, section, noise }) => {
          const head = section === undefined ? [] : [`${room}[${room}${section}]`]
          return [...head, noise, `${room}${key}${room}=${room}${value}${room}`].join(end)
        })
        const { entries, strays } = await read(text.join(end))
        expect(entries.map(({ section, key, value }) => [section, key, value])).deep.equal(expected)
        expect(strays).deep.equal([])
      }),
    )
  })

  it('is read or refused, whatever it holds, and no line is lost', async () => {
    const word = fc.constantFrom('=', '#', '[', ']', '#include ', '#@if ', ' ', 'a', 'é', '\t', '\0', 'rw=')
    const anyLine = fc.oneof(
      fc.string(),
      fc.array(word).map(words => words.join('')),
    )
    await fc.assert(
      fc.asyncProperty(fc.array(anyLine), async lines => {
        const text = lines.join('\n')
        const [found, failure] = await read(text).then(
          conf => [conf, undefined],
          error => [undefined, error],
        )
        if (found === undefined) {
          expect(failure).instanceOf(ConfError)
          return
        }
        const meant = text.split('\n').filter(line => {
          const trimmed = line.trim()
          return trimmed !== '' && !trimmed.startsWith('#') && !/^\[.*\]$/s.test(trimmed)
        })
        expect(found.entries.length + found.strays.length).equal(meant.length)
      }),
    )
  })

  it('says true and false in four ways each, and nothing else is either', () => {
    for (const text of ['1', 'true', 'yes', 'on', 'TRUE', 'Yes']) expect(parseBoolean(text), text).equal(true)
    for (const text of ['0', 'false', 'no', 'off', 'False', 'OFF']) expect(parseBoolean(text), text).equal(false)
    for (const text of ['', '2', 'y', 'enabled', 'null']) expect(() => parseBoolean(text), text).throw(Error)
  })

  describe('that lists storage ids', () => {
    it('has an id, a group, one or two hosts, a port and a mode', async () => {
      const path = write(
        'ids.conf',
        '# c\n\n1 g1 10.0.0.1\r\n 2\tg1  10.0.0.2,fd00::2 rw=read\n3 g2 h.a.com:23001  x=y rw=none\n4 g2 fd00::4\n5 g2 [fd00::5]:1',
      )
      expect(await holdsStorageIds(realDisk, path)).equal(true)
      const lines = await readStorageIds(realDisk, path)
      expect(
        lines.map(({ line, storageId, group, hosts, port, mode }) => [line, storageId, group, hosts, port, mode]),
      ).deep.equal([
        [3, 1, 'g1', ['10.0.0.1'], undefined, 'both'],
        [4, 2, 'g1', ['10.0.0.2', 'fd00::2'], undefined, 'read'],
        [5, 3, 'g2', ['h.a.com'], 23001, 'none'],
        [6, 4, 'g2', ['fd00::4'], undefined, 'both'],
        [7, 5, 'g2', ['fd00::5'], 1, 'both'],
      ])
    })

    it('is told from the others', async () => {
      for (const text of ['', '# 1 g1 10.0.0.1', 'port = 1\n1 g1 10.0.0.1', '1 = 2 3', '[1 g1 h]']) {
        expect(await holdsStorageIds(realDisk, write('x.conf', text)), text).equal(false)
      }
    })

    for (const bad of ['x g1 10.0.0.1', '1 g1', '1 g1 10.0.0.1 rw', 'port = 1']) {
      it(`is refused with "${bad}"`, async () => {
        const failure = await failureOf(readStorageIds(realDisk, write('x.conf', `1 g1 h\n${bad}`)))
        expect(failure)
          .instanceOf(ConfError)
          .property('message')
          .match(/x\.conf:2: /)
      })
    }
  })
})
