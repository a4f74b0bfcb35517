/** Starts a gateway: the client of a cluster, offered to the world as a NATS service. */
import { Client } from '../../client/client.ts'
import {
  announce,
  connectRole,
  lifetime,
  type RoleContext,
  type RunningRole,
  sendRoleBeat,
} from '../../runtime/role.ts'
import type { Credentials } from '../../runtime/secrets.ts'
import type { Cancel } from '../../runtime/world.ts'
import { serveFiles } from './file-service.ts'

const BEAT_MS = 1_000

export interface GatewayOptions {
  /** `gateway-1`: one token of a subject. */
  readonly gatewayId: string
  readonly credentials: Credentials
}

export async function startGateway(context: RoleContext, options: GatewayOptions): Promise<RunningRole> {
  const { world, timers, log, prefix } = context
  const { gatewayId, credentials } = options
  // Files and beats on connections of their own: a megabyte in the queue must not make us look dead.
  const control = await connectRole(context, credentials, `dfs-${gatewayId}`)
  const files = await connectRole(context, credentials, `dfs-${gatewayId}-files`)
  const client = new Client({ world, timers, bus: files, prefix, dataSecret: credentials.dataSecret })
  const service = announce(context, files, 'gateway', gatewayId, 'stores and fetches files by NATS message', {})
  serveFiles({ client, bus: files, service, prefix, log })
  await files.flush().catch(error => log.warn({ err: error }, 'NATS is not there yet'))

  const beat = (leaving: boolean) =>
    sendRoleBeat(context, control, { role: 'gateway', group: 'all', id: gatewayId, endpoint: '', leaving })
  let cancel: Cancel = () => undefined
  const tick = () => {
    beat(false)
    cancel = timers.set(BEAT_MS, tick)
  }
  tick()
  log.info('gateway is ready')
  const { ended, end } = lifetime()
  return {
    ended,
    async stop() {
      cancel()
      await service.stop()
      beat(true)
      await client.close()
      await control.drain()
      end('stopped')
    },
  }
}
