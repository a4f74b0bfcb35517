/**
 * Bugs that are planted on purpose, into the compiled code as it is loaded: whoever checks the cluster has to find each
 * of them. `seed` is the first, from 1 on, that did.
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
  /** Only seeds in which members are gone for long can find it. */
  readonly isOfGone?: true
}

export const PLANTED_BUGS: readonly PlantedBug[] = [
  {
    name: 'ack-before-durable',
    about: 'an upload is acknowledged before its record is durable',
    file: 'store/binlog.js',
    find: 'await this.#file.writeDurably([bytes], this.#fileBytes);',
    replace: 'await this.#file.write([bytes], this.#fileBytes);',
    seed: 3,
  },
  {
    name: 'rename-before-record',
    about: 'a file gets its name before its record is written',
    file: 'store/file-store.js',
    find: 'const effect = () => this.#effects.place(path, token, name).catch(error => this.#withdraw(path, token, name, error));',
    replace: 'const effect = (early => () => early)(this.#effects.place(path, token, name));',
    seed: 31,
  },
  {
    name: 'mark-before-ack',
    about: "a mark moves before the peer's answer",
    file: 'actors/sync/replay-binlog.js',
    find: 'await oldest.done;',
    replace: '',
    seed: 2,
  },
  {
    name: 'quorum-before-ack',
    about: "an upload is acknowledged as held by a peer before the peer's answer",
    file: 'actors/sync/replay-binlog.js',
    find: 'done.then(() => replicas.confirm(peer.storageId, sequence)).catch(ignore);',
    replace: 'replicas.confirm(peer.storageId, sequence); done.catch(ignore);',
    seed: 2,
  },
  {
    name: 'apply-twice',
    about: 'a record that comes again is applied again',
    file: 'store/applied-records.js',
    find: 'const isKnown = ({ shipped }) => !isAfter(shipped.origin, last.at);',
    replace: `const isKnown = () => false;
        if (shipments.length === 0) return; const { origin, previous } = shipments[0].shipped;
        if (!isAfter(origin, last.at)) last.at = { ...origin, sequence: previous };`,
    seed: 135,
  },
  {
    name: 'fsync-error-ignored',
    about: 'a failed sync of the binlog is taken for a good one',
    file: 'store/binlog.js',
    find: 'await this.#file.writeDurably([bytes], this.#fileBytes);',
    replace: 'await this.#file.write([bytes], this.#fileBytes).then(() => this.#file.sync().catch(() => {}));',
    seed: 131,
  },
  {
    name: 'torn-record-accepted',
    about: 'a torn end of the binlog stays, and new records are written behind it',
    file: 'store/recovery.js',
    find: 'await file.truncate(bytes);',
    // Without the start record, which would take the damage upon itself.
    replace: 'bytes += tornBytes; files.length = 0;',
    seed: 123,
  },
  {
    name: 'delete-overtakes-create',
    about: 'a deletion takes effect before the creation it follows',
    file: 'store/binlog.js',
    find: 'const done = turns.get(name)?.then(effect) ?? effect();',
    replace: 'const done = effect();',
    seed: 10,
  },
  {
    name: 'stale-mark-accepted',
    about: 'a mark is believed though the peer came back as another incarnation',
    file: 'actors/sync/replay-binlog.js',
    find: 'const stillTrue = known?.incarnation === incarnation && known.shipped === applied && known.sequence >= applied;',
    replace: 'if (known !== undefined) return { ...known, incarnation, partial }; const stillTrue = false;',
    seed: 16,
  },
  {
    name: 'slot-not-durable',
    about: 'a small file is acknowledged before its slot is durable',
    file: 'store/segment-file.js',
    find: 'this.#writeDurably(run)',
    replace: 'this.#file.write(run.parts, run.offsetBytes)',
    seed: 6,
  },
  {
    name: 'record-without-slot',
    about: 'the last flush keeps records whose slots did not make it',
    file: 'store/last-flush.js',
    find: 'await file.truncate(offsetBytes);',
    replace: '',
    seed: 169,
  },
  {
    name: 'scrub-trusts-slots',
    about: 'the scrub does not compare the bytes of a slot with its checksum',
    file: 'store/scrub-file.js',
    find: 'return contentOf(slot, { sizeBytes: file.sizeBytes, crc32: file.crc32 }) === undefined ? BAD_SLOT : GOOD;',
    replace: 'return GOOD;',
    seed: 66,
  },
  {
    name: 'scrub-blames-files',
    about: 'the scrub takes a disk that is away for files that are bad',
    file: 'store/scrub-file.js',
    find: "return { is: (await store.isSound(file)) ? 'unreadable' : 'away' };",
    replace: "return { is: 'bad', part: 'unreadable' };",
    seed: 27,
  },
  {
    name: 'freed-before-record',
    about: 'a slot is free, and may be used again, before the deletion is recorded',
    file: 'store/file-changes.js',
    find: "await binlog.append(() => ({ op: 'D', name, effect: () => effects.remove(path, name) }));",
    replace: "await effects.remove(path, name); await binlog.append(() => ({ op: 'D', name }));",
    seed: 25,
  },
  {
    name: 'part-not-durable',
    about: 'what is written to an appender file is recorded before it is durable',
    file: 'store/incoming-file.js',
    find: 'const synced = syncs ? [this.#file.sync()] : [];',
    replace: "const synced = syncs && this.#kind !== 'part' ? [this.#file.sync()] : [];",
    seed: 37,
  },
  {
    name: 'parts-forgotten',
    about: 'the parts of an appender file go before what was written in place is durable',
    file: 'store/appender-files.js',
    find: 'storePath.noteFile(path);',
    replace: '',
    seed: 35,
  },
  {
    name: 'first-metadata-again',
    about: 'a start does the first change of metadata again in place of the last',
    file: 'store/last-changes.js',
    find: 'if (token !== undefined)\n                this.#metadata.set(name, token);',
    replace: 'if (token !== undefined && !this.#metadata.has(name)) this.#metadata.set(name, token);',
    seed: 122,
  },
  {
    name: 'metadata-before-source',
    about: 'a member acknowledges metadata before the source of the file has it',
    file: 'actors/storage/metadata.js',
    find: 'return { status: 0, parts: [await askSource(context, request, file, ask)] };',
    replace: 'askSource(context, request, file, ask).catch(() => {}); return { status: 0 };',
    seed: 7,
  },
  {
    name: 'orders-after-promise',
    about: 'a member that has promised a round goes on ordering',
    file: 'actors/storage/orderers.js',
    find: 'return this.#settled === promised ? promised : undefined;',
    replace: 'return this.#lastSettled ?? (promised > 1e12 ? promised : undefined);',
    isOfGone: true,
    seed: 52,
  },
  {
    name: 'lease-ignored',
    about: 'an orderer goes on when its lease is over',
    file: 'actors/storage/orderers.js',
    find: 'if (this.hasLeases && this.#parts.clock.monotonicMs() >= this.#leaseUntilMs)',
    replace: 'if (false)',
    isOfGone: true,
    seed: 105,
  },
  {
    name: 'settles-alone',
    about: 'a member takes for settled what nobody else was asked about',
    file: 'actors/storage/agree.js',
    find: 'if (isUnanimous && (isAlone || this.#isMajority(answers.length))) {',
    replace: 'if (isUnanimous) {',
    isOfGone: true,
    seed: 4,
  },
  {
    name: 'orders-unsettled',
    about: 'a member that has started orders as it did before, and asks nobody',
    file: 'actors/storage/orderers.js',
    find: 'if (source === undefined || this.settled === undefined)',
    replace: 'if (source === undefined)',
    isOfGone: true,
    seed: 2,
  },
]
