/**
 * What this member has promised, and what it has agreed on, about who orders whose changes. Durable before anybody is told.
 *
 *     <data>/orderers   { version, promised, isAlone, members: [], table: { term, successions } }
 *
 * Without it nothing was ever promised. One that is damaged stops the start: to forget a promise may split the group.
 */
import { join } from 'node:path'
import { NO_TERM, type OrdererTable } from '../protocol/orderers.ts'
import type { Disk } from '../runtime/world.ts'
import { readDocument, writeDocument } from './durable-document.ts'

const ORDERERS_VERSION = 1

export interface Promised {
  /** The newest round that was promised; at least that of the table. */
  readonly promised: number
  /** An operator has said that who else would have to be asked is dead. */
  readonly isAlone: boolean
  /** Storage ids of all others of the group that were ever heard of: a majority is one of all of them. */
  readonly members: readonly number[]
  readonly table: OrdererTable
}

export class OrdererFile {
  readonly #disk: Disk
  readonly #path: string
  #state: Promised
  /** One change at a time. */
  #turn: Promise<unknown> = Promise.resolve()

  private constructor(disk: Disk, path: string, found: Promised | undefined) {
    this.#disk = disk
    this.#path = path
    this.#state = found ?? { promised: 0, isAlone: false, members: [], table: NO_TERM }
  }

  /** Rejects with DocumentDamagedError. */
  static async read(disk: Disk, dataDirectory: string): Promise<OrdererFile> {
    const path = join(dataDirectory, 'orderers')
    const found = (await readDocument(disk, path)) as (Promised & { version: number }) | undefined
    if (found !== undefined && found.version !== ORDERERS_VERSION)
      throw new Error(`${path} has version ${found.version}, which is not known here`)
    return new OrdererFile(disk, path, found)
  }

  get state(): Promised {
    return this.#state
  }

  /** Promises a round that is newer than all before; false if it is not. Durable when it resolves. */
  promise(term: number): Promise<boolean> {
    return this.#change(state => (term > state.promised ? { ...state, promised: term } : undefined))
  }

  /** Agrees on a table, unless something newer was promised. Durable when it resolves. */
  accept(table: OrdererTable, isAlone = false): Promise<boolean> {
    const { term } = table
    return this.#change(({ promised, members }) =>
      term >= promised ? { promised: term, isAlone, members, table } : undefined,
    )
  }

  /** Never forgets members that were heard of. Durable when it resolves. */
  async remember(heard: readonly number[]): Promise<void> {
    const isNew = (id: number) => !this.#state.members.includes(id)
    if (!heard.some(isNew)) return
    await this.#change(state => ({ ...state, members: [...new Set([...state.members, ...heard])] }))
  }

  /** The others can be asked again. */
  async endAlone(): Promise<void> {
    await this.#change(state => (state.isAlone ? { ...state, isAlone: false } : undefined))
  }

  #change(decide: (state: Promised) => Promised | undefined): Promise<boolean> {
    const changed = this.#turn.then(async () => {
      const next = decide(this.#state)
      if (next === undefined) return false
      await writeDocument(this.#disk, this.#path, { version: ORDERERS_VERSION, ...next })
      this.#state = next
      return true
    })
    this.#turn = changed.catch(ignore)
    return changed
  }
}

/** Whoever asked is told; the next one tries anew. */
function ignore(): void {}
