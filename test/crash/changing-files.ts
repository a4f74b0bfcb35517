/**
 * Kills a storage server with -9 while appender files are written, metadata is set and slave files come and go, and holds
 * what it had acknowledged against what its port says afterwards, and against its peer. What was under way may have happened
 * or not; once it was seen, it stays.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Phase } from '../../store/phase.ts'
import { SeededRandom } from '../simulation/seeded-random.ts'
import { until } from '../until.ts'
import { CrashCluster } from './crash-cluster.ts'
import {
  type Changing,
  type ChangingFigures,
  change,
  create,
  isSame,
  orderedState,
  settle,
  stateOf,
  tell,
} from './file-states.ts'

const VICTIM = 1
const PEER = 2
const FILES = 4
const LOAD_MS_MAX = 300
const OCCURRENCES_MAX = 30
const DEATH_MS = 20_000
const SYNC_MS = 30_000
const PHASES: readonly (Phase | 'moment')[] = ['moment', 'written', 'synced', 'recorded', 'renamed', 'acknowledged']

/** Runs so many kills on a cluster of their own. */
export async function killChangingFiles({ cycles, seed }: { cycles: number; seed: number }): Promise<ChangingFigures> {
  const cluster = await CrashCluster.start()
  const figures: ChangingFigures = { kills: 0, changes: 0, interrupted: 0, problems: [] }
  const random = new SeededRandom(`changing files ${seed}`)
  const files: Changing[] = []
  try {
    await cluster.startStorage(PEER)
    for (let cycle = 0; cycle <= cycles; cycle++) {
      const victim = await cluster.startStorage(VICTIM)
      await victim.ready()
      await check(cluster, files, figures)
      if (cycle === cycles) return figures
      const connection = await cluster.connect(VICTIM)
      while (files.length < FILES) files.push(...(await create(connection, random)))
      const death = PHASES[cycle % PHASES.length]!
      if (death !== 'moment') victim.dieAt(death, 1 + random.below(OCCURRENCES_MAX))
      const work = Promise.all(
        files.map(async (file, i) => {
          const own = random.fork(`cycle ${cycle} file ${i}`)
          const at = await cluster.connect(VICTIM)
          await orderedState([at], file.name)
          while (victim.alive && !at.broken) await change(at, file, own, figures)
        }),
      )
      if (death === 'moment') {
        await sleep(random.below(LOAD_MS_MAX))
        victim.kill()
      }
      await until('the victim dies', () => !victim.alive, DEATH_MS)
      await victim.exited
      await work
      figures.kills++
      cluster.disconnect()
    }
    return figures
  } finally {
    await cluster.remove()
  }
}

/** Holds all files against what the source says, and waits until its peer says the same. */
async function check(cluster: CrashCluster, files: readonly Changing[], figures: ChangingFigures): Promise<void> {
  const source = await cluster.connect(VICTIM, 'client')
  const peer = await cluster.connect(PEER, 'peer')
  for (const file of files) {
    const found = await stateOf(source, file.name)
    settle(file, found, figures)
    const isAtPeer = async () => isSame(await stateOf(peer, file.name), found)
    await until('the peer has it', isAtPeer, SYNC_MS).catch(async () => {
      const there = tell(await stateOf(peer, file.name))
      figures.problems.push(`the peer has ${there} of ${file.name} after kill ${figures.kills}, not ${tell(found)}`)
    })
  }
}
