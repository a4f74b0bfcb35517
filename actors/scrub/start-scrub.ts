/** Starts the scrub of a storage server, beside the store it reads. */
import { Actor } from '../../runtime/actor.ts'
import { lifetime, type RoleContext, type RunningRole } from '../../runtime/role.ts'
import type { Damage, Quarantine } from '../../store/quarantine.ts'
import { readScrubMark, type ScrubMark, writeScrubMark } from '../../store/scrub-mark.ts'
import { ScrubWalk } from '../../store/scrub-walk.ts'
import type { Store } from '../../store/store.ts'
import { markOf, PASS_MS_MIN, type ScrubEffect, type ScrubMessage, type ScrubState, scrubBehaviour } from './scrub.ts'

export interface ScrubOptions {
  readonly dataDirectory: string
  readonly store: Store
  readonly quarantine: Quarantine
  /** 0 for none: then only what others could not read is looked at. */
  readonly bytesPerSecond: number
  readonly passMsMin?: number
  /** Tells people of a file that is bad, once. */
  readonly onDamage: (name: string, problem: string) => void
}

export interface RunningScrub extends RunningRole {
  /** Somebody could not read a file: it is looked at again soon. */
  suspect(name: string): void
  /** Whole passes, and bytes read, since the start. */
  counts(): { scrubPasses: number; scrubBytes: number }
}

export async function startScrub(context: RoleContext, options: ScrubOptions): Promise<RunningScrub> {
  const { world, timers, log } = context
  const { disk, clock } = world
  const { dataDirectory, store, quarantine, bytesPerSecond, passMsMin = PASS_MS_MIN } = options
  const walk = new ScrubWalk({ disk, dataDirectory, store, quarantine, log })
  const mark = await readScrubMark(disk, dataDirectory)
  let underWay: Promise<unknown> = Promise.resolve()
  let saving: Promise<void> = Promise.resolve()
  const actor = new Actor<ScrubState, ScrubMessage, ScrubEffect>(
    scrubBehaviour({ bytesPerSecond, passMsMin, mark }),
    perform,
    { name: `scrub-${store.storageId}`, clock, timers, log },
  )
  actor.start()

  const { ended, end } = lifetime()
  return {
    ended,
    suspect(name) {
      if (!quarantine.has(name)) actor.post({ type: 'suspect', name })
    },
    counts: () => ({ scrubPasses: actor.state?.passes ?? 0, scrubBytes: actor.state?.readBytes ?? 0 }),
    async stop() {
      const { state } = actor
      actor.stop()
      await underWay
      if (state !== undefined) await save(markOf(state))
      await keep()
      end('stopped')
    },
  }

  function perform(effect: ScrubEffect): Promise<ScrubMessage | undefined> | ScrubMessage | undefined {
    switch (effect.do) {
      case 'walk':
        return work(async () => ({ type: 'walked', piece: await walk.next(effect.position) }))
      case 'read':
        return work(async () => ({ type: 'read', piece: await walk.read(effect.file) }))
      case 'recall':
        quarantine.endPass()
        return { type: 'recalled', names: quarantine.files.map(({ name }) => name) }
      case 'note':
        note(effect.name, effect.damage)
        return undefined
      case 'forget':
        for (const name of effect.names) quarantine.forget(name)
        void keep()
        return undefined
      case 'save':
        void save(effect.mark)
        return undefined
    }
  }

  /** One piece. Whatever has come in by now goes first. */
  function work(read: () => Promise<ScrubMessage>): Promise<ScrubMessage> {
    const piece = clock.turn().then(read)
    const done = piece.catch((error): ScrubMessage => {
      log.error({ err: error }, 'the scrub failed at a piece')
      return { type: 'failed' }
    })
    underWay = done
    return done
  }

  function note(name: string, damage: Damage): void {
    if (!quarantine.note({ name, ...damage, foundMs: clock.wallMs() })) return
    options.onDamage(name, problemOf(damage))
    void keep()
  }

  function keep(): Promise<void> {
    return quarantine.save().catch(error => log.error({ err: error }, 'the quarantine could not be written'))
  }

  function save(mark: ScrubMark): Promise<void> {
    saving = saving
      .then(() => writeScrubMark(disk, dataDirectory, mark))
      .catch(error => log.error({ err: error }, "the scrub's mark could not be written"))
    return saving
  }
}

function problemOf({ part, block }: Damage): string {
  switch (part) {
    case 'slot':
      return 'its slot fails its checksum'
    case 'block':
      return `block ${block} fails its checksum`
    case 'sidecar':
      return 'its sidecar is missing or damaged'
    case 'file':
      return 'its bytes are not those that its name says'
    case 'metadata':
      return 'it is metadata, and fails its checksum'
    case 'unreadable':
      return 'its disk does not give it'
  }
}
