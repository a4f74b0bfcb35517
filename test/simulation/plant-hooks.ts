/** Loader hooks of Node that plant one bug: the module it is in is changed as it is read. */
import type { LoadHook } from 'node:module'
import type { PlantedBug } from './planted-bugs.ts'

let bug: PlantedBug

export function initialize(planted: PlantedBug): void {
  bug = planted
}

export const load: LoadHook = async (url, context, nextLoad) => {
  const loaded = await nextLoad(url, context)
  if (!url.endsWith(`/dist/${bug.file}`)) return loaded
  const parts = String(loaded.source).split(bug.find)
  if (parts.length !== 2)
    throw new Error(`${bug.name} cannot be planted: its place is in ${bug.file} ${parts.length - 1} times`)
  return { ...loaded, source: parts.join(bug.replace) }
}
