/** A slice of `npm run fuzz`, and that it would see what it looks for. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { writeGroupAndName } from '../../protocol/data-bodies.ts'
import { COMMANDS, frame } from '../../protocol/frame.ts'
import { golden } from '../fastdfs-golden.ts'
import { type RawConnection, serveRaw } from '../runtime/frame-fixture.ts'
import { fuzz, strangersIn } from './fuzz.ts'
import { MARKER } from './mutate.ts'
import { type Plan, planSession, playSession } from './session.ts'

const FRAMES = 6_000
const SEED = 20
const NAME = 'M00/03/AC/CucHC2sAiuGARzrjAAAADcRYHyQ923.txt'
const REQUEST = Buffer.from(golden('active_test').request, 'hex')

describe('the fuzz', function () {
  this.timeout(120_000)

  it('costs a tracker and two storage servers nothing', async () => {
    const { frames, statuses, filesMade, problems } = await fuzz({ frames: FRAMES, seed: SEED, say: () => {} })
    expect(problems).deep.equal([])
    expect(frames).least(FRAMES)
    expect(filesMade).greaterThan(200)
    expect([...statuses.keys()]).include.members([0, 2, 13, 22])
  })

  it('sends the same for the same seed, and all kinds of bytes', () => {
    const planned = (seed: number, index: number) => Buffer.concat(planSession(seed, index, () => NAME).pieces)
    const plans = Array.from({ length: 2_000 }, (_, index) => planned(SEED, index))
    for (const index of [0, 7, 1_999]) expect(planned(SEED, index).equals(plans[index]!)).equal(true)
    expect(planned(SEED + 1, 7).equals(plans[7]!)).equal(false)
    const all = Buffer.concat(plans)
    const reply = Buffer.from(golden('s.download').request, 'hex')
    for (const part of [REQUEST, reply, Buffer.from(MARKER), Buffer.from('7fffffffffffffff', 'hex')]) {
      expect(all.includes(part), part.toString('latin1')).equal(true)
    }
  })

  describe('sees', () => {
    const plan: Plan = {
      ...{ port: 'storage', role: 'anonymous', ending: 'read' },
      ...{ requests: [REQUEST], pieces: [REQUEST], pauseMs: 0 },
    }
    const reply = frame(COMMANDS.reply, writeGroupAndName('group1', NAME))

    for (const [what, answer, problem] of [
      ['a connection that breaks off', connection => connection.socket.resetAndDestroy(), 'broke off'],
      ['a reply that ends too soon', connection => connection.socket.end(reply.subarray(0, 30)), 'after 30 bytes'],
      ['an answer that is none', connection => connection.socket.end(REQUEST), 'no reply'],
    ] as readonly [string, (connection: RawConnection) => void, string][]) {
      it(what, async () => {
        expect((await played(answer)).problem).include(problem)
      })
    }

    it('the name of a file that was made', async () => {
      const outcome = await played(connection => connection.socket.end(reply))
      expect(outcome).deep.equal({ names: [NAME], statuses: [0], problem: undefined })
    })

    it('a file that nobody asked for', () => {
      const directory = mkdtempSync(join(tmpdir(), 'dfs-fuzz-'))
      try {
        mkdirSync(join(directory, 'store', 'data', '03', 'AC'), { recursive: true })
        mkdirSync(join(directory, 'store', 'segments'))
        for (const suffix of ['', '-m', '~sum'])
          writeFileSync(join(directory, 'store', 'data', `${NAME.slice(4)}${suffix}`), '')
        expect(strangersIn(directory, new Set([NAME]))).deep.equal([])
        expect(strangersIn(directory, new Set())).deep.equal([NAME])
      } finally {
        rmSync(directory, { recursive: true })
      }
    })

    async function played(answer: (connection: RawConnection) => void) {
      const server = await serveRaw(connection => connection.socket.once('data', () => answer(connection)))
      try {
        return await playSession(plan, server.endpoint, '127.0.0.1', '')
      } finally {
        await server.remove()
      }
    }
  })
})
