/** Rejects with the first failure, but not before the last is over: until then somebody still reads from the buffers. */
export async function allDone(works: readonly (Promise<unknown> | undefined)[]): Promise<void> {
  if (works.length > 1) await Promise.allSettled(works)
  await Promise.all(works)
}
