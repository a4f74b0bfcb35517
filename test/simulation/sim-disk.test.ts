import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { realDisk } from '../../runtime/real-disk.ts'
import type { Disk, DiskFile } from '../../runtime/world.ts'
import { type DiskHarness, diskContract, errnoOf, readWhole, writeNew } from './disk-contract.ts'
import { EventLoop } from './event-loop.ts'
import { Life } from './life.ts'
import { SeededRandom } from './seeded-random.ts'
import { SECTOR_BYTES } from './sim-content.ts'
import { SimDisk } from './sim-disk.ts'

/** Enough seeds that whatever may happen does. */
const SEEDS = 200

/** Enough where the work of a seed is random itself, and long. */
const LONG_SEEDS = 40

/** Random sequences that are compared with the real disk, and how long each is. */
const COMPARED_SEEDS = 25
const COMPARED_CALLS = 150

/** A machine with a disk and a process on it. */
class Machine {
  readonly loop = new EventLoop()
  readonly random: SeededRandom
  readonly sim: SimDisk
  life = new Life('first', 'machine')
  disk: Disk

  constructor(seed: number | string = 1, options?: { capacityBytes?: number }) {
    this.random = new SeededRandom(`disk ${seed}`)
    this.sim = new SimDisk(this.loop, this.random.fork('disk'), options)
    this.disk = this.sim.as(this.life)
  }

  /** Turns the loop until the work is done. */
  async run<T>(work: () => Promise<T>): Promise<T> {
    const done = work()
    const settled = done.then(
      () => this.loop.stop(),
      () => this.loop.stop(),
    )
    await this.loop.run(Number.POSITIVE_INFINITY)
    await Promise.race([settled, new Promise((_, reject) => setImmediate(() => reject(new Error('it never ends'))))])
    return done
  }

  /** Ends the process and starts another. */
  restart(): void {
    this.life.end('killed')
    this.boot()
  }

  powerCut(): void {
    this.life.end('power')
    this.sim.powerCut()
    this.boot()
  }

  boot(): void {
    this.life = new Life('next', 'machine')
    this.disk = this.sim.as(this.life)
  }

  text(path: string, view: 'now' | 'durable' = 'now'): string | undefined {
    return this.sim.read(path, view)?.toString('latin1')
  }

  /** All files and what is in them. */
  tree(): string {
    return this.sim
      .files('/')
      .map(path => `${path}=${this.text(path)}`)
      .join(' ')
  }
}

async function machineHarness(): Promise<DiskHarness> {
  const machine = new Machine()
  await machine.run(() => machine.disk.makeDirectory('/root'))
  return { disk: machine.disk, root: '/root', run: work => machine.run(work), remove: async () => {} }
}

async function realHarness(): Promise<DiskHarness> {
  const root = await mkdtemp(join(tmpdir(), 'natsdfs-disk-'))
  return { disk: realDisk, root, run: work => work(), remove: () => rm(root, { recursive: true }) }
}

diskContract('the real disk', realHarness)
diskContract('the real disk past the page cache', async () => {
  const harness = await realHarness()
  return { ...harness, disk: { ...realDisk, open: (path, mode) => realDisk.open(path, mode, 'direct') } }
})
diskContract('the simulated disk', machineHarness)

describe('the simulated disk, call by call', () => {
  for (let seed = 1; seed <= COMPARED_SEEDS; seed++) {
    it(`does what the real one does (seed ${seed})`, async () => {
      const logs: string[][] = []
      for (const make of [realHarness, machineHarness]) {
        const { disk, root, run, remove } = await make()
        try {
          logs.push(await run(() => randomCalls(disk, root, new SeededRandom(`calls ${seed}`))))
        } finally {
          await remove()
        }
      }
      const [real, simulated] = logs
      expect(simulated).to.deep.equal(real)
    })
  }
})

describe('the simulated disk at a power cut', () => {
  /** What there is after the power cuts of many seeds, each after the same work. */
  async function outcomes(
    work: (disk: Disk, machine: Machine) => Promise<unknown>,
    look = (machine: Machine): unknown => machine.tree(),
  ): Promise<Set<unknown>> {
    const seen = new Set<unknown>()
    for (let seed = 0; seed < SEEDS; seed++) {
      const machine = new Machine(seed)
      await machine.run(() => work(machine.disk, machine))
      machine.powerCut()
      seen.add(look(machine))
    }
    return seen
  }

  /** A durable file at `/f`, or elsewhere. */
  async function durable(disk: Disk, path: string, text: string): Promise<DiskFile> {
    const file = await disk.open(path, 'create')
    await file.write([Buffer.from(text, 'latin1')], 0)
    await file.sync()
    await disk.syncDirectory(path.slice(0, path.lastIndexOf('/')))
    return file
  }

  const set = (...values: unknown[]) => new Set(values)

  it('keeps what was synced, bytes and names', async () => {
    const seen = await outcomes(async disk => {
      await disk.makeDirectory('/a')
      await disk.syncDirectory('/')
      await durable(disk, '/a/f', 'kept')
    })
    expect(seen).to.deep.equal(set('/a/f=kept'))
  })

  it('may lose a file whose name was not synced, whatever was done for its bytes', async () => {
    const seen = await outcomes(async disk => {
      const file = await disk.open('/f', 'create')
      await file.write([Buffer.from('x')], 0)
      await file.sync()
    })
    expect(seen).to.deep.equal(set('', '/f=x'))
  })

  it('may lose the bytes of a file whose name was synced', async () => {
    const seen = await outcomes(async disk => {
      const file = await disk.open('/f', 'create')
      await file.write([Buffer.from('x')], 0)
      await disk.syncDirectory('/')
    })
    expect(seen).to.deep.equal(set('/f=', '/f=x', '/f=\0'))
  })

  it('keeps, loses or tears each unsynced write for itself, sector by sector', async () => {
    const write = (letter: string, sectors: number) => Buffer.alloc(sectors * SECTOR_BYTES, letter)
    const seen = (await outcomes(async disk => {
      const file = await durable(disk, '/f', 'a'.repeat(3 * SECTOR_BYTES))
      await file.write([write('b', 2)], SECTOR_BYTES)
      await file.write([write('c', 2)], 4 * SECTOR_BYTES)
    }, sectorsOf)) as Set<string>
    for (const sectors of seen) expect(sectors).to.match(/^a[ab][ab](0(cc|c|c0|0c|00))?$/)
    // Everything, nothing, either write alone, torn ones, and holes where the size came without the bytes.
    for (const sectors of ['abb0cc', 'aaa', 'abb', 'aaa0cc', 'aba', 'aab', 'abb0c', 'abb0c0', 'abb00c', 'abb000']) {
      expect([...seen]).to.include(sectors)
    }
  })

  it('has a hole where a lost write was, also if the file has grown since', async () => {
    const seen = await outcomes(async disk => {
      const file = await durable(disk, '/f', 'abcd')
      for (const [i, letter] of ['e', 'f', 'g'].entries()) {
        await file.write([Buffer.from(letter)], 4 + i)
        if (i === 0) await file.sync()
      }
    })
    expect(seen).to.deep.equal(set(...['', 'f', '\0', 'fg', '\0g', 'f\0', '\0\0'].map(end => `/f=abcde${end}`)))
  })

  it('may do or undo truncating that was not synced', async () => {
    const seen = await outcomes(async disk => {
      const file = await durable(disk, '/f', 'abcdef')
      await file.truncate(2)
    })
    expect(seen).to.deep.equal(set('/f=ab', '/f=abcdef'))
  })

  it('in some cuts loses all that is unsynced, in some keeps all', async () => {
    const names = ['1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C']
    const seen = await outcomes(async disk => {
      for (const name of names) await durable(disk, `/${name}`, 'old')
      for (const name of names) await disk.rename(`/${name}`, `/${name}~`)
    })
    expect([...seen]).to.include(names.map(name => `/${name}=old`).join(' '))
    expect([...seen]).to.include(names.map(name => `/${name}~=old`).join(' '))
    expect(seen.size).to.be.greaterThan(10)
  })

  it('does not count to a sync what took effect after it was called', async () => {
    const late = async (disk: Disk, { sim }: Machine) => {
      const file = await durable(disk, '/f', '')
      await file.write([Buffer.from('a')], 0)
      sim.faults.syncLatencyMs = [100, 100]
      const synced = file.sync()
      await file.write([Buffer.from('b')], 1)
      await synced
    }
    expect(await outcomes(late)).to.deep.equal(set('/f=a', '/f=ab', '/f=a\0'))
    const names = await outcomes(async (disk, { sim }) => {
      sim.faults.syncLatencyMs = [100, 100]
      await writeNew(disk, '/a', '')
      const synced = disk.syncDirectory('/')
      await writeNew(disk, '/b', '')
      await synced
    })
    expect(names).to.deep.equal(set('/a=', '/a= /b='))
  })

  it('leaves the old file or the new one, whole, when one was renamed over the other', async () => {
    const seen = await outcomes(async disk => {
      await durable(disk, '/f', 'old')
      await durable(disk, '/f.new', 'new')
      await disk.rename('/f.new', '/f')
    })
    expect(seen).to.deep.equal(set('/f=old /f.new=new', '/f=new'))
  })

  it('keeps a rename when either of its directories was synced', async () => {
    for (const synced of ['/from', '/to']) {
      const seen = await outcomes(async disk => {
        await disk.makeDirectory('/from')
        await disk.makeDirectory('/to')
        await disk.syncDirectory('/')
        await durable(disk, '/from/f', 'x')
        await disk.rename('/from/f', '/to/g')
        await disk.syncDirectory(synced)
      })
      expect(seen, synced).to.deep.equal(set('/to/g=x'))
    }
  })

  it('makes durable with a name what happened to its file and to that name before', async () => {
    const seen = await outcomes(async disk => {
      await disk.makeDirectory('/from')
      await disk.makeDirectory('/to')
      await disk.syncDirectory('/')
      const file = await disk.open('/from/f', 'create')
      await file.write([Buffer.from('x')], 0)
      await file.sync()
      await disk.rename('/from/f', '/from/g')
      await writeNew(disk, '/from/other', '')
      await disk.rename('/from/g', '/to/g')
      await disk.syncDirectory('/to')
    })
    expect(seen).to.deep.equal(set('/to/g=x', '/from/other= /to/g=x'))
  })

  it('never keeps a change without those before it of the same file and the same name', async () => {
    const seen = await outcomes(async disk => {
      await durable(disk, '/a', 'first')
      await disk.remove('/a')
      const second = await disk.open('/b', 'create')
      await second.write([Buffer.from('second')], 0)
      await second.sync()
      await disk.rename('/b', '/a')
      await disk.rename('/a', '/c')
    })
    expect(seen).to.deep.equal(set('/a=first', '/a=first /b=second', '', '/b=second', '/a=second', '/c=second'))
  })

  it('never keeps a new file without the rename that made room for it', async () => {
    const seen = await outcomes(async disk => {
      await durable(disk, '/a', 'first')
      await disk.rename('/a', '/b')
      await writeNew(disk, '/a', '')
    })
    expect(seen).to.deep.equal(set('/a=first', '/b=first', '/a= /b=first'))
  })

  it('may lose a new directory also if something was renamed in it', async () => {
    const seen = await outcomes(async disk => {
      await disk.makeDirectory('/new')
      await durable(disk, '/new/f~', 'x')
      await disk.rename('/new/f~', '/new/f')
      await disk.syncDirectory('/new')
    })
    expect(seen).to.deep.equal(set('', '/new/f=x'))
  })

  it('does not lose a file between two places when it was renamed into a new directory', async () => {
    for (const synced of [undefined, '/', '/from', '/to/new']) {
      const seen = await outcomes(async disk => {
        await disk.makeDirectory('/from')
        await disk.syncDirectory('/')
        await durable(disk, '/from/f', 'x')
        await disk.makeDirectory('/to/new')
        await disk.rename('/from/f', '/to/new/g')
        if (synced !== undefined) await disk.syncDirectory(synced)
      })
      const either = synced === undefined || synced === '/'
      expect(seen, synced).to.deep.equal(either ? set('/from/f=x', '/to/new/g=x') : set('/to/new/g=x'))
    }
  })

  it('has every durable file somewhere, once, whatever was renamed where', async () => {
    for (let seed = 0; seed < SEEDS; seed++) {
      const machine = new Machine(seed)
      const { sim, random, disk } = machine
      const paths = ['/a', '/b', '/c', '/a/a', '/a/b', '/b/a', '/b/b', '/b/a/a', '/c/a/b']
      for (const path of ['/a/1', '/b/2', '/b/a/3', '/c/4']) sim.write(path, Buffer.from(path.slice(-1)))
      await machine.run(async () => {
        for (let i = 0; i < 30; i++) {
          const [from, to] = [random.pick(paths), random.pick(paths)]
          // Onto something that is there is another story.
          if ((await disk.stat(to)) === undefined) await errnoOf(disk.rename(from, to))
          if (random.chance(0.2)) await errnoOf(disk.makeDirectory(random.pick(paths)))
          if (random.chance(0.2)) await errnoOf(disk.syncDirectory(random.pick(paths)))
        }
      })
      machine.powerCut()
      const found = sim.files('/').map(path => machine.text(path))
      expect(found, `seed ${seed}`).to.have.members(['1', '2', '3', '4'])
    }
  })

  it('may bring back a removed file', async () => {
    const seen = await outcomes(async disk => {
      await durable(disk, '/f', 'x')
      await disk.remove('/f')
    })
    expect(seen).to.deep.equal(set('', '/f=x'))
  })

  it('loses with a directory all that is in it, synced or not, unless the directory above was synced', async () => {
    const make = async (disk: Disk) => {
      await disk.makeDirectory('/a/b')
      await durable(disk, '/a/b/f', 'x')
      await disk.syncDirectory('/a')
    }
    expect(await outcomes(make)).to.deep.equal(set('', '/a/b/f=x'))
    const synced = await outcomes(async disk => {
      await make(disk)
      await disk.syncDirectory('/')
    })
    expect(synced).to.deep.equal(set('/a/b/f=x'))
  })

  it('loses for good what was unsynced when a sync failed, also if the next one succeeds', async () => {
    const seen = await outcomes(async (disk, { sim }) => {
      const file = await durable(disk, '/f', 'abc')
      await file.write([Buffer.from('X')], 0)
      sim.faults.syncError = 1
      expect(await errnoOf(file.sync())).to.equal('EIO')
      sim.faults.syncError = 0
      await file.write([Buffer.from('Z')], 2)
      await file.sync()
      expect(await readWhole(disk, '/f')).to.equal('XbZ')
    })
    expect(seen).to.deep.equal(set('/f=abZ'))
  })

  it('loses what was synced when syncs are lies', async () => {
    const seen = await outcomes(async (disk, { sim }) => {
      sim.syncIsLie = true
      await durable(disk, '/f', 'x')
    })
    expect([...seen]).to.include('')
    expect([...seen]).to.include('/f=')
  })

  it('leaves what it calls durable when it loses all it can', async () => {
    for (let seed = 0; seed < LONG_SEEDS; seed++) {
      const machine = new Machine(seed)
      const files = new Map<string, Written>()
      await machine.run(async () => {
        for (const name of ['a', 'b', 'c']) {
          const file = await durable(machine.disk, `/${name}`, '')
          files.set(`/${name}`, await randomWrites(file, machine.random))
        }
        for (const [path, { now }] of files) expect(await readWhole(machine.disk, path), `seed ${seed}`).to.equal(now)
      })
      for (const [path, { durable }] of files) expect(machine.text(path, 'durable'), `seed ${seed}`).to.equal(durable)
      machine.powerCut()
      for (const [path, { possible }] of files) {
        expect(machine.text(path, 'durable'), `seed ${seed}`).to.equal(machine.text(path))
        const bytes = [...machine.sim.read(path)!]
        expect(
          bytes.findIndex((byte, i) => !possible[i]?.has(byte)),
          `seed ${seed}: the first strange byte`,
        ).to.equal(-1)
      }
    }
  })

  it('has the same files in the same places after a second cut', async () => {
    for (let seed = 0; seed < LONG_SEEDS; seed++) {
      const machine = new Machine(seed)
      await machine.run(() => machine.disk.makeDirectory('/root'))
      await machine.run(() => randomCalls(machine.disk, '/root', machine.random.fork('calls')))
      machine.powerCut()
      const tree = machine.tree()
      machine.powerCut()
      expect(machine.tree(), `seed ${seed}`).to.equal(tree)
      for (const path of machine.sim.files('/')) await machine.run(() => readWhole(machine.disk, path))
      const free = await machine.run(() => machine.disk.space('/'))
      const used = machine.sim.files('/').reduce((sum, path) => sum + machine.sim.read(path)!.length, 0)
      expect(free.totalBytes - free.freeBytes, `seed ${seed}`).to.equal(used)
    }
  })

  it('is not to happen to a machine whose processes run', () => {
    const { sim } = new Machine()
    expect(() => sim.powerCut()).to.throw('first is still running')
  })
})

describe('the simulated disk when a process ends', () => {
  it('does what was under way, or does not, or in part, and settles nothing', async () => {
    const seen = new Set<string>()
    for (let seed = 0; seed < SEEDS; seed++) {
      const machine = new Machine(seed)
      const file = await machine.run(() => machine.disk.open('/f', 'create'))
      let settled = false
      const note = () => {
        settled = true
      }
      void file.write([Buffer.from('abc')], 0).then(note, note)
      void machine.disk.rename('/f', '/g').then(note, note)
      machine.restart()
      await machine.loop.run(1_000)
      expect(settled).to.equal(false)
      seen.add(machine.tree())
    }
    const texts = ['', 'a', 'ab', 'abc']
    expect(seen).to.deep.equal(new Set([...texts.map(text => `/f=${text}`), ...texts.map(text => `/g=${text}`)]))
  })

  it('may have part of a write under way among the unsynced ones when the power fails', async () => {
    const seen = new Set<string>()
    for (let seed = 0; seed < SEEDS; seed++) {
      const machine = new Machine(seed)
      const file = await machine.run(() => machine.disk.open('/f', 'create'))
      await machine.run(() => machine.disk.syncDirectory('/'))
      void file.write([Buffer.from('abc')], 0)
      machine.powerCut()
      seen.add(machine.tree())
    }
    for (const tree of ['/f=', '/f=a', '/f=ab', '/f=abc']) expect([...seen]).to.include(tree)
  })

  it('closes its files and frees its lock, and nobody else loses anything', async () => {
    const machine = new Machine()
    const other = new Life('other', 'machine')
    const mine = await machine.run(async () => {
      await machine.disk.open('/f', 'create')
      await machine.disk.open('/f', 'read')
      await machine.disk.lock('/')
      expect(machine.sim.openHandles(machine.life)).to.equal(2)
      expect(await errnoOf(machine.sim.as(other).lock('/'))).to.equal('EEXIST')
      return machine.sim.as(other).open('/f', 'update')
    })
    const ended = machine.life
    machine.restart()
    expect(machine.sim.openHandles(ended)).to.equal(0)
    expect(machine.sim.openHandles(other)).to.equal(1)
    await machine.run(async () => {
      expect(await machine.disk.list('/')).to.have.members(['f', 'lock'])
      const lock = await machine.disk.lock('/')
      expect(await lock.held()).to.equal(true)
      await mine.write([Buffer.from('x')], 0)
    })
    expect(machine.text('/f')).to.equal('x')
  })

  it('gives back the room of a removed file that only the process had open', async () => {
    const machine = new Machine(1, { capacityBytes: 10 })
    const freeBytes = () => machine.run(async () => (await machine.disk.space('/')).freeBytes)
    await machine.run(async () => {
      await writeNew(machine.disk, '/f', 'x')
      await machine.disk.open('/f', 'read')
      await machine.disk.remove('/f')
    })
    expect(await freeBytes()).to.equal(9)
    machine.restart()
    expect(await freeBytes()).to.equal(10)
  })

  it('does not fill a buffer that nobody waits for', async () => {
    for (let seed = 0; seed < SEEDS; seed++) {
      const machine = new Machine(seed)
      machine.sim.write('/f', Buffer.from('x'))
      const file = await machine.run(() => machine.disk.open('/f', 'read'))
      const target = Buffer.alloc(1)
      void file.read(target, 0)
      machine.restart()
      await machine.loop.run(1_000)
      expect(target[0]).to.equal(0)
    }
  })

  it('closes a file after what was under way, however long that takes', async () => {
    for (let seed = 0; seed < SEEDS; seed++) {
      const machine = new Machine(seed)
      await machine.run(async () => {
        const file = await machine.disk.open('/f', 'create')
        await Promise.all([file.write([Buffer.from('x')], 0), file.sync(), file.close()])
      })
      expect([machine.text('/f'), machine.sim.openHandles(machine.life)]).to.deep.equal(['x', 0])
    }
  })

  it('takes effect when the call ends, so that a buffer used again too early shows', async () => {
    const machine = new Machine()
    await machine.run(async () => {
      const file = await machine.disk.open('/f', 'create')
      const buffer = Buffer.from('good')
      const written = file.write([buffer], 0)
      buffer.write('evil')
      await written
      buffer.write('none')
    })
    expect(machine.text('/f')).to.equal('evil')
  })

  it('does calls of one process in any order', async () => {
    const seen = new Set<string>()
    for (let seed = 0; seed < SEEDS; seed++) {
      const machine = new Machine(seed)
      await machine.run(async () => {
        const file = await machine.disk.open('/f', 'create')
        await Promise.all(['a', 'b', 'c'].map(letter => file.write([Buffer.from(letter)], 0)))
      })
      seen.add(machine.tree())
    }
    expect(seen).to.deep.equal(new Set(['/f=a', '/f=b', '/f=c']))
  })
})

describe('the simulated disk with faults', () => {
  it('fails as often as it was told, where it was told', async () => {
    const machine = new Machine()
    const { sim, disk } = machine
    await machine.run(async () => {
      const good = await disk.open('/good', 'create')
      const bad = await disk.open('/bad', 'create')
      Object.assign(sim.faults, {
        readError: 1,
        writeError: 1,
        syncError: 1,
        renameError: 1,
        openError: 1,
        removeError: 1,
      })
      sim.faults.faultPath = /bad/
      const calls = (file: DiskFile, path: string) => [
        () => file.read(Buffer.alloc(1), 0),
        () => file.write([Buffer.from('x')], 0),
        () => file.truncate(0),
        () => file.sync(),
        () => disk.rename(path, `${path}2`),
        () => disk.rename(`${path}2`, path),
        () => disk.open(path, 'read'),
        () => disk.remove(path),
      ]
      for (const call of calls(good, '/good')) expect(await errnoOf(call()), `${call}`).to.equal(undefined)
      for (const call of calls(bad, '/bad')) expect(await errnoOf(call()), `${call}`).to.equal('EIO')
      sim.faults.readError = 0.5
      const errnos = await Promise.all(Array.from({ length: 400 }, () => errnoOf(bad.read(Buffer.alloc(1), 0))))
      expect(errnos.filter(errno => errno === 'EIO').length).to.be.within(150, 250)
    })
  })

  it('leaves any prefix of a write that fails', async () => {
    const seen = new Set<string>()
    for (let seed = 0; seed < SEEDS; seed++) {
      const machine = new Machine(seed)
      await machine.run(async () => {
        const file = await machine.disk.open('/f', 'create')
        machine.sim.faults.writeError = 1
        expect(await errnoOf(file.write([Buffer.from('abc')], 0))).to.equal('EIO')
      })
      seen.add(machine.tree())
    }
    expect(seen).to.deep.equal(new Set(['/f=', '/f=a', '/f=ab', '/f=abc']))
  })

  it('takes nothing more when it is full, except in place of something', async () => {
    const machine = new Machine()
    const { sim, disk } = machine
    await machine.run(async () => {
      await disk.makeDirectory('/d')
      const file = await disk.open('/f', 'create')
      await file.write([Buffer.from('abcd')], 0)
      sim.faults.full = true
      expect(await errnoOf(disk.open('/g', 'create'))).to.equal('ENOSPC')
      expect(await errnoOf(disk.open('/f', 'create'))).to.equal('EEXIST')
      expect(await errnoOf(disk.makeDirectory('/d/e'))).to.equal('ENOSPC')
      expect(await errnoOf(file.write([Buffer.from('CDEF')], 2))).to.equal('ENOSPC')
      expect(await errnoOf(file.truncate(5))).to.equal('ENOSPC')
      expect((await disk.space('/')).freeBytes).to.equal(0)
      await disk.makeDirectory('/d')
      await file.write([Buffer.from('XYZ')], 0)
      await file.sync()
      await disk.rename('/f', '/g')
      expect(await readWhole(disk, '/g')).to.match(/^XYZ[dD]$/)
      sim.faults.full = false
      await file.write([Buffer.from('!')], 4)
    })
  })

  it('has as much room as it was made with, and gets it back from files that are gone and closed', async () => {
    const machine = new Machine(1, { capacityBytes: 10 })
    const { disk } = machine
    await machine.run(async () => {
      const freeBytes = async () => (await disk.space('/')).freeBytes
      const file = await disk.open('/f', 'create')
      await file.write([Buffer.from('abcdefgh')], 0)
      expect(await freeBytes()).to.equal(2)
      expect(await errnoOf(file.write([Buffer.from('ABCDEFGHIJK')], 0))).to.equal('ENOSPC')
      expect(await file.sizeBytes()).to.be.within(8, 10)
      await file.truncate(10)
      expect(await freeBytes()).to.equal(0)
      await disk.remove('/f')
      expect(await freeBytes()).to.equal(0)
      await file.close()
      expect(await disk.space('/')).to.deep.equal({ totalBytes: 10, freeBytes: 10 })
    })
  })

  it('puts misdirected writes elsewhere in the same file, and tells nobody', async () => {
    const seen = new Set<string>()
    for (let seed = 0; seed < SEEDS; seed++) {
      const machine = new Machine(seed)
      machine.sim.faults.misdirected = 1
      machine.sim.faults.misdirectedPath = /bad/
      await machine.run(async () => {
        for (const path of ['/good', '/bad']) {
          const file = await machine.disk.open(path, 'create')
          await file.truncate(3 * SECTOR_BYTES)
          await file.write([Buffer.alloc(SECTOR_BYTES, 'x')], 2 * SECTOR_BYTES)
        }
      })
      expect(sectorsOf(machine, '/good')).to.equal('00x')
      seen.add(sectorsOf(machine, '/bad'))
    }
    expect(seen).to.deep.equal(new Set(['x00', '0x0', '00x', 'x0x', '0xx']))
  })

  it('grows a file as told when the bytes land elsewhere', async () => {
    const seen = new Set<string>()
    for (let seed = 0; seed < SEEDS; seed++) {
      const machine = new Machine(seed)
      machine.sim.write('/f', Buffer.alloc(SECTOR_BYTES, 'a'))
      machine.sim.faults.misdirected = 1
      await machine.run(async () => {
        const file = await machine.disk.open('/f', 'update')
        await file.write([Buffer.alloc(SECTOR_BYTES, 'x')], SECTOR_BYTES)
      })
      seen.add(sectorsOf(machine))
    }
    expect(seen).to.deep.equal(new Set(['x0', 'ax', 'xx']))
  })

  it('takes its time', async () => {
    const machine = new Machine()
    const { sim, disk, loop } = machine
    Object.assign(sim.faults, { latencyMs: [10, 10], syncLatencyMs: [100, 100] })
    await machine.run(async () => {
      const file = await disk.open('/f', 'create')
      expect(loop.nowMs).to.be.closeTo(10, 0.001)
      await file.sync()
      expect(loop.nowMs).to.be.closeTo(110, 0.001)
      sim.faults.slow = 50
      await disk.syncDirectory('/')
      expect(loop.nowMs).to.be.closeTo(5_110, 0.001)
    })
  })
})

describe('the simulated disk as a thing', () => {
  it('leaves an empty directory where a path vanished, until it is back', async () => {
    const machine = new Machine()
    const { sim, disk } = machine
    await machine.run(async () => {
      await disk.makeDirectory('/disks/a/d')
      await writeNew(disk, '/disks/a/d/f', 'x')
      const open = await disk.open('/disks/a/d/f', 'update')
      const elsewhere = await disk.open('/elsewhere', 'create')
      const { inode } = (await disk.stat('/disks/a'))!
      sim.vanish('/disks/a')
      sim.vanish('/disks/a')
      expect(await errnoOf(open.read(Buffer.alloc(1), 0))).to.equal('EIO')
      expect(await errnoOf(open.sync())).to.equal('EIO')
      expect(await errnoOf(disk.open('/disks/a/d/f', 'read'))).to.equal('ENOENT')
      expect(await disk.list('/disks/a')).to.deep.equal([])
      expect(await disk.stat('/disks/a')).to.include({ kind: 'directory' })
      expect((await disk.stat('/disks/a'))!.inode).not.to.equal(inode)
      await elsewhere.write([Buffer.from('still here')], 0)
      await disk.makeDirectory('/disks/a/d')
      await writeNew(disk, '/disks/a/d/shadow', 'y')
      sim.reappear('/disks/a')
      sim.reappear('/disks/a')
      expect(await disk.list('/disks/a/d')).to.deep.equal(['f'])
      expect(await readWhole(disk, '/disks/a/d/f')).to.equal('x')
      expect(await errnoOf(open.sync())).to.equal('EIO')
      await open.close()
      expect((await disk.stat('/disks/a'))!.inode).to.equal(inode)
      const { totalBytes, freeBytes } = await disk.space('/')
      expect(totalBytes - freeBytes).to.equal('x'.length + 'still here'.length)
    })
  })

  it('loses what was unsynced on a path that vanished before a power cut', async () => {
    const seen = new Set<string>()
    for (let seed = 0; seed < SEEDS; seed++) {
      const machine = new Machine(seed)
      await machine.run(async () => {
        await machine.disk.makeDirectory('/disks/a')
        await writeNew(machine.disk, '/disks/a/f', '')
      })
      machine.sim.vanish('/disks/a')
      machine.powerCut()
      expect(machine.tree()).to.equal('')
      machine.sim.reappear('/disks/a')
      seen.add(machine.tree())
    }
    expect(seen).to.deep.equal(new Set(['', '/disks/a/f=']))
  })

  it('takes away with a path what a power cut brought back to it', async () => {
    const errnos = new Set<string | undefined>()
    for (let seed = 0; seed < SEEDS; seed++) {
      const machine = new Machine(seed)
      machine.sim.write('/disks/a/f', Buffer.from('x'))
      await machine.run(() => machine.disk.rename('/disks/a/f', '/f'))
      machine.powerCut()
      const [path] = machine.sim.files('/')
      const file = await machine.run(() => machine.disk.open(path!, 'read'))
      machine.sim.vanish('/disks/a')
      const errno = await machine.run(() => errnoOf(file.read(Buffer.alloc(1), 0)))
      expect(errno).to.equal(path === '/f' ? undefined : 'EIO')
      errnos.add(errno)
    }
    expect(errnos.size).to.equal(2)
  })

  it('is empty when it was replaced, and what was open on the old one fails', async () => {
    const machine = new Machine()
    const { sim, disk } = machine
    await machine.run(async () => {
      const file = await disk.open('/f', 'create')
      await file.write([Buffer.from('x')], 0)
      const lock = await disk.lock('/')
      await disk.remove('/f')
      sim.replace()
      expect(await errnoOf(file.write([Buffer.from('x')], 0))).to.equal('EIO')
      expect(await lock.held()).to.equal(false)
      expect(await disk.list('/')).to.deep.equal([])
      await file.close()
      const { totalBytes, freeBytes } = await disk.space('/')
      expect(freeBytes).to.equal(totalBytes)
      expect(sim.openHandles(machine.life)).to.equal(0)
    })
  })

  it('can be looked at and meddled with from outside', async () => {
    const machine = new Machine()
    const { sim, disk } = machine
    const changes: string[] = []
    sim.onChange = what => changes.push(what)
    sim.write('/a/b/f', Buffer.from('durable'))
    sim.write('/a/g', Buffer.from('long'))
    sim.write('/a/g', Buffer.from('x'))
    await machine.run(() => writeNew(disk, '/a/b/e', 'unsynced'))
    expect(sim.files('/')).to.deep.equal(['/a/b/e', '/a/b/f', '/a/g'])
    expect(sim.files('/a/b')).to.deep.equal(['/a/b/e', '/a/b/f'])
    expect([...sim.files('/none'), ...sim.files('/a/g/x')]).to.deep.equal([])
    expect([machine.text('/a/g'), machine.text('/a/g', 'durable')]).to.deep.equal(['x', 'x'])
    expect([machine.text('/a/b/e'), machine.text('/a/b/e', 'durable')]).to.deep.equal(['unsynced', undefined])
    expect([machine.text('/none'), machine.text('/a'), machine.text('/a/g/x')]).to.deep.equal([
      ...[undefined, undefined, undefined],
    ])
    const { totalBytes, freeBytes } = await machine.run(() => disk.space('/'))
    expect(totalBytes - freeBytes).to.equal('durable'.length + 'x'.length + 'unsynced'.length)
    await machine.run(() => disk.rename('/a/g', '/a/h'))
    expect(changes).to.deep.equal([
      'overwrite /a/b/f with 7 bytes',
      'overwrite /a/g with 4 bytes',
      'overwrite /a/g with 1 bytes',
      'create /a/b/e',
      'write /a/b/e 0+8',
      'rename /a/g -> /a/h',
    ])
  })

  it('flips one bit of what is there, now and after a power cut', async () => {
    for (let seed = 0; seed < SEEDS; seed++) {
      const machine = new Machine(seed)
      const { sim, disk } = machine
      sim.write('/f', Buffer.from('abcd'))
      await machine.run(async () => {
        const file = await disk.open('/f', 'update')
        await file.write([Buffer.from('EF')], 4)
      })
      sim.write('/g', Buffer.from('abcd'))
      expect(sim.flipBit('/g', machine.random)).to.equal(true)
      for (const view of ['now', 'durable'] as const) expect(flippedBits(sim.read('/g', view)!, 'abcd')).to.equal(1)
      expect(sim.flipBit('/f', machine.random)).to.equal(true)
      expect(flippedBits(sim.read('/f')!, 'abcdEF')).to.equal(1)
      expect(flippedBits(sim.read('/f', 'durable')!, 'abcd')).to.be.at.most(1)
      const now = machine.text('/f')!
      machine.powerCut()
      const left = machine.text('/f')!
      // A write that was lost takes the flip with it.
      if (left.length === 6 && !left.includes('\0')) expect(left, `seed ${seed}`).to.equal(now)
      else expect(left.slice(0, 4), `seed ${seed}`).to.equal(now.slice(0, 4))
    }
    const { sim } = new Machine()
    sim.write('/empty', Buffer.alloc(0))
    expect(sim.flipBit('/empty', new SeededRandom('x'))).to.equal(false)
    expect(sim.flipBit('/none', new SeededRandom('x'))).to.equal(false)
  })

  it('does the same again with the same seed, and something else with another', async () => {
    const run = async (seed: number) => {
      const machine = new Machine(seed)
      const changes: string[] = []
      machine.sim.onChange = what => changes.push(what)
      Object.assign(machine.sim.faults, { writeError: 0.1, syncError: 0.1, openError: 0.05, misdirected: 0.1 })
      await machine.run(() => machine.disk.makeDirectory('/root'))
      for (let round = 0; round < 5; round++) {
        await machine.run(() => randomCalls(machine.disk, '/root', machine.random.fork(`calls ${round}`)))
        for (let i = 0; i < 10; i++) void machine.disk.makeDirectory(`/root/${round}/${i}`).catch(() => {})
        if (round % 2 === 0) machine.restart()
        else machine.powerCut()
      }
      return { changes, tree: machine.tree(), hash: machine.loop.hash, atMs: machine.loop.nowMs }
    }
    expect(await run(1)).to.deep.equal(await run(1))
    expect(await run(1)).not.to.deep.equal(await run(2))
  })
})

/** One letter for each sector of a file, 0 for zeroes, ? for a mixture. */
function sectorsOf(machine: Machine, path = '/f'): string {
  const bytes = machine.sim.read(path)!
  let letters = ''
  for (let at = 0; at < bytes.length; at += SECTOR_BYTES) {
    const sector = bytes.subarray(at, at + SECTOR_BYTES)
    const letter = sector.every(byte => byte === sector[0]) ? String.fromCharCode(sector[0]!) : '?'
    letters += letter === '\0' ? '0' : letter
  }
  return letters
}

function flippedBits(bytes: Buffer, text: string): number {
  let count = 0
  for (const [i, byte] of Buffer.from(text).entries()) {
    for (let difference = byte ^ bytes[i]!; difference > 0; difference >>= 1) count += difference & 1
  }
  return count
}

/** What is in a file after calls that all have ended. */
interface Written {
  readonly now: string
  readonly durable: string
  /** What a power cut may leave of each byte: what was synced, what was written since, or a hole. */
  readonly possible: readonly Set<number>[]
}

/** Writes, truncates and syncs one file, beside a model that is too simple to be wrong. */
async function randomWrites(file: DiskFile, random: SeededRandom): Promise<Written> {
  let now: number[] = []
  let durable: number[] = []
  let possible: Set<number>[] = []
  const put = (at: number, byte: number) => {
    while (now.length < at) put(now.length, 0)
    now[at] = byte
    possible[at] = (possible[at] ?? new Set([0])).add(byte).add(0)
  }
  for (let i = 0; i < 30; i++) {
    const offsetBytes = random.below(2_000)
    const action = random.below(10)
    if (action < 6) {
      const bytes = random.bytes(random.below(1_500))
      await file.write([bytes], offsetBytes)
      bytes.forEach((byte, j) => {
        put(offsetBytes + j, byte)
      })
    } else if (action < 8) {
      await file.truncate(offsetBytes)
      now = now.slice(0, offsetBytes)
      if (offsetBytes > now.length) put(offsetBytes - 1, 0)
    } else {
      await file.sync()
      durable = [...now]
      possible = now.map(byte => new Set([byte]))
    }
  }
  return { now: Buffer.from(now).toString('latin1'), durable: Buffer.from(durable).toString('latin1'), possible }
}

/** Makes calls one after another; returns what came of each, and the whole tree at the end. */
async function randomCalls(disk: Disk, root: string, random: SeededRandom): Promise<string[]> {
  const log: string[] = []
  const files: (DiskFile | undefined)[] = [undefined, undefined, undefined, undefined]
  const somewhere = () => Array.from({ length: 1 + random.below(3) }, () => random.pick(['a', 'b', 'c'])).join('/')
  const at = (path: string) => `${root}/${path}`
  for (let i = 0; i < COMPARED_CALLS; i++) {
    const slot = random.below(files.length)
    const file = files[slot]
    const path = somewhere()
    const to = somewhere()
    const number = random.below(3_000)
    const bytes = random.bytes(1 + random.below(40))
    const mode = random.pick(['read', 'create', 'create', 'update'] as const)
    const calls: Record<string, () => Promise<unknown>> = {
      open: async () => {
        const opened = await disk.open(at(path), mode)
        await files[slot]?.close()
        files[slot] = opened
      },
      rename: () => disk.rename(at(path), at(to)),
      remove: () => disk.remove(at(path)),
      makeDirectory: () => disk.makeDirectory(at(path)),
      list: async () => (await disk.list(at(path))).sort(),
      stat: () => statOf(disk, at(path)),
      syncDirectory: () => disk.syncDirectory(at(path)),
    }
    if (file !== undefined) {
      Object.assign(calls, {
        write: () => file.write([bytes, bytes], number),
        append: async () => file.write([bytes], await file.sizeBytes()),
        read: async () => {
          const target = Buffer.alloc(number)
          const count = await file.read(target, bytes.length)
          return target.toString('latin1', 0, count)
        },
        truncate: () => file.truncate(number),
        sync: () => file.sync(),
        close: () => file.close(),
      })
    }
    const [name, call] = random.pick(Object.entries(calls))
    const arguments_ = `${slot} ${path} ${to} ${mode} ${number} ${bytes.toString('hex')}`
    log.push(`${i} ${name} ${arguments_}: ${await outcomeOf(call())}`)
  }
  for (const file of files) await file?.close()
  await logTree(disk, root, '', log)
  return log
}

async function outcomeOf(work: Promise<unknown>): Promise<string> {
  let value: unknown
  const errno = await errnoOf(
    work.then(result => {
      value = result
    }),
  )
  return errno ?? JSON.stringify(value) ?? 'done'
}

async function statOf(disk: Disk, path: string): Promise<unknown> {
  const entry = await disk.stat(path)
  return entry?.kind === 'file' ? `file of ${entry.sizeBytes}` : entry?.kind
}

async function logTree(disk: Disk, root: string, below: string, log: string[]): Promise<void> {
  for (const name of (await disk.list(root + below)).sort()) {
    const path = `${below}/${name}`
    const entry = await disk.stat(root + path)
    log.push(`${path} ${entry?.kind === 'file' ? await outcomeOf(readWhole(disk, root + path)) : entry?.kind}`)
    if (entry?.kind === 'directory') await logTree(disk, root, path, log)
  }
}
