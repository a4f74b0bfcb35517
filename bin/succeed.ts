/** `dfs succeed`. */
import { roundOf } from '../protocol/orderers.ts'
import { DONE, printJson, printLine } from './output.ts'
import type { ClusterFlags, Session } from './session.ts'

export interface SucceedFlags extends ClusterFlags {
  readonly by: number
  readonly alone?: boolean
}

export async function succeed({ client }: Session, source: number, flags: SucceedFlags): Promise<number> {
  const agreed = await client.takeOver(flags.by, source, { alone: flags.alone === true })
  if (flags.json) printJson(agreed)
  else
    printLine(
      `storage server ${agreed.orderer} orders the changes of files of ${source}, round ${roundOf(agreed.term)}`,
    )
  return DONE
}
