import { expect } from 'chai'
import { groupsFor, makeRing } from '../../../actors/tracker/consistent-hash.ts'

const KEYS = Array.from({ length: 20_000 }, (_, i) => `user/${i}/avatar.jpg`)

const namesOf = (count: number) => Array.from({ length: count }, (_, i) => `group${i + 1}`)

describe('consistent hashing', () => {
  for (const count of [2, 3, 8]) {
    it(`gives ${count} groups even shares of the keys, within a quarter`, () => {
      const ring = makeRing(namesOf(count))
      const shares = new Map<string, number>()
      for (const key of KEYS) {
        const group = groupsFor(ring, key)[0]!
        shares.set(group, (shares.get(group) ?? 0) + 1)
      }
      const fair = KEYS.length / count
      expect([...shares.keys()].sort()).deep.equal(namesOf(count).sort())
      for (const [group, share] of shares) expect(share / fair, group).within(0.75, 1.25)
    })

    it(`moves only the keys that a new group takes over when there were ${count}`, () => {
      const before = makeRing(namesOf(count))
      const after = makeRing(namesOf(count + 1))
      let moved = 0
      for (const key of KEYS) {
        const [from, to] = [groupsFor(before, key)[0]!, groupsFor(after, key)[0]!]
        if (from === to) continue
        moved++
        if (to !== `group${count + 1}`) expect.fail(`${key} moved from ${from} to ${to}`)
      }
      expect(moved / (KEYS.length / (count + 1))).within(0.75, 1.25)
    })
  }

  it('gives all groups, each once, the first for most keys of a group that is gone spread over the others', () => {
    const ring = makeRing(namesOf(4))
    const seconds = new Map<string, number>()
    for (const key of KEYS) {
      const order = groupsFor(ring, key)
      if (order.length !== 4) expect(order).length(4)
      if (order[0] === 'group1') seconds.set(order[1]!, (seconds.get(order[1]!) ?? 0) + 1)
    }
    expect([...seconds.keys()].sort()).deep.equal(['group2', 'group3', 'group4'])
    for (const share of seconds.values()) expect(share).greaterThan(KEYS.length / 4 / 3 / 3)
  })

  it('does not depend on the order in which the groups became known', () => {
    const [one, other] = [makeRing(namesOf(5)), makeRing(namesOf(5).reverse())]
    for (const key of KEYS.slice(0, 500)) expect(groupsFor(one, key)).deep.equal(groupsFor(other, key))
  })

  it('gives a key the same group in every version: trackers of two may run side by side', () => {
    const ring = makeRing(namesOf(4))
    const groups = ['', 'a', 'user/1/avatar.jpg', 'ä€', 'x'.repeat(1024)].map(key => groupsFor(ring, key)[0])
    expect(groups).deep.equal(GOLDEN)
  })

  it('has no group for a key where there are none', () => {
    expect(groupsFor(makeRing([]), 'key')).deep.equal([])
  })
})

const GOLDEN = ['group3', 'group4', 'group2', 'group3', 'group4']
