import { expect } from 'chai'
import fc from 'fast-check'
import { Oldest } from '../../store/oldest.ts'

const steps = fc.array(fc.oneof(fc.constant('take' as const), fc.constant('again' as const), fc.nat(9)), {
  maxLength: 60,
})

describe('the oldest of a map', () => {
  it('is taken, or spared once for all others, whatever comes and goes', () => {
    fc.assert(
      fc.property(steps, plan => {
        const map = new Map<number, string>()
        const oldest = new Oldest(map)
        let queue: number[] = []
        for (const step of plan) {
          if (typeof step === 'number') {
            // Those that come stand behind all others; a key that is there already is taken out from anywhere.
            const isThere = map.delete(step)
            queue = queue.filter(key => key !== step)
            if (isThere) continue
            map.set(step, '')
            queue.push(step)
            continue
          }
          const key = oldest.next()
          expect(key).to.equal(queue.shift())
          if (key === undefined) continue
          map.delete(key)
          if (step === 'take') continue
          map.set(key, '')
          queue.push(key)
        }
      }),
      { numRuns: 1000 },
    )
  })
})
