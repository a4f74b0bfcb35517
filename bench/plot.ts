/**
 * The result as a picture: for each row a bar as long as its median ratio to the yardstick, a line from the lowest to
 * the highest, and the rate in words.
 */
import { number, type Report, rateText, size } from './report.ts'
import type { PairRow } from './row.ts'

const WIDTH = 1000
const LABELS = 400
const BARS = 440
const ROW = 20
const TOP = 56
const COLOURS: Record<string, string> = { upload: '#2b7a78', download: '#3a6ea5', delete: '#a55a3a', sdk: '#6b4e9b' }

/** Draws the rows that were measured in pairs, as SVG. */
export function plot(report: Report): string {
  const rows = report.rows.filter((row): row is PairRow => 'pairs' in row)
  const most = Math.max(1, ...rows.map(row => row.pairs.ratio.highest))
  const x = (ratio: number) => LABELS + (ratio / most) * BARS
  const height = TOP + rows.length * ROW + 30
  const { cores, model, node, fileSystem } = report.machine
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" font-family="sans-serif" font-size="11">`,
    `<rect width="${WIDTH}" height="${height}" fill="white"/>`,
    text(10, 20, `natsdfs beside its yardsticks: rate of ours / rate of the yardstick`, 'font-size="14"'),
    text(10, 38, `${report.date}, ${cores} cores (${model}), node ${node}, ${fileSystem}`, 'fill="#666"'),
    ...ticks(most).map(ratio => line(x(ratio), TOP - 4, x(ratio), height - 24, '#ddd')),
    ...ticks(most).map(ratio => text(x(ratio), height - 10, String(ratio), 'text-anchor="middle" fill="#666"')),
    ...rows.flatMap((row, i) => bar(row, TOP + i * ROW, x)),
    '</svg>',
    '',
  ].join('\n')
}

function bar(row: PairRow, y: number, x: (ratio: number) => number): string[] {
  const { median, lowest, highest } = row.pairs.ratio
  const by = row.generator === 'bench' ? '' : `, ${row.generator}`
  const of = row.against === 'null server' ? '' : ` / ${row.against}`
  const label = `${row.name}, ${size(row.sizeBytes)}, ${row.connections} conns, ${row.durability}${by}${of}`
  const middle = y + ROW / 2 - 2
  return [
    text(LABELS - 8, middle + 4, label, 'text-anchor="end"'),
    `<rect x="${LABELS}" y="${y}" width="${(x(median) - LABELS).toFixed(1)}" height="${ROW - 6}" fill="${COLOURS[row.topic] ?? '#777'}"/>`,
    line(x(lowest), middle, x(highest), middle, 'black'),
    text(x(highest) + 6, middle + 4, `${number(median)}   ${rateText(row, row.pairs.rate)} a second`, 'fill="#333"'),
  ]
}

/** Round numbers up to the longest bar. */
function ticks(most: number): number[] {
  const step = most <= 2 ? 0.25 : 10 ** Math.floor(Math.log10(most))
  return Array.from({ length: Math.floor(most / step) + 1 }, (_, i) => i * step)
}

function text(x: number, y: number, words: string, attributes: string): string {
  const safe = words.replaceAll('&', '&amp;').replaceAll('<', '&lt;')
  return `<text x="${x.toFixed(1)}" y="${y}" ${attributes}>${safe}</text>`
}

function line(x1: number, y1: number, x2: number, y2: number, colour: string): string {
  return `<line x1="${x1.toFixed(1)}" y1="${y1}" x2="${x2.toFixed(1)}" y2="${y2}" stroke="${colour}"/>`
}
