/**
 * `npm run power -- [cuts] [seed] [--plain] [--lie[=paths]]`: the whole campaign, 200 cuts unless told otherwise. With
 * `--plain` no file is in a segment. With `--lie` syncs do nothing (those of paths that match, if a regular expression is
 * given), and it is an error if no loss is seen.
 */
import { randomInt } from 'node:crypto'
import { powerCuts } from './power-cuts.ts'

const EVERYTHING = '.'

/** One cause shows in many files. */
const SHOWN_MAX = 40

const lie = process.argv.find(arg => arg.startsWith('--lie'))
const plain = process.argv.includes('--plain')
const [cuts = 200, seed = randomInt(2 ** 31)] = process.argv
  .slice(2)
  .filter(arg => !arg.startsWith('--'))
  .map(Number)
const lies = lie === undefined ? undefined : (lie.split('=')[1] ?? EVERYTHING)
console.log(
  `power: ${cuts} cuts, seed ${seed}${plain ? ', plain files' : ''}${lies === undefined ? '' : `, syncs of /${lies}/ are lies`}`,
)
const startMs = performance.now()
const result = await powerCuts({ cuts, seed, plain, ...(lies === undefined ? {} : { lies }), say: console.log })
const { ends, crashes, acknowledged, deleted, lost, wrong, problems, recovered } = result
const found = [...lost.map(fileId => `${fileId} is lost`), ...wrong, ...problems]
for (const problem of found.slice(0, SHOWN_MAX)) console.log(problem)
console.log(
  `ends ${JSON.stringify(ends)}, ${crashes} of them crashes, in ${Math.round((performance.now() - startMs) / 1000)} s`,
)
console.log(
  `recovered: torn binlogs ${recovered.torn}, records ${recovered.redone}, files without one ${recovered.adopted}, ` +
    `temporaries ${recovered.temporaries}`,
)
console.log(`seed ${seed}, ${acknowledged} acknowledged, ${deleted} of them deleted again`)
console.log(`${lost.length} lost, ${wrong.length} wrong, ${problems.length} other problems`)
const hasFailed = lost.length + wrong.length + problems.length > 0
if (lies === undefined) process.exitCode = hasFailed ? 1 : 0
else {
  // Where some syncs lie, it may show otherwise.
  const isSeen = lies === EVERYTHING ? lost.length > 0 : hasFailed
  console.log(isSeen ? 'the lie was seen, as it should be' : 'NO LOSS WAS SEEN')
  process.exitCode = isSeen ? 0 : 1
}
