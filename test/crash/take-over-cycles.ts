/**
 * Kills the source of files that change with -9, in the middle of their changes; has its peer take over, goes on there, and
 * starts the source again while that goes on. Every change that both members held has to be there all the time, and every one of
 * the successor's; of one that was cut off, either what was before or what it made.
 *
 *     source      changes ──✗ killed              started ── applies ── takes back ── changes
 *     successor            taken over ── changes ───────────────────── passes changes on
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { FrameClient } from '../../runtime/frame-client.ts'
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

const SOURCE = 1
const SUCCESSOR = 2
const FILES = 4
const OCCURRENCES_MAX = 30
/** Four beats, and what a busy machine adds; then everything the other one has recorded has to come. */
const OFFLINE_MS = 30_000
const DEATH_MS = 20_000
const SYNC_MS = 30_000
const REIGN_MS = 300
const PHASES: readonly Phase[] = ['written', 'synced', 'recorded', 'renamed', 'acknowledged']

/** Runs so many take-overs on a cluster of their own. */
export async function takeOverCycles({ cycles, seed }: { cycles: number; seed: number }): Promise<ChangingFigures> {
  const cluster = await CrashCluster.start()
  const figures: ChangingFigures = { kills: 0, changes: 0, interrupted: 0, problems: [] }
  const random = new SeededRandom(`take-over ${seed}`)
  const files: Changing[] = []
  try {
    await cluster.startStorage(SUCCESSOR)
    // What it acknowledges, its successor has.
    let source = await cluster.startStorage(SOURCE, { ack: 'all' })
    for (let cycle = 0; cycle < cycles; cycle++) {
      const connection = await cluster.connect(SOURCE)
      while (files.length < FILES) files.push(...(await create(connection, random)))
      source.dieAt(PHASES[cycle % PHASES.length]!, 1 + random.below(OCCURRENCES_MAX))
      const randomOf = (who: string, i: number) => random.fork(`cycle ${cycle} ${who} ${i}`)
      await onAll(cluster, SOURCE, files, async (at, file, i) => {
        await orderedState([at], file.name)
        const own = randomOf('source', i)
        while (source.alive && !at.broken) await change(at, file, own, figures)
      })
      await until('the source dies', () => !source.alive, DEATH_MS)
      await source.exited
      figures.kills++
      await until('it is taken over', () => cluster.takeOver(SOURCE, SUCCESSOR), OFFLINE_MS)
      const orderers = [await cluster.connect(SUCCESSOR, 'client')]
      let isBack = false
      const reign = onAll(cluster, SUCCESSOR, files, async (at, file, i) => {
        await look(orderers, file, figures)
        const own = randomOf('successor', i)
        // Of a file that it does not change, the source brings what it had made.
        await change(at, file, own, figures, { isContent: true })
        while (!isBack) {
          if (file.states.length > 1) await look(orderers, file, figures)
          await change(at, file, own, figures)
        }
      })
      await sleep(REIGN_MS)
      source = await cluster.startStorage(SOURCE, { ack: 'all' })
      const returned = await cluster.connect(SOURCE, 'client')
      orderers.push(returned)
      await orderedState([returned], files[0]!.name)
      await sleep(REIGN_MS)
      isBack = true
      await reign
      await checkBoth(cluster, orderers, files, figures)
      cluster.disconnect()
    }
    return figures
  } finally {
    await cluster.remove()
  }
}

/** Does something with all files at the same time, over a connection for each. */
async function onAll(
  cluster: CrashCluster,
  member: number,
  files: readonly Changing[],
  work: (at: FrameClient, file: Changing, i: number) => Promise<void>,
): Promise<void> {
  await Promise.all(files.map(async (file, i) => work(await cluster.connect(member, 'client'), file, i)))
}

/** Looks at who orders its changes what has come of a file. */
async function look(orderers: readonly FrameClient[], file: Changing, figures: ChangingFigures): Promise<void> {
  const found = await orderedState(orderers, file.name)
  if (found !== undefined) settle(file, found, figures)
}

/** Both members have the same, and what they have to. */
async function checkBoth(
  cluster: CrashCluster,
  orderers: readonly FrameClient[],
  files: readonly Changing[],
  figures: ChangingFigures,
): Promise<void> {
  for (const file of files) {
    await look(orderers, file, figures)
    const [found] = file.states
    for (const member of [SOURCE, SUCCESSOR]) {
      const at = await cluster.connect(member, 'peer')
      const isThere = async () => isSame(await stateOf(at, file.name), found!)
      await until('a member has it', isThere, SYNC_MS).catch(async () => {
        const there = tell(await stateOf(at, file.name))
        figures.problems.push(`storage server ${member} has ${there} of ${file.name}, not ${tell(found!)}`)
      })
    }
  }
}
