import { expect } from 'chai'
import { connect, type NatsConnection } from 'nats'
import { inboxPrefixOf } from '../../runtime/nats-config.ts'
import { type NatsServer, natsServerVersion } from '../../runtime/nats-server.ts'
import { realWorld } from '../../runtime/real-world.ts'
import { until } from '../until.ts'
import { credentialsOf, natsServerBinaries, startTestServer, temporaryDirectory } from './nats-fixture.ts'

interface Rules {
  readonly publish: { readonly allowed: readonly string[]; readonly forbidden: readonly string[] }
  readonly subscribe: { readonly allowed: readonly string[]; readonly forbidden: readonly string[] }
}

const FILE_SUBJECTS = ['dfs.file.upload', 'dfs.upload', 'dfs.download', 'dfs.delete', 'dfs.info']

const ROLES: Record<string, Rules> = {
  tracker: {
    publish: {
      allowed: [
        ...[
          'dfs.hb.tracker.all.1',
          'dfs.event.group1.storage_lost',
          '$JS.API.INFO',
          '$JS.API.STREAM.INFO.DFS_BINLOG_x',
        ],
        ...[
          '$JS.API.STREAM.CREATE.DFS_BINLOG_x',
          '$JS.API.STREAM.UPDATE.DFS_BINLOG_x',
          '_INBOX.x.1',
          '_INBOX_client.x.1',
        ],
        ...['_INBOX_gateway.x.1', '_INBOX_storage_group1.x.1', '_INBOX_sync_group2.x.1'],
      ],
      forbidden: [
        ...['dfs.hb.storage.group1.1', 'dfs.binlog.group1.1', 'dfs.storage.group1.status', 'dfs.file.upload'],
        ...['$JS.API.STREAM.DELETE.DFS_BINLOG_x', '$JS.API.STREAM.PURGE.DFS_BINLOG_x', '$SRV.PING', 'other'],
      ],
    },
    subscribe: {
      allowed: ['dfs.tracker.>', 'dfs.actor.tracker-1.>', 'dfs.hb.>', '$SRV.>', '_INBOX_tracker.x.*'],
      forbidden: [
        'dfs.>',
        'dfs.file.>',
        'dfs.binlog.group1.1',
        'dfs.storage.group1.>',
        '_INBOX_client.>',
        '_INBOX.>',
        '>',
      ],
    },
  },
  storage_group1: {
    publish: {
      allowed: [
        ...['dfs.hb.storage.group1.1', 'dfs.event.group1.disk_full', 'dfs.binlog.group1.1', 'dfs.tracker.join'],
        '_INBOX.x.1',
      ],
      forbidden: [
        ...['dfs.hb.storage.group2.1', 'dfs.binlog.group2.1', 'dfs.event.group2.disk_full', 'dfs.hb.tracker.all.1'],
        ...['dfs.storage.group1.status', 'dfs.actor.1.drain', '$JS.API.STREAM.CREATE.x', '_INBOX_tracker.x.1'],
      ],
    },
    subscribe: {
      allowed: ['dfs.storage.group1.>', 'dfs.actor.1.>', '$SRV.PING', '_INBOX_storage_group1.>'],
      forbidden: [
        'dfs.storage.group2.>',
        'dfs.storage.*.status',
        'dfs.hb.>',
        'dfs.tracker.join',
        '_INBOX_storage_group2.>',
      ],
    },
  },
  sync_group1: {
    publish: {
      allowed: ['dfs.hb.sync.group1.1', 'dfs.event.group1.synced', 'dfs.tracker.locate', '_INBOX.x.1'],
      forbidden: ['dfs.binlog.group1.1', 'dfs.hb.storage.group1.1', 'dfs.hb.sync.group2.1', 'dfs.file.delete'],
    },
    subscribe: {
      allowed: ['dfs.binlog.group1.>', 'dfs.actor.sync-1.>', '$SRV.INFO', '_INBOX_sync_group1.>'],
      forbidden: ['dfs.binlog.group2.>', 'dfs.binlog.>', 'dfs.storage.group1.>', '_INBOX_storage_group1.>'],
    },
  },
  gateway: {
    publish: {
      allowed: [
        ...['dfs.tracker.queryStore', 'dfs.hb.gateway.all.1', 'dfs.event.gateway.started', '_INBOX.x.1'],
        '_INBOX_client.x.1',
      ],
      forbidden: ['dfs.hb.storage.group1.1', 'dfs.binlog.group1.1', 'dfs.event.group1.x', 'dfs.actor.1.drain'],
    },
    subscribe: {
      allowed: [...FILE_SUBJECTS, 'dfs.file.>', 'dfs.actor.gateway-1.>', '$SRV.PING', '_INBOX_gateway.>'],
      forbidden: ['dfs.>', 'dfs.tracker.>', 'dfs.binlog.group1.>', '_INBOX_client.>'],
    },
  },
  client: {
    publish: {
      allowed: [
        ...FILE_SUBJECTS,
        ...['status', 'groups', 'storages', 'locate', 'queryStore', 'queryFetch', 'queryUpdate'].map(
          op => `dfs.tracker.${op}`,
        ),
      ],
      forbidden: [
        ...[
          'dfs.tracker.join',
          'dfs.hb.storage.group1.1',
          'dfs.binlog.group1.1',
          'dfs.actor.1.drain',
          'dfs.event.group1.x',
        ],
        ...['dfs.storage.group1.status', '$SRV.PING', '$JS.API.INFO', '_INBOX_client.x.1'],
      ],
    },
    subscribe: {
      allowed: ['dfs.event.>', 'dfs.event.group1.*', '_INBOX_client.x.*'],
      forbidden: [
        'dfs.file.>',
        'dfs.upload',
        'dfs.tracker.status',
        'dfs.binlog.group1.1',
        '_INBOX.>',
        '_INBOX_gateway.>',
        '>',
      ],
    },
  },
  ops: {
    publish: {
      allowed: [
        'dfs.tracker.join',
        'dfs.actor.1.drain',
        'dfs.storage.group1.status',
        '$SRV.PING',
        '$JS.API.STREAM.NAMES',
      ],
      forbidden: [
        ...['dfs.binlog.group1.1', 'dfs.hb.storage.group1.1', 'dfs.hb.tracker.all.1', '$JS.API.ACCOUNT.PURGE.DFS'],
        ...['$JS.API.SERVER.REMOVE', '$JS.API.ACCOUNT.STREAM.MOVE.DFS.x', '$SYS.REQ.SERVER.PING', 'other'],
      ],
    },
    subscribe: {
      allowed: ['dfs.>', 'dfs.binlog.>', '_INBOX.>', '$JS.EVENT.>'],
      forbidden: ['>', '_INBOX_client.>', '$SYS.>', '$SRV.PING'],
    },
  },
}

for (const binary of await natsServerBinaries()) {
  const version = await natsServerVersion(realWorld().processes, binary)

  describe(`the roles of nats-server.conf, on ${version}`, () => {
    let server: NatsServer
    let directory: string
    let remove: () => Promise<void>
    const connections = new Map<string, Connection>()

    before(async () => {
      const made = await temporaryDirectory()
      directory = made.path
      remove = made.remove
      server = await startTestServer({ binary, directory, groups: ['group1', 'group2'] })
    })
    after(async () => {
      for (const { nats } of connections.values()) await nats.close()
      await server.stop()
      await remove()
    })

    async function as(user: string): Promise<Connection> {
      const known = connections.get(user)
      if (known !== undefined) return known
      const { password, inboxPrefix } = await credentialsOf(directory, user)
      const made = watch(await connect({ servers: server.url, user, pass: password, inboxPrefix }))
      connections.set(user, made)
      return made
    }

    for (const [user, { publish, subscribe }] of Object.entries(ROLES)) {
      it(`${user} publishes what its work needs, and nothing else`, async () => {
        const { nats, denied } = await as(user)
        for (const subject of [...publish.allowed, ...publish.forbidden]) nats.publish(subject)
        expect(await denied('publish')).to.deep.equal(publish.forbidden)
      })

      it(`${user} listens to what its work needs, and nothing else`, async () => {
        const { nats, denied } = await as(user)
        const all = [...subscribe.allowed, ...subscribe.forbidden]
        const subscriptions = all.map(subject => nats.subscribe(subject, { callback: () => {} }))
        expect(await denied('subscription')).to.deep.equal(subscribe.forbidden)
        for (const subscription of subscriptions) subscription.unsubscribe()
      })
    }

    it('lets everybody who may ask get an answer', async () => {
      const pairs: [asker: string, subject: string, server: string][] = [
        ...['storage_group1', 'storage_group2', 'sync_group1', 'sync_group2', 'gateway', 'client', 'ops'].map(
          asker => [asker, 'dfs.tracker.locate', 'tracker'] as [string, string, string],
        ),
        ...FILE_SUBJECTS.flatMap(subject => [
          ['client', subject, 'gateway'] as [string, string, string],
          ['ops', subject, 'gateway'] as [string, string, string],
        ]),
        ['ops', 'dfs.storage.group1.status', 'storage_group1'],
        ['ops', 'dfs.actor.2.status', 'storage_group2'],
        ['ops', 'dfs.actor.sync-1.status', 'sync_group1'],
        ['ops', 'dfs.actor.tracker-1.status', 'tracker'],
        ['ops', '$SRV.PING', 'gateway'],
      ]
      for (const [asker, subject, answerer] of pairs) {
        const service = await as(answerer)
        const subscription = service.nats.subscribe(subject, { callback: (_, message) => message.respond('answer') })
        await service.nats.flush()
        const { nats } = await as(asker)
        const reply = await nats.request(subject, '', { timeout: 5_000 })
        expect(reply.string(), `${asker} asks ${subject}`).to.equal('answer')
        subscription.unsubscribe()
        await service.nats.flush()
      }
    })

    it('lets a gateway answer a download with many messages', async () => {
      const gateway = await as('gateway')
      const client = await as('client')
      const count = 3_000
      const subscription = gateway.nats.subscribe('dfs.download', {
        callback: (_, message) => {
          for (let i = 0; i < count; i++) message.respond(String(i))
        },
      })
      await gateway.nats.flush()
      let received = 0
      const inbox = `${inboxPrefixOf('client')}.download`
      const replies = client.nats.subscribe(inbox, { callback: () => (received += 1) })
      client.nats.publish('dfs.download', '', { reply: inbox })
      await until('all chunks arrive', () => received === count)
      subscription.unsubscribe()
      replies.unsubscribe()
    })

    it('lets no client have a gateway answer to a subject that the client may not publish', async () => {
      const gateway = await as('gateway')
      const client = await as('client')
      const tracker = await as('tracker')
      const heard: string[] = []
      const beats = tracker.nats.subscribe('dfs.hb.>', { callback: (_, message) => heard.push(message.subject) })
      const files = gateway.nats.subscribe('dfs.download', { callback: (_, message) => message.respond('forged') })
      await Promise.all([tracker.nats.flush(), gateway.nats.flush()])
      client.nats.publish('dfs.download', '', { reply: 'dfs.hb.storage.group1.1' })
      await until('the server refuses', async () =>
        (await gateway.denied('publish')).includes('dfs.hb.storage.group1.1'),
      )
      await tracker.nats.flush()
      expect(heard).to.deep.equal([])
      beats.unsubscribe()
      files.unsubscribe()
    })

    it('lets a tracker make the stream of a group, and carries its binlog to those who follow it', async () => {
      const manager = await (await as('tracker')).nats.jetstreamManager()
      await manager.streams.add({ name: 'DFS_BINLOG_group1', subjects: ['dfs.binlog.group1.*'] })
      const heard: string[] = []
      const sync = await as('sync_group1')
      const doorbell = sync.nats.subscribe('dfs.binlog.group1.>', { callback: (_, m) => heard.push(m.string()) })
      await sync.nats.flush()
      const storage = await as('storage_group1')
      storage.nats.publish('dfs.binlog.group1.1', 'record')
      await until('the worker hears it', () => heard.includes('record'))
      doorbell.unsubscribe()
      await until('the stream keeps it', async () => {
        return (await manager.streams.info('DFS_BINLOG_group1')).state.last_seq > 0
      })
    })

    it('lets nobody in without a password', async () => {
      const refused = (options: { user?: string; pass?: string }) =>
        connect({ servers: server.url, ...options }).then(
          () => 'connected',
          (error: unknown) => String(error),
        )
      expect(await refused({})).to.contain('Authorization')
      expect(await refused({ user: 'ops', pass: 'wrong' })).to.contain('Authorization')
      const { password } = await credentialsOf(directory, 'storage_group1')
      expect(await refused({ user: 'storage_group2', pass: password })).to.contain('Authorization')
    })
  })
}

interface Connection {
  readonly nats: NatsConnection
  /** The subjects that the server has refused since the last call, in order; waits for its verdict on everything so far. */
  denied(operation: 'publish' | 'subscription'): Promise<string[]>
}

function watch(nats: NatsConnection): Connection {
  const refusals: { operation: string; subject: string }[] = []
  void (async () => {
    for await (const { permissionContext } of nats.status()) {
      if (permissionContext !== undefined) refusals.push(permissionContext)
    }
  })()
  return {
    nats,
    async denied(operation) {
      // The server answers in order: its refusals come before the answer to the flush, and are read a turn later.
      await nats.flush()
      await new Promise(resolve => setImmediate(resolve))
      const subjects = refusals.filter(refusal => refusal.operation === operation).map(refusal => refusal.subject)
      refusals.length = 0
      return subjects
    },
  }
}
