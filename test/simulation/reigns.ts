/**
 * Who has ordered the changes of whose files, and when: as the members' disks say, where it stands before anybody acts on it.
 *
 *     promised by its beginner ──── accepted ──── accepted by a majority, or by one who was told that he is alone
 *     |------------------ at some moment in here the files change hands -----------------|
 */
import type { BinlogRecord } from '../../protocol/binlog-record.ts'
import type { Succession } from '../../protocol/orderers.ts'
import type { Promised } from '../../store/orderer-file.ts'
import { document, recordsOf, storageMachines } from './checkers.ts'
import type { Reign } from './history.ts'
import { DATA_DIRECTORY, type Machine, type SimCluster, STORAGES } from './sim-cluster.ts'

const PATH = `${DATA_DIRECTORY}/orderers`
/** What a machine has lost of its own log may have been any number of changes. */
const UNKNOWN_LOSS = 8

interface Known {
  readonly succession: Succession
  readonly begunMs: number
  /** Undefined as long as it may come to nothing. */
  chosenMs: number | undefined
}

export class Reigns {
  readonly #cluster: SimCluster
  /** When rounds began, by term. */
  readonly #begun = new Map<number, number>()
  /** Who has agreed, by term. */
  readonly #accepted = new Map<number, Set<string>>()
  readonly #known = new Map<string, Known>()

  /** Listens to the disks of all storage servers. */
  constructor(cluster: SimCluster) {
    this.#cluster = cluster
    for (const machine of storageMachines(cluster)) {
      machine.disk.onChange = what => {
        if (what.endsWith(` -> ${PATH}`)) this.#look(machine)
      }
    }
  }

  /** How often files have changed hands. */
  get count(): number {
    return [...this.#known.values()].filter(({ chosenMs }) => chosenMs !== undefined).length
  }

  /** Of a name that may change, in their order. */
  of(source: number, name: string): Reign[] {
    const chosen = this.#of(source)
    return chosen.map((known, i) => {
      const { succession, begunMs, chosenMs } = known
      // Whoever had them before may have them again later: from there on his records count.
      const again = chosen.slice(i + 1).find(({ succession: { orderer } }) => orderer === succession.after.storageId)
      return {
        orderer: succession.orderer,
        begunMs,
        chosenMs: chosenMs!,
        lossMax: this.#lost(name, succession, again?.succession),
      }
    })
  }

  /** How many changes of a name whoever took it over did not know of. */
  unknown(source: number, name: string): number {
    return this.of(source, name).reduce((sum, { lossMax }) => sum + lossMax, 0)
  }

  #of(source: number): Known[] {
    const chosen = [...this.#known.values()].filter(
      ({ succession, chosenMs }) => succession.source === source && chosenMs !== undefined,
    )
    return chosen.sort((a, b) => a.chosenMs! - b.chosenMs!)
  }

  /** How many changes of a name whoever had it before has recorded, and the next one did not know of. */
  #lost(name: string, { after }: Succession, again: Succession | undefined): number {
    const machine = storageMachines(this.#cluster).find(
      machine => STORAGES.get(machine.name)!.storageId === after.storageId,
    )!
    if (machine.lostRecord) return UNKNOWN_LOSS
    const isBehind = ({ epoch, sequence }: BinlogRecord, place: { epoch: number; sequence: number }) =>
      epoch > place.epoch || (epoch === place.epoch && sequence > place.sequence)
    return recordsOf(machine, 'now').filter(
      record =>
        record.name === name &&
        isChange(record) &&
        isBehind(record, after) &&
        (again === undefined || !isBehind(record, again.since)),
    ).length
  }

  #look({ name, disk }: Machine): void {
    const { group, storageId } = STORAGES.get(name)!
    const { promised, isAlone, table } = document(disk.read(PATH)) as Promised
    const { nowMs } = this.#cluster.loop
    // Who begins a round promises it first.
    if (!this.#begun.has(promised)) this.#begun.set(promised, nowMs)
    if (table.term === 0) return
    const by = this.#accepted.get(table.term) ?? new Set()
    this.#accepted.set(table.term, by.add(name))
    const members = [...STORAGES.values()].filter(storage => storage.group === group).length
    const isChosen = by.size > members / 2 || (isAlone && table.term % 2 ** 24 === storageId)
    for (const succession of table.successions) {
      const key = JSON.stringify(succession)
      const begunMs = this.#begun.get(table.term) ?? nowMs
      const known = this.#known.get(key) ?? { succession, begunMs, chosenMs: undefined }
      this.#known.set(key, known)
      if (isChosen) known.chosenMs ??= nowMs
    }
  }
}

/** A record of this source's own that changes something: one that only says how a file is does not. */
function isChange({ op, token, inSlot }: BinlogRecord): boolean {
  return /[DUAMT]/.test(op) || (op === 'C' && (token !== undefined || inSlot === true))
}
