import { expect } from 'chai'
import { realWorld } from '../../runtime/real-world.ts'
import { DocumentDamagedError, writeDocument } from '../../store/durable-document.ts'
import { openIdentity, WrongIdentityError, writeIdentity } from '../../store/identity.ts'
import { rejection, Workshop } from './store-fixture.ts'

describe('identity of a data directory', () => {
  const { disk, random } = realWorld()
  let workshop: Workshop

  beforeEach(async () => {
    workshop = await Workshop.make()
  })
  afterEach(() => workshop.remove())

  const open = (storageId: number | undefined, group = 'group1') =>
    openIdentity(disk, random, 1_700_000_000_500, workshop.path, { storageId, group }, 2 ** 24 - 1)

  it('is made at the first start and counts every start', async () => {
    const first = await open(7)
    expect(first).to.include({ storageId: 7, group: 'group1', bootCount: 1, epoch: 1 })
    expect(first.incarnation).to.match(/^[0-9a-f]{32}$/)
    const second = await open(7)
    expect(second).to.include({ ...first, bootCount: 2 })
    expect(await open(undefined)).to.include({ ...first, bootCount: 3 })
  })

  it('has a random id unless one is wanted, and keeps it', async () => {
    const first = await open(undefined)
    expect(first.storageId).to.be.within(1, 2 ** 24 - 1)
    expect((await open(undefined)).storageId).to.equal(first.storageId)
  })

  it('is refused to another id or another group, and is not changed by that', async () => {
    const first = await open(7)
    expect(await rejection(open(8))).to.be.instanceOf(WrongIdentityError)
    expect(await rejection(open(7, 'group2'))).to.be.instanceOf(WrongIdentityError)
    expect(await open(7)).to.include({ ...first, bootCount: 2 })
  })

  it('is refused in a version nobody knows', async () => {
    await writeDocument(disk, `${workshop.path}/identity`, { version: 2, storageId: 7, group: 'group1' })
    expect(await rejection(open(7))).to.be.instanceOf(DocumentDamagedError)
  })

  it('keeps a raised epoch', async () => {
    const first = await open(7)
    await writeIdentity(disk, workshop.path, { ...first, epoch: 5 })
    expect(await open(7)).to.include({ epoch: 5, bootCount: 2, incarnation: first.incarnation })
  })
})
