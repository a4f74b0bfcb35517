import { readFileSync } from 'node:fs'
import { expect } from 'chai'
import { configureFor, inboxPrefixOf, natsEnvironment, natsUsers } from '../../runtime/nats-config.ts'

describe('the configuration of nats-server', () => {
  const template = readFileSync('nats-server.conf', 'utf8')

  it('keeps a line for newer servers a comment on an older one', () => {
    const text = 'a: 1\n  #@2.10 sync_interval: "10s"\nb: 2'
    expect(configureFor(text, '2.9.10', [])).to.equal(text)
  })

  it('uncomments a line for that version and every later one, in place', () => {
    const text = 'a: 1\n  #@2.10 sync_interval: "10s"\nb: 2'
    for (const version of ['2.10.0', '2.10.0-beta.1', 'v2.14.9', '3.0.0']) {
      expect(configureFor(text, version, []), version).to.equal('a: 1\n  sync_interval: "10s"\nb: 2')
    }
  })

  it('repeats a block for every group, with its name', () => {
    const text = 'x\n  #@each-group\n  user: storage_group1 "dfs.group1.>"\n  #@end\ny group1'
    expect(configureFor(text, '2.9.10', ['a', 'b2'])).to.equal(
      'x\n  user: storage_a "dfs.a.>"\n  user: storage_b2 "dfs.b2.>"\ny group1',
    )
    expect(configureFor(text, '2.9.10', [])).to.equal('x\ny group1')
  })

  it('reads version tags inside a block', () => {
    expect(configureFor('#@each-group\n#@2.11 group1\n#@end', '2.11.4', ['a', 'b'])).to.equal('a\nb')
  })

  it('refuses blocks that do not close or are nested', () => {
    expect(() => configureFor('#@each-group', '2.9.10', [])).to.throw('without #@end')
    expect(() => configureFor('#@end', '2.9.10', [])).to.throw(':1: #@end without')
    expect(() => configureFor('#@each-group\n#@each-group', '2.9.10', [])).to.throw(':2: #@each-group inside')
  })

  it('refuses group names that FastDFS would not take, so none can write into the configuration', () => {
    for (const group of ['', 'a b', 'a"b', 'a.b', '>', 'g\n', 'seventeenletters1']) {
      expect(() => configureFor(template, '2.9.10', [group]), group).to.throw(RangeError)
    }
  })

  it('refuses a version it cannot read', () => {
    expect(() => configureFor(template, 'latest', [])).to.throw(RangeError)
  })

  it('leaves the template as it is, but for its marks, when asked for its own group and an old server', () => {
    const withoutMarks = template.replaceAll(/^ *#@(each-group|end)\n/gm, '')
    expect(configureFor(template, '2.9.10', ['group1'])).to.equal(withoutMarks)
  })

  it('has a user with a password of its own for every role and group, and an inbox for each', () => {
    const groups = ['photos', 'films']
    const text = configureFor(template, '2.9.10', groups)
    for (const user of natsUsers(groups)) {
      expect(text).to.match(new RegExp(`user: ${user}, password: \\$DFS_PASSWORD_${user}\\b`))
      if (user !== 'sys') expect(text).to.match(new RegExp(`subscribe: [^\\]]*"${inboxPrefixOf(user)}\\.>"`))
    }
    expect(text).not.to.match(/^[^#]*group1/m)
  })

  it('names every variable of the template in the environment it makes', () => {
    const passwords = Object.fromEntries(natsUsers(['group1']).map(user => [user, 'p']))
    const environment = natsEnvironment({
      name: 'n',
      host: '::1',
      port: 4222,
      monitorPort: 0,
      storeDirectory: '/s',
      passwords,
    })
    const lines = template.split('\n').filter(line => !line.trimStart().startsWith('#'))
    const variables = lines.flatMap(line => [...line.matchAll(/: \$(\w+)/g)].map(match => match[1]))
    expect(Object.keys(environment)).to.have.members(variables)
  })

  it('quotes what nats-server would take for a number, a comment or the end of a string', () => {
    const settings = { name: 'n', host: 'h', port: 1, monitorPort: 0, storeDirectory: '/a "b\\c # d', passwords: {} }
    const environment = natsEnvironment({ ...settings, passwords: { ops: '1e5' } })
    expect(environment.DFS_PASSWORD_ops).to.equal('"1e5"')
    expect(environment.DFS_NATS_STORE_DIR).to.equal('"/a \\"b\\\\c # d"')
    expect(environment.DFS_NATS_PORT).to.equal('1')
  })
})
