/**
 * `npm run crash -- [cycles] [seed]`: kills a storage server so many times, 200 unless told otherwise, and then damages
 * the end of a binlog and the bytes of files at every offset. Ends with 1 if anything acknowledged was lost, or nothing
 * was proven.
 */
import { randomInt } from 'node:crypto'
import { killChangingFiles } from './changing-files.ts'
import { CrashCluster } from './crash-cluster.ts'
import { type KillFigures, killCycles } from './kill-cycles.ts'
import { countOf, type Problem } from './problem.ts'
import { takeOverCycles } from './take-over-cycles.ts'
import { type DamageFigures, damageFiles, damageRecords, damageRecordsOfServers, damageSlots } from './torn-record.ts'

const CYCLES = 200
/** A take-over takes ten seconds or more: it waits until the trackers are sure. */
const TAKE_OVERS_EACH = 10
/** A dozen starts for each of four pairs. */
const SAMPLES = 3
const PROBLEMS_SHOWN_MAX = 50

const cycles = Number(process.argv[2] ?? CYCLES)
const seed = Number(process.argv[3] ?? randomInt(2 ** 31))
const startedMs = performance.now()
console.log(`crash: ${cycles} cycles, seed ${seed}`)
const killed = await killCycles({ cycles, seed, say: line => console.log(line) })
printKills(killed)
const problems: Problem[] = [...killed.problems]
const changing = await killChangingFiles({ cycles, seed })
for (const what of changing.problems) problems.push({ kind: 'wrong', what })
console.log(
  `files that change: ${changing.kills} kills, ${changing.changes} changes, ${changing.interrupted} cut off, ${changing.problems.length} problems`,
)
const takenOver = await takeOverCycles({ cycles: Math.ceil(cycles / TAKE_OVERS_EACH), seed })
for (const what of takenOver.problems) problems.push({ kind: 'wrong', what })
console.log(
  `taken over: ${takenOver.kills} times, ${takenOver.changes} changes, ${takenOver.interrupted} cut off, ${takenOver.problems.length} problems`,
)

const pairs = [true, false].flatMap(replicated => [true, false].map(checkpointed => ({ replicated, checkpointed })))
for (const pair of pairs) {
  const named = `the last record, ${pair.replicated ? '' : 'not '}replicated, ${pair.checkpointed ? '' : 'no '}checkpoint`
  printDamages(named, await damageRecords({ ...pair, seed }))
}
const unshipped = { replicated: false, checkpointed: false, seed }
// A checkpoint that covers a flush of several leaves all but its last record unread.
printDamages('a last flush of two records', await damageRecords({ ...unshipped, lastRecords: 2 }))
printDamages('the last record of a plain file', await damageRecords({ ...unshipped, plain: true }))
for (const pair of pairs) printDamages('the last slot', await damageSlots({ ...pair, seed }))
printDamages('the last slot, without a record', await damageSlots({ ...unshipped, isFlushCut: true }))
for (const plain of [false, true]) printDamages('files, read by a store', await damageFiles({ seed, plain }))
const cluster = await CrashCluster.start()
try {
  printDamages('files, read through a port', await damageFiles({ seed, cluster }))
  for (const pair of pairs) {
    printDamages(
      'the last record, of a server',
      await damageRecordsOfServers(cluster, { ...pair, seed, samples: SAMPLES }),
    )
  }
} finally {
  await cluster.remove()
}

for (const { kind, what } of problems.slice(0, PROBLEMS_SHOWN_MAX)) console.log(`${kind}: ${what}`)
const minutes = ((performance.now() - startedMs) / 60_000).toFixed(1)
console.log(`${problems.length} problems in ${minutes} min; replay with: npm run crash -- ${cycles} ${seed}`)
process.exitCode = problems.length > 0 ? 1 : 0

function printKills(figures: KillFigures): void {
  const { kills, uploads, deletions, interrupted, repeated, owed, redone, adopted, swept, tornBytes } = figures
  const count = (kind: Problem['kind']) => countOf(figures.problems, kind)
  console.log(`seed ${seed}, ${kills} kills, ${interrupted} requests cut off by them, ${repeated} uploads sent again`)
  console.log(`acknowledged ${uploads} files and ${deletions} deletions; ${owed} files were not at the peer yet`)
  console.log(`lost ${count('lost')}, wrong ${count('wrong')}, missing on the peer ${count('missing')}`)
  console.log(
    `undeleted ${count('undeleted')}, untidy ${count('untidy')}, idle or down ${count('harness') + count('down')}`,
  )
  console.log(`recovery ${spread(figures.recoveryMs)}; until uploads are taken ${spread(figures.startMs)}`)
  console.log(`recovery did ${redone} records again, recorded ${adopted} slots, swept ${swept} temporary files`)
  console.log(`recovery cut ${tornBytes} bytes`)
}

function printDamages(what: string, figures: DamageFigures): void {
  problems.push(...figures.problems)
  console.log(`damaged ${what}: ${figures.runs} times, ${figures.problems.length} problems`)
}

/** Median and 99th percentile. */
function spread(timesMs: readonly number[]): string {
  const sorted = timesMs.toSorted((a, b) => a - b)
  const at = (share: number) => Math.round(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0)
  return `median ${at(0.5)} ms, p99 ${at(0.99)} ms`
}
