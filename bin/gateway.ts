/** `dfs gateway`: files by NATS message, for any NATS client. */
import type { Command } from 'commander'
import { startGateway } from '../actors/gateway/start-gateway.ts'
import { readCredentials } from '../runtime/secrets.ts'
import { addRoleFlags, type RoleFlags, runRole } from './role.ts'

export function addGatewayCommand(program: Command): void {
  const command = program
    .command('gateway')
    .description('run one gateway')
    .option('--id <token>', 'its name among the gateways', 'gateway-1')
  addRoleFlags(command).action((flags: RoleFlags & { id: string }) =>
    runRole(flags.id, flags, async context => {
      const credentials = await readCredentials(context.world.disk, flags.credentials)
      return { role: await startGateway(context, { gatewayId: flags.id, credentials }), report: { id: flags.id } }
    }),
  )
}
