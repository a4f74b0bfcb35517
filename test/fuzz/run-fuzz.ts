/** `npm run fuzz -- [--frames N] [--seed N] [--first N]`: ends with 1 if anything was wrong. */
import { randomInt } from 'node:crypto'
import { parseArgs } from 'node:util'
import { fuzz } from './fuzz.ts'

const { values } = parseArgs({
  options: { frames: { type: 'string' }, seed: { type: 'string' }, first: { type: 'string' } },
})
const frames = Number(values.frames ?? 100_000)
const seed = Number(values.seed ?? randomInt(2 ** 31))
const first = Number(values.first ?? 0)
console.log(`fuzz: ${frames} frames, seed ${seed}`)
const result = await fuzz({ frames, seed, first, say: line => console.log(line) })
for (const problem of result.problems) console.log(problem)
const statuses = [...result.statuses].sort(([a], [b]) => a - b).map(([status, count]) => `${status}: ${count}`)
console.log(`replies by status: ${statuses.join(', ')}; ${result.filesMade} files made`)
console.log(
  `memory in MiB: ${result.memory.map(({ warm, peak, end }) => [warm, peak, end].map(toMib).join(' > ')).join(', ')}`,
)
console.log(
  `${result.frames} frames in ${result.sessions - first} connections, ${Math.round(result.framesPerSecond)} a second, ` +
    `${result.problems.length} problems; again: npm run fuzz -- --frames ${frames} --seed ${seed}`,
)
process.exitCode = result.problems.length > 0 ? 1 : 0

function toMib(bytes: number): number {
  return Math.round(bytes / 2 ** 20)
}
