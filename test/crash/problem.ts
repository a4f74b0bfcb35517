/** What the crash tests look for. */

/**
 * `lost`: acknowledged, and its source does not give it. `wrong`: other bytes, or a name given twice. `missing`: the
 * other server does not get it. `undeleted`: its deletion was acknowledged. `untidy`: what is on disk contradicts itself.
 * `down`: a server ended by itself, or does not start. `harness`: nothing was proven.
 */
export type ProblemKind = 'lost' | 'wrong' | 'missing' | 'undeleted' | 'untidy' | 'down' | 'harness'

export interface Problem {
  readonly kind: ProblemKind
  readonly what: string
}

/** Notes a problem. */
export type Say = (kind: ProblemKind, what: string) => void

/** How many there are of a kind. */
export function countOf(problems: readonly Problem[], kind: ProblemKind): number {
  return problems.filter(problem => problem.kind === kind).length
}
