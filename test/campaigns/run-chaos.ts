/** `npm run chaos -- [rounds] [seed]`: the whole campaign, ten rounds unless told otherwise. */
import { randomInt } from 'node:crypto'
import { chaos } from './chaos.ts'

const rounds = Number(process.argv[2] ?? 10)
const seed = Number(process.argv[3] ?? randomInt(2 ** 31))
console.log(`chaos: ${rounds} rounds, seed ${seed}`)
const { kills, acknowledged, failedUploads, problems } = await chaos(rounds, seed, line => console.log(line))
for (const problem of problems) console.log(problem)
console.log(`killed ${JSON.stringify(kills)}; ${acknowledged} files acknowledged, ${failedUploads} uploads failed`)
console.log(`${problems.length} lost or wrong; replay with: npm run chaos -- ${rounds} ${seed}`)
process.exitCode = problems.length > 0 ? 1 : 0
