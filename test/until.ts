/** Waits in tests for something that happens in another process: bounded, and saying what never came. */

const LIMIT_MS = 20_000
const LOOK_EVERY_MS = 10

/** Resolves with the first value of `look` that is neither undefined nor false. */
export async function until<T>(
  what: string,
  look: () => T | Promise<T>,
  limitMs = LIMIT_MS,
): Promise<NonNullable<Exclude<T, false>>> {
  const deadlineMs = performance.now() + limitMs
  for (;;) {
    const value = await look()
    if (value !== undefined && value !== null && value !== false) return value as NonNullable<Exclude<T, false>>
    if (performance.now() > deadlineMs) throw new Error(`waited ${limitMs} ms in vain: ${what}`)
    await new Promise(resolve => setTimeout(resolve, LOOK_EVERY_MS))
  }
}
