/**
 * Bugs that are planted on purpose, into the compiled code as it is loaded: whoever checks the cluster has to find each
 * of them. `seed` is the first that did.
 */

export interface PlantedBug {
  /** For the command line. */
  readonly name: string
  /** What is wrong with the code then. */
  readonly about: string
  /** Below `dist`. */
  readonly file: string
  /** Stands in the file once; if it does not any more, the bug has to be planted anew. */
  readonly find: string
  readonly replace: string
  readonly seed: number
}

export const PLANTED_BUGS: readonly PlantedBug[] = [
  {
    name: 'ack-before-durable',
    about: 'an upload is acknowledged before its record is durable',
    file: 'store/binlog.js',
    find: 'await this.#file.sync();',
    replace: 'void this.#file.sync().catch(() => {});',
    seed: 0,
  },
  {
    name: 'rename-before-record',
    about: 'a file gets its name before its record is written',
    file: 'store/plain-store.js',
    find: 'const { token, sizeBytes, crc32 } = file;',
    replace: `const { token, sizeBytes, crc32 } = file;
        const early = async (name) => { await this.#place(path, token, name); };`,
    seed: 0,
  },
  {
    name: 'mark-before-ack',
    about: "a mark moves before the peer's answer",
    file: 'actors/sync/replay-binlog.js',
    find: 'await oldest.done;',
    replace: '',
    seed: 0,
  },
  {
    name: 'apply-twice',
    about: 'a record that comes again is applied again',
    file: 'store/plain-store.js',
    find: 'if (!isAfter(origin, last.at))',
    replace: 'if (false)',
    seed: 0,
  },
  {
    name: 'fsync-error-ignored',
    about: 'a failed sync of the binlog is taken for a good one',
    file: 'store/binlog.js',
    find: 'await this.#file.sync();',
    replace: 'await this.#file.sync().catch(() => {});',
    seed: 0,
  },
  {
    name: 'torn-record-accepted',
    about: 'a torn end of the binlog stays, and new records are written behind it',
    file: 'store/recovery.js',
    find: 'await file.truncate(bytes);',
    replace: 'bytes = offsetBytes + tornBytes;',
    seed: 0,
  },
  {
    name: 'delete-overtakes-create',
    about: 'a deletion takes effect before the creation it follows',
    file: 'store/binlog.js',
    find: 'this.#effects = this.#effects.then(() => this.#takeEffect(batch, records, lines));',
    replace: 'this.#effects = this.#takeEffect(batch, records, lines);',
    seed: 0,
  },
  {
    name: 'stale-mark-accepted',
    about: 'a mark is believed though the peer came back as another incarnation',
    file: 'actors/sync/replay-binlog.js',
    find: 'known?.incarnation === incarnation && known.shipped === applied && known.sequence >= applied',
    replace: 'known !== undefined',
    seed: 0,
  },
]
