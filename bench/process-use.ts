/** What processes have used of the machine, where the system tells it in /proc. */
import { readFileSync } from 'node:fs'

export interface ProcessUse {
  readonly cpuSeconds: number
  readonly rssBytes: number
}

/** Linux counts CPU time for /proc in hundredths of a second, whatever its own clock does. */
const TICKS_PER_SECOND = 100

/** By name; empty where there is no /proc. */
export function processUses(pids: Readonly<Record<string, number>>): Record<string, ProcessUse> {
  const uses = Object.entries(pids).map(([name, pid]) => [name, processUse(pid)] as const)
  return Object.fromEntries(uses.filter((entry): entry is [string, ProcessUse] => entry[1] !== undefined))
}

function processUse(pid: number): ProcessUse | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    // The name, in parentheses, may hold spaces; behind it, user and system time are the 12th and 13th field.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    const kib = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
    return { cpuSeconds: (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND, rssBytes: Number(kib) * 1024 }
  } catch {
    // No /proc here, or the process has just ended.
    return undefined
  }
}
