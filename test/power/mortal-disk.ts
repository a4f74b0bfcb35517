import { LazyDisk } from './lazy-disk.ts'

/** A disk below `root` that is dead when its so-manieth sync is about to take effect, and says at which. */
export function mortalDisk(root: string, sync: number): { disk: LazyDisk; dead: Promise<string> } {
  let left = sync
  let onDeath: (last: string) => void
  const dead = new Promise<string>(resolve => {
    onDeath = resolve
  })
  const disk: LazyDisk = new LazyDisk(root, {
    onSync: path => {
      if (--left > 0) return
      disk.die()
      onDeath(`sync ${sync} of ${path.slice(root.length)}`)
    },
  })
  return { disk, dead }
}
