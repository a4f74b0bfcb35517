/** Deleting through one tracker what all of them know. */
import { expect } from 'chai'
import { startTracker } from '../../../actors/tracker/start-tracker.ts'
import { COMMANDS } from '../../../protocol/frame.ts'
import type { RunningRole } from '../../../runtime/role.ts'
import type { Endpoint } from '../../../runtime/world.ts'
import { RawConnection, requestOf } from '../../runtime/frame-fixture.ts'
import { until } from '../../until.ts'
import { SmallCluster } from '../small-cluster.ts'
import { ROUND_ROBIN } from './test-tracker.ts'

const ENOENT = 2
const EBUSY = 16
const GROUP = 'group1'.padEnd(16, '\0')

describe('a deletion', () => {
  let cluster: SmallCluster
  let other: RunningRole & { endpoint: Endpoint }
  const connections: RawConnection[] = []

  beforeEach(async () => {
    cluster = await SmallCluster.start()
    other = await startTracker(cluster.context, {
      trackerId: 'tracker-2',
      credentials: { servers: [], user: 'tracker', password: '', inboxPrefix: '_INBOX_tracker' },
      bind: { host: '127.0.0.1', port: 0 },
      advertiseHost: '127.0.0.1',
      policy: ROUND_ROBIN,
    })
  })
  afterEach(async () => {
    for (const connection of connections.splice(0)) connection.destroy()
    await other.stop()
    await cluster.remove()
  })

  async function asker(endpoint: Endpoint) {
    const connection = await RawConnection.connect(endpoint)
    connections.push(connection)
    return async (command: number, body: string) => {
      connection.send(requestOf(command, body))
      return (await connection.reply()).status
    }
  }

  it('is heard by all trackers, and ends when the storage server comes back', async () => {
    for (const id of [1, 2]) await cluster.addStorage(id)
    const [first, second] = [await asker(cluster.trackerEndpoint), await asker(other.endpoint)]
    expect(await second(COMMANDS.deleteStorage, `${GROUP}2`)).equal(EBUSY)
    await cluster.stopStorage(2)
    await until(
      'the second tracker has heard its goodbye',
      async () => (await second(COMMANDS.deleteStorage, `${GROUP}2`)) === 0,
    )
    await until('the first has forgotten it', async () => (await first(COMMANDS.listStorage, `${GROUP}2`)) === ENOENT)
    expect(await second(COMMANDS.listStorage, `${GROUP}2`)).equal(ENOENT)
    await cluster.addStorage(2)
    for (const ask of [first, second]) expect(await ask(COMMANDS.listStorage, `${GROUP}2`)).equal(0)
  })

  it('takes a group only when it has no storage server any more', async () => {
    await cluster.addStorage(1)
    const [first, second] = [await asker(cluster.trackerEndpoint), await asker(other.endpoint)]
    await cluster.stopStorage(1)
    expect(await first(COMMANDS.deleteGroup, GROUP)).equal(EBUSY)
    await until('the storage server is deleted', async () => (await first(COMMANDS.deleteStorage, `${GROUP}1`)) === 0)
    expect(await first(COMMANDS.deleteGroup, GROUP)).equal(0)
    await until('the second has forgotten it', async () => (await second(COMMANDS.listOneGroup, GROUP)) === ENOENT)
  })
})
