/**
 * Files that change (metadata, slave files, appender files) in a store that dies at every sync in turn: what was acknowledged
 * is there, and what was under way has happened or has not.
 */
import { randomInt } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { decodeFileName, slaveNameOf } from '../../protocol/file-id.ts'
import { silentLog } from '../../runtime/log.ts'
import { realWorld } from '../../runtime/real-world.ts'
import { Timers } from '../../runtime/timers.ts'
import { BLOCK_BYTES } from '../../store/block-pool.ts'
import { CHECKPOINT_MS } from '../../store/checkpoints.ts'
import { openDirectory } from '../../store/data-directory.ts'
import { FileStore } from '../../store/file-store.ts'
import { SeededRandom } from '../simulation/seeded-random.ts'
import { contentOf, download, fill, optionsOf, upload } from '../store/store-fixture.ts'
import { VirtualClock } from '../virtual-clock.ts'
import { LazyDisk } from './lazy-disk.ts'
import { mortalDisk } from './mortal-disk.ts'

const TIMEOUT_MS = 60_000
const SEGMENT_FILE_BYTES_MAX = 1_000

/** What is under a name, and what its metadata is; undefined if there is none. */
interface State {
  readonly content: Buffer | undefined
  readonly metadata: string | undefined
}

/** What may be found, by name: what was acknowledged, and what was asked for since. */
type Promised = Map<string, State[]>

interface Opened {
  readonly store: FileStore
  readonly clock: VirtualClock
}

describe('a store of files that change, and dies at each of its syncs in turn', function () {
  this.timeout(TIMEOUT_MS)
  const seed = randomInt(2 ** 31)
  let directory = ''
  let root = ''
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'dfs-power-test-'))
    root = join(directory, 'disk')
  })
  afterEach(() => rmSync(directory, { recursive: true, force: true }))

  for (const end of ['crash', 'nothing', 'in order', 'in any order'] as const) {
    const what = end === 'crash' ? 'only the process dies' : `the power goes, torn: ${end}`
    it(`keeps what it acknowledged when ${what}, and at the starts that follow`, async () => {
      let syncs = 0
      for (let isOver = false; !isOver; syncs++) {
        rmSync(root, { recursive: true, force: true })
        const promised: Promised = new Map()
        const { disk, dead } = mortalDisk(root, syncs + 1)
        const last = await Promise.race([live(disk, promised), dead])
        const random = new SeededRandom(`${seed} ${syncs}`)
        if (end === 'in order' || end === 'in any order') disk.tear(random, end)
        const cache = end === 'crash' ? disk.cache() : undefined
        disk.die()
        const when = `after ${last ?? 'its end'}, seed ${seed}`
        await checkOn(new LazyDisk(root, { cache }), promised, when)
        await checkOn(new LazyDisk(root), promised, `at the second start ${when}`)
        isOver = last === undefined
      }
      expect(syncs).to.be.above(40)
    })
  }

  /** A short life, with checkpoints in between. */
  async function live(disk: LazyDisk, promised: Promised): Promise<undefined> {
    const { store, clock } = await openOn(disk)
    const [large, other] = [contentOf(BLOCK_BYTES + 100, 1), contentOf(3_000, 2)]
    const appender = await createAppender(store, large, promised)
    const packed = await keep(store, contentOf(100, 3), promised)
    const slave = slaveNameOf(packed, '_small', 'jpg')
    const append = (bytes: Buffer) => write(store, appender, promised, bytes)
    await append(other)
    await setMetadata(store, packed, 'first', promised)
    await setMetadata(store, appender, 'of a log', promised)
    await createSlave(store, slave, other, promised)
    await write(store, appender, promised, contentOf(5_000, 4), BLOCK_BYTES - 1_000)
    clock.advance(CHECKPOINT_MS)
    await setMetadata(store, packed, 'second', promised)
    await truncate(store, appender, BLOCK_BYTES - 500, promised)
    await append(contentOf(2_000, 5))
    await setMetadata(store, slave, 'of the first', promised)
    await remove(store, slave, promised)
    await createSlave(store, slave, large, promised)
    clock.advance(CHECKPOINT_MS)
    await Promise.all([append(contentOf(10, 6)), setMetadata(store, packed, 'third', promised)])
    await write(store, appender, promised, contentOf(700, 7), 0)
    await remove(store, packed, promised)
    await store.close()
  }

  /** Does something that turns what is under a name into something else. */
  async function change(
    promised: Promised,
    name: string,
    turn: (before: State) => State,
    work: () => Promise<unknown>,
  ): Promise<void> {
    const before = promised.get(name)?.at(-1) ?? { content: undefined, metadata: undefined }
    const after = turn(before)
    // Until we hear that it is done, either is right.
    promised.set(name, [before, after])
    await work()
    promised.set(name, [after])
  }

  function write(store: FileStore, name: string, promised: Promised, bytes: Buffer, offset?: number): Promise<void> {
    const turn = ({ content, ...rest }: State): State => {
      const from = offset ?? content!.length
      const after = Buffer.alloc(Math.max(content!.length, from + bytes.length))
      content!.copy(after)
      bytes.copy(after, from)
      return { ...rest, content: after }
    }
    return change(promised, name, turn, async () =>
      store.writeAppender(name, await fill(await store.receive(0, bytes.length, 'part'), bytes), offset),
    )
  }

  function truncate(store: FileStore, name: string, sizeBytes: number, promised: Promised): Promise<void> {
    const turn = (before: State) => ({ ...before, content: before.content!.subarray(0, sizeBytes) })
    return change(promised, name, turn, () => store.truncateAppender(name, sizeBytes))
  }

  function setMetadata(store: FileStore, name: string, metadata: string, promised: Promised): Promise<void> {
    const work = () => store.changeMetadata(name, async () => Buffer.from(metadata))
    return change(promised, name, before => ({ ...before, metadata }), work)
  }

  function remove(store: FileStore, name: string, promised: Promised): Promise<void> {
    return change(
      promised,
      name,
      () => ({ content: undefined, metadata: undefined }),
      () => store.delete(name),
    )
  }

  function createSlave(store: FileStore, name: string, content: Buffer, promised: Promised): Promise<void> {
    return change(
      promised,
      name,
      () => ({ content, metadata: undefined }),
      async () => store.createSlave(await fill(await store.receive(0, content.length, 'slave'), content), name),
    )
  }

  async function createAppender(store: FileStore, content: Buffer, promised: Promised): Promise<string> {
    const file = await fill(await store.receive(0, content.length, 'appender'), content)
    const { name } = await store.create(file, { extension: 'log', uploadId: undefined, isAppender: true })
    promised.set(name, [{ content, metadata: undefined }])
    return name
  }

  async function keep(store: FileStore, content: Buffer, promised: Promised): Promise<string> {
    const name = await upload(store, content)
    promised.set(name, [{ content, metadata: undefined }])
    return name
  }

  async function checkOn(disk: LazyDisk, promised: Promised, when: string): Promise<void> {
    const { store } = await openOn(disk)
    for (const [name, states] of promised) {
      const found = await stateOf(store, name)
      const isRight = states.some(state => isSame(state, found))
      const { content, metadata } = found
      if (!isRight) expect.fail(`${when}: ${name} has ${content?.length} bytes and metadata ${metadata}`)
      // What has happened once has happened: the next start must not take it back.
      promised.set(name, [found])
    }
    disk.die()
  }

  async function stateOf(store: FileStore, name: string): Promise<State> {
    const file = decodeFileName(name)
    const metadata = (await store.readMetadata(file))?.toString()
    return { content: await download(store, name), metadata }
  }

  async function openOn(disk: LazyDisk): Promise<Opened> {
    const clock = new VirtualClock()
    const world = { ...realWorld(), disk, clock }
    const options = { ...optionsOf(join(root, 'data')), segmentFileBytesMax: SEGMENT_FILE_BYTES_MAX }
    const { identity } = await openDirectory(world, options)
    return { store: await FileStore.open(world, new Timers(clock), silentLog(), options, identity), clock }
  }
})

function isSame(a: State, b: State): boolean {
  const isContent = a.content === undefined ? b.content === undefined : b.content?.equals(a.content) === true
  return isContent && a.metadata === b.metadata
}
