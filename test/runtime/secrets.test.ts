import { createHmac } from 'node:crypto'
import { readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { expect } from 'chai'
import { groupKey } from '../../protocol/ticket.ts'
import { realWorld } from '../../runtime/real-world.ts'
import { credentialsPath, ensureSecrets, readCredentials } from '../../runtime/secrets.ts'
import { temporaryDirectory } from './nats-fixture.ts'

describe('secrets', () => {
  const world = realWorld()
  const wanted = { groups: ['group1'], servers: ['nats://127.0.0.1:4222'] }
  let directory: string
  let remove: () => Promise<void>

  beforeEach(async () => {
    const made = await temporaryDirectory()
    directory = `${made.path}/dfs`
    remove = made.remove
  })
  afterEach(() => remove())

  const credentials = (user: string) => readCredentials(world.disk, credentialsPath(directory, user))

  it('are made once and read afterwards', async () => {
    const first = await ensureSecrets(world, directory, wanted)
    const second = await ensureSecrets(world, directory, wanted)
    expect(second).to.deep.equal(first)
    expect(first.clusterSecret).to.match(/^[0-9a-f]{64}$/)
  })

  it('are completed for a new group without changing what is there', async () => {
    const first = await ensureSecrets(world, directory, wanted)
    const second = await ensureSecrets(world, directory, { ...wanted, groups: ['group2'] })
    expect(second.clusterSecret).to.equal(first.clusterSecret)
    expect(second.passwords).to.deep.include(first.passwords)
    expect((await credentials('storage_group2')).password).to.equal(second.passwords.storage_group2)
  })

  it('are files that only their owner reads, in directories that only their owner opens', async () => {
    await ensureSecrets(world, directory, wanted)
    const modeOf = async (path: string) => (await stat(path)).mode & 0o777
    expect(await modeOf(directory)).to.equal(0o700)
    expect(await modeOf(`${directory}/secrets.json`)).to.equal(0o600)
    expect(await modeOf(`${directory}/credentials`)).to.equal(0o700)
    const names = await readdir(`${directory}/credentials`)
    expect(names).to.have.length(7)
    for (const name of names) expect(await modeOf(`${directory}/credentials/${name}`), name).to.equal(0o600)
  })

  it('give every user a password of its own that starts with a letter', async () => {
    const { passwords } = await ensureSecrets(world, directory, wanted)
    const all = Object.values(passwords)
    expect(new Set(all).size).to.equal(all.length)
    for (const password of all) expect(password).to.match(/^[a-z][0-9a-z]{40,}$/)
  })

  it('tell a role how to connect and where its answers go', async () => {
    const { passwords } = await ensureSecrets(world, directory, wanted)
    expect(await credentials('sync_group1')).to.deep.equal({
      servers: ['nats://127.0.0.1:4222'],
      user: 'sync_group1',
      password: passwords.sync_group1,
      inboxPrefix: '_INBOX_sync_group1',
    })
    expect((await credentials('ops')).inboxPrefix).to.equal('_INBOX')
  })

  it('give the cluster secret to storage servers only, and clients one derived from it', async () => {
    const { clusterSecret } = await ensureSecrets(world, directory, wanted)
    const derived = createHmac('sha256', clusterSecret).update('client').digest('hex')
    expect((await credentials('storage_group1')).dataSecret).to.equal(clusterSecret)
    expect((await credentials('client')).dataSecret).to.equal(derived)
    expect((await credentials('gateway')).dataSecret).to.equal(derived)
    for (const user of ['tracker', 'sync_group1', 'ops', 'sys']) {
      expect(await credentials(user), user).not.to.have.property('dataSecret')
      expect(await readFile(credentialsPath(directory, user), 'utf8'), user).not.to.contain(clusterSecret)
    }
  })

  it('give trackers what signs tickets, storage servers the keys of their own group, and nobody else any', async () => {
    const { ticketSecrets, clusterSecret } = await ensureSecrets(world, directory, wanted)
    expect(ticketSecrets).to.have.length(1).and.not.include(clusterSecret)
    expect((await credentials('tracker')).ticketKeys).to.deep.equal(ticketSecrets)
    const key = groupKey(ticketSecrets[0]!, 'group1')
    expect((await credentials('storage_group1')).ticketKeys).to.deep.equal([key])
    for (const user of ['storage_group1', 'sync_group1', 'ops', 'sys', 'client', 'gateway'])
      expect(await readFile(credentialsPath(directory, user), 'utf8'), user).not.to.contain(ticketSecrets[0])
    for (const user of ['sync_group1', 'ops', 'sys', 'client', 'gateway'])
      expect(await readFile(credentialsPath(directory, user), 'utf8'), user).not.to.contain(key)
  })

  it('tell of a NATS that moved without changing a password', async () => {
    const first = await ensureSecrets(world, directory, wanted)
    await ensureSecrets(world, directory, { ...wanted, servers: ['nats://127.0.0.1:5222'] })
    const { servers, password } = await credentials('client')
    expect(servers).to.deep.equal(['nats://127.0.0.1:5222'])
    expect(password).to.equal(first.passwords.client)
  })

  it('are not made again over a file that cannot be read', async () => {
    await ensureSecrets(world, directory, wanted)
    const whole = await readFile(`${directory}/secrets.json`, 'utf8')
    for (const text of ['', whole.slice(0, 100), '{}', 'null', whole.replace('"version": 1', '"version": 2')]) {
      await writeFile(`${directory}/secrets.json`, text)
      const error = await ensureSecrets(world, directory, wanted).catch((error: unknown) => error)
      expect(error).to.be.an('error').with.property('message').that.contains('secrets.json')
      expect(String(error)).not.to.match(/[0-9a-f]{16}/)
      expect(await readFile(`${directory}/secrets.json`, 'utf8')).to.equal(text)
    }
  })

  it('survive what a crash in the middle of writing left', async () => {
    await world.disk.makeDirectory(directory)
    await writeFile(`${directory}/secrets.json.new`, '{"version": 1, "clust')
    const secrets = await ensureSecrets(world, directory, wanted)
    expect(await ensureSecrets(world, directory, wanted)).to.deep.equal(secrets)
    expect(await readdir(directory)).to.have.members(['secrets.json', 'credentials'])
  })

  it('refuse credentials that are missing or something else', async () => {
    await ensureSecrets(world, directory, wanted)
    const errorOf = (path: string) => readCredentials(world.disk, path).catch((error: unknown) => String(error))
    expect(await errorOf(`${directory}/none.json`)).to.contain('there are no credentials')
    expect(await errorOf(`${directory}/secrets.json`)).to.contain('not credentials')
  })
})
