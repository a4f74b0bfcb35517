import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect } from 'chai'
import { realWorld } from '../../runtime/real-world.ts'
import { readCheckpoint, writeCheckpoint } from '../../store/checkpoint.ts'
import { Workshop } from './store-fixture.ts'

describe('checkpoint', () => {
  const { disk } = realWorld()
  let workshop: Workshop

  beforeEach(async () => {
    workshop = await Workshop.make()
  })
  afterEach(() => workshop.remove())

  const position = { storageId: 9, epoch: 1, sequence: 5, timeMs: 77 }
  const incomplete = { ...position, storageId: 10, incomplete: true }
  const slots = { storePathIndex: 0, segmentId: 2 ** 20 + 1, endBytes: 64 }

  it('that is missing is the beginning', async () => {
    expect(await readCheckpoint(disk, workshop.path, 3)).to.deep.equal({
      epoch: 3,
      sequence: 0,
      ownEnd: 0,
      timeMs: 0,
      positions: [],
      slots: [],
      reopened: [],
      current: false,
      damaged: false,
    })
  })

  it('that is damaged is the beginning, too, and says so', async () => {
    await writeFile(join(workshop.path, 'checkpoint'), 'not a checkpoint')
    const found = await readCheckpoint(disk, workshop.path, 3)
    expect(found).to.include({ sequence: 0, current: false, damaged: true })
  })

  it('is read as it was written', async () => {
    const checkpoint = {
      epoch: 3,
      sequence: 42,
      ownEnd: 40,
      timeMs: 99,
      positions: [position, incomplete],
      slots: [slots],
      reopened: [{ storePathIndex: 0, segmentId: 5 }],
    }
    await writeCheckpoint(disk, workshop.path, checkpoint)
    expect(await readCheckpoint(disk, workshop.path, 3)).to.deep.include(checkpoint)
  })

  it('of another epoch is the beginning of this one, but keeps what was applied of peers and the last time', async () => {
    await writeCheckpoint(disk, workshop.path, {
      epoch: 3,
      sequence: 42,
      ownEnd: 40,
      timeMs: 99,
      positions: [position],
      slots: [slots],
      reopened: [],
    })
    const read = await readCheckpoint(disk, workshop.path, 4)
    expect(read).to.deep.include({ epoch: 4, sequence: 0, timeMs: 99, positions: [position], slots: [] })
  })
})
