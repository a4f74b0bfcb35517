/** What trackers forget when they are told to: never what they still hear of. */
import type { ErrorCode } from '../../protocol/errors.ts'
import type { PayloadOf } from '../../protocol/message.ts'
import type { trackerForget } from '../../protocol/tracker-messages.ts'
import type { Groups, StorageEntry } from './view.ts'

/** A storage server; or a group, if no storage id is given. */
export type Forgotten = PayloadOf<typeof trackerForget>

/** The groups without it, and the member that was forgotten; or says why not. */
export function forget(
  groups: Groups,
  { group, storageId }: Forgotten,
): { readonly groups: Groups; readonly member?: StorageEntry } | { readonly code: ErrorCode } {
  const members = groups.get(group)
  if (members === undefined) return { code: 'unknown_group' }
  const left = new Map(groups)
  if (storageId === undefined) {
    if (members.length > 0) return { code: 'still_in_use' }
    left.delete(group)
    return { groups: left }
  }
  const member = members.find(({ report }) => report.storageId === storageId)
  if (member === undefined) return { code: 'unknown_storage' }
  if (member.online) return { code: 'still_in_use' }
  const others = members.filter(other => other !== member)
  return { groups: left.set(group, others), member }
}
