/** Programs that are started by another one and must not outlive it. */

/** Ends this process when its stdin closes, if that is a pipe: whoever holds the other end is gone. */
export function endWithParent(): void {
  if (process.env.DFS_BENCH_CHILD === undefined) return
  const end = () => process.exit(1)
  process.stdin.on('end', end).on('error', end).resume()
}
