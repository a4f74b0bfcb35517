/**
 * Object Store puts with a hash as fast as Node's own. The npm client sums up in JavaScript, which alone would decide what
 * is measured: 35 MiB a second, against some 100 with this.
 */
import { createHash } from 'node:crypto'
import { createRequire } from 'node:module'

interface Hash {
  update(bytes: Uint8Array): unknown
  digest(): Uint8Array
}

/** Replaces the maker of SHA-256 sums inside the npm `nats` client of this process. Throws if there is none. */
export function useNativeHash(): void {
  const require = createRequire(import.meta.url)
  const { sha256 } = require('nats/lib/nats-base-client/js-sha256') as { sha256?: { create: () => Hash } }
  if (typeof sha256?.create !== 'function') throw new Error('the nats client hashes in another way than it did')
  sha256.create = () => createHash('sha256')
}
